//! The operations that change the machine: each takes a request and returns a report. Operations print
//! nothing; `commands` turns reports into text.
//!
//! ```text
//! records ◀─ state ◀─ waiting ◀─ watchdog        the folder, and what waits in it
//!    step ◀─ transaction ◀───────┘               one change, all of it or nothing
//!            apply, rollback, remove, confirm    the changes of the loaded rules
//!            trial, packets, flows               connections with the new rules, and connections that exist
//!            persist, saved, boot, next_boot     the rules of the next boot
//!            repair                              the saved rules again, after others have flushed them
//!            adopt                               foreign rules that a change takes out, and their way back
//!            history                             the changes made so far
//!            interrupted                         a change whose nvactl was killed
//! ```
//!
//! The room must not know the command line or YAML. A remark is a finished sentence; `commands` decides the
//! layout of a report.
//!
//! Start here:
//! - another step of `apply`: `apply`, and `transaction` for what is undone when it fails;
//! - another warning before a change: `warn`; another refusal: `refusal`;
//! - another fact to record: `records` for the value, `state` for its file;
//! - another line of the system log: `log`;
//! - the rules that a boot loads: `saved` for the record, `boot` for the unit's run, `next_boot` for a look ahead;
//! - the connections that `apply` tries first: `trial`, and `packets` for its words; `flows` for connections
//!   that exist;
//! - the list of changes: `history`.

pub mod adopt;
pub mod apply;
pub mod boot;
mod commit;
pub mod confirm;
mod ending;
mod error;
pub mod flows;
pub mod history;
mod interrupted;
pub mod load_trial;
mod log;
mod look;
mod machine;
pub mod next_boot;
mod note_v6;
mod outcome;
mod outdated;
mod packets;
pub mod persist;
pub mod records;
mod refusal;
mod remark;
pub mod remove;
pub mod repair;
pub mod rollback;
pub mod saved;
pub mod splice;
pub mod state;
mod step;
mod transaction;
mod undone_flows;
pub mod waiting;
mod warn;
mod watchdog;

pub use error::{Error, Failed, describe};
pub use interrupted::name_interrupted;
pub use look::{Ahead, families};
pub use machine::MachineToChange;
pub use outcome::{ChangeOutcome, Difference};
pub use refusal::Refusal;
pub use remark::{Remark, Remarks};
pub use transaction::TransactionError;
pub use watchdog::watch;

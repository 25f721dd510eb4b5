//! The form of a spec: its keys and values as types of serde, and the JSON Schema that comes of them.
//!
//! nvactl does not read a spec by these types, since it reports every problem at its place. They serve editors, by
//! [`schema`], and tests, which compare nvactl's reader with another one.
//!
//! The schema accepts the specs that nvactl accepts, and refuses a mistake that one value or one mapping shows. It
//! does not compare entries, look at files, or compute with addresses. Two kinds of valid specs need an edit for it:
//! text that YAML takes for something else, such as an interface `7` or a description `true`, needs quotes, and a range of
//! one port in a test, such as `10.224.0.118:80-80`, has to be that port.
//!
//! An editor shows the doc comment of a field at the key. It shows the first description that it finds, so a type whose
//! fields describe it has none in the schema. It completes a key by the type that stands there, so the field of a
//! mapping has its type beside the reference.
//!
//! Start here:
//! - a new key: its field here, with a doc comment; its values in `value`;
//! - another rule between the keys of a mapping: in `rules`.

mod firewall;
mod forward;
mod options;
mod outbound;
mod packet_test;
mod pattern;
mod rules;
mod schema;
mod spec;
mod value;

pub use firewall::{FirewallForm, InterfaceForm, MssForm, SnatForm};
pub use forward::{BalanceForm, ForwardForm, OptionsForm, ProtocolForm, TargetForm};
pub use options::{LimitsForm, LogDetailsForm, LogForm};
pub use outbound::OutboundForm;
pub use packet_test::TestForm;
pub use schema::schema;
pub use spec::{NetworksForm, SpecForm};
pub use value::{OneOrMany, PortForm};

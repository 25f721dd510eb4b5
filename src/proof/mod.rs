//! The proof that rules say the same: the kernel answers for both.
//!
//! Connections that old rules name are opened through copies with these rules, and through copies with those that come in
//! their place. A connection that ends differently is a difference, and the remarks of the import that explain it
//! are beside it. `nvactl import` proves a draft so, and `nvactl apply --adopt` that it may take rules out.

mod asking;
mod changed_end;
mod clients;
mod named;
mod old_rules;
mod prove;
mod reasons;
mod time_left;

pub use asking::connections;
pub use prove::{CopyRules, NotOpened, Proof, ProofDifference, ProofError, ProofPlan, prove};

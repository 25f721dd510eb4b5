//! The checked model of a spec: the firewall machine, its forwards and its tests.
//!
//! A [`ForwardSet`] is valid by construction, so no other code checks it again. Plan, diff, twin, health
//! and ops all work with it.
//!
//! The room must not know YAML, problems of a text, rules or the machine.
//!
//! Start here:
//! - a new option of a forward: its field and type in `forward`, then `yaml` to read and check it,
//!   `plan::forward` for its rules, `plan::unplan` to read them back, `plan::explain` for its words,
//!   and `diff::drift::fields` for its name in a comparison;
//! - the forward that takes or redirects a connection: [`Listeners`];
//! - the outbound entries that may decide on a connection: [`Entries`].

mod description;
mod entries;
mod forward;
mod listeners;
mod numbers;
mod outbound;
mod packet_test;
mod pieces;
mod set;
mod siblings;
mod sources;
mod suggest;

pub use description::{Description, LineError, TestName};
pub use entries::{Decider, Entries};
pub use forward::{
    Balance, Destination, Firewall, Forward, ForwardPolicy, ForwardTarget, Layout, Limits, Listen,
    Log, Logged, Name, NameError, Per, Rate, Snat, Snats, TargetKind, TargetPorts,
};
pub use listeners::Listeners;
pub use numbers::Numbers;
pub use outbound::{
    Destinations, GUARDED, INTERNET, METADATA, Outbound, OutboundProtocol, internet_v6, joined,
    not_internet_v4, share_one_nic,
};
pub use packet_test::{PacketTest, Reaches, TestDestination, TestHost, TestPlace};
pub use pieces::{listeners_of, reached, reached_of, rows};
pub use set::ForwardSet;
pub use siblings::need_ingress_match;
pub use sources::{Nets, Sources};
pub use suggest::suggested;

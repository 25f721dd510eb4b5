//! Addresses, ports, protocols, interfaces and address families, and a container for one value of
//! each family.
//!
//! A type that a spec or a command line names has `FromStr` and `Display`, and the two are inverses.
//!
//! The room must not know rules, forwards or the machine.
//!
//! Start here:
//! - another kind of address that no host can have: [`not_a_host`];
//! - one value for each family, and the families that a command works on: [`per_family`];
//! - text from outside nvactl, shown on a terminal: [`printable`];
//! - counts and lists in messages: [`words`]; messages on GitHub: [`workflow`].

mod address;
mod family;
mod interface;
pub mod per_family;
mod port;
pub mod printable;
mod protocol;
pub mod words;
pub mod workflow;

pub use address::{AZURE_HOST, AddressRange, AddressRangeError, Host, not_a_host};
pub use family::Family;
pub use interface::{Interface, InterfaceError};
pub use port::{Port, PortError, PortRange};
pub use protocol::{Protocol, ProtocolError};

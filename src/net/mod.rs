//! Addresses, ports, protocols, interfaces and address families, and the pair of values of both
//! families.
//!
//! Every type here is read by `FromStr` and printed by `Display`, and the two are inverses.
//!
//! The room must not know rules, forwards or the machine.
//!
//! Start here:
//! - another kind of address that no host has: [`not_a_host`];
//! - a value of each family, and the families that a command touches: [`per_family`];
//! - text of others on a terminal: [`printable`]; counts and lists in messages: [`words`].

mod address;
mod family;
mod interface;
pub mod per_family;
mod port;
pub mod printable;
mod protocol;
pub mod words;

pub use address::{AZURE_HOST, AddressRange, AddressRangeError, Host, not_a_host};
pub use family::Family;
pub use interface::{Interface, InterfaceError};
pub use port::{Port, PortError, PortRange};
pub use protocol::{Protocol, ProtocolError};

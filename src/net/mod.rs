//! The words of a packet filter that are not rules: interface names, ports and
//! port ranges, protocols, address families and ranges, and the kinds of address that matter to a
//! forward.
//!
//! Every type here is read by `FromStr` and printed by `Display`, and the two are inverses.

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

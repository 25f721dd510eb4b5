//! The reasons why no connection can be traced.

use std::net::IpAddr;

use thiserror::Error;

use crate::net::Family;
use crate::twin::connection::PlaceError;

#[derive(Debug, Error)]
pub enum TraceError {
    #[error("`{0}` has no port, and a connection by tcp or udp needs one")]
    NoPort(IpAddr),
    #[error("a ping has no port")]
    PortOfPing,
    #[error("the client {client} and the destination {to} are of different families")]
    Families { client: IpAddr, to: IpAddr },
    #[error("the client has an {client} address, and these are {family} rules")]
    OtherRules { client: Family, family: Family },
    #[error("`{name}` holds commands of iptables, and `trace` reads a spec or iptables-save text")]
    Commands { name: String, argument: String },
    #[error(transparent)]
    Place(#[from] PlaceError),
}

impl TraceError {
    /// Returns the fix.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NoPort(address) => {
                format!("name it: --to {}:443", crate::net::Host(*address))
            }
            Self::PortOfPing => "name an address alone: --to 192.0.2.80".to_owned(),
            Self::Families { .. } => "name two addresses of one family".to_owned(),
            Self::OtherRules { family, .. } => {
                format!(
                    "name a client and a destination with {family} addresses, or the file with the other rules"
                )
            }
            Self::Commands { argument, .. } => {
                format!("to read commands: nvactl import {argument}")
            }
            Self::Place(
                PlaceError::NoSide { known, .. } | PlaceError::NoInterface { known, .. },
            ) => {
                let known: Vec<String> = known.iter().map(|name| format!("--in {name}")).collect();
                format!(
                    "name the interface by which it comes in: {}",
                    known.join(", ")
                )
            }
            Self::Place(PlaceError::NoAddress { .. }) => {
                "name the address: --to 203.0.113.10:443".to_owned()
            }
        }
    }
}

//! The reasons why no connection can be traced.

use std::io;
use std::net::IpAddr;

use thiserror::Error;

use crate::host::user_namespace::UserNamespaceError;
use crate::net::Family;
use crate::net::words::with_causes;
use crate::twin::TwinError;

#[derive(Debug, Error)]
pub enum TraceError {
    #[error("`{0}` has no port, and a connection by tcp or udp needs one")]
    NoPort(IpAddr),
    #[error("a ping has no port")]
    PortOfPing,
    #[error("the client {client} and the destination {to} are of different families")]
    Families { client: IpAddr, to: IpAddr },
    #[error("no interface leads to the client {0}")]
    NoSide(IpAddr),
    #[error("there is no interface `{name}` that carries packets")]
    NoInterface { name: String, known: Vec<String> },
    #[error("`{interface}` has no {family} address that the client could connect to")]
    NoAddress { interface: String, family: Family },
    #[error(transparent)]
    Namespaces(#[from] UserNamespaceError),
    #[error("no connection can be tried in a copy of the machine: {}", with_causes(.0))]
    Twin(#[from] TwinError),
    #[error("no thread could be started")]
    Thread(#[source] io::Error),
}

impl TraceError {
    /// Returns the fix.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoPort(address) => {
                Some(format!("name it: --to {}:443", crate::net::Host(*address)))
            }
            Self::PortOfPing => Some("name an address alone: --to 192.0.2.80".to_owned()),
            Self::Families { .. } => Some("name two addresses of one family".to_owned()),
            Self::NoSide(_) => {
                Some("name the interface by which it comes in: --in eth0".to_owned())
            }
            Self::NoInterface { known, .. } => {
                let known: Vec<String> = known.iter().map(|name| format!("--in {name}")).collect();
                Some(format!("one of these: {}", known.join(", ")))
            }
            Self::NoAddress { .. } => Some("name the address: --to 203.0.113.10:443".to_owned()),
            Self::Namespaces(error) => Some(error.hint()),
            Self::Twin(_) | Self::Thread(_) => None,
        }
    }
}

//! One connection to be opened for a forward or an outbound entry.

use std::fmt;
use std::net::SocketAddr;

use ipnet::IpNet;

use crate::forwards::{Destination, Forward, Limits, Name, Outbound, Snat};
use crate::net::{Family, Interface, Port, Protocol};
use crate::twin::clients::SampleClient;
use crate::twin::talk::Question;

/// A connection to be opened.
#[derive(Debug, Clone)]
pub struct Ask<'f> {
    pub of: Subject<'f>,
    pub client: SampleClient,
    /// The interface by which the client comes in.
    pub by: &'f Interface,
    pub wanted: Wanted,
    pub question: Question,
    /// The most times that it is opened, until each of several targets was seen.
    pub times: usize,
    /// Whether it is one of the few that every subject gets. They come before the rest of all subjects.
    pub is_brief: bool,
    /// Whether it is opened only until each of the forward's targets was seen.
    pub is_spare: bool,
    /// The end for which it was chosen, if rules of others name that end.
    pub named: Option<NamedEnd>,
}

/// A destination or a port that a rule of others, or a policy rule, names. A rule may ban it on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedEnd {
    Destination(IpNet),
    Port(Protocol, Port),
}

impl fmt::Display for NamedEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NamedEnd::Destination(net) => write!(f, "connections to {net}"),
            NamedEnd::Port(protocol, port) => write!(f, "connections to {protocol} port {port}"),
        }
    }
}

/// The part of a spec that a connection is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject<'f> {
    Forward(&'f Forward),
    Outbound(&'f Outbound),
}

impl<'f> Subject<'f> {
    #[must_use]
    pub fn name(self) -> &'f Name {
        match self {
            Subject::Forward(forward) => &forward.name,
            Subject::Outbound(entry) => &entry.name,
        }
    }

    #[must_use]
    pub fn family(self) -> Family {
        match self {
            Subject::Forward(forward) => forward.family(),
            Subject::Outbound(entry) => entry.family,
        }
    }

    #[must_use]
    pub fn egress(self) -> &'f Interface {
        match self {
            Subject::Forward(forward) => &forward.egress,
            Subject::Outbound(entry) => &entry.egress,
        }
    }

    #[must_use]
    pub fn snat(self) -> Snat {
        match self {
            Subject::Forward(forward) => forward.snat,
            Subject::Outbound(entry) => entry.snat,
        }
    }

    #[must_use]
    pub fn limits(self) -> Option<Limits> {
        match self {
            Subject::Forward(forward) => forward.limits,
            Subject::Outbound(entry) => entry.limits,
        }
    }

    /// Returns the word for the host that answers: the target of a forward, a server for an outbound entry.
    #[must_use]
    pub fn far_end(self) -> &'static str {
        match self {
            Subject::Forward(_) => "target",
            Subject::Outbound(_) => "server",
        }
    }

    /// Returns a key that tells the subjects of one spec apart. Several forwards may have one name.
    #[must_use]
    pub fn key(self) -> *const () {
        match self {
            Subject::Forward(forward) => std::ptr::from_ref(forward).cast(),
            Subject::Outbound(entry) => std::ptr::from_ref(entry).cast(),
        }
    }
}

/// The end of a connection that the spec wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Through,
    KeptOut,
}

/// Returns the address and port to which a destination maps a port of the listener.
pub fn reached(forward: &Forward, at: &Destination, port: Port) -> SocketAddr {
    let number = forward.port_at(at, port).number();
    SocketAddr::new(at.address, number)
}

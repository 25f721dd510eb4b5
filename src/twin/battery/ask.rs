//! One connection to be opened for a forward.

use std::net::SocketAddr;

use crate::forwards::{Destination, Forward, TargetPorts};
use crate::net::{Interface, Port};
use crate::twin::clients::SampleClient;
use crate::twin::talk::Question;

/// A connection to be opened for a forward.
#[derive(Debug, Clone)]
pub struct Ask<'f> {
    pub forward: &'f Forward,
    pub client: SampleClient,
    /// The interface by which the client comes in.
    pub by: &'f Interface,
    pub wanted: Wanted,
    pub question: Question,
    /// The most times that it is opened, until each of several targets was seen.
    pub times: usize,
    /// Whether it is one of the few that every forward gets. They come before the rest of all forwards.
    pub is_brief: bool,
    /// Whether it is opened only until each of the forward's targets was seen.
    pub is_spare: bool,
}

/// The end of a connection that the spec wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Through,
    KeptOut,
}

/// Returns the address and port to which a destination maps a port of the listener.
pub fn reached(forward: &Forward, at: &Destination, port: Port) -> SocketAddr {
    let number = match at.ports {
        TargetPorts::Kept => port.number(),
        TargetPorts::Range(ports) if ports.count() == 1 => ports.first().number(),
        TargetPorts::Range(ports) => {
            let offset = port.number() - forward.listen.ports.first().number();
            ports.first().number() + offset
        }
    };
    SocketAddr::new(at.address, number)
}

//! A trace with the facts about the copy.

use std::net::IpAddr;

use crate::twin::traced::TracedConnection;

/// A traced connection, and the facts about the copy that a reader needs to judge it.
pub struct Traced {
    pub connection: TracedConnection,
    /// The interfaces of a machine that is made up, with their addresses and networks.
    pub made_up: Vec<String>,
    /// Private addresses of the connection that the machine which is made up does not have or know.
    pub strangers: Vec<IpAddr>,
    /// The things that the copy lacks.
    pub left_out: Vec<String>,
    /// The rules that the packets met and whose effect in the copy is not that on the machine.
    pub unknown: Vec<String>,
}

//! A client whose connections are tried.

use std::net::IpAddr;

use ipnet::IpNet;

/// The most networks of one kind from which a client is taken.
pub const MOST: usize = 8;

/// A client that is made up, or copied from a live connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleClient {
    pub address: IpAddr,
    pub kind: ClientKind,
}

/// The reason for which a client is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientKind {
    /// Any client of the Internet.
    Somebody,
    /// A network on the link of an ingress interface, or behind a router there.
    Near(IpNet),
    /// A network of a list in the spec.
    Listed(IpNet),
    /// The client is connected now.
    Seen,
    /// A network that a rule of others, or a policy rule, names.
    Named(IpNet),
}

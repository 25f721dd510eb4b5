//! The packets of one connection, as far as their path is known.

use std::net::IpAddr;

use super::connection_end::Reached;
use crate::net::Family;

/// The addresses and interfaces of a connection's packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPath<'p> {
    pub client: IpAddr,
    /// The address that the client connects to.
    pub to: IpAddr,
    /// `None` for a packet of the machine itself.
    pub ingress: Option<&'p str>,
    /// The host that was reached, and its interface.
    pub reached: Option<(Reached, &'p str)>,
}

impl KnownPath<'_> {
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.client)
    }

    /// Returns the sources of the request before and after translation.
    pub fn sources(&self) -> impl Iterator<Item = IpAddr> {
        let after = self.reached.iter().map(|(reached, _)| reached.source.ip());
        after.chain([self.client])
    }

    /// Returns the destinations of the request before and after translation.
    pub fn destinations(&self) -> impl Iterator<Item = IpAddr> {
        let after = self.reached.iter().map(|(reached, _)| reached.target.ip());
        after.chain([self.to])
    }

    /// Returns whether packets pass an interface.
    #[must_use]
    pub fn passes(&self, interface: &str) -> bool {
        let egress = self.reached.iter().map(|(_, name)| *name);
        egress.chain(self.ingress).any(|name| name == interface)
    }
}

//! The facts from which a machine is made up, whether they come from a spec or from rules.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::net::{Family, Interface, PortRange, Protocol};

/// The facts from which a machine is made up.
#[derive(Debug, Default)]
pub struct Outline<'s> {
    /// In the order of the numbers in made-up addresses.
    pub interfaces: Vec<Interface>,
    pub families: Vec<Family>,
    /// Addresses of the machine with their interfaces. If two interfaces have one address, the first one gets it.
    pub addresses: Vec<(Interface, IpAddr)>,
    /// Interfaces that need an address of a family before all others, although they may have some.
    pub further: Vec<(Family, Interface)>,
    /// Interfaces whose link has no other hosts.
    pub alone: Vec<(Family, Interface)>,
    /// Networks behind interfaces, the most important ones first.
    pub behind: Vec<(IpNet, Interface)>,
    /// Packets that must leave by a certain interface.
    pub demands: Vec<Demand<'s>>,
    /// The interface of the default route of each family.
    pub default: Vec<(Family, Interface)>,
}

impl Outline<'_> {
    /// Adds an interface, unless it is known.
    pub fn add_interface(&mut self, interface: &Interface) {
        if !self.interfaces.contains(interface) {
            self.interfaces.push(interface.clone());
        }
    }
}

/// Packets that come in by one interface and must leave by another one, for a forward or an outbound entry to work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand<'s> {
    pub came: &'s Interface,
    /// The sources. Empty: any.
    pub from: Cow<'s, [IpNet]>,
    pub to: IpNet,
    pub service: Option<Service>,
    pub by: &'s Interface,
}

/// The ports of packets, by which the routes to one network can differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    pub protocol: Protocol,
    pub ports: PortRange,
    pub end: End,
}

/// The end of a connection whose ports are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The ports are those of the packet's source.
    Source,
    /// The ports are those of the packet's destination.
    Destination,
}

//! A spec as written: each value read and placed, but not yet compared with the others.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::fields::Placed;
use super::nets::ByFamily;
use super::options::{Interfaces, Options, WrittenDestinations, WrittenLog};
use super::problem::{Code, Span};
use crate::forwards::{
    Description, Destination, ForwardPolicy, Layout, Limits, Listen, Name, OutboundProtocol,
    PacketTest, Snats, TargetKind,
};
use crate::net::{Family, Interface, PortRange, Protocol};
use crate::netfilter::target::Mss;

/// A spec as written. `None` if a value is missing, or invalid and reported.
#[derive(Debug, Default)]
pub struct WrittenSpec {
    pub description: Option<Description>,
    pub interfaces: Option<Interfaces>,
    pub snat: Option<Placed<Snats>>,
    pub mss: Option<Mss>,
    pub forward_policy: Option<ForwardPolicy>,
    /// The value of `forward_policy`, or else the key `firewall`.
    pub forward_policy_span: Option<Span>,
    /// `None` for `auto` too.
    pub layout: Option<Layout>,
    pub forwards: Vec<WrittenForward>,
    pub outbound: Vec<WrittenOutbound>,
    /// The codes that are silenced for the whole spec.
    pub silence: Vec<Code>,
    /// In the order of the file, without those that have a problem, which was reported.
    pub tests: Vec<WrittenTest>,
    /// The first byte of the last key `tests`.
    pub tests_key: Option<usize>,
    /// The names of networks that no list and no test has, each with its place.
    pub unused_networks: Vec<(String, Span)>,
}

impl WrittenSpec {
    /// Returns the interfaces that the spec names, tests apart. Entries that are switched off count.
    pub fn interfaces(&self) -> BTreeSet<&Interface> {
        let forwards = self.forwards.iter().map(|one| &one.options.interfaces);
        let outbound = self.outbound.iter().map(|one| &one.interfaces);
        let all = [&self.interfaces]
            .into_iter()
            .chain(forwards)
            .chain(outbound);
        let all = all.flatten().flat_map(|one| {
            let ingress = one.ingress.iter().flatten();
            ingress.chain(&one.egress)
        });
        all.collect()
    }

    /// Returns the forwards that are part of the plan.
    pub fn enabled(&self) -> impl Iterator<Item = &WrittenForward> {
        let forwards = self.forwards.iter();
        forwards.filter(|forward| forward.enabled != Some(false))
    }

    /// Returns the names of the forwards and outbound entries that are switched off.
    pub fn disabled(&self) -> impl Iterator<Item = &Name> {
        let forwards = self.forwards.iter().map(|one| (one.enabled, &one.name));
        let outbound = self.outbound.iter().map(|one| (one.enabled, &one.name));
        let disabled = forwards.chain(outbound);
        let disabled = disabled.filter(|(enabled, _)| *enabled == Some(false));
        disabled.filter_map(|(_, name)| Some(&name.as_ref()?.value))
    }
}

#[derive(Debug, Default)]
pub struct WrittenForward {
    pub name: Option<Placed<Name>>,
    pub description: Option<Description>,
    pub listen: Option<WrittenListen>,
    pub target: Option<WrittenTarget>,
    /// Whether it is part of the plan.
    pub enabled: Option<bool>,
    /// Its own options, and the defaults for those that it does not have.
    pub options: Options,
    /// Whether `snat` is its own, not a default.
    pub own_snat: bool,
    /// The codes that are silenced for this forward.
    pub silence: Vec<Code>,
}

impl WrittenForward {
    /// Returns the valid pieces of `listen`.
    pub fn pieces(&self) -> &[Placed<Listen>] {
        let listen = self.listen.as_ref();
        listen.map_or(&[], |listen| &listen.pieces)
    }
}

#[derive(Debug)]
pub struct WrittenListen {
    /// In the order of the file. Without the pieces that are invalid and reported.
    pub pieces: Vec<Placed<Listen>>,
    /// Whether it is written as a list, even of one piece.
    pub is_list: bool,
    /// The whole value.
    pub span: Span,
}

#[derive(Debug)]
pub struct WrittenTarget {
    pub kind: TargetKind,
    /// At least one.
    pub destinations: Vec<Placed<Destination>>,
}

/// An outbound entry as written. `None` if a value is missing, or invalid and reported.
#[derive(Debug, Default)]
pub struct WrittenOutbound {
    pub name: Option<Placed<Name>>,
    pub description: Option<Description>,
    /// Whether it is part of the plan.
    pub enabled: Option<bool>,
    pub allow_from: Option<Placed<ByFamily>>,
    pub allow_to: Option<Placed<WrittenDestinations>>,
    pub deny_from: Option<Placed<ByFamily>>,
    pub deny_to: Option<Placed<ByFamily>>,
    pub protocols: Option<Vec<OutboundProtocol>>,
    /// Whether the entry has the key `protocol`.
    pub own_protocol: bool,
    pub ports: Option<Placed<Vec<PortRange>>>,
    pub interfaces: Option<Interfaces>,
    pub snat: Option<Placed<Snats>>,
    pub limits: Option<Limits>,
    pub log: Option<WrittenLog>,
    /// Whether the entry sets the interface by which its packets leave.
    pub own_egress: bool,
    /// The codes that are silenced for this entry.
    pub silence: Vec<Code>,
}

/// A test as written.
#[derive(Debug)]
pub struct WrittenTest {
    pub value: PacketTest,
    pub span: Span,
    /// The place of the value of `in`.
    pub ingress: Option<Span>,
}

/// A forward has one listener for each of its protocols and each piece of its `listen`.
#[derive(Debug, Clone, Copy)]
pub struct Listener<'w> {
    pub forward: &'w WrittenForward,
    pub family: Family,
    pub protocol: Protocol,
    pub listen: &'w Placed<Listen>,
}

/// Returns the valid listeners of a forward.
pub fn listeners(forward: &WrittenForward) -> impl Iterator<Item = Listener<'_>> {
    let protocols = forward.options.protocols.into_iter().flatten();
    let target = forward.target.as_ref();
    let first = target.and_then(|target| target.destinations.first());
    forward.pieces().iter().flat_map(move |listen| {
        let address = listen.value.address.or(first.map(|to| to.value.address));
        protocols.clone().map(move |protocol| Listener {
            forward,
            family: address.map_or(Family::V4, Family::of),
            protocol: *protocol,
            listen,
        })
    })
}

impl Listener<'_> {
    /// Returns what two listeners must have in common to be able to clash over a port.
    pub fn place(&self) -> (Family, Protocol, Option<IpAddr>) {
        (self.family, self.protocol, self.listen.value.address)
    }

    pub fn name(&self) -> &str {
        let name = self.forward.name.as_ref();
        name.map_or("(no name)", |name| name.value.as_str())
    }
}

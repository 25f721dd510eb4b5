//! The tests of connections that outbound entries let out and that a forward's rules must leave alone.

use std::net::IpAddr;

use super::attempt::{About, Attempt};
use super::hosts::servers;
use super::numbered::{NetEnd, within};
use super::suggestion::Suggestion;
use crate::forwards::forward::Forward;
use crate::forwards::outbound::Outbound;
use crate::forwards::packet_test::{TestDestination, TestHost};
use crate::net::{Interface, Port, Protocol};

/// The most entries and networks that are looked at.
const MOST: usize = 8;

/// Adds a sender of an entry that asks the target itself, and one that asks another host at the listener's port.
pub fn suggest<'s>(forward: &'s Forward, by: &'s Interface, suggestion: &mut Suggestion<'s>) {
    let port = forward.listen.ports.first();
    let entries = suggestion.judge.entries(forward.family()).take(MOST);
    let entries: Vec<&Outbound> = entries.collect();
    let target = forward.target.destinations.first();
    let to_target = entries.iter().find_map(|entry| {
        let sender = EntrySender::of(entry, entry.ingress.first()?, suggestion)?;
        let to = target?;
        let port = forward.port_at(to, port);
        let is_let_out = sender.is_let_out(forward.protocol, to.address, port);
        is_let_out.then_some((sender, to.address, port))
    });
    if let Some((sender, address, port)) = to_target {
        let words = format!("a target of {}", forward.name);
        sender.asks(forward.protocol, (address, port), &words, suggestion);
    }
    let past = entries.iter().find_map(|entry| {
        let by = entry.ingress.iter().find(|one| *one == by)?;
        let sender = EntrySender::of(entry, by, suggestion)?;
        let nets = entry.allow_to.nets.as_slice().iter().take(MOST);
        let nets = nets.flat_map(|net| within(*net, NetEnd::First));
        let some = servers(forward.family()).chain(nets);
        let fits = |to| sender.is_let_out(forward.protocol, to, port);
        let server = suggestion.hosts.server(some, fits)?;
        Some((sender, server))
    });
    if let Some((sender, server)) = past {
        let words = format!("not the listener of {}", forward.name);
        sender.asks(forward.protocol, (server, port), &words, suggestion);
    }
}

/// A host that an entry lets out.
struct EntrySender<'s> {
    entry: &'s Outbound,
    from: IpAddr,
    ingress: &'s Interface,
}

impl<'s> EntrySender<'s> {
    fn of(
        entry: &'s Outbound,
        ingress: &'s Interface,
        suggestion: &mut Suggestion<'s>,
    ) -> Option<Self> {
        let nets = entry.allow_from.as_slice().iter().take(MOST);
        let some = nets.flat_map(|net| within(*net, NetEnd::First));
        let is_allowed = |from| entry.allow_from.contains(from) && !entry.deny_from.contains(from);
        Some(Self {
            entry,
            from: suggestion.hosts.client(ingress, some, is_allowed)?,
            ingress,
        })
    }

    fn is_let_out(&self, protocol: Protocol, to: IpAddr, port: Port) -> bool {
        let (entry, from) = (self.entry, self.from);
        entry.takes(protocol.into(), from, to, Some(port)) && !entry.refuses(from, to)
    }

    fn asks(
        &self,
        protocol: Protocol,
        (address, port): (IpAddr, Port),
        words: &str,
        suggestion: &mut Suggestion<'s>,
    ) {
        let host = TestHost {
            address,
            port: Some(port),
        };
        let attempt = Attempt {
            from: self.from,
            ingress: self.ingress,
            to: TestDestination::Host(host),
            protocol: protocol.into(),
        };
        let about = About {
            name: &self.entry.name,
            limits: self.entry.limits.as_ref(),
        };
        suggestion.passes(about, attempt, &format!("{protocol} to {host}, {words}"));
    }
}

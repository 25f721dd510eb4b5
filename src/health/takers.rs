//! Which forward or outbound entry a connection belongs to.

use crate::forwards::{Decider, Entries, ForwardSet, Listeners, Outbound, Snat};
use crate::host::network::Links;
use crate::net::{Family, Interface};
use crate::netfilter::conntrack::Flow;

/// The forwards and outbound entries of a set, and the connections that are theirs.
///
/// A connection is a forward's if the forward's DNAT leads to where it goes. It is an outbound entry's if nobody
/// redirects it, neither end is the machine itself, and the entry is the first that selects it on the interfaces that
/// the connection may take. A source that is an address of the machine shows the interface by which the connection
/// leaves.
#[derive(Debug)]
pub struct Takers<'s, 'm> {
    listeners: Listeners<'s>,
    entries: Entries<'s>,
    links: &'m Links,
}

impl<'s, 'm> Takers<'s, 'm> {
    #[must_use]
    pub fn new(set: &'s ForwardSet, links: &'m Links) -> Self {
        Self {
            listeners: Listeners::new(set),
            entries: Entries::new(set),
            links,
        }
    }

    /// Returns whether a forward or an outbound entry has the connection.
    #[must_use]
    pub fn has(&self, flow: &Flow) -> bool {
        self.listeners.leader(flow).is_some() || self.entry_of(flow).is_some()
    }

    /// Returns the outbound entry that has the connection: the first that would make it so, or else the first that
    /// would give it another new source. An entry that rewrites sources has no connection that keeps its own.
    #[must_use]
    pub fn entry_of(&self, flow: &Flow) -> Option<&'s Outbound> {
        let deciders = self.deciders(flow);
        let mut each = deciders.iter();
        let maker = each.find(|one| self.makes(one.entry, flow));
        let other = deciders.first().filter(|_| !flow.keeps_source());
        maker.or(other).map(|one| one.entry)
    }

    /// Returns whether the set may make such connections: to this target or destination, and with this source.
    #[must_use]
    pub fn make(&self, flow: &Flow) -> bool {
        if let Some(leader) = self.listeners.leader(flow) {
            return self.gives_source(leader.snat, &leader.egress, flow);
        }
        let deciders = self.deciders(flow);
        deciders.iter().any(|one| self.makes(one.entry, flow))
    }

    /// Returns whether a forward leads such connections to their target, with this source or another.
    #[must_use]
    pub fn lead(&self, flow: &Flow) -> bool {
        self.listeners.leader(flow).is_some()
    }

    /// Returns the outbound entries that may decide on a connection. There is none for a connection that is redirected
    /// or that has the machine itself as an end: such packets meet no rule of an entry.
    #[must_use]
    pub fn deciders(&self, flow: &Flow) -> Vec<Decider<'s>> {
        if is_redirected(flow) || self.ends_here(flow) {
            return Vec::new();
        }
        let mut deciders = self.entries.deciders(flow);
        if !flow.keeps_source() {
            let owner = self.links.owner(flow.reply_destination);
            // SNAT to an address can leave by an interface that does not have the address.
            deciders.retain(|one| {
                owner.is_none_or(|owner| owner.name == one.entry.egress.as_str())
                    || self.gives_source(one.entry.snat, &one.entry.egress, flow)
            });
        }
        deciders
    }

    /// Returns whether one end of a connection that no rule redirects is the machine itself.
    #[must_use]
    pub fn ends_here(&self, flow: &Flow) -> bool {
        // If the machine's addresses are unknown, each end of an untranslated connection may be the machine.
        let is_unknown = self.links.0.is_empty() && flow.keeps_source();
        let is_own = |address| self.links.owner(address).is_some();
        is_unknown || is_own(flow.source) || is_own(flow.destination)
    }

    fn makes(&self, entry: &Outbound, flow: &Flow) -> bool {
        accepts(entry, flow) && self.gives_source(entry.snat, &entry.egress, flow)
    }

    /// Returns whether these rules give a connection its source. Masquerading gives an address of the egress interface,
    /// and of IPv4 never a secondary one (`inet_select_addr` in `net/ipv4/devinet.c`). The machine's own packets keep
    /// their source.
    fn gives_source(&self, snat: Snat, egress: &Interface, flow: &Flow) -> bool {
        if self.links.owner(flow.source).is_some() {
            return true;
        }
        match snat {
            Snat::Client => flow.keeps_source(),
            Snat::Addresses(range) => {
                (range.first()..=range.last()).contains(&flow.reply_destination)
            }
            Snat::Masquerade => {
                let family = Family::of(flow.reply_destination);
                let link = self.links.get(egress);
                let addresses = link.into_iter().flat_map(|link| &link.addresses);
                let mut addresses = addresses
                    .filter(|one| Family::of(**one) == family)
                    .peekable();
                if addresses.peek().is_none() {
                    return !flow.keeps_source();
                }
                let is_secondary =
                    link.is_some_and(|link| link.secondary.contains(&flow.reply_destination));
                !is_secondary && addresses.any(|one| *one == flow.reply_destination)
            }
        }
    }
}

/// Returns whether DNAT gave the connection its destination.
#[must_use]
pub fn is_redirected(flow: &Flow) -> bool {
    flow.destination != flow.reply_source
}

/// Returns whether an outbound entry accepts the connection, its limits aside.
#[must_use]
pub fn accepts(entry: &Outbound, flow: &Flow) -> bool {
    entry.accepts(
        flow.protocol,
        flow.source,
        flow.destination,
        flow.destination_port,
    )
}

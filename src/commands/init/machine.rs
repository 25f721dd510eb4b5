//! The facts about the machine that a first spec needs.

use std::collections::{BTreeMap, BTreeSet};

use super::others::is_of_guests;
use crate::commands::host::{HostAccess, READ_WAIT};
use crate::forwards::{ForwardPolicy, Name, Numbers};
use crate::host::listening::{ListeningSocket, listening};
use crate::host::network::{self, Links, Packet, somebody};
use crate::host::{azure, require_root};
use crate::import::{Draft, KnownRoutes, RuleFate, import};
use crate::net::per_family::Families;
use crate::net::words::with_causes;
use crate::net::{Family, Port, PortRange};
use crate::netfilter::matches::{Match, PortsOf};
use crate::netfilter::names::TableName;
use crate::netfilter::negatable::Negatable::{Is, Not};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::Target;
use crate::plan::unplan::unplan;
use crate::twin::machine::live_networks;

/// The machine, as far as a first spec needs it.
#[derive(Debug)]
pub(super) struct FoundMachine {
    pub(super) links: Links,
    /// The interface of the default route of each family that has one.
    pub(super) default: BTreeMap<Family, String>,
    pub(super) listening: Vec<ListeningSocket>,
    pub(super) is_azure: bool,
    pub(super) rules: FoundRules,
}

/// The rules of the machine.
#[derive(Debug)]
pub(super) enum FoundRules {
    /// Only root can read them.
    NotRoot,
    /// They cannot be read, for this reason.
    Unread(String),
    Read {
        /// How many forwards and outbound entries an import would find.
        numbers: Numbers,
        /// Whether some of these are nvactl's own.
        with_own: bool,
        /// The policy that they need.
        policy: ForwardPolicy,
        /// The ports that these forwards, and rules of other programs, take.
        listeners: Vec<PortRange>,
    },
}

impl FoundMachine {
    /// Looks at this machine.
    pub(super) fn look(on: HostAccess<'_>) -> Self {
        let asked = Family::ALL.map(|family| Packet {
            to: somebody(family),
            came: None,
        });
        let routes = network::interfaces(&BTreeSet::from(asked));
        let routes = routes.into_iter();
        Self {
            links: network::links(),
            default: routes
                .map(|(packet, interface)| (Family::of(packet.to), interface))
                .collect(),
            listening: listening(),
            is_azure: azure::is_here(),
            rules: FoundRules::read(on),
        }
    }

    /// Returns whether nobody listens on a port, neither a program nor a forward that is there.
    pub(super) fn is_free(&self, port: Port) -> bool {
        let is_heard = self.listening.iter().any(|socket| socket.port == port);
        let is_forwarded = match &self.rules {
            FoundRules::Read { listeners, .. } => listeners.iter().any(|one| one.contains(port)),
            FoundRules::NotRoot | FoundRules::Unread(_) => false,
        };
        !is_heard && !is_forwarded
    }
}

impl FoundRules {
    fn read(on: HostAccess<'_>) -> Self {
        if require_root("init").is_err() {
            return FoundRules::NotRoot;
        }
        let live = match on.iptables(READ_WAIT).read_all(Families::Both) {
            Ok(live) => live,
            Err(error) => return FoundRules::Unread(with_causes(&error)),
        };
        let rules = Family::ALL.into_iter().filter_map(|family| {
            let live = live.get(family)?;
            Some((family, live.ruleset.clone()))
        });
        let rules: Vec<(Family, Ruleset)> = rules.collect();
        // The rules alone say which interface leads where if the routes are not known.
        let routes = live_networks().unwrap_or_default();
        let mut draft = import(&rules, &KnownRoutes(routes));
        let of_guests = entries_of_guests(&draft, &rules);
        let outbound = &mut draft.set.outbound;
        outbound.retain(|entry| !of_guests.contains(&entry.name));
        let own = rules.iter().filter_map(|(_, rules)| unplan(rules));
        let own: usize = own.map(|set| set.numbers().all()).sum();
        let forwards = draft.set.forwards.iter();
        let listeners = forwards.map(|one| one.listen.ports);
        let redirected = rules.iter().flat_map(|(_, rules)| redirected(rules));
        FoundRules::Read {
            numbers: draft.set.numbers(),
            with_own: own > 0,
            policy: draft.set.firewall.forward_policy,
            listeners: listeners.chain(redirected).collect(),
        }
    }
}

/// Returns the entries whose rules name an interface to containers or virtual machines: their program writes the rules.
fn entries_of_guests(draft: &Draft, rules: &[(Family, Ruleset)]) -> BTreeSet<Name> {
    let entries = draft.accounts.iter().filter_map(|account| {
        let RuleFate::Taken { entries, .. } = &account.fate else {
            return None;
        };
        let place = &account.place;
        let (_, rules) = rules.iter().find(|(family, _)| *family == place.family)?;
        names_guests(place.rule_in(rules)?).then_some(entries)
    });
    entries.flatten().cloned().collect()
}

fn names_guests(rule: &Rule) -> bool {
    rule.matches.iter().any(|condition| match condition {
        Match::Ingress(Is(one) | Not(one)) | Match::Egress(Is(one) | Not(one)) => {
            is_of_guests(&one.to_string())
        }
        _ => false,
    })
}

/// Returns the ports that rules redirect, such as those that Docker publishes.
fn redirected(rules: &Ruleset) -> impl Iterator<Item = PortRange> {
    let nat = rules
        .chains()
        .filter(|(table, ..)| *table == TableName::Nat);
    let rules = nat.flat_map(|(_, _, chain)| &chain.rules);
    let redirects = rules.filter(|rule| {
        let name = rule.target.as_ref().map(Target::name);
        matches!(name, Some("DNAT" | "REDIRECT"))
    });
    redirects.flat_map(|rule| rule.matches.iter().flat_map(destination_ports))
}

fn destination_ports(condition: &Match) -> Vec<PortRange> {
    match condition {
        Match::Tcp {
            destination: Some(Is(ports)),
            ..
        }
        | Match::Udp {
            destination: Some(Is(ports)),
            ..
        } => vec![*ports],
        Match::Multiport {
            of: PortsOf::Destination | PortsOf::Either,
            ports: Is(ports),
        } => ports.clone(),
        _ => Vec::new(),
    }
}

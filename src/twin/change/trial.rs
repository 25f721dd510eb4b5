//! The facts and the results of a trial.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::forwards::{Forward, ForwardSet, Listeners, Name, PacketTest};
use crate::host::network;
use crate::net::{Family, Port};
use crate::netfilter::conntrack::Flow;
use crate::netfilter::names::ChainName;
use crate::netfilter::ruleset::Ruleset;
use crate::plan::Hook;
use crate::twin::battery::{Ask, Subject};
use crate::twin::cause::{DecidingRule, Taken};
use crate::twin::clients::{Clients, NamedInRules};
use crate::twin::connection_end::ConnectionEnd;
use crate::twin::machine::Machine;
use crate::twin::packet_tests::{FailedPath, TestedPacket};
use crate::twin::rule_change::RuleChange;
use crate::twin::rules::PacketFilter;
use crate::twin::talk::{Question, Talker};
use crate::twin::verdict::Judged;

/// The facts of a trial.
#[derive(Debug)]
pub struct Trying<'f> {
    /// The forwards and outbound entries of each family after the change.
    pub sets: &'f [(Family, ForwardSet)],
    /// The forwards that are loaded.
    pub loaded: &'f [ForwardSet],
    /// The rules that are loaded, of each family.
    pub live: Vec<&'f Ruleset>,
    /// The live connections that this machine forwards outside the forwards, loaded or to be loaded, and outside the
    /// outbound entries to be loaded.
    pub others: Vec<&'f Flow>,
    /// The live connections, as examples of clients.
    pub flows: &'f [Flow],
    pub change: RuleChange,
    /// The tests of the spec.
    pub tests: &'f [PacketTest],
    pub deadline: Instant,
}

/// The results of a trial.
#[derive(Debug, Default)]
pub struct Tried<'f> {
    /// Connections that the change cuts off from their targets.
    pub lost: Vec<Judged<'f>>,
    /// For an outbound entry whose connections another entry decides on after the change, that entry.
    pub in_front: BTreeMap<&'f Name, &'f Name>,
    /// Connections that die after the change, and that died before it at one of several tries or at all of them.
    pub dead: Vec<Judged<'f>>,
    /// The tests of the spec that do not pass after the change.
    pub failed_tests: Vec<TestedPacket<'f>>,
    /// The paths of the first ones that failed, by their number in `failed_tests`.
    pub traces: BTreeMap<usize, FailedPath>,
    /// Connections that rules of others refused before the change, and that come through after it.
    pub opened: Vec<Opened<'f>>,
    /// Connections outside the forwards and outbound entries.
    pub others: Others<'f>,
    /// Forwards and outbound entries whose connections meet a rule whose effect the twin cannot know.
    pub unsure: Vec<Subject<'f>>,
    /// Connections whose replies leave by another interface than the one by which the client comes in.
    pub strayed: Vec<Judged<'f>>,
    /// For each connection that could not be opened, the reason.
    pub failed: Vec<String>,
    /// How many connections were not opened in time.
    pub not_asked: usize,
    /// How many networks of clients, which rules name or routes lead to, were left out.
    pub untried_networks: usize,
}

/// A connection that a rule refused.
#[derive(Debug)]
pub struct Opened<'f> {
    pub ask: Ask<'f>,
    pub rule: DecidingRule,
}

/// Connections outside the forwards and outbound entries that were opened again.
#[derive(Debug, Default)]
pub struct Others<'f> {
    /// Connections that pass before the change and not after it, with the cause.
    pub cut: Vec<(&'f Flow, Option<Taken>)>,
    /// Connections that pass after the change and not before it.
    pub opened: Vec<&'f Flow>,
    /// Connections that pass neither before nor after it, by a rule or policy that is known.
    pub dead: Vec<(&'f Flow, Taken)>,
    /// How many were not opened.
    pub left_out: usize,
}

/// A trial with the facts that follow from it.
#[derive(Debug)]
pub struct PreparedTrial<'f> {
    pub trying: &'f Trying<'f>,
    /// For each loaded set, the forward that takes a packet.
    listeners: Vec<Listeners<'f>>,
    /// For each family, the clients.
    pub clients: Vec<Clients>,
    /// The clients of the loaded outbound entries, for each loaded set that has some.
    pub loaded_clients: Vec<(&'f ForwardSet, Clients)>,
    /// Whether rules of others stand in front of one of nvactl's jumps, which the change moves to the front.
    pub puts_jump_first: bool,
}

pub fn prepared<'f>(
    trying: &'f Trying<'f>,
    machine: &Machine,
    filter: &PacketFilter,
) -> PreparedTrial<'f> {
    let named = NamedInRules::by(filter, machine);
    let interfaces = network::interfaces;
    let clients_of = |set: &'f ForwardSet, family| {
        Clients::of(set, family, machine, trying.flows, &named, interfaces)
    };
    let clients = trying.sets.iter();
    let clients = clients.map(|(family, set)| clients_of(set, *family));
    let loaded = trying.loaded.iter().filter_map(|set| {
        let family = set.outbound.first()?.family;
        Some((set, clients_of(set, family)))
    });
    PreparedTrial {
        trying,
        listeners: trying.loaded.iter().map(Listeners::new).collect(),
        clients: clients.collect(),
        loaded_clients: loaded.collect(),
        puts_jump_first: trying.live.iter().any(|live| !are_first(live)),
    }
}

/// Returns whether nvactl's jumps stand first in the chains that keep clients out.
fn are_first(live: &Ruleset) -> bool {
    let hooks = [Hook::Arriving, Hook::Passing];
    hooks.into_iter().all(|hook| {
        let chain = live.chain(hook.table(), &hook.builtin());
        let own = ChainName::from(hook.own());
        let mut rules = chain.into_iter().flat_map(|chain| &chain.rules);
        rules
            .next()
            .is_none_or(|rule| rule.leads_to() == Some(&own))
    })
}

/// Returns the loaded forwards that take the packets of a connection, with the port that it asks for.
pub fn takers<'f>(
    trial: &PreparedTrial<'f>,
    question: &Question,
) -> impl Iterator<Item = (&'f Forward, Port)> {
    let (to, protocol) = (question.to, question.protocol);
    trial.listeners.iter().filter_map(move |listeners| {
        let port = Port::new(to.port())?;
        let forward = listeners.taker(protocol, to.ip(), port)?;
        Some((forward, port))
    })
}

/// Returns whether a connection is answered. A connection that cannot be opened is not.
pub fn is_answered(talker: &mut Talker<'_>, question: &Question) -> bool {
    matches!(talker.ask(question), Ok(ConnectionEnd::Delivered(_)))
}

//! Gathers the facts of one family, and examines them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::commands::error::Result;
use crate::forwards::{Forward, ForwardSet, Listeners, Outbound, Snat};
use crate::health::connections::FlowFacts;
use crate::health::doctor::{
    self, Answers, BootFacts, Case, Check, Facts, RoutedClient, Works, questions,
};
use crate::health::probe::{Endpoint, Probed, probe, targets};
use crate::health::{sender, suspects};
use crate::host::iptables::Iptables;
use crate::host::network::{Links, ReplyPacket, somebody};
use crate::host::probe::{Expect, ProbeOutcome, Probing};
use crate::host::{azure, conntrack, managers, network, survey, sysctl};
use crate::net::{Family, Interface};
use crate::netfilter::backend::Backend;
use crate::netfilter::conntrack::Flow;
use crate::netfilter::counters::Counters;
use crate::netfilter::ruleset::Ruleset;
use crate::ops::confirm::pending_of;
use crate::ops::flows::once_led;
use crate::ops::next_boot::{look, unit_fault};
use crate::ops::state::State;
use crate::plan::MARKED;

/// The number of targets that are tried at once.
const JOBS: usize = 256;

/// The examination of one family.
pub struct FamilyInput<'e> {
    pub family: Family,
    /// The forwards and entries of this family; the user asked about those in `asked` and `entries`.
    pub set: &'e ForwardSet,
    pub asked: Vec<&'e Forward>,
    pub entries: &'e [Outbound],
    pub iptables: &'e Iptables,
    pub state: Option<&'e State>,
    pub apply: String,
    pub persist: String,
    pub doctor: String,
    pub folder: String,
}

/// The live facts of one family, before connections are tried in the copy of the machine.
pub struct GatheredFacts<'e> {
    pub of: FamilyInput<'e>,
    pub live: Ruleset,
    counters: Counters,
    backend: Backend,
    pub links: Links,
    pub flows: Option<Vec<Flow>>,
    answer_routes: BTreeMap<ReplyPacket, String>,
    pub probed: Vec<Probed<'e>>,
}

impl<'e> FamilyInput<'e> {
    pub fn gather(self, timeout: f64, probes_until: Instant) -> Result<GatheredFacts<'e>> {
        let (family, iptables) = (self.family, self.iptables);
        let read = iptables.read_counted(family)?;
        let backend = survey::find(iptables, family)?;
        let links = network::links().of(family);
        let flows = conntrack::flows(family).ok();
        let endpoints = some_of_each(&targets(&self.asked));
        let answers = flows
            .as_deref()
            .map(|flows| sender::questions(flows, self.set, &links));
        let mut answers = answers.unwrap_or_default();
        if family == Family::V4 && azure::is_here() {
            answers.extend(doctor::probe_questions(&self.asked, &links));
        }
        let answer_routes = network::answer_routes(&answers);
        let from = |endpoint: &Endpoint<'_>| own_source(endpoint, &links);
        let how = Probing {
            jobs: JOBS,
            timeout: Duration::from_secs_f64(timeout),
            count: 1,
            expect: Expect::Kept,
            until: Some(probes_until),
        };
        let to = |endpoint: &Endpoint<'_>| {
            let to = endpoint.to.or(endpoint.forward.target.destinations.first());
            to.map_or(somebody(family), |to| to.address)
        };
        let probed = probe_once(&endpoints, to, from, how);
        Ok(GatheredFacts {
            of: self,
            live: read.ruleset,
            counters: read.counters,
            backend,
            links,
            flows,
            answer_routes,
            probed,
        })
    }
}

impl GatheredFacts<'_> {
    pub fn examine(
        self,
        answers: &Result<Answers<'_>, String>,
        is_bare: bool,
    ) -> Result<(Vec<Check>, Works)> {
        let FamilyInput {
            family,
            set,
            asked,
            entries,
            iptables,
            state,
            apply,
            persist,
            doctor,
            folder,
        } = self.of;
        // After the targets were tried, the kernel knows their neighbours.
        let client = client(family, self.flows.as_deref(), set, &self.links);
        let own = |ingress: &Interface| self.links.addresses(ingress).first().copied();
        let mut packets = questions(&asked, client, own);
        packets.extend(doctor::outbound_questions(set));
        let flows = self.flows.as_deref().unwrap_or_default();
        let once = once_led(state, [&self.live])?;
        let of_flows = FlowFacts::new(&self.links, [(family, &self.live)]);
        let suspects = doctor::suspects(flows, &once, set, &of_flows);
        packets.extend(suspects::questions(&suspects));
        let routes = network::routes(family, &packets);
        let sides = set.interfaces();
        // IPv6 has neither a forwarding switch nor rp_filter for each interface.
        let v4 = sides.iter().copied().filter(|_| family == Family::V4);
        let forwards_from = |side| Some((side, sysctl::forwards_from(side)?));
        let other = survey::beside(iptables, family, self.backend)
            .map(|(other, rules)| (other, rules.map_err(|error| error.to_string())));
        let facts = Facts {
            backend: self.backend,
            live: &self.live,
            is_bare,
            counters: &self.counters,
            other,
            mark_rules: survey::mark_rules(family, MARKED.mask),
            ip_forward: sysctl::forwards(family)?,
            forwards_from: v4.filter_map(forwards_from).collect(),
            client,
            tracked: network::tracked(),
            once,
            flows: self.flows,
            links: self.links,
            answer_routes: self.answer_routes,
            routes,
            probed: &self.probed,
            answers,
            is_azure: azure::is_here(),
            pending: pending_of(state)?,
            boot: BootFacts {
                next: look(state, iptables, family, &self.live, set),
                unit: unit_fault(state),
                managers: managers::at_boot(|| self.backend == Backend::Nft),
            },
        };
        let case = Case {
            facts: &facts,
            set,
            family,
            asked,
            entries,
            apply,
            persist,
            doctor,
            folder,
            iptables: iptables.backend.program(family, "iptables"),
        };
        let checks = doctor::examine(&case);
        let works = doctor::works(&case, &checks);
        Ok((checks, works))
    }
}

/// The most ports of a range that are tried: the first, the last, and some between.
const MOST_PORTS: usize = 64;

fn some_of_each<'s>(endpoints: &[Endpoint<'s>]) -> Vec<Endpoint<'s>> {
    let of_one =
        |a: &Endpoint<'s>, b: &Endpoint<'s>| std::ptr::eq(a.forward, b.forward) && a.to == b.to;
    let mut some = Vec::new();
    for all in endpoints.chunk_by(of_one) {
        let steps = all.len().min(MOST_PORTS);
        let last = all.len() - 1;
        some.extend((0..steps).map(|n| all[n * last / (steps - 1).max(1)]));
    }
    some
}

/// Tries an endpoint of many forwards once, so that no target is flooded.
fn probe_once<'s>(
    endpoints: &[Endpoint<'s>],
    to: impl Fn(&Endpoint<'s>) -> IpAddr,
    from: impl Fn(&Endpoint<'s>) -> Option<IpAddr>,
    how: Probing,
) -> Vec<Probed<'s>> {
    let key = |one: &Endpoint<'s>| (to(one), one.port, one.forward.protocol, from(one));
    let mut seen = BTreeSet::new();
    let different = endpoints.iter().filter(|one| seen.insert(key(one)));
    let different: Vec<Endpoint<'s>> = different.copied().collect();
    let probed = probe(&different, &to, &from, how);
    let tried: BTreeMap<_, &[ProbeOutcome]> = probed
        .iter()
        .map(|probed| (key(&probed.endpoint), probed.tries.as_slice()))
        .collect();
    let each = endpoints.iter().filter_map(|endpoint| {
        Some(Probed {
            endpoint: *endpoint,
            tries: tried.get(&key(endpoint))?.to_vec(),
        })
    });
    each.collect()
}

/// Returns the source address that a target sees, if it is an address of this machine.
pub fn own_source(endpoint: &Endpoint<'_>, links: &Links) -> Option<IpAddr> {
    match endpoint.forward.snat {
        Snat::Addresses(range) => Some(range.first()).filter(|own| links.owner(*own).is_some()),
        Snat::Masquerade | Snat::Client => None,
    }
}

/// Returns a client that is connected now, else one of the Internet.
fn client(family: Family, flows: Option<&[Flow]>, set: &ForwardSet, links: &Links) -> RoutedClient {
    let listeners = Listeners::new(set);
    // A hairpin's client may be the machine itself.
    let flows = flows.unwrap_or_default().iter();
    let mut flows = flows.filter(|flow| links.owner(flow.source).is_none());
    let led = flows.find(|flow| listeners.leader(flow).is_some());
    RoutedClient {
        address: led.map_or(somebody(family), |flow| flow.source),
        real: led.is_some(),
    }
}

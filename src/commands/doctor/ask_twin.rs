//! Tries the connections of forwards and outbound entries in a copy of this machine.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use super::gather::{GatheredFacts, own_source};
use crate::diff;
use crate::diff::drift::{PlacedRule, outbound_rules, rules_by_key};
use crate::forwards::{Forward, ForwardSet, Outbound};
use crate::health::doctor::{self, Answers};
use crate::health::probe::Endpoint;
use crate::host::network;
use crate::net::Family;
use crate::net::per_family::{Families, PerFamily};
use crate::netfilter::conntrack::Flow;
use crate::netfilter::counters::Counters;
use crate::netfilter::ruleset::Ruleset;
use crate::plan::unplan::plan_as;
use crate::twin::battery::{InDoubt, battery};
use crate::twin::clients::{Clients, NamedInRules};
use crate::twin::explain::{explain, kept_in};
use crate::twin::judge::ask;
use crate::twin::machine::Machine;
use crate::twin::rule_change::RuleChange;
use crate::twin::rules::PacketFilter;
use crate::twin::search::CauseSearch;
use crate::twin::talk::{From, Question};
use crate::twin::{Twin, TwinError, netns};

/// Tries the connections of forwards and outbound entries in a copy of this machine.
///
/// # Errors
/// The reason why there is no copy.
pub fn ask_twin<'e>(
    gathered: &[GatheredFacts<'e>],
    deadline: Instant,
) -> Result<Answers<'e>, String> {
    let forwards: Vec<(&'e ForwardSet, &[&'e Forward], Family)> = gathered
        .iter()
        .map(|one| (one.of.set, one.of.asked.as_slice(), one.of.family))
        .collect();
    let entries: Vec<Vec<&'e Outbound>> = gathered
        .iter()
        .map(|one| one.of.entries.iter().collect())
        .collect();
    let flows: Vec<&[Flow]> = gathered
        .iter()
        .map(|one| one.flows.as_deref().unwrap_or_default())
        .collect();
    let families = Families::with_v6(gathered.iter().any(|one| one.of.family == Family::V6));
    let change = change(gathered);
    let in_doubt = change.as_ref().map(|change| not_loaded(gathered, change));
    let in_doubt = in_doubt.unwrap_or_default();
    let own: Vec<(&Forward, Question)> = gathered.iter().flat_map(own_questions).collect();
    let work = || -> Result<Answers<'e>, TwinError> {
        let mut machine = Machine::read()?;
        machine.ask_routers_again()?;
        let filter = PacketFilter::read_of(families)?;
        let named = NamedInRules::by(&filter, &machine);
        let mut clients = Vec::new();
        for ((set, _, family), flows) in forwards.iter().zip(&flows) {
            clients.push(Clients::of(
                set,
                *family,
                &machine,
                flows,
                &named,
                network::interfaces,
            ));
        }
        let mut twin = Twin::make(machine, &filter, Some(deadline))?;
        let mut asks = Vec::new();
        for (((_, asked, _), entries), clients) in forwards.iter().zip(&entries).zip(&clients) {
            let (machine, worlds) = (twin.machine(), twin.worlds());
            let of_family = battery(asked, entries, clients, machine, worlds, &in_doubt);
            asks.extend(of_family);
        }
        // The first connections of every forward come before all of one forward's.
        asks.sort_by_key(|ask| !ask.is_brief);
        let addresses = asks.iter().flat_map(|ask| {
            let targets = ask.question.listeners.iter().map(SocketAddr::ip);
            targets.chain([ask.client.address])
        });
        twin.answer_for(&addresses.collect())?;
        let questions: Vec<Question> = own.iter().map(|(_, question)| question.clone()).collect();
        let mut judged = ask(&mut twin, asks, deadline)?;
        // Before `explain`, whose fixes may let the machine's own packets out too.
        let kept_in = kept_in(&twin, &questions, deadline)
            .into_iter()
            .map(|(number, found)| {
                let (forward, question) = &own[number];
                let at = (forward.name.to_string(), question.to.ip());
                (at, doctor::keeps(forward.family(), &found))
            });
        let kept_in = kept_in.collect();
        let (left_out, doubts) = (twin.left_out(), twin.doubts());
        let watched = twin.watched().iter().map(ToString::to_string).collect();
        let mut search = CauseSearch {
            twin: &mut twin,
            change: change.as_ref(),
            limit: forwards.first().and_then(|(set, ..)| set.firewall.mss),
            deadline,
        };
        explain(&mut search, &mut judged);
        let each = forwards.iter().zip(&clients);
        let without_internet = each
            .filter(|(_, clients)| !clients.answers_beyond_links())
            .map(|((_, _, family), _)| *family);
        Ok(Answers {
            judged,
            watched,
            left_out,
            doubts,
            untried_networks: clients.iter().map(|clients| clients.left_out).sum(),
            without_internet: without_internet.collect(),
            kept_in,
        })
    };
    match netns::aside(work) {
        Ok(Ok(answers)) => Ok(answers),
        Ok(Err(error)) => Err(error.words()),
        Err(error) => Err(format!("no thread could be started: {error}")),
    }
}

/// The most unanswering targets that are tried from the copy of the machine.
const MOST_KEPT_IN: usize = 32;

/// Returns the machine's own connections to the targets that did not answer it.
fn own_questions<'e>(gathered: &GatheredFacts<'e>) -> Vec<(&'e Forward, Question)> {
    let links = &gathered.links;
    let bad = gathered.probed.iter().filter(|probed| !probed.is_good());
    let mut seen = BTreeSet::new();
    let each = bad.filter_map(|probed| {
        let Endpoint { forward, to, port } = probed.endpoint;
        let to = SocketAddr::new(to?.address, port.number());
        let own = own_source(&probed.endpoint, links);
        let own = own.or_else(|| links.addresses(&forward.egress).first().copied())?;
        seen.insert((to, forward.protocol, own)).then(|| {
            let question = Question {
                protocol: forward.protocol,
                client: own,
                from: From::Machine,
                to,
                listeners: vec![to],
                request: 1,
                answer: 1,
            };
            (forward, question)
        })
    });
    each.take(MOST_KEPT_IN).collect()
}

/// Returns the change that `apply` would load, if there is any.
fn change(gathered: &[GatheredFacts<'_>]) -> Option<RuleChange> {
    let iptables = *gathered.first()?.of.iptables;
    let change = |family: Family| {
        let one = gathered.iter().find(|one| one.of.family == family)?;
        let want = plan_as(&one.live, one.of.set, family);
        let script = diff::changes(&one.live, &want).script(&Counters::default());
        Some((script, want))
    };
    let both = PerFamily {
        v4: change(Family::V4).unwrap_or_default(),
        v6: change(Family::V6),
    };
    let change = RuleChange {
        iptables,
        scripts: both.map(|_, (script, _)| script.clone()),
        want: both.map(|_, (_, want)| want.clone()),
        foreign: PerFamily::default(),
    };
    let is_empty = change.scripts.values().all(String::is_empty);
    (!is_empty).then_some(change)
}

/// The most forwards, and the most outbound entries, with missing rules that are tried in full.
const MOST_IN_DOUBT: usize = 64;

/// Returns some of the forwards and outbound entries with missing rules.
fn not_loaded<'c>(gathered: &[GatheredFacts<'_>], change: &'c RuleChange) -> InDoubt<'c> {
    let none = Ruleset::default();
    let mut in_doubt = InDoubt::default();
    for (family, want) in change.want.iter() {
        let live = gathered.iter().find(|one| one.of.family == family);
        let live = live.map_or(&none, |one| &one.live);
        let (forwards, entries) = (rules_by_key(live), outbound_rules(live));
        for (key, rules) in rules_by_key(want) {
            let is_full = in_doubt.forwards.len() == MOST_IN_DOUBT;
            if !is_full && is_missing(&rules, forwards.get(&key)) {
                in_doubt.forwards.insert(key);
            }
        }
        for (name, rules) in outbound_rules(want) {
            let is_full = in_doubt.entries.len() == MOST_IN_DOUBT;
            if !is_full && is_missing(&rules, entries.get(name)) {
                in_doubt.entries.insert(name);
            }
        }
    }
    in_doubt
}

fn is_missing(rules: &[PlacedRule<'_>], loaded: Option<&Vec<PlacedRule<'_>>>) -> bool {
    let loaded = loaded.map_or(&[][..], Vec::as_slice);
    rules.iter().any(|rule| !loaded.contains(rule))
}

//! Live connections when the rules change: which do not follow the rules any longer.

pub(super) use super::outdated::described;

use super::ending::{Ended, FlowsReport, LeftFlows};
use super::error::Error;
use super::outdated::{LateSenders, Outdated, late_senders};
use super::records::Pending;
use super::remark::Remark;
use super::state::{State, StateError};
use crate::forwards::ForwardSet;
use crate::health::connections::{FlowFacts, astray, stale};
use crate::health::suspects::{MOST_ASKED, examine};
use crate::health::{outbound_sender, sender};
use crate::host::conntrack::{self, ConntrackError};
use crate::host::network::{self, Links};
use crate::net::per_family::{Families, PerFamily};
use crate::net::words::counted;
use crate::netfilter::conntrack::Flow;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::text::parse;
use crate::plan::unplan::unplan;

/// Reads the machine's connections. Without the program `conntrack` there are none, unless some must be
/// ended.
///
/// # Errors
/// When connections must be ended and cannot be read.
pub fn read(families: Families, needed: bool) -> Result<Vec<Flow>, ConntrackError> {
    let flows = PerFamily::try_new(families, conntrack::flows);
    match flows {
        Err(error) if needed => Err(error),
        Err(_) => Ok(Vec::new()),
        Ok(flows) => Ok(flows
            .v4
            .into_iter()
            .chain(flows.v6.into_iter().flatten())
            .collect()),
    }
}

/// The live connections that do not follow the rules.
#[derive(Debug)]
pub struct Strays<'f> {
    outdated: Vec<Outdated<'f>>,
    senders: Vec<LateSenders<'f>>,
    /// The number of further connections that may not follow the rules.
    unexamined: usize,
}

impl<'f> Strays<'f> {
    /// Finds the connections that an older set made and `now` would not make so, and the UDP senders from before their
    /// forward or outbound entry.
    ///
    /// Usually every connection may be made by `now` or by rules of others. Then the history is not read: its 20 changes
    /// can hold 10,000 forwards each.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub fn find(
        flows: &'f [Flow],
        now: &'f ForwardSet,
        state: &State,
        live: &PerFamily<&Ruleset>,
        links: &Links,
    ) -> Result<Self, StateError> {
        let facts = FlowFacts::new(links, live.iter().map(|(family, live)| (family, *live)));
        let facts = facts.with(now);
        let once = if astray(flows, now, &facts).next().is_none() {
            Vec::new()
        } else {
            once_led(Some(state), live.values().copied())?
        };
        Ok(Self::made_by(&once, flows, now, &facts, links))
    }

    fn made_by(
        once: &[ForwardSet],
        flows: &'f [Flow],
        now: &'f ForwardSet,
        facts: &FlowFacts<'_>,
        links: &Links,
    ) -> Self {
        let outdated = examine(stale(flows, once, now, facts));
        let forwarded = sender::look(flows, now, links);
        let outbound = examine(outbound_sender::suspects(flows, now, facts));
        Self {
            unexamined: outdated.unexamined + forwarded.unexamined + outbound.unexamined,
            outdated: Outdated::by_cause(&outdated.found),
            senders: late_senders(&forwarded, &outbound),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.outdated.is_empty() && self.senders.is_empty()
    }

    /// Leaves out connections that end by themselves.
    #[must_use]
    pub fn without(mut self, ends: impl Fn(&Flow) -> bool) -> Self {
        for outdated in &mut self.outdated {
            outdated.flows.retain(|flow| !ends(flow));
        }
        self.outdated.retain(|outdated| !outdated.flows.is_empty());
        self
    }

    /// Describes the connections in a dry run.
    #[must_use]
    pub fn would_end(&self, flush: bool) -> Vec<Remark> {
        let outdated = self.outdated.iter().map(|some| some.would_end(flush));
        let senders = self.senders.iter();
        let senders = senders.map(|some| some.would_end(flush));
        let all = outdated.chain(senders).chain(self.unexamined());
        all.collect()
    }

    /// Ends the connections if the request says so. All have one time limit together.
    #[must_use]
    pub fn end(&self, flush: bool, spec: &str) -> Vec<Ended> {
        let outdated = self.outdated.iter().flat_map(|some| &some.flows);
        let senders = self.senders.iter().flat_map(|some| &some.flows);
        let left = flush.then(|| {
            let all = outdated.chain(senders).copied();
            LeftFlows::from(conntrack::delete(all, conntrack::deadline()))
        });
        let ending = FlowsReport { left, spec };
        let outdated = self.outdated.iter().map(|some| ending.ended(some));
        let senders = self.senders.iter().map(|some| ending.ended_senders(some));
        let unexamined = self.unexamined().map(|remark| Ended {
            remark,
            failed: false,
        });
        outdated.chain(senders).chain(unexamined).collect()
    }

    fn unexamined(&self) -> Option<Remark> {
        let words = format!(
            "{} more may not follow the rules: nvactl asks for {MOST_ASKED} routes at most, so this is not known, and they stay",
            counted(self.unexamined, "connection")
        );
        (self.unexamined > 0).then_some(Remark::Note(words))
    }
}

/// Returns the forwards of the live rules and of the history, which may have made a connection.
///
/// # Errors
/// When the history cannot be read.
pub fn once_led<'r>(
    state: Option<&State>,
    live: impl IntoIterator<Item = &'r Ruleset>,
) -> Result<Vec<ForwardSet>, StateError> {
    let mut once: Vec<ForwardSet> = live.into_iter().filter_map(unplan).collect();
    let changes = state.map_or(Ok(Vec::new()), State::changes)?;
    for (_, change) in &changes {
        let owned = change.owned();
        once.extend(
            owned
                .iter()
                .filter_map(|(_, owned)| forwards_of(&owned.rules)),
        );
    }
    Ok(once)
}

/// Reads the forwards from recorded rules; `None` if the rules cannot be read.
#[must_use]
pub fn forwards_of(rules: &str) -> Option<ForwardSet> {
    unplan(&parse::parse(rules).ok()?)
}

/// Ends the connections that do not follow the rules, after a change is confirmed.
///
/// # Errors
/// When the connections, the rules or the history cannot be read.
pub fn end_stale(state: &State, kept: &Pending) -> Result<Vec<Ended>, Error> {
    let families = kept.families();
    let flows = read(families, kept.flush_stale)?;
    let live = kept.iptables().read_all(families)?;
    let live = live.map(|_, live| &live.ruleset);
    let mut once = once_led(Some(state), live.values().copied())?;
    once.extend(
        kept.wanted()
            .iter()
            .filter_map(|(_, rules)| forwards_of(rules)),
    );
    // The forwards of both families that stay.
    let staying = live.iter().filter_map(|(_, live)| unplan(live));
    let (mut forwards, mut outbound) = (Vec::new(), Vec::new());
    for set in staying {
        forwards.extend(set.forwards);
        outbound.extend(set.outbound);
    }
    let Some(now) = once.first().map(|set| ForwardSet {
        forwards,
        outbound,
        ..set.clone()
    }) else {
        return Ok(Vec::new());
    };
    let links = network::links();
    let facts = FlowFacts::new(&links, live.iter().map(|(family, live)| (family, *live)));
    let strays = Strays::made_by(&once, &flows, &now, &facts, &links);
    let spec = kept.before.spec.as_ref().map_or("-", |spec| &spec.name);
    Ok(strays.end(kept.flush_stale, spec))
}

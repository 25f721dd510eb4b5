//! Live connections when the rules change: which are reported, and which are ended.

use std::collections::BTreeSet;
use std::ptr;

use super::error::Error;
use super::records::Pending;
use super::remark::Remark;
use super::state::{State, StateError};
use crate::forwards::ForwardSet;
use crate::health::connections::{FlowFacts, astray, stale};
use crate::health::outbound_sender;
use crate::health::sender::{self, Sender};
use crate::health::suspects::{Examined, MOST_ASKED, StaleCause, Suspect, examine};
use crate::health::takers::is_redirected;
use crate::host::conntrack::{self, ConntrackError, Left};
use crate::host::network::{self, Links};
use crate::net::Host;
use crate::net::per_family::{Families, PerFamily};
use crate::net::words::{counted, few, with_causes};
use crate::netfilter::conntrack::Flow;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::text::parse;
use crate::netfilter::token::shell_word;
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

/// The most connections that are shown one by one.
const MOST_FLOWS: usize = 3;

pub(super) fn described(flows: &[&Flow]) -> String {
    let shown = flows.iter().map(|flow| {
        let Flow {
            protocol,
            source,
            destination,
            destination_port,
            reply_source,
            reply_port,
            ..
        } = flow;
        let translated = if destination == reply_source {
            String::new()
        } else {
            format!(" → {}:{reply_port}", Host(*reply_source))
        };
        let destination = Host(*destination);
        format!("{protocol} {source} → {destination}:{destination_port}{translated}")
    });
    few(shown, MOST_FLOWS)
}

/// Live connections that do not follow the spec, all for one reason.
#[derive(Debug)]
pub struct Outdated<'f> {
    flows: Vec<&'f Flow>,
    cause: StaleCause,
}

impl<'f> Outdated<'f> {
    /// Returns the connections by their reason.
    fn by_cause(stale: &[Suspect<'f, '_>]) -> Vec<Self> {
        let of = |cause| {
            let flows = stale.iter().filter(|suspect| suspect.cause == cause);
            let flows: Vec<&Flow> = flows.map(|suspect| suspect.flow).collect();
            (!flows.is_empty()).then_some(Outdated { flows, cause })
        };
        [StaleCause::Unmade, StaleCause::Source]
            .into_iter()
            .filter_map(of)
            .collect()
    }

    /// Says what the connections have in common.
    fn words(&self) -> &'static str {
        match self.cause {
            StaleCause::Source => "with another source than new ones get",
            StaleCause::Unmade if self.flows.iter().all(|flow| is_redirected(flow)) => {
                "that no forward would make any longer"
            }
            StaleCause::Unmade => "that no forward or outbound entry would make any longer",
        }
    }

    fn described(&self) -> String {
        let with_source = |flow: &&Flow| {
            let source = flow.reply_destination;
            format!(
                "{} with source {source}",
                described(std::slice::from_ref(flow))
            )
        };
        match self.cause {
            StaleCause::Unmade => described(&self.flows),
            StaleCause::Source => few(self.flows.iter().map(with_source), MOST_FLOWS),
        }
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
        let outdated = self.outdated.iter().map(|some| would_end(some, flush));
        let senders = self.senders.iter();
        let senders = senders.map(|some| senders_would_end(some, flush));
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
        let ending = Ending { left, spec };
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

/// The connections that are still there, and why.
struct LeftFlows {
    flows: BTreeSet<*const Flow>,
    why: String,
}

impl From<Left<'_>> for LeftFlows {
    fn from(left: Left<'_>) -> Self {
        Self {
            flows: left.flows.into_iter().map(ptr::from_ref).collect(),
            why: why_left(left.error.as_ref()),
        }
    }
}

/// The end of connections that do not follow the rules.
struct Ending<'e> {
    /// `None` if no connection was to be ended.
    left: Option<LeftFlows>,
    /// The spec as messages name it.
    spec: &'e str,
}

impl Ending<'_> {
    /// Returns how many of the connections are still there, and why.
    fn left_of(&self, flows: &[&Flow]) -> Option<(usize, &str)> {
        let left = self.left.as_ref()?;
        let is_left = |flow: &&&Flow| left.flows.contains(&ptr::from_ref(**flow));
        let count = flows.iter().filter(is_left).count();
        (count > 0).then_some((count, left.why.as_str()))
    }

    /// Returns the command that ends such connections.
    fn command(&self) -> String {
        let spec = self.spec;
        let argument = if spec.starts_with('<') { "-" } else { spec };
        format!("sudo nvactl apply {} --flush-stale", shell_word(argument))
    }

    /// Reports the end of connections. One that was not to be ended stays as it is until the kernel forgets it.
    ///
    /// The rules are loaded by then, so a failure must not claim that nothing has changed.
    fn ended(&self, outdated: &Outdated<'_>) -> Ended {
        let all = outdated.flows.len();
        let count = counted(all, "connection");
        let (words, shown) = (outdated.words(), outdated.described());
        let command = self.command();
        if self.left.is_none() {
            let remark = Remark::Note(format!(
                "{count} {words} will stay until idle: {shown}; to end them: {command}"
            ));
            return Ended {
                remark,
                failed: false,
            };
        }
        let left = self.left_of(&outdated.flows);
        Ended {
            failed: left.is_some(),
            remark: match left {
                None => Remark::Line(format!("ended {count} {words}: {shown}")),
                Some((left, why)) => Remark::Warning(format!(
                    "the rules are loaded, but {} {words} could not be ended: {why}; to end them: {command}",
                    part(left, all)
                )),
            },
        }
    }

    /// Reports the end of UDP senders from before their rules: the next packet of each starts a new connection, which
    /// follows the rules.
    fn ended_senders(&self, senders: &LateSenders<'_>) -> Ended {
        let LateSenders { flows, told, next } = senders;
        let command = self.command();
        if self.left.is_none() {
            return Ended {
                remark: Remark::Note(format!("{told}; to end them: {command}")),
                failed: false,
            };
        }
        let left = self.left_of(flows);
        Ended {
            failed: left.is_some(),
            remark: match left {
                None => Remark::Line(format!(
                    "{told}; they were ended, and their next packet {next}"
                )),
                Some((left, why)) => Remark::Warning(format!(
                    "{told}; {} could not be ended: {why}; to end them: {command}",
                    part(left, flows.len())
                )),
            },
        }
    }
}

/// Returns a number of connections: `2 of 5 connections`, or `5 connections` if it is all.
fn part(some: usize, all: usize) -> String {
    if some == all {
        counted(all, "connection")
    } else {
        format!("{some} of {}", counted(all, "connection"))
    }
}

fn why_left(error: Option<&ConntrackError>) -> String {
    error.map_or_else(|| "the time was up".to_owned(), |error| with_causes(error))
}

/// Describes connections of an undone change that are still there, behind `but`.
#[must_use]
pub fn connections_left(count: usize, error: Option<&ConntrackError>) -> String {
    format!(
        "{} that only the undone change made could not be ended: {}; each ends when it is idle; to see all connections: sudo conntrack -L",
        counted(count, "connection"),
        why_left(error)
    )
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

/// Describes the connections that do not follow the spec, in a dry run.
fn would_end(outdated: &Outdated<'_>, flush: bool) -> Remark {
    let (would, fix) = if flush {
        ("would be ended", "")
    } else {
        ("would stay", "; to end them, add: --flush-stale")
    };
    Remark::Line(format!(
        "{} {} {would}: {}{fix}",
        counted(outdated.flows.len(), "connection"),
        outdated.words(),
        outdated.described()
    ))
}

/// The connections that no forward would make any longer, after a change.
#[derive(Debug)]
pub struct Ended {
    pub remark: Remark,
    /// Whether some connections should have been ended and are still alive.
    pub failed: bool,
}

impl Ended {
    /// Reports that the connections to end are not known.
    #[must_use]
    pub fn failed(error: &Error) -> Self {
        Self {
            remark: Remark::Warning(format!(
                "the rules are loaded, but the connections that no forward would make any longer are not known: {}",
                super::describe(error)
            )),
            failed: true,
        }
    }
}

/// UDP senders from before their rules, all of forwards or all of outbound entries.
#[derive(Debug)]
struct LateSenders<'f> {
    flows: Vec<&'f Flow>,
    told: String,
    /// The end of the sentence about the next packet after they are ended.
    next: &'static str,
}

/// Returns the senders of forwards and those of outbound entries, if there are any.
fn late_senders<'f>(
    forwarded: &Examined<Sender<'f>>,
    outbound: &Examined<Suspect<'f, '_>>,
) -> Vec<LateSenders<'f>> {
    let forwards = sender::told(&forwarded.found).map(|told| LateSenders {
        flows: forwarded.found.iter().map(|sender| sender.flow).collect(),
        told,
        next: "is forwarded",
    });
    let entries = outbound_sender::told(&outbound.found).map(|told| LateSenders {
        flows: outbound.found.iter().map(|sender| sender.flow).collect(),
        told,
        next: "gets the entry's source",
    });
    forwards.into_iter().chain(entries).collect()
}

/// Describes the UDP senders from before their rules in a dry run.
fn senders_would_end(senders: &LateSenders<'_>, flush: bool) -> Remark {
    let would = if flush {
        "they would be ended"
    } else {
        "they would stay; to end them, add: --flush-stale"
    };
    Remark::Line(format!("{}; {would}", senders.told))
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

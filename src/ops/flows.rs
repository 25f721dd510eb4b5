//! Live connections when the rules change: which are reported, and which are ended.

use super::error::Error;
use super::records::Pending;
use super::remark::Remark;
use super::state::{State, StateError};
use crate::forwards::ForwardSet;
use crate::health::connections::{FlowFacts, StaleCause, astray, is_redirected, stale};
use crate::health::{outbound_sender, sender};
use crate::host::conntrack::{self, ConntrackError};
use crate::host::network::{self, Links};
use crate::net::Host;
use crate::net::per_family::{Families, PerFamily};
use crate::net::words::{counted, few};
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
    fn by_cause(stale: impl Iterator<Item = (&'f Flow, StaleCause)>) -> Vec<Self> {
        let all: Vec<(&Flow, StaleCause)> = stale.collect();
        let of = |cause| {
            let flows = all.iter().filter(|(_, of)| *of == cause);
            let flows: Vec<&Flow> = flows.map(|(flow, _)| *flow).collect();
            (!flows.is_empty()).then_some(Outdated { flows, cause })
        };
        [StaleCause::Unmade, StaleCause::Source]
            .into_iter()
            .filter_map(of)
            .collect()
    }

    /// Returns these connections without those that end by themselves.
    #[must_use]
    pub fn without(mut self, ends: impl Fn(&Flow) -> bool) -> Option<Self> {
        self.flows.retain(|flow| !ends(flow));
        (!self.flows.is_empty()).then_some(self)
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

/// Returns the connections that the rules once made, and that `now` would not make so.
///
/// Usually there is none. Then the history is not read: its 20 changes can hold 10,000 forwards each.
///
/// # Errors
/// When the history cannot be read.
pub fn outdated<'f>(
    flows: &'f [Flow],
    now: &ForwardSet,
    state: &State,
    live: &PerFamily<&Ruleset>,
    links: &Links,
) -> Result<Vec<Outdated<'f>>, StateError> {
    let facts = FlowFacts::new(links, live.iter().map(|(family, live)| (family, *live)));
    let facts = facts.with(now);
    if astray(flows, now, &facts).next().is_none() {
        return Ok(Vec::new());
    }
    let once = once_led(Some(state), live.values().copied())?;
    Ok(Outdated::by_cause(stale(flows, &once, now, &facts)))
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
#[must_use]
pub fn would_end(outdated: &Outdated<'_>, flush: bool) -> Remark {
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
pub struct LateSenders<'f> {
    flows: Vec<&'f Flow>,
    told: String,
    /// The end of the sentence about the next packet after they are ended.
    next: &'static str,
}

/// Finds the UDP senders from before their forward or outbound entry.
#[must_use]
pub fn late_senders<'f>(
    flows: &'f [Flow],
    now: &'f ForwardSet,
    links: &Links,
) -> Vec<LateSenders<'f>> {
    let forwarded = sender::look(flows, now, links);
    let forwarded = sender::told(&forwarded).map(|told| LateSenders {
        flows: forwarded.iter().map(|sender| sender.flow).collect(),
        told,
        next: "is forwarded",
    });
    let outbound = outbound_sender::look(flows, now, links);
    let outbound = outbound_sender::told(&outbound).map(|told| LateSenders {
        flows: outbound.iter().map(|sender| sender.flow).collect(),
        told,
        next: "gets the entry's source",
    });
    forwarded.into_iter().chain(outbound).collect()
}

/// Describes the UDP senders from before their rules in a dry run.
#[must_use]
pub fn senders_would_end(senders: &LateSenders<'_>, flush: bool) -> Remark {
    let would = if flush {
        "they would be ended"
    } else {
        "they would stay; to end them, add: --flush-stale"
    };
    Remark::Line(format!("{}; {would}", senders.told))
}

/// Ends UDP senders from before their rules, if the request says so: the next packet of each starts a new connection,
/// which follows the rules.
fn end_senders(senders: &LateSenders<'_>, flush: bool, spec: &str) -> Ended {
    let LateSenders { flows, told, next } = senders;
    if !flush {
        let note = format!("{told}; to end them: {}", flushing(spec));
        return Ended {
            remark: Remark::Note(note),
            failed: false,
        };
    }
    let deleted = conntrack::delete(flows.iter().copied());
    Ended {
        failed: deleted.is_err(),
        remark: match deleted {
            Ok(()) => Remark::Line(format!(
                "{told}; they were ended, and their next packet {next}"
            )),
            Err(error) => Remark::Warning(format!(
                "{told}; they could not be ended: {}",
                super::describe(&error.into())
            )),
        },
    }
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
    let outdated = Outdated::by_cause(stale(&flows, &once, &now, &facts));
    let senders = late_senders(&flows, &now, &links);
    let spec = kept.before.spec.as_ref().map_or("-", |spec| &spec.name);
    Ok(end_all(&outdated, &senders, kept.flush_stale, spec))
}

/// Returns the command that ends such connections, for a spec as messages name it.
fn flushing(spec: &str) -> String {
    let argument = if spec.starts_with('<') { "-" } else { spec };
    format!("sudo nvactl apply {} --flush-stale", shell_word(argument))
}

/// Ends these connections and senders if the request says so.
#[must_use]
pub fn end_all(
    outdated: &[Outdated<'_>],
    senders: &[LateSenders<'_>],
    flush: bool,
    spec: &str,
) -> Vec<Ended> {
    let outdated = outdated.iter().map(|some| end(some, flush, spec));
    let senders = senders.iter().map(|some| end_senders(some, flush, spec));
    outdated.chain(senders).collect()
}

/// Ends these connections if the request says so. Otherwise each stays as it is until the kernel forgets it.
///
/// The rules are loaded by then, so a failure must not claim that nothing has changed.
fn end(outdated: &Outdated<'_>, flush: bool, spec: &str) -> Ended {
    let count = counted(outdated.flows.len(), "connection");
    let (words, shown) = (outdated.words(), outdated.described());
    if !flush {
        let remark = Remark::Note(format!(
            "{count} {words} will stay until idle: {shown}; to end them: {}",
            flushing(spec)
        ));
        return Ended {
            remark,
            failed: false,
        };
    }
    let deleted = conntrack::delete(outdated.flows.iter().copied());
    Ended {
        failed: deleted.is_err(),
        remark: match deleted {
            Ok(()) => Remark::Line(format!("ended {count} {words}: {shown}")),
            Err(error) => Remark::Warning(format!(
                "the rules are loaded, but {count} {words} could not be ended: {}",
                super::describe(&error.into())
            )),
        },
    }
}

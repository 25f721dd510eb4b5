//! Live connections when the rules change: which are reported, and which are ended.

use super::error::Error;
use super::records::Pending;
use super::remark::Remark;
use super::state::{State, StateError};
use crate::forwards::ForwardSet;
use crate::health::connections::{astray, is_redirected, stale};
use crate::health::sender::{self, Sender};
use crate::host::conntrack::{self, ConntrackError};
use crate::net::Host;
use crate::net::per_family::{Families, PerFamily};
use crate::net::words::counted;
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
    let shown = flows.iter().take(MOST_FLOWS).map(|flow| {
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
    let shown = shown.collect::<Vec<_>>().join(", ");
    match flows.len().saturating_sub(MOST_FLOWS) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Returns the connections that a forward once made, and that no forward of `now` would make.
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
) -> Result<Vec<&'f Flow>, StateError> {
    if astray(flows, now).next().is_none() {
        return Ok(Vec::new());
    }
    let once = once_led(Some(state), live.values().copied())?;
    Ok(stale(flows, &once, now).collect())
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

/// Says what such connections have in common.
fn lost(stale: &[&Flow]) -> &'static str {
    if stale.iter().all(|flow| is_redirected(flow)) {
        "that no forward would make any longer"
    } else {
        "that no forward or outbound entry would make any longer"
    }
}

/// Describes the connections that no forward or outbound entry would make any longer, in a dry run.
#[must_use]
pub fn would_end(stale: &[&Flow], flush: bool) -> Option<Remark> {
    let (would, fix) = if flush {
        ("would be ended", "")
    } else {
        ("would stay", "; to end them, add: --flush-stale")
    };
    (!stale.is_empty()).then(|| {
        Remark::Line(format!(
            "{} {} {would}: {}{fix}",
            counted(stale.len(), "connection"),
            lost(stale),
            described(stale)
        ))
    })
}

/// The connections that no forward would make any longer, after a change.
#[derive(Debug, Default)]
pub struct Ended {
    pub remark: Option<Remark>,
    /// Whether some connections should have been ended and are still alive.
    pub failed: bool,
}

impl Ended {
    /// Reports that the connections to end are not known.
    #[must_use]
    pub fn failed(error: &Error) -> Self {
        Self {
            remark: Some(Remark::Warning(format!(
                "the rules are loaded, but the connections that no forward would make any longer are not known: {}",
                super::describe(error)
            ))),
            failed: true,
        }
    }
}

/// Describes the UDP senders from before their forward in a dry run.
#[must_use]
pub fn senders_would_end(senders: &[Sender<'_>], flush: bool) -> Option<Remark> {
    let would = if flush {
        "they would be ended"
    } else {
        "they would stay; to end them, add: --flush-stale"
    };
    let told = sender::told(senders)?;
    Some(Remark::Line(format!("{told}; {would}")))
}

/// Ends UDP senders from before their forward, if the request says so: the next packet of each starts a new
/// connection, which is forwarded.
#[must_use]
pub fn end_senders(senders: &[Sender<'_>], flush: bool, spec: &str) -> Ended {
    let Some(told) = sender::told(senders) else {
        return Ended::default();
    };
    if !flush {
        let note = format!("{told}; to end them: {}", flushing(spec));
        return Ended {
            remark: Some(Remark::Note(note)),
            failed: false,
        };
    }
    let deleted = conntrack::delete(senders.iter().map(|sender| sender.flow));
    Ended {
        failed: deleted.is_err(),
        remark: Some(match deleted {
            Ok(()) => Remark::Line(format!(
                "{told}; they were ended, and their next packet is forwarded"
            )),
            Err(error) => Remark::Warning(format!(
                "{told}; they could not be ended: {}",
                super::describe(&error.into())
            )),
        }),
    }
}

/// Ends the connections that no forward would make any longer, after a change is confirmed.
///
/// # Errors
/// When the connections, the rules or the history cannot be read.
pub fn end_stale(state: &State, kept: &Pending) -> Result<Ended, Error> {
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
        return Ok(Ended::default());
    };
    let outdated: Vec<&Flow> = stale(&flows, &once, &now).collect();
    let spec = kept.before.spec.as_ref().map_or("-", |spec| &spec.name);
    Ok(end(&outdated, kept.flush_stale, spec))
}

/// Returns the command that ends such connections, for a spec as messages name it.
fn flushing(spec: &str) -> String {
    let argument = if spec.starts_with('<') { "-" } else { spec };
    format!("sudo nvactl apply {} --flush-stale", shell_word(argument))
}

/// Ends these connections if the request says so. Otherwise each stays on its old target until the kernel
/// forgets it.
///
/// The rules are loaded by then, so a failure must not claim that nothing has changed.
#[must_use]
pub fn end(stale: &[&Flow], flush: bool, spec: &str) -> Ended {
    if stale.is_empty() {
        return Ended::default();
    }
    let (count, shown) = (counted(stale.len(), "connection"), described(stale));
    if !flush {
        let remark = Remark::Note(format!(
            "{count} {} will stay until idle: {shown}; to end them: {}",
            lost(stale),
            flushing(spec)
        ));
        return Ended {
            remark: Some(remark),
            failed: false,
        };
    }
    let deleted = conntrack::delete(stale.iter().copied());
    Ended {
        failed: deleted.is_err(),
        remark: Some(match deleted {
            Ok(()) => Remark::Line(format!("ended {count} {}: {shown}", lost(stale))),
            Err(error) => Remark::Warning(format!(
                "the rules are loaded, but {count} {} could not be ended: {}",
                lost(stale),
                super::describe(&error.into())
            )),
        }),
    }
}

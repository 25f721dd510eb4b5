//! Reports the end of connections that do not follow the rules.

use std::collections::BTreeSet;
use std::ptr;

use super::error::Error;
use super::outdated::{LateSenders, Outdated};
use super::remark::Remark;
use crate::host::conntrack::{ConntrackError, Left};
use crate::net::words::{counted, with_causes};
use crate::netfilter::conntrack::Flow;
use crate::netfilter::token::shell_word;

/// The connections that no forward or outbound entry would make any longer, after a change.
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
                "the rules are loaded, but the connections that no forward or outbound entry would make any longer are not known: {}",
                super::describe(error)
            )),
            failed: true,
        }
    }
}

/// The connections that are still there, and why.
#[derive(Debug)]
pub struct LeftFlows {
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

/// The report about connections that do not follow the rules: ended or not.
#[derive(Debug)]
pub struct FlowsReport<'e> {
    /// `None` if no connection was to be ended.
    pub left: Option<LeftFlows>,
    /// The spec as messages name it.
    pub spec: &'e str,
}

impl FlowsReport<'_> {
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
    #[must_use]
    pub fn ended(&self, outdated: &Outdated<'_>) -> Ended {
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
    #[must_use]
    pub fn ended_senders(&self, senders: &LateSenders<'_>) -> Ended {
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

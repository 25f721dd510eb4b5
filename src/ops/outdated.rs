//! Live connections that do not follow the rules, in words.

use super::remark::Remark;
use crate::health::outbound_sender;
use crate::health::sender::{self, Sender};
use crate::health::suspects::{Examined, StaleCause, Suspect};
use crate::health::takers::is_redirected;
use crate::net::Host;
use crate::net::words::{counted, few};
use crate::netfilter::conntrack::Flow;

/// The most connections that are shown one by one.
const MOST_FLOWS: usize = 3;

/// Describes some connections by their protocol, addresses and ports.
#[must_use]
pub fn described(flows: &[&Flow]) -> String {
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
    pub flows: Vec<&'f Flow>,
    cause: StaleCause,
}

impl<'f> Outdated<'f> {
    /// Returns the connections by their reason.
    #[must_use]
    pub fn by_cause(stale: &[Suspect<'f, '_>]) -> Vec<Self> {
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
    #[must_use]
    pub fn words(&self) -> &'static str {
        match self.cause {
            StaleCause::Source => "with another source than new ones get",
            StaleCause::Unmade if self.flows.iter().all(|flow| is_redirected(flow)) => {
                "that no forward would make any longer"
            }
            StaleCause::Unmade => "that no forward or outbound entry would make any longer",
        }
    }

    /// Describes some of the connections one by one.
    #[must_use]
    pub fn described(&self) -> String {
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

    /// Describes the connections in a dry run.
    #[must_use]
    pub fn would_end(&self, flush: bool) -> Remark {
        let (would, fix) = if flush {
            ("would be ended", "")
        } else {
            ("would stay", "; to end them, add: --flush-stale")
        };
        Remark::Line(format!(
            "{} {} {would}: {}{fix}",
            counted(self.flows.len(), "connection"),
            self.words(),
            self.described()
        ))
    }
}

/// UDP senders from before their rules, all of forwards or all of outbound entries.
#[derive(Debug)]
pub struct LateSenders<'f> {
    pub flows: Vec<&'f Flow>,
    pub told: String,
    /// The end of the sentence about the next packet after they are ended.
    pub next: &'static str,
}

impl LateSenders<'_> {
    /// Describes the UDP senders from before their rules in a dry run.
    #[must_use]
    pub fn would_end(&self, flush: bool) -> Remark {
        let would = if flush {
            "they would be ended"
        } else {
            "they would stay; to end them, add: --flush-stale"
        };
        Remark::Line(format!("{}; {would}", self.told))
    }
}

/// Returns the senders of forwards and those of outbound entries, if there are any.
#[must_use]
pub fn late_senders<'f>(
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

//! Verdicts about connections through a twin, with the causes and cures that were found, as values.

use std::net::{IpAddr, SocketAddr};

use super::battery::Ask;
use super::cause::{By, Taken};
use crate::net::Family;
use crate::netfilter::target::Mss;

/// A connection and its verdict.
#[derive(Debug)]
pub struct Judged<'f> {
    pub ask: Ask<'f>,
    pub verdict: Verdict,
}

/// How a connection ended, compared with the spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    AsWanted,
    /// The target sees another source than the spec says.
    Source {
        seen: IpAddr,
        blame: Blame,
    },
    /// The target was reached by this interface, which is not the spec's.
    Behind(String),
    /// Another host accepted the connection.
    Elsewhere {
        at: SocketAddr,
        blame: Blame,
    },
    /// The connection did not come through, or the answer did not come back.
    Dead(Death),
    /// Replies leave by this interface; the client comes in by another one.
    Strayed(String),
    /// A client that should be kept out came through.
    LetIn(Blame),
    /// The connection came through at one try and not at another. Holds the rule that took it, if the kernel
    /// names one.
    Fickle(Option<By>),
    /// Packets met rules whose state is not copied. The numbers are those of the twin's watched rules.
    Unknown(Vec<usize>),
    /// The connection could not be opened, for this reason.
    Failed(String),
    /// The time limit was reached before the connection was opened.
    NotAsked,
}

impl Verdict {
    /// Returns whether the connection died and the causes are still to be looked for.
    #[must_use]
    pub fn is_unexplained_death(&self) -> bool {
        matches!(self, Verdict::Dead(death) if death.examination == Examination::Pending)
    }
}

/// The rule that changes a connection that comes through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blame {
    /// `None` if the kernel names no rule.
    pub by: Option<By>,
    /// A cure that was tried in the twin: with it the connection does as the spec says.
    pub cure: Option<Cure>,
    /// Whether the rule was looked for.
    pub is_examined: bool,
}

/// How a connection died.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Death {
    /// The target was reached, but the rest of the request or the answer did not come through.
    pub is_stuck: bool,
    /// The causes in order: each took the connection after the one before it was removed.
    pub causes: Vec<Taken>,
    /// The cures, one for each cause from the first on. A cause without a cure ends the search.
    pub cures: Vec<Cure>,
    /// Whether all cures together let the connection through.
    pub is_cured: bool,
    /// With the cures, the connection leaves by this interface, which is not the spec's.
    pub behind: Option<String>,
    pub examination: Examination,
}

/// How far the causes of a death were looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Examination {
    /// Not at all: the search has not begun, or the time limit was reached first.
    #[default]
    Pending,
    Done,
    /// The search ended for this reason.
    Failed(String),
}

/// A change that lets a connection pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cure {
    /// `nvactl apply` of the same spec.
    Apply,
    /// A rule that accepts the packets, in front of all others of the nft chain.
    AcceptInChain {
        family: String,
        table: String,
        chain: String,
        rule: String,
    },
    /// The rule is removed, or the policy accepts.
    Without(By),
    /// Switches of the kernel, all of which are needed.
    Switches(Vec<SwitchValue>),
    /// `mss` of a spec, for the connections of a family.
    SegmentLimit(Mss, Family),
}

/// A switch of the kernel by its name below `net`, and a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchValue {
    pub name: String,
    pub value: &'static str,
}

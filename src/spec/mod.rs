//! The spec: what the user wants forwarded, read from YAML and checked whole.
//!
//! [`read`] turns text into a [`ForwardSet`], or into every [`Problem`] the text has. A `ForwardSet`
//! is sound by construction: whoever holds one need not check it again. A spec in several files is
//! read by [`examine_all`] as if it were one.

pub mod annotation;
mod check;
mod code;
mod decode;
mod fields;
mod hint;
pub mod page;
pub mod places;
mod problem;
mod warn;
mod yaml;

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

pub use code::{Code, CodeError, Severity};
pub use hint::nearest;
pub use problem::{Problem, ProblemKind, Span};

use crate::net::{Interface, PortRange, Protocol};

/// The longest spec that is read, in bytes. 100,000 forwards are about 10 MB.
pub const MAX_BYTES: usize = 32 << 20;

/// No more values than this are read from a text: 100,000 forwards have 1.3 million.
pub const MAX_VALUES: usize = 2_000_000;

/// After so many problems reading ends: a text with more of them is not a spec at all, and hearing
/// of each would cost more memory than the text.
pub const MAX_PROBLEMS: usize = 10_000;

/// A spec without a fault: names are unique, listeners apart, targets allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardSet {
    pub firewall: Firewall,
    /// In the order of the spec.
    pub forwards: Vec<Forward>,
}

/// The machine that forwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firewall {
    /// Where clients come in.
    pub ingress: Interface,
    /// Where targets are reached; the same interface on a machine with one NIC.
    pub egress: Interface,
    pub snat: Snat,
    pub forward_policy: ForwardPolicy,
}

/// What targets see as their peer, so that replies come back to the firewall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Snat {
    Address(Ipv4Addr),
    /// Whatever address the egress interface has when a connection begins.
    Masquerade,
}

/// What nvactl does with the policy of the built-in FORWARD chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardPolicy {
    /// Sets it to DROP: nothing is forwarded but what a rule accepts.
    Drop,
    /// Leaves it as it is.
    Keep,
}

/// One forward: what arrives at `listen` goes to `target`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    pub name: Name,
    pub listen: Listen,
    pub protocol: Protocol,
    pub target: Target,
}

/// Where a forward listens: on one of the machine's addresses, or on all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    pub address: Option<Ipv4Addr>,
    pub ports: PortRange,
}

/// Where a forward leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub kind: TargetKind,
    pub address: Ipv4Addr,
    pub ports: TargetPorts,
}

impl Forward {
    /// The ports that packets carry once they are translated, on their way to the target.
    #[must_use]
    pub fn ports_behind(&self) -> PortRange {
        match self.target.ports {
            TargetPorts::Kept => self.listen.ports,
            TargetPorts::Range(ports) => ports,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
    /// The frontend of an internal load balancer.
    Ilb,
    /// A pod, without a load balancer between.
    Pod,
}

/// The ports of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetPorts {
    /// None is given: packets keep the port they were sent to.
    Kept,
    /// One port takes all of the listener's; a range is as long as the listener's and keeps each
    /// port's offset.
    Range(PortRange),
}

/// A forward's name: `[A-Za-z0-9][A-Za-z0-9_.-]*`, at most 63 bytes. It becomes the comment of the
/// forward's rules.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<str>);

impl Name {
    pub const MAX_BYTES: usize = 63;

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = ProblemKind;

    fn from_str(text: &str) -> Result<Self, ProblemKind> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let sound = text.len() <= Self::MAX_BYTES
            && text.bytes().all(allowed)
            && text
                .as_bytes()
                .first()
                .is_some_and(u8::is_ascii_alphanumeric);
        if sound {
            Ok(Self(text.into()))
        } else {
            Err(ProblemKind::InvalidName {
                text: text.to_owned(),
            })
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Listen {
    type Err = ProblemKind;

    /// `PORT`, `PORT-PORT`, `IP:PORT` or `IP:PORT-PORT`.
    fn from_str(text: &str) -> Result<Self, ProblemKind> {
        let (address, ports) = match text.rsplit_once(':') {
            Some((address, ports)) => (Some(problem::address(address)?), ports),
            None => (None, text),
        };
        Ok(Self {
            address,
            ports: ports.parse().map_err(ProblemKind::InvalidPort)?,
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{address}:{}", self.ports),
            None => write!(f, "{}", self.ports),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ports {
            TargetPorts::Kept => write!(f, "{}", self.address),
            TargetPorts::Range(ports) => write!(f, "{}:{ports}", self.address),
        }
    }
}

/// What reading a spec came to.
#[derive(Debug)]
pub struct Reading {
    /// There if no problem is an error.
    pub set: Option<ForwardSet>,
    /// Errors, warnings and notes in the order of the spec, without those that it silences.
    pub problems: Vec<Problem>,
}

impl Reading {
    /// The spec, if it is without a fault.
    ///
    /// # Errors
    /// Every error, in the order of the spec.
    pub fn sound(self) -> Result<ForwardSet, Vec<Problem>> {
        let Self { set, mut problems } = self;
        set.ok_or_else(|| {
            problems.retain(|problem| problem.severity() == Severity::Error);
            problems
        })
    }
}

/// Reads a text and says everything that there is to say of it.
#[must_use]
pub fn examine(text: &[u8]) -> Reading {
    examine_all(&[text])
}

/// Reads a spec that lies in several texts, as if they were one, and says everything that there is
/// to say of it. [`places::Places`] tells where.
#[must_use]
pub fn examine_all(texts: &[&[u8]]) -> Reading {
    let mut problems = Vec::new();
    let mut roots = Vec::with_capacity(texts.len());
    let mut values = 0;
    for (start, text) in places::placed(texts.iter().copied()) {
        match yaml::load(text, start, &mut values) {
            Ok(document) => {
                problems.extend(document.problems);
                roots.push(document.root);
            }
            Err(mut problem) => {
                if problem.kind == ProblemKind::Empty && texts.len() > 1 {
                    problem.kind = ProblemKind::EmptyInFolder;
                }
                problems.push(problem);
            }
        }
        if values > MAX_VALUES || problems.len() >= MAX_PROBLEMS {
            break;
        }
    }
    let mut set = None;
    if !roots.is_empty() {
        let whole = roots.len() == texts.len();
        let written = decode::decode(&roots, whole, &mut problems);
        warn::warn(&written, &mut problems);
        set = check::check(written, &mut problems);
    }
    problems.sort_by_key(|problem| problem.span.start);
    let broken = problems
        .iter()
        .any(|problem| problem.severity() == Severity::Error);
    Reading {
        set: set.filter(|_| !broken),
        problems,
    }
}

/// Reads a spec.
///
/// # Errors
/// Every error of the text, in its order.
pub fn read(text: &[u8]) -> Result<ForwardSet, Vec<Problem>> {
    examine(text).sound()
}

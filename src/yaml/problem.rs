//! Everything that can be said of a spec: where it stands and what it is. The edit that mends it is
//! in `hint.rs`.

use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;
use thiserror::Error;

use super::code::{Code, Severity};
use crate::forwards::{Log, NameError};
use crate::net::printable::{self, is_hidden};
use crate::net::{Family, InterfaceError, Port, PortError, PortRange, Protocol};

/// Bytes of the spec's text; of all its files, one behind the other (`places.rs`).
pub type Span = Range<usize>;

/// One fault of a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The value at fault.
    pub span: Span,
    pub kind: ProblemKind,
}

impl Problem {
    #[must_use]
    pub fn new(span: Span, kind: ProblemKind) -> Self {
        Self { span, kind }
    }

    /// What is wrong, in one line of bounded length, however long the text at fault is.
    #[must_use]
    pub fn message(&self) -> String {
        clipped(self.kind.to_string())
    }

    /// The edit that mends it, bounded likewise.
    #[must_use]
    pub fn hint(&self) -> String {
        clipped(self.kind.hint())
    }

    #[must_use]
    pub fn severity(&self) -> Severity {
        self.kind.code().severity()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProblemKind {
    #[error("the file is not UTF-8 text")]
    NotUtf8,
    #[error("the control character {found:?} cannot stand in YAML")]
    ControlCharacter { found: char },
    #[error("not YAML: {reason}")]
    Syntax { reason: String },
    #[error("more than {} values", super::limits::MAX_VALUES)]
    TooManyValues,
    #[error("the file says nothing")]
    Empty,
    #[error("the file says nothing")]
    EmptyInFolder,
    #[error("a second document: a spec is one")]
    SeveralDocuments,
    #[error("anchors and aliases are not supported")]
    Alias,
    #[error("tags are not supported")]
    Tag,
    #[error("the key `{key}` stands here a second time")]
    DuplicateKey { key: String, first: Span },
    #[error("another file has `{key}` already")]
    SecondInFolder { key: &'static str, first: Span },
    #[error("unknown key `{key}` in {place}")]
    UnknownKey {
        key: String,
        place: &'static str,
        known: &'static [&'static str],
    },
    #[error("{place} has no `{key}`")]
    MissingKey {
        key: &'static str,
        place: &'static str,
    },
    #[error("{} must be {expected}, this is {found}", place(.key))]
    WrongType {
        key: &'static str,
        expected: &'static str,
        found: &'static str,
    },
    #[error("`{text}` is not one of {}", one_of(.known))]
    UnknownWord {
        text: String,
        known: &'static [&'static str],
    },
    #[error("`{text}` is not a code that can be silenced here")]
    UnknownCode { text: String },
    #[error("version `{text}` is not known")]
    UnknownVersion { text: String },
    #[error(transparent)]
    InvalidName(NameError),
    #[error("another forward is called `{name}`")]
    DuplicateName { name: String, first: Span },
    #[error(transparent)]
    InvalidInterface(InterfaceError),
    #[error(transparent)]
    InvalidPort(PortError),
    #[error("`{text}` is neither an address, nor a range of them, nor `masquerade` or `none`")]
    InvalidSnat { text: String },
    #[error("`{text}` is not an address")]
    InvalidAddress { text: String },
    #[error("the IPv6 address `{text}` stands without brackets")]
    NoBrackets { text: String },
    #[error("`{text}` is not a network")]
    InvalidNet { text: String },
    #[error("`{net}` has bits behind its prefix")]
    HostBits { net: IpNet },
    #[error("`{text}` is not a number from 1 to {most}")]
    InvalidNumber { text: String, most: u32 },
    #[error("the kernel would take {text} a second for {nearest}")]
    RoundedRate { text: String, nearest: u32 },
    #[error(
        "`{text}` cannot stand in front of a line of the log: 1 to {} printable ASCII characters",
        Log::LONGEST_PREFIX
    )]
    InvalidPrefix { text: String },
    #[error("`{text}` stands here a second time")]
    Twice { text: String },
    #[error("the list `{key}` is empty")]
    EmptyList { key: &'static str },
    #[error("{address} is not an {family} address, as `{key}` must be")]
    WrongFamily {
        key: &'static str,
        address: IpAddr,
        family: Family,
    },
    #[error("this `{key}` is {family}, but the forward's first target is not")]
    OtherFamily {
        key: &'static str,
        family: Family,
        target: Span,
    },
    #[error("the target is {family}, and there is no `snat` for {family}")]
    NoSnat { family: Family },
    #[error("`allow_from` has no {family} network, so it closes this forward to everybody")]
    AllowsNobody { family: Family },
    #[error("`deny_from` has every {family} address, so it closes this forward to everybody")]
    DeniesEverybody { family: Family },
    #[error("{count} pods are more than the {most} that can share connections")]
    TooManyPods { count: usize, most: u32 },
    #[error("a hairpin needs a `snat`: what is behind the firewall would be answered past it")]
    HairpinKeepsClients { snat: Span },
    #[error("{address} cannot be a `{key}` address: {reason}")]
    UnusableAddress {
        key: &'static str,
        address: IpAddr,
        reason: &'static str,
    },
    #[error("a pod needs a port: `{address}` has none")]
    PodWithoutPort { address: IpAddr },
    #[error("a target is one of `ilb` and `pod`, this has both")]
    TwoTargets { first: Span },
    #[error("the target has {target} ports, the listener {listen}")]
    RangeLength {
        target: u32,
        listen: u32,
        listen_span: Span,
    },
    #[error("{address} must not be reachable through a forward: {reason}")]
    DangerousTarget {
        address: IpAddr,
        reason: &'static str,
    },
    #[error("{ports} is taken by the forward `{name}` already")]
    OverlappingListen {
        ports: String,
        name: String,
        other: Span,
    },
    #[error("this listener takes tcp port 22 away from the firewall's own ssh")]
    TakesSsh,
    #[error("this range takes {protocol} port {port}, {service}, away from the firewall itself")]
    TakesLocalService {
        service: &'static str,
        protocol: Protocol,
        port: Port,
    },
    #[error("{address} is the firewall's own: the packets would come back to it")]
    TargetIsFirewall { address: IpAddr, other: Span },
    #[error("nothing in this spec drops what is not forwarded")]
    PolicyKept,
    #[error("{ports} of `{name}` is for one address and goes first: this listener gets the rest")]
    AddressBesideAll {
        ports: String,
        name: String,
        other: Span,
    },
    #[error("this listener takes {count} ports away from the firewall itself")]
    WideRange { count: u32 },
    #[error("without a port the load balancer is reached at {ports}, where clients arrived")]
    PortKept { ports: PortRange },
    #[error("{address} is this pod's only until it restarts")]
    PodAddress { address: IpAddr },
    #[error("{address}, from where Azure's load balancer probes, is kept out")]
    KeepsProbesOut {
        address: IpAddr,
        /// Whether the list is one of those who may come.
        allows: bool,
    },
    #[error("targets see the client's own address, and answer it by their own routes")]
    ClientKept,
    #[error("packets that this machine routes for others are dropped, unless a rule accepts them")]
    CutsTransit,
    #[error(
        "another forward sends the same packets on with another source: to tell them apart takes Linux 5.5 or later"
    )]
    NeedsLinux55,
}

impl ProblemKind {
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            ProblemKind::NotUtf8 => Code::NotUtf8,
            ProblemKind::ControlCharacter { .. } => Code::ControlCharacter,
            ProblemKind::Syntax { .. } => Code::Syntax,
            ProblemKind::TooManyValues => Code::TooManyValues,
            ProblemKind::Empty | ProblemKind::EmptyInFolder => Code::Empty,
            ProblemKind::SeveralDocuments => Code::SeveralDocuments,
            ProblemKind::Alias => Code::Alias,
            ProblemKind::Tag => Code::Tag,
            ProblemKind::DuplicateKey { .. } | ProblemKind::SecondInFolder { .. } => {
                Code::DuplicateKey
            }
            ProblemKind::UnknownKey { .. } => Code::UnknownKey,
            ProblemKind::MissingKey { .. } => Code::MissingKey,
            ProblemKind::WrongType { .. } => Code::WrongType,
            ProblemKind::UnknownWord { .. } => Code::UnknownWord,
            ProblemKind::UnknownCode { .. } => Code::UnknownCode,
            ProblemKind::UnknownVersion { .. } => Code::UnknownVersion,
            ProblemKind::InvalidName(_) => Code::InvalidName,
            ProblemKind::DuplicateName { .. } => Code::DuplicateName,
            ProblemKind::InvalidInterface(_) => Code::InvalidInterface,
            ProblemKind::InvalidPort(_) => Code::InvalidPort,
            ProblemKind::InvalidSnat { .. } => Code::InvalidSnat,
            ProblemKind::InvalidAddress { .. } | ProblemKind::NoBrackets { .. } => {
                Code::InvalidAddress
            }
            ProblemKind::InvalidNet { .. } | ProblemKind::HostBits { .. } => Code::InvalidNet,
            ProblemKind::InvalidNumber { .. } | ProblemKind::RoundedRate { .. } => {
                Code::InvalidNumber
            }
            ProblemKind::InvalidPrefix { .. } => Code::InvalidPrefix,
            ProblemKind::Twice { .. } => Code::Twice,
            ProblemKind::EmptyList { .. } => Code::EmptyList,
            ProblemKind::WrongFamily { .. } | ProblemKind::OtherFamily { .. } => {
                Code::MixedFamilies
            }
            ProblemKind::NoSnat { .. } => Code::NoSnat,
            ProblemKind::AllowsNobody { .. } | ProblemKind::DeniesEverybody { .. } => {
                Code::AllowsNobody
            }
            ProblemKind::TooManyPods { .. } => Code::TooManyPods,
            ProblemKind::HairpinKeepsClients { .. } => Code::HairpinKeepsClients,
            ProblemKind::UnusableAddress { .. } => Code::UnusableAddress,
            ProblemKind::PodWithoutPort { .. } => Code::PodWithoutPort,
            ProblemKind::TwoTargets { .. } => Code::TwoTargets,
            ProblemKind::RangeLength { .. } => Code::RangeLength,
            ProblemKind::DangerousTarget { .. } => Code::DangerousTarget,
            ProblemKind::OverlappingListen { .. } => Code::OverlappingListen,
            ProblemKind::TakesSsh => Code::TakesSsh,
            ProblemKind::TakesLocalService { .. } => Code::TakesLocalService,
            ProblemKind::TargetIsFirewall { .. } => Code::TargetIsFirewall,
            ProblemKind::PolicyKept => Code::PolicyKept,
            ProblemKind::AddressBesideAll { .. } => Code::AddressBesideAll,
            ProblemKind::WideRange { .. } => Code::WideRange,
            ProblemKind::PortKept { .. } => Code::PortKept,
            ProblemKind::PodAddress { .. } => Code::PodAddress,
            ProblemKind::KeepsProbesOut { .. } => Code::KeepsProbesOut,
            ProblemKind::ClientKept => Code::ClientKept,
            ProblemKind::CutsTransit => Code::CutsTransit,
            ProblemKind::NeedsLinux55 => Code::NeedsLinux55,
        }
    }

    /// The second place that the problem is about, and what stands there.
    #[must_use]
    pub fn other_place(&self) -> Option<(Span, &'static str)> {
        match self {
            ProblemKind::DuplicateKey { first, .. }
            | ProblemKind::SecondInFolder { first, .. }
            | ProblemKind::DuplicateName { first, .. }
            | ProblemKind::TwoTargets { first } => Some((first.clone(), "the first one")),
            ProblemKind::RangeLength { listen_span, .. } => {
                Some((listen_span.clone(), "the listener"))
            }
            ProblemKind::OverlappingListen { other, .. } => {
                Some((other.clone(), "the listener that has it"))
            }
            ProblemKind::OtherFamily { target, .. } => Some((target.clone(), "the target")),
            ProblemKind::HairpinKeepsClients { snat } => {
                Some((snat.clone(), "keeps the client's address"))
            }
            ProblemKind::TargetIsFirewall { other, .. } => {
                Some((other.clone(), "said to be the firewall's here"))
            }
            ProblemKind::AddressBesideAll { other, .. } => {
                Some((other.clone(), "the listener that goes first"))
            }
            _ => None,
        }
    }
}

/// Nobody reads further.
const LONGEST: usize = 300;

fn clipped(text: String) -> String {
    // A line end in a name must not begin a line of the report.
    let mut text = if text.contains(is_hidden) {
        printable::line(text).to_string()
    } else {
        text
    };
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push('…');
    }
    text
}

/// Reads the address of a listener or target: IPv4, or IPv6 in brackets, since a port may follow.
pub(super) fn host(text: &str) -> Result<IpAddr, ProblemKind> {
    let bracketed = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let text = text.to_owned();
    match (bracketed, text.parse::<IpAddr>()) {
        (Some(address), _) => address
            .parse()
            .map(IpAddr::V6)
            .map_err(|_| ProblemKind::InvalidAddress { text }),
        (None, Ok(address @ IpAddr::V4(_))) => Ok(address),
        (None, Ok(IpAddr::V6(_))) => Err(ProblemKind::NoBrackets { text }),
        (None, Err(_)) => Err(ProblemKind::InvalidAddress { text }),
    }
}

pub(super) fn one_of(known: &[&str]) -> String {
    let quoted: Vec<String> = known.iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}

fn place(key: &str) -> String {
    match key {
        "spec" => "the spec".to_owned(),
        "forward" => "an entry of `forwards`".to_owned(),
        key => format!("`{key}`"),
    }
}

//! Everything that can be wrong with a spec: where, what, and the edit that mends it.

use std::net::Ipv4Addr;
use std::ops::Range;

use thiserror::Error;

use crate::net::{InterfaceError, PortError};

/// Bytes of the spec's text.
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
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProblemKind {
    #[error("the file is not UTF-8 text")]
    NotUtf8,
    #[error("the control character {found:?} cannot stand in YAML")]
    ControlCharacter { found: char },
    #[error("not YAML: {reason}")]
    Syntax { reason: String },
    #[error("more than {} values", super::MAX_VALUES)]
    TooManyValues,
    #[error("the file says nothing")]
    Empty,
    #[error("a second document: a spec is one")]
    SeveralDocuments,
    #[error("anchors and aliases are not supported")]
    Alias,
    #[error("tags are not supported")]
    Tag,
    #[error("the key `{key}` stands here a second time")]
    DuplicateKey { key: String, first: Span },
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
    #[error("version `{text}` is not known")]
    UnknownVersion { text: String },
    #[error(
        "`{text}` is not a name: a name is 1 to 63 of A-Z a-z 0-9 _ . - and starts with a letter or digit"
    )]
    InvalidName { text: String },
    #[error("another forward is called `{name}`")]
    DuplicateName { name: String, first: Span },
    #[error(transparent)]
    InvalidInterface(InterfaceError),
    #[error(transparent)]
    InvalidPort(PortError),
    #[error("`{text}` is neither an IPv4 address nor `masquerade`")]
    InvalidSnat { text: String },
    #[error("`{text}` is not an IPv4 address")]
    InvalidAddress { text: String },
    #[error("{address} cannot be a `{key}` address: {reason}")]
    UnusableAddress {
        key: &'static str,
        address: Ipv4Addr,
        reason: &'static str,
    },
    #[error("a pod needs a port: `{address}` has none")]
    PodWithoutPort { address: Ipv4Addr },
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
        address: Ipv4Addr,
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
}

impl ProblemKind {
    /// Every code there is, in the order of the variants.
    pub const CODES: [&'static str; 27] = [
        "not-utf8",
        "control-character",
        "syntax",
        "too-many-values",
        "empty",
        "several-documents",
        "alias",
        "tag",
        "duplicate-key",
        "unknown-key",
        "missing-key",
        "wrong-type",
        "unknown-word",
        "unknown-version",
        "invalid-name",
        "duplicate-name",
        "invalid-interface",
        "invalid-port",
        "invalid-snat",
        "invalid-address",
        "unusable-address",
        "pod-without-port",
        "two-targets",
        "range-length",
        "dangerous-target",
        "overlapping-listen",
        "takes-ssh",
    ];

    /// The problem's stable code, by which scripts and `silence:` name it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            ProblemKind::NotUtf8 => "not-utf8",
            ProblemKind::ControlCharacter { .. } => "control-character",
            ProblemKind::Syntax { .. } => "syntax",
            ProblemKind::TooManyValues => "too-many-values",
            ProblemKind::Empty => "empty",
            ProblemKind::SeveralDocuments => "several-documents",
            ProblemKind::Alias => "alias",
            ProblemKind::Tag => "tag",
            ProblemKind::DuplicateKey { .. } => "duplicate-key",
            ProblemKind::UnknownKey { .. } => "unknown-key",
            ProblemKind::MissingKey { .. } => "missing-key",
            ProblemKind::WrongType { .. } => "wrong-type",
            ProblemKind::UnknownWord { .. } => "unknown-word",
            ProblemKind::UnknownVersion { .. } => "unknown-version",
            ProblemKind::InvalidName { .. } => "invalid-name",
            ProblemKind::DuplicateName { .. } => "duplicate-name",
            ProblemKind::InvalidInterface(_) => "invalid-interface",
            ProblemKind::InvalidPort(_) => "invalid-port",
            ProblemKind::InvalidSnat { .. } => "invalid-snat",
            ProblemKind::InvalidAddress { .. } => "invalid-address",
            ProblemKind::UnusableAddress { .. } => "unusable-address",
            ProblemKind::PodWithoutPort { .. } => "pod-without-port",
            ProblemKind::TwoTargets { .. } => "two-targets",
            ProblemKind::RangeLength { .. } => "range-length",
            ProblemKind::DangerousTarget { .. } => "dangerous-target",
            ProblemKind::OverlappingListen { .. } => "overlapping-listen",
            ProblemKind::TakesSsh => "takes-ssh",
        }
    }

    /// The edit that mends it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            ProblemKind::NotUtf8 => "save the file as UTF-8; names and addresses are ASCII".into(),
            ProblemKind::ControlCharacter { .. } => "remove it".into(),
            ProblemKind::Syntax { reason } if reason.contains("nesting") => {
                "a spec is four levels deep".into()
            }
            ProblemKind::Syntax { .. } => {
                "indent with spaces, two a level, and put a space behind each `:` and `-`".into()
            }
            ProblemKind::TooManyValues => "split the forwards over several specs".into(),
            ProblemKind::Empty => "begin with `firewall:` and `forwards:`; the README has an example".into(),
            ProblemKind::SeveralDocuments => "keep each spec in a file of its own".into(),
            ProblemKind::Alias => "write the value out".into(),
            ProblemKind::Tag => "remove the `!…`: the key decides the type".into(),
            ProblemKind::DuplicateKey { key, .. } => format!("keep one `{key}`"),
            ProblemKind::UnknownKey { key, known, .. } => did_you_mean(key, known),
            ProblemKind::MissingKey { key, .. } => format!("add `{key}: {}`", example(key)),
            ProblemKind::WrongType { key: "spec", .. } => {
                "begin with `firewall:` and `forwards:`".into()
            }
            ProblemKind::WrongType { key: "forward", .. } => {
                "write `- {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}`".into()
            }
            ProblemKind::WrongType { key, .. } => format!("write `{key}: {}`", example(key)),
            ProblemKind::UnknownWord { text, known } => did_you_mean(text, known),
            ProblemKind::UnknownVersion { .. } => "write `version: 1`, or leave it out".into(),
            ProblemKind::InvalidName { text } => match usable_name(text) {
                Some(name) => format!("call it `{name}`"),
                None => "call it `web`, for example".into(),
            },
            ProblemKind::DuplicateName { .. } => "give each forward a name of its own".into(),
            ProblemKind::InvalidInterface(_) => {
                "`ip -brief link` lists the machine's interfaces".into()
            }
            ProblemKind::InvalidPort(PortError::LeadingZero(text)) => {
                format!("write `{}`", text.trim_start_matches('0'))
            }
            ProblemKind::InvalidPort(PortError::Backwards { first, last }) => {
                format!("write `{last}-{first}`")
            }
            ProblemKind::InvalidPort(_) => "write a port as `443` and a range as `5000-5010`".into(),
            ProblemKind::InvalidSnat { text } if text.starts_with(|c: char| c.is_alphabetic()) => {
                did_you_mean(text, &["masquerade"])
            }
            ProblemKind::InvalidAddress { text } | ProblemKind::InvalidSnat { text }
                if has_leading_zero(text) =>
            {
                "write it without leading zeros: iptables reads them as octal".into()
            }
            ProblemKind::InvalidAddress { .. } | ProblemKind::InvalidSnat { .. } => {
                "write four numbers from 0 to 255, as in `10.224.0.118`".into()
            }
            ProblemKind::UnusableAddress { key: "listen", address, .. }
                if address.is_unspecified() =>
            {
                "to listen on all addresses, write the port alone".into()
            }
            ProblemKind::UnusableAddress {
                key: "snat" | "listen",
                ..
            } => {
                "`ip -brief address` lists the machine's addresses".into()
            }
            ProblemKind::PodWithoutPort { address } => {
                format!("add the container's port: `pod: {address}:80`")
            }
            ProblemKind::TwoTargets { .. } => "keep one, and give the other a forward of its own".into(),
            ProblemKind::RangeLength { listen: 1, .. } => "give the target one port".into(),
            ProblemKind::RangeLength { listen, .. } => {
                format!("give the target {listen} ports, or one port for all")
            }
            ProblemKind::UnusableAddress { .. } | ProblemKind::DangerousTarget { .. } => {
                "name the internal load balancer or the pod itself".into()
            }
            ProblemKind::OverlappingListen { .. } => {
                "give one of the two another port, protocol or listen address".into()
            }
            ProblemKind::TakesSsh => {
                "listen on another port, or add `silence: [takes-ssh]` to the forward if ssh stays reachable by other means".into()
            }
        }
    }

    /// The second place that the problem is about, and what stands there.
    #[must_use]
    pub fn other_place(&self) -> Option<(Span, &'static str)> {
        match self {
            ProblemKind::DuplicateKey { first, .. }
            | ProblemKind::DuplicateName { first, .. }
            | ProblemKind::TwoTargets { first } => Some((first.clone(), "the first one")),
            ProblemKind::RangeLength { listen_span, .. } => {
                Some((listen_span.clone(), "the listener"))
            }
            ProblemKind::OverlappingListen { other, .. } => {
                Some((other.clone(), "the listener that has it"))
            }
            _ => None,
        }
    }
}

/// Reads an IPv4 address: four decimal numbers without leading zeros.
pub(super) fn address(text: &str) -> Result<Ipv4Addr, ProblemKind> {
    text.parse().map_err(|_| ProblemKind::InvalidAddress {
        text: text.to_owned(),
    })
}

fn place(key: &str) -> String {
    match key {
        "spec" => "the spec".to_owned(),
        "forward" => "an entry of `forwards`".to_owned(),
        key => format!("`{key}`"),
    }
}

fn one_of(known: &[&str]) -> String {
    let quoted: Vec<String> = known.iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}

/// The nearest known word, or all of them where none is near.
fn did_you_mean(text: &str, known: &[&'static str]) -> String {
    match nearest(text, known) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("known: {}", one_of(known)),
    }
}

/// The known word that `text` is a slip for, if it is near enough to one.
pub(super) fn nearest(text: &str, known: &[&'static str]) -> Option<&'static str> {
    // A word of a megabyte is nobody's slip, and comparing it would cost its square.
    known
        .iter()
        .filter(|_| text.len() <= 64)
        .map(|word| (strsim::damerau_levenshtein(text, word), *word))
        .filter(|(distance, word)| *distance <= word.len().max(text.len()) / 3)
        .min()
        .map(|(_, word)| word)
}

fn example(key: &str) -> &'static str {
    match key {
        "version" => "1",
        "interface" | "ingress" | "egress" => "eth0",
        "snat" => "10.3.0.4",
        "forward_policy" => "drop",
        "name" => "web",
        "listen" => "49182",
        "protocol" => "tcp",
        "target" => "{pod: 10.224.0.118:80}",
        "pod" => "10.224.0.118:80",
        "ilb" => "10.224.0.222:49180",
        "silence" => "[takes-ssh]",
        "firewall" => "{interface: eth0, snat: 10.3.0.4}",
        _ => "[]",
    }
}

fn usable_name(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let name: String = text
        .chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(super::Name::MAX_BYTES)
        .collect();
    let name = name.trim_end_matches('-');
    (!name.is_empty()).then(|| name.to_owned())
}

fn has_leading_zero(address: &str) -> bool {
    address.split('.').any(|part| {
        part.len() > 1 && part.starts_with('0') && part.bytes().all(|b| b.is_ascii_digit())
    })
}

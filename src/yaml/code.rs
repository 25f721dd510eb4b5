//! The stable names of everything `check` can say, how grave each is, and what it means.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// How grave a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The spec is refused, by every command.
    Error,
    /// The spec is taken; `--deny` makes `check` fail.
    Warning,
    /// Worth knowing once; shown on request.
    Note,
}

impl Severity {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// The kind of a problem, by which scripts, `--deny` and `silence:` name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    NotUtf8,
    ControlCharacter,
    Syntax,
    TooManyValues,
    Empty,
    SeveralDocuments,
    Alias,
    Tag,
    DuplicateKey,
    UnknownKey,
    MissingKey,
    WrongType,
    UnknownWord,
    UnknownCode,
    UnknownVersion,
    InvalidName,
    DuplicateName,
    InvalidInterface,
    InvalidPort,
    InvalidSnat,
    InvalidAddress,
    InvalidNet,
    InvalidNumber,
    InvalidPrefix,
    Twice,
    EmptyList,
    UnusableAddress,
    PodWithoutPort,
    TwoTargets,
    RangeLength,
    DangerousTarget,
    MixedFamilies,
    NoSnat,
    AllowsNobody,
    TooManyPods,
    HairpinKeepsClients,
    OverlappingListen,
    TakesSsh,
    TakesLocalService,
    TargetIsFirewall,
    PolicyKept,
    AddressBesideAll,
    WideRange,
    KeepsProbesOut,
    ClientKept,
    PortKept,
    PodAddress,
    CutsTransit,
    NeedsLinux55,
}

impl Code {
    /// In the order of `check --list`.
    pub const ALL: [Code; 49] = [
        Code::NotUtf8,
        Code::ControlCharacter,
        Code::Syntax,
        Code::TooManyValues,
        Code::Empty,
        Code::SeveralDocuments,
        Code::Alias,
        Code::Tag,
        Code::DuplicateKey,
        Code::UnknownKey,
        Code::MissingKey,
        Code::WrongType,
        Code::UnknownWord,
        Code::UnknownCode,
        Code::UnknownVersion,
        Code::InvalidName,
        Code::DuplicateName,
        Code::InvalidInterface,
        Code::InvalidPort,
        Code::InvalidSnat,
        Code::InvalidAddress,
        Code::InvalidNet,
        Code::InvalidNumber,
        Code::InvalidPrefix,
        Code::Twice,
        Code::EmptyList,
        Code::UnusableAddress,
        Code::PodWithoutPort,
        Code::TwoTargets,
        Code::RangeLength,
        Code::DangerousTarget,
        Code::MixedFamilies,
        Code::NoSnat,
        Code::AllowsNobody,
        Code::TooManyPods,
        Code::HairpinKeepsClients,
        Code::OverlappingListen,
        Code::TakesSsh,
        Code::TakesLocalService,
        Code::TargetIsFirewall,
        Code::PolicyKept,
        Code::AddressBesideAll,
        Code::WideRange,
        Code::KeepsProbesOut,
        Code::ClientKept,
        Code::PortKept,
        Code::PodAddress,
        Code::CutsTransit,
        Code::NeedsLinux55,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    #[must_use]
    pub fn severity(self) -> Severity {
        self.row().1
    }

    /// What it means, in half a line.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        self.row().2
    }

    /// Whether `silence:` may keep it quiet: every warning and note, and the one error that a user
    /// may mean.
    #[must_use]
    pub fn can_be_silenced(self) -> bool {
        self.severity() != Severity::Error || self == Code::TakesSsh
    }

    #[expect(clippy::too_many_lines, reason = "it is a table")]
    fn row(self) -> (&'static str, Severity, &'static str) {
        use Severity::{Error, Note, Warning};
        match self {
            Code::NotUtf8 => ("not-utf8", Error, "the file is not UTF-8 text"),
            Code::ControlCharacter => ("control-character", Error, "a character that YAML forbids"),
            Code::Syntax => ("syntax", Error, "the text is not YAML"),
            Code::TooManyValues => ("too-many-values", Error, "more values than any spec has"),
            Code::Empty => ("empty", Error, "the file says nothing"),
            Code::SeveralDocuments => ("several-documents", Error, "more than one YAML document"),
            Code::Alias => ("alias", Error, "a YAML anchor or alias"),
            Code::Tag => ("tag", Error, "a YAML tag"),
            Code::DuplicateKey => ("duplicate-key", Error, "a key that stands twice"),
            Code::UnknownKey => ("unknown-key", Error, "a key that means nothing here"),
            Code::MissingKey => ("missing-key", Error, "a key that must be there"),
            Code::WrongType => (
                "wrong-type",
                Error,
                "a list for a value, a value for a list, or nothing",
            ),
            Code::UnknownWord => (
                "unknown-word",
                Error,
                "none of the words that the key takes",
            ),
            Code::UnknownCode => (
                "unknown-code",
                Error,
                "a code that `silence` cannot take here",
            ),
            Code::UnknownVersion => ("unknown-version", Error, "a version other than 1"),
            Code::InvalidName => (
                "invalid-name",
                Error,
                "a name that cannot become a rule's comment",
            ),
            Code::DuplicateName => ("duplicate-name", Error, "two forwards of one name"),
            Code::InvalidInterface => ("invalid-interface", Error, "a name that no interface has"),
            Code::InvalidPort => ("invalid-port", Error, "a port or range that is none"),
            Code::InvalidSnat => (
                "invalid-snat",
                Error,
                "neither addresses nor masquerade or none",
            ),
            Code::InvalidAddress => ("invalid-address", Error, "an address that is none"),
            Code::InvalidNet => ("invalid-net", Error, "a network that is none"),
            Code::InvalidNumber => (
                "invalid-number",
                Error,
                "a number that is none, or that the kernel cannot hold",
            ),
            Code::InvalidPrefix => (
                "invalid-prefix",
                Error,
                "words that cannot stand in front of a line of the log",
            ),
            Code::Twice => ("twice", Error, "a value that stands twice in a list"),
            Code::EmptyList => ("empty-list", Error, "a list that must hold something"),
            Code::UnusableAddress => ("unusable-address", Error, "an address that no host has"),
            Code::PodWithoutPort => ("pod-without-port", Error, "a pod target without a port"),
            Code::TwoTargets => ("two-targets", Error, "both ilb and pod"),
            Code::RangeLength => (
                "range-length",
                Error,
                "a target range longer or shorter than the listener's",
            ),
            Code::DangerousTarget => (
                "dangerous-target",
                Error,
                "a target that hands out what is the VM's own",
            ),
            Code::MixedFamilies => (
                "mixed-families",
                Error,
                "IPv4 and IPv6 where one forward can have only one",
            ),
            Code::NoSnat => ("no-snat", Error, "a target of a family that has no snat"),
            Code::AllowsNobody => (
                "allows-nobody",
                Error,
                "lists that let nobody of the forward's family in",
            ),
            Code::TooManyPods => (
                "too-many-pods",
                Error,
                "more pods than can share connections",
            ),
            Code::HairpinKeepsClients => (
                "hairpin-keeps-clients",
                Error,
                "a hairpin that keeps the client's address",
            ),
            Code::OverlappingListen => (
                "overlapping-listen",
                Error,
                "two forwards that listen on one port",
            ),
            Code::TakesSsh => (
                "takes-ssh",
                Error,
                "a listener that takes the firewall's own ssh",
            ),
            Code::TakesLocalService => (
                "takes-local-service",
                Warning,
                "a listen range that takes DNS, DHCP or WinRM from the firewall",
            ),
            Code::TargetIsFirewall => (
                "target-is-firewall",
                Warning,
                "a target that is the firewall itself",
            ),
            Code::PolicyKept => (
                "policy-kept",
                Warning,
                "nothing here drops what is not forwarded",
            ),
            Code::AddressBesideAll => (
                "address-beside-all",
                Warning,
                "a listener for all addresses beside one for an address",
            ),
            Code::WideRange => ("wide-range", Warning, "a listener of thousands of ports"),
            Code::KeepsProbesOut => (
                "keeps-probes-out",
                Warning,
                "a list that keeps the probes of Azure's load balancer out",
            ),
            Code::ClientKept => (
                "client-kept",
                Warning,
                "targets answer the client itself, by their own routes",
            ),
            Code::PortKept => (
                "port-kept",
                Note,
                "an ilb without a port keeps the listen port",
            ),
            Code::PodAddress => (
                "pod-address",
                Note,
                "a pod's address changes when it restarts",
            ),
            Code::CutsTransit => (
                "cuts-transit",
                Note,
                "the FORWARD policy drops what the VM routes for others",
            ),
            Code::NeedsLinux55 => (
                "needs-linux-5-5",
                Note,
                "forwards that only the interface by which packets came in tells apart",
            ),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a code; `nvactl check --list` has them all")]
pub struct CodeError(String);

impl FromStr for Code {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        Self::ALL
            .into_iter()
            .find(|code| code.as_str() == text)
            .ok_or_else(|| CodeError(text.to_owned()))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

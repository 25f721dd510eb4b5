//! Why a forward does not work: a check for each hop on a packet's path.
//!
//! [`examine`] is a function of [`Facts`], which the edge gathers without changing anything. The
//! checks come in the order of the path; the first that fails is the one to fix.

mod answers;
mod azure;
mod boot;
mod capacity;
mod examine;
mod facts;
mod fix;
mod jump;
mod machine;
mod outbound;
mod packets;
mod remedy;
mod replies;
mod route;
mod rules;
mod scene;
mod target;

use serde::Serialize;

pub use answers::Answers;
pub use azure::questions as probe_questions;
pub use capacity::{azure_connections, lost};
pub use examine::examine;
pub use facts::{BootFacts, Choice, Facts, PendingChange, RoutedClient, questions};
pub use fix::Fix;
pub use machine::invalid;
pub use outbound::questions as outbound_questions;
pub use packets::{
    Untried, Works, keeps, rule as rule_words, took, tried_client as client_words, untried, works,
};
pub use remedy::{Remedy, of_death as fixes};
pub use replies::suspects;
pub use scene::Scene;

use crate::forwards::{Forward, ForwardSet, Outbound};
use crate::net::Family;

/// All checks of one run.
#[derive(Debug, Serialize)]
pub struct Report {
    pub checks: Vec<Check>,
}

/// One check of one hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub code: Hop,
    pub status: Status,
    /// The forward that the check is about; none if it concerns all forwards.
    pub forward: Option<String>,
    /// The family that the check is about; none if it concerns the machine or both families.
    pub family: Option<Family>,
    /// The finding, and its effect.
    pub reason: String,
    pub fix: Option<Fix>,
    /// Whether connections pass with the fix, tried in a copy of the machine.
    pub tried: bool,
    /// Whether the finding stands even if all tried connections pass, because they do not show its whole effect.
    #[serde(skip)]
    pub stands: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Ok,
    /// It works now, but not for all clients or not for ever.
    Warn,
    Fail,
    /// This machine cannot decide it.
    Unknown,
}

impl Status {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "fail",
            Status::Unknown => "unknown",
        }
    }
}

/// The hops: the interfaces and addresses that the spec names, the hops on a packet's path, then later times such as
/// the next boot, then the network outside of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hop {
    Backend,
    Interface,
    ListenAddress,
    SnatAddress,
    IpForward,
    InterfaceForwarding,
    RpFilter,
    ConntrackTable,
    SnatPorts,
    Jump,
    DnatRule,
    ForeignRule,
    OtherBackend,
    NativeNft,
    MssRule,
    ForwardRule,
    SnatRule,
    OwnChains,
    Route,
    Mtu,
    Packets,
    Neighbour,
    Target,
    Reply,
    ConntrackInvalid,
    ConntrackLosses,
    StaleConnection,
    RivalRule,
    Pending,
    Persistence,
    BootOrder,
    SysctlAtBoot,
    AzureConnections,
    AzureNsg,
    AzureRoute,
    AzureNic,
    AzurePeering,
}

impl Hop {
    /// Returns the hop's code in reports, which stays.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Hop::Backend => "backend",
            Hop::Interface => "interface",
            Hop::ListenAddress => "listen-address",
            Hop::SnatAddress => "snat-address",
            Hop::IpForward => "ip-forward",
            Hop::InterfaceForwarding => "interface-forwarding",
            Hop::RpFilter => "rp-filter",
            Hop::ConntrackTable => "conntrack-table",
            Hop::SnatPorts => "snat-ports",
            Hop::Jump => "jump",
            Hop::DnatRule => "dnat-rule",
            Hop::ForeignRule => "foreign-rule",
            Hop::OtherBackend => "other-backend",
            Hop::NativeNft => "native-nft",
            Hop::MssRule => "mss-rule",
            Hop::ForwardRule => "forward-rule",
            Hop::SnatRule => "snat-rule",
            Hop::OwnChains => "own-chains",
            Hop::Route => "route",
            Hop::Mtu => "mtu",
            Hop::Packets => "packets",
            Hop::Neighbour => "neighbour",
            Hop::Target => "target",
            Hop::Reply => "reply",
            Hop::ConntrackInvalid => "conntrack-invalid",
            Hop::ConntrackLosses => "conntrack-losses",
            Hop::StaleConnection => "stale-connection",
            Hop::RivalRule => "rival-rule",
            Hop::Pending => "pending",
            Hop::Persistence => "persistence",
            Hop::BootOrder => "boot-order",
            Hop::SysctlAtBoot => "sysctl-at-boot",
            Hop::AzureConnections => "azure-connections",
            Hop::AzureNsg => "azure-nsg",
            Hop::AzureRoute => "azure-route",
            Hop::AzureNic => "azure-nic",
            Hop::AzurePeering => "azure-peering",
        }
    }

    fn ok(self, reason: impl Into<String>) -> Check {
        self.found(Status::Ok, reason)
    }

    fn warn(self, reason: impl Into<String>) -> Check {
        self.found(Status::Warn, reason)
    }

    fn fail(self, reason: impl Into<String>) -> Check {
        self.found(Status::Fail, reason)
    }

    fn unknown(self, reason: impl Into<String>) -> Check {
        self.found(Status::Unknown, reason)
    }

    fn found(self, status: Status, reason: impl Into<String>) -> Check {
        Check {
            code: self,
            status,
            forward: None,
            family: None,
            reason: reason.into(),
            fix: None,
            tried: false,
            stands: false,
        }
    }
}

impl Check {
    /// Whether the check says that a forward's packets may or may not come through.
    #[must_use]
    pub fn is_unknown_of_packets(&self) -> bool {
        let is_of_packets = self.code > Hop::SnatAddress && self.code <= Hop::Target;
        self.status == Status::Unknown && self.forward.is_some() && is_of_packets
    }

    /// Whether two checks are the same but for the family.
    #[must_use]
    pub fn is_as(&self, other: &Self) -> bool {
        let of_family = || Check {
            family: other.family,
            ..self.clone()
        };
        self.code == other.code && of_family() == *other
    }

    fn of(self, forward: &Forward) -> Self {
        Self {
            forward: Some(forward.name.to_string()),
            ..self
        }
    }

    fn fix(self, fix: impl Into<Fix>) -> Self {
        Self {
            fix: Some(fix.into()),
            ..self
        }
    }
}

/// A spec, the facts about the machine, and the forwards that the user asked about.
#[derive(Debug)]
pub struct Case<'c> {
    pub facts: &'c Facts<'c>,
    /// The whole spec.
    pub set: &'c ForwardSet,
    /// The family whose packets are examined.
    pub family: Family,
    /// The forwards of `set` that the user asked about; all of this family.
    pub asked: Vec<&'c Forward>,
    /// The outbound entries of `set` that the user asked about.
    pub entries: &'c [Outbound],
    /// The command that applies this spec, here and by this backend.
    pub apply: String,
    /// The command that keeps the loaded rules.
    pub persist: String,
    /// The command that runs the doctor again.
    pub doctor: String,
    /// The option that names the state folder; empty if the user gave none.
    pub folder: String,
    /// The iptables that is called.
    pub iptables: String,
}

impl Case<'_> {
    /// Completes nvactl's commands, joined by `&&`, with the spec and the state folder that the user gave. Commands of
    /// other programs stay.
    fn completed(&self, commands: &str) -> String {
        completed(commands, &self.apply, &self.persist, &self.folder)
    }
}

fn completed(commands: &str, apply: &str, persist: &str, folder: &str) -> String {
    let each = commands.split(" && ").map(|command| match command {
        "sudo nvactl apply" => apply.to_owned(),
        "sudo nvactl persist" => persist.to_owned(),
        own if own.starts_with("sudo nvactl ") => format!("{own}{folder}"),
        other => other.to_owned(),
    });
    each.collect::<Vec<_>>().join(" && ")
}

/// Returns the check to look at first: a failure, else an unknown about a forward's packets, else a warning about a
/// jump, else another warning, else another unknown.
#[must_use]
pub fn first(checks: &[Check]) -> Option<&Check> {
    let of = |status| move |check: &&Check| check.status == status;
    let unknown = |check: &&Check| check.is_unknown_of_packets();
    // Connections pass, but perhaps not by nvactl's rules.
    let jump = |check: &&Check| check.code == Hop::Jump && check.status == Status::Warn;
    checks
        .iter()
        .find(of(Status::Fail))
        .or_else(|| checks.iter().find(unknown))
        .or_else(|| checks.iter().find(jump))
        .or_else(|| checks.iter().find(of(Status::Warn)))
        .or_else(|| checks.iter().find(of(Status::Unknown)))
}

#[cfg(test)]
mod tests {
    use super::completed;

    #[test]
    fn a_fix_has_the_spec_and_the_folder_that_the_user_gave() {
        let apply = "sudo nvactl apply - --state-dir /s < YOUR-SPEC";
        for (fix, printed) in [
            ("sudo nvactl confirm", "sudo nvactl confirm --state-dir /s"),
            (
                "sudo systemctl unmask a && sudo nvactl boot enable",
                "sudo systemctl unmask a && sudo nvactl boot enable --state-dir /s",
            ),
            (
                "sudo nvactl apply && sudo nvactl persist",
                "sudo nvactl apply - --state-dir /s < YOUR-SPEC && sudo nvactl persist f.yaml",
            ),
        ] {
            let said = completed(fix, apply, "sudo nvactl persist f.yaml", " --state-dir /s");
            assert_eq!(said, printed);
        }
    }
}

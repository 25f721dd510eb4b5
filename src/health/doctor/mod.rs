//! Why a forward does not work: its way from hop to hop, and at each what is known of it.
//!
//! [`examine`] is a function of [`Facts`], which the edge gathers without changing anything. The
//! checks come in the order of a packet's way; the first that fails is the one to mend.

mod answers;
mod azure;
mod boot;
mod examine;
mod facts;
mod machine;
mod packets;
mod remedy;
mod rules;
mod scene;
mod target;

use serde::Serialize;

pub use answers::Answers;
pub use azure::questions as probe_questions;
pub use examine::examine;
pub use facts::{Boot, Client, Facts, questions};
pub use machine::invalid;
pub use packets::{
    Untried, client as client_words, keeps, rule as rule_words, took, untried, works,
};
pub use remedy::{Remedy, fix_line, of_death as fixes};
pub use scene::Scene;

use crate::forwards::{Forward, ForwardSet};
use crate::net::Family;

/// All that was found.
#[derive(Debug, Serialize)]
pub struct Report {
    pub checks: Vec<Check>,
}

/// One check of one hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub code: Hop,
    pub status: Status,
    /// The forward that it is about; none where it concerns all of them.
    pub forward: Option<String>,
    /// What was found.
    pub reason: String,
    /// The command or edit that mends it.
    pub fix: Option<String>,
    /// Whether it works with the fix, tried in a copy of the machine.
    pub tried: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Ok,
    /// It works now, but may not for all or for ever.
    Warn,
    Fail,
    /// It cannot be told from here.
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

/// The hops, in the order of a packet's way; then what concerns later times, then what this
/// machine cannot see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hop {
    Backend,
    Interface,
    ListenAddress,
    IpForward,
    InterfaceForwarding,
    RpFilter,
    ConntrackTable,
    Jump,
    DnatRule,
    ForeignRule,
    OtherBackend,
    NativeNft,
    ForwardRule,
    SnatRule,
    OwnChains,
    SnatAddress,
    Route,
    Mtu,
    Packets,
    Neighbour,
    Target,
    Reply,
    ConntrackInvalid,
    StaleConnection,
    RivalRule,
    Pending,
    Persistence,
    BootOrder,
    SysctlAtBoot,
    AzureNsg,
    AzureRoute,
    AzureNic,
    AzurePeering,
}

impl Hop {
    /// Its code in reports, which stays.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Hop::Backend => "backend",
            Hop::Interface => "interface",
            Hop::ListenAddress => "listen-address",
            Hop::IpForward => "ip-forward",
            Hop::InterfaceForwarding => "interface-forwarding",
            Hop::RpFilter => "rp-filter",
            Hop::ConntrackTable => "conntrack-table",
            Hop::Jump => "jump",
            Hop::DnatRule => "dnat-rule",
            Hop::ForeignRule => "foreign-rule",
            Hop::OtherBackend => "other-backend",
            Hop::NativeNft => "native-nft",
            Hop::ForwardRule => "forward-rule",
            Hop::SnatRule => "snat-rule",
            Hop::OwnChains => "own-chains",
            Hop::SnatAddress => "snat-address",
            Hop::Route => "route",
            Hop::Mtu => "mtu",
            Hop::Packets => "packets",
            Hop::Neighbour => "neighbour",
            Hop::Target => "target",
            Hop::Reply => "reply",
            Hop::ConntrackInvalid => "conntrack-invalid",
            Hop::StaleConnection => "stale-connection",
            Hop::RivalRule => "rival-rule",
            Hop::Pending => "pending",
            Hop::Persistence => "persistence",
            Hop::BootOrder => "boot-order",
            Hop::SysctlAtBoot => "sysctl-at-boot",
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
            reason: reason.into(),
            fix: None,
            tried: false,
        }
    }
}

impl Check {
    /// Whether it says that nobody knows whether a forward's packets come through.
    #[must_use]
    pub fn is_unknown_of_packets(&self) -> bool {
        let is_of_packets = self.code > Hop::ListenAddress && self.code <= Hop::Target;
        self.status == Status::Unknown && self.forward.is_some() && is_of_packets
    }

    fn of(self, forward: &Forward) -> Self {
        Self {
            forward: Some(forward.name.to_string()),
            ..self
        }
    }

    fn fix(self, fix: impl Into<String>) -> Self {
        Self {
            fix: Some(fix.into()),
            ..self
        }
    }

    /// A fix with which it worked in the copy of the machine.
    fn tried(self, fix: impl Into<String>) -> Self {
        Self {
            tried: true,
            ..self.fix(fix)
        }
    }
}

/// What is asked about: the forwards of `asked`, which are some of those of `set`.
#[derive(Debug)]
pub struct Case<'c> {
    pub facts: &'c Facts<'c>,
    /// The whole spec.
    pub set: &'c ForwardSet,
    /// The one that is looked at.
    pub family: Family,
    /// Whose way is walked; all of this family.
    pub asked: Vec<&'c Forward>,
    /// The command that applies this spec, here and by this backend.
    pub apply: String,
    /// The command that keeps what is loaded.
    pub persist: String,
    /// The command that asks again.
    pub doctor: String,
    /// The option that names the state folder; empty where it was not given.
    pub folder: String,
    /// The iptables that is called.
    pub iptables: String,
}

impl Case<'_> {
    /// Completes a command of nvactl's, or several joined by `&&`, with the spec and the state folder that the user
    /// gave. Those of other programs stay.
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

/// The check to look at first: one that failed, else what is not known of a forward's packets, else a
/// warning, else what cannot be told.
#[must_use]
pub fn first(checks: &[Check]) -> Option<&Check> {
    let of = |status| move |check: &&Check| check.status == status;
    let unknown = |check: &&Check| check.is_unknown_of_packets();
    checks
        .iter()
        .find(of(Status::Fail))
        .or_else(|| checks.iter().find(unknown))
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

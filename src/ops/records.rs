//! The records in the state folder as plain values: changes, the pending change, the last decision, a started
//! change, the saved state.
//!
//! Records of earlier versions can be read: missing fields have defaults. A record of a later version cannot,
//! since this version could overlook its new fields.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::diff::drift::ForwardNames;
use crate::host::session::Who;
use crate::host::sysctl::settings::Switch;
use crate::net::per_family::{Families, PerFamily};
use crate::net::{Family, Protocol};
use crate::netfilter::backend::Backend;
use crate::netfilter::conntrack::Flow;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::text::line::{Line, brings_rule};
use crate::netfilter::text::parse::{self, ParseError};
use crate::plan::digest::Digest;

/// The version of most records that this program writes. Records without a version are of 0.1.0 and older.
pub const VERSION: u32 = 1;

/// The version of the record of a change that takes out or puts back foreign rules, and the latest that this program
/// reads. A program that knows only [`VERSION`] would undo such a change without its foreign rules.
pub const VERSION_WITH_FOREIGN: u32 = 2;

/// A change to the rules that nvactl owns.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Change {
    #[serde(default)]
    pub version: u32,
    /// Seconds since 1970.
    pub time: u64,
    /// The name in `/proc/self/ns/net`.
    pub namespace: String,
    /// The command: `apply forward.yaml`.
    pub action: String,
    /// The rules from before the change.
    #[serde(flatten)]
    pub v4: Owned,
    /// IPv6 rules from before the change, if it touched IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v6: Option<Owned>,
    /// The spec that was loaded; none if the change left no rules of nvactl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<KeptSpec>,
    /// The forwards that the change adds, changes and removes.
    #[serde(default, skip_serializing_if = "ForwardNames::is_empty")]
    pub forwards: ForwardNames,
    /// The person who made the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<Who>,
    /// For a rollback, the number of the change to go back behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_before: Option<u64>,
    /// When and why the change was undone, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undone: Option<Undone>,
    /// The boot in which the change was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// Whether the FORWARD policy of IPv4 is DROP after the change.
    #[serde(default)]
    pub closed: bool,
    /// Whether the FORWARD policy of IPv6 is DROP after the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_v6: Option<bool>,
    /// Digest of nvactl's rules of IPv4 after the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded: Option<Digest>,
    /// Digest of nvactl's rules of IPv6 after the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded_v6: Option<Digest>,
    /// The number of nvactl's rules of IPv4 after the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_count: Option<usize>,
    /// The number of nvactl's rules of IPv6 after the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_count_v6: Option<usize>,
    /// The foreign rules that the change took out, in the order of their chains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adopted: Vec<KeptRule>,
    /// The foreign rules that the change put back, which an earlier one had taken out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub returned: Vec<KeptRule>,
}

/// A foreign rule that a change took out, with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptRule {
    pub family: Family,
    pub table: TableName,
    pub chain: ChainName,
    /// Its number in the chain, as iptables counts it.
    pub number: usize,
    /// The rule as iptables-save prints it behind the name of the chain.
    pub rule: String,
    /// The foreign rule before it, as text; none if it was the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The first foreign rule behind it that the change left, as text; none if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<String>,
    /// Whether the change deleted its chain too.
    #[serde(default, skip_serializing_if = "is_false")]
    pub with_chain: bool,
}

impl Change {
    /// Returns the rules from before the change, by family.
    #[must_use]
    pub fn owned(&self) -> PerFamily<&Owned> {
        PerFamily {
            v4: &self.v4,
            v6: self.v6.as_ref(),
        }
    }

    /// Returns the number of nvactl's rules of a family after the change. The record of an earlier version tells
    /// only whether there were any, and nothing of IPv6.
    #[must_use]
    pub fn rule_count(&self, family: Family) -> usize {
        let known = match family {
            Family::V4 => self.rule_count,
            Family::V6 => self.rule_count_v6,
        };
        known.unwrap_or_else(|| usize::from(family == Family::V4 && self.spec.is_some()))
    }
}

impl KeptRule {
    /// Whether another is the same rule of the same chain, wherever it stood there.
    #[must_use]
    pub fn is_same_rule(&self, other: &Self) -> bool {
        let of = |one: &Self| (one.family, one.table);
        of(self) == of(other) && self.chain == other.chain && self.rule == other.rule
    }

    /// Returns the rule's line of iptables-save.
    #[must_use]
    pub fn line(&self) -> String {
        let rule = parse::rule_of(&self.rule, &BTreeSet::new());
        Line::Append(&self.chain, &rule).to_string()
    }
}

/// nvactl's part of one family's rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// The rules with the FORWARD policy, as iptables-restore text.
    pub rules: String,
    /// Whether the change sets the FORWARD policy. If not, an undo leaves the policy alone.
    pub sets_policy: bool,
}

impl Owned {
    /// Parses the rules that an undo restores.
    ///
    /// # Errors
    /// When the rules are damaged.
    pub fn ruleset(&self) -> Result<Ruleset, ParseError> {
        let rules = parse::parse(&self.rules)?;
        Ok(if self.sets_policy {
            rules
        } else {
            rules.without_forward_policy()
        })
    }
}

/// A spec as it was when it was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSpec {
    /// The name in messages: a path, or `<stdin>`.
    pub name: String,
    /// Digest of all files.
    pub digest: Digest,
    /// The files in the order of the spec.
    pub files: Vec<KeptFile>,
    /// The files of networks, by the paths that the spec has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<KeptFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFile {
    pub name: String,
    pub text: String,
}

/// The rules that nvactl's own unit loads at boot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SavedState {
    pub version: u32,
    /// Seconds since 1970.
    pub time: u64,
    /// The backend that loaded the rules, and loads them again.
    pub backend: Backend,
    #[serde(flatten)]
    pub v4: Owned,
    /// nvactl's IPv6 rules, if there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v6: Option<Owned>,
    /// The spec of the rules, if its text was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<KeptSpec>,
    /// Whether the kernel forwarded IPv4 and IPv6 when the rules were saved.
    pub forwards: bool,
    pub forwards_v6: bool,
}

impl SavedState {
    /// Returns the saved rules, by family.
    #[must_use]
    pub fn owned(&self) -> PerFamily<&Owned> {
        PerFamily {
            v4: &self.v4,
            v6: self.v6.as_ref(),
        }
    }

    /// Whether a switch was on.
    #[must_use]
    pub fn sets(&self, switch: Switch) -> bool {
        match switch {
            Switch::Forwarding(Family::V4) => self.forwards,
            Switch::Forwarding(Family::V6) => self.forwards_v6,
            Switch::Liberal => false,
        }
    }

    /// Whether there are any rules beside a policy.
    #[must_use]
    pub fn holds_rules(&self) -> bool {
        let owned = self.owned();
        let mut lines = owned.values().flat_map(|owned| owned.rules.lines());
        lines.any(brings_rule)
    }

    /// Parses the rules to load.
    ///
    /// # Errors
    /// When the rules are damaged.
    pub fn rules(&self) -> Result<PerFamily<Ruleset>, ParseError> {
        self.owned().try_map(|_, owned| owned.ruleset())
    }
}

/// The boot unit's last run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booted {
    pub version: u32,
    /// The boot in which it ran.
    pub boot: String,
    /// Seconds since 1970.
    pub time: u64,
    /// The newest change in the history at that time.
    #[serde(default)]
    pub after: Option<u64>,
    pub brought: Brought,
    /// Why the saved state was not loaded, or not all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The source of the rules that the unit loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Brought {
    Saved,
    /// Nothing: the rules were still as applied last.
    Left,
    /// The rules saved before, since the saved rules did not load.
    Before,
    /// Only the FORWARD policy DROP, since no saved rules loaded.
    Closed,
}

/// The repairs of rules that other programs took away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repairs {
    #[serde(default)]
    pub version: u32,
    /// How often saved rules were loaded again.
    pub total: u64,
    /// When the last repairs began, in seconds since 1970, those that failed included.
    pub tries: Vec<u64>,
    /// Whether the last run found rules gone and did not repair them, because there were too many repairs.
    pub braked: bool,
}

/// The undo of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undone {
    /// Seconds since 1970.
    pub time: u64,
    /// [`Decision::Cancelled`] or [`Decision::TimedOut`].
    pub why: Decision,
    /// How many connections were ended because only the change made them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ended: usize,
    /// The adopted rules that did not come back, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<String>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// The ends of a connection, without the client's port, which no record of a connection has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FlowEnds {
    pub protocol: Protocol,
    pub source: IpAddr,
    pub destination: SocketAddr,
    /// The host that answers.
    pub reply_source: SocketAddr,
    /// The address that the host answers to.
    pub reply_destination: IpAddr,
}

impl From<&Flow> for FlowEnds {
    fn from(flow: &Flow) -> Self {
        Self {
            protocol: flow.protocol,
            source: flow.source,
            destination: SocketAddr::new(flow.destination, flow.destination_port.number()),
            reply_source: SocketAddr::new(flow.reply_source, flow.reply_port.number()),
            reply_destination: flow.reply_destination,
        }
    }
}

/// A change that waits for its confirmation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pending {
    #[serde(default)]
    pub version: u32,
    /// The unique name of this change; each change has its own watchdog.
    pub id: String,
    /// When the change is undone, in seconds since the boot, so that setting the clock cannot move it.
    pub deadline: u64,
    /// The boot of the change. A reboot ends the waiting, since it loads the rules on disk.
    pub boot: String,
    /// The backend that loaded the change and will undo it.
    pub backend: Backend,
    /// Whether connections to old targets are ended after the confirmation.
    pub flush_stale: bool,
    /// Whether the change was fully applied; only then can it be confirmed.
    pub made: bool,
    /// The change, with the rules that an undo loads.
    pub before: Change,
    /// nvactl's rules after the change.
    pub want: String,
    /// nvactl's IPv6 rules after the change, if it touches IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub want_v6: Option<String>,
    /// The connections from before the change that only the change makes: an undo leaves them alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub older: Vec<FlowEnds>,
}

impl Pending {
    /// Parses the rules from before the change.
    ///
    /// # Errors
    /// When the rules are damaged.
    pub fn rules(&self) -> Result<PerFamily<Ruleset>, ParseError> {
        self.before.owned().try_map(|_, owned| owned.ruleset())
    }

    /// Returns the families that the change touches.
    #[must_use]
    pub fn families(&self) -> Families {
        self.before.owned().families()
    }

    /// Returns nvactl's rules after the change, as text.
    #[must_use]
    pub fn wanted(&self) -> PerFamily<&str> {
        PerFamily {
            v4: &self.want,
            v6: self.want_v6.as_deref(),
        }
    }
}

/// The decision on a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// No decision yet.
    Waiting,
    Confirmed,
    Cancelled,
    /// The change was not confirmed in time.
    TimedOut,
    /// The change was refused, or never made.
    NotMade,
}

/// The last change with `--confirm`, by its [`Pending::id`], and the decision on it.
///
/// The record stays after the decision. The next such change replaces the record before it is made, so a
/// watchdog that finds another change here knows that its own has a decision. The JSON is an array of two,
/// which a waiting watchdog of 0.1.0 can read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastDecision(pub String, pub Decision);

/// A change that was started and not finished, because nvactl was killed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Begun {
    #[serde(default)]
    pub version: u32,
    pub action: String,
    /// The number in the history. If the history lacks this number, no rule of the change was loaded.
    pub number: u64,
    /// nvactl's rules after the change, as [`Digest`] of their text.
    pub want: Digest,
    pub want_v6: Option<Digest>,
}

impl Begun {
    #[must_use]
    pub fn wanted(&self) -> PerFamily<&Digest> {
        PerFamily {
            v4: &self.want,
            v6: self.want_v6.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_from_before_ipv6_is_read() {
        let old = r#"{"time": 1, "namespace": "net:[1]", "action": "apply a.yaml",
            "rules": "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n", "sets_policy": true}"#;
        let change: Change = serde_json::from_str(old).expect("it is read");
        assert_eq!(
            (change.version, change.owned().families()),
            (0, Families::V4)
        );
        assert!(change.spec.is_none() && change.undone.is_none() && change.forwards.is_empty());
    }

    #[test]
    fn an_older_watchdog_can_read_a_decision() {
        let decided = LastDecision("7-1".into(), Decision::Confirmed);
        let text = serde_json::to_string(&decided).expect("it is written");
        assert_eq!(text, r#"["7-1","confirmed"]"#);
        assert_eq!(
            serde_json::from_str::<LastDecision>(&text).expect("it is read"),
            decided
        );
    }
}

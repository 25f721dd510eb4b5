//! The records in the state folder, as plain values: what was changed, what waits for a
//! confirmation, what was decided on it, what was begun.
//!
//! Records of earlier versions are read: what they lack has a default. One of a later version is
//! not, since it may say something that this one would overlook.

use serde::{Deserialize, Serialize};

use crate::diff::drift::ForwardNames;
use crate::host::session::Who;
use crate::host::sysctl::settings::Switch;
use crate::net::Family;
use crate::net::per_family::{Families, PerFamily};
use crate::netfilter::backend::Backend;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::text::parse::{self, ParseError};
use crate::plan::digest::Digest;

/// The version of the records that this program writes, and the latest that it reads. Records
/// without a version are of 0.1.0 and older.
pub const VERSION: u32 = 1;

/// A change to the rules that nvactl owns.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Change {
    #[serde(default)]
    pub version: u32,
    /// Seconds since 1970.
    pub time: u64,
    /// As `/proc/self/ns/net` names it.
    pub namespace: String,
    /// What was asked for: `apply forward.yaml`.
    pub action: String,
    /// What was loaded before.
    #[serde(flatten)]
    pub v4: Owned,
    /// Only if the change touched IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v6: Option<Owned>,
    /// The spec whose plan was loaded; none where nothing of nvactl's was left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<KeptSpec>,
    /// The forwards that it adds, changes and removes.
    #[serde(default, skip_serializing_if = "ForwardNames::is_empty")]
    pub forwards: ForwardNames,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<Who>,
    /// For a rollback, the number of the change before which it led.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_before: Option<u64>,
    /// Whether it was undone since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undone: Option<Undone>,
    /// The boot in which it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// Whether the FORWARD policy of IPv4 is DROP after the change.
    #[serde(default)]
    pub closed: bool,
    /// Whether that of IPv6 is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_v6: Option<bool>,
    /// Digest of nvactl's rules of IPv4 after the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded: Option<Digest>,
    /// Digest of nvactl's rules of IPv6 after the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loaded_v6: Option<Digest>,
}

impl Change {
    /// What was loaded before, by family.
    #[must_use]
    pub fn owned(&self) -> PerFamily<&Owned> {
        PerFamily {
            v4: &self.v4,
            v6: self.v6.as_ref(),
        }
    }
}

/// What nvactl owned of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// nvactl's part of the rules, the FORWARD policy included, as iptables-restore text.
    pub rules: String,
    /// Whether the change was to set the FORWARD policy: if not, it is not to be set back.
    pub sets_policy: bool,
}

impl Owned {
    /// Reads the rules, as far as they are nvactl's to set back.
    ///
    /// # Errors
    /// When they are damaged.
    pub fn ruleset(&self) -> Result<Ruleset, ParseError> {
        let mut rules = parse::parse(&self.rules)?;
        if !self.sets_policy {
            rules
                .chain_mut(TableName::Filter, ChainName::Forward)
                .policy = None;
        }
        Ok(rules)
    }
}

/// A spec as it was when its plan was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSpec {
    /// As messages name it: a path, or `<stdin>`.
    pub name: String,
    /// Digest of all files.
    pub digest: Digest,
    /// In the order in which they make one spec.
    pub files: Vec<KeptFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFile {
    pub name: String,
    pub text: String,
}

/// The rules that nvactl's own unit loads at boot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Saved {
    pub version: u32,
    /// Seconds since 1970.
    pub time: u64,
    /// The backend that had loaded them, and loads them again.
    pub backend: Backend,
    #[serde(flatten)]
    pub v4: Owned,
    /// Only where nvactl had rules of IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v6: Option<Owned>,
    /// The spec whose plan they are, if its text was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<KeptSpec>,
    /// Whether the kernel forwarded IPv4, and IPv6, when they were saved.
    pub forwards: bool,
    pub forwards_v6: bool,
}

impl Saved {
    /// Returns what nvactl owns, by family.
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

    /// Whether it has any rules, rather than a policy alone.
    #[must_use]
    pub fn holds_rules(&self) -> bool {
        self.owned()
            .values()
            .any(|owned| owned.rules.contains("\n-A "))
    }

    /// Reads the rules, as far as they are nvactl's to set.
    ///
    /// # Errors
    /// When they are damaged.
    pub fn rules(&self) -> Result<PerFamily<Ruleset>, ParseError> {
        self.owned().try_map(|_, owned| owned.ruleset())
    }
}

/// The unit's last run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booted {
    pub version: u32,
    /// The boot in which it ran.
    pub boot: String,
    /// Seconds since 1970.
    pub time: u64,
    /// The newest change in the history then.
    #[serde(default)]
    pub after: Option<u64>,
    pub brought: Brought,
    /// Why it is not the saved state, or not all of it, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The source of the rules that the unit loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Brought {
    Saved,
    /// Nothing: the rules were still as they were applied last.
    Left,
    /// The state that was saved before, since the saved one did not load.
    Before,
    /// The FORWARD policy DROP alone, since neither loaded.
    Closed,
}

/// That a change was undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undone {
    /// Seconds since 1970.
    pub time: u64,
    /// [`Decision::Cancelled`] or [`Decision::TimedOut`].
    pub why: Decision,
}

/// A change that waits for its confirmation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pending {
    #[serde(default)]
    pub version: u32,
    /// Tells this change from the next one, whose watchdog is another.
    pub id: String,
    /// When it is undone, in seconds since the boot: no clock that is set can move it.
    pub deadline: u64,
    /// A reboot ends the waiting: it has brought back what is kept on disk.
    pub boot: String,
    /// Backend that loaded it and will undo it.
    pub backend: Backend,
    /// Whether connections to old targets are to be ended once it is kept.
    pub flush_stale: bool,
    /// Whether it has been made, whole: before that there is nothing to confirm.
    pub made: bool,
    /// The change, with what is loaded again when the confirmation does not come.
    pub before: Change,
    /// What nvactl owns once it is made.
    pub want: String,
    /// The same of IPv6, where the change touches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub want_v6: Option<String>,
}

impl Pending {
    /// Reads the rules that were there before the change, as far as they are nvactl's to set back.
    ///
    /// # Errors
    /// When they are damaged.
    pub fn rules(&self) -> Result<PerFamily<Ruleset>, ParseError> {
        self.before.owned().try_map(|_, owned| owned.ruleset())
    }

    /// The families that it touches.
    #[must_use]
    pub fn families(&self) -> Families {
        self.before.owned().families()
    }

    /// What nvactl owns once it is made, as text.
    #[must_use]
    pub fn wanted(&self) -> PerFamily<&str> {
        PerFamily {
            v4: &self.want,
            v6: self.want_v6.as_deref(),
        }
    }
}

/// What became of a change that waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Nothing yet.
    Waiting,
    Confirmed,
    Cancelled,
    /// Nobody confirmed it in time.
    TimedOut,
    /// It was refused, or never made.
    NotMade,
}

/// The last change that was to be confirmed, by its [`Pending::id`], and what was decided on it.
///
/// It stays when the change is decided on, and the next such change takes its place before it is
/// made: whoever finds another change here knows that its own has been decided on. As a JSON array
/// of two, which a watchdog of 0.1.0 that still waits reads as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided(pub String, pub Decision);

/// A change that has been begun, and not ended: the one who made it was killed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Begun {
    #[serde(default)]
    pub version: u32,
    pub action: String,
    /// Its number in the history. Where that has none of this number the change was not begun to load.
    pub number: u64,
    /// What nvactl was to own after it, as [`Digest`] of the rules' text.
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
    fn a_record_of_before_ipv6_is_read() {
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
    fn a_decision_is_what_an_older_watchdog_reads() {
        let decided = Decided("7-1".into(), Decision::Confirmed);
        let text = serde_json::to_string(&decided).expect("it is written");
        assert_eq!(text, r#"["7-1","confirmed"]"#);
        assert_eq!(
            serde_json::from_str::<Decided>(&text).expect("it is read"),
            decided
        );
    }
}

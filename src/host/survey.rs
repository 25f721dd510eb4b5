//! What else filters on this machine: the other backend, ufw, firewalld; and the rules of nft's own that write
//! nvactl's bit of a connection's mark.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use super::child::{self, ChildError};
use super::file;
use super::iptables::{Iptables, IptablesError, nft_family};
use super::managers;
use super::nft_mark::{NftRule, may_set};
use crate::net::Family;
use crate::net::per_family::{Families, PerFamily};
use crate::netfilter::backend::{Backend, iptables};
use crate::netfilter::names::ChainName;
use crate::netfilter::ruleset::Ruleset;

/// Each of these questions is answered in milliseconds.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Error)]
pub enum SurveyError {
    #[error(
        "nvactl's rules are loaded by {} already, while `{}` is {backend} here: which of the two you mean can only be guessed",
        .other.program(*.family, "iptables"), iptables(*.family)
    )]
    InTheOther {
        family: Family,
        backend: Backend,
        other: Backend,
    },
    #[error("which backend `{}` stands on can only be guessed: it calls itself `{version}`", iptables(*.family))]
    Unknown { family: Family, version: String },
}

impl SurveyError {
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            SurveyError::InTheOther { other, .. } => format!(
                "go on there by `--backend {other}`, or take them out first: \
                 sudo nvactl remove --backend {other}"
            ),
            SurveyError::Unknown { .. } => {
                "say which: `--backend nft` or `--backend legacy`".to_owned()
            }
        }
    }
}

/// What stands beside the rules of the iptables that is called.
#[derive(Debug)]
pub struct Surroundings {
    /// What could keep packets from nvactl's forwards.
    pub warnings: Vec<String>,
    /// The rules of the other backend, if they can be read.
    pub beside: PerFamily<Option<(Backend, Ruleset)>>,
    /// The rules of nft's own that write nvactl's bit of a connection's mark.
    pub mark_rules: PerFamily<Vec<NftRule>>,
}

/// Looks around before a change. `bits`: those of a connection's mark that are nvactl's.
///
/// # Errors
/// When `auto` would have to guess.
pub fn survey(
    iptables: &Iptables,
    families: Families,
    bits: u32,
) -> Result<Surroundings, SurveyError> {
    let mut warnings = Vec::new();
    let beside = PerFamily::try_new(families, |family| other_rules(iptables, family))?;
    for (family, beside) in beside.iter() {
        if let Some((other, rules)) = beside
            && rules.rule_count() > 0
        {
            let [other, backend] =
                [*other, other.other()].map(|one| one.program(family, "iptables"));
            let rules = rules.rule_count();
            warnings.push(format!(
                "{other} holds rules too ({rules}), which filter beside those of {backend}; \
                 to look: {other}-save"
            ));
        }
    }
    let mark_rules = PerFamily::new(families, |family| mark_rules(family, bits));
    let nft = || find(iptables, Family::V4).is_ok_and(|backend| backend == Backend::Nft);
    let managers = managers::at_boot(nft).into_iter();
    warnings.extend(managers.map(|(words, _)| words));
    Ok(Surroundings {
        warnings,
        beside,
        mark_rules,
    })
}

/// The rules that the backend beside the one called holds, with its name; none if they cannot be read.
fn other_rules(
    iptables: &Iptables,
    family: Family,
) -> Result<Option<(Backend, Ruleset)>, SurveyError> {
    let backend = match iptables.backend {
        Backend::Auto => find(iptables, family)?,
        named => named,
    };
    let Some((other, Ok(live))) = beside(iptables, family, backend) else {
        return Ok(None);
    };
    if holds_own(&live) && iptables.backend == Backend::Auto {
        return Err(SurveyError::InTheOther {
            family,
            backend,
            other,
        });
    }
    Ok(Some((other, live)))
}

/// The backend that the plain names stand on, if it is the same for each family and can be called by
/// its own name: who undoes a change later may have another PATH.
#[must_use]
pub fn resolved(iptables: &Iptables, families: Families) -> Backend {
    let by_name = |family| {
        let backend = find(iptables, family).ok()?;
        let program = backend.program(family, "iptables");
        let named = child::run(&program, &["--version"], b"", LIMIT).ok()?;
        named.status.success().then_some(backend)
    };
    let found = PerFamily::new(families, by_name);
    let v4 = found
        .v4
        .filter(|v4| found.v6.is_none_or(|v6| v6 == Some(*v4)));
    v4.unwrap_or(iptables.backend)
}

/// The rules of the other backend, or why they cannot be read. Where it is not installed, none could
/// have been made by it.
#[must_use]
pub fn beside(
    iptables: &Iptables,
    family: Family,
    backend: Backend,
) -> Option<(Backend, Result<Ruleset, IptablesError>)> {
    let other = Iptables {
        backend: backend.other(),
        ..*iptables
    };
    match other.read(family) {
        Err(IptablesError::Child(ChildError::NotFound(_))) => None,
        read => Some((other.backend, read.map(|live| live.ruleset))),
    }
}

/// Whether a ruleset has chains of nvactl's.
#[must_use]
pub fn holds_own(ruleset: &Ruleset) -> bool {
    ruleset.chains().any(|(_, name, _)| name.is_own())
}

/// The backend that is called: the one named, or the one that the plain names stand on.
///
/// # Errors
/// When those do not say what they are.
pub fn find(iptables: &Iptables, family: Family) -> Result<Backend, SurveyError> {
    let program = iptables.backend.program(family, "iptables");
    let version = child::run(&program, &["--version"], b"", LIMIT)
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default();
    Backend::of_version(&version).ok_or(SurveyError::Unknown { family, version })
}

/// Lists the rules of nft's own that may set some bits of a connection's mark, in tables that packets of a
/// family come through; none where nft is not installed or has no rights.
#[must_use]
pub fn mark_rules(of: Family, bits: u32) -> Vec<NftRule> {
    let word = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let chains = nft(&["list", "chains"]).unwrap_or_default();
    // A table without a base chain sees no packet.
    let base = |chain: &&Value| chain["hook"].is_string() && !of_iptables(chain);
    let chains = chains.iter().filter_map(|entry| entry.get("chain"));
    let tables: BTreeSet<(String, String)> = chains
        .filter(base)
        .map(|chain| (word(chain, "family"), word(chain, "table")))
        .filter(|(family, _)| {
            matches!(family.as_str(), "inet" | "netdev") || family == nft_family(of)
        })
        .collect();
    let mut found = Vec::new();
    for (family, table) in tables {
        let entries = nft(&["list", "table", &family, &table]).unwrap_or_default();
        let rules = entries.iter().filter_map(|entry| entry.get("rule"));
        let writes = |rule: &&Value| {
            rule["expr"]
                .as_array()
                .is_some_and(|expr| may_set(expr, bits))
        };
        found.extend(rules.filter(writes).map(|rule| NftRule {
            family: family.clone(),
            table: table.clone(),
            chain: word(rule, "chain"),
            handle: rule["handle"].as_u64().unwrap_or_default(),
        }));
    }
    found
}

/// Whether IPv6 chains of nvactl's are loaded by iptables-nft, without a call of ip6tables.
#[must_use]
pub fn has_nft_v6() -> bool {
    let listed = nft(&["list", "chains", nft_family(Family::V6)]).unwrap_or_default();
    let mut chains = listed.iter().filter_map(|entry| entry.get("chain"));
    chains.any(|chain| ChainName::from(chain["name"].as_str().unwrap_or_default()).is_own())
}

/// Whether there are IPv6 tables of the legacy backend, in which there may be chains of nvactl's: only
/// ip6tables shows them.
#[must_use]
pub fn has_legacy_v6() -> bool {
    let legacy = file::read(Path::new("/proc/net/ip6_tables_names"));
    legacy.is_ok_and(|names| names.is_some_and(|names| !names.is_empty()))
}

/// Whether a chain is one that iptables-nft has made for a built-in one of its own.
fn of_iptables(chain: &Value) -> bool {
    let name = ChainName::from(chain["name"].as_str().unwrap_or_default());
    let table = chain["table"].as_str().unwrap_or_default();
    (chain["family"] == "ip" || chain["family"] == "ip6")
        && name.is_builtin()
        && table.parse::<crate::netfilter::names::TableName>().is_ok()
}

/// What `nft -j` lists.
fn nft(words: &[&str]) -> Option<Vec<Value>> {
    let args = [&["-j"], words].concat();
    let output = child::run("nft", &args, b"", LIMIT).ok()?;
    let listed: Value = serde_json::from_slice(&output.stdout).ok()?;
    listed["nftables"].as_array().cloned()
}

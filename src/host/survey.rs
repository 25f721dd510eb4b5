//! Finds what else filters on this machine: the other backend, ufw and firewalld. Also finds native nft rules
//! that write nvactl's bit of a connection's mark.

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

/// The time limit of a query. Each takes milliseconds.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Error)]
pub enum SurveyError {
    #[error(
        "nvactl's rules are already loaded by {}, but `{}` is {backend} here: nvactl cannot tell which of the two you mean",
        .other.program(*.family, "iptables"), iptables(*.family)
    )]
    InTheOther {
        family: Family,
        backend: Backend,
        other: Backend,
    },
    #[error("nvactl cannot tell which backend `{}` uses: its version is `{version}`", iptables(*.family))]
    Unknown { family: Family, version: String },
}

impl SurveyError {
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            SurveyError::InTheOther { other, .. } => format!(
                "use them with `--backend {other}`, or remove them first: \
                 sudo nvactl remove --backend {other}"
            ),
            SurveyError::Unknown { .. } => {
                "name it: `--backend nft` or `--backend legacy`".to_owned()
            }
        }
    }
}

/// The rules and programs that filter beside the iptables that nvactl runs.
#[derive(Debug)]
pub struct Surroundings {
    /// Warnings of rules and programs that could obstruct nvactl's forwards.
    pub warnings: Vec<String>,
    /// The rules of the other backend, if they can be read.
    pub beside: PerFamily<Option<(Backend, Ruleset)>>,
    /// The native nft rules that may write nvactl's bit of a connection's mark.
    pub mark_rules: PerFamily<Vec<NftRule>>,
}

/// Looks for other rules and programs before a change. `bits` are nvactl's bits of a connection's mark.
///
/// # Errors
/// If the backend is `auto` and it is not clear which one is meant.
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
                "{other} holds rules too ({rules}), which filter in addition to those of {backend}; \
                 to list them: sudo {other}-save"
            ));
        }
    }
    let mark_rules = PerFamily::new(families, |family| mark_rules(family, bits));
    let nft = || find(iptables, Family::V4).is_ok_and(|backend| backend == Backend::Nft);
    let managers = managers::at_boot(nft).into_iter();
    warnings.extend(managers.map(|(words, fix)| match fix {
        Some(fix) => format!("{words}\n  to fix it: {fix}"),
        None => words,
    }));
    Ok(Surroundings {
        warnings,
        beside,
        mark_rules,
    })
}

/// Reads the rules of the other backend, and returns them with its name. Returns `None` if they cannot be read.
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
    if live.holds_own() && iptables.backend == Backend::Auto {
        return Err(SurveyError::InTheOther {
            family,
            backend,
            other,
        });
    }
    Ok(Some((other, live)))
}

/// Returns the other backend, if it holds nvactl's rules of a family.
#[must_use]
pub fn own_beside(iptables: &Iptables, family: Family) -> Option<Backend> {
    let backend = match iptables.backend {
        Backend::Auto => find(iptables, family).ok()?,
        named => named,
    };
    let (other, rules) = beside(iptables, family, backend)?;
    rules.is_ok_and(|rules| holds_own(&rules)).then_some(other)
}

/// Returns the backend of the plain names, if it is the same for each family and can be called by its own name.
/// The process that undoes a change later may have another PATH, so it should not use the plain names.
#[must_use]
pub fn resolved(iptables: &Iptables, families: Families) -> Backend {
    let by_name = |family| {
        let backend = find(iptables, family).ok()?;
        let program = backend.program(family, "iptables");
        let named = child::read(&program, &["--version"], b"", LIMIT).ok()?;
        named.status.success().then_some(backend)
    };
    let found = PerFamily::new(families, by_name);
    let v4 = found
        .v4
        .filter(|v4| found.v6.is_none_or(|v6| v6 == Some(*v4)));
    v4.unwrap_or(iptables.backend)
}

/// Reads the rules of the other backend. Returns `None` if that backend is not installed: then it has loaded no
/// rules.
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

/// Returns whether a ruleset has chains of nvactl.
#[must_use]
pub fn holds_own(ruleset: &Ruleset) -> bool {
    ruleset.chains().any(|(_, name, _)| name.is_own())
}

/// Finds the backend that nvactl runs: the named one, or that of the plain names.
///
/// # Errors
/// If the version of the plain names does not name a backend.
pub fn find(iptables: &Iptables, family: Family) -> Result<Backend, SurveyError> {
    let program = iptables.backend.program(family, "iptables");
    let version = child::read(&program, &["--version"], b"", LIMIT)
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default();
    Backend::of_version(&version).ok_or(SurveyError::Unknown { family, version })
}

/// Lists the native nft rules that may set these bits of a connection's mark, in tables that packets of a family
/// traverse. Lists none if nft is not installed or not permitted.
#[must_use]
pub fn mark_rules(of: Family, bits: u32) -> Vec<NftRule> {
    let word = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let chains = nft(&["list", "chains"]).unwrap_or_default();
    // No packet traverses a table without a base chain.
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

/// Returns whether iptables-nft has loaded IPv6 chains of nvactl. Does not run ip6tables.
#[must_use]
pub fn has_nft_v6() -> bool {
    let listed = nft(&["list", "chains", nft_family(Family::V6)]).unwrap_or_default();
    let mut chains = listed.iter().filter_map(|entry| entry.get("chain"));
    chains.any(|chain| ChainName::from(chain["name"].as_str().unwrap_or_default()).is_own())
}

/// Returns whether the legacy backend has IPv6 tables. They may hold chains of nvactl, which only ip6tables
/// shows.
#[must_use]
pub fn has_legacy_v6() -> bool {
    let legacy = file::read(Path::new("/proc/net/ip6_tables_names"));
    legacy.is_ok_and(|names| names.is_some_and(|names| !names.is_empty()))
}

/// Returns whether a chain is a built-in chain of iptables-nft.
fn of_iptables(chain: &Value) -> bool {
    let name = ChainName::from(chain["name"].as_str().unwrap_or_default());
    let table = chain["table"].as_str().unwrap_or_default();
    (chain["family"] == "ip" || chain["family"] == "ip6")
        && name.is_builtin()
        && table.parse::<crate::netfilter::names::TableName>().is_ok()
}

/// Returns the entries that `nft -j` lists.
fn nft(words: &[&str]) -> Option<Vec<Value>> {
    let args = [&["-j"], words].concat();
    let output = child::read("nft", &args, b"", LIMIT).ok()?;
    let listed: Value = serde_json::from_slice(&output.stdout).ok()?;
    listed["nftables"].as_array().cloned()
}

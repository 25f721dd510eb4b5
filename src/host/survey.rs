//! What else filters on this machine: the other backend, native nft chains, ufw, firewalld.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use super::child::{self, ChildError};
use super::iptables::{Iptables, IptablesError};
use crate::backend::Backend;
use crate::foreign;
use crate::native::{Hook, NativeChain, rule_drops};
use crate::ruleset::{ChainName, Ruleset};

/// Each of these questions is answered in milliseconds.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Error)]
pub enum SurveyError {
    #[error(
        "nvactl's rules are loaded by iptables-{other} already, while `iptables` is {backend} here: which of the two you mean can only be guessed"
    )]
    InTheOther { backend: Backend, other: Backend },
    #[error("which backend `iptables` stands on can only be guessed: it calls itself `{version}`")]
    Unknown { version: String },
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

/// Looks around before a change, and says what could keep packets from nvactl's forwards.
///
/// # Errors
/// When `auto` would have to guess.
pub fn survey(iptables: &Iptables) -> Result<Vec<String>, SurveyError> {
    let backend = match iptables.backend {
        Backend::Auto => find(iptables)?,
        named => named,
    };
    let mut warnings = Vec::new();
    if let Some((other, Ok(live))) = beside(iptables, backend) {
        if holds_own(&live) && iptables.backend == Backend::Auto {
            return Err(SurveyError::InTheOther { backend, other });
        }
        let rules = foreign::rule_count(&live);
        if rules > 0 {
            warnings.push(format!(
                "iptables-{other} holds rules too ({rules}), which filter beside those of iptables-{backend}; \
                 to look: iptables-{other}-save"
            ));
        }
    }
    let drops = native_chains()
        .unwrap_or_default()
        .into_iter()
        .filter(|chain| chain.hook == Hook::Forward && chain.drops());
    warnings.extend(drops.map(|chain| {
        let chain = chain.named();
        format!(
            "the nft chain {chain} sees forwarded packets and drops some of \
             them, whatever iptables accepts; to look: nft list chain {chain}"
        )
    }));
    warnings.extend(managers());
    Ok(warnings)
}

/// The backend that the plain names stand on, if it can be called by its own name: who undoes a
/// change later may have another PATH.
#[must_use]
pub fn resolved(iptables: &Iptables) -> Backend {
    let Ok(backend) = find(iptables) else {
        return iptables.backend;
    };
    let named = child::run(&backend.program("iptables"), &["--version"], b"", LIMIT);
    if named.is_ok_and(|output| output.status.success()) {
        backend
    } else {
        iptables.backend
    }
}

/// The rules of the other backend, or why they cannot be read. Where it is not installed, none could
/// have been made by it.
#[must_use]
pub fn beside(
    iptables: &Iptables,
    backend: Backend,
) -> Option<(Backend, Result<Ruleset, IptablesError>)> {
    let other = Iptables {
        backend: backend.other(),
        ..*iptables
    };
    match other.read() {
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
pub fn find(iptables: &Iptables) -> Result<Backend, SurveyError> {
    let version = child::run(
        &iptables.backend.program("iptables"),
        &["--version"],
        b"",
        LIMIT,
    )
    .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    .unwrap_or_default();
    Backend::of_version(&version).ok_or(SurveyError::Unknown { version })
}

/// The base chains of nft's own that IPv4 packets come through; `None` where nft is not installed or has no rights.
#[must_use]
pub fn native_chains() -> Option<Vec<NativeChain>> {
    let listed = nft(&["list", "chains"])?;
    let chains = listed.iter().filter_map(|entry| entry.get("chain"));
    let word = |chain: &Value, key: &str| chain[key].as_str().unwrap_or_default().to_owned();
    let native = chains.filter_map(|chain| {
        let (family, table, name) = (
            word(chain, "family"),
            word(chain, "table"),
            word(chain, "name"),
        );
        let priority = chain["prio"].as_i64().unwrap_or_default();
        let hook = Hook::of(chain["hook"].as_str()?, priority)?;
        let of_ipv4 = matches!(family.as_str(), "ip" | "inet" | "netdev");
        if !of_ipv4 || of_iptables(chain) {
            return None;
        }
        let entries = nft(&["list", "table", &family, &table]).unwrap_or_default();
        let rules = || {
            let rules = entries.iter().filter_map(|entry| entry.get("rule"));
            rules.filter_map(|rule| Some((&rule["chain"], rule["expr"].as_array()?)))
        };
        Some(NativeChain {
            hook,
            drops_by_policy: word(chain, "policy") == "drop",
            table_drops: rules().any(|(_, rule)| rule_drops(rule)),
            rules: rules()
                .filter(|(of, _)| **of == name.as_str())
                .map(|(_, rule)| rule.clone())
                .collect(),
            family,
            table,
            name,
        })
    });
    Some(native.collect())
}

/// Whether a chain is one that iptables-nft has made for a built-in one of its own.
fn of_iptables(chain: &Value) -> bool {
    let name = ChainName::from(chain["name"].as_str().unwrap_or_default());
    let table = chain["table"].as_str().unwrap_or_default();
    chain["family"] == "ip"
        && name.is_builtin()
        && table.parse::<crate::ruleset::TableName>().is_ok()
}

/// What `nft -j` lists.
fn nft(words: &[&str]) -> Option<Vec<Value>> {
    let args = [&["-j"], words].concat();
    let output = child::run("nft", &args, b"", LIMIT).ok()?;
    let listed: Value = serde_json::from_slice(&output.stdout).ok()?;
    listed["nftables"].as_array().cloned()
}

/// Programs that take the whole machine's rules for their own.
#[must_use]
pub fn managers() -> Vec<String> {
    let mut found = Vec::new();
    let ufw = fs::read_to_string("/etc/ufw/ufw.conf").unwrap_or_default();
    if ufw.lines().any(|line| line.trim() == "ENABLED=yes") {
        found.push("ufw manages this machine: it sets the FORWARD policy when it starts, from DEFAULT_FORWARD_POLICY in /etc/default/ufw".to_owned());
    }
    if Path::new("/run/firewalld").exists() {
        found.push("firewalld manages this machine: it drops forwarded packets in nft chains of its own unless a policy of its own allows them".to_owned());
    }
    found
}

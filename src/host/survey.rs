//! What else filters on this machine: the other backend, native nft chains, ufw, firewalld.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use super::child;
use super::iptables::Iptables;
use crate::backend::Backend;
use crate::foreign;
use crate::ruleset::ChainName;

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
    let other = Iptables {
        backend: backend.other(),
        ..*iptables
    };
    // Where the other one is not installed, its rules could not have been made by it.
    if let Ok(live) = other.read() {
        let own = live.ruleset.chains().any(|(_, name, _)| name.is_own());
        if own && iptables.backend == Backend::Auto {
            return Err(SurveyError::InTheOther {
                backend,
                other: other.backend,
            });
        }
        let rules = foreign::rule_count(&live.ruleset);
        if rules > 0 {
            warnings.push(format!(
                "iptables-{} holds rules too ({rules}), which filter beside those of iptables-{backend}; \
                 to look: iptables-{}-save",
                other.backend, other.backend
            ));
        }
    }
    warnings.extend(native_forward_drops());
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

fn find(iptables: &Iptables) -> Result<Backend, SurveyError> {
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

/// Base chains of nft's own that see forwarded packets and drop some: iptables does not show them,
/// and a drop in any of them is final.
fn native_forward_drops() -> Vec<String> {
    let hooks = nft(&["list", "chains"]);
    let chains = hooks.iter().filter_map(|entry| entry.get("chain"));
    let forward = chains.filter(|chain| chain["hook"] == "forward" && !of_iptables(chain));
    forward
        .filter_map(|chain| {
            let word = |key: &str| chain[key].as_str().unwrap_or_default();
            let (family, table, name) = (word("family"), word("table"), word("name"));
            let drops = word("policy") == "drop"
                || nft(&["list", "chain", family, table, name]).iter().any(|entry| {
                    let words = entry["rule"]["expr"].to_string();
                    words.contains("\"drop\"") || words.contains("\"reject\"")
                });
            drops.then(|| {
                format!(
                    "the nft chain {family} {table} {name} sees forwarded packets and drops some of \
                     them, whatever iptables accepts; to look: nft list chain {family} {table} {name}"
                )
            })
        })
        .collect()
}

/// Whether a chain is one that iptables-nft has made for a built-in one of its own.
fn of_iptables(chain: &Value) -> bool {
    let name = ChainName::from(chain["name"].as_str().unwrap_or_default());
    let table = chain["table"].as_str().unwrap_or_default();
    chain["family"] == "ip"
        && name.is_builtin()
        && table.parse::<crate::ruleset::TableName>().is_ok()
}

/// What `nft -j` lists; nothing where nft is not installed or has no rights.
fn nft(words: &[&str]) -> Vec<Value> {
    let args = [&["-j"], words].concat();
    let Ok(output) = child::run("nft", &args, b"", LIMIT) else {
        return Vec::new();
    };
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    listed["nftables"].as_array().cloned().unwrap_or_default()
}

/// Programs that take the whole machine's rules for their own.
fn managers() -> Vec<String> {
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

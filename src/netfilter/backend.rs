//! The two kernel interfaces that iptables has programs for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::net::Family;

/// The iptables programs that are called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The plain names on PATH, which are the user's own commands.
    #[default]
    Auto,
    Nft,
    Legacy,
}

impl Backend {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Backend::Auto => "auto",
            Backend::Nft => "nft",
            Backend::Legacy => "legacy",
        }
    }

    /// Returns the name of a program for a family. `plain` is `iptables`, `iptables-save` or
    /// `iptables-restore`.
    #[must_use]
    pub fn program(self, family: Family, plain: &str) -> String {
        let iptables = iptables(family);
        match self {
            Backend::Auto => plain.replacen("iptables", iptables, 1),
            Backend::Nft | Backend::Legacy => {
                plain.replacen("iptables", &format!("{iptables}-{self}"), 1)
            }
        }
    }

    /// Reads the backend from the output of `--version`: `iptables v1.8.9 (nf_tables)` or `(legacy)`. Versions
    /// before 1.8 name none, and are legacy. `None` if the output is not that of an iptables.
    #[must_use]
    pub fn of_version(version: &str) -> Option<Self> {
        let version = version.trim();
        match version.split_once('(') {
            Some((_, "nf_tables)")) => Some(Backend::Nft),
            Some((_, "legacy)")) => Some(Backend::Legacy),
            None if is_version(version) => Some(Backend::Legacy),
            _ => None,
        }
    }

    /// Returns the other of the two backends.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Backend::Legacy => Backend::Nft,
            Backend::Nft | Backend::Auto => Backend::Legacy,
        }
    }
}

/// Returns the plain name of a family's iptables.
#[must_use]
pub fn iptables(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

fn is_version(words: &str) -> bool {
    let mut names = Family::ALL.into_iter().map(iptables);
    names.any(|name| {
        let rest = words.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(" v1."))
    })
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not one of `nft`, `legacy`, `auto`")]
pub struct BackendError(String);

impl FromStr for Backend {
    type Err = BackendError;

    fn from_str(text: &str) -> Result<Self, BackendError> {
        [Backend::Auto, Backend::Nft, Backend::Legacy]
            .into_iter()
            .find(|backend| backend.as_str() == text)
            .ok_or_else(|| BackendError(text.to_owned()))
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_tells_the_backend_or_nothing_does() {
        for (version, backend) in [
            ("iptables v1.8.9 (nf_tables)\n", Some(Backend::Nft)),
            ("iptables v1.8.9 (legacy)\n", Some(Backend::Legacy)),
            ("iptables v1.6.1\n", Some(Backend::Legacy)),
            ("ip6tables v1.8.9 (nf_tables)\n", Some(Backend::Nft)),
            ("ip6tables v1.6.1\n", Some(Backend::Legacy)),
            ("iptables v1.9 (bpf)\n", None),
            ("busybox\n", None),
            ("", None),
        ] {
            assert_eq!(Backend::of_version(version), backend, "{version}");
        }
    }

    #[test]
    fn programs_are_named_by_backend_and_family() {
        for (backend, family, plain, name) in [
            (Backend::Auto, Family::V4, "iptables-save", "iptables-save"),
            (
                Backend::Nft,
                Family::V4,
                "iptables-save",
                "iptables-nft-save",
            ),
            (Backend::Legacy, Family::V4, "iptables", "iptables-legacy"),
            (Backend::Auto, Family::V6, "iptables-save", "ip6tables-save"),
            (
                Backend::Nft,
                Family::V6,
                "iptables-restore",
                "ip6tables-nft-restore",
            ),
            (Backend::Legacy, Family::V6, "iptables", "ip6tables-legacy"),
        ] {
            assert_eq!(backend.program(family, plain), name);
        }
    }
}

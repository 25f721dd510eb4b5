//! Finds out how nvactl's rules are loaded at boot: by its own unit, or from a rules file that the
//! distribution loads.

use std::path::Path;

use super::boot_unit;
use super::file::{self, FileError};
use super::sysctl;
use super::units::{is_installed, starts_at_boot};
use crate::net::Family;
use crate::netfilter::text::parse;

/// The program of the distribution that loads a rules file at boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loader {
    /// iptables-persistent, on Debian and Ubuntu.
    Persistent,
    /// iptables-services, on Fedora and its relatives.
    Services,
    /// The package iptables, on Azure Linux.
    AzureLinux,
}

impl Loader {
    /// Returns the loader that this machine has or could install.
    fn here() -> Self {
        if Path::new("/etc/systemd/scripts/iptables").is_file() {
            Loader::AzureLinux
        } else if Path::new("/usr/libexec/iptables/iptables.init").is_file() {
            Loader::Services
        } else {
            Loader::Persistent
        }
    }

    fn is_installed(self, family: Family) -> bool {
        let plugin = match family {
            Family::V4 => "/usr/share/netfilter-persistent/plugins.d/15-ip4tables",
            Family::V6 => "/usr/share/netfilter-persistent/plugins.d/25-ip6tables",
        };
        self != Loader::Persistent || Path::new(plugin).exists()
    }

    fn starts_at_boot(self, family: Family) -> bool {
        let units: &[&str] = match (self, family) {
            (Loader::Persistent, _) => &["netfilter-persistent.service", "iptables.service"],
            (_, Family::V4) => &["iptables.service"],
            (_, Family::V6) => &["ip6tables.service"],
        };
        units.iter().any(|unit| starts_at_boot(unit))
    }
}

/// Returns the path of the file that this distribution loads for a family.
#[must_use]
pub fn rules_file(family: Family) -> &'static str {
    match (Loader::here(), family) {
        (Loader::Persistent, Family::V4) => "/etc/iptables/rules.v4",
        (Loader::Persistent, Family::V6) => "/etc/iptables/rules.v6",
        (Loader::Services, Family::V4) => "/etc/sysconfig/iptables",
        (Loader::Services, Family::V6) => "/etc/sysconfig/ip6tables",
        (Loader::AzureLinux, Family::V4) => "/etc/systemd/scripts/ip4save",
        (Loader::AzureLinux, Family::V6) => "/etc/systemd/scripts/ip6save",
    }
}

/// How nvactl's rules are loaded at boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RulesAtBoot {
    /// nvactl's own unit loads the saved state.
    Unit,
    /// The rules file is loaded.
    Loaded(Loader),
    /// Nothing loads the rules file: iptables-persistent is not installed.
    NotInstalled,
    /// The loader of the rules file is not enabled.
    NotEnabled(Loader),
    /// Nothing loads the rules file, and iptables-persistent must not be installed: it conflicts with ufw's
    /// package (apt would remove ufw, and every policy would be ACCEPT).
    BesideUfw,
    BesideFirewalld,
}

impl RulesAtBoot {
    /// Returns what loads the rules, or why nothing does.
    #[must_use]
    pub fn why(self) -> &'static str {
        match self {
            RulesAtBoot::Unit => "nvactl.service loads it",
            RulesAtBoot::Loaded(Loader::Persistent) => "iptables-persistent loads it",
            RulesAtBoot::Loaded(_) => "iptables.service loads it",
            RulesAtBoot::NotInstalled => "iptables-persistent is not installed",
            RulesAtBoot::NotEnabled(Loader::Persistent) => "netfilter-persistent is not enabled",
            RulesAtBoot::NotEnabled(_) => "iptables.service is not enabled",
            RulesAtBoot::BesideUfw => "ufw is installed, and iptables-persistent conflicts with it",
            RulesAtBoot::BesideFirewalld => {
                "firewalld is installed, and iptables-persistent conflicts with it"
            }
        }
    }

    /// Returns the command that makes the boot load nvactl's rules, if it does not.
    #[must_use]
    pub fn fix(self) -> Option<&'static str> {
        match self {
            RulesAtBoot::Unit | RulesAtBoot::Loaded(_) => None,
            RulesAtBoot::NotEnabled(Loader::Persistent) => Some(
                "sudo systemctl unmask netfilter-persistent && \
                 sudo systemctl enable netfilter-persistent",
            ),
            RulesAtBoot::NotEnabled(_) => Some("sudo systemctl enable iptables ip6tables"),
            _ => Some("sudo nvactl boot enable"),
        }
    }
}

/// Returns whether the rules file holds chains of nvactl, and so loads them at boot.
///
/// # Errors
/// If it cannot be read.
pub fn holds_own(family: Family) -> Result<bool, FileError> {
    let bytes = file::read(Path::new(rules_file(family)))?.unwrap_or_default();
    // If the file cannot be parsed, the text decides.
    let text = String::from_utf8_lossy(&bytes);
    let read = parse::parse(&text);
    Ok(read.map_or_else(|_| text.contains("NVACTL-"), |ruleset| ruleset.holds_own()))
}

/// Returns whether the rules file mentions nvactl's chains. A file that cannot be read may mention them.
#[must_use]
pub fn mentions_own(family: Family) -> bool {
    const OWN: &[u8] = b"NVACTL-";
    let bytes = file::read(Path::new(rules_file(family)));
    bytes.map_or(true, |bytes| {
        let bytes = bytes.unwrap_or_default();
        bytes.windows(OWN.len()).any(|words| words == OWN)
    })
}

/// Returns the program that makes the machine's rules at boot in place of a rules file, if there is one.
#[must_use]
pub fn manager() -> Option<&'static str> {
    if sysctl::ufw_is_on() {
        Some("ufw")
    } else if starts_at_boot("firewalld.service") || Path::new("/run/firewalld").exists() {
        Some("firewalld")
    } else {
        None
    }
}

/// Finds out how nvactl's rules of a family are loaded at boot.
#[must_use]
pub fn at_boot(family: Family) -> RulesAtBoot {
    if boot_unit::is_enabled() {
        return RulesAtBoot::Unit;
    }
    let loader = Loader::here();
    let installed = loader.is_installed(family);
    if installed && loader.starts_at_boot(family) {
        RulesAtBoot::Loaded(loader)
    } else if is_installed("ufw") {
        RulesAtBoot::BesideUfw
    } else if is_installed("firewalld") {
        RulesAtBoot::BesideFirewalld
    } else if installed {
        RulesAtBoot::NotEnabled(loader)
    } else {
        RulesAtBoot::NotInstalled
    }
}

//! The files that iptables-persistent loads at boot, and whether it will.

use std::fs;
use std::path::{Path, PathBuf};

use super::file::{self, FileError};
use crate::diff;
use crate::net::Family;
use crate::parse;
use crate::ruleset::Ruleset;
use crate::status::RulesFile;
use crate::unread::unloadable;

/// The rules file of a family.
#[must_use]
pub fn rules_file(family: Family) -> &'static str {
    match family {
        Family::V4 => "/etc/iptables/rules.v4",
        Family::V6 => "/etc/iptables/rules.v6",
    }
}

/// The plugin of netfilter-persistent that loads [`rules_file`].
fn plugin(family: Family) -> &'static str {
    match family {
        Family::V4 => "/usr/share/netfilter-persistent/plugins.d/15-ip4tables",
        Family::V6 => "/usr/share/netfilter-persistent/plugins.d/25-ip6tables",
    }
}

/// What becomes of the rules file at boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtBoot {
    Loaded,
    /// The plugin is not there: iptables-persistent is not installed.
    NotInstalled,
    /// It is installed, but no systemd target wants the service, or it is masked.
    NotEnabled,
    /// Nothing loads it, and iptables-persistent must not: ufw's package breaks it (apt removes ufw then,
    /// and every policy is ACCEPT).
    BesideUfw,
    BesideFirewalld,
}

impl AtBoot {
    /// Returns by what the file is loaded, or why it is not.
    #[must_use]
    pub fn why(self) -> &'static str {
        match self {
            AtBoot::Loaded => "iptables-persistent loads it",
            AtBoot::NotInstalled => "iptables-persistent is not installed",
            AtBoot::NotEnabled => "netfilter-persistent is not enabled",
            AtBoot::BesideUfw => "ufw is installed, and iptables-persistent does not go with it",
            AtBoot::BesideFirewalld => {
                "firewalld is installed, and iptables-persistent does not go with it"
            }
        }
    }

    /// Returns the command after which nvactl's rules are loaded at boot, where they are not.
    #[must_use]
    pub fn fix(self) -> Option<&'static str> {
        match self {
            AtBoot::Loaded => None,
            AtBoot::NotEnabled => Some(
                "sudo systemctl unmask netfilter-persistent && \
                 sudo systemctl enable netfilter-persistent",
            ),
            _ => Some("sudo nvactl boot enable"),
        }
    }
}

/// Whether the rules file has anything of nvactl's, and so brings it back at boot.
///
/// # Errors
/// When it cannot be read.
pub fn holds_own(family: Family) -> Result<bool, FileError> {
    let bytes = file::read(Path::new(rules_file(family)))?.unwrap_or_default();
    // What nvactl cannot read says nothing of its rules for sure; the text does.
    let text = String::from_utf8_lossy(&bytes);
    let read = parse::parse(&text);
    Ok(read.map_or_else(
        |_| text.contains("NVACTL-"),
        |ruleset| ruleset.chains().any(|(_, name, _)| name.is_own()),
    ))
}

/// Whether the rules file says anything of nvactl's chains. One that cannot be read may.
#[must_use]
pub fn mentions_own(family: Family) -> bool {
    const OWN: &[u8] = b"NVACTL-";
    let bytes = file::read(Path::new(rules_file(family)));
    bytes.map_or(true, |bytes| {
        let bytes = bytes.unwrap_or_default();
        bytes.windows(OWN.len()).any(|words| words == OWN)
    })
}

/// How nvactl's rules in the rules file compare with those that run.
#[must_use]
pub fn compared(family: Family, live: &Ruleset) -> RulesFile {
    let text = match file::read(Path::new(rules_file(family))) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return RulesFile::Missing,
        Err(_) => return RulesFile::Unreadable,
    };
    match parse::parse(&String::from_utf8_lossy(&text)) {
        // iptables-restore refuses all of a file for one line.
        Ok(kept) if unloadable(&kept).is_some() => RulesFile::Unreadable,
        Ok(kept) if diff::holds_the_same(&kept, live, true) => RulesFile::Same,
        Ok(_) => RulesFile::Different,
        Err(_) => RulesFile::Unreadable,
    }
}

/// Looks whether iptables-persistent will load the rules file at boot.
#[must_use]
pub fn at_boot(family: Family) -> AtBoot {
    let installed = Path::new(plugin(family)).exists();
    let services = ["netfilter-persistent.service", "iptables.service"];
    if installed && services.into_iter().any(starts_at_boot) {
        AtBoot::Loaded
    } else if is_installed("ufw") {
        AtBoot::BesideUfw
    } else if is_installed("firewalld") {
        AtBoot::BesideFirewalld
    } else if installed {
        AtBoot::NotEnabled
    } else {
        AtBoot::NotInstalled
    }
}

/// Whether a manager of the firewall is installed, enabled or not: its program or its unit is there.
fn is_installed(name: &str) -> bool {
    let program = PathBuf::from(format!("/usr/sbin/{name}"));
    let unit = format!("{name}.service");
    let units = UNIT_FOLDERS.map(|folder| Path::new(folder).join(&unit));
    program.is_file() || units.iter().any(|unit| unit.is_file())
}

/// Folders of systemd's units; the first is the operator's.
const UNIT_FOLDERS: [&str; 3] = [
    "/etc/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// The unit that loads nvactl's own part, behind nftables, ufw, netfilter-persistent and iptables, and
/// again whenever one of these is restarted or reloaded.
pub const OWN_UNIT: &str = "nvactl.service";

/// Whether a unit is enabled: `systemctl enable` makes a link in the folder of the target that wants it.
/// One that is masked is a link to /dev/null, and never starts.
#[must_use]
pub fn starts_at_boot(unit: &str) -> bool {
    let folder = Path::new(UNIT_FOLDERS[0]);
    let mut entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let wanted = entries.any(|entry| {
        let path = entry.path();
        path.extension()
            .is_some_and(|end| end == "wants" || end == "requires")
            && fs::symlink_metadata(path.join(unit)).is_ok()
    });
    let masked = fs::read_link(folder.join(unit)).is_ok_and(|to| to == Path::new("/dev/null"));
    wanted && !masked
}

//! The file that iptables-persistent loads at boot, and whether it will.

use std::fs;
use std::path::Path;

use super::file;
use crate::diff;
use crate::parse;
use crate::ruleset::Ruleset;
use crate::status::RulesFile;

pub const RULES_FILE: &str = "/etc/iptables/rules.v4";

/// The plugin of netfilter-persistent that loads [`RULES_FILE`].
const PLUGIN: &str = "/usr/share/netfilter-persistent/plugins.d/15-ip4tables";

/// What becomes of the rules file at boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtBoot {
    Loaded,
    /// The plugin is not there: iptables-persistent is not installed.
    NotInstalled,
    /// It is installed, but no systemd target wants the service, or it is masked.
    NotEnabled,
}

/// How nvactl's rules in [`RULES_FILE`] compare with those that run.
#[must_use]
pub fn compared(live: &Ruleset) -> RulesFile {
    let text = match file::read(Path::new(RULES_FILE)) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return RulesFile::Missing,
        Err(_) => return RulesFile::Unreadable,
    };
    match parse::parse(&String::from_utf8_lossy(&text)) {
        Ok(kept) if diff::holds_the_same(&kept, live, true) => RulesFile::Same,
        Ok(_) => RulesFile::Different,
        Err(_) => RulesFile::Unreadable,
    }
}

/// Looks whether iptables-persistent will load the rules file at boot.
#[must_use]
pub fn at_boot() -> AtBoot {
    if !Path::new(PLUGIN).exists() {
        return AtBoot::NotInstalled;
    }
    // `systemctl enable` is a link in the folder of the target that wants the service.
    let wanted = fs::read_dir("/etc/systemd/system")
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| {
            entry.path().extension().is_some_and(|end| end == "wants")
                && ["netfilter-persistent.service", "iptables.service"]
                    .iter()
                    .any(|unit| fs::symlink_metadata(entry.path().join(unit)).is_ok())
        });
    // A unit that is masked is a link to /dev/null, and never starts.
    let masked = fs::read_link("/etc/systemd/system/netfilter-persistent.service")
        .is_ok_and(|target| target == Path::new("/dev/null"));
    if wanted && !masked {
        AtBoot::Loaded
    } else {
        AtBoot::NotEnabled
    }
}

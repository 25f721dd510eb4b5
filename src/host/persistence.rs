//! The files that iptables-persistent loads at boot, and whether it will.

use std::fs;
use std::path::Path;

use tracing::debug;

use super::file::{self, FileError};
use super::iptables::Iptables;
use super::rehearsal::RehearsalError;
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

/// Compares nvactl's rules in the rules file with those that run, as far as the boot loads the file, and
/// says why it does not. Where that cannot be tried, the text is read.
#[must_use]
pub fn compared(
    iptables: &Iptables,
    family: Family,
    live: &Ruleset,
) -> (RulesFile, Option<String>) {
    let bytes = match file::read(Path::new(rules_file(family))) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return (RulesFile::Missing, None),
        Err(_) => return (RulesFile::Unreadable, None),
    };
    let kept = match iptables.rehearse(family, &bytes, &[]) {
        Ok(loaded) => Ok(Some(loaded.ruleset)),
        Err(RehearsalError::Refused(refused)) => Err(refused.to_string()),
        Err(RehearsalError::Impossible(reason)) => {
            debug!(reason, "the rules file cannot be tried");
            let text = parse::text_of(&bytes);
            let read = || parse::parse(&text).ok();
            // iptables-restore refuses all of a file for one line.
            let loadable = || read().filter(|kept| unloadable(kept).is_none());
            let spelled = parse::check_spelling(&text).map_err(|error| error.to_string());
            spelled.map(|()| loadable())
        }
    };
    match kept {
        Err(refused) => (RulesFile::Refused, Some(refused)),
        Ok(None) => (RulesFile::Unreadable, None),
        Ok(Some(kept)) if diff::holds_the_same(&kept, live, true) => (RulesFile::Same, None),
        Ok(Some(_)) => (RulesFile::Different, None),
    }
}

/// Looks whether iptables-persistent will load the rules file at boot.
#[must_use]
pub fn at_boot(family: Family) -> AtBoot {
    if !Path::new(plugin(family)).exists() {
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

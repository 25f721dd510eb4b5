//! Writes the live rules into the files that are loaded at boot.

use std::path::{Path, PathBuf};

use super::error::{Error, Failed};
use super::history::last_loaded;
use super::interrupted::resume;
use super::look::{families, read, warn_of_unread_v6};
use super::machine::MachineToChange;
use super::note_v6::note_v6;
use super::records::KeptSpec;
use super::refusal::Refusal;
use super::remark::Remarks;
use super::saved;
use super::state::State;
use crate::diff;
use crate::diff::families::changes;
use crate::forwards::ForwardSet;
use crate::host::boot_unit;
use crate::host::file::{self, FileError, Prepared};
use crate::host::iptables::{Iptables, Live, OWN_ALONE, nft_listing};
use crate::host::persistence::{self, RulesAtBoot};
use crate::host::rehearsal::RehearsalError;
use crate::host::survey;
use crate::net::Family;
use crate::net::per_family::PerFamily;
use crate::netfilter::backend::Backend;
use crate::netfilter::names::TableName;
use crate::netfilter::programs;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::text::parse;
use crate::netfilter::unread::misprinted;
use crate::ops::splice;
use crate::plan::planned;

/// The rules to write, and the file.
#[derive(Debug)]
pub struct PersistRequest<'a> {
    /// Refuse unless the live rules are this spec's.
    pub only_if: Option<Expected<'a>>,
    /// Write only this family's rules.
    pub family: Option<Family>,
    /// Write to this file instead of the one that is loaded at boot.
    pub output: Option<&'a Path>,
}

/// A spec that must be loaded.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    pub set: &'a ForwardSet,
    /// The name in messages.
    pub name: &'a str,
    /// The argument of a command.
    pub argument: &'a str,
    /// The text of the spec.
    pub spec: &'a KeptSpec,
}

#[derive(Debug)]
pub struct PersistReport {
    pub remarks: Remarks,
    /// The written files, and what loads them at boot if they are the usual ones.
    pub written: Vec<Written>,
    /// The errors of files that could not be written after the first.
    pub failed: Vec<FileError>,
    /// Whether the IPv6 file stays the same, because IPv6 rules cannot be read.
    pub partly: bool,
}

#[derive(Debug)]
pub struct Written {
    pub path: PathBuf,
    pub at_boot: Option<RulesAtBoot>,
    /// Whether the file holds rules of nvactl's.
    pub holds_own: bool,
}

/// Replaces each rules file as a whole, and keeps the old file beside it.
///
/// # Errors
/// When the live rules are not the spec's, or a file cannot be replaced; then no file is.
pub fn persist(
    request: &PersistRequest<'_>,
    machine: &MachineToChange,
) -> Result<PersistReport, Failed> {
    let mut remarks = Remarks::of(&machine.state.notices);
    match run(request, machine, &mut remarks) {
        Ok((written, failed, partly)) => Ok(PersistReport {
            remarks,
            written,
            failed,
            partly,
        }),
        Err(error) => Err(Failed::new(error, remarks)),
    }
}

fn run(
    request: &PersistRequest<'_>,
    machine: &MachineToChange,
    remarks: &mut Remarks,
) -> Result<(Vec<Written>, Vec<FileError>, bool), Error> {
    let MachineToChange {
        state, iptables, ..
    } = machine;
    let _lock = machine.begin()?;
    let set = request.only_if.map(|expected| expected.set);
    let families = families(set, Some(state));
    let needs_v6 = request.family == Some(Family::V6) || set.is_some_and(|set| set.has(Family::V6));
    let (live, unread) = read(iptables, families, needs_v6)?;
    let asks_v6 = request.family != Some(Family::V4) && request.output.is_none();
    let unread_v6 = unread.is_some();
    let partly = unread_v6 && asks_v6 && persistence::mentions_own(Family::V6);
    warn_of_unread_v6(unread, remarks);
    for (_, live) in live.iter() {
        remarks.warn_of_rules(live.warnings(iptables).iter());
    }
    resume(state, &live.map(|_, live| &live.ruleset), remarks)?;
    if let Some(expected) = &request.only_if {
        refuse_other(expected, &live)?;
    }
    if request.output.is_none() && boot_unit::is_enabled() {
        if request.family.is_some() {
            return Err(Refusal::FamilyWithoutFile.into());
        }
        let rules = live.map(|_, live| &live.ruleset);
        if rules
            .values()
            .all(|rules| diff::own(rules).rule_count() == 0)
        {
            // If another program flushed the rules, the saved rules must stay.
            if !last_loaded(state)?.is_some_and(|last| last.is_removal()) {
                return Err(Refusal::NothingToSave { saved: true }.into());
            }
            remarks.warn("nvactl's rules were removed, so the next boot loads none of them");
        } else if request.only_if.is_none() {
            refuse_flushed(state, &rules, None)?;
        }
        let spec = request.only_if.map(|expected| expected.spec);
        saved::save(machine, &rules, unread_v6, spec, remarks)?;
        note_v6(state, rules.v6);
        let written = Written {
            path: state.saved_file(),
            at_boot: Some(RulesAtBoot::Unit),
            holds_own: rules.values().any(|rules| rules.holds_own()),
        };
        return Ok((vec![written], Vec::new(), unread_v6));
    }
    if request.output.is_none()
        && let Some(program) = persistence::manager()
    {
        return Err(Refusal::BesideManager { program }.into());
    }
    let meant = meant(request, &live)?;
    if request.output.is_none() && request.only_if.is_none() {
        let rules = live.map(|_, live| &live.ruleset);
        refuse_flushed(state, &rules, request.family)?;
    }
    let files = meant
        .into_iter()
        .map(|(family, live)| PlannedFile::new(family, live, request, remarks))
        .collect::<Result<Vec<PlannedFile>, Error>>()?;
    // Every file is tried before the first is written.
    for file in &files {
        rehearse(iptables, file, remarks)?;
    }
    // A file that cannot be written fails here, before anything has changed.
    let prepared = files
        .into_iter()
        .map(|file| Ok((file.prepare(request.output.is_none())?, file)))
        .collect::<Result<Vec<_>, FileError>>()?;
    let (mut written, mut failed) = (Vec::new(), Vec::new());
    for (prepared, file) in prepared {
        match prepared.commit() {
            Ok(()) => written.push(Written {
                at_boot: request
                    .output
                    .is_none()
                    .then(|| persistence::at_boot(file.family)),
                path: file.path,
                holds_own: file.holds_own,
            }),
            Err(error) if written.is_empty() => return Err(error.into()),
            Err(error) => failed.push(error),
        }
    }
    note_v6(state, live.v6.as_ref().map(|live| &live.ruleset));
    Ok((written, failed, partly))
}

/// Refuses to save rules from which others have removed some since nvactl loaded them. `only`: look at this family
/// alone.
pub(super) fn refuse_flushed(
    state: &State,
    live: &PerFamily<&Ruleset>,
    only: Option<Family>,
) -> Result<(), Error> {
    let Some(last) = last_loaded(state)? else {
        return Ok(());
    };
    for (family, live) in live.iter() {
        let loaded = last.rule_count(family);
        let missing = loaded.saturating_sub(diff::own(live).rule_count());
        if missing > 0 && only.is_none_or(|only| only == family) {
            return Err(Refusal::Flushed {
                family,
                missing,
                loaded,
            }
            .into());
        }
    }
    Ok(())
}

fn refuse_other(expected: &Expected<'_>, live: &PerFamily<Live>) -> Result<(), Refusal> {
    let rules = live.map(|_, live| &live.ruleset);
    let want = planned(expected.set, live.families());
    let changes = changes(&rules, &want);
    if changes.is_empty() {
        return Ok(());
    }
    Err(Refusal::NotInSync {
        name: expected.name.to_owned(),
        argument: expected.argument.to_owned(),
        changes: changes.report(),
    })
}

/// Returns the families to write: IPv6 if there are rules of nvactl in the kernel or in the file.
fn meant<'l>(
    request: &PersistRequest<'_>,
    live: &'l PerFamily<Live>,
) -> Result<Vec<(Family, &'l Live)>, Error> {
    let mut meant: Vec<(Family, &Live)> = Vec::new();
    for (family, live) in live.iter() {
        let concerns =
            family == Family::V4 || live.ruleset.holds_own() || persistence::holds_own(family)?;
        if concerns && request.family.is_none_or(|only| only == family) {
            meant.push((family, live));
        }
    }
    match (meant.as_slice(), request.family, &request.output) {
        ([_, _], _, Some(_)) => Err(Refusal::OneFileForTwo.into()),
        ([], Some(family), _) => Err(Refusal::NothingOf { family }.into()),
        _ => Ok(meant),
    }
}

/// A file to write.
struct PlannedFile {
    family: Family,
    path: PathBuf,
    old: Option<Vec<u8>>,
    new: Vec<u8>,
    tables: Vec<TableName>,
    holds_own: bool,
}

/// Loads a file in a network namespace as the boot does, and compares the result with the loaded rules.
fn rehearse(iptables: &Iptables, file: &PlannedFile, remarks: &mut Remarks) -> Result<(), Error> {
    let family = file.family;
    let named = || file.path.display().to_string();
    // Only the nft backend shares its tables with `nft`.
    let nft = survey::find(iptables, family).is_ok_and(|backend| backend == Backend::Nft);
    let shared = if nft { &file.tables[..] } else { &[] };
    match iptables.rehearse(family, &file.new, shared) {
        Ok(loaded) => {
            let live = nft_listing(family, shared);
            let mut tables = shared.iter().zip(live.iter().zip(&loaded.nft));
            let found = tables
                .find_map(|(table, (live, loaded))| Some((*table, misprinted(live, loaded)?)));
            match found {
                None => Ok(()),
                Some(_) if !same_rules(iptables.read(family)?.whole()?, &file.new) => {
                    Err(Refusal::Changing.into())
                }
                Some((table, rule)) => Err(Refusal::Misprinted {
                    file: named(),
                    table,
                    rule,
                }
                .into()),
            }
        }
        Err(RehearsalError::Refused(refused)) => Err(Refusal::WouldNotLoad {
            file: named(),
            refused,
        }
        .into()),
        Err(RehearsalError::Impossible(reason)) => {
            iptables.test(family, &file.new)?;
            remarks.warn(format_args!(
                "iptables-restore only checked the syntax of {}, which could not be loaded in a network namespace: \
                 {reason}",
                named()
            ));
            Ok(())
        }
    }
}

impl PlannedFile {
    fn new(
        family: Family,
        live: &Live,
        request: &PersistRequest<'_>,
        remarks: &mut Remarks,
    ) -> Result<Self, Error> {
        let usual = || PathBuf::from(persistence::rules_file(family));
        let path = request.output.map_or_else(usual, Path::to_owned);
        let old = file::read(&path)?;
        let new = match &old {
            // If a boot loads no IPv6 table, the old file would load nvactl's rules again.
            Some(old) if family == Family::V6 && live.ruleset.tables.is_empty() => {
                let split = splice::without_own(old).map_err(|error| Refusal::Uneditable {
                    file: path.display().to_string(),
                    reason: error.to_string(),
                })?;
                remarks.warn(format_args!(
                    "no IPv6 rules are loaded, so only nvactl's lines are removed from {}",
                    path.display()
                ));
                split.others
            }
            _ => {
                let backup = || {
                    let both = old.as_ref().zip(live.whole().ok());
                    both.filter(|(old, new)| !same_rules(old, new))
                        .map(|_| file::backup_of(&path))
                };
                refuse_emptiness(family, live, backup, remarks)?;
                warn_of_generated(live, remarks);
                live.whole()?.to_vec()
            }
        };
        Ok(Self {
            family,
            path,
            old,
            new,
            tables: live.ruleset.tables.keys().copied().collect(),
            holds_own: live.ruleset.holds_own(),
        })
    }

    fn prepare(&self, make_folder: bool) -> Result<NewFile, FileError> {
        if make_folder {
            // Without iptables-persistent, the folder may not exist.
            file::make_folder_of(&self.path)?;
        }
        let old = self.old.as_ref().filter(|old| !same_rules(old, &self.new));
        let backup =
            old.map(|old| file::prepare(&file::backup_of(&self.path), old, file::RULES_MODE));
        Ok(NewFile {
            backup: backup.transpose()?,
            rules: file::prepare(&self.path, &self.new, file::RULES_MODE)?,
        })
    }
}

/// A new rules file and the backup of the old one, under temporary names.
struct NewFile {
    backup: Option<Prepared>,
    rules: Prepared,
}

impl NewFile {
    fn commit(self) -> Result<(), FileError> {
        if let Some(backup) = self.backup {
            backup.commit()?;
        }
        self.rules.commit()
    }
}

/// Refuses an empty file: it loads without an error and leaves FORWARD at ACCEPT. Warns of a file without rules
/// of nvactl, and names the backup of the old file.
fn refuse_emptiness(
    family: Family,
    live: &Live,
    backup: impl FnOnce() -> Option<PathBuf>,
    remarks: &mut Remarks,
) -> Result<(), Refusal> {
    if live.ruleset.tables.is_empty() {
        return Err(Refusal::NothingToKeep { family });
    }
    if !live.ruleset.holds_own() {
        let rules = match family {
            Family::V4 => "rules",
            Family::V6 => "IPv6 rules",
        };
        remarks.warn(format_args!(
            "nvactl's {rules} are not loaded, so the file will hold none{}",
            backup().map_or(String::new(), |backup| format!(
                "; the old file is kept as {}",
                backup.display()
            ))
        ));
    }
    Ok(())
}

fn warn_of_generated(live: &Live, remarks: &mut Remarks) {
    for (program, chain) in programs::generated(&live.ruleset) {
        remarks.warn(format_args!(
            "{program} writes its rules again at each start (chain {chain}), so the rules of {program} in the \
             file would be duplicates; {OWN_ALONE}"
        ));
    }
}

/// Whether two texts differ only in the times and counters of iptables-save. Then the existing backup is
/// worth more than the file.
fn same_rules(old: &[u8], new: &[u8]) -> bool {
    let read = |bytes| parse::parse(&String::from_utf8_lossy(bytes));
    old == new || matches!((read(old), read(new)), (Ok(old), Ok(new)) if old == new)
}

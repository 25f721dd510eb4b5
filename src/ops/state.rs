//! The state folder: the files of all records, and how they are read and written.
//!
//! A record belongs to one network namespace, and is ignored in any other.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::debug;

use super::records::{
    Begun, Booted, Change, Decision, LastDecision, Pending, Repairs, SavedState, VERSION,
    VERSION_WITH_FOREIGN,
};
use crate::host::file::{self, FileError};
use crate::host::folder::{self, FolderError};
use crate::host::{lock, namespace};
use crate::net::Family;

/// The number of changes in the history.
pub const KEPT: usize = 20;

/// The name of the records of the machine's first namespace, whose inode number differs between kernels.
const FIRST: &str = "first";

/// The folder, which only root may enter.
#[derive(Debug, Clone)]
pub struct State {
    folder: PathBuf,
    /// The name of this network namespace's records.
    key: String,
    /// The name of its history: the number under an earlier kernel, until the history is renamed.
    history_key: String,
    /// The kernel's name of this network namespace.
    link: String,
    /// Whether it is the machine's first namespace.
    first: bool,
    /// Notices about records that were found under another name.
    pub notices: Vec<String>,
}

/// Why the state folder cannot be used.
#[derive(Debug, Error)]
pub enum StateError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("`{}` is damaged", .path.display())]
    Damaged {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("`{}` was written by a later version of nvactl", .path.display())]
    Later { path: PathBuf },
    #[error("the network namespace or the boot of this process cannot be read")]
    Namespace(#[from] std::io::Error),
}

impl StateError {
    /// Returns the command that fixes it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            StateError::Folder(error) => error.hint(),
            StateError::File(error) => error.hint(),
            _ => None,
        }
    }

    /// Whether a record exists that this version cannot read.
    #[must_use]
    pub fn is_unreadable_record(&self) -> bool {
        matches!(
            self,
            StateError::Damaged { .. }
                | StateError::Later { .. }
                | StateError::File(FileError::NotAFile { .. } | FileError::TooLarge { .. })
        )
    }
}

/// Returns the seconds since 1970; 0 if the clock is before 1970.
#[must_use]
pub fn seconds_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

impl State {
    /// Opens the folder for a command that changes something. Makes the folder if it does not exist, and
    /// takes over the records of the machine's first namespace from an earlier kernel.
    ///
    /// # Errors
    /// When the folder cannot be made, or others than root can write in it.
    pub fn open(named: Option<&Path>) -> Result<Self, StateError> {
        let folder = folder::state_folder(named);
        folder::make(&folder)?;
        let mut state = Self::at(&folder)?;
        state.take_over()?;
        Ok(state)
    }

    /// Opens the folder, if it exists, for a command that only reads.
    ///
    /// # Errors
    /// When the folder cannot be reached, or others than root can write in it.
    pub fn look(named: Option<&Path>) -> Result<Option<Self>, StateError> {
        let folder = folder::state_folder(named);
        folder.is_dir().then(|| Self::at(&folder)).transpose()
    }

    fn at(folder: &Path) -> Result<Self, StateError> {
        let here = namespace::here()?;
        // The watchdog gets this path and starts in another folder.
        let folder = folder::trusted(folder)?;
        let mut state = Self {
            folder,
            key: here.number(),
            history_key: here.number(),
            link: here.link.clone(),
            first: here.first,
            notices: Vec::new(),
        };
        if here.first {
            let known = Self {
                history_key: FIRST.to_owned(),
                key: FIRST.to_owned(),
                ..state.clone()
            };
            // Before they are renamed, and while a watchdog of 0.1.0 waits for a decision under the old name,
            // the records are under the inode's number.
            if known.has_records() || !state.has_records() {
                state = known;
            }
            if state.key == FIRST && state.is_new() {
                state.adopt()?;
            }
        }
        for inner in [state.folder.join("history"), state.history()] {
            if folder::holds(&inner) {
                folder::trusted(&inner)?;
            }
        }
        Ok(state)
    }

    /// Adopts the only other history as that of the machine's first namespace, which an earlier kernel
    /// numbered differently. If a change of this boot waits there, the history belongs to another namespace.
    fn adopt(&mut self) -> Result<(), StateError> {
        let [only] = self.others()?.try_into().unwrap_or_default();
        let mut other = self.clone();
        other.name(&only);
        let is_alive = match other.pending() {
            Ok(Some(pending)) => pending.boot == namespace::boot()?,
            _ => false,
        };
        if only.is_empty() || is_alive {
            return Ok(());
        }
        self.notices.push(format!(
            "using the history of network namespace {only}: it is the only history here, and the number of the \
             machine's namespace changes with the kernel"
        ));
        self.history_key = only;
        Ok(())
    }

    fn name(&mut self, key: &str) {
        key.clone_into(&mut self.key);
        key.clone_into(&mut self.history_key);
    }

    fn has_records(&self) -> bool {
        let mut records = self.records().into_iter();
        records.any(|record| folder::holds(&record))
    }

    /// Returns every file and folder of this namespace alone.
    fn records(&self) -> [PathBuf; 9] {
        [
            self.history(),
            self.pending_file(),
            self.decision_file(),
            self.begun_file(),
            self.v6_file(),
            self.saved_file(),
            self.saved_before_file(),
            self.booted_file(),
            self.repairs_file(),
        ]
    }

    /// Whether the records of the machine's first namespace still have an old name.
    #[must_use]
    pub fn is_to_be_taken_over(&self) -> bool {
        self.first && (self.key != FIRST || self.history_key != FIRST)
    }

    /// Renames the records of the machine's first namespace to the permanent name: those of this kernel's
    /// number, else those of the only other one, from an earlier kernel. Does nothing while another nvactl
    /// holds the lock.
    fn take_over(&mut self) -> Result<(), StateError> {
        let here = namespace::here()?;
        let mut old = self.clone();
        old.name(&here.number());
        let moves = old.has_records() || self.history_key != self.key;
        // The watchdog of a waiting change uses the old name.
        if !here.first || !moves || folder::holds(&old.pending_file()) {
            return Ok(());
        }
        let Ok(_lock) = lock::take(&self.lock_file(), 0) else {
            return Ok(());
        };
        if self.history_key != self.key {
            old.name(&self.history_key);
            // A waiting or started change there is from another boot.
            for record in [old.pending_file(), old.decision_file(), old.begun_file()] {
                folder::remove(&record)?;
            }
        }
        self.name(FIRST);
        // The history last: if nvactl is killed before that, the old name is found again.
        for (old, new) in old.records().iter().zip(self.records()).rev() {
            if folder::holds(old) && !folder::holds(&new) {
                folder::rename(old, &new)?;
            }
        }
        Ok(())
    }

    /// Returns the other namespaces with a history here.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn others(&self) -> Result<Vec<String>, StateError> {
        let mut names = folder::names(&self.folder.join("history"))?;
        names.retain(|name| {
            let own = [&self.key, &self.history_key].contains(&name);
            !own && name.bytes().all(|byte| byte.is_ascii_digit())
        });
        Ok(names)
    }

    /// Returns the kernel's name of this process's namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.link
    }

    /// Makes the folder again if it is gone.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make(&self) -> Result<(), StateError> {
        Ok(folder::make(&self.folder)?)
    }

    /// Returns the path of nvactl's own lock.
    #[must_use]
    pub fn lock_file(&self) -> PathBuf {
        self.folder.join("lock")
    }

    /// Returns the path of the folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn pending_file(&self) -> PathBuf {
        self.folder.join(format!("pending-{}.json", self.key))
    }

    fn decision_file(&self) -> PathBuf {
        self.folder.join(format!("decision-{}.json", self.key))
    }

    fn begun_file(&self) -> PathBuf {
        self.folder.join(format!("begun-{}.json", self.key))
    }

    fn v6_file(&self) -> PathBuf {
        self.folder.join(format!("ipv6-{}", self.key))
    }

    /// Returns the path of the saved state.
    #[must_use]
    pub fn saved_file(&self) -> PathBuf {
        self.folder.join(format!("saved-{}.json", self.key))
    }

    fn saved_before_file(&self) -> PathBuf {
        self.folder.join(format!("saved-before-{}.json", self.key))
    }

    fn booted_file(&self) -> PathBuf {
        self.folder.join(format!("booted-{}.json", self.key))
    }

    /// Returns the path of the record of repairs.
    #[must_use]
    pub fn repairs_file(&self) -> PathBuf {
        self.folder.join(format!("repairs-{}.json", self.key))
    }

    fn history(&self) -> PathBuf {
        self.folder.join("history").join(&self.history_key)
    }

    /// Reads the recorded change that waits for its confirmation, from any boot.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn pending(&self) -> Result<Option<Pending>, StateError> {
        read_json(&self.pending_file())
    }

    /// Records the change that waits.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_pending(&self, pending: &Pending) -> Result<(), StateError> {
        write_json(&self.pending_file(), pending)
    }

    /// Removes the record of the change that waits.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn clear_pending(&self) -> Result<(), StateError> {
        Ok(folder::remove(&self.pending_file())?)
    }

    /// Identifies a version of the pending record without reading it.
    #[must_use]
    pub fn pending_version(&self) -> Option<(u64, SystemTime)> {
        file::version(&self.pending_file())
    }

    /// Reads the last decision and its change.
    #[must_use]
    pub fn decided(&self) -> Option<LastDecision> {
        read_json(&self.decision_file()).ok()?
    }

    /// Reads the decision on the change with this name, if it was the last one.
    #[must_use]
    pub fn decision(&self, id: &str) -> Option<Decision> {
        let LastDecision(of, decision) = self.decided()?;
        (of == id && decision != Decision::Waiting).then_some(decision)
    }

    /// Writes a decision. On a full disk, overwrites the decision before, which has as much room, and returns
    /// the error of the first try.
    ///
    /// # Errors
    /// When it cannot be written at all.
    pub fn set_decision(&self, decided: &LastDecision) -> Result<Option<FileError>, StateError> {
        folder::make(&self.folder)?;
        let path = self.decision_file();
        let mut text = json(&path, decided)?;
        text.resize(text.len().max(DECISION_BYTES), b'\n');
        let Err(error) = file::replace(&path, &text, 0o600) else {
            return Ok(None);
        };
        match file::overwrite(&path, &text) {
            Ok(()) => Ok(Some(error)),
            Err(_) => Err(error.into()),
        }
    }

    /// Reads the change that was started and not finished.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn begun(&self) -> Result<Option<Begun>, StateError> {
        read_json(&self.begun_file())
    }

    /// Records that a change starts.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_begun(&self, begun: &Begun) -> Result<(), StateError> {
        write_json(&self.begun_file(), begun)
    }

    /// Removes the record of the started change.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn clear_begun(&self) -> Result<(), StateError> {
        Ok(folder::remove(&self.begun_file())?)
    }

    /// Reads the saved state.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn saved(&self) -> Result<Option<SavedState>, StateError> {
        read_json(&self.saved_file())
    }

    /// Reads the state saved before the saved state.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn saved_before(&self) -> Result<Option<SavedState>, StateError> {
        read_json(&self.saved_before_file())
    }

    /// Writes the saved state, and keeps the one before if it is readable and has other rules.
    ///
    /// # Errors
    /// When either cannot be written; the saved state is then as it was.
    pub fn set_saved(&self, saved: &SavedState) -> Result<(), StateError> {
        if let Ok(Some(before)) = self.saved()
            && before.owned() != saved.owned()
        {
            write_json(&self.saved_before_file(), &before)?;
        }
        write_json(&self.saved_file(), saved)
    }

    /// Removes the saved state, the one before and the record of the unit's last run.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn clear_saved(&self) -> Result<(), StateError> {
        for file in [
            self.saved_file(),
            self.saved_before_file(),
            self.booted_file(),
        ] {
            folder::remove(&file)?;
        }
        Ok(())
    }

    /// Reads the record of the boot unit's last run.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn booted(&self) -> Result<Option<Booted>, StateError> {
        read_json(&self.booted_file())
    }

    /// Records the boot unit's run.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_booted(&self, booted: &Booted) -> Result<(), StateError> {
        write_json(&self.booted_file(), booted)
    }

    /// Reads the record of repairs; an empty one if there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn repairs(&self) -> Result<Repairs, StateError> {
        Ok(read_json(&self.repairs_file())?.unwrap_or_default())
    }

    /// Writes the record of repairs.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_repairs(&self, repairs: &Repairs) -> Result<(), StateError> {
        let repairs = Repairs {
            version: VERSION,
            ..repairs.clone()
        };
        write_json(&self.repairs_file(), &repairs)
    }

    /// Whether this namespace has no history.
    #[must_use]
    pub fn is_new(&self) -> bool {
        !folder::holds(&self.history())
    }

    /// Whether nvactl may have IPv6 rules here, even without IPv6 forwards in the spec: it has loaded some in
    /// this namespace, and no later command found them gone.
    #[must_use]
    pub fn may_hold_v6(&self) -> bool {
        let name = format!("ipv6-{}", self.history_key);
        folder::holds(&self.v6_file()) || folder::holds(&self.folder.join(name))
    }

    /// Records whether nvactl may have IPv6 rules.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn set_may_hold_v6(&self, may: bool) -> Result<(), StateError> {
        match (may, self.may_hold_v6()) {
            (true, false) => Ok(file::replace(&self.v6_file(), b"", 0o600)?),
            (false, true) => Ok(folder::remove(&self.v6_file())?),
            _ => Ok(()),
        }
    }

    /// Returns the path of the watchdog's log.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.folder.join("watchdog.log")
    }

    /// Returns the path of the script that restores the old rules by hand after a failed undo.
    #[must_use]
    pub fn undo_script(&self, family: Family) -> PathBuf {
        self.folder.join(match family {
            Family::V4 => "undo.rules",
            Family::V6 => "undo.rules6",
        })
    }

    /// Returns the number of the next change.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn next_number(&self) -> Result<u64, StateError> {
        Ok(self.numbers()?.last().map_or(1, |last| last + 1))
    }

    /// Adds a change to the history, and removes the oldest beyond [`KEPT`].
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn remember(&self, number: u64, change: &Change) -> Result<(), StateError> {
        folder::make(&self.history())?;
        let numbers = self.numbers()?;
        write_json(&self.entry(number), change)?;
        let surplus = (numbers.len() + 1).saturating_sub(KEPT);
        for number in &numbers[..surplus.min(numbers.len())] {
            if let Err(error) = folder::remove(&self.entry(*number)) {
                debug!(%error, "an old change stays in the history");
            }
        }
        Ok(())
    }

    /// Replaces a change in the history.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn rewrite(&self, number: u64, change: &Change) -> Result<(), StateError> {
        write_json(&self.entry(number), change)
    }

    /// Removes a change that was never made from the history.
    ///
    /// # Errors
    /// When the record cannot be removed: then there is one too many.
    pub fn forget(&self, number: u64) -> Result<(), StateError> {
        Ok(folder::remove(&self.entry(number))?)
    }

    /// Reads a change; `None` if the history lacks it, or this version cannot read it.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn change(&self, number: u64) -> Result<Option<Change>, StateError> {
        match read_json::<Change>(&self.entry(number)) {
            Err(error) if error.is_unreadable_record() => {
                debug!(%error, "a change cannot be read and is skipped");
                Ok(None)
            }
            Ok(change) => Ok(change.filter(|change| self.is_of_here(change))),
            Err(error) => Err(error),
        }
    }

    /// Reads the changes of this network namespace with their numbers, the newest first.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn changes(&self) -> Result<Vec<(u64, Change)>, StateError> {
        let mut changes = Vec::new();
        for number in self.numbers()?.into_iter().rev() {
            changes.extend(self.change(number)?.map(|change| (number, change)));
        }
        Ok(changes)
    }

    /// Reads the newest change with its number, if it is this one: an earlier version does not record the
    /// number of a pending change.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn newest_like(&self, change: &Change) -> Result<Option<(u64, Change)>, StateError> {
        let Some(number) = self.numbers()?.pop() else {
            return Ok(None);
        };
        // 0.1.0 reads the clock twice for one change.
        let dated = |kept: &Change| change.version == 0 || kept.time == change.time;
        let same = |kept: &Change| {
            dated(kept) && (&kept.action, kept.owned()) == (&change.action, change.owned())
        };
        Ok(self.change(number)?.filter(same).map(|kept| (number, kept)))
    }

    /// Whether a change was recorded in this network namespace. The first namespace may have had other
    /// numbers under other kernels.
    #[must_use]
    pub fn is_of_here(&self, change: &Change) -> bool {
        self.key == FIRST || change.namespace == self.link
    }

    /// Returns the numbers of the changes, in rising order.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn numbers(&self) -> Result<Vec<u64>, StateError> {
        let names = folder::names(&self.history())?;
        let number = |name: &String| name.strip_suffix(".json")?.parse().ok();
        let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
        // There must be a number after the last.
        numbers.retain(|number| *number < u64::MAX);
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn entry(&self, number: u64) -> PathBuf {
        self.history().join(format!("{number:08}.json"))
    }

    /// Removes half-written files of killed writers. The caller holds the lock.
    ///
    /// # Errors
    /// When the folder cannot be read, or something cannot be removed.
    pub fn clear_leftovers(&self) -> Result<(), StateError> {
        for at in [
            self.folder.clone(),
            self.folder.join("history"),
            self.history(),
        ] {
            for name in folder::names(&at)? {
                if name.starts_with(file::UNFINISHED) {
                    folder::remove(&at.join(name))?;
                }
            }
        }
        Ok(())
    }
}

/// At least as long as any decision, so that each fits into the place of another.
const DECISION_BYTES: usize = 128;

fn json(path: &Path, value: &impl Serialize) -> Result<Vec<u8>, StateError> {
    serde_json::to_vec_pretty(value).map_err(|source| StateError::Damaged {
        path: path.to_owned(),
        source,
    })
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), StateError> {
    Ok(file::replace(path, &json(path, value)?, 0o600)?)
}

/// The version field of a record.
#[derive(Deserialize)]
struct Versioned {
    #[serde(default)]
    version: u32,
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, StateError> {
    let Some(bytes) = file::read(path)? else {
        return Ok(None);
    };
    folder::root_owns(path)?;
    let versioned = serde_json::from_slice::<Versioned>(&bytes);
    if versioned.is_ok_and(|record| record.version > VERSION_WITH_FOREIGN) {
        return Err(StateError::Later {
            path: path.to_owned(),
        });
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| StateError::Damaged {
            path: path.to_owned(),
            source,
        })
}

//! What nvactl remembers: one folder with the lock, the states before each change, the change that
//! waits for its confirmation, and whether there may be IPv6 rules.
//!
//! What was recorded in one network namespace says nothing of another, and is not acted on there.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::warn;

use super::file::{self, FileError};
use super::pending::{Decision, Pending};
use crate::net::Family;
use crate::parse::{self, ParseError};
use crate::per_family::PerFamily;
use crate::ruleset::{ChainName, Ruleset, TableName};

/// How many states before a change are kept.
pub const KEPT: usize = 20;

/// The folder, which only root may enter.
#[derive(Debug, Clone)]
pub struct State {
    folder: PathBuf,
    /// This network namespace, as the kernel numbers it: what is recorded is recorded for it alone.
    namespace: String,
}

#[derive(Debug, Error)]
pub enum StateError {
    #[error("cannot make the folder `{}`", .path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("cannot read the folder `{}`", .path.display())]
    List { path: PathBuf, source: io::Error },
    #[error("cannot remove `{}`", .path.display())]
    Remove { path: PathBuf, source: io::Error },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("`{}` is damaged", .path.display())]
    Damaged {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("the network namespace of this process cannot be told")]
    Namespace(#[source] io::Error),
}

/// What nvactl owned before a change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {
    /// Seconds since 1970.
    pub time: u64,
    /// As `/proc/self/ns/net` names it.
    pub namespace: String,
    /// What was about to be done: `apply forward.yaml`.
    pub action: String,
    #[serde(flatten)]
    pub v4: Owned,
    /// Where the change touched IPv6; not in records from before nvactl knew of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v6: Option<Owned>,
}

/// What nvactl owned of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// nvactl's part of the rules, the FORWARD policy included, as iptables-restore text.
    pub rules: String,
    /// Whether the change was to set the FORWARD policy: if not, it is not to be set back.
    pub sets_policy: bool,
}

impl Owned {
    /// The rules, as far as they are nvactl's to set back.
    ///
    /// # Errors
    /// When they are damaged.
    pub fn ruleset(&self) -> Result<Ruleset, ParseError> {
        let mut rules = parse::parse(&self.rules)?;
        if !self.sets_policy {
            rules
                .chain_mut(TableName::Filter, ChainName::Forward)
                .policy = None;
        }
        Ok(rules)
    }
}

impl Before {
    /// # Errors
    /// When the kernel does not tell the network namespace.
    pub fn now(action: String, owned: PerFamily<Owned>) -> Result<Self, StateError> {
        Ok(Self {
            time: seconds_now(),
            namespace: namespace()?,
            action,
            v4: owned.v4,
            v6: owned.v6,
        })
    }

    /// What it says of each family that was touched.
    #[must_use]
    pub fn owned(&self) -> PerFamily<&Owned> {
        PerFamily {
            v4: &self.v4,
            v6: self.v6.as_ref(),
        }
    }

    /// Whether it was recorded in this network namespace.
    ///
    /// # Errors
    /// When the kernel does not tell which this is.
    pub fn is_here(&self) -> Result<bool, StateError> {
        Ok(self.namespace == namespace()?)
    }
}

/// Seconds since 1970; 0 on a machine whose clock stands before.
#[must_use]
pub fn seconds_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn namespace() -> Result<String, StateError> {
    fs::read_link("/proc/self/ns/net")
        .map(|link| link.to_string_lossy().into_owned())
        .map_err(StateError::Namespace)
}

impl State {
    /// The folder named, else `$NVACTL_STATE_DIR`, else `/var/lib/nvactl`; made with mode 0700 where
    /// there is none.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(named: Option<&Path>) -> Result<Self, StateError> {
        let folder = place(named);
        make_folder(&folder)?;
        Self::at(folder)
    }

    /// The same folder if it is there, for those who only look.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub fn look(named: Option<&Path>) -> Result<Option<Self>, StateError> {
        let folder = place(named);
        folder.is_dir().then(|| Self::at(folder)).transpose()
    }

    fn at(folder: PathBuf) -> Result<Self, StateError> {
        // The watchdog, which is told of it, starts in another folder.
        let folder = fs::canonicalize(&folder).map_err(|source| StateError::List {
            path: folder,
            source,
        })?;
        let digits = |c: char| c.is_ascii_digit();
        let namespace = namespace()?.chars().filter(|c| digits(*c)).collect();
        Ok(Self { folder, namespace })
    }

    /// Makes the folder anew, should it have gone.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make(&self) -> Result<(), StateError> {
        make_folder(&self.folder)
    }

    #[must_use]
    pub fn lock_file(&self) -> PathBuf {
        self.folder.join("lock")
    }

    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn pending_file(&self) -> PathBuf {
        self.folder.join(format!("pending-{}.json", self.namespace))
    }

    /// The change that was recorded as waiting for a confirmation, wherever and whenever.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn pending(&self) -> Result<Option<Pending>, StateError> {
        read_json(&self.pending_file())
    }

    /// # Errors
    /// When it cannot be written.
    pub fn set_pending(&self, pending: &Pending) -> Result<(), StateError> {
        write_json(&self.pending_file(), pending)
    }

    /// # Errors
    /// When it cannot be removed.
    pub fn clear_pending(&self) -> Result<(), StateError> {
        remove(&self.pending_file())
    }

    fn decision_file(&self) -> PathBuf {
        self.folder
            .join(format!("decision-{}.json", self.namespace))
    }

    /// What was decided last, and on which change. There is nothing while the first waits.
    #[must_use]
    pub fn last_decision(&self) -> Option<(String, Decision)> {
        read_json(&self.decision_file()).ok()?
    }

    /// What has been decided on the change of this name, if it was the last.
    #[must_use]
    pub fn decision(&self, id: &str) -> Option<Decision> {
        let (of, decision) = self.last_decision()?;
        (of == id).then_some(decision)
    }

    /// Begins a change on which nothing has been decided.
    ///
    /// # Errors
    /// When the decision before cannot be forgotten.
    pub fn forget_decision(&self) -> Result<(), StateError> {
        remove(&self.decision_file())
    }

    /// Tells one version of the record of what waits from the next, without reading it.
    #[must_use]
    pub fn pending_version(&self) -> Option<(u64, SystemTime)> {
        let metadata = fs::metadata(self.pending_file()).ok()?;
        Some((metadata.ino(), metadata.modified().ok()?))
    }

    /// # Errors
    /// When it cannot be written.
    pub fn set_decision(&self, id: &str, decision: Decision) -> Result<(), StateError> {
        make_folder(&self.folder)?;
        write_json(&self.decision_file(), &(id, decision))
    }

    fn v6_file(&self) -> PathBuf {
        self.folder.join(format!("ipv6-{}", self.namespace))
    }

    /// Whether IPv6 rules of nvactl's may be here, though the spec may not have any: it has loaded
    /// some in this network namespace, and nobody has seen them gone.
    #[must_use]
    pub fn may_hold_v6(&self) -> bool {
        self.v6_file().exists()
    }

    /// # Errors
    /// When the folder cannot be written.
    pub fn set_may_hold_v6(&self, may: bool) -> Result<(), StateError> {
        match (may, self.may_hold_v6()) {
            (true, false) => Ok(file::replace(&self.v6_file(), b"", 0o600)?),
            (false, true) => remove(&self.v6_file()),
            _ => Ok(()),
        }
    }

    /// Where the watchdog's last words go.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.folder.join("watchdog.log")
    }

    /// Where the script goes that mends by hand what nvactl could not.
    #[must_use]
    pub fn undo_script(&self, family: Family) -> PathBuf {
        self.folder.join(match family {
            Family::V4 => "undo.rules",
            Family::V6 => "undo.rules6",
        })
    }

    fn history(&self) -> PathBuf {
        self.folder.join("history").join(&self.namespace)
    }

    /// Keeps a state, and forgets the oldest beyond [`KEPT`].
    ///
    /// # Errors
    /// When it cannot be written: then the change must not be made.
    pub fn remember(&self, before: &Before) -> Result<(), StateError> {
        make_folder(&self.history())?;
        let numbers = self.numbers()?;
        let next = numbers.last().map_or(1, |last| last + 1);
        write_json(&self.entry(next), before)?;
        let surplus = (numbers.len() + 1).saturating_sub(KEPT);
        for number in &numbers[..surplus.min(numbers.len())] {
            remove(&self.entry(*number))?;
        }
        Ok(())
    }

    /// Forgets the newest state if it is this one, whose change came to nothing. Should that fail,
    /// there is a state too many.
    pub fn forget(&self, before: &Before) {
        let newest = self.numbers().unwrap_or_default().into_iter().next_back();
        let path = newest.map(|number| self.entry(number));
        let kept = path
            .as_ref()
            .and_then(|path| read_json::<Before>(path).ok()?);
        let same = |kept: &Before| (&kept.action, kept.owned()) == (&before.action, before.owned());
        if let (Some(path), true) = (path, kept.as_ref().is_some_and(same)) {
            let _ = remove(&path);
        }
    }

    /// The states kept in this network namespace, the newest first.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn remembered(&self) -> Result<Vec<Before>, StateError> {
        let here = namespace()?;
        let mut states = Vec::new();
        for number in self.numbers()?.into_iter().rev() {
            match read_json::<Before>(&self.entry(number)) {
                Ok(before) => states.extend(before.filter(|before| before.namespace == here)),
                Err(error @ StateError::Damaged { .. }) => warn!("{error}: passed over"),
                Err(error) => return Err(error),
            }
        }
        Ok(states)
    }

    fn entry(&self, number: u64) -> PathBuf {
        self.history().join(format!("{number:08}.json"))
    }

    /// The numbers of the states kept, in rising order.
    fn numbers(&self) -> Result<Vec<u64>, StateError> {
        let folder = self.history();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => {
                return Err(StateError::List {
                    path: folder,
                    source,
                });
            }
        };
        let mut numbers: Vec<u64> = entries
            .filter_map(|entry| {
                let name = entry.ok()?.file_name();
                name.to_str()?.strip_suffix(".json")?.parse().ok()
            })
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }
}

fn place(named: Option<&Path>) -> PathBuf {
    let from_environment = || std::env::var_os("NVACTL_STATE_DIR").map(PathBuf::from);
    named
        .map(Path::to_owned)
        .or_else(|| from_environment().filter(|path| !path.as_os_str().is_empty()))
        .unwrap_or_else(|| PathBuf::from("/var/lib/nvactl"))
}

fn make_folder(path: &Path) -> Result<(), StateError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| StateError::Make {
            path: path.to_owned(),
            source,
        })
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), StateError> {
    let text = serde_json::to_vec_pretty(value).map_err(|source| StateError::Damaged {
        path: path.to_owned(),
        source,
    })?;
    Ok(file::replace(path, &text, 0o600)?)
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, StateError> {
    let Some(bytes) = file::read(path)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| StateError::Damaged {
            path: path.to_owned(),
            source,
        })
}

fn remove(path: &Path) -> Result<(), StateError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StateError::Remove {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

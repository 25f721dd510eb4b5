//! The lock that lets only one nvactl change rules at a time. Two that read, change and read back at the same
//! time would undo each other's change.
//!
//! A program that loads rules also holds the lock. The lock file names the processes of nvactl and of that
//! program, so that a waiting nvactl can see which of them is alive.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::FdFlags;
use thiserror::Error;

use super::child::{ChildError, Running};
use super::process::Process;
use crate::net::words::counted;

/// The held lock. It is released when this value is dropped, or when nvactl's process and all programs that it
/// was lent to have ended.
#[derive(Debug)]
pub struct Lock {
    file: File,
    /// The line of the lock file about nvactl's own process.
    signature: String,
}

impl Lock {
    /// Starts a program that also holds the lock until its end. So nobody else changes the rules before, even if
    /// nvactl is killed. The lock file names the program.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn lend<T>(
        &self,
        start: impl FnOnce() -> Result<Running<T>, ChildError>,
    ) -> Result<Running<T>, ChildError> {
        // If the kernel refuses, only nvactl holds the lock, as at other times.
        let _ = rustix::io::fcntl_setfd(&self.file, FdFlags::empty());
        let started = start();
        let _ = rustix::io::fcntl_setfd(&self.file, FdFlags::CLOEXEC);
        let running = started?;
        if let Some(process) = running.process() {
            let name = running.program();
            self.write(&format!("{}{}", self.signature, line(CHILD, process, name)));
        }
        Ok(running)
    }

    /// Writes this process into the lock file, for others that wait. The lock is valid without that.
    fn sign(&mut self) {
        let Some(process) = Process::of(std::process::id()) else {
            return;
        };
        let words = std::env::args_os().skip(1);
        let words = words.map(|word| format!(" {}", word.to_string_lossy()));
        self.signature = line(
            NVACTL,
            process,
            &format!("nvactl{}", words.collect::<String>()),
        );
        self.write(&self.signature);
    }

    /// Replaces the text of the lock file. The file is never empty meanwhile: the rest of the old text is cut
    /// last.
    fn write(&self, text: &str) {
        let _ = self
            .file
            .write_all_at(text.as_bytes(), 0)
            .and_then(|()| self.file.set_len(text.len() as u64));
    }
}

#[derive(Debug, Error)]
pub enum LockError {
    #[error("cannot lock `{}`", .path.display())]
    Failed { path: PathBuf, source: io::Error },
    #[error("{holder}, and was not done within {}; nothing has changed", counted(usize::try_from(*.seconds).unwrap_or(usize::MAX), "second"))]
    Held { holder: LockHolder, seconds: u64 },
}

impl LockError {
    /// Returns the fix, if there is one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            LockError::Held {
                holder: LockHolder::Orphan(program),
                ..
            } => Some(format!(
                "to kill it: sudo kill -KILL -- -{}",
                program.process.id
            )),
            LockError::Held { seconds, .. } => Some(format!(
                "wait for it, or retry with --lock-timeout {}",
                seconds.saturating_mul(2).max(60)
            )),
            LockError::Failed { .. } => None,
        }
    }
}

/// The living process that holds the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockHolder {
    Nvactl(NamedProcess),
    /// A program that loads rules and whose nvactl has ended.
    Orphan(NamedProcess),
    /// The lock file names no living process.
    Unknown,
}

/// A process and its command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedProcess {
    pub process: Process,
    pub words: String,
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockHolder::Nvactl(NamedProcess { process, words }) => write!(
                f,
                "another nvactl (process {}, {words}) is changing the rules",
                process.id
            ),
            LockHolder::Orphan(NamedProcess { process, words }) => write!(
                f,
                "`{words}` (process {}) is still loading rules for an nvactl that was killed",
                process.id
            ),
            LockHolder::Unknown => f.write_str("another nvactl is changing the rules"),
        }
    }
}

/// The first words of the lines of the lock file.
const NVACTL: &str = "process";
const CHILD: &str = "child";

fn line(begin: &str, process: Process, words: &str) -> String {
    let Process { id, started } = process;
    // A file name in the command line may hold a line end.
    let words = words.replace(char::is_control, "\u{fffd}");
    format!("{begin} {id}, started {started}, {words}\n")
}

/// Reads the process of the first line that starts with `begin`.
fn named(text: &str, begin: &str) -> Option<NamedProcess> {
    text.split_inclusive('\n').find_map(|line| {
        let line = line.strip_prefix(begin)?.strip_prefix(' ')?;
        let (id, line) = line.split_once(", started ")?;
        let (started, words) = line.strip_suffix('\n')?.split_once(", ")?;
        let process = Process {
            id: id.parse().ok()?,
            started: started.parse().ok()?,
        };
        let words = words.to_owned();
        Some(NamedProcess { process, words })
    })
}

/// Returns the process in the text of the lock file that is alive.
fn holder(text: &str, is_alive: impl Fn(Process) -> bool) -> LockHolder {
    let alive = |begin| named(text, begin).filter(|named| is_alive(named.process));
    match (alive(NVACTL), alive(CHILD)) {
        (Some(nvactl), _) => LockHolder::Nvactl(nvactl),
        (None, Some(child)) => LockHolder::Orphan(child),
        (None, None) => LockHolder::Unknown,
    }
}

/// Takes nvactl's lock if its file exists and nobody holds it. Creates no file and does not wait.
#[must_use]
pub fn take_if_free(path: &Path) -> Option<Lock> {
    let file = open(OpenOptions::new().read(true).write(true), path).ok()?;
    file.try_lock().ok()?;
    Some(signed(file))
}

/// Takes nvactl's lock. Waits up to `seconds` if another process holds it.
///
/// # Errors
/// If it is held longer, or its file cannot be created or is not a regular file with one name.
pub fn take(path: &Path, seconds: u64) -> Result<Lock, LockError> {
    wait(path, seconds, |_, _| {})
}

/// How long a stopped nvactl may delay the undo of a change.
const STOPPED: Duration = Duration::from_secs(1);
/// How long a program without its nvactl may delay the undo. The rules that it loads will be undone.
const ORPHANED: Duration = Duration::from_secs(10);

/// Takes nvactl's lock to undo a change, as [`take`] does. Ends a stopped nvactl that holds it after a second,
/// and a program whose nvactl has ended after ten seconds, since either might hold it for ever.
///
/// # Errors
/// As [`take`].
pub fn take_to_undo(path: &Path, seconds: u64) -> Result<Lock, LockError> {
    wait(path, seconds, |holder, waited| match holder {
        LockHolder::Nvactl(nvactl) if waited >= STOPPED => nvactl.process.end_if_stopped(),
        LockHolder::Orphan(program) if waited >= ORPHANED => program.process.end(),
        _ => {}
    })
}

/// The intervals of attempts to take the lock, and of checks of its holder.
const TICK: Duration = Duration::from_millis(20);
const LOOK: Duration = Duration::from_secs(1);

/// Waits for the lock. Every second calls `look` with the holder and the time waited so far.
fn wait(
    path: &Path,
    seconds: u64,
    look: impl Fn(&LockHolder, Duration),
) -> Result<Lock, LockError> {
    let failed = |source| LockError::Failed {
        path: path.to_owned(),
        source,
    };
    let mut all = OpenOptions::new();
    all.create(true).truncate(false).read(true).write(true);
    let file = open(all.mode(0o600), path)
        // A change must be undone even if the folder has become read-only.
        .or_else(|error| open(OpenOptions::new().read(true), path).map_err(|_| error))
        .map_err(failed)?;
    let holder = || {
        let mut bytes = Vec::new();
        let mut reader = &file;
        // Bytes that were read before an error are still valid.
        let _ = reader
            .rewind()
            .and_then(|()| reader.take(LONGEST).read_to_end(&mut bytes));
        holder(&String::from_utf8_lossy(&bytes), Process::is_alive)
    };
    let begin = Instant::now();
    let limit = Duration::from_secs(seconds);
    let mut looked = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(signed(file)),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) => {}
        }
        let waited = begin.elapsed();
        if waited >= limit {
            let holder = holder();
            return Err(LockError::Held { holder, seconds });
        }
        if waited >= looked + LOOK {
            looked = waited;
            look(&holder(), waited);
        }
        thread::sleep(TICK);
    }
}

/// The most bytes of the lock file that are read. nvactl writes no longer text.
const LONGEST: u64 = 1 << 20;

/// Opens the lock file. It must be a regular file with one name: through a link, nvactl would write to another
/// file.
fn open(how: &mut OpenOptions, path: &Path) -> io::Result<File> {
    // Without NONBLOCK, opening a fifo would wait for its other end.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = how.custom_flags(flags.bits().cast_signed()).open(path)?;
    let is = file.metadata()?;
    if is.is_file() && is.nlink() <= 1 {
        Ok(file)
    } else {
        Err(io::Error::other("it is not a regular file with one name"))
    }
}

fn signed(file: File) -> Lock {
    let mut lock = Lock {
        file,
        signature: String::new(),
    };
    lock.sign();
    lock
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn named(id: u32, words: &str) -> NamedProcess {
        let process = Process {
            id,
            started: u64::from(id) * 10,
        };
        let words = words.to_owned();
        NamedProcess { process, words }
    }

    fn written(nvactl: &NamedProcess, child: &NamedProcess) -> String {
        line(NVACTL, nvactl.process, &nvactl.words) + &line(CHILD, child.process, &child.words)
    }

    #[test]
    fn the_living_process_holds_the_lock() {
        let (nvactl, child) = (named(7, "nvactl apply"), named(9, "iptables-restore"));
        let text = written(&nvactl, &child);
        for (alive, holds) in [
            (&[7, 9][..], LockHolder::Nvactl(nvactl.clone())),
            (&[7], LockHolder::Nvactl(nvactl)),
            (&[9], LockHolder::Orphan(child)),
            (&[], LockHolder::Unknown),
        ] {
            assert_eq!(holder(&text, |process| alive.contains(&process.id)), holds);
        }
    }

    #[test]
    fn an_unreadable_lock_file_names_no_process() {
        for text in [
            "",
            "process 7, nvactl remove\n",
            "process 7, started 70, nvactl rem",
            "process -7, started 70, nvactl\n",
            "\u{fffd}",
        ] {
            assert_eq!(holder(text, |_| true), LockHolder::Unknown, "{text:?}");
        }
    }

    /// A file name may hold a line end.
    #[test]
    fn a_command_line_is_written_as_one_line() {
        let evil = "nvactl apply a\nchild 1, started 10, init\u{1b}[2J";
        let text = line(NVACTL, named(7, "").process, evil);
        assert_eq!(text.lines().count(), 1);
        assert_eq!(super::named(&text, CHILD), None);
    }

    #[test]
    fn one_second_is_singular() {
        let holder = LockHolder::Nvactl(named(7, "nvactl remove"));
        let error = LockError::Held { holder, seconds: 1 };
        assert!(error.to_string().contains("within 1 second;"), "{error}");
    }

    #[test]
    fn each_holder_is_reported_with_the_fix() {
        let reported = |holder| {
            let error = LockError::Held { holder, seconds: 3 };
            (error.to_string(), error.hint())
        };
        let nvactl = LockHolder::Nvactl(named(7, "nvactl remove"));
        let words = "another nvactl (process 7, nvactl remove) is changing the rules, and was not done \
                     within 3 seconds; nothing has changed";
        let hint = "wait for it, or retry with --lock-timeout 60".to_owned();
        assert_eq!(reported(nvactl), (words.to_owned(), Some(hint)));
        let orphan = LockHolder::Orphan(named(9, "iptables-restore"));
        let words = "`iptables-restore` (process 9) is still loading rules for an nvactl that was \
                     killed, and was not done within 3 seconds; nothing has changed";
        let hint = "to kill it: sudo kill -KILL -- -9".to_owned();
        assert_eq!(reported(orphan), (words.to_owned(), Some(hint)));
    }

    /// Another user may have replaced the lock file by a link or a fifo: nvactl neither writes to it nor waits.
    #[test]
    fn only_a_regular_file_with_one_name_is_locked() {
        let folder = tempfile::tempdir().expect("it is made");
        let precious = folder.path().join("precious");
        fs::write(&precious, "precious").expect("it is written");
        let lock = folder.path().join("lock");
        let fifo = || {
            let made = std::process::Command::new("mkfifo").arg(&lock).status();
            assert!(made.expect("it starts").success());
        };
        let symbolic = || symlink(&precious, &lock).expect("it is made");
        let hard = || fs::hard_link(&precious, &lock).expect("it is made");
        for plant in [&fifo as &dyn Fn(), &symbolic, &hard] {
            plant();
            let error = take(&lock, 0).expect_err("it is not the lock's file");
            assert!(matches!(error, LockError::Failed { .. }), "{error}");
            assert!(take_if_free(&lock).is_none());
            assert_eq!(
                fs::read_to_string(&precious).expect("it is there"),
                "precious"
            );
            fs::remove_file(&lock).expect("it is there");
        }
    }

    #[test]
    fn the_lock_file_names_its_holder() {
        let folder = tempfile::tempdir().expect("it is made");
        let path = folder.path().join("lock");
        // The old text is longer than the new one.
        fs::write(&path, "x".repeat(10_000)).expect("it is written");
        let lock = take(&path, 0).expect("nobody has it");
        let error = take(&path, 0).expect_err("it is held");
        let LockError::Held { holder, .. } = error else {
            panic!("{error}");
        };
        let LockHolder::Nvactl(own) = holder else {
            panic!("{holder:?}");
        };
        assert_eq!(Some(own.process), Process::of(std::process::id()));
        drop(lock);
        assert!(take_if_free(&path).is_some());
    }
}

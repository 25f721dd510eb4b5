//! One nvactl at a time: two that read, change and read back at once would each undo the other.
//!
//! A program that loads rules holds the lock, too. The lock's file names nvactl's process and that
//! program's, so that whoever waits learns which of them lives.

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

/// Held until it is dropped, or nvactl's process and all those that it was lent to have ended in whatever
/// way.
#[derive(Debug)]
pub struct Lock {
    file: File,
    /// What its file says of nvactl's own process.
    signature: String,
}

impl Lock {
    /// Starts a program that holds the lock, too, until its own end: if nvactl is killed, nobody else
    /// changes the rules before. The lock's file names it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn lend<T>(
        &self,
        start: impl FnOnce() -> Result<Running<T>, ChildError>,
    ) -> Result<Running<T>, ChildError> {
        // Should the kernel refuse, the lock is nvactl's alone, as it is the rest of the time.
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

    /// Says who holds the lock, for whoever waits in vain; it holds without that.
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

    /// Replaces what the file says. It is never empty meanwhile: what is left of the text before is cut
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
    #[error("{holder}, and was not done within {seconds} seconds")]
    Held { holder: Holder, seconds: u64 },
}

impl LockError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            LockError::Held {
                holder: Holder::Orphan(program),
                ..
            } => Some(format!("sudo kill -KILL -- -{}", program.process.id)),
            _ => None,
        }
    }
}

/// Who holds the lock: the one that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    Nvactl(Named),
    /// A program that loads rules and that has outlived the nvactl which started it.
    Orphan(Named),
    /// None of those that the lock's file names.
    Unknown,
}

/// A process and what it was started as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub process: Process,
    pub words: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Nvactl(Named { process, words }) => write!(
                f,
                "another nvactl (process {}, {words}) is changing the rules",
                process.id
            ),
            Holder::Orphan(Named { process, words }) => write!(
                f,
                "`{words}` (process {}) is still loading rules for an nvactl that was killed",
                process.id
            ),
            Holder::Unknown => f.write_str("another nvactl is changing the rules"),
        }
    }
}

/// How the lines of the lock's file begin.
const NVACTL: &str = "process";
const CHILD: &str = "child";

fn line(begin: &str, process: Process, words: &str) -> String {
    let Process { id, started } = process;
    // One line, whatever a file is called.
    let words = words.replace(char::is_control, "\u{fffd}");
    format!("{begin} {id}, started {started}, {words}\n")
}

/// Reads the process of a line that begins so.
fn named(text: &str, begin: &str) -> Option<Named> {
    text.split_inclusive('\n').find_map(|line| {
        let line = line.strip_prefix(begin)?.strip_prefix(' ')?;
        let (id, line) = line.split_once(", started ")?;
        let (started, words) = line.strip_suffix('\n')?.split_once(", ")?;
        let process = Process {
            id: id.parse().ok()?,
            started: started.parse().ok()?,
        };
        let words = words.to_owned();
        Some(Named { process, words })
    })
}

/// Who of those that the lock's file names lives.
fn holder(text: &str, is_alive: impl Fn(Process) -> bool) -> Holder {
    let alive = |begin| named(text, begin).filter(|named| is_alive(named.process));
    match (alive(NVACTL), alive(CHILD)) {
        (Some(nvactl), _) => Holder::Nvactl(nvactl),
        (None, Some(child)) => Holder::Orphan(child),
        (None, None) => Holder::Unknown,
    }
}

/// Takes nvactl's own lock if it is there for the taking: makes nothing, and waits for nobody.
#[must_use]
pub fn take_if_free(path: &Path) -> Option<Lock> {
    let file = open(OpenOptions::new().read(true).write(true), path).ok()?;
    file.try_lock().ok()?;
    Some(signed(file))
}

/// Takes nvactl's own lock, waiting so many seconds for whoever holds it.
///
/// # Errors
/// When it is held longer, or its file cannot be made, or is a link or anything else than a file of its own.
pub fn take(path: &Path, seconds: u64) -> Result<Lock, LockError> {
    wait(path, seconds, |_, _| {})
}

/// How long a stopped nvactl may hold up whoever undoes a change.
const STOPPED: Duration = Duration::from_secs(1);
/// How long a program that has outlived its nvactl may: what it loads will be undone.
const ORPHANED: Duration = Duration::from_secs(10);

/// Takes nvactl's own lock to undo a change, as [`take`] does. A stopped nvactl that holds it is ended
/// after a second, and a program that has outlived its nvactl after ten: either might hold it for ever.
///
/// # Errors
/// As [`take`].
pub fn take_to_undo(path: &Path, seconds: u64) -> Result<Lock, LockError> {
    wait(path, seconds, |holder, waited| match holder {
        Holder::Nvactl(nvactl) if waited >= STOPPED => nvactl.process.end_if_stopped(),
        Holder::Orphan(program) if waited >= ORPHANED => program.process.end(),
        _ => {}
    })
}

/// How often the lock is tried, and how often its holder is looked at.
const TICK: Duration = Duration::from_millis(20);
const LOOK: Duration = Duration::from_secs(1);

/// Waits for the lock; `look` is told every second who holds it and how long that was waited for.
fn wait(path: &Path, seconds: u64, look: impl Fn(&Holder, Duration)) -> Result<Lock, LockError> {
    let failed = |source| LockError::Failed {
        path: path.to_owned(),
        source,
    };
    let mut all = OpenOptions::new();
    all.create(true).truncate(false).read(true).write(true);
    let file = open(all.mode(0o600), path)
        // A folder that has become read-only must not keep a change from being undone.
        .or_else(|error| open(OpenOptions::new().read(true), path).map_err(|_| error))
        .map_err(failed)?;
    let holder = || {
        let mut bytes = Vec::new();
        let mut reader = &file;
        // What was read before an error still is what it says.
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

/// How many bytes of the lock's file are read: nothing longer is nvactl's.
const LONGEST: u64 = 1 << 20;

/// Opens the lock's file, which is a regular file with one name: a link would have nvactl write into another.
fn open(how: &mut OpenOptions, path: &Path) -> io::Result<File> {
    // Nobody waits for the other end of a fifo.
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

    fn named(id: u32, words: &str) -> Named {
        let process = Process {
            id,
            started: u64::from(id) * 10,
        };
        let words = words.to_owned();
        Named { process, words }
    }

    fn written(nvactl: &Named, child: &Named) -> String {
        line(NVACTL, nvactl.process, &nvactl.words) + &line(CHILD, child.process, &child.words)
    }

    #[test]
    fn the_one_that_lives_holds_the_lock() {
        let (nvactl, child) = (named(7, "nvactl apply"), named(9, "iptables-restore"));
        let text = written(&nvactl, &child);
        for (alive, holds) in [
            (&[7, 9][..], Holder::Nvactl(nvactl.clone())),
            (&[7], Holder::Nvactl(nvactl)),
            (&[9], Holder::Orphan(child)),
            (&[], Holder::Unknown),
        ] {
            assert_eq!(holder(&text, |process| alive.contains(&process.id)), holds);
        }
    }

    #[test]
    fn what_cannot_be_read_names_nobody() {
        for text in [
            "",
            "process 7, nvactl remove\n",
            "process 7, started 70, nvactl rem",
            "process -7, started 70, nvactl\n",
            "\u{fffd}",
        ] {
            assert_eq!(holder(text, |_| true), Holder::Unknown, "{text:?}");
        }
    }

    /// A file's name with a line break adds no line.
    #[test]
    fn a_command_is_one_line() {
        let evil = "nvactl apply a\nchild 1, started 10, init\u{1b}[2J";
        let text = line(NVACTL, named(7, "").process, evil);
        assert_eq!(text.lines().count(), 1);
        assert_eq!(super::named(&text, CHILD), None);
    }

    #[test]
    fn each_holder_is_told_with_what_can_be_done() {
        let told = |holder| {
            let error = LockError::Held { holder, seconds: 3 };
            (error.to_string(), error.hint())
        };
        let nvactl = Holder::Nvactl(named(7, "nvactl remove"));
        let words = "another nvactl (process 7, nvactl remove) is changing the rules, and was not done \
                     within 3 seconds";
        assert_eq!(told(nvactl), (words.to_owned(), None));
        let orphan = Holder::Orphan(named(9, "iptables-restore"));
        let words = "`iptables-restore` (process 9) is still loading rules for an nvactl that was \
                     killed, and was not done within 3 seconds";
        let hint = "sudo kill -KILL -- -9".to_owned();
        assert_eq!(told(orphan), (words.to_owned(), Some(hint)));
    }

    /// What another may have put in the lock's place is neither written to nor waited for.
    #[test]
    fn only_a_file_of_its_own_is_locked() {
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
    fn a_lock_names_who_has_it() {
        let folder = tempfile::tempdir().expect("it is made");
        let path = folder.path().join("lock");
        // Longer than what comes.
        fs::write(&path, "x".repeat(10_000)).expect("it is written");
        let lock = take(&path, 0).expect("nobody has it");
        let error = take(&path, 0).expect_err("it is held");
        let LockError::Held { holder, .. } = error else {
            panic!("{error}");
        };
        let Holder::Nvactl(own) = holder else {
            panic!("{holder:?}");
        };
        assert_eq!(Some(own.process), Process::of(std::process::id()));
        drop(lock);
        assert!(take_if_free(&path).is_some());
    }
}

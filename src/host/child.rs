//! Running another program: an argument vector, a fixed environment, a time limit, no shell.

use std::io::{self, PipeReader, Read, Write};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;
use tracing::debug;

/// What a program that has ended left behind.
#[derive(Debug)]
pub struct Output<T = Vec<u8>> {
    pub status: ExitStatus,
    /// What it wrote, or what was made of that.
    pub stdout: T,
    pub stderr: String,
}

#[derive(Debug, Error)]
pub enum ChildError {
    #[error("`{0}` is not installed, or not on PATH")]
    NotFound(String),
    #[error("`{program}` could not be started")]
    Start {
        program: String,
        source: std::io::Error,
    },
    #[error("`{program}` did not end within {} seconds and was killed", .limit.as_secs())]
    TimedOut { program: String, limit: Duration },
    #[error("`{program}` could not be waited for")]
    Wait {
        program: String,
        source: std::io::Error,
    },
}

/// Runs `program`, found on PATH, to its end.
///
/// It gets PATH with the system folders behind it, since a login without them is common and
/// iptables lives there; `LC_ALL=C`, because its words are read; and `XTABLES_LOCKFILE` where it is
/// set. It runs in a process group of its own: a Ctrl-C at the terminal is nvactl's to handle.
///
/// # Errors
/// When it cannot be found or started, or does not end within `limit`; an exit code other than 0
/// is the caller's to judge.
pub fn run(
    program: &str,
    args: &[&str],
    stdin: &[u8],
    limit: Duration,
) -> Result<Output, ChildError> {
    start(program, args, stdin, limit, read_to_end)?.finish()
}

/// A program that was started. Dropped before its end it is killed.
#[derive(Debug)]
pub struct Running<T> {
    words: Vec<String>,
    child: Child,
    started: Instant,
    limit: Duration,
    stdout: mpsc::Receiver<T>,
    stderr: mpsc::Receiver<Vec<u8>>,
}

/// Starts a program as [`run`] does, with something made of what it writes while it is still writing:
/// where there is a second core that takes no time of its own.
///
/// It is fed and read on threads of their own, so that no full pipe can stop it. They are not joined: a
/// grandchild may hold a pipe open for ever.
///
/// # Errors
/// When it cannot be found or started.
pub fn start<T: Send + 'static>(
    program: &str,
    args: &[&str],
    stdin: &[u8],
    limit: Duration,
    make: impl FnOnce(PipeReader) -> T + Send + 'static,
) -> Result<Running<T>, ChildError> {
    let started = Instant::now();
    let not_started = |source| ChildError::Start {
        program: program.to_owned(),
        source,
    };
    let (stdout, to_stdout) = io::pipe().map_err(not_started)?;
    let (stderr, to_stderr) = io::pipe().map_err(not_started)?;
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin");
    command
        .args(args)
        .env_clear()
        .env("PATH", path.trim_start_matches(':'))
        .env("LC_ALL", "C")
        .envs(std::env::var_os("XTABLES_LOCKFILE").map(|file| ("XTABLES_LOCKFILE", file)))
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(to_stdout)
        .stderr(to_stderr);
    let mut child = command.spawn().map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => ChildError::NotFound(program.to_owned()),
        _ => not_started(source),
    })?;
    // It holds the pipes' other ends, without which they would never end.
    drop(command);
    if let Some(mut pipe) = child.stdin.take() {
        let stdin = stdin.to_vec();
        // A child that does not read to the end says so by its exit code.
        thread::spawn(move || pipe.write_all(&stdin));
    }
    Ok(Running {
        words: [&[program], args]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect(),
        child,
        started,
        limit,
        stdout: aside(move || make(stdout)),
        stderr: aside(move || read_to_end(stderr)),
    })
}

impl<T> Running<T> {
    /// Waits for the end.
    ///
    /// # Errors
    /// When it does not end within its limit, which runs from its start; an exit code other than 0 is
    /// the caller's to judge.
    pub fn finish(mut self) -> Result<Output<T>, ChildError> {
        let result = self.wait();
        debug!(
            program = self.program(),
            args = ?&self.words[1..],
            status = result
                .as_ref()
                .ok()
                .map(|output| tracing::field::display(output.status)),
            milliseconds = %format_args!("{:.1}", self.started.elapsed().as_secs_f64() * 1000.0),
            "ran"
        );
        result
    }

    fn wait(&mut self) -> Result<Output<T>, ChildError> {
        let stdout = received(&self.stdout, self.remaining()).ok_or_else(|| self.timed_out())?;
        let stderr = received(&self.stderr, self.remaining()).ok_or_else(|| self.timed_out())?;
        loop {
            let status = self.child.try_wait().map_err(|source| ChildError::Wait {
                program: self.program().to_owned(),
                source,
            })?;
            if let Some(status) = status {
                return Ok(Output {
                    status,
                    stdout,
                    stderr: String::from_utf8_lossy(&stderr).trim().to_owned(),
                });
            }
            if self.remaining().is_zero() {
                return Err(self.timed_out());
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn remaining(&self) -> Duration {
        self.limit.saturating_sub(self.started.elapsed())
    }

    fn timed_out(&self) -> ChildError {
        ChildError::TimedOut {
            program: self.program().to_owned(),
            limit: self.limit,
        }
    }

    fn program(&self) -> &str {
        &self.words[0]
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        // What has been waited for is nobody's any more.
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            kill_group(&self.child);
            let _ = self.child.wait();
        }
    }
}

/// Does something on a thread of its own, which is waited for no longer than one likes.
fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        // Nobody listens where the time is over.
        let _ = send.send(work());
    });
    receive
}

/// What was done aside, unless it takes longer than that.
fn received<T>(done: &mpsc::Receiver<T>, limit: Duration) -> Option<T> {
    match done.recv_timeout(limit) {
        Ok(done) => Some(done),
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => panic!("what was done aside has panicked"),
    }
}

fn read_to_end(mut pipe: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What was read before an error still is what the child said.
    let _ = pipe.read_to_end(&mut bytes);
    bytes
}

fn kill_group(child: &Child) {
    if let Some(group) = rustix::process::Pid::from_raw(child.id().cast_signed()) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

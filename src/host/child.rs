//! Running another program: an argument vector, a fixed environment, a time limit, no shell.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
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
    run_reading(program, args, stdin, limit, read_to_end)
}

/// The same, with something made of what the program writes while it is still writing: where there is
/// a second core that takes no time of its own.
///
/// # Errors
/// As [`run`].
pub fn run_reading<T: Send + 'static>(
    program: &str,
    args: &[&str],
    stdin: &[u8],
    limit: Duration,
    make: impl FnOnce(ChildStdout) -> T + Send + 'static,
) -> Result<Output<T>, ChildError> {
    let started = Instant::now();
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
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => ChildError::NotFound(program.to_owned()),
        _ => ChildError::Start {
            program: program.to_owned(),
            source,
        },
    })?;
    let result = converse(&mut child, program, stdin, started + limit, limit, make);
    if result.is_err() {
        kill_group(&child);
        let _ = child.wait();
    }
    debug!(
        program,
        ?args,
        status = result
            .as_ref()
            .ok()
            .map(|output| tracing::field::display(output.status)),
        milliseconds = %format_args!("{:.1}", started.elapsed().as_secs_f64() * 1000.0),
        "ran"
    );
    result
}

/// Feeds and reads the child on threads of their own, so that no full pipe can stop it, until it
/// ends. The threads are not joined on a time-out: a grandchild may hold a pipe open for ever.
fn converse<T: Send + 'static>(
    child: &mut Child,
    program: &str,
    stdin: &[u8],
    deadline: Instant,
    limit: Duration,
    make: impl FnOnce(ChildStdout) -> T + Send + 'static,
) -> Result<Output<T>, ChildError> {
    let timed_out = || ChildError::TimedOut {
        program: program.to_owned(),
        limit,
    };
    if let Some(mut pipe) = child.stdin.take() {
        let stdin = stdin.to_vec();
        // A child that does not read to the end says so by its exit code.
        thread::spawn(move || pipe.write_all(&stdin));
    }
    let stdout = child.stdout.take().expect("it was piped");
    let stderr = child.stderr.take().expect("it was piped");
    let (stdout, stderr) = (
        aside(move || make(stdout)),
        aside(move || read_to_end(stderr)),
    );
    let remaining = || deadline.saturating_duration_since(Instant::now());
    let stdout = received(&stdout, remaining()).ok_or_else(timed_out)?;
    let stderr = received(&stderr, remaining()).ok_or_else(timed_out)?;
    loop {
        let status = child.try_wait().map_err(|source| ChildError::Wait {
            program: program.to_owned(),
            source,
        })?;
        if let Some(status) = status {
            return Ok(Output {
                status,
                stdout,
                stderr: String::from_utf8_lossy(&stderr).trim().to_owned(),
            });
        }
        if remaining().is_zero() {
            return Err(timed_out());
        }
        thread::sleep(Duration::from_millis(1));
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

//! Runs other programs: an argument vector, a fixed environment, a time limit, no shell.
//!
//! A program does not depend on nvactl's threads, nor on nvactl being alive: its whole input is ready before
//! it starts, and one loop reads both outputs. Only [`start`] uses a thread, if it gets one.

use std::fmt;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, SendError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::fs::{Access, access};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use thiserror::Error;
use tracing::debug;

use super::pipes::{self, PipeOutput, Until};
use super::process::Process;

/// The result of a program that has ended.
#[derive(Debug)]
pub struct Output<T = Vec<u8>> {
    pub status: ExitStatus,
    /// The program's output, or the value that was made from it.
    pub stdout: T,
    pub stderr: String,
}

#[derive(Debug, Error)]
pub enum ChildError {
    #[error("`{0}` is not installed, or not on PATH")]
    NotFound(String),
    #[error("`{program}` could not be started")]
    Start { program: String, source: io::Error },
    #[error("`{program}` did not end within {} seconds and was killed", .limit.as_secs())]
    TimedOut { program: String, limit: Duration },
    #[error("nvactl could not wait for the end of `{program}`")]
    Wait { program: String, source: io::Error },
    #[error("nvactl failed to read the output of `{program}`")]
    Unread { program: String },
}

/// The number of attempts to start a program if the kernel has no process or no memory for it, and the pause
/// between them. Both become free when other processes end.
const STARTS: u32 = 10;
const START_PAUSE: Duration = Duration::from_millis(100);

/// The interval of checks whether a program has ended, if the kernel cannot notify nvactl: before Linux 5.3, or
/// without a free file descriptor.
const TICK: Duration = Duration::from_millis(2);

/// Runs `program`, found on PATH, to its end.
///
/// Its environment is PATH with the system folders appended, since iptables is in them and many logins lack
/// them; `LC_ALL=C`, because nvactl parses its messages; and `XTABLES_LOCKFILE`, if it is set. It runs in its
/// own process group, so that a Ctrl-C at the terminal reaches only nvactl.
///
/// If nvactl is killed, the program continues to its end: it has its whole input, and both outputs stay open. It is for
/// programs that change something; [`read`] is for the others.
///
/// # Errors
/// If it cannot be found or started, or does not end within `limit`. The caller judges an exit code other
/// than 0.
pub fn run(
    program: &str,
    args: &[&str],
    stdin: &[u8],
    limit: Duration,
) -> Result<Output, ChildError> {
    begin(program, args, stdin, limit)?.finish()
}

/// Runs `program` as [`run`] does. If nvactl is killed, the program ends with its next line of output.
///
/// # Errors
/// As [`run`].
pub fn read(
    program: &str,
    args: &[&str],
    stdin: &[u8],
    limit: Duration,
) -> Result<Output, ChildError> {
    begin_read(program, args, stdin, limit)?.finish()
}

/// Starts a program as [`run`] does.
///
/// # Errors
/// If it cannot be found or started.
pub fn begin(
    program: &str,
    args: &[&str],
    stdin: &[u8],
    limit: Duration,
) -> Result<Running<Vec<u8>>, ChildError> {
    begin_with(pipes::kept_open, (program, args), stdin, limit)
}

/// Starts a program as [`read`] does.
///
/// # Errors
/// As [`begin`].
pub fn begin_read(
    program: &str,
    args: &[&str],
    stdin: &[u8],
    limit: Duration,
) -> Result<Running<Vec<u8>>, ChildError> {
    begin_with(pipes::plain, (program, args), stdin, limit)
}

/// Makes the pipe of an output.
type Pipe = fn() -> io::Result<(PipeReader, OwnedFd)>;

fn begin_with(
    pipe: Pipe,
    (program, args): (&str, &[&str]),
    stdin: &[u8],
    limit: Duration,
) -> Result<Running<Vec<u8>>, ChildError> {
    let (stdout, to_stdout) = pipe().map_err(not_started(program))?;
    let stdout = PipeOutput::new(stdout).map_err(not_started(program))?;
    Ok(Running {
        started: Started::new((program, args), stdin, limit, (to_stdout, pipe))?,
        stdout: Stdout::Here(stdout, Box::new(|bytes| bytes)),
    })
}

/// Starts a program as [`read`] does. A thread calls `make` on the output while the program still writes it, so
/// that this costs no extra time on a second core. If there is no thread, `make` is called at the end.
///
/// # Errors
/// If it cannot be found or started.
pub fn start<T: Send + 'static>(
    program: &str,
    args: &[&str],
    stdin: &[u8],
    limit: Duration,
    make: impl FnOnce(&mut dyn Read) -> T + Send + 'static,
) -> Result<Running<T>, ChildError> {
    let (stdout, to_stdout) = pipes::plain().map_err(not_started(program))?;
    let started = Started::new((program, args), stdin, limit, (to_stdout, pipes::plain))?;
    let stdout = aside(stdout, started.deadline(), Box::new(make));
    Ok(Running {
        stdout: stdout.map_err(not_started(program))?,
        started,
    })
}

/// A program that was started. It is killed if this value is dropped before its end.
#[derive(Debug)]
pub struct Running<T> {
    started: Started,
    stdout: Stdout<T>,
}

impl<T> Running<T> {
    /// Returns the program's process, if /proc has it.
    #[must_use]
    pub fn process(&self) -> Option<Process> {
        Process::of(self.started.child.id())
    }

    #[must_use]
    pub fn program(&self) -> &str {
        self.started.program()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// If it does not end within its limit, counted from its start. The caller judges an exit code other than
    /// 0.
    pub fn finish(self) -> Result<Output<T>, ChildError> {
        let Running { started, stdout } = self;
        started.finish(stdout)
    }
}

/// The reader of a program's output.
enum Stdout<T> {
    /// A thread reads from the start. It returns `None` if the time limit came before the end of the output.
    Aside(JoinHandle<Option<T>>),
    /// The thread that waits for the program's end reads, and then calls the function on the bytes.
    Here(PipeOutput, Box<dyn FnOnce(Vec<u8>) -> T + Send>),
}

impl<T> fmt::Debug for Stdout<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stdout::Aside(thread) => f.debug_tuple("Aside").field(thread).finish(),
            Stdout::Here(gathered, _) => f.debug_tuple("Here").field(gathered).finish(),
        }
    }
}

type Make<T> = Box<dyn FnOnce(&mut dyn Read) -> T + Send>;

/// Reads an output on its own thread, which ends at the deadline at the latest. If there is no thread, the
/// output is read while nvactl waits for the program.
fn aside<T: Send + 'static>(
    pipe: PipeReader,
    deadline: Instant,
    make: Make<T>,
) -> io::Result<Stdout<T>> {
    // The pipe and `make` are sent to the thread once it runs: a failed spawn would drop them.
    let (send, receive) = mpsc::channel::<(PipeReader, Make<T>)>();
    let work = move || {
        let (pipe, make) = receive.recv().ok()?;
        let mut reader = Until {
            pipe,
            deadline,
            over: false,
        };
        let result = make(&mut reader);
        (!reader.over).then_some(result)
    };
    let thread = thread::Builder::new().spawn(work);
    let (pipe, make) = match thread {
        Ok(thread) => match send.send((pipe, make)) {
            Ok(()) => return Ok(Stdout::Aside(thread)),
            Err(SendError(unsent)) => unsent,
        },
        Err(error) => {
            debug!(%error, "no thread to read on");
            (pipe, make)
        }
    };
    let make = move |bytes: Vec<u8>| make(&mut bytes.as_slice());
    Ok(Stdout::Here(PipeOutput::new(pipe)?, Box::new(make)))
}

/// The process of a program, without its output.
#[derive(Debug)]
struct Started {
    words: Vec<String>,
    child: Child,
    /// Becomes readable when the program has ended (`pidfd_open(2)`).
    ended: Option<OwnedFd>,
    begin: Instant,
    limit: Duration,
    stderr: PipeOutput,
}

impl Started {
    fn new(
        (program, args): (&str, &[&str]),
        stdin: &[u8],
        limit: Duration,
        (to_stdout, pipe): (OwnedFd, Pipe),
    ) -> Result<Self, ChildError> {
        let begin = Instant::now();
        let stdin = pipes::whole(stdin).map_err(not_started(program))?;
        let (stderr, to_stderr) = pipe().map_err(not_started(program))?;
        let stderr = PipeOutput::new(stderr).map_err(not_started(program))?;
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin");
        let path = path.trim_start_matches(':');
        let file = find(program, path).ok_or_else(|| ChildError::NotFound(program.to_owned()))?;
        let mut command = Command::new(file);
        command
            .args(args)
            .env_clear()
            .env("PATH", path)
            .env("LC_ALL", "C")
            .envs(std::env::var_os("XTABLES_LOCKFILE").map(|file| ("XTABLES_LOCKFILE", file)))
            .process_group(0)
            .stdin(stdin)
            .stdout(to_stdout)
            .stderr(to_stderr);
        let child = spawn(&mut command).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ChildError::NotFound(program.to_owned()),
            _ => not_started(program)(source),
        })?;
        let words = [&[program], args].concat();
        Ok(Self {
            words: words.into_iter().map(str::to_owned).collect(),
            ended: pid(&child).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()),
            child,
            begin,
            limit,
            stderr,
        })
    }

    fn finish<T>(mut self, stdout: Stdout<T>) -> Result<Output<T>, ChildError> {
        let result = self.output(stdout);
        debug!(
            program = self.program(),
            args = ?&self.words[1..],
            status = result
                .as_ref()
                .ok()
                .map(|output| tracing::field::display(output.status)),
            milliseconds = %format_args!("{:.1}", self.begin.elapsed().as_secs_f64() * 1000.0),
            "ran"
        );
        result
    }

    fn output<T>(&mut self, stdout: Stdout<T>) -> Result<Output<T>, ChildError> {
        let (status, stdout) = match stdout {
            Stdout::Here(mut gathered, make) => {
                let status = self.wait(&mut gathered)?;
                (status, make(gathered.bytes))
            }
            Stdout::Aside(thread) => {
                let status = self.wait(&mut PipeOutput::default())?;
                let made = thread.join().map_err(|_| ChildError::Unread {
                    program: self.program().to_owned(),
                })?;
                (status, made.ok_or_else(|| self.timed_out())?)
            }
        };
        Ok(Output {
            status,
            stdout,
            stderr: String::from_utf8_lossy(&self.stderr.bytes)
                .trim()
                .to_owned(),
        })
    }

    /// Reads both outputs until the program ends. Does not wait for a grandchild that holds them open.
    fn wait(&mut self, stdout: &mut PipeOutput) -> Result<ExitStatus, ChildError> {
        loop {
            let status = self.child.try_wait().map_err(|source| ChildError::Wait {
                program: self.program().to_owned(),
                source,
            })?;
            // The outputs are read after the status, so that they are complete if the program has ended.
            stdout.read();
            self.stderr.read();
            if let Some(status) = status {
                return Ok(status);
            }
            if Instant::now() >= self.deadline() {
                return Err(self.timed_out());
            }
            let ended = self.ended.as_ref().map(|fd| fd.as_fd());
            let until = match ended {
                Some(_) => self.deadline(),
                None => self.deadline().min(Instant::now() + TICK),
            };
            let fds: Vec<_> = [ended, stdout.fd(), self.stderr.fd()]
                .into_iter()
                .flatten()
                .collect();
            if pipes::wait(&fds, until).is_err() {
                thread::sleep(TICK);
            }
        }
    }

    fn deadline(&self) -> Instant {
        self.begin + self.limit
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

impl Drop for Started {
    fn drop(&mut self) {
        // Once the program was waited for, its number may belong to another process.
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            if let Some(group) = pid(&self.child) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = self.child.wait();
        }
    }
}

/// Returns the first file on PATH that may be run. A PATH may name the folder that a user happens to be in: root
/// runs nothing from there.
///
/// A search by the library would fork nvactl, and so copy the page tables of all its memory for each program:
/// std starts by `posix_spawn(3)` only what needs no search on a PATH that is not nvactl's own.
fn find(program: &str, path: &str) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .find(|file| file.is_file() && access(file, Access::EXEC_OK).is_ok())
}

fn spawn(command: &mut Command) -> io::Result<Child> {
    for _ in 1..STARTS {
        match command.spawn() {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory
                ) =>
            {
                thread::sleep(START_PAUSE);
            }
            started => return started,
        }
    }
    command.spawn()
}

fn pid(child: &Child) -> Option<Pid> {
    Pid::from_raw(child.id().cast_signed())
}

fn not_started(program: &str) -> impl Fn(io::Error) -> ChildError + Copy {
    move |source| ChildError::Start {
        program: program.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn shell(script: &str, stdin: &[u8], limit: Duration) -> Result<Output, ChildError> {
        run("sh", &["-c", script], stdin, limit)
    }

    /// The text is longer than any pipe holds.
    #[test]
    fn long_input_and_output_pass_at_the_same_time() {
        let text: Vec<u8> = (0..5_u32 << 20).map(|n| n.to_le_bytes()[1]).collect();
        let output = shell("cat; echo words >&2; exit 3", &text, LIMIT).expect("it ends");
        assert!(output.stdout == text);
        assert_eq!(
            (output.status.code(), output.stderr.as_str()),
            (Some(3), "words")
        );
        let output = shell("cat >&2", &text, LIMIT).expect("it ends");
        assert_eq!(output.stderr, String::from_utf8_lossy(&text).trim());
    }

    #[test]
    fn a_program_that_does_not_end_is_killed_at_its_limit() {
        let begin = Instant::now();
        for script in ["sleep 60", "sleep 60 > /dev/null 2>&1", "yes"] {
            let error = shell(script, b"", Duration::from_millis(100)).expect_err("it hangs");
            assert!(matches!(error, ChildError::TimedOut { .. }), "{error}");
        }
        assert!(begin.elapsed() < LIMIT);
    }

    /// The grandchild keeps the outputs of its parent open.
    #[test]
    fn a_grandchild_in_the_background_delays_nothing() {
        let begin = Instant::now();
        let output = shell("sleep 60 & echo $!", b"", LIMIT).expect("it ends");
        assert!(begin.elapsed() < LIMIT);
        let left = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        run("kill", &[&left], b"", LIMIT).expect("it can be ended");
    }

    #[test]
    fn nothing_runs_from_a_relative_folder_of_path() {
        assert_eq!(find("sh", ".:bin::/bin"), Some("/bin/sh".into()));
        assert_eq!(find("Cargo.toml", ".:"), None);
        assert_eq!(find("passwd", "/etc"), None, "it is no program");
    }

    #[test]
    fn an_output_is_read_with_and_without_a_thread() {
        let count = |reader: &mut dyn Read| {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).map(|_| bytes.len()).ok()
        };
        let script = "head -c 300000 /dev/zero";
        let running = start("sh", &["-c", script], b"", LIMIT, count).expect("it starts");
        assert!(matches!(running.stdout, Stdout::Aside(_)));
        assert_eq!(running.finish().expect("it ends").stdout, Some(300_000));

        let (pipe, to_stdout) = pipes::plain().expect("it is made");
        let program = ("sh", &["-c", script][..]);
        let started = Started::new(program, b"", LIMIT, (to_stdout, pipes::plain));
        let gathered = PipeOutput::new(pipe).expect("it is made");
        let make = move |bytes: Vec<u8>| count(&mut bytes.as_slice());
        let stdout = Stdout::Here(gathered, Box::new(make));
        let output = started.and_then(|started| started.finish(stdout));
        assert_eq!(output.expect("it ends").stdout, Some(300_000));
    }

    #[test]
    fn a_panic_in_a_reader_is_an_error() {
        let make = |_: &mut dyn Read| -> () { panic!("a defect of the reader") };
        let running = start("true", &[], b"", LIMIT, make).expect("it starts");
        let error = running.finish().expect_err("nothing was made");
        assert!(matches!(error, ChildError::Unread { .. }), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run("nvactl-no-such-program", &[], b"", LIMIT).expect_err("it is not there");
        assert!(matches!(error, ChildError::NotFound(_)), "{error}");
    }
}

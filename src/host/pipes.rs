//! The pipes to another program: its whole input before it starts, and outputs that stay open when nvactl
//! is killed.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Read, Seek as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, OFlags, SealFlags};

/// What a pipe holds by itself (pipe(7)).
const PIPE_HOLDS: usize = 64 << 10;

/// Returns a standard input that holds all of `text`, and ends behind it: a program that was started with it
/// needs nobody to go on.
///
/// A pipe is tried first: policies of `SELinux` that run iptables as a type of its own let it use its
/// parent's pipes but not its parent's files, and memory counts as a file. The kernel makes a pipe that
/// large up to `/proc/sys/fs/pipe-max-size`, and beyond for a root with `CAP_SYS_RESOURCE`.
///
/// # Errors
/// When the kernel has no file descriptor or no memory for it.
pub fn whole(text: &[u8]) -> io::Result<OwnedFd> {
    match in_pipe(text) {
        Ok(pipe) => Ok(pipe.into()),
        Err(_) => Ok(in_memory(text)?.into()),
    }
}

fn in_pipe(text: &[u8]) -> io::Result<PipeReader> {
    let (reader, mut writer) = io::pipe()?;
    if text.len() > PIPE_HOLDS {
        rustix::pipe::fcntl_setpipe_size(&writer, text.len())?;
    }
    // What does not fit is an error, not a wait.
    rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK)?;
    writer.write_all(text)?;
    Ok(reader)
}

fn in_memory(text: &[u8]) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Linux warns without the flag since 6.3, and knows nothing of it before.
    let made = rustix::fs::memfd_create(c"nvactl", flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| rustix::fs::memfd_create(c"nvactl", flags))?;
    let mut file = File::from(made);
    file.write_all(text)?;
    file.rewind()?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}

/// Returns a pipe whose writing end also counts as a reader: a program that writes to it is not ended by
/// SIGPIPE when nvactl is killed. (A file would do as well, but see [`whole`].)
///
/// The reading end sees no end of it while the program runs.
///
/// # Errors
/// When the kernel has no file descriptor or no memory for it.
pub fn kept_open() -> io::Result<(PipeReader, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    let again = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let both = OpenOptions::new().read(true).write(true).open(again);
    // Without /proc the plain end serves.
    Ok((reader, both.map_or_else(|_| writer.into(), OwnedFd::from)))
}

/// What has come through a pipe so far.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Until it ends.
    pipe: Option<PipeReader>,
    pub bytes: Vec<u8>,
}

/// More than a pipe holds: what was in it when its writer ended is read at once.
const AT_ONCE: u64 = 1 << 20;

impl Gathered {
    /// # Errors
    /// When the kernel does not let it be read without waiting.
    pub fn new(pipe: PipeReader) -> io::Result<Self> {
        rustix::fs::fcntl_setfl(&pipe, OFlags::NONBLOCK)?;
        Ok(Self {
            pipe: Some(pipe),
            bytes: Vec::new(),
        })
    }

    /// Reads what is there, and waits for nothing.
    pub fn read(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        match pipe.take(AT_ONCE).read_to_end(&mut self.bytes) {
            Ok(count) if count as u64 == AT_ONCE => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // What was read before an error still is what the program said.
            _ => self.pipe = None,
        }
    }

    /// What can be waited for, until it ends.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(|pipe| pipe.as_fd())
    }
}

/// Reads a pipe to its end or to a point in time.
#[derive(Debug)]
pub struct Until {
    pub pipe: PipeReader,
    pub deadline: Instant,
    /// Whether the time was over first.
    pub over: bool,
}

impl Read for Until {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !wait(&[self.pipe.as_fd()], self.deadline)? {
            self.over = true;
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.pipe.read(buffer)
    }
}

/// Waits until one of `fds` can be read or has ended; tells whether that was before the deadline.
///
/// # Errors
/// When the kernel has no memory for it; a signal is none.
pub fn wait(fds: &[BorrowedFd<'_>], deadline: Instant) -> io::Result<bool> {
    let mut fds: Vec<PollFd<'_>> = fds
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
        .collect();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Of what fits into a pipe, of what it is made larger for, and of what only memory holds.
    #[test]
    fn an_input_is_whole_whatever_its_length() {
        for length in [0, 1, PIPE_HOLDS, PIPE_HOLDS + 1, 1 << 20, 3 << 20] {
            let text: Vec<u8> = (0..length).map(|n| n.to_le_bytes()[0]).collect();
            for input in [whole(&text), in_memory(&text).map(OwnedFd::from)] {
                let mut read = Vec::new();
                let mut input = File::from(input.expect("it is made"));
                input.read_to_end(&mut read).expect("it can be read");
                assert!(read == text, "{length} bytes");
            }
        }
    }

    #[test]
    fn a_writer_outlives_the_one_who_reads() {
        let (reader, writer) = kept_open().expect("it is made");
        drop(reader);
        let mut writer = File::from(writer);
        writer.write_all(b"said").expect("nobody has to read it");
    }

    #[test]
    fn nothing_is_waited_for_beyond_the_deadline() {
        let (pipe, _writer) = io::pipe().expect("it is made");
        let deadline = Instant::now() + Duration::from_millis(20);
        let mut reader = Until {
            pipe,
            deadline,
            over: false,
        };
        let mut read = Vec::new();
        let error = reader.read_to_end(&mut read).expect_err("it never ends");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(reader.over && Instant::now() >= deadline);
    }
}

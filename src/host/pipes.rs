//! Makes the pipes to another program: an input that is complete before the program starts, and outputs that
//! stay open if nvactl is killed.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Read, Seek as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, OFlags, SealFlags};

/// The default capacity of a pipe (pipe(7)).
const PIPE_HOLDS: usize = 64 << 10;

/// Returns a standard input that holds all of `text` and its end. So the program that reads it does not depend
/// on nvactl.
///
/// A pipe is tried first, then a file in memory: `SELinux` policies that run iptables as a type of its own
/// allow it its parent's pipes but not its parent's files, and memory counts as a file. The kernel enlarges a
/// pipe up to `/proc/sys/fs/pipe-max-size`, and further for a root with `CAP_SYS_RESOURCE`.
///
/// # Errors
/// If the kernel has no file descriptor or no memory for it.
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
    // If the text does not fit, the write must fail instead of waiting.
    rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK)?;
    writer.write_all(text)?;
    Ok(reader)
}

fn in_memory(text: &[u8]) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Linux 6.3 and later warn if the flag is missing. Earlier versions refuse it.
    let made = rustix::fs::memfd_create(c"nvactl", flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| rustix::fs::memfd_create(c"nvactl", flags))?;
    let mut file = File::from(made);
    file.write_all(text)?;
    file.rewind()?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}

/// Returns a pipe whose writing end also counts as a reader: if nvactl is killed, SIGPIPE does not end a
/// program that writes to it. (A file would also work, but see [`whole`].) A program that writes more than the pipe
/// holds would then wait for ever, so this is for programs that print little.
///
/// The reading end does not see the end of the output while the program runs.
///
/// # Errors
/// If the kernel has no file descriptor or no memory for it.
pub fn kept_open() -> io::Result<(PipeReader, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    let again = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let both = OpenOptions::new().read(true).write(true).open(again);
    // If /proc is missing, the plain writing end is used.
    Ok((reader, both.map_or_else(|_| writer.into(), OwnedFd::from)))
}

/// Returns a plain pipe. A program that writes to it ends by SIGPIPE if nvactl is killed.
///
/// # Errors
/// If the kernel has no file descriptor for it.
pub fn plain() -> io::Result<(PipeReader, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    Ok((reader, writer.into()))
}

/// The bytes that have come through a pipe so far.
#[derive(Debug, Default)]
pub struct PipeOutput {
    /// `None` after its end.
    pipe: Option<PipeReader>,
    pub bytes: Vec<u8>,
}

/// The most bytes of one read. A pipe holds less, so one read gets all that its writer has left.
const AT_ONCE: u64 = 1 << 20;

impl PipeOutput {
    /// # Errors
    /// If the kernel cannot make reads of it return without waiting.
    pub fn new(pipe: PipeReader) -> io::Result<Self> {
        rustix::fs::fcntl_setfl(&pipe, OFlags::NONBLOCK)?;
        Ok(Self {
            pipe: Some(pipe),
            bytes: Vec::new(),
        })
    }

    /// Reads the bytes that are available, without waiting.
    pub fn read(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        match pipe.take(AT_ONCE).read_to_end(&mut self.bytes) {
            Ok(count) if count as u64 == AT_ONCE => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Bytes that were read before an error are still valid output.
            _ => self.pipe = None,
        }
    }

    /// Returns the file descriptor to wait for, until the pipe ends.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(|pipe| pipe.as_fd())
    }
}

/// Reads a pipe until its end or until a deadline.
#[derive(Debug)]
pub struct Until {
    pub pipe: PipeReader,
    pub deadline: Instant,
    /// Whether the deadline came first.
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

/// Waits until one of `fds` can be read or has ended. Returns whether that was before the deadline.
///
/// # Errors
/// If the kernel has no memory for it. A signal is no error.
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

    /// The lengths are for a pipe, for an enlarged pipe, and for memory.
    #[test]
    fn an_input_of_any_length_is_complete() {
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
    fn a_writer_continues_after_the_reader_has_ended() {
        let (reader, writer) = kept_open().expect("it is made");
        drop(reader);
        let mut writer = File::from(writer);
        writer.write_all(b"said").expect("nobody has to read it");
    }

    #[test]
    fn a_read_ends_at_the_deadline() {
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

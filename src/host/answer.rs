//! Reads lines that are typed at a terminal, each with a time limit.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{QueueSelector, tcflush};
use rustix::time::Timespec;

/// The lines that are typed after [`TypedLines::listen`].
#[derive(Debug)]
pub struct TypedLines {
    typed: Vec<u8>,
    /// Whether the end of the input was read.
    ended: bool,
}

impl TypedLines {
    /// Starts to listen. Discards everything that was typed before.
    #[must_use]
    pub fn listen() -> Self {
        let _ = tcflush(io::stdin(), QueueSelector::IFlush);
        Self {
            typed: Vec::new(),
            ended: false,
        }
    }

    /// Returns the next line, if it is typed within `limit`. After the end of the input there is none.
    pub fn next_within(&mut self, limit: Duration) -> Option<String> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(end) = self.typed.iter().position(|byte| *byte == b'\n') {
                let rest = self.typed.split_off(end + 1);
                let line = std::mem::replace(&mut self.typed, rest);
                return Some(String::from_utf8_lossy(&line).into_owned());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            if self.ended {
                thread::sleep(left);
            } else if typed_within(left) {
                self.read();
            }
        }
    }

    fn read(&mut self) {
        let mut bytes = [0; 256];
        match rustix::io::read(io::stdin(), &mut bytes) {
            Ok(0) => {
                self.ended = true;
                if !self.typed.is_empty() {
                    self.typed.push(b'\n');
                }
            }
            Ok(read) => self.typed.extend(&bytes[..read]),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => self.ended = true,
        }
    }
}

fn typed_within(limit: Duration) -> bool {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
    let limit = Timespec::try_from(limit).ok();
    poll(&mut fds, limit.as_ref()).is_ok_and(|ready| ready > 0)
}

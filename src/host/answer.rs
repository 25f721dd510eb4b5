//! Lines typed at a terminal, each waited for no longer than a limit.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{QueueSelector, tcflush};
use rustix::time::Timespec;

/// The lines that are typed from now on.
#[derive(Debug)]
pub struct Answers {
    typed: Vec<u8>,
    /// Nothing comes behind the end of the input.
    ended: bool,
}

impl Answers {
    /// Begins to listen. What was typed before is no answer.
    #[must_use]
    pub fn listen() -> Self {
        let _ = tcflush(io::stdin(), QueueSelector::IFlush);
        Self {
            typed: Vec::new(),
            ended: false,
        }
    }

    /// Returns the next line, if it comes within so long. At the end of the input nobody answers.
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

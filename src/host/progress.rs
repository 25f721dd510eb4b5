//! A line on the terminal that says what takes so long; nothing elsewhere.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

/// Shown until the next step, or until it is dropped.
///
/// A thread of its own writes it: a terminal that takes nothing, by Ctrl-S or because the session
/// is dark, must not keep a change half-way.
#[derive(Debug)]
pub struct Progress {
    steps: Option<Sender<String>>,
    written: mpsc::Receiver<()>,
}

impl Progress {
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it asks the terminal")]
    pub fn new() -> Self {
        let (send, steps) = mpsc::channel::<String>();
        let (done, written) = mpsc::channel();
        let write = move || {
            for what in steps {
                // Back to the line's begin, and away with what is there (ECMA-48: EL). Whether
                // anybody sees it does not matter.
                let _ = write!(io::stderr(), "\r\u{1b}[K{what}");
            }
            let _ = done.send(());
        };
        // Without a thread nothing is shown.
        let on = io::stderr().is_terminal() && thread::Builder::new().spawn(write).is_ok();
        Self {
            steps: on.then_some(send),
            written,
        }
    }

    pub fn step(&self, what: &str) {
        if let Some(steps) = &self.steps {
            let _ = steps.send(what.to_owned());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.step("");
        if self.steps.take().is_some() {
            // What is said next should stand behind it, if the terminal takes anything.
            let _ = self.written.recv_timeout(Duration::from_millis(500));
        }
    }
}

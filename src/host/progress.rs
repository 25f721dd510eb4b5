//! Shows the progress of a long step as one line on the terminal. Shows nothing if stderr is not a terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

/// The progress line. It stays until the next step, or until this value is dropped.
///
/// A separate thread writes it: a terminal that accepts no output, after Ctrl-S or because the connection is
/// lost, must not stop a change half-way.
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
                // Returns to the beginning of the line and clears it (ECMA-48: EL). A failure does not
                // matter.
                let _ = write!(io::stderr(), "\r\u{1b}[K{what}");
            }
            let _ = done.send(());
        };
        // If there is no thread, nothing is shown.
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
            // The next message should come after the progress line, unless the terminal accepts no output.
            let _ = self.written.recv_timeout(Duration::from_millis(500));
        }
    }
}

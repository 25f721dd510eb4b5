//! A line on the terminal that says what takes so long; nothing elsewhere.

use std::io::{self, IsTerminal as _, Write as _};

/// Shown until the next step, or until it is dropped.
#[derive(Debug)]
pub struct Progress {
    on: bool,
}

impl Progress {
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it asks the terminal")]
    pub fn new() -> Self {
        Self {
            on: io::stderr().is_terminal(),
        }
    }

    pub fn step(&self, what: &str) {
        if self.on {
            // Back to the line's begin, and away with what is there (ECMA-48: EL). Whether anybody
            // sees it does not matter.
            let _ = write!(io::stderr(), "\r\u{1b}[K{what}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.step("");
    }
}

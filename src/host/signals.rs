//! Signals that would end nvactl in the middle of a change: held back until it is whole.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTOU};
use signal_hook::flag;

/// While one lives, SIGINT, SIGTERM, SIGHUP and SIGQUIT only leave a mark: a change to the rules ends in the
/// old state or in the new one, whatever happens to the terminal. Afterwards they end nvactl again.
#[derive(Debug)]
pub struct Held {
    marks: &'static Marks,
}

/// A handler cannot be taken back, so there is one for the whole process, and it asks these.
#[derive(Debug)]
struct Marks {
    came: Arc<AtomicBool>,
    /// Whether a signal may end the process.
    open: Arc<AtomicBool>,
}

static MARKS: OnceLock<Marks> = OnceLock::new();

impl Held {
    /// # Errors
    /// When the kernel refuses the handlers, which it does not.
    pub fn hold() -> io::Result<Self> {
        let marks = match MARKS.get() {
            Some(marks) => marks,
            None => {
                let (came, open) = (Arc::default(), Arc::default());
                for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
                    flag::register_conditional_default(signal, Arc::clone(&open))?;
                    flag::register(signal, Arc::clone(&came))?;
                }
                // A Ctrl-Z would stop it with the lock in its hand; these only wait.
                for signal in [SIGTSTP, SIGTTOU] {
                    flag::register_conditional_default(signal, Arc::clone(&open))?;
                }
                MARKS.get_or_init(|| Marks { came, open })
            }
        };
        marks.open.store(false, Ordering::Relaxed);
        Ok(Self { marks })
    }

    /// Whether one has come since.
    #[must_use]
    pub fn came(&self) -> bool {
        self.marks.came.load(Ordering::Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.marks.open.store(true, Ordering::Relaxed);
    }
}

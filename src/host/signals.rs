//! Holds back signals that would end nvactl in the middle of a change.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTOU};
use signal_hook::flag;

/// Holds signals back while it exists: SIGINT, SIGTERM, SIGHUP and SIGQUIT then only set a flag. So a change to
/// the rules ends in the old state or in the new one, whatever happens to the terminal. When it is dropped,
/// the signals end nvactl again.
#[derive(Debug)]
pub struct Held {
    flags: &'static Flags,
}

/// The flags that the signal handlers read and set. A handler cannot be removed, so each is registered once for
/// the whole process.
#[derive(Debug)]
struct Flags {
    came: Arc<AtomicBool>,
    /// Whether a signal may end the process.
    open: Arc<AtomicBool>,
    /// Whether a signal may stop the process until it is continued.
    stops: Arc<AtomicBool>,
}

static FLAGS: OnceLock<Flags> = OnceLock::new();

impl Held {
    /// # Errors
    /// If the kernel refuses the handlers, which does not happen.
    pub fn hold() -> io::Result<Self> {
        let held = Self::hold_ends()?;
        // Ctrl-Z would stop nvactl while it holds the lock, so it is ignored meanwhile.
        held.flags.stops.store(false, Ordering::Relaxed);
        Ok(held)
    }

    /// Holds only the signals that end a process; Ctrl-Z still stops it.
    ///
    /// # Errors
    /// If the kernel refuses the handlers, which does not happen.
    pub fn hold_ends() -> io::Result<Self> {
        let flags = match FLAGS.get() {
            Some(flags) => flags,
            None => {
                let (came, open) = (Arc::default(), Arc::default());
                let stops = Arc::new(AtomicBool::new(true));
                for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
                    flag::register_conditional_default(signal, Arc::clone(&open))?;
                    flag::register(signal, Arc::clone(&came))?;
                }
                for signal in [SIGTSTP, SIGTTOU] {
                    flag::register_conditional_default(signal, Arc::clone(&stops))?;
                }
                FLAGS.get_or_init(|| Flags { came, open, stops })
            }
        };
        flags.open.store(false, Ordering::Relaxed);
        Ok(Self { flags })
    }

    /// Returns whether such a signal has arrived in the life of this process.
    #[must_use]
    pub fn came(&self) -> bool {
        self.flags.came.load(Ordering::Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.flags.open.store(true, Ordering::Relaxed);
        self.flags.stops.store(true, Ordering::Relaxed);
    }
}

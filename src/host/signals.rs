//! Signals that would end nvactl in the middle of a change: held back until it is whole.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// While it lives, SIGINT, SIGTERM and SIGHUP only leave a mark: a change to the rules ends in the
/// old state or in the new one, whatever happens to the terminal. Afterwards they end nvactl again.
#[derive(Debug)]
pub struct Held {
    came: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

impl Held {
    /// # Errors
    /// When the kernel refuses the handlers, which it does not.
    pub fn hold() -> io::Result<Self> {
        let came = Arc::new(AtomicBool::new(false));
        let over = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register_conditional_default(signal, Arc::clone(&over))?;
            flag::register(signal, Arc::clone(&came))?;
        }
        Ok(Self { came, over })
    }

    /// Whether one has come since.
    #[must_use]
    pub fn came(&self) -> bool {
        self.came.load(Ordering::Relaxed)
    }
}

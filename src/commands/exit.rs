//! The exit codes.

/// The result of a command that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or in sync.
    Done,
    /// A difference, or a change that a dry run found.
    Differs,
    /// The host may have changed, or only a part was done.
    Uncertain,
}

impl Exit {
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Differs => 1,
            Exit::Uncertain => UNCERTAIN,
        }
    }
}

/// A usage error, an invalid spec, or a refused change: nothing has changed.
pub(super) const ERROR: u8 = 2;
/// The host may have changed.
pub(super) const UNCERTAIN: u8 = 3;

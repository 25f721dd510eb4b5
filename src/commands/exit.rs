//! The exit codes.

/// How a command ended when it did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or in sync.
    Done,
    /// Something differs, or would change.
    Differs,
    /// The rules are as they should be, but something else is not.
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

/// An error of the command line, a spec or a host that refused: nothing was changed.
pub(super) const ERROR: u8 = 2;
/// The host may not be as it was.
pub(super) const UNCERTAIN: u8 = 3;

//! The errors of all operations.

use std::fmt;

use thiserror::Error;

use super::refusal::Refusal;
use super::remark::Remarks;
use super::state::StateError;
use super::transaction::TransactionError;
use crate::health::test_result::TestResult;
use crate::host::boot_unit::UnitError;
use crate::host::conntrack::ConntrackError;
use crate::host::detached::DetachedError;
use crate::host::file::FileError;
use crate::host::iptables::IptablesError;
use crate::host::lock::LockError;
use crate::host::ssh_connection::NotNew;
use crate::host::survey::SurveyError;
use crate::host::sysctl::SysctlError;
use crate::net::words::with_causes;
use crate::netfilter::text::parse::ParseError;
use crate::twin::TwinError;

#[derive(Debug, Error)]
pub enum Error {
    #[error(transparent)]
    Refusal(#[from] Refusal),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Iptables(#[from] IptablesError),
    #[error(transparent)]
    Transaction(#[from] TransactionError),
    #[error(transparent)]
    Survey(#[from] SurveyError),
    #[error(transparent)]
    Conntrack(#[from] ConntrackError),
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    #[error(transparent)]
    Watchdog(#[from] DetachedError),
    #[error("{why}; not confirmed, {left_secs} s left")]
    NotNew { why: NotNew, left_secs: u64 },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Unit(#[from] UnitError),
    #[error(
        "the foreign rules cannot be adopted, because the routes of this machine cannot be read"
    )]
    Routes(#[source] TwinError),
    #[error("the rules in a record of the state folder are damaged")]
    Damaged(#[from] ParseError),
}

impl Error {
    /// Returns the fix: a command or an edit.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Refusal(error) => error.hint(),
            Error::State(error) => error.hint(),
            Error::Lock(error) => error.hint(),
            Error::Iptables(error) => error.hint(),
            Error::Transaction(error) => error.hint(),
            Error::Survey(error) => Some(error.hint()),
            Error::Conntrack(error) => error.hint(),
            Error::File(error) => error.hint(),
            Error::Sysctl(error) => error.hint(),
            Error::Unit(error) => error.hint(),
            Error::NotNew { why, .. } => Some(why.hint().to_owned()),
            _ => None,
        }
    }

    /// Whether the machine may not be as it was.
    #[must_use]
    pub fn is_uncertain(&self) -> bool {
        matches!(self, Error::Transaction(TransactionError::Uncertain { .. }))
    }
}

/// An operation that failed, and its remarks until then.
#[derive(Debug)]
pub struct Failed {
    pub error: Box<Error>,
    pub remarks: Remarks,
}

impl Failed {
    pub(super) fn new(error: Error, remarks: Remarks) -> Self {
        Self {
            error: Box::new(error),
            remarks,
        }
    }

    /// Returns the tests of the spec because of which a change was refused.
    #[must_use]
    pub fn tests(&self) -> &[TestResult] {
        match self.error.as_ref() {
            Error::Refusal(Refusal::TestsFail { tests }) => tests,
            _ => &[],
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// Joins an error and its causes.
#[must_use]
pub fn describe(error: &Error) -> String {
    with_causes(error)
}

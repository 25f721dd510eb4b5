//! The errors of a watch.

use std::io;

use thiserror::Error;

use crate::host::child::ChildError;
use crate::host::iptables::IptablesError;
use crate::twin::rules::FilterError;

#[derive(Debug, Error)]
pub enum CauseError {
    #[error("the kernel's packet trace cannot be read")]
    Socket(#[source] io::Error),
    #[error("nft refused the chains that switch the packet trace on: {0}")]
    Table(String),
    #[error(transparent)]
    Unlisted(#[from] FilterError),
    #[error("`{path}` cannot be read")]
    Unread { path: String, source: io::Error },
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error(transparent)]
    Iptables(#[from] IptablesError),
}

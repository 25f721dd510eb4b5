//! A packet filter as it was read, and as it was copied.

use super::edit::Facts;
use super::listing::Table;
use super::place::{LeftOut, Watched};
use crate::net::Family;
use crate::netfilter::backend::Backend;

/// The machine's packet filter as text, as its own programs list it.
#[derive(Debug, Clone)]
pub struct Filter {
    /// iptables-save's text of each backend and family that holds something.
    pub(super) texts: Vec<Text>,
    /// ipset's text.
    pub(super) sets: Vec<u8>,
    /// The tables of iptables-nft as nft lists them, to compare the twin's with.
    pub(super) own: Vec<Table>,
    /// The tables that are nft's own.
    pub(super) native: Vec<Table>,
    pub(super) has_nft: bool,
    pub(super) facts: Facts,
}

/// A filter that was loaded into a twin.
#[derive(Debug, Clone, Default)]
pub struct Copied {
    pub left_out: Vec<LeftOut>,
    pub watched: Vec<Watched>,
}

/// The text of one backend and family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    pub backend: Backend,
    pub family: Family,
    pub bytes: Vec<u8>,
}

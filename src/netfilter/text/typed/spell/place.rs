//! The place of a typed rule.

use crate::net::Family;
use crate::netfilter::names::{ChainName, TableName};

/// The place of a typed rule.
#[derive(Debug, Clone, Copy)]
pub struct TypedPlace<'c> {
    pub family: Family,
    pub table: TableName,
    pub chain: &'c ChainName,
}

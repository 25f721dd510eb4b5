//! The text of iptables-save and iptables-restore: [`line`] prints one line, `print` a whole ruleset,
//! and [`parse`] reads both back.

pub mod line;
pub mod parse;
mod print;

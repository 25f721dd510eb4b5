//! The text of iptables-save and iptables-restore: `rule` prints a rule, [`line`](mod@line) a line, and `print` a
//! whole ruleset. [`parse`] reads them back.

pub mod line;
pub mod parse;
mod print;
mod rule;

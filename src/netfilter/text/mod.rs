//! The text of iptables-save and iptables-restore: `matches` and `rule` print a rule, [`line`](mod@line) a line,
//! and `print` a whole ruleset. [`parse`] reads them back.

pub mod line;
mod matches;
pub mod parse;
mod print;
mod rule;

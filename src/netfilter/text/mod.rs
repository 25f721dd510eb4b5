//! The text of iptables-save and iptables-restore: `matches` and `rule` print a rule, [`line`](mod@line) a line,
//! and `print` a whole ruleset. [`parse`] reads them back, and [`typed`]
//! reads them as people type them.

pub mod line;
mod matches;
pub mod parse;
mod print;
mod rule;
pub mod typed;

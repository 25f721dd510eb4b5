//! The model of what the kernel filters by: names, matches, targets, rules, rulesets, counters, and
//! the connections that it tracks.
//!
//! One [`ruleset::Ruleset`] serves planned, parsed and live rules. [`text`] prints and reads it; no
//! other place knows the syntax of iptables.
//!
//! The room must not know which chains are planned, or what a forward is. It knows that names with
//! `NVACTL-` are nvactl's.
//!
//! Start here:
//! - a new match or target: its type in [`matches`](mod@matches) or [`target`], its printer in `text/rule.rs`, its
//!   reader in `text/parse/rule.rs`, and a line for the round trip in the tests of the reader;
//! - a program whose chains are to be recognized: [`programs`];
//! - a rule that iptables prints and does not take back: [`unread`].

pub mod backend;
pub mod conntrack;
pub mod counters;
pub mod limit;
pub mod matches;
pub mod names;
pub mod programs;
pub mod rule;
pub mod ruleset;
pub mod target;
pub mod text;
pub mod token;
pub mod unread;

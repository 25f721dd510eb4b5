//! The model of the kernel's packet filter: names, matches, targets, rules, rulesets, counters, and
//! conntrack entries.
//!
//! Planned, parsed and live rules are one type, [`ruleset::Ruleset`]. [`text`] prints and reads it. No
//! other room knows the syntax of iptables, except `twin::rules`, which copies rules of other programs word
//! for word.
//!
//! A rule is a list of [`matches::Match`] and a [`target::Target`]. A value that iptables takes with `!`
//! is a [`negatable::Negatable`], so its readers have to say whether they mean the value or its negation.
//! Options without a type are kept word for word ([`matches::Match::Other`], [`target::Target::Other`]).
//!
//! The room must not know which chains are planned, or what a forward is. It knows that names that begin
//! with `NVACTL-` are nvactl's.
//!
//! Start here:
//! - a new match or target: its type in [`matches`](mod@matches) or [`target`], its printer in `matches.rs`
//!   or `rule.rs` of `text`, its reader in the file of the same name in `text/parse`, and its lines in
//!   `tests/rules/mod.rs`, which the property tests and the lab use;
//! - a program whose chains are to be recognized: [`programs`];
//! - a rule that iptables prints and does not read back: [`unread`].

pub mod backend;
pub mod conntrack;
pub mod counters;
pub mod interface;
pub mod limit;
pub mod mark;
pub mod matches;
pub mod names;
pub mod negatable;
pub mod programs;
pub mod protocol;
pub mod rule;
pub mod ruleset;
pub mod shape;
pub mod target;
pub mod tcp_flags;
pub mod text;
pub mod token;
pub mod tracking;
pub mod unread;

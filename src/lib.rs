//! nvactl compiles one YAML file (or a folder of them), which says what is forwarded where, into an
//! ordered iptables rule plan, and prints, loads, removes and keeps that plan.
//!
//! # Architecture
//!
//! ```text
//! YAML ──spec──▶ ForwardSet ──plan──▶ Ruleset (want) ─┐
//! host ──text──▶ parse ─────────────▶ Ruleset (have) ─┴─▶ diff ─▶ report, or load and read back
//! ```
//!
//! One [`ruleset::Ruleset`] serves planned, parsed and live rules. Modules in reading order:
//! [`net`], [`limit`] and [`digest`] have the words, [`token`], [`rule`] and [`ruleset`] the model, [`line`] and [`parse`] its
//! text, [`spec`] what the user wants, [`plan`] the order and its reasons, [`diff`] what must change,
//! [`per_family`] both families' changes as one, [`foreign`], [`duplicate`] and [`mark_bit`] what other hands have put there, [`unread`] what of it cannot be read, [`splice`] a rules file shared with them without nvactl's lines,
//! [`unplan`], [`compare`] and [`explain`] the way back from rules to forwards and words, [`reach`] the
//! interfaces, addresses and routes that a forward needs, [`flow`] and [`listeners`] the connections
//! that are alive, [`sender`] those that began before a forward's rules, [`deletion`] how such are
//! ended, [`few`] how many things are listed, [`counters`], [`status`],
//! [`doctor`] and [`probe`] how forwards fare, [`twin`] a copy of the machine in which the kernel says what becomes
//! of a packet, [`trial`] a change to be tried, [`printable`] text of others fit for a terminal, [`host`] the edge, [`ops`] what changes the machine, [`commands`] and [`cli`] the program.
//!
//! # What does not occur
//!
//! - Outside of [`host`] and [`twin`], nothing starts a program, opens a file or reads the environment.
//! - No shell is started, ever.
//! - The core does not depend on the machine, the time, or the order of a hash map: same spec, same
//!   bytes.
//! - iptables syntax is printed by `rule.rs` and `line.rs` and read by `parse/`, nowhere else.
//! - A rule that nvactl does not own is never written, moved or removed.

pub mod cli;
pub mod commands;
pub mod diff;
pub mod forwards;
pub mod health;
pub mod host;
pub mod net;
pub mod netfilter;
pub mod ops;
pub mod plan;
pub mod twin;
pub mod yaml;

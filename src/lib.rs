//! nvactl compiles one YAML file (or a folder of them), which says what is forwarded where, into an
//! ordered iptables rule plan, and prints, loads, removes and keeps that plan.
//!
//! # Rooms
//!
//! Each folder is a room. A room imports only rooms above it; `tests/architecture.rs` holds that.
//!
//! ```text
//! net         addresses, ports, interfaces, families
//! netfilter   names, rules, rulesets, counters, conntrack entries; text/ prints and reads them
//! host        the edge: programs, files, sockets, the kernel's settings
//! forwards    the checked model of a spec
//! kubernetes  objects of a cluster, as kubectl prints them
//! yaml        text ─▶ forwards; only commands import it, and cli for the codes
//! plan        forwards ─▶ rules, and back; neither host nor yaml
//! import      foreign rules ─▶ a draft of a spec; neither host nor yaml
//! diff        rules against rules: script, drift; neither host nor yaml
//! twin        a copy of the machine in which the kernel answers
//! proof       connections through copies with old rules and with new ones
//! health      status, doctor, probe, other programs' rules
//! ops         apply, rollback, remove, persist, confirm, records
//! cli         the command line as types
//! commands    arguments in; text, JSON, markdown, metrics out
//! ```
//!
//! ```text
//! YAML ──yaml──▶ ForwardSet ──plan──▶ Ruleset (want) ─┐
//! host ──text──▶ parse ─────────────▶ Ruleset (have) ─┴─▶ diff ─▶ report, or load and read back
//! ```
//!
//! Each room's own page says what it owns, what it must not know, and where to start.
//!
//! # What does not occur
//!
//! - Outside of [`host`] and [`twin`], nothing starts a program, opens a file or reads the environment.
//! - No shell is started, ever.
//! - The core does not depend on the machine, the time, or the order of a hash map: same spec, same
//!   bytes.
//! - The options of iptables are printed and read by [`netfilter::text`] and [`netfilter::limit`]. A value
//!   such as an interface prints itself, and reads back what it prints. There are two exceptions:
//!   `twin::rules` copies rules of other programs word for word, and `health::foreign` has commands for people.
//! - A rule that nvactl does not own is never written, moved or removed.

pub mod cli;
pub mod commands;
pub mod diff;
pub mod forwards;
pub mod health;
pub mod host;
pub mod import;
pub mod kubernetes;
pub mod net;
pub mod netfilter;
pub mod ops;
pub mod plan;
pub mod proof;
pub mod twin;
pub mod yaml;

/// Every reason why a command ends without its result. The last room collects the errors of all rooms.
pub use commands::Error;

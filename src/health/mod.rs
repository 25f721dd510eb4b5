//! Reports on forwards of this machine: whether their rules are loaded, whether packets come through, and the fix if
//! they do not.
//!
//! Most findings are functions of values: `commands` gathers the facts, and the checks judge them. `reach`, `sender`,
//! `suspects`, `rules_file` and `probe` ask the machine themselves, since their questions depend on the spec.
//!
//! The room must not know YAML, or change anything.
//!
//! Start here:
//! - another check of `doctor`: its fact in `doctor::facts`, its judgement in the file of its hop, its order in
//!   `doctor::Hop`;
//! - another column or metric of `status`: [`status`];
//! - rules of others that obstruct a forward: [`foreign`], [`duplicate`] and [`mark_bit`];
//! - an interface, address or route that the machine lacks: [`reach`];
//! - the words of a traced connection: [`trace_text`]; those of a test: [`test_result`].

pub mod connections;
pub mod counts;
pub mod doctor;
pub mod duplicate;
pub mod first_packets;
pub mod foreign;
pub mod lost_replies;
pub mod mark_bit;
pub mod next_boot;
pub mod outbound_sender;
pub mod probe;
pub mod reach;
pub mod rules_file;
pub mod sender;
pub mod snat_ports;
pub mod status;
pub mod suspects;
pub mod takers;
pub mod test_result;
pub mod trace_text;

//! Any text as iptables-save's: never a panic, and what is readable keeps every law.
#![no_main]

#[path = "../../tests/invariants/mod.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|text: &str| invariants::of_rules(text));

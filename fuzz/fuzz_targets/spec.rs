//! Any bytes as a spec: never a panic, and what is sound keeps every law.
#![no_main]

#[path = "../../tests/invariants/mod.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|text: &[u8]| invariants::of_spec(text));

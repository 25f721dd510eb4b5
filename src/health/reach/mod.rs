//! The interfaces, addresses and routes that a spec's forwards need and that the machine does not have. The rules
//! load without them, but no packet comes through.

mod facts;
mod faults;
mod words;

pub use facts::{ReachFacts, internet, look, outside, range_ends, sender};
pub use faults::{Fault, faults};
pub use words::UNCHECKED;

#[cfg(test)]
mod tests;

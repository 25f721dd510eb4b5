//! A twin of the machine: a throwaway copy in network namespaces, in which the kernel itself answers
//! what becomes of a packet.
//!
//! The copy has the machine's interfaces, addresses, routes, switches and rules. Behind each interface
//! stands a world, which has every address that the machine reaches there. A connection from one world
//! through the copy into another shows what the kernel does with it.

pub mod cause;
pub mod netns;

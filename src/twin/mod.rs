//! A twin of the machine: a throwaway copy in network namespaces, in which the kernel itself answers
//! what becomes of a packet.
//!
//! The copy has the machine's interfaces, addresses, routes, switches and rules. Behind each interface
//! stands a world, which has every address that the machine reaches there. A connection from one world
//! through the copy into another shows what the kernel does with it.

mod batch;
pub mod battery;
pub mod cause;
pub mod change;
pub mod clients;
pub mod cure;
pub mod judge;
pub mod machine;
pub mod netns;
mod routes;
pub mod rules;
pub mod sniff;
mod switches;
pub mod talk;
pub mod wiring;
pub mod world;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use thiserror::Error;

use crate::host::child::ChildError;
use crate::host::iptables::IptablesError;
use cause::CauseError;
use machine::{Machine, MachineError};
use rules::{Copied, Filter, FilterError, Place, Watched};
use talk::Talker;
use wiring::{Wired, WiringError, wire};
use world::World;

#[derive(Debug, Error)]
pub enum TwinError {
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error(transparent)]
    Wiring(#[from] WiringError),
    #[error("the rules cannot be copied")]
    Filter(#[from] FilterError),
    #[error("no connection can be opened in the copy")]
    Socket(#[source] io::Error),
    #[error("the packets in the copy cannot be watched")]
    Cause(#[from] CauseError),
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error(transparent)]
    Iptables(#[from] IptablesError),
}

/// A copy of a machine, with a world behind each of its interfaces. It lasts as long as the value.
#[derive(Debug)]
pub struct Twin {
    machine: Machine,
    wired: Wired,
    copied: Copied,
}

impl Twin {
    /// Makes the copy. The calling thread is in it then: call it within [`netns::aside`].
    ///
    /// # Errors
    /// When no namespace can be made, or the rules cannot be loaded at all.
    pub fn make(machine: Machine, filter: &Filter) -> Result<Self, TwinError> {
        let wired = wire(&machine)?;
        let copied = filter.load()?;
        Ok(Self {
            machine,
            wired,
            copied,
        })
    }

    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    #[must_use]
    pub fn worlds(&self) -> &[World] {
        &self.wired.worlds
    }

    /// Moves the calling thread into the copy of the machine.
    ///
    /// # Errors
    /// As setns(2).
    pub fn enter(&self) -> Result<(), TwinError> {
        self.wired.machine.enter().map_err(TwinError::Socket)
    }

    /// Returns what opens connections through the copy.
    ///
    /// # Errors
    /// When a socket cannot be opened.
    pub fn talker(&self) -> Result<Talker<'_>, TwinError> {
        Talker::new(&self.wired.machine, &self.wired.worlds).map_err(TwinError::Socket)
    }

    /// Lets the worlds answer for addresses on their links.
    ///
    /// # Errors
    /// When `ip` is missing.
    pub fn answer_for(&self, addresses: &BTreeSet<IpAddr>) -> Result<(), TwinError> {
        for world in self.worlds() {
            world.netns.enter().map_err(TwinError::Socket)?;
            world.answer_for(addresses)?;
        }
        self.enter()
    }

    /// Returns the numbers of the watched rules that have counted packets since the last call. The calling
    /// thread is in the copy of the machine.
    ///
    /// # Errors
    /// When a program cannot list them.
    pub fn counted(&mut self) -> Result<Vec<usize>, TwinError> {
        Ok(self.copied.counted()?)
    }

    #[must_use]
    pub fn watched(&self) -> &[Watched] {
        &self.copied.watched
    }

    /// Whether each rule of iptables has the place that it has on the machine.
    #[must_use]
    pub fn has_all_places(&self) -> bool {
        let mut left_out = self.copied.left_out.iter();
        self.copied.watched.is_empty()
            && !left_out.any(|one| matches!(one.place, Place::Iptables { .. }))
    }

    /// Returns in words each thing of the machine that the copy does not have.
    #[must_use]
    pub fn left_out(&self) -> Vec<String> {
        let rules = self.copied.left_out.iter();
        let rules = rules.map(|one| format!("{}: `{}`: {}", one.place, one.text, one.why));
        let rest = self.wired.left_out.iter();
        rules
            .chain(rest.map(|one| format!("`{}`: {}", one.command, one.why)))
            .collect()
    }
}

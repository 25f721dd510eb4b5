//! A twin of the machine: a throwaway copy in network namespaces, in which the kernel itself answers
//! what becomes of a packet.
//!
//! The copy has the machine's interfaces, addresses, routes, switches and rules. Behind each interface
//! stands a world, which has every address that the machine reaches there. A connection from one world
//! through the copy into another shows what the kernel does with it.
//!
//! The room must not know checks, reports or records: it returns verdicts and causes as values. It runs
//! programs and opens sockets itself, since they run inside the copy.
//!
//! Start here:
//! - another connection to try: [`battery`], and [`clients`] for another client;
//! - another thing of the machine to copy: [`machine`] to read it, [`wiring`] to make it;
//! - a rule that the copy does not take: [`rules`]; a reason that the kernel gives: [`cause`];
//! - another cure: [`cure`].

mod batch;
pub mod battery;
pub mod cause;
pub mod change;
pub mod clients;
pub mod cure;
pub mod doubt;
pub mod explain;
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

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::host::child::ChildError;
use crate::host::iptables::IptablesError;
use batch::MachineError;
use cause::CauseError;
use cure::Change;
use doubt::Doubt;
use machine::Machine;
use rules::{Copied, Filter, FilterError, Place, Reason, Watched};
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
    #[error("a copy that was made anew does not take the change that the first one took")]
    NotTaken,
    #[error("no connection can be opened in the copy")]
    Socket(#[source] io::Error),
    #[error("the packets in the copy cannot be watched")]
    Cause(#[from] CauseError),
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error(transparent)]
    Iptables(#[from] IptablesError),
}

impl TwinError {
    /// Returns the error with its causes in one line.
    #[must_use]
    pub fn words(&self) -> String {
        let mut words = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            words = format!("{words}: {error}");
            cause = error.source();
        }
        words
    }
}

/// A copy of a machine, with a world behind each of its interfaces. It lasts as long as the value.
#[derive(Debug)]
pub struct Twin {
    machine: Machine,
    filter: Filter,
    has_chance: OnceCell<bool>,
    wired: Wired,
    copied: Copied,
    /// The addresses that the worlds answer for.
    answered: BTreeSet<IpAddr>,
    /// How long it took to make it.
    took: Duration,
    /// Whether something was tried in it.
    is_changed: bool,
    /// What the copy has beside the machine, on purpose.
    basis: Vec<Basis>,
}

/// A difference between a machine and its copy that is meant.
#[derive(Debug, Clone)]
enum Basis {
    Switch { name: String, value: String },
    Change(Change),
}

impl Twin {
    /// Makes the copy. The calling thread is in it then: call it within [`netns::aside`].
    ///
    /// # Errors
    /// When no namespace can be made, or the rules cannot be loaded at all.
    pub fn make(machine: Machine, filter: &Filter) -> Result<Self, TwinError> {
        let begin = Instant::now();
        let wired = wire(&machine)?;
        let copied = filter.load()?;
        Ok(Self {
            machine,
            filter: filter.clone(),
            has_chance: OnceCell::new(),
            wired,
            copied,
            answered: BTreeSet::new(),
            took: begin.elapsed(),
            is_changed: false,
            basis: Vec::new(),
        })
    }

    /// Sets a switch of the copy, which is kept when the copy is made anew. The calling thread is in the copy of
    /// the machine.
    pub(crate) fn keep_switch(&mut self, name: &str, value: &str) {
        switches::set(name, value);
        self.basis.push(Basis::Switch {
            name: name.to_owned(),
            value: value.to_owned(),
        });
    }

    /// Loads a change, which is kept when the copy is made anew, and returns whether iptables-restore takes it.
    ///
    /// # Errors
    /// As [`Change::load`].
    pub fn keep_change(&mut self, change: &Change) -> Result<bool, TwinError> {
        let is_loaded = change.load(self)?;
        if is_loaded {
            self.basis.push(Basis::Change(change.clone()));
        }
        Ok(is_loaded)
    }

    /// Makes the copy anew, without anything that was tried in it. Rules have their handles again.
    ///
    /// # Errors
    /// As [`Twin::make`], and the old copy is kept; [`TwinError::NotTaken`] where the new one refuses a kept change.
    pub fn renew(&mut self) -> Result<(), TwinError> {
        let begin = Instant::now();
        let made = self.made_anew();
        let (wired, copied) = match made {
            Ok(made) => made,
            Err(error) => {
                self.enter()?;
                return Err(error);
            }
        };
        (self.wired, self.copied) = (wired, copied);
        self.is_changed = false;
        for one in &self.basis {
            match one {
                Basis::Switch { name, value } => switches::set(name, value),
                Basis::Change(change) => {
                    if !change.load(self)? {
                        return Err(TwinError::NotTaken);
                    }
                }
            }
        }
        self.took = begin.elapsed();
        let answered = std::mem::take(&mut self.answered);
        self.answer_for(&answered)
    }

    fn made_anew(&self) -> Result<(Wired, Copied), TwinError> {
        let wired = wire(&self.machine)?;
        Ok((wired, self.filter.load()?))
    }

    /// How long it took to make the copy.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Whether something was tried that has changed the copy.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// Remembers that something was tried in it.
    fn change(&mut self) {
        self.is_changed = true;
    }

    /// Whether rules of others' choose packets by chance or in turn.
    #[must_use]
    pub fn has_chance(&self) -> bool {
        *self.has_chance.get_or_init(|| self.filter.has_chance())
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

    /// Lets the worlds answer for addresses on their links, those left out for which nobody answers on the
    /// machine's.
    ///
    /// # Errors
    /// When `ip` is missing.
    pub fn answer_for(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), TwinError> {
        let mut alive = addresses.clone();
        alive.retain(|address| !self.machine.is_dead(*address));
        for world in self.worlds() {
            world.netns.enter().map_err(TwinError::Socket)?;
            world.answer_for(&alive)?;
        }
        self.answered.append(&mut alive);
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

    /// Returns the things that the copy does not have and that may decide about a packet.
    #[must_use]
    pub fn doubts(&self) -> Vec<Doubt> {
        let mut doubts = doubt::doubts(&self.machine, &self.wired.left_out);
        for one in &self.copied.left_out {
            if one.why == Reason::NotInstalled("nft") {
                doubts.push(doubt::without_nft());
            } else if self.copied.is_uncertain_without(one) {
                doubts.push(doubt::without(one));
            }
        }
        doubts
    }

    /// Returns in words each thing of the machine that the copy does not have.
    #[must_use]
    pub fn left_out(&self) -> Vec<String> {
        let rules = self.copied.left_out.iter();
        let rules = rules.map(ToString::to_string);
        let rest = self.wired.left_out.iter();
        let programs = doubt::doubts(&self.machine, &[]);
        rules
            .chain(rest.map(|one| format!("`{}`: {}", one.command, one.why)))
            .chain(programs.iter().map(ToString::to_string))
            .collect()
    }
}

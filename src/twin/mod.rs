//! A twin of the machine: a throwaway copy in network namespaces, in which the kernel itself shows how it treats a
//! packet.
//!
//! A twin has the machine's interfaces, addresses, routes, switches and rules. Behind each interface is a world,
//! which has every address that the machine reaches there. A connection from one world through the twin into
//! another shows what the kernel does with it.
//!
//! The room must not know checks, reports or records: it returns verdicts and causes as values. It runs programs
//! and opens sockets itself, since they run inside the twin.
//!
//! | to add | start with |
//! |---|---|
//! | a connection or a client | [`battery`], [`clients`] |
//! | a connection whose end is not known | [`connection`] |
//! | a thing of the machine to copy | [`machine`] reads it, [`wiring`] makes it |
//! | a machine without a live one | [`made_up`] |
//! | a kind of rule that a twin cannot load | [`rules`] |
//! | a reason that the kernel gives | [`cause`] |
//! | a verdict | [`verdict`], and [`judge`], which gives it |
//! | a cure | [`cure`] |
//! | a way in which a test of a spec fails | [`packet_tests`] |
//!
//! [`change`] tries an `apply`, [`explain`] looks for causes; both are for the rooms below.

mod batch;
pub mod battery;
mod bridge;
pub mod cause;
pub mod change;
mod choices;
pub mod clients;
pub mod connection;
pub mod connection_end;
pub mod cure;
pub mod doubt;
mod doubted;
pub mod explain;
pub mod judge;
mod known_path;
pub mod machine;
pub mod made_up;
mod mss;
pub mod netns;
pub mod packet_tests;
pub mod proxied;
mod repeat;
mod router_address;
mod routes;
pub mod rule_change;
pub mod rules;
pub mod search;
pub mod sniff;
mod switches;
pub mod talk;
pub mod traced;
pub mod verdict;
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
use crate::net::printable;
use batch::IpError;
use cause::{CauseError, Holder};
use doubt::Doubt;
use machine::Machine;
use rule_change::RuleChange;
use rules::{Copied, FilterError, LeftOut, PacketFilter, Reason, RulePlace, Watched};
use talk::Talker;
use wiring::{Wired, WiringError, wire};
use world::World;

#[derive(Debug, Error)]
pub enum TwinError {
    #[error(transparent)]
    Ip(#[from] IpError),
    #[error(transparent)]
    Wiring(#[from] WiringError),
    #[error("the rules cannot be copied")]
    Filter(#[from] FilterError),
    #[error("{}", not_loaded(.0))]
    NotLoaded(Vec<LeftOut>),
    #[error("a new copy of this machine refuses the change that the first copy accepted")]
    NotTaken,
    #[error("the copy of this machine refuses the rules of the spec")]
    ChangeRefused,
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
    /// Returns the fix, if it is outside of nvactl.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Wiring(error) => error.hint(),
            Self::Ip(error) => error.hint(),
            Self::Iptables(error) => error.hint(),
            Self::NotLoaded(_) => Some(
                "use a machine whose kernel has all that these rules need, or load the kernel module that is missing"
                    .to_owned(),
            ),
            Self::Filter(error) => {
                let package = match error.missing()? {
                    "nft" => "nftables",
                    "ipset" => "ipset",
                    _ => "iptables",
                };
                Some(format!("to install it: sudo apt-get install {package}"))
            }
            _ => None,
        }
    }

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

/// The most rules that one error names.
const MOST_NAMED: usize = 3;

/// Says which rules do not load.
fn not_loaded(left_out: &[LeftOut]) -> String {
    let mut words = "rules do not load in a copy, so nothing can be said about packets".to_owned();
    for one in left_out.iter().take(MOST_NAMED) {
        words = format!("{words}\n  {}", printable::line(one));
    }
    match left_out.len().saturating_sub(MOST_NAMED) {
        0 => words,
        more => format!("{words}\n  and {more} more"),
    }
}

/// A twin of a machine, with a world behind each of its interfaces. It exists as long as the value.
#[derive(Debug)]
pub struct Twin {
    machine: Machine,
    filter: PacketFilter,
    has_chance: OnceCell<bool>,
    wired: Wired,
    copied: Copied,
    /// The addresses for which the worlds answer.
    answered: BTreeSet<IpAddr>,
    /// How long it took to make the twin.
    took: Duration,
    /// Whether something was tried in the twin.
    is_changed: bool,
    /// The intended differences to the machine.
    basis: Vec<Basis>,
}

/// An intended difference between a machine and its twin.
#[derive(Debug, Clone)]
enum Basis {
    Switch { name: String, value: String },
    Change(RuleChange),
}

impl Twin {
    /// Makes the twin. The calling thread is in its machine namespace afterwards: call it within [`netns::aside`].
    ///
    /// # Errors
    /// If no namespace can be made in time, or the rules cannot be loaded at all.
    pub fn make(
        machine: Machine,
        filter: &PacketFilter,
        deadline: Option<Instant>,
    ) -> Result<Self, TwinError> {
        let begin = Instant::now();
        let wired = wire(&machine, deadline)?;
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

    /// Sets a switch that is set again whenever the twin is made again. The calling thread is in the twin's machine
    /// namespace.
    pub(crate) fn keep_switch(&mut self, name: &str, value: &str) {
        switches::set(name, value);
        self.basis.push(Basis::Switch {
            name: name.to_owned(),
            value: value.to_owned(),
        });
    }

    /// Loads a change and moves the calling thread into the twin's machine namespace. Returns whether
    /// iptables-restore accepts it.
    ///
    /// # Errors
    /// As [`RuleChange::load`].
    pub fn load(&self, change: &RuleChange) -> Result<bool, TwinError> {
        self.enter()?;
        let has_live_places = self.has_all_places() && !self.is_changed();
        Ok(change.load(has_live_places)?)
    }

    /// Loads a change that is loaded again whenever the twin is made again. Returns whether iptables-restore
    /// accepts it.
    ///
    /// # Errors
    /// As [`RuleChange::load`].
    pub fn keep_change(&mut self, change: &RuleChange) -> Result<bool, TwinError> {
        let is_loaded = self.load(change)?;
        if is_loaded {
            self.basis.push(Basis::Change(change.clone()));
        }
        Ok(is_loaded)
    }

    /// Makes the twin again, without the changes that were tried in it. Rules have the same handles again.
    ///
    /// # Errors
    /// As [`Twin::make`]; the old twin is kept then. [`TwinError::NotTaken`] if the new one refuses a kept change.
    pub fn renew(&mut self) -> Result<(), TwinError> {
        let begin = Instant::now();
        let made = self.made_again();
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
                    if !self.load(change)? {
                        return Err(TwinError::NotTaken);
                    }
                }
            }
        }
        self.took = begin.elapsed();
        let answered = std::mem::take(&mut self.answered);
        self.answer_for(&answered)
    }

    fn made_again(&self) -> Result<(Wired, Copied), TwinError> {
        let wired = wire(&self.machine, None)?;
        Ok((wired, self.filter.load()?))
    }

    /// Returns how long it took to make the twin.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Returns whether something was tried in the twin.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// Notes that something was tried in the twin.
    fn change(&mut self) {
        self.is_changed = true;
    }

    /// Returns whether rules of others choose packets by chance or in turn.
    #[must_use]
    pub fn has_chance(&self) -> bool {
        *self.has_chance.get_or_init(|| self.filter.has_chance())
    }

    /// Returns whether rules of others count packets in turn, and are not watched.
    #[must_use]
    pub fn takes_turns(&self) -> bool {
        self.filter.takes_turns()
    }

    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    #[must_use]
    pub fn worlds(&self) -> &[World] {
        &self.wired.worlds
    }

    /// Moves the calling thread into the twin's machine namespace.
    ///
    /// # Errors
    /// As setns(2).
    pub fn enter(&self) -> Result<(), TwinError> {
        self.wired.machine.enter().map_err(TwinError::Socket)
    }

    /// Returns a talker, which opens connections through the twin.
    ///
    /// # Errors
    /// If a socket cannot be opened.
    pub fn talker(&self) -> Result<Talker<'_>, TwinError> {
        Talker::new(&self.wired.machine, &self.wired.worlds).map_err(TwinError::Socket)
    }

    /// Lets the worlds answer for addresses on their links, except for neighbours that do not answer on the machine.
    ///
    /// # Errors
    /// If `ip` is missing.
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

    /// Returns the numbers of the watched rules that have counted packets since the last call. The calling thread is
    /// in the twin's machine namespace.
    ///
    /// # Errors
    /// If a program cannot list them.
    pub fn counted(&mut self) -> Result<Vec<usize>, TwinError> {
        Ok(self.copied.counted()?)
    }

    /// Returns the packets that each watched rule has counted. The calling thread is in the twin's machine namespace.
    ///
    /// # Errors
    /// As [`Twin::counted`].
    pub fn packets(&self) -> Result<Vec<u64>, TwinError> {
        Ok(self.copied.packets()?)
    }

    #[must_use]
    pub fn watched(&self) -> &[Watched] {
        &self.copied.watched
    }

    /// Returns whether each rule of iptables has the same place in its chain as on the machine.
    #[must_use]
    pub fn has_all_places(&self) -> bool {
        let mut left_out = self.copied.left_out.iter();
        self.copied.watched.is_empty()
            && !left_out.any(|one| matches!(one.place, RulePlace::Iptables { .. }))
    }

    /// Fails if the twin lacks a rule of its filter that may decide about a packet.
    ///
    /// # Errors
    /// [`TwinError::NotLoaded`].
    pub fn has_all_rules(&self) -> Result<(), TwinError> {
        let left_out = self.copied.left_out.iter();
        let refused = left_out.filter(|one| matches!(one.why, Reason::Refused(_)));
        let refused: Vec<LeftOut> = refused.cloned().collect();
        if refused.is_empty() {
            Ok(())
        } else {
            Err(TwinError::NotLoaded(refused))
        }
    }

    /// Returns whether the twin may have fewer rules in a chain than the machine: the places of rules there are not
    /// known then.
    #[must_use]
    pub fn lacks_rules_of(&self, holder: &Holder) -> bool {
        self.copied.lacks_rules_of(holder.in_nft())
    }

    /// Names the chains for translation of which the machine may ask each one first.
    #[must_use]
    pub fn rivals(&self) -> Vec<String> {
        self.filter.rivals()
    }

    /// Turns forwarding on for good, as a machine does before it forwards. The calling thread is in the twin's machine
    /// namespace afterwards.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub fn turn_forwarding_on(&mut self) -> Result<(), TwinError> {
        self.enter()?;
        for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            // To write 1 over 1 would turn forwarding on for interfaces for which it is off.
            if switches::one(name).is_some_and(|value| value.trim() == "0") {
                self.keep_switch(name, "1");
            }
        }
        Ok(())
    }

    /// Makes the twin again as [`Twin::renew`] does, and asks another one of its rivals first from now on.
    ///
    /// # Errors
    /// As [`Twin::renew`]; the old twin is kept then.
    pub fn exchange_rivals(&mut self) -> Result<(), TwinError> {
        self.filter.exchange_rivals();
        let renewed = self.renew();
        if renewed.is_err() {
            self.filter.exchange_rivals();
        }
        renewed
    }

    /// Returns the things that the twin lacks and that may decide about a packet.
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

    /// Describes each thing of the machine that the twin lacks.
    #[must_use]
    pub fn left_out(&self) -> Vec<String> {
        let rules = self.copied.left_out.iter();
        let rules = rules.map(ToString::to_string);
        let rest = self.wired.left_out.iter();
        let mut programs = doubt::doubts(&self.machine, &[]);
        programs.retain(Doubt::is_remarkable);
        rules
            .chain(rest.map(|one| format!("`{}`: {}", one.command, one.why)))
            .chain(programs.iter().map(ToString::to_string))
            .collect()
    }
}

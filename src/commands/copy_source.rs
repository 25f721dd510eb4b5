//! The machine that a copy is made of: this one, or one that is made up from a spec or from rules.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;

use super::error::Result;
use super::trace::TraceError;
use crate::forwards::ForwardSet;
use crate::net::{Family, Interface, printable};
use crate::netfilter::backend::Backend;
use crate::netfilter::text::parse;
use crate::plan::plan;
use crate::twin::machine::Machine;
use crate::twin::made_up::MadeUp;
use crate::twin::made_up::saved::family_of;
use crate::twin::rules::PacketFilter;
use crate::twin::{Twin, TwinError};

/// A machine that a copy is made of, with its rules.
pub(super) struct CopySource {
    machine: Machine,
    filter: PacketFilter,
    /// The interfaces with their addresses and networks, if the machine is made up.
    pub(super) words: Vec<String>,
    /// Private addresses that connections go to, and that nothing in the spec or the rules names.
    pub(super) strangers: Vec<IpAddr>,
    origin: RuleOrigin,
}

/// The origin of the rules, which decides whether a copy may lack some of them.
#[derive(Debug, Clone, Copy)]
enum RuleOrigin {
    /// A machine or a text of iptables-save. A rule that does not load is named, and the verdict is unknown.
    Foreign,
    /// A spec. Each rule must load.
    Spec,
}

/// The connections that are opened through a machine, as far as it is made up for them.
#[derive(Debug, Default)]
pub(super) struct Asked<'a> {
    /// Families whose packets there are, beside those of the spec.
    pub(super) families: BTreeSet<Family>,
    /// Addresses that the connections go to.
    pub(super) destinations: BTreeSet<IpAddr>,
    /// Interfaces that exist, beside those of the spec.
    pub(super) interfaces: &'a [Interface],
    /// Networks whose interfaces are known.
    pub(super) sides: &'a [(IpNet, Interface)],
}

impl CopySource {
    /// Reads this machine.
    ///
    /// # Errors
    /// If a program is missing or fails.
    pub(super) fn live() -> Result<Self, TwinError> {
        let mut machine = Machine::read()?;
        machine.ask_routers_again()?;
        Ok(Self {
            machine,
            filter: PacketFilter::read()?,
            words: Vec::new(),
            strangers: Vec::new(),
            origin: RuleOrigin::Foreign,
        })
    }

    /// Makes up a machine with the rules of a spec alone, which the programs of a backend load.
    pub(super) fn of_spec(set: &ForwardSet, asked: &Asked<'_>, backend: Backend) -> Result<Self> {
        let families = Family::ALL.into_iter();
        let families = families.filter(|one| set.has(*one) || asked.families.contains(one));
        let rendered = families.map(|family| (family, plan(set, family).to_string()));
        let rendered: Vec<(Family, String)> = rendered.collect();
        let rules = rendered.iter();
        let rules = rules.map(|(family, text)| (*family, text.as_bytes()));
        let filter = PacketFilter::of_texts(backend, rules)?;
        let made_up = MadeUp::with_interfaces(set, asked.interfaces, asked.sides);
        let strangers = asked.destinations.iter().copied();
        let strangers = strangers.filter(|to| is_private(*to) && !made_up.knows(*to));
        Ok(Self {
            strangers: strangers.collect(),
            ..Self::of(made_up, filter, RuleOrigin::Spec)
        })
    }

    /// Makes up a machine with the rules of an iptables-save text, as [`CopySource::of_spec`] does. A text without a sign
    /// of its family is taken for one of the client's. `to` is the address that the client connects to, `None` for the
    /// machine itself. `sides` are networks whose interfaces are known.
    pub(super) fn of_rules(
        text: &[u8],
        (client, to): (Family, Option<IpAddr>),
        sides: &[(IpNet, Interface)],
        backend: Backend,
    ) -> Result<Self> {
        let rules = parse::parse(&parse::text_of(text))?;
        let family = family_of(&rules).unwrap_or(client);
        if family != client {
            return Err(TraceError::OtherRules { client, family }.into());
        }
        let filter = PacketFilter::of_texts(backend, [(family, text)])?;
        let rules = [(family, rules)];
        let named = MadeUp::of_rules(&rules, sides);
        let is_stranger = |to: &IpAddr| is_private(*to) && !named.knows(*to);
        Ok(Self {
            strangers: to.filter(is_stranger).into_iter().collect(),
            ..Self::of(
                MadeUp::of_rules_to(&rules, to, sides),
                filter,
                RuleOrigin::Foreign,
            )
        })
    }

    /// Reads the forwards and outbound entries of nvactl's own rules.
    pub(super) fn loaded_sets(&self) -> Vec<ForwardSet> {
        self.filter.loaded_sets()
    }

    /// Makes a twin of the machine.
    ///
    /// # Errors
    /// As [`Twin::make`], and [`TwinError::NotLoaded`] if a rule of a spec does not load.
    pub(super) fn twin(self, deadline: Option<Instant>) -> Result<Twin, TwinError> {
        let twin = Twin::make(self.machine, &self.filter, deadline)?;
        match self.origin {
            RuleOrigin::Spec => twin.has_all_rules()?,
            RuleOrigin::Foreign => {}
        }
        Ok(twin)
    }

    fn of(made_up: MadeUp, filter: PacketFilter, origin: RuleOrigin) -> Self {
        Self {
            machine: made_up.machine,
            filter,
            words: made_up.words,
            strangers: Vec::new(),
            origin,
        }
    }
}

/// Returns whether an address may be one of the machine's own, or near it.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private(),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

/// Says that a spec or a file of rules does not name an address that a connection goes to.
pub(super) fn stranger(subject: &str, address: IpAddr) -> String {
    format!(
        "`{subject}` does not name {address}, so the interface that leads to it is a guess. A port of the machine itself is \
         written alone, such as `443`"
    )
}

/// Names the file of which a machine is made up, and the machine that came of it.
pub(super) fn made_up_note(name: &str, words: &[String]) -> String {
    let words = words.iter();
    let words: String = words
        .map(|line| format!("\n  {}", printable::line(line)))
        .collect();
    let name = printable::line(name);
    format!("the machine is made up from `{name}`:{words}")
}

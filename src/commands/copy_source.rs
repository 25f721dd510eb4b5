//! The machine that a copy is made of: this one, or one that is made up from a spec or from rules.

use ipnet::IpNet;

use super::error::Result;
use super::trace::TraceError;
use crate::forwards::ForwardSet;
use crate::net::{Family, Interface};
use crate::netfilter::backend::Backend;
use crate::netfilter::text::parse;
use crate::plan::plan;
use crate::twin::TwinError;
use crate::twin::machine::Machine;
use crate::twin::made_up::MadeUp;
use crate::twin::made_up::saved::family_of;
use crate::twin::rules::PacketFilter;

/// A machine that a copy is made of, with its rules.
pub(super) struct CopySource {
    pub(super) machine: Machine,
    pub(super) filter: PacketFilter,
    /// The interfaces with their addresses and networks, if the machine is made up.
    pub(super) words: Vec<String>,
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
        })
    }

    /// Makes up a machine with the rules of a spec alone, which the programs of a backend load. `sides` are networks
    /// whose interfaces are known.
    pub(super) fn of_spec(
        set: &ForwardSet,
        sides: &[(IpNet, Interface)],
        backend: Backend,
    ) -> Result<Self> {
        let rendered = Family::ALL.map(|family| (family, plan(set, family).to_string()));
        let rules = rendered.iter();
        let rules = rules.map(|(family, text)| (*family, text.as_bytes()));
        let filter = PacketFilter::of_texts(backend, rules)?;
        Ok(Self::of(MadeUp::of_spec(set, sides), filter))
    }

    /// Makes up a machine with the rules of an iptables-save text, as [`CopySource::of_spec`] does. A text without a sign
    /// of its family is taken for one of the client's.
    pub(super) fn of_rules(
        text: &[u8],
        client: Family,
        sides: &[(IpNet, Interface)],
        backend: Backend,
    ) -> Result<Self> {
        let rules = parse::parse(&parse::text_of(text))?;
        let family = family_of(&rules).unwrap_or(client);
        if family != client {
            return Err(TraceError::OtherRules { client, family }.into());
        }
        let filter = PacketFilter::of_texts(backend, [(family, text)])?;
        Ok(Self::of(
            MadeUp::of_rules(&[(family, rules)], sides),
            filter,
        ))
    }

    fn of(made_up: MadeUp, filter: PacketFilter) -> Self {
        Self {
            machine: made_up.machine,
            filter,
            words: made_up.words,
        }
    }
}

//! The rules that spare a new connection the walk through the later hooks' chains.
//!
//! Most forwards differ in nothing but where they listen and where they lead: they are common. The
//! first packet of a connection is marked before it comes to the DNAT rules, and the mark is taken
//! off again where none of them took it, or one that is not of a common forward. DNAT ends the walk,
//! so a packet that has the mark behind it was translated for a common forward, and by these rules:
//! others translate too, and a bare `--ctstate DNAT` would take theirs for nvactl's. When the packet
//! leaves, the mark goes: no connection keeps it, and nothing that an earlier plan has marked passes
//! by a later one.
//!
//! Only a connection's first packet comes to the nat table. A SYN that is sent again, or a second
//! datagram before the first is answered, has no mark and finds its forward's own rules, as does a
//! packet whose mark another's rules have changed.

use super::Hook;
use super::forward::{arrivals, opens, source};
use crate::forwards::{Firewall, Forward, Snat};
use crate::net::{Family, Interface, Protocol};
use crate::netfilter::mark::Mark;
use crate::netfilter::matches::Match;
use crate::netfilter::names::ChainName;
use crate::netfilter::negatable::Negatable::Is;
use crate::netfilter::rule::Rule;
use crate::netfilter::target::Target;
use crate::netfilter::tracking::{Conntrack, CtState};

/// One bit of a connection's mark. Marks are shared by all of a machine's software; this bit is
/// nvactl's from a packet's arrival until it leaves.
pub(crate) const MARKED: Mark = Mark {
    value: 1 << 28,
    mask: 1 << 28,
};
const UNMARKED: Mark = Mark { value: 0, ..MARKED };

/// The chain of what is about to leave and has the mark.
pub(crate) const OF_MARKED: &str = "NVACTL-MARKED";

/// What common forwards have in common.
#[derive(Debug, Clone, Copy)]
pub struct Common<'s> {
    firewall: &'s Firewall,
    snat: Snat,
}

impl<'s> Common<'s> {
    /// `None` where the firewall has no source address of this family: then every forward has its
    /// own.
    #[must_use]
    pub fn of(firewall: &'s Firewall, family: Family) -> Option<Self> {
        let snat = firewall.snat.of(family)?;
        Some(Self { firewall, snat })
    }

    /// Whether a forward is common.
    fn has(self, forward: &Forward) -> bool {
        let Firewall {
            ingress, egress, ..
        } = self.firewall;
        forward.snat == self.snat
            && forward.ingress == *ingress
            && forward.egress == *egress
            && forward.admits_all()
    }

    /// What takes the mark off a forward's packets, if it is not common.
    pub fn exempt(self, forward: &Forward) -> impl Iterator<Item = Rule> {
        let arrivals = (!self.has(forward)).then(|| arrivals(forward));
        let arrivals = arrivals.into_iter().flatten();
        arrivals.map(|matches| Rule::new(matches, Target::SetConnmark(UNMARKED)))
    }

    /// What stands in front of the forwards' own rules.
    pub fn before(self, hook: Hook, forwards: &[&Forward]) -> Vec<Rule> {
        match hook {
            Hook::Arriving => vec![Rule::new([], Target::SetConnmark(MARKED))],
            Hook::Sent => Vec::new(),
            Hook::Passing => self.accept(forwards),
            Hook::Leaving => {
                let chain = ChainName::from(OF_MARKED);
                vec![Rule::new(marked(), Target::Jump(chain))]
            }
        }
    }

    /// The rules of [`OF_MARKED`].
    pub fn of_marked(self) -> Vec<Rule> {
        let by = Match::Egress(Is(self.firewall.egress.clone().into()));
        vec![
            Rule::new([], Target::SetConnmark(UNMARKED)),
            Rule::new([by], source(self.snat)),
        ]
    }

    /// One rule for each way that the forwards' own let pass.
    fn accept(self, forwards: &[&Forward]) -> Vec<Rule> {
        let Firewall {
            ingress, egress, ..
        } = self.firewall;
        let used = |protocol: &Protocol| forwards.iter().any(|one| one.protocol == *protocol);
        let protocols = Protocol::ALL.into_iter().filter(used);
        let ways = protocols.flat_map(|protocol| ingress.iter().map(move |by| (protocol, by)));
        let rule = |(protocol, by): (Protocol, &Interface)| {
            let way = [
                Match::Ingress(Is(by.clone().into())),
                Match::Egress(Is(egress.clone().into())),
                Match::Protocol(Is(protocol.into())),
            ];
            let new = Match::Conntrack(Conntrack::states(CtState::New.into()));
            let matches = way
                .into_iter()
                .chain(opens(protocol))
                .chain([new])
                .chain(marked());
            Rule::new(matches, Target::Accept)
        };
        ways.map(rule).collect()
    }
}

/// What stands behind the forwards' own rules, where some are marked.
pub fn behind(hook: Hook) -> Option<Rule> {
    (hook == Hook::Arriving).then(|| Rule::new([], Target::SetConnmark(UNMARKED)))
}

/// Translated as well: whatever another's rules mark, nothing passes that was not.
fn marked() -> [Match; 2] {
    let translated = Match::Conntrack(Conntrack::states(CtState::Dnat.into()));
    [translated, Match::Connmark(Is(MARKED))]
}

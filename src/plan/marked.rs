//! The short-cut rules: they spare most new connections the trees of the hooks after DNAT.
//!
//! Most forwards are common: they differ only in their listener and their target. The first packet of a
//! connection is marked before it reaches the DNAT rules. The mark is removed if a forward that is not
//! common takes the packet, or if no forward does. A DNAT rule ends the chain, so a packet that is marked
//! after it was translated by a common forward of nvactl. `--ctstate DNAT` alone would not do: it also
//! matches connections that other programs' rules have translated. The mark is removed when the packet
//! leaves, so no connection keeps it, and a later plan accepts nothing that an earlier plan has marked.
//!
//! Only the first packet of a connection traverses the nat table. A repeated SYN, or a second datagram
//! before the first reply, has no mark and uses its forward's own rules. So does a packet whose mark the
//! rules of another program have changed.

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

/// One bit of a connection's mark. All software of a machine shares the marks. nvactl uses this bit from
/// the arrival of a packet until it leaves.
pub(crate) const MARKED: Mark = Mark {
    value: 1 << 28,
    mask: 1 << 28,
};
const UNMARKED: Mark = Mark { value: 0, ..MARKED };

/// The chain for marked packets that are about to leave.
pub(crate) const OF_MARKED: &str = "NVACTL-MARKED";

/// The options that all common forwards share.
#[derive(Debug, Clone, Copy)]
pub struct Common<'s> {
    firewall: &'s Firewall,
    snat: Snat,
}

impl<'s> Common<'s> {
    /// Returns the shared options, or `None` if the firewall has no `snat` of this family: then every
    /// forward has its own.
    #[must_use]
    pub fn of(firewall: &'s Firewall, family: Family) -> Option<Self> {
        let snat = firewall.snat.of(family)?;
        Some(Self { firewall, snat })
    }

    /// Returns whether a forward is common.
    fn has(self, forward: &Forward) -> bool {
        // Without `..`, a new option does not compile until somebody has decided about it.
        let Forward {
            ingress,
            egress,
            snat,
            // No rule has it.
            description: _,
            // `admits_all` looks at these.
            sources: _,
            limits: _,
            log: _,
            // The short-cut rules match each protocol, and no packet from the egress interface: `hairpin`'s
            // packets use the forward's own rules.
            protocol: _,
            hairpin: _,
            // DNAT depends on these, and has happened before the short-cut rules.
            name: _,
            listen: _,
            target: _,
        } = forward;
        *snat == self.snat
            && *ingress == self.firewall.ingress
            && *egress == self.firewall.egress
            && forward.admits_all()
    }

    /// Returns the rules that remove the mark from the packets of a forward that is not common.
    pub fn exempt(self, forward: &Forward) -> impl Iterator<Item = Rule> {
        let arrivals = (!self.has(forward)).then(|| arrivals(forward));
        let arrivals = arrivals.into_iter().flatten();
        arrivals.map(|matches| Rule::new(matches, Target::SetConnmark(UNMARKED)))
    }

    /// Returns the rules that come before the forwards' own rules.
    pub fn before(self, hook: Hook, forwards: &[&Forward]) -> Vec<Rule> {
        match hook {
            Hook::Arriving => vec![Rule::new([], Target::SetConnmark(MARKED))],
            Hook::Sent | Hook::Sizing => Vec::new(),
            Hook::Passing => self.accept(forwards),
            Hook::Leaving => {
                let chain = ChainName::from(OF_MARKED);
                vec![Rule::new(marked(), Target::Jump(chain))]
            }
        }
    }

    /// Returns the rules of [`OF_MARKED`].
    pub fn of_marked(self) -> Vec<Rule> {
        let by = Match::Egress(Is(self.firewall.egress.clone().into()));
        vec![
            Rule::new([], Target::SetConnmark(UNMARKED)),
            Rule::new([by], source(self.snat)),
        ]
    }

    /// Returns one rule for each combination of protocol and interfaces that common forwards accept.
    fn accept(self, forwards: &[&Forward]) -> Vec<Rule> {
        let Firewall {
            ingress, egress, ..
        } = self.firewall;
        let used = |protocol: &Protocol| forwards.iter().any(|one| one.protocol == *protocol);
        let protocols = Protocol::ALL.into_iter().filter(used);
        let paths = protocols.flat_map(|protocol| ingress.iter().map(move |by| (protocol, by)));
        let rule = |(protocol, by): (Protocol, &Interface)| {
            let path = [
                Match::Ingress(Is(by.clone().into())),
                Match::Egress(Is(egress.clone().into())),
                Match::Protocol(Is(protocol.into())),
            ];
            let new = Match::Conntrack(Conntrack::states(CtState::New.into()));
            let matches = path
                .into_iter()
                .chain(opens(protocol))
                .chain([new])
                .chain(marked());
            Rule::new(matches, Target::Accept)
        };
        paths.map(rule).collect()
    }
}

/// Returns the rule that comes after the forwards' own rules in a plan with marks.
pub fn behind(hook: Hook) -> Option<Rule> {
    (hook == Hook::Arriving).then(|| Rule::new([], Target::SetConnmark(UNMARKED)))
}

/// Returns the conditions of a marked connection. It must be translated as well, so that a mark set by
/// another program's rules is not enough.
fn marked() -> [Match; 2] {
    let translated = Match::Conntrack(Conntrack::states(CtState::Dnat.into()));
    [translated, Match::Connmark(Is(MARKED))]
}

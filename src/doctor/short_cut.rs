//! Whether a tree's short cut is there: while it is, most new connections need no other rule behind
//! PREROUTING.

use crate::plan::{MARKED, OF_MARKED};
use crate::rule::{Match, Rule, Target};
use crate::ruleset::Ruleset;
use crate::spec::Firewall;

/// Whether the plan has one, and all its rules are loaded.
pub fn is_whole(live: &Ruleset, planned: &Ruleset) -> bool {
    let chains = planned.chains();
    let rules = chains.flat_map(|(table, name, chain)| {
        let rules = chain.rules.iter();
        rules.map(move |rule| (table, name, rule))
    });
    let mut its_own = rules
        .filter(|(_, name, rule)| {
            name.as_str() == OF_MARKED
                || rule.target == Some(Target::SetConnmark(MARKED))
                || rule.matches.contains(&Match::Connmark(MARKED))
        })
        .peekable();
    its_own.peek().is_some()
        && its_own.all(|(table, name, rule)| {
            let chain = live.chain(table, name);
            chain.is_some_and(|chain| chain.rules.contains(rule))
        })
}

/// Whether the packets of a rule, one of a common forward's, come in where the short cut is open: a
/// hairpin's come in by the egress interface, too.
pub fn is_open_to(firewall: &Firewall, rule: &Rule) -> bool {
    rule.matches.iter().all(|condition| match condition {
        Match::Ingress(by) => firewall.ingress.contains(by),
        _ => true,
    })
}

/// Whether a rule takes packets from it, of a forward that is not common.
pub fn is_closed_by(rule: &Rule) -> bool {
    matches!(rule.target, Some(Target::SetConnmark(_)))
}

//! The plan: a spec's forwards as rules, and the reasons for their order.
//!
//! [`plan`] says only what nvactl owns: its chains, one jump to each, and the FORWARD policy.
//! [`Ruleset::with_builtin_chains`] makes a whole file of it.
//!
//! A packet meets the plan in this order, and each rule asks only what the ones before left open:
//!
//! 1. `NVACTL-PREROUTING` (nat): a connection's first packet, sent to a listen port on an address
//!    of the machine, gets one of the targets as its destination. Without the address it would take
//!    the packets that are only in transit through the machine. `NVACTL-OUTPUT` (nat) does the same
//!    for what the machine itself sends, where a forward is a hairpin.
//! 2. `NVACTL-FORWARD` (filter): known connections first, so that an established packet costs one
//!    rule however many forwards there are. A new connection passes only if it came in by its own
//!    forward's listen port. The port alone does not say that: where listen and target port are
//!    equal, `--ctorigdstport` also matches a packet routed straight at the target. So the connection
//!    must be translated as well (`--ctstate DNAT`). Whom a forward is not for, and what is too
//!    much, is refused here, not in PREROUTING: a packet left untranslated would reach the
//!    firewall's own ports.
//! 3. `NVACTL-POSTROUTING` (nat): the same connection leaves with the firewall's own address, so
//!    that the reply comes back through the firewall; or with the client's, where a forward says
//!    so.
//!
//! The same order of forwards holds in all three: listeners for one address stand before those for
//! all addresses, which would take their packets; otherwise the file's order.

mod chains;
mod forward;

use chains::Chains;
pub(crate) use chains::{ADMIT, ALLOW, DENY};

use crate::net::Family;
use crate::rule::{Conntrack, CtState, Match, Rule, Target};
use crate::ruleset::{ChainName, Policy, Ruleset, TableName};
use crate::spec::{Forward, ForwardPolicy, ForwardSet};

pub const FORWARD: &str = "NVACTL-FORWARD";
pub const PREROUTING: &str = "NVACTL-PREROUTING";
pub const OUTPUT: &str = "NVACTL-OUTPUT";
pub const POSTROUTING: &str = "NVACTL-POSTROUTING";

/// The chains that nvactl fills, the table each is in, and the built-in chain that jumps to it.
const CHAINS: [(TableName, ChainName, &str); 4] = [
    (TableName::Filter, ChainName::Forward, FORWARD),
    (TableName::Nat, ChainName::Prerouting, PREROUTING),
    (TableName::Nat, ChainName::Postrouting, POSTROUTING),
    (TableName::Nat, ChainName::Output, OUTPUT),
];

/// Whether nvactl's jumps stand in this chain, so that every jump from there to a chain of its own
/// is one that it has made, or that stands in its place.
#[must_use]
pub fn jumps_from(table: TableName, chain: &ChainName) -> bool {
    CHAINS
        .iter()
        .any(|(in_table, builtin, _)| (*in_table, builtin) == (table, chain))
}

/// Compiles a spec's forwards of one family. Same spec, same plan; the cost is linear in the forwards
/// and in the networks that they allow and deny.
#[must_use]
pub fn plan(set: &ForwardSet, family: Family) -> Ruleset {
    let mine = set
        .forwards
        .iter()
        .filter(|forward| forward.family() == family);
    let (addressed, open): (Vec<&Forward>, Vec<&Forward>) =
        mine.partition(|forward| forward.listen.address.is_some());
    let forwards = || addressed.iter().chain(&open).copied();
    let mut chains = Chains::default();
    let mut passing = vec![accept_known()];
    for forward in forwards() {
        passing.extend(forward::admit(forward, &mut chains));
    }
    let bodies = [
        passing,
        forwards().flat_map(forward::translate).collect(),
        forwards().flat_map(forward::leave).collect(),
        forwards().flat_map(forward::translate_own).collect(),
    ];

    let mut ruleset = Ruleset::default();
    for ((table, builtin, own), rules) in CHAINS.into_iter().zip(bodies) {
        // Only hairpins need it.
        if own == OUTPUT && rules.is_empty() {
            continue;
        }
        let own = ChainName::from(own);
        ruleset
            .chain_mut(table, builtin)
            .rules
            .push(Rule::jump(own.clone()));
        ruleset.chain_mut(table, own).rules = rules;
    }
    for (name, rules) in chains.into_made() {
        ruleset.chain_mut(TableName::Filter, name).rules = rules;
    }
    if set.firewall.forward_policy == ForwardPolicy::Drop {
        ruleset
            .chain_mut(TableName::Filter, ChainName::Forward)
            .policy = Some(Policy::Drop);
    }
    ruleset
}

/// Not narrowed to nvactl's own connections: those that are alive when it is applied go on.
fn accept_known() -> Rule {
    let known = Conntrack::states([CtState::Related, CtState::Established]);
    Rule::new([Match::Conntrack(known)], Target::Accept)
}

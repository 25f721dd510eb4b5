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
//!    firewall's own ports. The policy may accept what no rule does, so each rule asks only what it
//!    must: lists hold for every new packet of the forward, limits and the log for those that open a
//!    connection, and what is accepted must leave by the forward's interface as well.
//! 3. `NVACTL-POSTROUTING` (nat): the same connection leaves with the firewall's own address, so
//!    that the reply comes back through the firewall; or with the client's, where a forward says
//!    so. Two forwards may send packets there that look the same
//!    ([`told_by_entrance`]): then the rules ask for the interface that a packet came in by, which
//!    iptables takes in this chain, and not in the built-in one. The firewall's own packets came in
//!    by none, so their rules stand behind those.
//!
//! The same order of forwards holds in all three: listeners for one address stand before those for
//! all addresses, which would take their packets; otherwise the file's order.
//!
//! So much for the flat layout. The rules of many forwards are the same, but stand in a tree of chains
//! (`tree`), and most new connections walk only the first of its three (`marked`).
//!
//! The room must not know the machine, YAML, or rules of others: the same forwards give the same rules
//! on every machine.
//!
//! Start here:
//! - a new option of a forward: its rules in `forward` (lists and logs in `chains`), the same read back
//!   in [`unplan`], its words in [`explain`];
//! - another hook or chain: `hook`, then the order here;
//! - the shape of the tree: `tree`, and `marked` for the short cut.

mod chains;
pub mod digest;
pub mod explain;
mod families;
mod forward;
mod hook;
mod marked;
mod tree;
pub mod unplan;

use std::collections::BTreeMap;

use chains::Chains;
pub(crate) use chains::{ADMIT, ALLOW, DENY};
pub use families::planned;
pub use hook::{Hook, jumps_from};
use marked::Common;
pub(crate) use marked::{MARKED, OF_MARKED};
use tree::{Part, Tree};

use crate::forwards::{Forward, ForwardPolicy, ForwardSet, Layout, told_by_entrance};
use crate::net::Family;
use crate::netfilter::matches::Match;
use crate::netfilter::names::{ChainName, Policy, TableName};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::Target;
use crate::netfilter::tracking::{Conntrack, CtState, CtStates};

/// With more rules that translate than these the plan is a tree, if the spec does not say: mostly one
/// a forward, and one for each further pod or interface.
const MOST_FLAT: usize = 128;

/// Returns the first rule that asks a packet that leaves where it came in. The kernel tells that in nat's
/// POSTROUTING since Linux 5.5; on an older one no such rule holds for any packet.
#[must_use]
pub fn asks_entrance(planned: &Ruleset) -> Option<&Rule> {
    let mut rules = Hook::Leaving.rules(planned).map(|(_, rule)| rule);
    let entrance = |condition: &Match| matches!(condition, Match::Ingress(_));
    rules.find(|rule| rule.matches.iter().any(entrance))
}

/// How the rules of one family stand in chains.
#[must_use]
pub fn layout(set: &ForwardSet, family: Family) -> Layout {
    let forwards = set.forwards.iter();
    let rules = forwards
        .filter(|forward| forward.family() == family)
        .map(|forward| forward.entrances().count() * forward.target.destinations.len());
    set.firewall.layout.unwrap_or_else(|| {
        if rules.sum::<usize>() > MOST_FLAT {
            Layout::Tree
        } else {
            Layout::Flat
        }
    })
}

/// Compiles a spec's forwards of one family. Same spec, same plan; the cost is linear in the forwards
/// and in the networks that they allow and deny.
#[must_use]
pub fn plan(set: &ForwardSet, family: Family) -> Ruleset {
    plan_in(layout(set, family), set, family)
}

/// The same in a layout that need not be the spec's.
#[must_use]
pub fn plan_in(layout: Layout, set: &ForwardSet, family: Family) -> Ruleset {
    let mine = set
        .forwards
        .iter()
        .filter(|forward| forward.family() == family);
    let (addressed, open): (Vec<&Forward>, Vec<&Forward>) =
        mine.partition(|forward| forward.listen.address.is_some());
    let forwards = [addressed, open].concat();
    let by_entrance = told_by_entrance(&forwards);
    let common = match layout {
        Layout::Flat => None,
        Layout::Tree => Common::of(&set.firewall, family),
    };
    let mut beside = Chains::default();
    let mut ruleset = Ruleset::default();
    for hook in Hook::ALL {
        let mut parts = Vec::with_capacity(forwards.len());
        // Of the firewall's own packets, behind all rules that ask for an entrance.
        let mut own = Vec::new();
        for (forward, by_entrance) in forwards.iter().zip(&by_entrance) {
            parts.push(Part {
                protocol: forward.protocol,
                listen: forward.listen,
                rules: of_forward(hook, forward, *by_entrance, common, &mut beside),
            });
            if hook == Hook::Leaving && *by_entrance && forward.hairpin {
                forward::leave_from(forward, None, &mut own);
            }
        }
        let (rules, further) = match layout {
            Layout::Flat => (in_order(parts), BTreeMap::new()),
            Layout::Tree => {
                parts.retain(|part| !part.rules.is_empty());
                Tree::grow(hook, parts)
            }
        };
        let known = (hook == Hook::Passing).then(accept_known);
        let before = common.map(|common| common.before(hook, &forwards));
        let behind = common.and_then(|_| marked::behind(hook));
        let rules: Vec<Rule> = known
            .into_iter()
            .chain(before.into_iter().flatten())
            .chain(rules)
            .chain(own)
            .chain(behind)
            .collect();
        // Only hairpins need the chain for what the machine itself sends.
        if hook == Hook::Sent && rules.is_empty() {
            continue;
        }
        let own = ChainName::from(hook.own());
        let jumps = ruleset.chain_mut(hook.table(), hook.builtin());
        jumps.rules.push(Rule::jump(own.clone()));
        ruleset.chain_mut(hook.table(), own).rules = rules;
        for (name, rules) in further {
            ruleset.chain_mut(hook.table(), name).rules = rules;
        }
    }
    for (name, rules) in beside.into_made() {
        ruleset.chain_mut(TableName::Filter, name).rules = rules;
    }
    if let Some(common) = common {
        let name = ChainName::from(OF_MARKED);
        ruleset.chain_mut(TableName::Nat, name).rules = common.of_marked();
    }
    if set.firewall.forward_policy == ForwardPolicy::Drop {
        ruleset
            .chain_mut(TableName::Filter, ChainName::Forward)
            .policy = Some(Policy::Drop);
    }
    ruleset
}

/// The rules that a forward has at a hook.
fn of_forward(
    hook: Hook,
    forward: &Forward,
    by_entrance: bool,
    common: Option<Common<'_>>,
    beside: &mut Chains,
) -> Vec<Rule> {
    match hook {
        Hook::Arriving => {
            let own_way = common.map(|common| common.exempt(forward));
            let own_way = own_way.into_iter().flatten();
            own_way.chain(forward::translate(forward)).collect()
        }
        Hook::Sent => forward::translate_own(forward).collect(),
        Hook::Passing => forward::admit(forward, beside).collect(),
        Hook::Leaving => forward::leave(forward, by_entrance),
    }
}

fn in_order(parts: Vec<Part>) -> Vec<Rule> {
    parts.into_iter().flat_map(|part| part.rules).collect()
}

/// Lets replies pass. Not narrowed to nvactl's own connections: those that are alive when it is
/// applied go on.
#[must_use]
pub fn accept_known() -> Rule {
    let known = Conntrack::states(CtStates::from(CtState::Related).or(CtState::Established));
    Rule::new([Match::Conntrack(known)], Target::Accept)
}

//! The plan: the forwards of a spec as rules, and the reasons for the order of the rules.
//!
//! [`plan`] returns only what nvactl owns: its chains, one jump to each, and the FORWARD policy.
//! [`Ruleset::with_builtin_chains`] makes a complete file of it.
//!
//! A packet traverses the plan in this order. Each rule checks only what the rules before it left open:
//!
//! 1. `NVACTL-PREROUTING` (nat): the first packet of a connection to a listen port on an address of the
//!    machine gets one of the targets as its destination. If the rule did not match the address, it would
//!    also take packets that are only in transit through the machine. `NVACTL-OUTPUT` (nat) does the same
//!    for packets of the machine itself, if a forward has `hairpin`.
//! 2. `NVACTL-MSS` (mangle), only with `mss`: a forwarded packet that announces the size of TCP segments, and the
//!    answer to it, get the limit of the spec (`mss`).
//! 3. `NVACTL-FORWARD` (filter): the rule for known connections comes first, so that an established packet
//!    costs one rule however many forwards there are. A new connection is accepted only if it arrived at
//!    its own forward's listen port. The port alone does not prove that: if listen and target port are
//!    equal, `--ctorigdstport` also matches a packet routed straight at the target. So the connection must
//!    be translated as well (`--ctstate DNAT`). Clients and connections that a forward does not allow are
//!    refused here, not in PREROUTING: a packet that is left untranslated would reach the firewall's own
//!    ports. The policy may accept a packet that no rule accepts, so each rule checks no more than it must:
//!    lists match every new packet of the forward, limits and the log match packets that open a
//!    connection, and an accepted packet must leave by the forward's egress interface as well.
//! 4. `NVACTL-POSTROUTING` (nat): the connection leaves with the firewall's own address, so that the reply
//!    comes back through the firewall, or with the client's address if the forward has `snat: none`. Packets
//!    of two forwards may look the same here ([`need_ingress_match`]). Then the rules also match the ingress
//!    interface, which iptables allows in this chain, but not in the built-in one. The firewall's own
//!    packets have no ingress interface, so their rules come after those.
//!
//! Outbound entries come after all forwards, in `NVACTL-FORWARD` and in `NVACTL-POSTROUTING` (`outbound`).
//!
//! All hooks ([`Hook::ALL`]) have the same order of forwards: a listener for one address comes before the listeners
//! for all addresses, which would take its packets. Otherwise the order of the file counts.
//!
//! This is the flat layout. In a tree, the same rules are divided among many chains (`tree`), and most new
//! connections traverse only the tree of the first hook (`marked`).
//!
//! The room must not know the machine, YAML, or rules of others: the same forwards give the same rules on
//! every machine.
//!
//! Start here:
//! - a new option of a forward: its rules in `forward` (lists and logs in `chains`), its reader in
//!   [`unplan`], its words in [`explain`];
//! - another hook or chain: `hook`, then the order here;
//! - the shape of the tree: `tree`, and `marked` for the short-cut rules.

mod chains;
pub mod digest;
pub mod explain;
mod families;
mod forward;
mod hook;
mod marked;
mod mss;
mod outbound;
mod tree;
pub mod unplan;

use std::collections::BTreeMap;

use chains::Chains;
pub(crate) use chains::{ADMIT, ALLOW, DENY, EXIT, FROM, NOT_TO, TO};
pub use families::planned;
pub use hook::{Hook, jumps_from};
use marked::Common;
pub(crate) use marked::{MARKED, OF_MARKED};
use tree::{ForwardRules, Tree};

use crate::forwards::{Forward, ForwardPolicy, ForwardSet, Layout, need_ingress_match};
use crate::net::Family;
use crate::netfilter::matches::Match;
use crate::netfilter::names::{ChainName, Policy, TableName};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::{Mss, Target};
use crate::netfilter::tracking::{Conntrack, CtState, CtStates};

/// A plan with more DNAT rules than this is a tree, unless the spec sets the layout. A forward has one DNAT
/// rule for each combination of a listener, a destination and an entrance.
const MOST_FLAT: usize = 128;

/// Returns the first POSTROUTING rule that matches the ingress interface. The kernel knows it in that hook
/// since Linux 5.5; on an older kernel such a rule matches no packet.
#[must_use]
pub fn asks_entrance(planned: &Ruleset) -> Option<&Rule> {
    let mut rules = Hook::Leaving.rules(planned).map(|(_, rule)| rule);
    let entrance = |condition: &Match| matches!(condition, Match::Ingress(_));
    rules.find(|rule| rule.matches.iter().any(entrance))
}

/// Returns the layout of one family's rules.
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

/// Compiles a spec's forwards of one family. The same spec gives the same plan. The cost is linear in the
/// number of forwards and of the networks that they allow and deny.
#[must_use]
pub fn plan(set: &ForwardSet, family: Family) -> Ruleset {
    plan_in(layout(set, family), set, family)
}

/// Compiles a spec's forwards of one family in a given layout, which may differ from the spec's.
#[must_use]
pub fn plan_in(layout: Layout, set: &ForwardSet, family: Family) -> Ruleset {
    let mine = set
        .forwards
        .iter()
        .filter(|forward| forward.family() == family);
    let (addressed, open): (Vec<&Forward>, Vec<&Forward>) =
        mine.partition(|forward| forward.listen.address.is_some());
    let forwards = [addressed, open].concat();
    let by_entrance = need_ingress_match(&forwards);
    let common = match layout {
        Layout::Flat => None,
        Layout::Tree => Common::of(&set.firewall, family),
    };
    let mss = set.firewall.mss;
    let mut beside: BTreeMap<TableName, Chains> = BTreeMap::new();
    let mut ruleset = Ruleset::default();
    for hook in Hook::ALL {
        let mut parts = Vec::with_capacity(forwards.len());
        let beside = beside.entry(hook.table()).or_default();
        // Rules for the firewall's own packets. They come after all rules that match an ingress.
        let mut own = Vec::new();
        for (forward, by_entrance) in forwards.iter().zip(&by_entrance) {
            parts.push(ForwardRules {
                protocol: forward.protocol,
                listen: forward.listen,
                rules: of_forward(hook, forward, *by_entrance, common, mss, beside),
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
        let before = common.map(|common| common.before(hook, &forwards));
        let behind = common.and_then(|_| marked::behind(hook));
        let before = before.into_iter().flatten();
        let rules: Vec<Rule> = before
            .chain(rules)
            .chain(own)
            .chain(outward(hook, set, family, beside))
            .chain(behind)
            .collect();
        // Only forwards with `hairpin` have rules for packets of the machine itself, and only TCP has segments.
        if matches!(hook, Hook::Sent | Hook::Sizing) && rules.is_empty() {
            continue;
        }
        let rules = first(hook).into_iter().chain(rules).collect();
        let own = ChainName::from(hook.own());
        let jumps = ruleset.chain_mut(hook.table(), hook.builtin());
        jumps.rules.push(Rule::jump(own.clone()));
        ruleset.chain_mut(hook.table(), own).rules = rules;
        for (name, rules) in further {
            ruleset.chain_mut(hook.table(), name).rules = rules;
        }
    }
    for (table, chains) in beside {
        for (name, rules) in chains.into_made() {
            ruleset.chain_mut(table, name).rules = rules;
        }
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

/// Returns the rules of a forward at a hook.
fn of_forward(
    hook: Hook,
    forward: &Forward,
    by_entrance: bool,
    common: Option<Common<'_>>,
    mss: Option<Mss>,
    beside: &mut Chains,
) -> Vec<Rule> {
    match hook {
        Hook::Arriving => {
            let exempt = common.map(|common| common.exempt(forward));
            let exempt = exempt.into_iter().flatten();
            exempt.chain(forward::translate(forward)).collect()
        }
        Hook::Sent => forward::translate_own(forward).collect(),
        Hook::Sizing => mss.map_or_else(Vec::new, |mss| mss::of_forward(forward, mss)),
        Hook::Passing => forward::admit(forward, beside).collect(),
        Hook::Leaving => forward::leave(forward, by_entrance),
    }
}

/// Returns the rules that come before all others of a hook's own chain.
fn first(hook: Hook) -> Vec<Rule> {
    match hook {
        Hook::Sizing => mss::others(),
        Hook::Passing => vec![accept_known()],
        Hook::Arriving | Hook::Sent | Hook::Leaving => Vec::new(),
    }
}

/// Returns the rules of all outbound entries at a hook.
fn outward(hook: Hook, set: &ForwardSet, family: Family, beside: &mut Chains) -> Vec<Rule> {
    let entries = set.outbound_of(family);
    match hook {
        Hook::Arriving | Hook::Sent => Vec::new(),
        Hook::Sizing => set.firewall.mss.map_or_else(Vec::new, |mss| {
            entries
                .flat_map(|one| mss::of_outbound(one, mss, beside))
                .collect()
        }),
        Hook::Passing => entries
            .flat_map(|one| outbound::admit(one, beside))
            .collect(),
        Hook::Leaving => outbound::leave(&entries.collect::<Vec<_>>(), beside),
    }
}

fn in_order(parts: Vec<ForwardRules>) -> Vec<Rule> {
    parts.into_iter().flat_map(|part| part.rules).collect()
}

/// Returns the rule that accepts packets of known connections. It is not limited to nvactl's own
/// connections, so that connections which exist before an `apply` continue.
#[must_use]
pub fn accept_known() -> Rule {
    let known = Conntrack::states(CtStates::from(CtState::Related).or(CtState::Established));
    Rule::new([Match::Conntrack(known)], Target::Accept)
}

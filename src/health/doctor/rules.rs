//! Checks the rules as they are written: nvactl's own, duplicates, and marks of others. `packets` checks their
//! effect on packets.

use std::collections::{BTreeMap, BTreeSet};

use super::jump::{self, of_table};
use super::route::Astray;
use super::{Case, Check, Fix, Hop, Status};
use crate::diff::drift::{
    ChainOwners, Comparison, DriftKind, LAYOUT, LAYOUT_V6, LineKind, MSS, POLICY, POLICY_V6,
    PlacedRule, compare, gone, missing_lines, outbound_rules, rules_by_key,
};
use crate::forwards::{Forward, Name, Outbound, rows};
use crate::health::counts::{self, OutboundCount};
use crate::health::duplicate::{Duplicate, duplicates};
use crate::health::mark_bit::{Writer, is_used, of_nft, writers};
use crate::net::Family;
use crate::net::words::{counted, names, quoted};
use crate::netfilter::backend::{Backend, iptables as plain};
use crate::netfilter::counters::Count;
use crate::netfilter::names::TableName;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::Target;
use crate::netfilter::text::line::Line;
use crate::plan::unplan::{ForwardKey, plan_as, replanned};

pub fn check(case: &Case<'_>, astray: &Astray, checks: &mut Vec<Check>) {
    let backend = backend(case);
    let is_elsewhere = backend.status == Status::Fail;
    checks.push(backend);
    let live = case.facts.live;
    let planned = plan_as(live, case.set, case.family);
    let is_bare = !has_own_rules(live) && has_own_rules(&planned);
    let mut duplicates = duplicates(live, case.set);
    // The rules of another program belong to that program.
    duplicates.retain(|duplicate| duplicate.owner().is_none());
    if !is_bare {
        jump::check(case, &planned, checks);
        loaded(case, &planned, astray, checks);
    } else if !is_elsewhere {
        checks.push(none_loaded(case, &duplicates));
    }
    mark_bit(case, checks);
    other_backend(case, checks);
    duplicate_rules(case, &duplicates, is_bare, checks);
}

/// Whether nvactl's own chains hold a rule. A flush leaves them empty.
fn has_own_rules(rules: &Ruleset) -> bool {
    let mut own = rules.chains().filter(|(_, name, _)| name.is_own());
    own.any(|(.., chain)| !chain.rules.is_empty())
}

/// Reports once that nothing is loaded, instead of every rule.
fn none_loaded(case: &Case<'_>, duplicates: &[Duplicate<'_>]) -> Check {
    let which = match case.family {
        _ if case.facts.is_bare => "",
        Family::V4 => "IPv4 ",
        Family::V6 => "IPv6 ",
    };
    let redirecting = duplicates.iter().filter(|one| one.redirects());
    let forwarded: BTreeSet<&str> = redirecting
        .flat_map(|one| one.forwards.iter().map(|name| name.as_str()))
        .collect();
    let effect = if forwarded.is_empty() {
        let numbers = match which {
            "" => case.set.numbers(),
            _ => case.set.of(case.family).numbers(),
        };
        format!(": {} works", numbers.no(which))
    } else {
        let forwarded = names(forwarded);
        format!("; another program's rules forward {forwarded} (see `rival-rule`)")
    };
    Hop::Jump
        .fail(format!("nvactl's {which}rules are not loaded{effect}"))
        .fix(case.apply.as_str())
}

fn backend(case: &Case<'_>) -> Check {
    let facts = case.facts;
    let own = |ruleset: &Ruleset| ruleset.holds_own();
    match &facts.other {
        Some((other, Ok(rules))) if own(rules) => Hop::Backend
            .fail(format!(
                "nvactl's rules are loaded by {}, while `{}` on this machine is {} and does not see them",
                other.program(case.family, "iptables"),
                plain(case.family),
                facts.backend
            ))
            .fix(format!(
                "sudo nvactl remove --backend {other}{} && {}",
                case.folder, case.apply
            )),
        _ => Hop::Backend.ok(format!("`{}` is {}", plain(case.family), facts.backend)),
    }
}

/// The rules of one hop, of a forward with all its listeners or of an outbound entry.
#[derive(Clone, Copy)]
struct OwnRules<'c> {
    of: Owner<'c>,
    hop: Hop,
    count: usize,
    /// The number of rules that are not loaded.
    gone: usize,
    /// The missing lines of its own lists.
    lines: MissingLines<'c>,
}

/// The first of some lines that are not loaded, and their number.
#[derive(Clone, Copy, Default)]
struct MissingLines<'c> {
    first: Option<PlacedRule<'c>>,
    count: usize,
}

impl<'c> MissingLines<'c> {
    fn add(&mut self, line: PlacedRule<'c>) {
        self.first = self.first.or(Some(line));
        self.count += 1;
    }
}

/// The part of a spec that has rules of its own.
#[derive(Clone, Copy)]
enum Owner<'c> {
    Forward(&'c Forward),
    Entry(&'c Outbound),
}

impl<'c> Owner<'c> {
    fn name(self) -> &'c Name {
        match self {
            Owner::Forward(forward) => &forward.name,
            Owner::Entry(entry) => &entry.name,
        }
    }

    /// Returns the word for its rules of a hop.
    fn kind(self, hop: Hop) -> &'static str {
        match (hop, self) {
            // An entry has drops beside its accepts.
            (Hop::ForwardRule, Owner::Entry(_)) => "filter",
            (Hop::ForwardRule, Owner::Forward(_)) => "accept",
            (Hop::MssRule, _) => "MSS",
            (Hop::SnatRule, _) => "SNAT",
            _ => "DNAT",
        }
    }
}

/// Reports whether the rules of each forward and outbound entry and nvactl's other rules are loaded.
fn loaded(case: &Case<'_>, planned: &Ruleset, astray: &Astray, checks: &mut Vec<Check>) {
    let comparison = compare(case.facts.live, case.set, case.family);
    let mut own = own_rules(case, planned);
    let shared = add_lines(case, planned, &mut own);
    own.retain(|one| match one.of {
        Owner::Forward(forward) => one.gone == 0 || !astray.has(forward),
        Owner::Entry(_) => true,
    });
    match another_spec(case, &comparison, &own) {
        Some(check) => {
            checks.push(check);
            own.retain(|one| one.gone == 0);
        }
        None => {
            checks.extend(shared);
            checks.push(own_chains(case, planned, &comparison));
        }
    }
    let (counters, live) = (case.facts.counters, case.facts.live);
    let new = counts::new_connections(counters, live);
    let refused = counts::refused(counters, live);
    let outward = counts::outbound(counters, live);
    let packets = |counts: &BTreeMap<ForwardKey<'_>, Count>, forward: &Forward| {
        let key = (forward.name.as_str(), forward.protocol);
        counts.get(&key).map_or(0, |count| count.packets)
    };
    for one in own {
        let OwnRules { of, hop, .. } = one;
        let check = match (one.gone, hop, of) {
            (1.., ..) => hop.fail(not_loaded(one)).fix(case.apply.as_str()),
            _ if let Some(first) = one.lines.first => line_missing(
                case,
                hop,
                line_not_loaded(case.family, &first, one.lines.count),
            ),
            (0, Hop::DnatRule, Owner::Forward(forward)) => {
                translated(packets(&new, forward), packets(&refused, forward), hop)
            }
            (0, Hop::ForwardRule, Owner::Entry(entry)) => {
                let count = outward.get(entry.name.as_str());
                hop.ok(let_out(one.count, count.copied().unwrap_or_default()))
            }
            (0, ..) => hop.ok(all_loaded(one.count)),
        };
        checks.push(Check {
            forward: Some(of.name().to_string()),
            ..check
        });
    }
}

/// Counts the rules of each asked forward and of each outbound entry by hop.
fn own_rules<'c>(case: &Case<'c>, planned: &Ruleset) -> Vec<OwnRules<'c>> {
    let (want, have) = (rules_by_key(planned), rules_by_key(case.facts.live));
    let mut found = Vec::new();
    for forward in rows(&case.asked).map(|row| row[0]) {
        let key = (forward.name.as_str(), forward.protocol);
        let of = Owner::Forward(forward);
        found.extend(by_hop(of, want.get(&key), have.get(&key)));
    }
    let (want, have) = (outbound_rules(planned), outbound_rules(case.facts.live));
    for entry in case.entries {
        let name = entry.name.as_str();
        let of = Owner::Entry(entry);
        found.extend(by_hop(of, want.get(name), have.get(name)));
    }
    found
}

fn by_hop<'c>(
    of: Owner<'c>,
    want: Option<&Vec<PlacedRule<'_>>>,
    have: Option<&Vec<PlacedRule<'_>>>,
) -> impl Iterator<Item = OwnRules<'c>> + use<'c> {
    let loaded = have.map_or(&[][..], Vec::as_slice);
    let mut hops: BTreeMap<Hop, (usize, usize)> = BTreeMap::new();
    for place in want.into_iter().flatten() {
        let (count, gone) = hops.entry(hop_of(place)).or_default();
        *count += 1;
        *gone += usize::from(!loaded.contains(place));
    }
    hops.into_iter().map(move |(hop, (count, gone))| OwnRules {
        of,
        hop,
        count,
        gone,
        lines: MissingLines::default(),
    })
}

/// Adds each missing line of a list to the rules that lead to it. Returns the finding about a line that several forwards
/// or outbound entries share.
fn add_lines<'c>(case: &Case<'_>, planned: &'c Ruleset, own: &mut [OwnRules<'c>]) -> Option<Check> {
    let missing = missing_lines(case.facts.live, planned);
    if missing.is_empty() {
        return None;
    }
    let chains = ChainOwners::of(planned);
    let (mut shared, mut sharing) = (MissingLines::default(), BTreeSet::new());
    for line in missing {
        let owners = chains.owners(line.table, line.chain);
        if owners.len() > 1 {
            shared.add(line);
            sharing.extend(owners);
            continue;
        }
        let hop = hop_of(&line);
        let is_its =
            |one: &&mut OwnRules<'_>| one.hop == hop && owners.contains(one.of.name().as_str());
        for one in own.iter_mut().filter(is_its) {
            one.lines.add(line);
        }
    }
    let words = line_not_loaded(case.family, &shared.first?, shared.count);
    let words = format!("{words} (of {})", quoted(sharing));
    Some(line_missing(case, Hop::OwnChains, words))
}

/// Reports a missing line of a list. Few of the addresses that it keeps out or admits are tried.
fn line_missing(case: &Case<'_>, hop: Hop, words: String) -> Check {
    Check {
        stands: true,
        ..hop.fail(words).fix(case.apply.as_str())
    }
}

/// The cause of all rules that are not loaded, if the spec has changed since it was applied.
pub const ANOTHER_SPEC: &str = "the loaded rules are not those of this spec";

/// Reports once that the loaded rules are complete but those of another spec, instead of every rule that is not
/// loaded.
fn another_spec(case: &Case<'_>, comparison: &Comparison, own: &[OwnRules<'_>]) -> Option<Check> {
    let missing = own.iter().filter(|one| one.gone > 0);
    let hop = missing.clone().map(|one| one.hop).min()?;
    let mut drift = comparison.drift.iter();
    if drift.any(|drift| drift.what != DriftKind::InFront) {
        return None;
    }
    let differing: BTreeSet<&str> = missing.map(|one| one.of.name().as_str()).collect();
    let check = match differing.len() {
        1 => Check {
            forward: differing.first().map(|name| (*name).to_owned()),
            ..hop.fail(ANOTHER_SPEC)
        },
        _ => hop.fail(format!(
            "{ANOTHER_SPEC}, which differs for {}",
            names(differing)
        )),
    };
    Some(check.fix(case.apply.as_str()))
}

fn hop_of(place: &PlacedRule<'_>) -> Hop {
    match (place.table, &place.rule.target) {
        (TableName::Filter, _) => Hop::ForwardRule,
        (TableName::Mangle, _) => Hop::MssRule,
        (_, Some(Target::Dnat { .. } | Target::SetConnmark(_))) => Hop::DnatRule,
        _ => Hop::SnatRule,
    }
}

/// Says how many rules of one hop are not loaded.
fn not_loaded(rules: OwnRules<'_>) -> String {
    let kind = rules.of.kind(rules.hop);
    match (rules.gone, rules.count) {
        (1, 1) => format!("its {kind} rule is not loaded"),
        (gone, count) if gone == count => format!("its {count} {kind} rules are not loaded"),
        (1, count) => format!("1 of its {count} {kind} rules is not loaded"),
        (gone, count) => format!("{gone} of its {count} {kind} rules are not loaded"),
    }
}

fn all_loaded(count: usize) -> String {
    match count {
        1 => "the rule is loaded".to_owned(),
        count => format!("all {count} rules are loaded"),
    }
}

/// Says how many connections an outbound entry has let out, and how many packets it has refused.
fn let_out(rules: usize, count: OutboundCount) -> String {
    let number = |packets: u64| usize::try_from(packets).unwrap_or(usize::MAX);
    format!(
        "{}; since then {} went out, and drops and limits refused {}",
        all_loaded(rules),
        counted(number(count.new.packets), "connection"),
        counted(number(count.refused.packets), "packet"),
    )
}

/// Names the first of some missing lines.
fn line_not_loaded(family: Family, first: &PlacedRule<'_>, count: usize) -> String {
    let line = Line::Append(first.chain, first.rule);
    let place = of_table(family, first.table);
    match count {
        1 => format!("{place}: `{line}` is not loaded"),
        _ => format!(
            "{place}: `{line}` is not loaded; also missing: {}",
            counted(count - 1, "more rule")
        ),
    }
}

/// Reports the connections that came to the listener, and how many the forward's lists and limits refused.
fn translated(new: u64, refused: u64, hop: Hop) -> Check {
    // A client that is refused repeats its first packet, and the rule counts each.
    let packets = match new {
        1 => "1 first packet of a connection".to_owned(),
        many => format!("{many} first packets of connections"),
    };
    match refused {
        0 => hop.ok(format!(
            "the rule has translated {packets} since it was loaded"
        )),
        all if all >= new && new > 0 => hop
            .warn(format!(
                "`allow_from`, `deny_from` or `limits` have refused all of {packets}, repeated ones included, since \
                 the rule was loaded"
            ))
            .fix(Fix::only_if(
                "if these clients should pass",
                "correct `allow_from`, `deny_from` or `limits` in the spec",
            )),
        some => hop.ok(format!(
            "the rule has translated {packets} since it was loaded; lists and limits have refused {some} of \
             them, repeated ones included"
        )),
    }
}

/// Warns of rules of others that write the mark bit of a tree's short cut.
fn mark_bit(case: &Case<'_>, checks: &mut Vec<Check>) {
    let live = case.facts.live;
    if !is_used(live) {
        return;
    }
    let warn = |hop: Hop, writer: Writer| hop.warn(writer.told).fix(writer.fix);
    let own = writers(live, &case.iptables);
    checks.extend(own.into_iter().map(|one| warn(Hop::ForeignRule, one)));
    if let Some((other, Ok(rules))) = &case.facts.other {
        let others = writers(rules, &other.program(case.family, "iptables"));
        checks.extend(others.into_iter().map(|one| warn(Hop::OtherBackend, one)));
    }
    let of_nft = case.facts.mark_rules.iter().map(of_nft);
    checks.extend(of_nft.map(|one| warn(Hop::NativeNft, one)));
}

fn other_backend(case: &Case<'_>, checks: &mut Vec<Check>) {
    let Some((other, Err(error))) = &case.facts.other else {
        return;
    };
    let program = other.program(case.family, "iptables");
    let unknown = format!("the rules of {program} cannot be read: {error}");
    let look = match other {
        Backend::Legacy => format!("sudo {program}-save"),
        _ => "sudo nft list ruleset".to_owned(),
    };
    checks.push(Hop::OtherBackend.unknown(unknown).fix(Fix::to_look(look)));
}

/// Reports the differences in nvactl's own chains. The forwards' rules have hops of their own.
fn own_chains(case: &Case<'_>, planned: &Ruleset, comparison: &Comparison) -> Check {
    let of = |kind: DriftKind| {
        let drift = comparison.drift.iter();
        drift.filter(move |drift| drift.what == kind)
    };
    let apply = case.apply.as_str();
    let replanned = replanned(case.facts.live, case.family);
    let gone = gone(case.facts.live, &replanned);
    if let Some(first) = gone.first() {
        let fail = Hop::OwnChains.fail(line_not_loaded(case.family, first, gone.len()));
        return fail.fix(apply);
    }
    // The check `jump` reports a jump that is there twice.
    let builtin = planned.chains().filter(|(_, name, _)| name.is_builtin());
    let jumps: Vec<String> = builtin
        .flat_map(|(_, name, chain)| chain.rules.iter().map(move |rule| (name, rule)))
        .map(|(name, rule)| Line::Append(name, rule).to_string())
        .collect();
    let put_in = of(DriftKind::PutIn).find(|drift| !jumps.contains(&drift.line));
    let surplus = comparison.removed.first();
    let policy = comparison
        .firewall
        .iter()
        .find(|change| [POLICY, POLICY_V6].contains(&change.field));
    let of_field = |fields: &[&str]| {
        let mut firewall = comparison.firewall.iter();
        firewall.find(|change| fields.contains(&change.field))
    };
    let mss = of_field(&[MSS]);
    let layout = of_field(&[LAYOUT, LAYOUT_V6]);
    match (put_in, surplus, policy) {
        (Some(drift), ..) => Hop::OwnChains
            .warn(format!(
                "somebody added a line to nvactl's chains in {}: `{}`",
                of_table(case.family, drift.table),
                drift.line
            ))
            .fix(apply),
        (None, Some(surplus), _) => Hop::OwnChains
            .warn(format!(
                "the {} `{}` is loaded, but is not in the spec",
                surplus
                    .kind
                    .map_or("forward", |LineKind::Outbound| "outbound entry"),
                surplus.name
            ))
            .fix(apply),
        (None, None, Some(policy)) => Hop::OwnChains
            .warn(format!(
                "the {} is {}, while the spec says {}: packets that no rule drops are forwarded",
                policy.field, policy.from, policy.to
            ))
            .fix(apply),
        _ if let Some(mss) = mss => Hop::OwnChains
            .warn(format!(
                "the limit on TCP segments (`mss`) is {}, while the spec's is {}",
                mss.from, mss.to
            ))
            .fix(apply),
        _ if comparison.reordered => Hop::OwnChains
            .warn("nvactl's rules are loaded in another order than the spec's")
            .fix(apply),
        _ => match layout {
            Some(layout) => Hop::OwnChains
                .warn(format!(
                    "the layout of nvactl's rules is {}, while the spec says {}",
                    layout.from, layout.to
                ))
                .fix(apply),
            // The forward or outbound entry of a removed line reports it.
            None if of(DriftKind::TakenOut).next().is_some() => {
                Hop::OwnChains.ok("nobody has added a line to nvactl's chains")
            }
            None => Hop::OwnChains.ok("nobody has added a line to nvactl's chains or removed one"),
        },
    }
}

/// Names duplicate rules that were typed by hand. They stop no packet of a forward, but admit more than the spec.
/// If nothing of nvactl's is loaded, only these rules may forward, so they are removed last.
fn duplicate_rules(
    case: &Case<'_>,
    found: &[Duplicate<'_>],
    is_bare: bool,
    checks: &mut Vec<Check>,
) {
    if found.is_empty() {
        checks.push(Hop::RivalRule.ok("no other rule forwards the same ports"));
    }
    for duplicate in found {
        let line = duplicate.line();
        let check = match duplicate.undecided {
            None => {
                let removal = duplicate.removal(&case.iptables);
                let fix = if is_bare {
                    Fix::only_if("after `apply`", removal)
                } else {
                    Fix::from(removal)
                };
                Hop::RivalRule
                    .warn(format!("another program's rule also forwards this port: `{line}`"))
                    .fix(fix)
            }
            Some(condition) => Hop::RivalRule
                .warn(format!(
                    "another program's rule may also forward this port, which depends on `{condition}`: `{line}`"
                ))
                .fix(Fix::to_look(duplicate.look(&case.iptables))),
        };
        checks.push(Check {
            forward: duplicate.forwards.first().map(ToString::to_string),
            ..check
        });
    }
}

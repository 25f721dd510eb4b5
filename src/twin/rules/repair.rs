//! Compares the twin's tables of iptables-nft with the machine's, chain by chain, and repairs them: iptables-nft-save
//! prints rules that `nft` made wrongly or not at all.

use std::collections::BTreeMap;

use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::edit::FilterFacts;
use super::filter::Copied;
use super::listing::{self, ListedChain, ListedTable, compared};
use super::native::{self, NftCommand, declarations, load_in_turn, name_missing};
use super::own;
use super::place::{At, LeftOut, Reason};
use super::programs::FilterError;
use super::restore::{PlannedLine, Role, TablePlan};
use crate::host::iptables::nft_family;
use crate::netfilter::backend::Backend;

/// Repairs the twin's tables until they list the same rules as the machine's.
pub fn repair(
    live: &[ListedTable],
    plans: &[TablePlan<'_>],
    facts: &FilterFacts,
    copied: &mut Copied,
) -> Result<(), FilterError> {
    // A list of thousands of rules is needless if there is no table to compare with.
    if live.is_empty() {
        return Ok(());
    }
    let Some(chains) = own::chains()? else {
        return Ok(());
    };
    let loaded = plans.iter().map(|plan| plan.lines.len()).sum();
    let twins = own::list(&chains, "-sa", loaded)?;
    let mut repaired = Vec::new();
    for live in live {
        let is_same = |twin: &&ListedTable| twin.family == live.family && twin.name == live.name;
        let Some(twin) = twins.iter().find(is_same) else {
            continue;
        };
        let plan = plans.iter().find(|plan| {
            plan.backend != Backend::Legacy
                && nft_family(plan.family) == live.family
                && plan.table == live.name
        });
        let lines = lines(plan);
        repaired.extend(repair_table(live, twin, &lines, facts, copied)?);
    }
    if repaired.is_empty() {
        return Ok(());
    }
    // The repair may have made chains.
    let chains = own::chains()?.unwrap_or_default();
    let twins = own::list(&chains, "-s", loaded)?;
    for (table, expected) in &repaired {
        let is_same = |twin: &&ListedTable| twin.family == table.family && twin.name == table.name;
        let twin = twins.iter().find(is_same);
        let chain = twin.and_then(|twin| twin.chain(&expected.name));
        let there = chain.map_or(&[][..], |chain| &chain.rules);
        name_missing(table, expected, there, facts, copied);
    }
    Ok(())
}

/// Returns the rules of each chain that is not nvactl's, as they were loaded.
fn lines<'p>(plan: Option<&'p TablePlan<'p>>) -> BTreeMap<&'p str, Vec<&'p PlannedLine<'p>>> {
    let mut lines: BTreeMap<&str, Vec<&PlannedLine<'_>>> = BTreeMap::new();
    for line in plan.iter().flat_map(|plan| &plan.lines) {
        if line.role != Role::Declaration && !own::is_nvactls(line.chain) {
            lines.entry(line.chain).or_default().push(line);
        }
    }
    lines
}

/// Repairs one table. Returns the chains that were changed, with the rules that they should have.
fn repair_table<'l>(
    live: &'l ListedTable,
    twin: &ListedTable,
    lines: &BTreeMap<&str, Vec<&PlannedLine<'_>>>,
    facts: &FilterFacts,
    copied: &mut Copied,
) -> Result<Vec<(&'l ListedTable, ListedChain)>, FilterError> {
    let is_missing = |chain: &&ListedChain| twin.chain(&chain.name).is_none();
    let missing: Vec<&ListedChain> = live.chains.iter().filter(is_missing).collect();
    let mut absent = live.clone();
    absent
        .blocks
        .retain(|block| !twin.blocks.iter().any(|one| one.name == block.name));
    if !missing.is_empty() || !absent.blocks.is_empty() {
        load_in_turn(live, &declarations(&absent, &missing), copied)?;
    }
    let mut repaired = Vec::new();
    let mut commands = Vec::new();
    let empty = ListedChain::default();
    for chain in &live.chains {
        let there = twin.chain(&chain.name).unwrap_or(&empty);
        let loaded = lines
            .get(chain.name.as_str())
            .map_or(&[][..], |lines| lines);
        let Some(units) = units(loaded, there, copied) else {
            copied.left_out.push(LeftOut {
                place: native::place(live, &chain.name),
                text: format!("chain {}", chain.name),
                why: Reason::Differs,
            });
            continue;
        };
        let rules: Vec<_> = chain
            .rules
            .iter()
            .filter(|rule| !leads_to_nvactl(&rule.text))
            .collect();
        let pairs = pairs(&rules, &units);
        let steps = steps(&pairs, &rules, &units);
        if steps.is_empty() {
            continue;
        }
        for step in steps {
            commands.extend(step_commands(&step, live, chain, facts, copied));
        }
        // A rule that was replaced or refused is named already.
        let is_copy = |unit: &Option<usize>| unit.is_none_or(|unit| units[unit].text.is_some());
        let expected = pairs.iter().filter(|(_, unit)| is_copy(unit));
        let expected = expected.filter_map(|(rule, _)| rule.map(|rule| rules[rule].clone()));
        let expected = ListedChain {
            name: chain.name.clone(),
            heads: Vec::new(),
            rules: expected.collect(),
        };
        repaired.push((live, expected));
    }
    load_in_turn(live, &commands, copied)?;
    Ok(repaired)
}

fn leads_to_nvactl(rule: &str) -> bool {
    let mut words = listing::words(rule);
    words.any(|word| matches!(word, "jump" | "goto")) && words.next().is_some_and(own::is_nvactls)
}

/// A rule of the machine in the twin.
#[derive(Debug, PartialEq, Eq)]
struct TwinRule {
    /// The rule that counts before it, or else the rule itself: the first one that a packet meets.
    first: Option<u64>,
    handle: Option<u64>,
    /// The text for a comparison; `None` for a rule that differs from the machine's on purpose.
    text: Option<String>,
}

/// Finds the loaded lines in the twin's listing, which has one rule for each, and notes the handles of the rules that
/// count. Returns `None` if the numbers differ.
fn units(
    lines: &[&PlannedLine<'_>],
    chain: &ListedChain,
    copied: &mut Copied,
) -> Option<Vec<TwinRule>> {
    let loaded = lines.iter().filter(|line| line.is_loaded).count();
    if loaded != chain.rules.len() {
        return None;
    }
    let mut rules = chain.rules.iter();
    let mut units = Vec::with_capacity(lines.len());
    let mut first = None;
    for line in lines {
        let rule = if line.is_loaded { rules.next() } else { None };
        let handle = rule.and_then(|rule| rule.handle);
        if let (Role::Shadow(index) | Role::Instead(Some(index)), Some(handle)) =
            (line.role, handle)
        {
            copied.watched[index].at = At::Handle(handle);
        }
        match line.role {
            Role::Shadow(_) => {
                first = handle;
                continue;
            }
            Role::Nvactls | Role::Declaration => continue,
            Role::Copy | Role::Instead(_) => {}
        }
        units.push(TwinRule {
            first: first.take().or(handle),
            handle,
            text: rule
                .filter(|_| line.role == Role::Copy)
                .map(|rule| compared(&rule.text)),
        });
    }
    Some(units)
}

/// Pairs the rules of the machine with those of the twin, in order.
fn pairs(
    rules: &[&listing::ListedRule],
    units: &[TwinRule],
) -> Vec<(Option<usize>, Option<usize>)> {
    if rules.len() == units.len() {
        return (0..rules.len()).map(|at| (Some(at), Some(at))).collect();
    }
    let live: Vec<String> = rules.iter().map(|rule| compared(&rule.text)).collect();
    let twin: Vec<String> = units
        .iter()
        .map(|unit| unit.text.clone().unwrap_or_default())
        .collect();
    let mut pairs = Vec::new();
    for op in capture_diff_slices(Algorithm::Myers, &live, &twin) {
        let (old, new) = (op.old_range(), op.new_range());
        let (old, new) = match op {
            DiffOp::Equal { .. } | DiffOp::Replace { .. } => (old, new),
            DiffOp::Delete { .. } => (old, 0..0),
            DiffOp::Insert { .. } => (0..0, new),
        };
        let len = old.len().max(new.len());
        pairs.extend((0..len).map(|at| (old.clone().nth(at), new.clone().nth(at))));
    }
    pairs
}

/// A command that makes a chain list the machine's rules.
#[derive(Debug, PartialEq, Eq)]
enum Repair<'r> {
    /// The rule with this handle should be this rule.
    Replace(u64, &'r str),
    /// This rule is missing before the rule with this handle, or at the end.
    Insert(Option<u64>, &'r str),
    Delete(u64),
}

fn steps<'r>(
    pairs: &[(Option<usize>, Option<usize>)],
    rules: &[&'r listing::ListedRule],
    units: &[TwinRule],
) -> Vec<Repair<'r>> {
    let mut steps = Vec::new();
    let mut next = None;
    // The last rule comes first, so that the handle of the next rule is known.
    for pair in pairs.iter().rev() {
        let unit = pair.1.map(|unit| &units[unit]);
        match (pair.0.map(|rule| rules[rule]), unit) {
            (Some(rule), Some(unit)) => {
                if let (Some(text), Some(handle)) = (&unit.text, unit.handle)
                    && *text != compared(&rule.text)
                {
                    steps.push(Repair::Replace(handle, &rule.text));
                    // The rule that counts before it has the conditions of the wrong rule.
                    let shadow = unit.first.filter(|first| *first != handle);
                    steps.extend(shadow.map(Repair::Delete));
                }
            }
            (Some(rule), None) => steps.push(Repair::Insert(next, &rule.text)),
            (None, Some(unit)) => {
                if let (Some(_), Some(handle)) = (&unit.text, unit.handle) {
                    steps.push(Repair::Delete(handle));
                }
            }
            (None, None) => {}
        }
        next = unit.and_then(|unit| unit.first).or(next);
    }
    steps.reverse();
    steps
}

fn step_commands(
    step: &Repair<'_>,
    table: &ListedTable,
    chain: &ListedChain,
    facts: &FilterFacts,
    copied: &mut Copied,
) -> Vec<NftCommand> {
    let named = format!("{} {}", table.named(), chain.name);
    let delete = |handle: u64| format!("delete rule {named} handle {handle}\n");
    let command = |text: String, otherwise: Option<String>, rule: &str| NftCommand {
        text,
        otherwise,
        names: (chain.name.clone(), rule.to_owned()),
    };
    let mut texts = |rule: &str| native::edited(table, &chain.name, rule, facts, copied);
    match step {
        Repair::Delete(handle) => vec![command(delete(*handle), None, "")],
        Repair::Insert(before, rule) => {
            let at = match before {
                Some(handle) => format!("insert rule {named} handle {handle}"),
                None => format!("add rule {named}"),
            };
            let texts = texts(rule).into_iter();
            let commands = texts.map(|text| command(format!("{at} {text}\n"), None, rule));
            commands.collect()
        }
        Repair::Replace(handle, rule) => {
            let mut texts = texts(rule);
            let Some(last) = texts.pop() else {
                // nft cannot load the machine's rule, and the rule in its place is wrong.
                return vec![command(delete(*handle), None, rule)];
            };
            let inserted = texts.into_iter();
            let mut commands: Vec<NftCommand> = inserted
                .map(|text| {
                    let text = format!("insert rule {named} handle {handle} {text}\n");
                    command(text, None, rule)
                })
                .collect();
            // `nft replace` 1.0.6 ends in an assertion if a set has networks and addresses (held by the
            // lab's row `networks and an address in a table of iptables`).
            let delete = delete(*handle);
            let replace = format!("insert rule {named} handle {handle} {last}\n{delete}");
            commands.push(command(replace, Some(delete), rule));
            commands
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> listing::ListedRule {
        listing::ListedRule {
            text: text.to_owned(),
            handle: None,
        }
    }

    fn unit(handle: u64, text: &str) -> TwinRule {
        TwinRule {
            first: Some(handle),
            handle: Some(handle),
            text: (!text.is_empty()).then(|| text.to_owned()),
        }
    }

    fn steps_of(live: &[&str], units: &[TwinRule]) -> Vec<String> {
        let live: Vec<_> = live.iter().map(|text| rule(text)).collect();
        let live: Vec<_> = live.iter().collect();
        let steps = steps(&pairs(&live, units), &live, units);
        steps.iter().map(|step| format!("{step:?}")).collect()
    }

    #[test]
    fn a_rule_that_is_listed_otherwise_is_replaced() {
        let units = [unit(5, "drop"), unit(6, "tcp dport 1 accept"), unit(7, "")];
        assert_eq!(
            steps_of(
                &[
                    "ip saddr @s drop",
                    "tcp dport 1 counter accept",
                    "queue num 3"
                ],
                &units
            ),
            ["Replace(5, \"ip saddr @s drop\")"]
        );
    }

    #[test]
    fn a_missing_rule_is_inserted_before_the_next_rule_and_its_counter() {
        let mut limited = unit(9, "limit rate 3/second accept");
        limited.first = Some(8);
        let units = [unit(5, "drop"), limited];
        assert_eq!(
            steps_of(
                &["drop", "x", "y", "limit rate 3/second accept", "z"],
                &units
            ),
            [
                "Insert(Some(8), \"x\")",
                "Insert(Some(8), \"y\")",
                "Insert(None, \"z\")"
            ]
        );
    }

    #[test]
    fn a_wrong_rule_is_replaced_and_its_counter_deleted() {
        let mut limited = unit(9, "limit rate 3/second drop");
        limited.first = Some(8);
        assert_eq!(
            steps_of(&["limit rate 3/second tcp dport 1 drop"], &[limited]),
            [
                "Delete(8)",
                "Replace(9, \"limit rate 3/second tcp dport 1 drop\")"
            ]
        );
    }

    #[test]
    fn an_extra_rule_is_deleted() {
        assert_eq!(
            steps_of(&["b"], &[unit(5, "a"), unit(6, "b"), unit(7, "")]),
            ["Delete(5)"]
        );
    }
}

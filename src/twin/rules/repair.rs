//! The tables of iptables-nft, compared chain by chain with those of the machine: iptables-nft-save prints
//! rules that `nft` made wrongly or not at all.

use std::collections::BTreeMap;

use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::edit::Facts;
use super::filter::Copied;
use super::listing::{self, Chain, Table, compared};
use super::native::{self, Command, declarations, load_in_turn, name_missing};
use super::own;
use super::place::{At, LeftOut, Reason};
use super::programs::FilterError;
use super::restore::{Line, Plan, Role};
use crate::host::iptables::nft_family;
use crate::netfilter::backend::Backend;

/// Makes the twin's tables list the rules that the machine's list.
pub fn repair(
    live: &[Table],
    plans: &[Plan<'_>],
    facts: &Facts,
    copied: &mut Copied,
) -> Result<(), FilterError> {
    let Some(chains) = own::chains()? else {
        return Ok(());
    };
    let twins = own::list(&chains, true)?;
    let mut repaired = Vec::new();
    for live in live {
        let is_same = |twin: &&Table| twin.family == live.family && twin.name == live.name;
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
    // Chains may have come by now.
    let chains = own::chains()?.unwrap_or_default();
    let twins = own::list(&chains, false)?;
    for (table, expected) in &repaired {
        let is_same = |twin: &&Table| twin.family == table.family && twin.name == table.name;
        let twin = twins.iter().find(is_same);
        let chain = twin.and_then(|twin| twin.chain(&expected.name));
        let there = chain.map_or(&[][..], |chain| &chain.rules);
        name_missing(table, expected, there, facts, copied);
    }
    Ok(())
}

/// Returns the rules of each chain that is not nvactl's, as they were loaded.
fn lines<'p>(plan: Option<&'p Plan<'p>>) -> BTreeMap<&'p str, Vec<&'p Line<'p>>> {
    let mut lines: BTreeMap<&str, Vec<&Line<'_>>> = BTreeMap::new();
    for line in plan.iter().flat_map(|plan| &plan.lines) {
        if line.role != Role::Declaration && !own::is_nvactls(line.chain) {
            lines.entry(line.chain).or_default().push(line);
        }
    }
    lines
}

/// Repairs one table, and returns the chains that were changed with the rules that they should have.
fn repair_table<'l>(
    live: &'l Table,
    twin: &Table,
    lines: &BTreeMap<&str, Vec<&Line<'_>>>,
    facts: &Facts,
    copied: &mut Copied,
) -> Result<Vec<(&'l Table, Chain)>, FilterError> {
    let is_missing = |chain: &&Chain| twin.chain(&chain.name).is_none();
    let missing: Vec<&Chain> = live.chains.iter().filter(is_missing).collect();
    let mut absent = live.clone();
    absent
        .blocks
        .retain(|block| !twin.blocks.iter().any(|one| one.name == block.name));
    if !missing.is_empty() || !absent.blocks.is_empty() {
        load_in_turn(live, &declarations(&absent, &missing), copied)?;
    }
    let mut repaired = Vec::new();
    let mut commands = Vec::new();
    let empty = Chain::default();
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
        // A rule whose place another one holds, or that was refused, is named already.
        let is_copy = |unit: &Option<usize>| unit.is_none_or(|unit| units[unit].text.is_some());
        let expected = pairs.iter().filter(|(_, unit)| is_copy(unit));
        let expected = expected.filter_map(|(rule, _)| rule.map(|rule| rules[rule].clone()));
        let expected = Chain {
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

/// A rule of the machine's in the twin.
#[derive(Debug, PartialEq, Eq)]
struct Unit {
    /// The rule that counts before it, or the rule itself: the first that a packet meets.
    first: Option<u64>,
    handle: Option<u64>,
    /// As it is compared; `None` for one that is not as on the machine, and is meant so.
    text: Option<String>,
}

/// Finds the loaded lines in the twin's listing, which has a rule for each, and notes the handles of those
/// that count. `None` where the numbers differ.
fn units(lines: &[&Line<'_>], chain: &Chain, copied: &mut Copied) -> Option<Vec<Unit>> {
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
        units.push(Unit {
            first: first.take().or(handle),
            handle,
            text: rule
                .filter(|_| line.role == Role::Copy)
                .map(|rule| compared(&rule.text)),
        });
    }
    Some(units)
}

/// Pairs the rules of the machine with those of the twin, both by index and in order.
fn pairs(rules: &[&listing::Rule], units: &[Unit]) -> Vec<(Option<usize>, Option<usize>)> {
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

/// A step that makes a chain list the machine's rules.
#[derive(Debug, PartialEq, Eq)]
enum Step<'r> {
    /// The rule with this handle is another one in truth.
    Replace(u64, &'r str),
    /// A rule is missing before the one with this handle, or at the end.
    Insert(Option<u64>, &'r str),
    Delete(u64),
}

fn steps<'r>(
    pairs: &[(Option<usize>, Option<usize>)],
    rules: &[&'r listing::Rule],
    units: &[Unit],
) -> Vec<Step<'r>> {
    let mut steps = Vec::new();
    let mut next = None;
    // From the end, so that the rule behind is known.
    for pair in pairs.iter().rev() {
        let unit = pair.1.map(|unit| &units[unit]);
        match (pair.0.map(|rule| rules[rule]), unit) {
            (Some(rule), Some(unit)) => {
                if let (Some(text), Some(handle)) = (&unit.text, unit.handle)
                    && *text != compared(&rule.text)
                {
                    steps.push(Step::Replace(handle, &rule.text));
                    // The one that counts before it has the conditions of the wrong rule.
                    let shadow = unit.first.filter(|first| *first != handle);
                    steps.extend(shadow.map(Step::Delete));
                }
            }
            (Some(rule), None) => steps.push(Step::Insert(next, &rule.text)),
            (None, Some(unit)) => {
                if let (Some(_), Some(handle)) = (&unit.text, unit.handle) {
                    steps.push(Step::Delete(handle));
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
    step: &Step<'_>,
    table: &Table,
    chain: &Chain,
    facts: &Facts,
    copied: &mut Copied,
) -> Vec<Command> {
    let named = format!("{} {}", table.named(), chain.name);
    let delete = |handle: u64| format!("delete rule {named} handle {handle}\n");
    let command = |text: String, otherwise: Option<String>, rule: &str| Command {
        text,
        otherwise,
        names: (chain.name.clone(), rule.to_owned()),
    };
    let mut texts = |rule: &str| native::edited(table, &chain.name, rule, facts, copied);
    match step {
        Step::Delete(handle) => vec![command(delete(*handle), None, "")],
        Step::Insert(before, rule) => {
            let at = match before {
                Some(handle) => format!("insert rule {named} handle {handle}"),
                None => format!("add rule {named}"),
            };
            let texts = texts(rule).into_iter();
            let commands = texts.map(|text| command(format!("{at} {text}\n"), None, rule));
            commands.collect()
        }
        Step::Replace(handle, rule) => {
            let mut texts = texts(rule);
            let Some(last) = texts.pop() else {
                // nft cannot load the true rule, and the one in its place is wrong.
                return vec![command(delete(*handle), None, rule)];
            };
            let inserted = texts.into_iter();
            let mut commands: Vec<Command> = inserted
                .map(|text| {
                    let text = format!("insert rule {named} handle {handle} {text}\n");
                    command(text, None, rule)
                })
                .collect();
            // `nft replace` 1.0.6 ends in an assertion where a set has networks and addresses (measured by the
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

    fn rule(text: &str) -> listing::Rule {
        listing::Rule {
            text: text.to_owned(),
            handle: None,
        }
    }

    fn unit(handle: u64, text: &str) -> Unit {
        Unit {
            first: Some(handle),
            handle: Some(handle),
            text: (!text.is_empty()).then(|| text.to_owned()),
        }
    }

    fn steps_of(live: &[&str], units: &[Unit]) -> Vec<String> {
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
    fn a_missing_rule_comes_before_the_one_behind_and_its_counter() {
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
    fn a_wrong_rule_takes_its_counter_along() {
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
    fn a_rule_too_many_is_deleted() {
        assert_eq!(
            steps_of(&["b"], &[unit(5, "a"), unit(6, "b"), unit(7, "")]),
            ["Delete(5)"]
        );
    }
}

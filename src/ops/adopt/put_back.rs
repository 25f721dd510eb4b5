//! Puts foreign rules back in their places, among the rules that others have changed meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use crate::diff::foreign::{ForeignShift, GoalChain, foreign_rules};
use crate::net::Family;
use crate::net::per_family::PerFamily;
use crate::netfilter::backend::Backend;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::Target;
use crate::netfilter::text::line::Line;
use crate::netfilter::text::parse::rule_of;
use crate::ops::records::KeptRule;

/// The foreign rules that come back, and those that do not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PutBack {
    pub shift: ForeignShift,
    /// The rules that come back.
    pub placed: Vec<KeptRule>,
    pub left: Vec<LeftRule>,
}

/// A foreign rule that does not come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftRule {
    pub rule: KeptRule,
    pub why: WhyLeft,
}

/// Why a foreign rule does not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyLeft {
    ThereAgain,
    /// Neither the rule before it nor the one behind it is there.
    PlaceGone,
    /// The chain that it leads to or stands in is not there.
    ChainGone,
    /// The record of the rule cannot be read.
    Unreadable,
    /// The loaded rules could not be read.
    NotRead,
    /// It could not be loaded.
    Refused,
}

/// A chain on the way to its goal.
struct RefilledChain {
    exists: bool,
    before: BTreeSet<String>,
    /// How many foreign rules stand before nvactl's jump.
    first: usize,
    rules: Vec<Rule>,
    /// The text of each of `rules`.
    texts: Vec<String>,
    placed: Vec<Rule>,
}

/// Finds the places of the rules of one family: each behind the rule that was before it, else before the one that was
/// behind it. `kept` are those of the newest change first.
#[must_use]
pub fn put_back(live: &Ruleset, kept: &[&KeptRule]) -> PutBack {
    let (mut kept, mut left) = (kept.to_vec(), Vec::new());
    loop {
        let mut back = places(live, &kept);
        let after = back.shift.new.reached(live);
        let last = |one: &KeptRule| {
            let chain = after.chain(one.table, &one.chain);
            chain.map_or(1, |chain| chain.rules.len() + 1)
        };
        let leads_nowhere = |one: &&KeptRule| {
            let names = chain_names(&after, &[], one.table);
            back.placed.contains(one) && unloadable(&rule_of(&one.rule, &names)).is_some()
        };
        let (gone, stay): (Vec<_>, Vec<_>) = kept.into_iter().partition(leads_nowhere);
        if gone.is_empty() {
            back.left.extend(left);
            for LeftRule { rule, .. } in &mut back.left {
                rule.number = rule.number.min(last(rule));
            }
            return back;
        }
        left.extend(gone.into_iter().map(|one| LeftRule {
            rule: one.clone(),
            why: WhyLeft::ChainGone,
        }));
        kept = stay;
    }
}

/// Finds the places of rules. A jump may have one whose chain does not come back.
fn places(live: &Ruleset, kept: &[&KeptRule]) -> PutBack {
    let mut back = PutBack::default();
    let mut chains: BTreeMap<(TableName, &ChainName), RefilledChain> = BTreeMap::new();
    let mut names: BTreeMap<TableName, BTreeSet<ChainName>> = BTreeMap::new();
    for one in kept {
        let names = names
            .entry(one.table)
            .or_insert_with(|| chain_names(live, kept, one.table));
        let chain = chains
            .entry((one.table, &one.chain))
            .or_insert_with(|| refilled(live, one));
        match placed(one, chain, names) {
            Ok((at, rule)) => {
                chain.texts.insert(at, one.rule.clone());
                chain.rules.insert(at, rule.clone());
                chain.placed.push(rule);
                back.placed.push((*one).clone());
            }
            Err(why) => back.left.push(LeftRule {
                rule: (*one).clone(),
                why,
            }),
        }
    }
    for ((table, name), chain) in chains {
        if chain.placed.is_empty() {
            continue;
        }
        let of = |rules, absent| GoalChain { rules, absent };
        let old = live
            .chain(table, name)
            .map(|chain| foreign_rules(chain).cloned().collect());
        // A table that is not used yet lists no chain.
        let old = old.or(name.is_builtin().then(Vec::new));
        back.shift
            .old
            .set(table, name.clone(), of(old, chain.placed));
        back.shift
            .new
            .set(table, name.clone(), of(Some(chain.rules), Vec::new()));
    }
    back
}

/// Returns the names of a table's chains, those included that come back.
fn chain_names(live: &Ruleset, kept: &[&KeptRule], table: TableName) -> BTreeSet<ChainName> {
    let chains = live.tables.get(&table).into_iter();
    let present = chains.flat_map(|chains| chains.keys());
    let made = kept
        .iter()
        .filter(|one| one.table == table && one.with_chain);
    let made = made.map(|one| &one.chain);
    present.chain(made).cloned().collect()
}

/// Returns the foreign rules of a chain as they are.
fn refilled(live: &Ruleset, one: &KeptRule) -> RefilledChain {
    let chain = live.chain(one.table, &one.chain);
    let all = chain.map_or(&[][..], |chain| &chain.rules);
    let is_own = |rule: &&Rule| rule.leads_to().is_some_and(ChainName::is_own);
    let rules: Vec<Rule> = all.iter().filter(|rule| !is_own(rule)).cloned().collect();
    let texts: Vec<String> = rules.iter().map(ToString::to_string).collect();
    let before_jump = all.iter().position(|rule| is_own(&rule));
    RefilledChain {
        exists: chain.is_some() || one.chain.is_builtin(),
        before: texts.iter().cloned().collect(),
        first: before_jump.unwrap_or_default(),
        rules,
        texts,
        placed: Vec::new(),
    }
}

/// Returns the index of a rule among the foreign rules of its chain.
fn placed(
    one: &KeptRule,
    chain: &RefilledChain,
    names: &BTreeSet<ChainName>,
) -> Result<(usize, Rule), WhyLeft> {
    if !chain.exists && !one.with_chain {
        return Err(WhyLeft::ChainGone);
    }
    if chain.before.contains(&one.rule) {
        return Err(WhyLeft::ThereAgain);
    }
    let rule = rule_of(&one.rule, names);
    if let Some(why) = unloadable(&rule) {
        return Err(why);
    }
    let behind = one.behind.as_ref();
    let behind = behind.and_then(|text| chain.texts.iter().position(|other| other == text));
    let at = match &one.before {
        Some(text) => {
            // The same text may stand behind the successor as well.
            let end = behind.unwrap_or(chain.texts.len());
            let last = |texts: &[String]| texts.iter().rposition(|other| other == text);
            let last = last(&chain.texts[..end]).or_else(|| last(&chain.texts));
            last.map(|at| at + 1).or(behind)
        }
        // It was the first one, and the beginning of a chain is always there.
        None => behind.or(Some(chain.first)),
    };
    Ok((at.ok_or(WhyLeft::PlaceGone)?, rule))
}

/// Returns why the kernel would not take a rule.
fn unloadable(rule: &Rule) -> Option<WhyLeft> {
    match &rule.target {
        // A name that is no chain is read as a target of that name.
        Some(Target::Other(words)) if words.first().is_none_or(|word| word.spelled() != "DNAT") => {
            Some(WhyLeft::ChainGone)
        }
        Some(Target::Unread(_)) => Some(WhyLeft::Unreadable),
        _ => None,
    }
}

impl LeftRule {
    /// Returns a rule whose place is not looked for. `added` is the number of rules that stand before it now and did not
    /// when it was adopted.
    #[must_use]
    pub fn moved(rule: &KeptRule, added: usize, why: WhyLeft) -> Self {
        let mut rule = rule.clone();
        rule.number += added;
        Self { rule, why }
    }

    /// Returns what happened to the rule, and the command that adds it.
    #[must_use]
    pub fn words(&self, backend: Backend) -> String {
        let KeptRule {
            family,
            table,
            chain,
            rule,
            ..
        } = &self.rule;
        let why = match self.why {
            WhyLeft::ThereAgain => "is loaded already and was not added a second time",
            WhyLeft::PlaceGone => {
                "did not come back, because neither the rule before it nor the rule behind it is there"
            }
            WhyLeft::ChainGone => "did not come back, because a chain that it needs is gone",
            WhyLeft::Unreadable => "did not come back, because its record cannot be read",
            WhyLeft::NotRead => "did not come back, because the loaded rules cannot be read",
            WhyLeft::Refused => "did not come back, because it could not be loaded",
        };
        let once = match self.why {
            WhyLeft::ChainGone => " once the chain is there",
            _ => "",
        };
        format!(
            "the adopted rule `{chain} {rule}` in {table} {why}; to add it{once}: {}",
            command(&self.rule, backend.program(*family, "iptables").as_str())
        )
    }
}

/// Returns the command that adds a rule at its old number, or at the end of a chain that has become shorter.
fn command(rule: &KeptRule, program: &str) -> String {
    let read = rule_of(&rule.rule, &BTreeSet::new());
    Line::Insert(&rule.chain, rule.number, &read).as_command(program, rule.table)
}

/// Finds the places of the rules of each family that could be read. Those of a family without rules are left.
#[must_use]
pub fn put_back_all(live: &PerFamily<&Ruleset>, kept: &[KeptRule]) -> PerFamily<PutBack> {
    let mut back = live.map(|family, live| put_back(live, &of_family(kept, family)));
    if live.v6.is_none() {
        let unread = of_family(kept, Family::V6).into_iter();
        back.v4
            .left
            .extend(unread.map(|rule| LeftRule::moved(rule, 0, WhyLeft::NotRead)));
    }
    back
}

/// Returns whether all of these rules are in their chains.
#[must_use]
pub fn are_there(live: &Ruleset, kept: &[&KeptRule]) -> bool {
    kept.iter().all(|one| is_there(live, one))
}

/// Returns whether none of these rules is in its chain.
#[must_use]
pub fn are_gone(live: &Ruleset, kept: &[&KeptRule]) -> bool {
    !kept.iter().any(|one| is_there(live, one))
}

fn is_there(live: &Ruleset, kept: &KeptRule) -> bool {
    let chain = live.chain(kept.table, &kept.chain);
    let mut rules = chain.into_iter().flat_map(|chain| &chain.rules);
    rules.any(|rule| rule.to_string() == kept.rule)
}

/// Returns the rules of a family.
#[must_use]
pub fn of_family(kept: &[KeptRule], family: Family) -> Vec<&KeptRule> {
    kept.iter().filter(|one| one.family == family).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netfilter::text::parse::parse;

    const A: &str = "-s 192.0.2.1/32 -j ACCEPT";
    const B: &str = "-s 192.0.2.2/32 -j ACCEPT";
    const X: &str = "-s 192.0.2.8/32 -j DROP";
    const Y: &str = "-s 192.0.2.9/32 -j DROP";
    const NEW: &str = "-s 192.0.2.5/32 -j DROP";
    const OWN: &str = "-j NVACTL-FORWARD";

    fn live(rules: &[&str]) -> Ruleset {
        let lines: String = rules
            .iter()
            .map(|rule| format!("-A FORWARD {rule}\n"))
            .collect();
        let text = format!("*filter\n:NVACTL-FORWARD - [0:0]\n{lines}COMMIT\n");
        parse(&text).expect("it is a ruleset")
    }

    fn kept(rule: &str, before: Option<&str>, behind: Option<&str>) -> KeptRule {
        KeptRule {
            family: Family::V4,
            table: TableName::Filter,
            chain: ChainName::Forward,
            number: 2,
            rule: rule.to_owned(),
            before: before.map(str::to_owned),
            behind: behind.map(str::to_owned),
            with_chain: false,
        }
    }

    #[test]
    fn rules_find_their_places_among_other_changes() {
        // `A` and `B` stood between `X` and `Y`.
        let run = [kept(A, Some(X), Some(Y)), kept(B, Some(A), Some(Y))];
        let first = [kept(A, None, Some(Y))];
        let alone = [kept(A, None, None)];
        for (now, kept, then, left) in [
            (&[X, Y][..], &run[..], &[X, A, B, Y][..], &[][..]),
            (&[OWN, X, NEW, Y], &run, &[OWN, X, A, B, NEW, Y], &[]),
            (&[NEW, Y], &run, &[NEW, A, B, Y], &[]),
            // The predecessor's text stands behind the successor as well.
            (&[X, Y, X], &run, &[X, A, B, Y, X], &[]),
            (
                &[NEW],
                &run,
                &[NEW],
                &[WhyLeft::PlaceGone, WhyLeft::PlaceGone],
            ),
            (&[X, Y, A], &run, &[X, Y, A, B], &[WhyLeft::ThereAgain]),
            (&[NEW, Y], &first, &[NEW, A, Y], &[]),
            (&[OWN, NEW], &first, &[OWN, A, NEW], &[]),
            (&[NEW, OWN], &alone, &[NEW, OWN, A], &[]),
            (&[], &alone, &[A], &[]),
        ] {
            let live = live(now);
            let kept: Vec<&KeptRule> = kept.iter().collect();
            let back = put_back(&live, &kept);
            let after = back.shift.new.reached(&live);
            let chain = after.chain(TableName::Filter, &ChainName::Forward);
            let rules = chain.into_iter().flat_map(|chain| &chain.rules);
            let rules: Vec<String> = rules.map(ToString::to_string).collect();
            assert_eq!(rules, then, "{now:?}");
            let why: Vec<WhyLeft> = back.left.iter().map(|one| one.why).collect();
            assert_eq!(why, left, "{now:?}");
            assert_eq!(back.placed.len() + left.len(), kept.len());
            assert!(back.shift.old.changes(&live).is_empty(), "{now:?}");
        }
    }

    #[test]
    fn a_rule_that_does_not_come_back_is_a_command() {
        let left = LeftRule {
            rule: kept(A, None, None),
            why: WhyLeft::PlaceGone,
        };
        assert_eq!(
            left.words(Backend::Nft),
            "the adopted rule `FORWARD -s 192.0.2.1/32 -j ACCEPT` in filter did not come back, because neither the rule \
             before it nor the rule behind it is there; to add it: sudo iptables-nft -I FORWARD 2 -s 192.0.2.1/32 -j ACCEPT"
        );
    }

    #[test]
    fn a_command_is_for_the_chain_as_it_is_now() {
        let far = KeptRule {
            number: 9,
            ..kept(A, Some(X), Some(Y))
        };
        let number = |now: &[&str]| put_back(&live(now), &[&far]).left[0].rule.number;
        assert_eq!(number(&[]), 1);
        assert_eq!(number(&[OWN, NEW]), 3);
    }

    #[test]
    fn a_jump_without_its_chain_stays_away() {
        let back = put_back(&live(&[X]), &[&kept("-j MINE", Some(X), None)]);
        assert_eq!(
            back.left.first().map(|one| one.why),
            Some(WhyLeft::ChainGone)
        );
        assert!(back.shift.new.is_empty());
    }

    #[test]
    fn a_jump_whose_chain_does_not_come_back_stays_away() {
        let in_chain = |name: &str, rule: &str| KeptRule {
            chain: ChainName::from(name),
            with_chain: true,
            ..kept(rule, None, None)
        };
        // The only rule of `MINE` leads to a chain that is gone, so `MINE` does not come back either.
        let jump = kept("-j MINE", Some(X), None);
        let inner = in_chain("MINE", "-j GONE");
        let after = kept(A, Some("-j MINE"), None);
        let back = put_back(&live(&[X]), &[&jump, &inner, &after]);
        assert!(back.shift.new.is_empty(), "{back:?}");
        let mut left: Vec<(&str, WhyLeft)> = back
            .left
            .iter()
            .map(|one| (one.rule.rule.as_str(), one.why))
            .collect();
        left.sort_by_key(|(rule, _)| *rule);
        assert_eq!(
            left,
            [
                ("-j GONE", WhyLeft::ChainGone),
                ("-j MINE", WhyLeft::ChainGone),
                (A, WhyLeft::PlaceGone)
            ]
        );
        // The chain comes back with a rule that can, and the jump to it.
        let second = in_chain("MINE", A);
        let back = put_back(&live(&[X]), &[&jump, &inner, &second]);
        assert_eq!(back.placed, [jump, second]);
    }
}

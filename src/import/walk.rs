//! The rules that a packet can meet from a built-in chain on, in order.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::account::RuleFate;
use super::conditions::RuleConditions;
use super::exceptions::{Exceptions, LeavingRules};
use super::lookup::RedirectedLookup;
use super::place::{ImportedPlace, RuleWay};
use crate::net::Family;
use crate::netfilter::matches::Match;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::programs::owner_of;
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::{Chain, DEEPEST, Ruleset};
use crate::netfilter::target::Target;

/// The most rules on the way of a packet, beside those of its table. Chains that lead to one another many times multiply.
const MOST_REPEATED: usize = 200_000;

/// A rule on the way of a packet.
#[derive(Debug, Clone)]
pub struct Met<'r> {
    pub place: ImportedPlace,
    pub rule: &'r Rule,
    /// Its own conditions, and those of the jumps that lead to it.
    pub conditions: RuleConditions<'r>,
    /// The jumps that lead to it, from the built-in chain on.
    pub via: Vec<ImportedPlace>,
    /// The program that writes it; `None` for a rule of the user's.
    pub program: Option<&'static str>,
}

impl Met<'_> {
    /// Returns the jumps that lead to it, and its place.
    pub fn way(&self) -> RuleWay {
        (self.via.clone(), self.place.clone())
    }

    /// Returns whether the rule names certain connections, and is the user's.
    pub fn is_to_take(&self) -> bool {
        self.conditions.names_connections() && self.program.is_none()
    }
}

/// The rules on the way from one built-in chain.
#[derive(Debug, Default)]
pub struct Walk<'r> {
    pub rules: Vec<Met<'r>>,
    /// The jumps whose rules are not those of the user, with the reason.
    pub left: BTreeMap<ImportedPlace, RuleFate>,
    /// The rules followed so far, jumps included.
    followed: usize,
    /// The first rule that is not followed, since too many come before it.
    end: Option<ImportedPlace>,
}

impl Walk<'_> {
    /// Returns why the rules that packets meet are not known; `None` if they are.
    pub fn why_unknown(&self) -> Option<String> {
        let (end, followed) = (self.end.as_ref()?, self.followed);
        Some(format!(
            "the jumps before {end} lead packets through {followed} rules; nvactl follows no more, so it does not know \
             what becomes of them"
        ))
    }
}

/// Follows the jumps from a built-in chain. nvactl's own chains are left out. Chains of other programs are followed,
/// since they decide about packets too.
pub fn walk<'r>(
    family: Family,
    ruleset: &'r Ruleset,
    table: TableName,
    chain: &ChainName,
) -> Walk<'r> {
    let mut walk = Walk::default();
    let of_table = ruleset.chains().filter(|(one, ..)| *one == table);
    let walker = Walker {
        family,
        ruleset,
        table,
        most: MOST_REPEATED + of_table.map(|(.., chain)| chain.rules.len()).sum::<usize>(),
    };
    walker.follow(chain, &Path::default(), &mut walk);
    walk
}

/// The jumps on the way to a chain.
#[derive(Debug, Clone, Default)]
struct Path<'r> {
    /// They have the exceptions on the way to the chain.
    conditions: RuleConditions<'r>,
    via: Vec<ImportedPlace>,
    program: Option<&'static str>,
}

struct Walker<'r> {
    family: Family,
    ruleset: &'r Ruleset,
    table: TableName,
    /// The most rules that are followed.
    most: usize,
}

impl<'r> Walker<'r> {
    fn follow(&self, name: &ChainName, path: &Path<'r>, walk: &mut Walk<'r>) {
        let Some(chain) = self.ruleset.chain(self.table, name) else {
            return;
        };
        if walk.end.is_some() {
            return;
        }
        let leaving = Rc::new(self.leaving(name, chain, path));
        let mut left = 0;
        for (at, rule) in chain.rules.iter().enumerate() {
            let place = self.place(name, at);
            if walk.followed >= self.most {
                walk.end.get_or_insert(place);
                return;
            }
            walk.followed += 1;
            let mut conditions = path.conditions.and(rule);
            conditions.exceptions = path.conditions.exceptions.and(&leaving, left);
            match &rule.target {
                Some(Target::Return) => {}
                Some(Target::Jump(to) | Target::Goto(to)) => {
                    self.jump(to, place, conditions, path, walk);
                }
                _ => walk.rules.push(Met {
                    place,
                    rule,
                    conditions,
                    via: path.via.clone(),
                    program: path.program,
                }),
            }
            if leaves(rule) {
                if is_unconditional(rule) {
                    return;
                }
                left += 1;
            }
        }
    }

    /// Returns the rules of a chain by which packets leave it before its end.
    fn leaving(
        &self,
        name: &ChainName,
        chain: &'r Chain,
        path: &Path<'r>,
    ) -> LeavingRules<RuleConditions<'r>> {
        let rules = chain.rules.iter().enumerate();
        let rules = rules.filter(|(_, rule)| leaves(rule));
        let some = rules.take_while(|(_, rule)| !is_unconditional(rule));
        let mut leaving = LeavingRules {
            rules: Vec::new(),
            lookup: RedirectedLookup::default(),
        };
        for (number, (at, rule)) in some.enumerate() {
            let mut conditions = path.conditions.and(rule);
            conditions.exceptions = Exceptions::default();
            conditions.add_to(&mut leaving.lookup, number);
            leaving.rules.push((self.place(name, at), conditions));
        }
        leaving
    }

    fn place(&self, chain: &ChainName, at: usize) -> ImportedPlace {
        ImportedPlace {
            family: self.family,
            table: self.table,
            chain: chain.clone(),
            at,
        }
    }

    fn jump(
        &self,
        to: &ChainName,
        place: ImportedPlace,
        conditions: RuleConditions<'r>,
        path: &Path<'r>,
        walk: &mut Walk<'r>,
    ) {
        if to.is_own() {
            walk.left.insert(place, RuleFate::own());
            return;
        }
        let program = owner_of(self.table.as_str(), to.as_str());
        if let Some(program) = program.filter(|_| path.program.is_none()) {
            let why = format!("it leads to the rules of {program}");
            walk.left.insert(place.clone(), RuleFate::LeftAlone(why));
        }
        let too_much = if path.via.iter().any(|jump| jump.chain == *to) || place.chain == *to {
            Some("it leads back to its own chain, which no kernel loads".to_owned())
        } else if path.via.len() >= DEEPEST {
            Some(format!(
                "it leads deeper than {DEEPEST} chains, which no kernel follows"
            ))
        } else {
            None
        };
        if let Some(why) = too_much {
            walk.left.insert(place, RuleFate::LeftAlone(why));
            return;
        }
        let mut path = path.clone();
        path.conditions = conditions;
        path.via.push(place);
        path.program = path.program.or(program);
        self.follow(to, &path, walk);
    }
}

/// Returns whether the packets that meet a rule leave its chain.
fn leaves(rule: &Rule) -> bool {
    matches!(rule.target, Some(Target::Return | Target::Goto(_)))
}

/// Returns whether every packet that reaches a rule meets it.
fn is_unconditional(rule: &Rule) -> bool {
    let mut matches = rule.matches.iter();
    matches.all(|one| matches!(one, Match::Comment(_)))
}

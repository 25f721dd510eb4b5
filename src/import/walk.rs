//! The rules that a packet can meet from a built-in chain on, in order.

use std::collections::BTreeMap;

use super::account::RuleFate;
use super::conditions::RuleConditions;
use super::place::{ImportedPlace, RuleWay};
use crate::net::Family;
use crate::netfilter::matches::Match;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::programs::owner_of;
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::{DEEPEST, Ruleset};
use crate::netfilter::target::Target;

/// The most rules that jumps are followed to. Chains that lead to one another many times multiply.
const MOST_RULES: usize = 200_000;

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
    let walker = Walker {
        family,
        ruleset,
        table,
    };
    walker.follow(chain, &Path::default(), &mut walk);
    walk
}

/// The jumps on the way to a chain.
#[derive(Debug, Clone, Default)]
struct Path<'r> {
    conditions: RuleConditions<'r>,
    via: Vec<ImportedPlace>,
    program: Option<&'static str>,
}

struct Walker<'r> {
    family: Family,
    ruleset: &'r Ruleset,
    table: TableName,
}

impl<'r> Walker<'r> {
    fn follow(&self, name: &ChainName, path: &Path<'r>, walk: &mut Walk<'r>) {
        let Some(chain) = self.ruleset.chain(self.table, name) else {
            return;
        };
        // The packets that left this chain by an earlier rule.
        let mut gone: Vec<(ImportedPlace, RuleConditions<'r>)> = Vec::new();
        for (at, rule) in chain.rules.iter().enumerate() {
            let place = ImportedPlace {
                family: self.family,
                table: self.table,
                chain: name.clone(),
                at,
            };
            let mut conditions = path.conditions.and(rule);
            conditions.exceptions.extend(gone.iter().cloned());
            let leaves = matches!(rule.target, Some(Target::Return | Target::Goto(_)));
            match &rule.target {
                Some(Target::Return) => {}
                Some(Target::Jump(to) | Target::Goto(to)) => {
                    self.jump(to, place.clone(), &conditions, path, walk);
                }
                _ => walk.rules.push(Met {
                    place: place.clone(),
                    rule,
                    conditions: conditions.clone(),
                    via: path.via.clone(),
                    program: path.program,
                }),
            }
            if leaves {
                if is_unconditional(rule) {
                    return;
                }
                gone.push((place, conditions));
            }
        }
    }

    fn jump(
        &self,
        to: &ChainName,
        place: ImportedPlace,
        conditions: &RuleConditions<'r>,
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
        } else if walk.rules.len() >= MOST_RULES {
            Some(format!(
                "it leads to rules behind the first {MOST_RULES} on the way of a packet"
            ))
        } else {
            None
        };
        if let Some(why) = too_much {
            walk.left.insert(place, RuleFate::LeftAlone(why));
            return;
        }
        let mut path = path.clone();
        path.conditions = conditions.clone();
        path.via.push(place);
        path.program = path.program.or(program);
        self.follow(to, &path, walk);
    }
}

/// Returns whether every packet that reaches a rule meets it.
fn is_unconditional(rule: &Rule) -> bool {
    let mut matches = rule.matches.iter();
    matches.all(|one| matches!(one, Match::Comment(_)))
}

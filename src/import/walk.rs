//! The rules that a packet can meet from a built-in chain on, in order.

use std::collections::BTreeMap;

use super::account::RuleFate;
use super::conditions::RuleConditions;
use super::place::ImportedPlace;
use crate::net::Family;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::programs::owner_of;
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::{DEEPEST, Ruleset};
use crate::netfilter::target::Target;

/// A rule on the way of a packet.
#[derive(Debug, Clone)]
pub struct Met<'r> {
    pub place: ImportedPlace,
    pub rule: &'r Rule,
    /// Its own conditions, and those of the jumps that lead to it.
    pub conditions: RuleConditions<'r>,
    /// The number of rules on the way before those behind its chain. A packet that returns from the chain goes on
    /// there; behind the last rule it meets the policy.
    pub resumes: usize,
}

/// The rules on the way from one built-in chain.
#[derive(Debug, Default)]
pub struct Walk<'r> {
    pub rules: Vec<Met<'r>>,
    /// The jumps that are not followed, with the reason.
    pub left: BTreeMap<ImportedPlace, RuleFate>,
}

/// Follows the jumps from a built-in chain. A rule with `-g` stands behind the rules that it leads to: packets that come
/// to their end return from its own chain. Chains of nvactl and of programs that write their own rules are left out.
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
    walker.follow(chain, &RuleConditions::default(), 0, &mut walk);
    walk
}

struct Walker<'r> {
    family: Family,
    ruleset: &'r Ruleset,
    table: TableName,
}

impl<'r> Walker<'r> {
    fn follow(
        &self,
        name: &ChainName,
        conditions: &RuleConditions<'r>,
        depth: usize,
        walk: &mut Walk<'r>,
    ) {
        let Some(chain) = self.ruleset.chain(self.table, name) else {
            return;
        };
        let mut here = Vec::new();
        for (at, rule) in chain.rules.iter().enumerate() {
            let place = ImportedPlace {
                family: self.family,
                table: self.table,
                chain: name.clone(),
                at,
            };
            let all = conditions.and(rule);
            if let Some(to) = rule.leads_to() {
                match self.not_followed(to, depth) {
                    Some(fate) => {
                        walk.left.insert(place.clone(), fate);
                    }
                    None => self.follow(to, &all, depth + 1, walk),
                }
            }
            if !matches!(rule.target, Some(Target::Jump(_))) {
                here.push(walk.rules.len());
                walk.rules.push(Met {
                    place,
                    rule,
                    conditions: all,
                    resumes: 0,
                });
            }
        }
        let behind = walk.rules.len();
        for at in here {
            walk.rules[at].resumes = behind;
        }
    }

    fn not_followed(&self, to: &ChainName, depth: usize) -> Option<RuleFate> {
        if to.is_own() {
            return Some(RuleFate::own());
        }
        if let Some(program) = owner_of(self.table.as_str(), to.as_str()) {
            return Some(RuleFate::LeftAlone(format!(
                "it leads to the rules of {program}"
            )));
        }
        (depth >= DEEPEST).then(|| {
            RuleFate::LeftAlone(format!(
                "it leads deeper than {DEEPEST} chains, which no kernel follows"
            ))
        })
    }
}

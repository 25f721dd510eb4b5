//! The rules that commands make, one after the other, on a machine that has none.

use std::collections::{BTreeMap, BTreeSet};

use super::command::{Action, TypedCommand, TypedRule};
use super::error::{OrProblem, TypedProblem};
use super::extensions::target_named;
use super::spell::{self, TypedPlace};
use crate::net::Family;
use crate::netfilter::names::{ChainName, Policy, TableName};
use crate::netfilter::programs::owner_of;
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::{Chain, Ruleset};
use crate::netfilter::target::Target;
use crate::netfilter::text::parse::read_rule;

/// The longest name of a chain (`XT_EXTENSION_MAXNAMELEN` in `linux/netfilter/x_tables.h`, with the NUL).
const LONGEST_NAME: usize = 28;

/// The verdicts, which are numbers to the kernel and no targets with a name.
const VERDICTS: [&str; 4] = ["ACCEPT", "DROP", "RETURN", "QUEUE"];

/// The tables of one family.
#[derive(Debug)]
pub(super) struct Tables {
    family: Family,
    tables: BTreeMap<TableName, BTreeMap<ChainName, NumberedChain>>,
}

/// A chain whose rules know their lines.
#[derive(Debug, Default)]
struct NumberedChain {
    policy: Option<Policy>,
    rules: Vec<(Rule, usize)>,
}

/// The rules of a family, and the line of each.
pub(super) struct Numbered {
    pub ruleset: Ruleset,
    pub lines: Vec<(TableName, ChainName, Vec<usize>)>,
}

impl Tables {
    pub fn new(family: Family) -> Self {
        Self {
            family,
            tables: BTreeMap::new(),
        }
    }

    /// Adds a table without chains, as `*filter` does.
    pub fn begin(&mut self, table: TableName) {
        self.tables.entry(table).or_default();
    }

    /// Adds a chain, or sets its policy, as `:FORWARD DROP` does.
    pub fn declare(
        &mut self,
        table: TableName,
        name: ChainName,
        policy: Option<Policy>,
    ) -> OrProblem<()> {
        if name.is_builtin() {
            self.existing(table, &name)?;
        } else if policy.is_some() {
            return Err(TypedProblem::NoPolicy);
        } else {
            check_name(&name, self.family)?;
        }
        self.chain(table, name).policy = policy;
        Ok(())
    }

    /// Adds the built-in chains of a table, which the kernel has as soon as a command changes the table.
    pub fn with_builtin_chains(&mut self, table: TableName) {
        for name in table.builtin_chains() {
            let chain = self.chain(table, name.clone());
            chain.policy.get_or_insert(Policy::Accept);
        }
    }

    /// Makes the change of a command.
    pub fn apply(&mut self, command: TypedCommand, line: usize) -> OrProblem<()> {
        let TypedCommand {
            table,
            action,
            rule,
            ..
        } = command;
        match action {
            Action::Append(chain) => {
                for rule in self.rules(table, &chain, &rule)? {
                    self.existing(table, &chain)?.rules.push((rule, line));
                }
            }
            Action::Insert(chain, at) => {
                for rule in self.rules(table, &chain, &rule)? {
                    let rules = &mut self.existing(table, &chain)?.rules;
                    if at > rules.len() + 1 {
                        return Err(TypedProblem::NoPlace { chain, at });
                    }
                    rules.insert(at - 1, (rule, line));
                }
            }
            Action::Replace(chain, at) => {
                let mut rules = self.rules(table, &chain, &rule)?;
                let there = self.rule_at(table, &chain, at)?;
                match (rules.pop(), rules.len()) {
                    (Some(rule), 0) => *there = (rule, line),
                    (_, more) => return Err(TypedProblem::ManyReplacements(more + 1)),
                }
            }
            Action::Delete(chain) => {
                for rule in self.rules(table, &chain, &rule)? {
                    let rules = &mut self.existing(table, &chain)?.rules;
                    let at = rules.iter().position(|(there, _)| *there == rule);
                    rules.remove(at.ok_or_else(|| TypedProblem::NoSuchRule(chain.clone()))?);
                }
            }
            Action::DeleteAt(chain, at) => {
                self.rule_at(table, &chain, at)?;
                self.existing(table, &chain)?.rules.remove(at - 1);
            }
            Action::Flush(Some(chain)) => self.existing(table, &chain)?.rules.clear(),
            Action::Flush(None) => {
                for chain in self.tables.entry(table).or_default().values_mut() {
                    chain.rules.clear();
                }
            }
            Action::New(chain) => {
                check_name(&chain, self.family)?;
                let chains = self.tables.entry(table).or_default();
                if chain.is_builtin() || chains.contains_key(&chain) {
                    return Err(TypedProblem::ChainThere { table, chain });
                }
                chains.insert(chain, NumberedChain::default());
            }
            Action::DeleteChain(Some(chain)) => self.delete_chain(table, chain)?,
            Action::DeleteChain(None) => {
                let chains = self.tables.entry(table).or_default().keys();
                let made: Vec<ChainName> =
                    chains.filter(|name| !name.is_builtin()).cloned().collect();
                made.into_iter()
                    .try_for_each(|chain| self.delete_chain(table, chain))?;
            }
            Action::Rename(from, to) => self.rename(table, from, to)?,
            Action::SetPolicy(chain, policy) => {
                if table == TableName::Nat && policy == Policy::Drop {
                    return Err(TypedProblem::Refused(
                        "the chains of the table nat have no policy DROP",
                    ));
                }
                let there = self.existing(table, &chain)?;
                if !chain.is_builtin() {
                    return Err(TypedProblem::NoPolicy);
                }
                there.policy = Some(policy);
            }
            Action::Nothing => {}
        }
        Ok(())
    }

    /// Returns the rules that a command makes, or looks for.
    fn rules(
        &mut self,
        table: TableName,
        chain: &ChainName,
        typed: &TypedRule,
    ) -> OrProblem<Vec<Rule>> {
        self.existing(table, chain)?;
        let place = TypedPlace {
            family: self.family,
            table,
            chain,
        };
        let spelled = spell::rules(typed, place)?;
        let mut chains = BTreeSet::new();
        if let Some(target) = &typed.target
            && target.loaded.is_none()
            && (target.is_goto || !VERDICTS.contains(&target.name.as_str()))
        {
            let to = ChainName::from(target.name.as_str());
            if to.is_builtin() || !self.has(table, &to) {
                return Err(TypedProblem::UnknownTarget {
                    name: target.name.clone(),
                    table,
                    of: self.family,
                });
            }
            // A chain that another program makes is there, and its rules are not known.
            self.chain(table, to.clone());
            chains.insert(to);
        }
        let rules = spelled.iter().map(|words| {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            read_rule(&words, &chains)
        });
        Ok(rules.collect())
    }

    /// Returns whether rules may lead to a chain: it is there, or it is one that another program makes.
    fn has(&self, table: TableName, chain: &ChainName) -> bool {
        let chains = self.tables.get(&table);
        table.builtin_chains().contains(chain)
            || chains.is_some_and(|chains| chains.contains_key(chain))
            || (!chain.is_builtin() && owner_of(table.as_str(), chain.as_str()).is_some())
    }

    fn existing(&mut self, table: TableName, chain: &ChainName) -> OrProblem<&mut NumberedChain> {
        if !self.has(table, chain) {
            let chain = chain.clone();
            return Err(TypedProblem::NoChain { table, chain });
        }
        Ok(self.chain(table, chain.clone()))
    }

    fn chain(&mut self, table: TableName, name: ChainName) -> &mut NumberedChain {
        self.tables
            .entry(table)
            .or_default()
            .entry(name)
            .or_default()
    }

    fn rule_at(
        &mut self,
        table: TableName,
        chain: &ChainName,
        at: usize,
    ) -> OrProblem<&mut (Rule, usize)> {
        let no_place = || TypedProblem::NoPlace {
            chain: chain.clone(),
            at,
        };
        let rules = &mut self.existing(table, chain)?.rules;
        rules.get_mut(at - 1).ok_or_else(no_place)
    }

    fn delete_chain(&mut self, table: TableName, chain: ChainName) -> OrProblem<()> {
        if chain.is_builtin() {
            return Err(TypedProblem::Builtin(chain));
        }
        if !self.existing(table, &chain)?.rules.is_empty() {
            return Err(TypedProblem::NotEmpty(chain));
        }
        let chains = self.tables.entry(table).or_default();
        let mut rules = chains.values().flat_map(|chain| &chain.rules);
        if rules.any(|(rule, _)| rule.leads_to() == Some(&chain)) {
            return Err(TypedProblem::StillUsed(chain));
        }
        chains.remove(&chain);
        Ok(())
    }

    fn rename(&mut self, table: TableName, from: ChainName, to: ChainName) -> OrProblem<()> {
        if from.is_builtin() {
            return Err(TypedProblem::Builtin(from));
        }
        check_name(&to, self.family)?;
        self.existing(table, &from)?;
        let chains = self.tables.entry(table).or_default();
        if to.is_builtin() || chains.contains_key(&to) {
            return Err(TypedProblem::ChainThere { table, chain: to });
        }
        let renamed = chains.remove(&from).unwrap_or_default();
        chains.insert(to.clone(), renamed);
        let rules = chains.values_mut().flat_map(|chain| &mut chain.rules);
        for (rule, _) in rules {
            if let Some(Target::Jump(name) | Target::Goto(name)) = &mut rule.target
                && *name == from
            {
                *name = to.clone();
            }
        }
        Ok(())
    }

    /// Returns the rules and their lines.
    pub fn finish(self) -> Numbered {
        let mut ruleset = Ruleset::default();
        let mut all_lines = Vec::new();
        for (table, chains) in self.tables {
            let read = ruleset.tables.entry(table).or_default();
            for (name, NumberedChain { policy, rules }) in chains {
                let (rules, lines) = rules.into_iter().unzip();
                read.insert(name.clone(), Chain { policy, rules });
                all_lines.push((table, name, lines));
            }
        }
        Numbered {
            ruleset,
            lines: all_lines,
        }
    }
}

fn check_name(name: &ChainName, family: Family) -> OrProblem<()> {
    let text = name.as_str();
    let is_name = (1..=LONGEST_NAME).contains(&text.len())
        && !text.starts_with(['-', '!'])
        && !text.contains(|c: char| c.is_whitespace() || c.is_control());
    let is_target = VERDICTS.contains(&text) || target_named(text, family).is_some();
    if is_name && !is_target {
        Ok(())
    } else {
        Err(TypedProblem::BadChainName(text.to_owned()))
    }
}

//! The packets that left the way to a rule before it, by `RETURN` or `-g`.

use std::rc::Rc;

use super::addresses::Addresses;
use super::conditions::RuleConditions;
use super::lookup::RedirectedLookup;
use super::place::ImportedPlace;
use super::redirected::Redirected;
use crate::net::Family;

/// The rules of one chain by which packets leave it, as they are met on one way to the chain.
#[derive(Debug, PartialEq, Eq)]
pub struct LeavingRules<'r> {
    rules: Vec<(ImportedPlace, RuleConditions<'r>)>,
    lookup: RedirectedLookup,
}

impl<'r> LeavingRules<'r> {
    pub fn new(rules: Vec<(ImportedPlace, RuleConditions<'r>)>) -> Self {
        Self {
            lookup: RedirectedLookup::of(rules.iter().map(|(_, conditions)| conditions)),
            rules,
        }
    }

    /// Returns the conditions of the rules that redirected connections may meet. Others are among them.
    pub fn for_redirected(
        &self,
        redirected: &Redirected<'_>,
    ) -> impl Iterator<Item = &RuleConditions<'r>> {
        let numbers = self.lookup.find(redirected).into_iter();
        numbers.map(|number| &self.rules[number].1)
    }
}

/// The packets that left the way to a rule before it. The rules of a chain share one list, of which each has a part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exceptions<'r> {
    /// From the built-in chain on; each with the number of its rules that come before.
    chains: Vec<(Rc<LeavingRules<'r>>, usize)>,
}

impl<'r> Exceptions<'r> {
    /// Returns these exceptions and the first ones of a further chain.
    pub fn and(&self, rules: &Rc<LeavingRules<'r>>, first: usize) -> Self {
        let mut all = self.clone();
        if first > 0 {
            all.chains.push((Rc::clone(rules), first));
        }
        all
    }

    /// Returns the rules by which packets left, in order, each with its conditions. Those have no exceptions: packets
    /// that left before are exceptions here, too.
    pub fn iter(&self) -> impl Iterator<Item = &(ImportedPlace, RuleConditions<'r>)> {
        let chains = self.chains.iter();
        chains.flat_map(|(chain, first)| &chain.rules[..*first])
    }

    /// Returns the chains on the way that packets left before. The rules behind the exceptions are among theirs.
    pub fn chains(&self) -> impl Iterator<Item = &Rc<LeavingRules<'r>>> {
        self.chains.iter().map(|(chain, _)| chain)
    }
}

/// The packets of some connections that leave by a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    No,
    /// All those from its sources.
    Sources,
    /// Some of those from its sources.
    Part,
}

/// The clients that left the way to the rules met so far. Rules are met in order, so each exception is read once.
#[derive(Debug)]
pub struct LeftClients<'r> {
    family: Family,
    chains: Vec<LeftOfChain<'r>>,
}

#[derive(Debug)]
struct LeftOfChain<'r> {
    rules: Rc<LeavingRules<'r>>,
    /// The numbers of the exceptions that are to be read, the next one last.
    next: Vec<usize>,
    /// The clients that left.
    all: Addresses,
    /// The clients of which some packets left.
    some: Addresses,
}

impl<'r> LeftClients<'r> {
    pub fn new(family: Family) -> Self {
        Self {
            family,
            chains: Vec::new(),
        }
    }

    /// Returns those of some clients that did not leave before a rule; `None` if some of their packets did. `leaving` says
    /// which clients leave by a rule.
    pub fn without(
        &mut self,
        exceptions: &Exceptions<'r>,
        clients: Addresses,
        among: impl Fn(&RedirectedLookup, usize) -> Vec<usize>,
        leaving: impl Fn(&RuleConditions<'r>) -> Leaving,
    ) -> Option<Addresses> {
        let mut clients = clients;
        for (at, (rules, first)) in exceptions.chains.iter().enumerate() {
            if self.chains.get(at).is_none_or(|one| !Rc::ptr_eq(&one.rules, rules)) {
                self.chains.truncate(at);
                let mut next = among(&rules.lookup, rules.rules.len());
                next.reverse();
                self.chains.push(LeftOfChain {
                    rules: Rc::clone(rules),
                    next,
                    all: Addresses::none(self.family),
                    some: Addresses::none(self.family),
                });
            }
            let chain = &mut self.chains[at];
            chain.read_to(*first, self.family, &leaving);
            if chain.some.meet(&clients) {
                return None;
            }
            clients = clients.without(&chain.all);
        }
        Some(clients)
    }
}

impl<'r> LeftOfChain<'r> {
    /// Reads the first exceptions of the chain.
    fn read_to(
        &mut self,
        first: usize,
        family: Family,
        leaving: impl Fn(&RuleConditions<'r>) -> Leaving,
    ) {
        while let Some(number) = self.next.pop_if(|number| *number < first) {
            let conditions = &self.rules.rules[number].1;
            match leaving(conditions) {
                Leaving::No => {}
                Leaving::Sources => self.all.add(&conditions.sources(family)),
                Leaving::Part => {
                    let left = conditions.sources(family).without(&self.all);
                    self.some.add(&left);
                }
            }
        }
    }
}

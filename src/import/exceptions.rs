//! The packets that left the way to a rule before it, by `RETURN` or `-g`.

use std::rc::Rc;

use super::addresses::Addresses;
use super::lookup::RedirectedLookup;
use super::place::ImportedPlace;
use crate::net::Family;

/// The rules of one chain by which packets leave it, as they are met on one way to the chain. `C` are the conditions of a
/// rule.
#[derive(Debug, PartialEq, Eq)]
pub struct LeavingRules<C> {
    pub rules: Vec<(ImportedPlace, C)>,
    /// The rules by their places in the list.
    pub lookup: RedirectedLookup,
}

/// The packets that left the way to a rule before it. The rules of a chain share one list, and each has the first part of
/// it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceptions<C> {
    /// From the built-in chain on; each with the number of its rules that come before.
    chains: Vec<(Rc<LeavingRules<C>>, usize)>,
}

impl<C> Default for Exceptions<C> {
    fn default() -> Self {
        Self { chains: Vec::new() }
    }
}

impl<C> Exceptions<C> {
    /// Returns these exceptions and the first ones of a further chain.
    pub fn and(&self, rules: &Rc<LeavingRules<C>>, first: usize) -> Self {
        let further = (first > 0).then(|| (Rc::clone(rules), first));
        let own = self.chains.iter();
        let own = own.map(|(chain, first)| (Rc::clone(chain), *first));
        Self {
            chains: own.chain(further).collect(),
        }
    }

    /// Returns the rules by which packets left, in order, each with its conditions. Those have no exceptions: packets
    /// that left before are exceptions here, too.
    pub fn iter(&self) -> impl Iterator<Item = &(ImportedPlace, C)> {
        let chains = self.chains.iter();
        chains.flat_map(|(chain, first)| &chain.rules[..*first])
    }

    /// Returns the lists of the chains that packets left before. Rules that come later are among theirs.
    pub fn chains(&self) -> impl Iterator<Item = &Rc<LeavingRules<C>>> {
        self.chains.iter().map(|(chain, _)| chain)
    }
}

/// The packets that leave by a rule.
#[derive(Debug)]
pub enum Leaving {
    Nothing,
    /// All those from some sources.
    Sources(Addresses),
    /// Some of those from some sources.
    PartOf(Addresses),
}

/// The clients that left the way to the rules met so far. Rules are met in order, so each exception is read once.
#[derive(Debug)]
pub struct LeftClients<C> {
    family: Family,
    chains: Vec<LeftOfChain<C>>,
}

#[derive(Debug)]
struct LeftOfChain<C> {
    rules: Rc<LeavingRules<C>>,
    /// The numbers of the exceptions that are not read yet, the next one last.
    unread: Vec<usize>,
    /// The clients that left.
    all: Addresses,
    /// The clients of which some packets left.
    some: Addresses,
}

impl<C> LeftClients<C> {
    pub fn new(family: Family) -> Self {
        Self {
            family,
            chains: Vec::new(),
        }
    }

    /// Returns those of some clients that did not leave before a rule; `None` if some of their packets did. `among` chooses
    /// the exceptions of a chain that are read, and `leaving` says which packets leave by one.
    pub fn without(
        &mut self,
        exceptions: &Exceptions<C>,
        mut clients: Addresses,
        among: impl Fn(&LeavingRules<C>) -> Vec<usize>,
        leaving: impl Fn(&C) -> Leaving,
    ) -> Option<Addresses> {
        for (at, (rules, first)) in exceptions.chains.iter().enumerate() {
            let known = self.chains.get(at);
            if known.is_none_or(|one| !Rc::ptr_eq(&one.rules, rules)) {
                self.chains.truncate(at);
                let mut unread = among(rules);
                unread.reverse();
                self.chains.push(LeftOfChain {
                    rules: Rc::clone(rules),
                    unread,
                    all: Addresses::none(self.family),
                    some: Addresses::none(self.family),
                });
            }
            let chain = &mut self.chains[at];
            chain.read(*first, &leaving);
            if chain.some.meet(&clients) {
                return None;
            }
            if chain.all.meet(&clients) {
                clients = clients.without(&chain.all);
            }
        }
        Some(clients)
    }
}

impl<C> LeftOfChain<C> {
    /// Reads the first exceptions of the chain.
    fn read(&mut self, first: usize, leaving: impl Fn(&C) -> Leaving) {
        while let Some(number) = self.unread.pop_if(|number| *number < first) {
            match leaving(&self.rules.rules[number].1) {
                Leaving::Nothing => {}
                Leaving::Sources(sources) => self.all.add(&sources),
                // Those that left before do not leave again.
                Leaving::PartOf(sources) => self.some.add(&sources.without(&self.all)),
            }
        }
    }
}

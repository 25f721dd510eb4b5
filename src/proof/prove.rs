//! Old rules and new ones answer the same connections, each in copies of the same machines.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::changed_end::ChangedEnd;
use super::old_rules::OldRules;
use super::reasons::explaining;
use super::time_left::TimeLeft;
use crate::forwards::PacketTest;
use crate::import::{Draft, KnownRoutes, Remarked};
use crate::net::Family;
use crate::netfilter::ruleset::Ruleset;
use crate::twin::machine::Machine;
use crate::twin::packet_tests::{FoundEnd, test_ends};
use crate::twin::rule_change::RuleChange;
use crate::twin::rules::PacketFilter;
use crate::twin::{Twin, TwinError, netns};

/// The time for each of both sides: 10,000 forwards load in seconds, and a connection takes about a millisecond.
const LIMIT: Duration = Duration::from_mins(5);

/// The most connections that are opened again, each through copies of its own.
const MOST_AGAIN: usize = 40;

/// The connections that a proof opens, and the copies through which it opens them.
#[derive(Debug)]
pub struct ProofPlan<'p> {
    /// The spec that the old rules became.
    pub draft: &'p Draft,
    /// The old rules.
    pub rules: &'p [(Family, Ruleset)],
    pub tests: &'p [PacketTest],
    /// The machines, each with the places of its tests.
    pub machines: Vec<(Machine, Vec<usize>)>,
    pub before: CopyRules,
    pub after: CopyRules,
}

/// The rules of a copy.
#[derive(Debug)]
pub struct CopyRules {
    pub filter: PacketFilter,
    /// The change that is loaded over them.
    pub change: Option<RuleChange>,
}

/// Why no connections can be compared.
#[derive(Debug, Error)]
pub enum ProofError {
    #[error(transparent)]
    Twin(#[from] TwinError),
    #[error("no thread could be started")]
    Thread(#[source] io::Error),
}

/// The connections that were opened through both copies.
#[derive(Debug)]
pub struct Proof {
    /// How many were opened through both.
    pub connections: usize,
    pub differences: Vec<ProofDifference>,
    /// The connections about which nothing is known.
    pub not_opened: Vec<NotOpened>,
    /// The parts of the machine that a copy lacks and that may decide about packets.
    pub doubts: Vec<String>,
}

/// A connection that the old rules and the new ones treat differently.
#[derive(Debug)]
pub struct ProofDifference {
    pub test: PacketTest,
    pub before: FoundEnd,
    pub after: FoundEnd,
    /// The remarks that explain it.
    pub remarks: Vec<Remarked>,
}

/// A connection that could not be opened through one copy or both.
#[derive(Debug)]
pub struct NotOpened {
    pub test: PacketTest,
    pub why: String,
}

impl ProofDifference {
    /// Returns the codes of the remarks that explain it, each once.
    #[must_use]
    pub fn codes(&self) -> Vec<&'static str> {
        let codes = self.remarks.iter().map(|one| one.remark.code());
        codes.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Describes the connection.
    #[must_use]
    pub fn connection(&self) -> String {
        words(&self.test)
    }
}

impl NotOpened {
    /// Describes the connection.
    #[must_use]
    pub fn connection(&self) -> String {
        words(&self.test)
    }
}

/// Describes the connection of a test, without what it wants.
fn words(test: &PacketTest) -> String {
    let ingress = test.ingress.as_ref();
    let ingress = ingress.map_or(String::new(), |one| format!(" in by {one}"));
    let name = test.name.as_ref();
    let name = name.map_or(String::new(), |name| format!("{name}: "));
    format!(
        "{name}{} from {}{ingress} to {}",
        test.protocol, test.from, test.to
    )
}

impl Proof {
    /// Returns the differences that no remark explains.
    pub fn unexplained(&self) -> impl Iterator<Item = &ProofDifference> {
        self.differences.iter().filter(|one| one.remarks.is_empty())
    }

    /// Returns whether each connection was opened through both copies, and a remark explains each difference.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.not_opened.is_empty() && self.unexplained().next().is_none()
    }

    fn add(&mut self, outcome: ComparedEnds) {
        match outcome {
            ComparedEnds::NotOpened(one) => self.not_opened.push(one),
            ComparedEnds::Same => self.connections += 1,
            ComparedEnds::Differs(one) => {
                self.connections += 1;
                self.differences.push(one);
            }
        }
    }
}

/// The comparison of one connection.
enum ComparedEnds {
    NotOpened(NotOpened),
    Same,
    Differs(ProofDifference),
}

impl ComparedEnds {
    fn is_unexplained(&self) -> bool {
        matches!(self, ComparedEnds::Differs(one) if one.remarks.is_empty())
    }
}

/// Opens connections through copies with the rules before, and through copies with those after.
///
/// # Errors
/// When a copy cannot be made, or does not take its rules.
pub fn prove(plan: ProofPlan<'_>) -> Result<Proof, ProofError> {
    let ProofPlan {
        draft,
        rules,
        tests,
        machines,
        before,
        after,
    } = plan;
    let mut sides = BothSides {
        old: OldRules::new(draft, rules),
        before: ProofSide::of(before),
        after: ProofSide::of(after),
        doubts: BTreeSet::new(),
    };
    let work = || -> Result<_, TwinError> {
        let mut outcomes = BTreeMap::new();
        for (machine, places) in machines {
            let some: Vec<&PacketTest> = places.iter().map(|place| &tests[*place]).collect();
            let each = sides.outcomes(&machine, &some)?;
            outcomes.extend(places.into_iter().zip(each));
        }
        Ok((outcomes, sides.doubts))
    };
    let (outcomes, doubts) = netns::aside(work).map_err(ProofError::Thread)??;
    let mut proof = Proof {
        connections: 0,
        differences: Vec::new(),
        not_opened: Vec::new(),
        doubts: doubts.into_iter().collect(),
    };
    for outcome in outcomes.into_values() {
        proof.add(outcome);
    }
    Ok(proof)
}

/// The copies of both sides.
struct BothSides<'r> {
    old: OldRules<'r>,
    before: ProofSide,
    after: ProofSide,
    /// The parts of the machine that the copies lack.
    doubts: BTreeSet<String>,
}

impl BothSides<'_> {
    /// Returns the comparisons of connections through copies of a machine. A difference without a reason is looked for
    /// again through new copies.
    fn outcomes(
        &mut self,
        machine: &Machine,
        tests: &[&PacketTest],
    ) -> Result<Vec<ComparedEnds>, TwinError> {
        let mut outcomes = self.opened(machine, tests)?;
        let unexplained = outcomes.iter_mut().zip(tests);
        let unexplained = unexplained.filter(|(outcome, _)| outcome.is_unexplained());
        for (outcome, test) in unexplained.take(MOST_AGAIN) {
            let mut tries = self.old.most_tries();
            while tries > 0 && outcome.is_unexplained() {
                tries -= 1;
                if let Some(again) = self.opened(machine, &[test])?.pop() {
                    *outcome = again;
                }
            }
        }
        Ok(outcomes)
    }

    fn opened(
        &mut self,
        machine: &Machine,
        tests: &[&PacketTest],
    ) -> Result<Vec<ComparedEnds>, TwinError> {
        let before = self.before.ends(machine, tests, &mut self.doubts)?;
        let after = self.after.ends(machine, tests, &mut self.doubts)?;
        let routes = KnownRoutes(machine.networks().collect());
        let each = tests.iter().zip(before.into_iter().zip(after));
        let each = each.map(|(test, (before, after))| self.compared(test, before, after, &routes));
        Ok(each.collect())
    }

    fn compared(
        &self,
        test: &PacketTest,
        before: FoundEnd,
        after: FoundEnd,
        routes: &KnownRoutes,
    ) -> ComparedEnds {
        let why = [&before, &after].into_iter().find_map(|end| match end {
            FoundEnd::NotOpened(why) => Some(why.clone()),
            _ => None,
        });
        if let Some(why) = why {
            let test = test.clone();
            return ComparedEnds::NotOpened(NotOpened { test, why });
        }
        if before == after {
            return ComparedEnds::Same;
        }
        let named = test.ingress.as_ref();
        let changed = ChangedEnd {
            test,
            arrival: named.or_else(|| routes.side(test.from)),
            before: &before,
            after: &after,
        };
        if changed.is_other_source() && self.old.choose_from_one_range(&changed.all_sources()) {
            return ComparedEnds::Same;
        }
        let remarks = explaining(&self.old, &changed);
        ComparedEnds::Differs(ProofDifference {
            remarks,
            test: test.clone(),
            before,
            after,
        })
    }
}

/// The copies with the rules of one side, one after the other.
struct ProofSide {
    rules: CopyRules,
    left: TimeLeft,
}

impl ProofSide {
    fn of(rules: CopyRules) -> Self {
        Self {
            rules,
            left: TimeLeft::new(LIMIT),
        }
    }

    /// Returns the ends of connections through a copy of a machine. Adds what the copy lacks to the doubts.
    fn ends(
        &mut self,
        machine: &Machine,
        tests: &[&PacketTest],
        doubts: &mut BTreeSet<String>,
    ) -> Result<Vec<FoundEnd>, TwinError> {
        let begin = Instant::now();
        let deadline = self.left.deadline(begin);
        let mut twin = Twin::make(machine.clone(), &self.rules.filter, Some(deadline))?;
        // Through a machine that does not forward yet, no connection would pass before or after.
        twin.turn_forwarding_on()?;
        if let Some(change) = &self.rules.change
            && !twin.keep_change(change)?
        {
            return Err(TwinError::ChangeRefused);
        }
        let (ends, is_uncertain) = test_ends(&mut twin, tests, deadline)?;
        doubts.extend(twin.doubts().iter().map(ToString::to_string));
        if is_uncertain {
            doubts.extend(twin.watched().iter().map(ToString::to_string));
        }
        self.left.spend(begin, Instant::now());
        Ok(ends)
    }
}

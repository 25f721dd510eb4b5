//! The proof of an import: the old rules and the plan answer the same connections, each in copies of
//! the same machines.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::asking;
use super::changed_end::ChangedEnd;
use super::old_rules::OldRules;
use super::reasons::explaining;
use super::rules::{CopyRules, ImportedRules};
use super::time_left::TimeLeft;
use crate::commands::error::{Error, Result};
use crate::forwards::PacketTest;
use crate::import::{Draft, KnownRoutes, Remarked};
use crate::net::Interface;
use crate::twin::machine::Machine;
use crate::twin::packet_tests::{FoundEnd, test_ends};
use crate::twin::{Twin, TwinError, netns};

/// The time for each of both sides: 10,000 forwards load in seconds, and a connection takes about a millisecond.
const LIMIT: Duration = Duration::from_mins(5);

/// The connections that were opened through both copies.
pub(super) struct Proof {
    /// How many were opened through both.
    pub(super) connections: usize,
    pub(super) differences: Vec<ProofDifference>,
    /// The connections about which nothing is known.
    pub(super) not_opened: Vec<NotOpened>,
    /// The parts of the machine that a copy lacks and that may decide about packets.
    pub(super) doubts: Vec<String>,
}

/// A connection that the old rules and the plan treat differently.
pub(super) struct ProofDifference {
    pub(super) test: PacketTest,
    pub(super) before: FoundEnd,
    pub(super) after: FoundEnd,
    /// The remarks that explain it.
    pub(super) remarks: Vec<Remarked>,
}

/// A connection that could not be opened through one copy or both.
pub(super) struct NotOpened {
    pub(super) test: PacketTest,
    pub(super) why: String,
}

impl Proof {
    /// Returns the differences that no remark explains.
    pub(super) fn unexplained(&self) -> impl Iterator<Item = &ProofDifference> {
        self.differences.iter().filter(|one| one.remarks.is_empty())
    }

    /// Returns whether each connection was opened through both copies, and a remark explains each difference.
    pub(super) fn is_complete(&self) -> bool {
        self.not_opened.is_empty() && self.unexplained().next().is_none()
    }
}

/// The ends of a connection through both copies.
struct BothEnds {
    before: FoundEnd,
    after: FoundEnd,
    /// The interface by which the client came in, if the ends differ and a route names it.
    arrival: Option<Interface>,
}

/// The copies with the rules of one side, one after the other.
struct ProofSide {
    rules: CopyRules,
    left: TimeLeft,
}

/// Opens connections through copies with the old rules, and through copies with the plan in their place.
pub(super) fn prove(found: &ImportedRules, draft: &Draft) -> Result<Proof> {
    let tests = asking::tests(draft, &found.rules);
    let asked: Vec<&PacketTest> = tests.iter().collect();
    let (mut old, mut new) = (
        ProofSide::of(found.unchanged()?),
        ProofSide::of(found.changed(draft)?),
    );
    let copies = found.machines(&asked, &draft.set)?;
    let work = || -> Result<_, TwinError> {
        let mut doubts = BTreeSet::new();
        let mut ends = BTreeMap::new();
        for (machine, numbers) in copies {
            let some: Vec<&PacketTest> = numbers.iter().map(|number| asked[*number]).collect();
            let before = old.ends(&machine, &some, &mut doubts)?;
            let after = new.ends(&machine, &some, &mut doubts)?;
            let routes = KnownRoutes(machine.networks().collect());
            let each = before.into_iter().zip(after).zip(numbers);
            ends.extend(each.map(|((before, after), number)| {
                let named = asked[number].ingress.as_ref();
                // Most connections end as before.
                let arrival = (before != after).then(|| {
                    let arrival = named.or_else(|| routes.side(asked[number].from));
                    arrival.cloned()
                });
                let ends = BothEnds {
                    before,
                    after,
                    arrival: arrival.flatten(),
                };
                (number, ends)
            }));
        }
        Ok((ends, doubts))
    };
    let (ends, doubts) = match netns::aside(work) {
        Ok(found) => found?,
        Err(error) => return Err(Error::Thread(error)),
    };
    let mut proof = Proof {
        connections: 0,
        differences: Vec::new(),
        not_opened: Vec::new(),
        doubts: doubts.into_iter().collect(),
    };
    let old = OldRules::new(draft, &found.rules);
    for (number, ends) in ends {
        proof.add(&old, asked[number], ends);
    }
    Ok(proof)
}

impl Proof {
    fn add(&mut self, old: &OldRules<'_>, test: &PacketTest, ends: BothEnds) {
        let BothEnds {
            before,
            after,
            arrival,
        } = ends;
        let why = [&before, &after].into_iter().find_map(|end| match end {
            FoundEnd::NotOpened(why) => Some(why.clone()),
            _ => None,
        });
        if let Some(why) = why {
            let test = test.clone();
            self.not_opened.push(NotOpened { test, why });
            return;
        }
        self.connections += 1;
        if before == after {
            return;
        }
        let changed = ChangedEnd {
            test,
            arrival: arrival.as_ref(),
            before: &before,
            after: &after,
        };
        if changed.is_other_source() && old.choose_from_one_range(&changed.all_sources()) {
            return;
        }
        let remarks = explaining(old, &changed);
        self.differences.push(ProofDifference {
            remarks,
            test: test.clone(),
            before,
            after,
        });
    }
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

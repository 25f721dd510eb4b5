//! The proof of an import: the old rules and the plan answer the same connections, each in copies of
//! the same machines.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::asking;
use super::rules::{CopyRules, ImportedRules};
use crate::commands::error::{Error, Result};
use crate::forwards::{Forward, Outbound, PacketTest, TestDestination, TestHost};
use crate::import::{Aside, Draft, Remarked};
use crate::net::Port;
use crate::twin::machine::Machine;
use crate::twin::packet_tests::{FoundEnd, test_ends};
use crate::twin::{Twin, TwinError, netns};

/// 10,000 forwards load in seconds, and a connection takes about a millisecond.
const LIMIT: Duration = Duration::from_mins(5);

/// The connections that were opened through both copies.
pub(super) struct Proof {
    pub(super) connections: usize,
    pub(super) differences: Vec<ProofDifference>,
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

impl Proof {
    /// Returns the differences that no remark explains.
    pub(super) fn unexplained(&self) -> impl Iterator<Item = &ProofDifference> {
        self.differences.iter().filter(|one| one.remarks.is_empty())
    }
}

/// Opens connections through copies with the old rules, and through copies with the plan in their place.
pub(super) fn prove(found: &ImportedRules, draft: &Draft) -> Result<Proof> {
    let tests = asking::tests(draft, &found.rules);
    let asked: Vec<&PacketTest> = tests.iter().collect();
    let (old, new) = (found.unchanged()?, found.changed(draft)?);
    let copies = found.machines(&asked, &draft.set)?;
    let work = || -> Result<_, TwinError> {
        let deadline = Instant::now() + LIMIT;
        let mut doubts = BTreeSet::new();
        let mut differences = BTreeMap::new();
        for (machine, numbers) in copies {
            let some: Vec<&PacketTest> = numbers.iter().map(|number| asked[*number]).collect();
            let mut through = |rules| ends(&machine, rules, &some, deadline, &mut doubts);
            let both = through(&old)?.into_iter().zip(through(&new)?);
            let each: Vec<_> = numbers.into_iter().zip(both).collect();
            doubts.extend(
                each.iter()
                    .filter_map(|(_, (before, after))| match (before, after) {
                        (FoundEnd::NotOpened(why), _) | (_, FoundEnd::NotOpened(why)) => {
                            Some(format!("a connection was not opened: {why}"))
                        }
                        _ => None,
                    }),
            );
            let each = each.into_iter();
            differences.extend(each.filter(|(_, (before, after))| before != after));
        }
        Ok((differences, doubts))
    };
    let (differences, doubts) = match netns::aside(work) {
        Ok(found) => found?,
        Err(error) => return Err(Error::Thread(error)),
    };
    let differences = differences.into_iter().map(|(number, (before, after))| {
        let test = asked[number];
        ProofDifference {
            remarks: explaining(draft, test),
            test: test.clone(),
            before,
            after,
        }
    });
    Ok(Proof {
        connections: tests.len(),
        differences: differences.collect(),
        doubts: doubts.into_iter().collect(),
    })
}

/// Returns the ends of connections through a copy of a machine. Adds what the copy lacks to the doubts.
fn ends(
    machine: &Machine,
    rules: &CopyRules,
    tests: &[&PacketTest],
    deadline: Instant,
    doubts: &mut BTreeSet<String>,
) -> Result<Vec<FoundEnd>, TwinError> {
    let mut twin = Twin::make(machine.clone(), &rules.filter, Some(deadline))?;
    // Through a machine that does not forward yet, no connection would pass before or after.
    twin.turn_forwarding_on()?;
    if let Some(change) = &rules.change
        && !twin.keep_change(change)?
    {
        return Err(TwinError::ChangeRefused);
    }
    let (ends, is_uncertain) = test_ends(&mut twin, tests, deadline)?;
    doubts.extend(twin.doubts().iter().map(ToString::to_string));
    if is_uncertain {
        doubts.extend(twin.watched().iter().map(ToString::to_string));
    }
    Ok(ends)
}

/// Returns the remarks that explain why a connection ends differently.
fn explaining(draft: &Draft, test: &PacketTest) -> Vec<Remarked> {
    let explains = |one: &&Remarked| {
        let forwards = draft
            .set
            .forwards
            .iter()
            .filter(|forward| forward.name == one.entry);
        let entries = draft
            .set
            .outbound
            .iter()
            .filter(|entry| entry.name == one.entry);
        let asides = forwards.filter_map(|forward| aside(forward, test));
        let mut asides = asides.chain(entries.filter_map(|entry| outward(entry, test)));
        asides.any(|aside| one.remark.explains(aside))
    };
    draft.remarks.iter().filter(explains).cloned().collect()
}

/// Returns the place of a connection beside an outbound entry; `None` if it has nothing to do with it.
fn outward(entry: &Outbound, test: &PacketTest) -> Option<Aside> {
    if entry.family != test.family() {
        return None;
    }
    if entry.allow_from.contains(test.from) {
        return Some(Aside::Outward);
    }
    let comes_in = test
        .ingress
        .as_ref()
        .is_none_or(|ingress| entry.ingress.contains(ingress));
    comes_in.then_some(Aside::OutwardBeside)
}

/// Returns the place of a connection beside a forward; `None` if the rules of the forward have nothing to do with it.
fn aside(forward: &Forward, test: &PacketTest) -> Option<Aside> {
    let protocol = test.protocol.transport();
    let is_ping = protocol.is_none();
    if protocol.is_some_and(|protocol| protocol != forward.protocol)
        || test.family() != forward.family()
    {
        return None;
    }
    let listens = |port: Option<Port>| port.is_some_and(|port| forward.listen.ports.contains(port));
    let comes_in = test
        .ingress
        .as_ref()
        .is_none_or(|ingress| forward.ingress.contains(ingress));
    let (address, port) = match test.to {
        TestDestination::Machine(port) => {
            return listens(Some(port)).then_some(Aside::Listener);
        }
        TestDestination::Host(TestHost { address, port }) => (address, port),
    };
    if forward.listen.address == Some(address) && (listens(port) || is_ping) {
        return Some(Aside::Listener);
    }
    let mut targets = forward.target.destinations.iter();
    if targets.any(|to| to.address == address) {
        return Some(Aside::Target { is_ping });
    }
    let mut targets = forward.target.destinations.iter();
    let is_port = |port: Port| targets.any(|to| forward.ports_at(to).contains(port));
    let is_redirected = comes_in && listens(port);
    let is_like = is_ping || listens(port) || port.is_some_and(is_port);
    is_like.then_some(Aside::Other {
        is_ping,
        is_redirected,
    })
}

//! The tests of a spec, each opened as a connection through a twin.

mod compare;
mod copies;
mod ends;
mod paths;
mod rounds;
mod targets;
mod values;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

pub use copies::{TestCopy, copies, entrances};
pub use ends::{FoundEnd, ReachedEnd, test_ends};
pub use paths::{FailedPath, MOST_TRACED, trace_failed};
pub use values::{Mismatch, TestOutcome, TestedPacket};

use super::connection::{ClientSides, Connection, Opener, PlaceError, own_address};
use super::{Twin, TwinError};
use crate::forwards::{ForwardSet, PacketTest, TestDestination, TestHost};
use compare::{host, mismatch, ports};
use rounds::PlannedTest;
use targets::targets;

/// The bytes of a request and of its answer.
const BYTES: usize = 64;
/// How many connections are opened for each of several hosts at most, until each was reached.
const ROUNDS: usize = 8;

/// Opens the connection of each test, as [`run_once`] does. If the order of chains for translation is not known, the
/// tests are run with both orders, and a test whose outcome depends on it is unknown.
///
/// # Errors
/// As [`run_once`].
pub fn run_tests<'t>(
    twin: &mut Twin,
    tests: &[&'t PacketTest],
    sets: &[&ForwardSet],
    deadline: Instant,
) -> Result<Vec<TestedPacket<'t>>, TwinError> {
    let mut tested = run_once(twin, tests, sets, deadline)?;
    let rivals = twin.rivals();
    if rivals.is_empty() {
        return Ok(tested);
    }
    twin.exchange_rivals()?;
    let otherwise = run_once(twin, tests, sets, deadline)?;
    twin.exchange_rivals()?;
    for (one, other) in tested.iter_mut().zip(otherwise) {
        match (&one.outcome, other.outcome) {
            (TestOutcome::NotOpened(_), _) | (TestOutcome::Failed(_), TestOutcome::Failed(_)) => {}
            (_, TestOutcome::NotOpened(why)) => one.outcome = TestOutcome::NotOpened(why),
            (first, second) if *first == second => {}
            _ => one.outcome = TestOutcome::Unknown(in_doubt(&unordered(&rivals))),
        }
    }
    Ok(tested)
}

/// Says that the order of some chains is not known.
#[must_use]
pub fn unordered(rivals: &[String]) -> String {
    format!(
        "the kernel asks first whichever of these chains was made last: {}",
        rivals.join(", ")
    )
}

/// Opens the connection of each test. The answer of a test does not depend on the tests before it: limits of the spec,
/// and rules of others that remember packets, see the connection of one test in each twin. The calling thread is in the
/// twin's machine namespace before and after.
///
/// `sets`: the specs whose rules the twin has.
///
/// # Errors
/// If the worlds cannot answer for the addresses of the tests. A later error becomes [`TestOutcome::NotOpened`].
fn run_once<'t>(
    twin: &mut Twin,
    tests: &[&'t PacketTest],
    sets: &[&ForwardSet],
    deadline: Instant,
) -> Result<Vec<TestedPacket<'t>>, TwinError> {
    let connections = connections(twin, tests);
    answer_for(twin, tests)?;
    let each = tests.iter().zip(connections);
    let each = each.map(|(test, connection)| TestedPacket {
        test,
        connection: connection.map_err(with_edit),
        targets: targets(test, sets),
        seen: BTreeSet::new(),
        outcome: TestOutcome::late(),
    });
    let mut tested: Vec<TestedPacket<'_>> = each.collect();
    let rounds = if twin.takes_turns() {
        rounds::one_by_one(tests, sets)
    } else {
        rounds::by_limits(tests, sets)
    };
    if let Some(first) = rounds.first() {
        let opened = open(twin, &mut tested, first, deadline);
        note_error(opened, &mut tested, first);
    }
    let all: Vec<PlannedTest> = rounds.iter().flatten().copied().collect();
    for round in &rounds[1.min(rounds.len())..] {
        open_in_new_twin(twin, &mut tested, round, deadline);
    }
    for one in all {
        let twins = times(&tested[one.number]).div_ceil(one.most.max(1));
        for _ in 1..twins {
            if !tested[one.number].is_passed() || tested[one.number].has_seen_all() {
                break;
            }
            // A test passes only with all its connections.
            tested[one.number].outcome = TestOutcome::late();
            open_in_new_twin(twin, &mut tested, &[one], deadline);
        }
    }
    Ok(tested)
}

/// Returns how many connections are opened for a test at most, until each host was reached.
fn times(tested: &TestedPacket<'_>) -> usize {
    match tested.hosts() {
        0 | 1 => 1,
        several => several * ROUNDS,
    }
}

/// Opens the connections of some tests in a new twin, if there is time. The tests are not opened yet.
fn open_in_new_twin(
    twin: &mut Twin,
    tested: &mut [TestedPacket<'_>],
    some: &[PlannedTest],
    deadline: Instant,
) {
    if Instant::now() >= deadline {
        return;
    }
    let renewed = twin.renew();
    let opened = renewed.and_then(|()| open(twin, tested, some, deadline));
    note_error(opened, tested, some);
}

/// Enters an error as the outcome of all tests that it concerns.
fn note_error(
    opened: Result<(), TwinError>,
    tested: &mut [TestedPacket<'_>],
    some: &[PlannedTest],
) {
    if let Err(error) = opened {
        for one in some {
            tested[one.number].outcome = TestOutcome::NotOpened(error.words());
        }
    }
}

/// Opens the connections of some tests in the twin.
fn open(
    twin: &mut Twin,
    tested: &mut [TestedPacket<'_>],
    some: &[PlannedTest],
    deadline: Instant,
) -> Result<(), TwinError> {
    // Packets of the twin's own do not count.
    counted(twin)?;
    let mut opener = Opener::of(twin)?;
    for one in some {
        if Instant::now() >= deadline {
            break;
        }
        open_one(twin, &mut opener, &mut tested[one.number], one.most);
    }
    drop(opener);
    twin.enter()?;
    let met = counted(twin)?;
    match some {
        _ if met.is_empty() => Ok(()),
        [one] => {
            tested[one.number].outcome = met_watched(twin, &met);
            Ok(())
        }
        several => find_met(twin, tested, several, deadline),
    }
}

/// Opens connections again in a new twin, in the same order, and reads the counters of watched rules after each. The
/// outcome of a test whose packets were counted is unknown. A program lists each chain, so this is done only if a rule
/// has counted, and it takes less time than a twin for each test.
fn find_met(
    twin: &mut Twin,
    tested: &mut [TestedPacket<'_>],
    some: &[PlannedTest],
    deadline: Instant,
) -> Result<(), TwinError> {
    for one in some {
        tested[one.number].outcome = TestOutcome::late();
    }
    twin.renew()?;
    let mut before = twin.packets()?;
    let mut opener = Opener::of(twin)?;
    for one in some {
        if Instant::now() >= deadline {
            break;
        }
        let tested = &mut tested[one.number];
        open_one(twin, &mut opener, tested, one.most);
        twin.enter()?;
        let packets = twin.packets()?;
        let each = packets.iter().zip(&before).enumerate();
        let met = each.filter(|(_, (packets, before))| packets > before);
        let met: Vec<usize> = met.map(|(number, _)| number).collect();
        if !met.is_empty() {
            tested.outcome = met_watched(twin, &met);
        }
        before = packets;
    }
    drop(opener);
    twin.enter()
}

/// Returns the outcome of a test whose packets met watched rules, which have these numbers.
fn met_watched(twin: &Twin, met: &[usize]) -> TestOutcome {
    let rules = met.iter().filter_map(|number| twin.watched().get(*number));
    let rules: Vec<String> = rules.map(ToString::to_string).collect();
    let rules = rules.join("; ");
    TestOutcome::Unknown(format!(
        "its packets met a rule whose effect a copy cannot show: {rules}"
    ))
}

fn in_doubt(doubt: &str) -> String {
    format!("a copy cannot show how its packets meet this: {doubt}")
}

/// Opens the connection of a test, at most `most` times.
fn open_one(twin: &Twin, opener: &mut Opener<'_>, tested: &mut TestedPacket<'_>, most: usize) {
    tested.outcome = match tested.connection.clone() {
        Ok(connection) => outcome(twin, opener, tested, &connection, most),
        Err(why) => TestOutcome::NotOpened(why),
    };
}

fn counted(twin: &mut Twin) -> Result<Vec<usize>, TwinError> {
    if twin.watched().is_empty() {
        return Ok(Vec::new());
    }
    twin.counted()
}

/// Returns the connection of each test, or the reason why there is none.
fn connections(twin: &Twin, tests: &[&PacketTest]) -> Vec<Result<Connection, PlaceError>> {
    let sides = ClientSides::of(twin, tests.iter().map(|test| test.from));
    let connection = |test: &&PacketTest| -> Result<Connection, PlaceError> {
        let from = sides.place(test.from, test.ingress.as_ref())?;
        let (to, port) = match test.to {
            TestDestination::Host(TestHost { address, port }) => (address, port),
            TestDestination::Machine(port) => (own_address(twin, test.from, from)?, Some(port)),
        };
        Ok(Connection {
            protocol: test.protocol,
            client: test.from,
            client_port: None,
            from,
            to,
            port,
            bytes: BYTES,
        })
    };
    tests.iter().map(connection).collect()
}

/// Returns the reason why a test of a spec has no connection, and the edit that gives it one.
fn with_edit(error: PlaceError) -> String {
    match error {
        PlaceError::NoSide { .. } => {
            format!("{error}; name the one by which it comes in, such as `in: eth0`")
        }
        error => error.to_string(),
    }
}

/// Lets the worlds answer for all addresses of the tests.
fn answer_for(twin: &mut Twin, tests: &[&PacketTest]) -> Result<(), TwinError> {
    let own = twin.machine().addresses();
    let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
    for test in tests {
        addresses.insert(test.from);
        addresses.extend(test.to.address());
        addresses.extend(test.reaches.hosts().iter().map(|host| host.address));
    }
    twin.answer_for(&addresses.difference(&own).copied().collect())
}

/// Opens the connection of a test; one that may reach several hosts is opened until each was reached, and at most `most`
/// times.
fn outcome(
    twin: &Twin,
    opener: &mut Opener<'_>,
    tested: &mut TestedPacket<'_>,
    connection: &Connection,
    most: usize,
) -> TestOutcome {
    let test = tested.test;
    let ports = ports(test.reaches.hosts());
    for _ in 0..times(tested).min(most.max(1)) {
        let end = match opener.open(connection, &ports) {
            Ok(end) => end,
            Err(error) => return TestOutcome::NotOpened(error.words()),
        };
        if let Some(doubt) = twin.doubted(connection, &end) {
            return TestOutcome::Unknown(in_doubt(&doubt));
        }
        if let Some(mismatch) = mismatch(twin, test, end.reached(), end.is_delivered()) {
            return TestOutcome::Failed(mismatch);
        }
        tested.seen.extend(end.reached().map(host));
        if tested.has_seen_all() {
            break;
        }
    }
    TestOutcome::Passed
}

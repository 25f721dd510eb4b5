//! The tests of a spec, each opened as a connection through a twin.

mod ends;
mod rounds;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

pub use ends::{ReachedEnd, TestEnd, test_ends};
pub use values::{Mismatch, TestOutcome, TestedPacket};

use super::connection::{ClientSides, Connection, ConnectionEnd, Opener, PlaceError, own_address};
use super::judge::sources;
use super::talk::Reached;
use super::traced::{TracedConnection, trace};
use super::{Twin, TwinError};
use crate::forwards::{ForwardSet, PacketTest, Reaches, Snat, TestDestination, TestHost};
use crate::net::Port;
use rounds::PlannedTest;

/// The bytes of a request and of its answer.
const BYTES: usize = 64;
/// How many connections are opened for each of several hosts at most, until each was reached.
const ROUNDS: usize = 8;
/// The most failed tests whose connections are followed.
pub const MOST_TRACED: usize = 10;

/// Opens the connection of each test. The answer of a test does not depend on the tests before it: limits of the spec,
/// and rules of others that remember packets, see the connection of one test in each twin. The calling thread is in the
/// twin's machine namespace before and after.
///
/// `sets`: the specs whose rules the twin has.
///
/// # Errors
/// If the worlds cannot answer for the addresses of the tests. A later error becomes [`TestOutcome::NotOpened`].
pub fn run_tests<'t>(
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
        connection,
        outcome: late(),
    });
    let mut tested: Vec<TestedPacket<'_>> = each.collect();
    let rounds = if twin.takes_turns() {
        rounds::one_by_one(tests, sets)
    } else {
        rounds::by_limits(tests, sets)
    };
    let mut rounds = rounds.iter();
    if let Some(first) = rounds.next() {
        let opened = open(twin, &mut tested, first, deadline);
        note_error(opened, &mut tested, first);
    }
    for round in rounds {
        open_in_new_twin(twin, &mut tested, round, deadline);
    }
    Ok(tested)
}

/// Returns the outcome of a test that is not opened in time.
fn late() -> TestOutcome {
    TestOutcome::NotOpened("the time limit was reached first".to_owned())
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
            tested[one.number].outcome = TestOutcome::Unknown(met);
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
        tested[one.number].outcome = late();
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
            tested.outcome = TestOutcome::Unknown(met);
        }
        before = packets;
    }
    drop(opener);
    twin.enter()
}

/// Opens the connection of a test, at most `most` times.
fn open_one(twin: &Twin, opener: &mut Opener<'_>, tested: &mut TestedPacket<'_>, most: usize) {
    tested.outcome = match &tested.connection {
        Ok(connection) => outcome(twin, opener, tested.test, connection, most),
        Err(why) => TestOutcome::NotOpened(why.clone()),
    };
}

/// Follows the connections of the first failed tests, each in a new twin. Returns their paths by the number of the test.
/// The calling thread is in the twin's machine namespace before and after.
///
/// # Errors
/// If the twin cannot be made again, or packets cannot be watched.
pub fn trace_failed(
    twin: &mut Twin,
    tested: &[TestedPacket<'_>],
    deadline: Instant,
) -> Result<BTreeMap<usize, TracedConnection>, TwinError> {
    let mut traces = BTreeMap::new();
    let numbered = tested.iter().enumerate();
    let failed = numbered.filter(|(_, one)| matches!(one.outcome, TestOutcome::Failed(_)));
    for (number, one) in failed.take(MOST_TRACED) {
        let Ok(connection) = &one.connection else {
            continue;
        };
        if Instant::now() >= deadline {
            break;
        }
        twin.renew()?;
        let path = trace(twin, connection, &ports(one.test.reaches.hosts()))?;
        traces.insert(number, path);
    }
    Ok(traces)
}

fn counted(twin: &mut Twin) -> Result<Vec<usize>, TwinError> {
    if twin.watched().is_empty() {
        return Ok(Vec::new());
    }
    twin.counted()
}

/// Returns the connection of each test, or the reason why there is none.
fn connections(twin: &Twin, tests: &[&PacketTest]) -> Vec<Result<Connection, String>> {
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
    let each = tests.iter().map(connection);
    each.map(|one| one.map_err(|error| error.to_string()))
        .collect()
}

/// Lets the worlds answer for all addresses of the tests.
fn answer_for(twin: &mut Twin, tests: &[&PacketTest]) -> Result<(), TwinError> {
    let own = twin.machine().addresses();
    let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
    for test in tests {
        addresses.insert(test.from);
        if let TestDestination::Host(host) = test.to {
            addresses.insert(host.address);
        }
        addresses.extend(test.reaches.hosts().iter().map(|host| host.address));
    }
    twin.answer_for(&addresses.difference(&own).copied().collect())
}

/// Opens the connection of a test; one with several hosts is opened until each was reached, and at most `most` times.
fn outcome(
    twin: &Twin,
    opener: &mut Opener<'_>,
    test: &PacketTest,
    connection: &Connection,
    most: usize,
) -> TestOutcome {
    let hosts = test.reaches.hosts();
    let ports = ports(hosts);
    let times = if hosts.len() > 1 {
        hosts.len() * ROUNDS
    } else {
        1
    };
    let mut seen: BTreeSet<TestHost> = BTreeSet::new();
    for _ in 0..times.min(most.max(1)) {
        let end = match opener.open(connection, &ports) {
            Ok(end) => end,
            Err(error) => return TestOutcome::NotOpened(error.words()),
        };
        if let Some(mismatch) = mismatch(twin, test, &end) {
            return TestOutcome::Failed(mismatch);
        }
        seen.extend(end.reached().map(host));
        if seen.len() == hosts.len() {
            break;
        }
    }
    TestOutcome::Passed
}

/// Returns the ports of hosts.
fn ports(hosts: &[TestHost]) -> Vec<Port> {
    hosts.iter().filter_map(|host| host.port).collect()
}

/// Returns the host that was reached, as a test writes it.
fn host(reached: &Reached) -> TestHost {
    TestHost {
        address: reached.target.ip(),
        // A ping has port 0.
        port: Port::new(reached.target.port()),
    }
}

/// Returns how a connection ended otherwise than a test wants.
fn mismatch(twin: &Twin, test: &PacketTest, end: &ConnectionEnd) -> Option<Mismatch> {
    let Reaches::OneOf(hosts) = &test.reaches else {
        let reached = end.reached()?;
        return Some(Mismatch::Reached {
            host: host(reached),
            behind: behind(twin, reached).to_owned(),
            source: reached.source.ip(),
        });
    };
    let Some(reached) = end.reached() else {
        return Some(Mismatch::NotReached);
    };
    let at = host(reached);
    if !hosts.contains(&at) {
        return Some(Mismatch::Elsewhere {
            host: at,
            behind: behind(twin, reached).to_owned(),
        });
    }
    if let Some(snat) = test.snat
        && !is_source(twin, test, snat, reached)
    {
        return Some(Mismatch::Source(reached.source.ip()));
    }
    (!end.is_delivered()).then_some(Mismatch::NoAnswer(at))
}

/// Returns the interface behind which a host was reached.
fn behind<'w>(twin: &'w Twin, reached: &Reached) -> &'w str {
    &twin.worlds()[reached.world].interface
}

/// Returns whether a host saw the source that a test wants.
fn is_source(twin: &Twin, test: &PacketTest, snat: Snat, reached: &Reached) -> bool {
    let meant = sources(twin, snat, test.from, behind(twin, reached));
    let seen = reached.source.ip();
    meant.iter().any(|addresses| addresses.contains(&seen))
}

//! The tests of a spec, each opened as a connection through a twin.

mod ends;
mod values;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

pub use ends::{ReachedEnd, TestEnd, test_ends};
pub use values::{Mismatch, TestOutcome, TestedPacket};

use super::connection::{ClientSides, Connection, ConnectionEnd, Opener, PlaceError, own_address};
use super::judge::sources;
use super::talk::Reached;
use super::{Twin, TwinError};
use crate::forwards::{PacketTest, Reaches, Snat, TestDestination, TestHost};
use crate::net::Port;

/// The bytes of a request and of its answer.
const BYTES: usize = 64;
/// How many connections are opened for each of several hosts at most, until each was reached.
const ROUNDS: usize = 8;
/// The most failed tests that are opened again in a new twin.
const AGAIN: usize = 16;

/// Opens the connection of each test, in order. A test that fails is opened again in a new twin, since a rule may have
/// counted the connections of earlier tests. The calling thread is in the twin's machine namespace before and after.
///
/// # Errors
/// If no connection can be opened at all. An error at one connection becomes its [`TestOutcome::NotOpened`].
pub fn run_tests<'t>(
    twin: &mut Twin,
    tests: &[&'t PacketTest],
    deadline: Instant,
) -> Result<Vec<TestedPacket<'t>>, TwinError> {
    let connections = connections(twin, tests);
    answer_for(twin, tests)?;
    let _ = counted(twin);
    let mut opener = Opener::of(twin)?;
    let mut tested = Vec::with_capacity(tests.len());
    for (test, connection) in tests.iter().zip(connections) {
        let outcome = if Instant::now() < deadline {
            outcome(twin, &mut opener, test, &connection)
        } else {
            TestOutcome::NotOpened("the time limit was reached first".to_owned())
        };
        tested.push(TestedPacket {
            test,
            connection,
            outcome,
        });
    }
    drop(opener);
    twin.enter()?;
    let met = counted(twin)?;
    let is_met = !met.is_empty();
    let is_again =
        |one: &&mut TestedPacket<'_>| is_met || matches!(one.outcome, TestOutcome::Failed(_));
    let most = if is_met { usize::MAX } else { AGAIN };
    for one in tested.iter_mut().filter(is_again).take(most) {
        if Instant::now() >= deadline {
            break;
        }
        one.outcome = alone(twin, one)?;
    }
    Ok(tested)
}

/// Opens the connection of a test in a new twin.
fn alone(twin: &mut Twin, tested: &TestedPacket<'_>) -> Result<TestOutcome, TwinError> {
    twin.renew()?;
    let _ = counted(twin);
    let mut opener = Opener::of(twin)?;
    let outcome = outcome(twin, &mut opener, tested.test, &tested.connection);
    drop(opener);
    twin.enter()?;
    let met = counted(twin)?;
    Ok(if met.is_empty() {
        outcome
    } else {
        TestOutcome::Unknown(met)
    })
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

/// Opens the connection of a test, one with several hosts until each was reached.
fn outcome(
    twin: &Twin,
    opener: &mut Opener<'_>,
    test: &PacketTest,
    connection: &Result<Connection, String>,
) -> TestOutcome {
    let connection = match connection {
        Ok(connection) => connection,
        Err(why) => return TestOutcome::NotOpened(why.clone()),
    };
    let hosts = test.reaches.hosts();
    let ports = ports(hosts);
    let times = if hosts.len() > 1 {
        hosts.len() * ROUNDS
    } else {
        1
    };
    let mut seen: BTreeSet<TestHost> = BTreeSet::new();
    for _ in 0..times {
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
#[must_use]
pub fn ports(hosts: &[TestHost]) -> Vec<Port> {
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

//! The tests of a spec, each opened as a connection through a twin.

mod values;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

pub use values::{Mismatch, TestOutcome, TestedPacket};

use super::connection::{Connection, ConnectionEnd, Opener};
use super::talk::{From, Reached};
use super::{Twin, TwinError};
use crate::forwards::{PacketTest, Reaches, Snat, TestDestination, TestHost};
use crate::host::network::{self, Packet};
use crate::net::{Family, Port};

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
    let each = tests.iter().zip(connections);
    let mut tested: Vec<TestedPacket<'t>> = each
        .map(|(test, connection)| TestedPacket::new(test, connection))
        .collect();
    let _ = counted(twin);
    let mut opener = Opener::of(twin)?;
    for one in &mut tested {
        one.outcome = in_time(deadline, || outcome(twin, &mut opener, one));
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
    let outcome = outcome(twin, &mut opener, tested);
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

fn in_time(deadline: Instant, outcome: impl FnOnce() -> TestOutcome) -> TestOutcome {
    if Instant::now() >= deadline {
        TestOutcome::NotOpened("the time limit was reached first".to_owned())
    } else {
        outcome()
    }
}

/// Returns the connection of each test, or the reason why there is none.
fn connections(twin: &Twin, tests: &[&PacketTest]) -> Vec<Result<Connection, String>> {
    let back = |test: &PacketTest| Packet {
        to: test.from,
        came: None,
    };
    let unplaced = tests.iter().filter(|test| test.ingress.is_none());
    let sides = network::interfaces(&unplaced.map(|test| back(test)).collect());
    let connection = |test: &&PacketTest| {
        let by = match &test.ingress {
            Some(ingress) => ingress.as_str(),
            None => match sides.get(&back(test)) {
                Some(side) => side.as_str(),
                None => return Err(format!("the machine has no route to {}", test.from)),
            },
        };
        let mut worlds = twin.worlds().iter();
        let world = worlds
            .position(|world| world.interface == by)
            .ok_or_else(|| format!("the machine has no interface {by} on which packets arrive"))?;
        let (to, port) = match test.to {
            TestDestination::Host(TestHost { address, port }) => (address, port),
            TestDestination::Machine(port) => {
                let link = twin.machine().link(by);
                let family = test.family();
                let own = link.and_then(|link| link.first(family));
                let own = own.ok_or_else(|| format!("{by} has no {family} address"))?;
                (own, Some(port))
            }
        };
        Ok(Connection {
            protocol: test.protocol,
            client: test.from,
            client_port: None,
            from: From::World(world),
            to,
            port,
            bytes: BYTES,
        })
    };
    tests.iter().map(connection).collect()
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
        if let Reaches::OneOf(hosts) = &test.reaches {
            addresses.extend(hosts.iter().map(|host| host.address));
        }
    }
    twin.answer_for(&addresses.difference(&own).copied().collect())
}

/// Opens the connection of a test, one with several hosts until each was reached.
fn outcome(twin: &Twin, opener: &mut Opener<'_>, tested: &TestedPacket<'_>) -> TestOutcome {
    let connection = match &tested.connection {
        Ok(connection) => connection,
        Err(why) => return TestOutcome::NotOpened(why.clone()),
    };
    let (hosts, ports) = (tested.hosts(), tested.ports());
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
        if let Some(mismatch) = mismatch(twin, tested.test, &end) {
            return TestOutcome::Failed(mismatch);
        }
        seen.extend(end.reached().map(host));
        if seen.len() == hosts.len() {
            break;
        }
    }
    TestOutcome::Passed
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
    let seen = reached.source.ip();
    match snat {
        Snat::Addresses(range) => range.first() <= seen && seen <= range.last(),
        Snat::Client => seen == test.from,
        Snat::Masquerade => {
            let link = twin.machine().link(behind(twin, reached));
            let mut own = link.into_iter().flat_map(|link| link.of(Family::of(seen)));
            own.any(|address| address.net.addr() == seen)
        }
    }
}

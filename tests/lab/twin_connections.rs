//! Random connections through machines with the plans of random specs, opened for real and through a copy of the machine.
//! Both must end alike: where the packets come out, with which source, and whether the answer comes back.
//!
//! Many connections do not end as the spec wants, since routes are random too. That does not matter here.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nvactl::forwards::ForwardSet;
use nvactl::twin::Twin;
use nvactl::twin::connection::{Connection, Opener};
use nvactl::twin::connection_end::ConnectionEnd;
use nvactl::twin::talk::From;

use crate::chance::Chance;
use crate::lab::Backend;
use crate::long;
use crate::random_machine::RandomMachine;
use crate::random_specs::random_specs;
use crate::sides::Arrival;
use crate::twin_connection::with_opener_of;

/// The connections of one machine.
const OF_MACHINE: usize = 250;
/// How long silence lasts until it counts, and how long if the copy says otherwise.
const PATIENCE: Duration = Duration::from_millis(150);
const LONGER: Duration = Duration::from_millis(1500);
/// How often a connection whose target is chosen by chance is opened through the copy until it ends as the real one.
const TIMES: usize = 200;

/// The end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Delivered(Place),
    /// Packets came out, and no answer came back.
    Stuck(Place),
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    side: usize,
    target: SocketAddr,
    source: IpAddr,
}

/// Returns the end of a real connection.
fn real(machine: &RandomMachine, arrival: Option<&Arrival>) -> End {
    let Some(arrival) = arrival else {
        return End::Nothing;
    };
    let place = Place {
        side: arrival.side,
        target: arrival.target,
        source: machine.source(arrival.source.ip()),
    };
    if arrival.is_answered {
        End::Delivered(place)
    } else {
        End::Stuck(place)
    }
}

/// The results of many connections.
#[derive(Debug, Default)]
struct Results {
    delivered: usize,
    stuck: usize,
    nothing: usize,
    unknown: usize,
    /// The connections that ended otherwise in the copy, in words.
    different: Vec<String>,
}

impl Results {
    fn count(&self) -> usize {
        self.delivered + self.stuck + self.nothing + self.unknown
    }

    fn add(&mut self, more: Self) {
        self.delivered += more.delivered;
        self.stuck += more.stuck;
        self.nothing += more.nothing;
        self.unknown += more.unknown;
        self.different.extend(more.different);
    }
}

/// Returns the end that a connection has in the copy; `None` if it could not be opened.
fn copied(
    machine: &RandomMachine,
    twin: &Twin,
    opener: &mut Opener<'_>,
    connection: &Connection,
) -> Option<End> {
    let From::World(side) = connection.from else {
        return None;
    };
    let world = |name: &str| {
        twin.worlds()
            .iter()
            .position(|world| world.interface == name)
    };
    let connection = Connection {
        from: From::World(world(&machine.names[side])?),
        ..connection.clone()
    };
    let end = opener.open(&connection, &[]).ok()?;
    let place = end.reached().map(|reached| Place {
        side: machine.side(&twin.worlds()[reached.world].interface),
        target: reached.target,
        source: machine.source(reached.source.ip()),
    });
    Some(match (end, place) {
        (ConnectionEnd::Delivered(_), Some(place)) => End::Delivered(place),
        (ConnectionEnd::Stuck(_), Some(place)) => End::Stuck(place),
        _ => End::Nothing,
    })
}

/// Opens random connections on a machine and in its copy. `between` is done after the copy was made.
fn compared(
    mut machine: RandomMachine,
    count: usize,
    between: impl FnOnce(&RandomMachine) + Send + 'static,
) -> Results {
    let connections: Vec<Connection> = (0..count * 2)
        .filter_map(|_| machine.connection())
        .take(count)
        .collect();
    let firewall = Arc::new(machine);
    let host = Arc::clone(&firewall);
    with_opener_of(&host.sides.firewall, move |twin, opener| {
        let machine = firewall;
        assert_eq!(twin.left_out(), Vec::<String>::new());
        between(&machine);
        let mut results = Results::default();
        let arrivals = machine.sides.open(&connections, PATIENCE);
        for (connection, arrival) in connections.iter().zip(&arrivals) {
            let mut found = real(&machine, arrival.as_ref());
            let mut seen: Vec<End> = Vec::new();
            let ends = machine.ends(connection);
            for _ in 0..TIMES {
                match copied(&machine, twin, opener, connection) {
                    Some(end) if !seen.contains(&end) => seen.push(end),
                    Some(_) => {}
                    // A program that another test starts holds every socket until its exec.
                    None => thread::yield_now(),
                }
                if seen.contains(&found) || seen.len() >= ends {
                    break;
                }
            }
            if !seen.is_empty() && !seen.contains(&found) {
                // A busy machine may have been late.
                let again = machine.sides.open(slice::from_ref(connection), LONGER);
                found = real(&machine, again[0].as_ref());
            }
            match &found {
                _ if seen.is_empty() => results.unknown += 1,
                End::Delivered(_) => results.delivered += 1,
                End::Stuck(_) => results.stuck += 1,
                End::Nothing => results.nothing += 1,
            }
            if !seen.is_empty() && !seen.contains(&found) {
                let words = machine.words(connection);
                results
                    .different
                    .push(format!("{words}:\n  real: {found:?}\n  copy: {seen:?}"));
            }
        }
        results
    })
}

/// Compares on many machines, two at once. Returns the results, and the specs with their differences.
fn on_machines(count: usize, backend: Backend) -> (Results, Vec<String>) {
    let specs: Vec<(String, ForwardSet)> = random_specs(count).collect();
    let next = AtomicUsize::new(0);
    let all = Mutex::new((Results::default(), Vec::new()));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some((text, set)) = specs.get(n) else {
                        break;
                    };
                    let seed = u64::try_from(n).expect("there are few");
                    let machine = RandomMachine::new(set.clone(), Chance::of(seed), backend);
                    let results = compared(machine, OF_MACHINE, |_| {});
                    let mut all = all.lock().expect("nobody panicked");
                    if !results.different.is_empty() {
                        all.1
                            .push(format!("{text}\n{}", results.different.join("\n")));
                    }
                    all.0.add(results);
                }
            });
        }
    });
    all.into_inner().expect("nobody panicked")
}

lab_test!(either connections_end_in_a_copy_as_on_the_machine);
fn connections_end_in_a_copy_as_on_the_machine(backend: Backend) {
    let (results, different) = on_machines(long::count(3, 95), backend);
    let Results {
        delivered,
        stuck,
        nothing,
        unknown,
        ..
    } = results;
    println!(
        "{delivered} delivered, {stuck} without an answer, {nothing} not delivered, {unknown} unknown"
    );
    assert!(different.is_empty(), "{}", different.join("\n"));
    assert!(unknown * 50 <= results.count(), "{results:?}");
    assert!(delivered * 5 > results.count(), "{results:?}");
    assert!(results.count() >= long::count(500, 20_000), "{results:?}");
}

lab_test!(either a_rule_that_the_copy_lacks_makes_a_difference);
fn a_rule_that_the_copy_lacks_makes_a_difference(backend: Backend) {
    let (_, set) = random_specs(1).next().expect("there is one");
    let machine = RandomMachine::new(set, Chance::of(0), backend);
    let results = compared(machine, 40, |machine| {
        for program in ["iptables", "ip6tables"] {
            let rule = format!("{program} -I FORWARD -p udp -j DROP");
            machine.sides.firewall.run(&rule);
        }
    });
    assert!(!results.different.is_empty(), "{results:?}");
}

//! The ends of tests' connections, whatever the tests want.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use super::compare::{host, ports};
use super::{answer_for, connections, counted};
use crate::forwards::{PacketTest, TestHost};
use crate::twin::connection::{Connection, Opener};
use crate::twin::{Twin, TwinError};

/// How many connections are opened for each of several hosts at most: rules may give one of them a small share.
const TRIES: usize = 40;

/// The end of a test's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundEnd {
    Nothing,
    /// The hosts that were reached, at least one. Several if the rules share the connections.
    Reached(BTreeSet<ReachedEnd>),
    /// The connection could not be opened, for this reason.
    NotOpened(String),
}

/// A host that was reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReachedEnd {
    pub host: TestHost,
    /// The source that it saw.
    pub source: IpAddr,
    /// Whether its answer came back.
    pub answered: bool,
}

/// Opens the connection of each test, in order, one with several hosts some times. Returns their ends, and whether a
/// packet met a rule whose effect the twin cannot show. The calling thread is in the twin's machine namespace before and
/// after.
///
/// # Errors
/// If no connection can be opened at all.
pub fn test_ends(
    twin: &mut Twin,
    tests: &[&PacketTest],
    deadline: Instant,
) -> Result<(Vec<FoundEnd>, bool), TwinError> {
    let connections = connections(twin, tests);
    answer_for(twin, tests)?;
    let _ = counted(twin);
    let mut opener = Opener::of(twin)?;
    let mut ends = Vec::with_capacity(tests.len());
    for (test, connection) in tests.iter().zip(connections) {
        let connection = match connection {
            _ if Instant::now() >= deadline => Err("the time limit was reached first".to_owned()),
            connection => connection.map_err(|error| error.to_string()),
        };
        let end = match connection {
            Err(why) => FoundEnd::NotOpened(why),
            Ok(connection) => {
                let hosts = test.reaches.hosts();
                let times = if hosts.len() > 1 {
                    hosts.len() * TRIES
                } else {
                    1
                };
                end_of(&mut opener, &connection, test, times)
            }
        };
        ends.push(end);
    }
    drop(opener);
    twin.enter()?;
    let met = counted(twin)?;
    Ok((ends, !met.is_empty()))
}

fn end_of(
    opener: &mut Opener<'_>,
    connection: &Connection,
    test: &PacketTest,
    times: usize,
) -> FoundEnd {
    let likely = ports(test.reaches.hosts());
    let mut reached = BTreeSet::new();
    for _ in 0..times {
        match opener.open(connection, &likely) {
            Err(error) => return FoundEnd::NotOpened(error.words()),
            Ok(end) => reached.extend(end.reached().map(|at| ReachedEnd {
                host: host(at),
                source: at.source.ip(),
                answered: end.is_delivered(),
            })),
        }
    }
    if reached.is_empty() {
        FoundEnd::Nothing
    } else {
        FoundEnd::Reached(reached)
    }
}

/// Prints the end for a line of its own.
impl fmt::Display for FoundEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FoundEnd::Nothing => f.write_str("reaches nothing"),
            FoundEnd::NotOpened(why) => write!(f, "was not opened: {why}"),
            FoundEnd::Reached(ends) => {
                let each = ends.iter().map(|end| {
                    let answer = if end.answered {
                        ""
                    } else {
                        ", without an answer"
                    };
                    format!("{} with the source {}{answer}", end.host, end.source)
                });
                write!(f, "reaches {}", each.collect::<Vec<_>>().join(", or "))
            }
        }
    }
}

//! The paths of failed tests.

use std::collections::BTreeMap;
use std::time::Instant;

use super::compare::{mismatch, ports};
use super::values::{Mismatch, TestOutcome, TestedPacket};
use crate::twin::connection::Connection;
use crate::twin::traced::{TracedConnection, trace};
use crate::twin::{Twin, TwinError};

/// The most failed tests of one command whose connections are followed.
pub const MOST_TRACED: usize = 10;
/// How often a connection is followed at most until it ends as the test found. Rules may choose a target by chance.
const TRIES: usize = 16;

/// The path of a failed test.
#[derive(Debug, Clone, PartialEq)]
pub enum FailedPath {
    /// The connection ended as the test found.
    Same(TracedConnection),
    /// No connection ended as the test found. This is the path of the last one.
    OfAnother(TracedConnection),
    /// The connection was not followed, for this reason.
    NotTraced(String),
}

/// Follows the connections of the first failed tests, at most `most`, each in a new twin, until they end as the tests found.
/// Returns their paths by the number of the test. The calling thread is in the twin's machine namespace before and after.
#[must_use]
pub fn trace_failed(
    twin: &mut Twin,
    tested: &[TestedPacket<'_>],
    most: usize,
    deadline: Instant,
) -> BTreeMap<usize, FailedPath> {
    let failed = tested.iter().enumerate().filter_map(|(number, one)| {
        let TestOutcome::Failed(found) = &one.outcome else {
            return None;
        };
        Some((number, one, found, one.connection.as_ref().ok()?))
    });
    let mut paths = BTreeMap::new();
    for (number, one, found, connection) in failed.take(most) {
        if Instant::now() >= deadline {
            break;
        }
        let path = traced(twin, one, found, connection, deadline);
        let path = path.unwrap_or_else(|error| FailedPath::NotTraced(error.words()));
        paths.insert(number, path);
    }
    paths
}

fn traced(
    twin: &mut Twin,
    tested: &TestedPacket<'_>,
    found: &Mismatch,
    connection: &Connection,
    deadline: Instant,
) -> Result<FailedPath, TwinError> {
    let mut likely = ports(tested.test.reaches.hosts());
    likely.extend(found.host().and_then(|host| host.port));
    twin.renew()?;
    let mut traced = trace(twin, connection, &likely)?;
    for _ in 1..TRIES {
        if is_as_found(twin, tested, found, &traced) || Instant::now() >= deadline {
            break;
        }
        // The machine remembers a connection, and sends it to the same target again.
        twin.renew()?;
        traced = trace(twin, connection, &likely)?;
    }
    Ok(if is_as_found(twin, tested, found, &traced) {
        FailedPath::Same(traced)
    } else {
        FailedPath::OfAnother(traced)
    })
}

fn is_as_found(
    twin: &Twin,
    tested: &TestedPacket<'_>,
    found: &Mismatch,
    traced: &TracedConnection,
) -> bool {
    let ended = mismatch(twin, tested.test, traced.reached(), traced.is_delivered());
    ended.as_ref() == Some(found)
}

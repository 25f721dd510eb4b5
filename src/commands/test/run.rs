//! Runs tests in a twin of the live machine, or of one that is made up from the spec.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::report::TestReport;
use crate::commands::copy_source::CopySource;
use crate::commands::error::{Error, Result};
use crate::commands::trace::text::text;
use crate::forwards::{ForwardSet, PacketTest};
use crate::net::Interface;
use crate::netfilter::backend::Backend;
use crate::twin::packet_tests::{TestOutcome, TestedPacket, ports, run_tests};
use crate::twin::traced::trace;
use crate::twin::{Twin, TwinError, netns};

/// 10,000 forwards load in seconds, and a test takes about a millisecond.
const LIMIT: Duration = Duration::from_mins(5);

/// Runs tests in a twin of the live machine.
pub fn on_live_machine<'t>(tests: &[&'t PacketTest]) -> Result<TestReport<'t>> {
    aside(|| in_twin(CopySource::live()?, tests))
}

/// Runs tests in a twin of a machine that is made up from the spec, with the rules of the spec alone.
pub fn on_made_up_machine<'t>(
    set: &ForwardSet,
    tests: &[&'t PacketTest],
    backend: Backend,
) -> Result<TestReport<'t>> {
    let sides = tests.iter().filter_map(|test| {
        let ingress: &Interface = test.ingress.as_ref()?;
        Some((IpNet::from(test.from), ingress.clone()))
    });
    let source = CopySource::of_spec(set, &sides.collect::<Vec<_>>(), backend)?;
    aside(|| in_twin(source, tests))
}

fn aside<'t>(
    work: impl FnOnce() -> Result<TestReport<'t>, TwinError> + Send,
) -> Result<TestReport<'t>> {
    match netns::aside(work) {
        Ok(report) => Ok(report?),
        Err(error) => Err(Error::Thread(error)),
    }
}

fn in_twin<'t>(source: CopySource, tests: &[&'t PacketTest]) -> Result<TestReport<'t>, TwinError> {
    let deadline = Instant::now() + LIMIT;
    let mut twin = Twin::make(source.machine, &source.filter, Some(deadline))?;
    let tested = run_tests(&mut twin, tests, deadline)?;
    let traces = traces(&mut twin, &tested, deadline)?;
    Ok(TestReport {
        tested,
        watched: twin.watched().iter().map(ToString::to_string).collect(),
        doubts: twin.doubts().iter().map(ToString::to_string).collect(),
        traces,
    })
}

/// The most failed tests whose connections are followed.
const MOST_TRACED: usize = 10;

/// Returns the paths of failed connections by the number of the test, each in a new twin.
fn traces(
    twin: &mut Twin,
    tested: &[TestedPacket<'_>],
    deadline: Instant,
) -> Result<BTreeMap<usize, String>, TwinError> {
    let mut traces = BTreeMap::new();
    let failed = tested
        .iter()
        .enumerate()
        .filter(|(_, one)| matches!(one.outcome, TestOutcome::Failed(_)));
    for (number, one) in failed.take(MOST_TRACED) {
        let Ok(connection) = &one.connection else {
            continue;
        };
        if Instant::now() >= deadline {
            break;
        }
        twin.renew()?;
        let path = trace(twin, connection, &ports(one.test.reaches.hosts()))?;
        traces.insert(number, text(&path));
    }
    Ok(traces)
}

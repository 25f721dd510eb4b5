//! Runs tests in a twin of the live machine, or of one that is made up from the spec.

use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::report::TestReport;
use crate::commands::copy_source::CopySource;
use crate::commands::error::{Error, Result};
use crate::forwards::{ForwardSet, PacketTest};
use crate::health::test_result::TestResult;
use crate::net::Interface;
use crate::netfilter::backend::Backend;
use crate::twin::packet_tests::{run_tests, trace_failed};
use crate::twin::{Twin, TwinError, netns};

/// 10,000 forwards load in seconds, and a test takes about a millisecond.
const LIMIT: Duration = Duration::from_mins(5);

/// Runs tests in a twin of the live machine.
pub fn on_live_machine(tests: &[&PacketTest]) -> Result<TestReport> {
    aside(|| {
        let source = CopySource::live()?;
        let loaded = source.filter.loaded_sets();
        in_twin(source, tests, &loaded.iter().collect::<Vec<_>>())
    })
}

/// Runs tests in a twin of a machine that is made up from the spec, with the rules of the spec alone.
pub fn on_made_up_machine(
    set: &ForwardSet,
    tests: &[&PacketTest],
    backend: Backend,
) -> Result<TestReport> {
    let sides = tests.iter().filter_map(|test| {
        let ingress: &Interface = test.ingress.as_ref()?;
        Some((IpNet::from(test.from), ingress.clone()))
    });
    let source = CopySource::of_spec(set, &sides.collect::<Vec<_>>(), backend)?;
    aside(|| in_twin(source, tests, &[set]))
}

fn aside(work: impl FnOnce() -> Result<TestReport, TwinError> + Send) -> Result<TestReport> {
    match netns::aside(work) {
        Ok(report) => Ok(report?),
        Err(error) => Err(Error::Thread(error)),
    }
}

/// Runs tests in a twin. `sets` are the specs whose rules it has.
fn in_twin(
    source: CopySource,
    tests: &[&PacketTest],
    sets: &[&ForwardSet],
) -> Result<TestReport, TwinError> {
    let deadline = Instant::now() + LIMIT;
    let mut twin = Twin::make(source.machine, &source.filter, Some(deadline))?;
    let tested = run_tests(&mut twin, tests, sets, deadline)?;
    let traces = trace_failed(&mut twin, &tested, deadline)?;
    let watched: Vec<String> = twin.watched().iter().map(ToString::to_string).collect();
    let numbered = tested.iter().enumerate();
    let result = |(number, one)| TestResult::of(one, &watched, traces.get(&number));
    Ok(TestReport {
        results: numbered.map(result).collect(),
        doubts: twin.doubts().iter().map(ToString::to_string).collect(),
    })
}

//! Runs tests in a twin of the live machine, or of one that is made up from the spec.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::report::TestReport;
use crate::commands::copy_source::{Asked, CopySource};
use crate::commands::error::{Error, Result};
use crate::forwards::{ForwardSet, PacketTest};
use crate::health::test_result::TestResult;
use crate::net::Family;
use crate::netfilter::backend::Backend;
use crate::twin::packet_tests::{
    MOST_TRACED, TestedPacket, copies, entrances, run_tests, trace_failed,
};
use crate::twin::wiring::WiringError;
use crate::twin::{TwinError, netns};

/// 10,000 forwards load in seconds, and 1,000 tests take a tenth of one (`benches/packet_tests.rs`). Those that a limit may
/// count need a twin each.
const LIMIT: Duration = Duration::from_mins(5);

/// Runs tests in a twin of the live machine.
pub fn on_live_machine(tests: &[&PacketTest]) -> Result<TestReport> {
    aside(|| {
        let deadline = Instant::now() + LIMIT;
        let source = CopySource::live()?;
        let loaded = source.loaded_sets();
        let all: Vec<usize> = (0..tests.len()).collect();
        let mut runs = RunTests::of(tests, loaded.iter().collect(), deadline);
        runs.run(source, &all)?;
        Ok(runs.report())
    })
}

/// Runs tests in twins of machines that are made up from the spec, with the rules of the spec alone. A client is on the
/// interface that a test names for this test alone.
pub fn on_made_up_machine(
    set: &ForwardSet,
    tests: &[&PacketTest],
    backend: Backend,
) -> Result<TestReport> {
    let interfaces = entrances(tests);
    let families: BTreeSet<Family> = tests.iter().map(|test| test.family()).collect();
    let destinations = tests.iter().filter_map(|test| test.to.address());
    let destinations: BTreeSet<IpAddr> = destinations.collect();
    let machines = copies(tests).into_iter().map(|copy| {
        let asked = Asked {
            families: families.clone(),
            destinations: destinations.clone(),
            interfaces: &interfaces,
            sides: &copy.sides,
        };
        Ok((CopySource::of_spec(set, &asked, backend)?, copy.tests))
    });
    let machines: Vec<(CopySource, Vec<usize>)> = machines.collect::<Result<_>>()?;
    aside(|| {
        let deadline = Instant::now() + LIMIT;
        let mut runs = RunTests::of(tests, vec![set], deadline);
        for (source, some) in machines {
            runs.run(source, &some)?;
        }
        Ok(runs.report())
    })
}

fn aside(work: impl FnOnce() -> Result<TestReport, TwinError> + Send) -> Result<TestReport> {
    match netns::aside(work) {
        Ok(report) => Ok(report?),
        Err(error) => Err(Error::Thread(error)),
    }
}

/// Tests that run, and the results so far.
#[derive(Debug)]
struct RunTests<'t> {
    tests: &'t [&'t PacketTest],
    /// The specs whose rules the machine has.
    sets: Vec<&'t ForwardSet>,
    deadline: Instant,
    /// The key is the place of the test in the list of all tests.
    results: BTreeMap<usize, TestResult>,
    /// How many failed connections were followed so far.
    traced: usize,
    made_up: Vec<String>,
    doubts: Vec<String>,
    strangers: BTreeSet<IpAddr>,
}

impl<'t> RunTests<'t> {
    fn of(tests: &'t [&'t PacketTest], sets: Vec<&'t ForwardSet>, deadline: Instant) -> Self {
        Self {
            tests,
            sets,
            deadline,
            results: BTreeMap::new(),
            traced: 0,
            made_up: Vec::new(),
            doubts: Vec::new(),
            strangers: BTreeSet::new(),
        }
    }

    /// Runs some tests in a twin of a machine.
    fn run(&mut self, mut source: CopySource, some: &[usize]) -> Result<(), TwinError> {
        self.strangers.extend(std::mem::take(&mut source.strangers));
        let tests: Vec<&PacketTest> = some.iter().map(|number| self.tests[*number]).collect();
        for line in std::mem::take(&mut source.words) {
            if !self.made_up.contains(&line) {
                self.made_up.push(line);
            }
        }
        let mut twin = match source.twin(Some(self.deadline)) {
            Ok(twin) => twin,
            // The tests of the copies before this one have results.
            Err(TwinError::Wiring(WiringError::Late(_))) if !self.results.is_empty() => {
                let late = tests.iter().map(|test| TestedPacket::late(test));
                let late = late.map(|one| TestResult::of(&one, None));
                self.results.extend(some.iter().copied().zip(late));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let tested = run_tests(&mut twin, &tests, &self.sets, self.deadline)?;
        let most = MOST_TRACED.saturating_sub(self.traced);
        let traces = trace_failed(&mut twin, &tested, most, self.deadline);
        self.traced += traces.len();
        for (place, one) in tested.iter().enumerate() {
            let result = TestResult::of(one, traces.get(&place));
            self.results.insert(some[place], result);
        }
        for doubt in twin.doubts().iter().filter(|one| one.is_remarkable()) {
            let doubt = doubt.to_string();
            if !self.doubts.contains(&doubt) {
                self.doubts.push(doubt);
            }
        }
        Ok(())
    }

    fn report(self) -> TestReport {
        TestReport {
            results: self.results.into_values().collect(),
            made_up: self.made_up,
            doubts: self.doubts,
            strangers: self.strangers,
        }
    }
}

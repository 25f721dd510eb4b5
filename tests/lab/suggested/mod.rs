//! The tests that `nvactl test --suggest` writes: they pass with the plan, and one fails for each change of a rule.

mod changes;
mod reasons;

use std::time::{Duration, Instant};

use nvactl::forwards::{ForwardSet, PacketTest, suggested};
use nvactl::net::Family;
use nvactl::netfilter::ruleset::Ruleset;
use nvactl::plan::plan;
use nvactl::twin::made_up::MadeUp;
use nvactl::twin::packet_tests::run_tests;
use nvactl::twin::rules::PacketFilter;
use nvactl::twin::{Twin, netns};

use crate::asked::{cases, set_of};
use crate::lab::Backend;
use crate::long;
use crate::made_up::programs;
use crate::random_specs::random_specs;

/// Each twin takes less than a second.
const LIMIT: Duration = Duration::from_mins(2);

/// How many tests run before the others.
const FIRST: usize = 3;

/// The rules of a spec in each family.
type Rules = Vec<(Family, Ruleset)>;

fn planned(set: &ForwardSet) -> Rules {
    Family::ALL.map(|family| (family, plan(set, family))).into()
}

/// Runs tests on a made-up machine with some rules, in this order, until some do not pass. Returns the numbers of those,
/// each with words; `None` if the rules do not load.
fn failing(
    set: &ForwardSet,
    tests: &[PacketTest],
    order: &[usize],
    rules: &Rules,
    backend: Backend,
) -> Option<Vec<(usize, String)>> {
    let printed: Vec<(Family, String)> = rules
        .iter()
        .map(|(family, rules)| (*family, rules.to_string()))
        .collect();
    let printed = printed
        .iter()
        .map(|(family, text)| (*family, text.as_bytes()));
    let filter =
        PacketFilter::of_texts(programs(backend), printed).expect("it is nvactl's own text");
    let sides: Vec<_> = tests
        .iter()
        .filter_map(|test| Some((test.from.into(), test.ingress.clone()?)))
        .collect();
    let made_up = MadeUp::of_spec(set, &sides);
    let work = || {
        let mut twin = Twin::make(made_up.machine, &filter, None).expect("it can be made");
        if !twin.left_out().is_empty() {
            return None;
        }
        let deadline = Instant::now() + LIMIT;
        // Each test that fails is opened again in a new twin.
        let (first, others) = order.split_at(order.len().min(FIRST));
        for some in [first, others] {
            if some != first {
                twin.renew().expect("it can be made again");
            }
            let asked: Vec<&PacketTest> = some.iter().map(|number| &tests[*number]).collect();
            let tested = run_tests(&mut twin, &asked, &[set], deadline).expect("they run");
            let failed = some.iter().zip(tested).filter(|(_, one)| !one.is_passed());
            let failed =
                failed.map(|(number, one)| (*number, format!("{}: {:?}", one.test, one.outcome)));
            let failed: Vec<(usize, String)> = failed.collect();
            if !failed.is_empty() {
                return Some(failed);
            }
        }
        Some(Vec::new())
    };
    netns::aside(work).expect("there is a thread")
}

lab_test!(either suggested_tests_pass);
fn suggested_tests_pass(backend: Backend) {
    let (mut count, mut wrong) = (0, Vec::new());
    let cases = cases().into_iter().filter_map(|case| {
        let name = case.file_name()?.display().to_string();
        Some((name, set_of(&case)?))
    });
    for (name, set) in cases.chain(random_specs(long::count(15, 300))) {
        let tests = suggested(&set);
        count += tests.len();
        let order: Vec<usize> = (0..tests.len()).collect();
        let failed = failing(&set, &tests, &order, &planned(&set), backend);
        let failed = failed.expect("nvactl's own rules load");
        wrong.extend(failed.iter().map(|(_, words)| format!("{name}: {words}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 500, "{count}");
}

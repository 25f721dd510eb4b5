//! The tests that `nvactl test --suggest` writes: they pass with the plan, and one fails for each change of a rule.

mod changes;
mod kinds;
mod reasons;
mod specs;

use std::time::{Duration, Instant};

use nvactl::forwards::{ForwardSet, PacketTest, suggested};
use nvactl::net::Family;
use nvactl::netfilter::ruleset::Ruleset;
use nvactl::plan::plan;
use nvactl::twin::made_up::MadeUp;
use nvactl::twin::packet_tests::{copies, entrances, run_tests};
use nvactl::twin::rules::PacketFilter;
use nvactl::twin::{Twin, netns};

use crate::asked::{cases, set_of};
use crate::lab::Backend;
use crate::long;
use crate::made_up::programs;
use crate::random_specs::random_specs;

/// Each twin takes less than a second.
const LIMIT: Duration = Duration::from_mins(2);

/// The rules of a spec in each family.
type Rules = Vec<(Family, Ruleset)>;

fn planned(set: &ForwardSet) -> Rules {
    Family::ALL.map(|family| (family, plan(set, family))).into()
}

/// Runs tests with some rules on made-up machines, those that `nvactl test` makes up, until some do not pass. `order` is
/// that of the tests of each machine, and how many of them run before the others. Returns the numbers of those that do not pass, each with words; `None` if the
/// rules do not load.
fn failing(
    set: &ForwardSet,
    tests: &[PacketTest],
    (order, first): (&[usize], usize),
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
    let all: Vec<&PacketTest> = tests.iter().collect();
    let interfaces = entrances(&all);
    let turn = |number: &usize| order.iter().position(|one| one == number);
    let mut machines = copies(&all);
    for copy in &mut machines {
        copy.tests.sort_by_key(turn);
    }
    machines.sort_by_key(|copy| copy.tests.first().and_then(turn));
    let deadline = Instant::now() + LIMIT;
    let work = || {
        for copy in &machines {
            let made_up = MadeUp::with_interfaces(set, &interfaces, &copy.sides);
            let mut twin = Twin::make(made_up.machine, &filter, None).expect("it can be made");
            if !twin.left_out().is_empty() {
                return None;
            }
            // Each test that fails is opened again in a new twin.
            let (first, others) = copy.tests.split_at(copy.tests.len().min(first));
            for some in [first, others] {
                if some.is_empty() {
                    continue;
                }
                if some != first {
                    twin.renew().expect("it can be made again");
                }
                let asked: Vec<&PacketTest> = some.iter().map(|number| all[*number]).collect();
                let tested = run_tests(&mut twin, &asked, &[set], deadline).expect("they run");
                let failed = some.iter().zip(tested).filter(|(_, one)| !one.is_passed());
                let failed = failed
                    .map(|(number, one)| (*number, format!("{}: {:?}", one.test, one.outcome)));
                let failed: Vec<(usize, String)> = failed.collect();
                if !failed.is_empty() {
                    return Some(failed);
                }
            }
        }
        Some(Vec::new())
    };
    netns::aside(work).expect("there is a thread")
}

/// `tests/run` runs the tests of each case of this number.
const EACH: usize = 6;

lab_test!(either suggested_tests_pass);
fn suggested_tests_pass(backend: Backend) {
    let (mut count, mut wrong) = (0, Vec::new());
    let cases = cases().into_iter().step_by(long::count(EACH, 1));
    let cases = cases.filter_map(|case| {
        let name = case.file_name()?.display().to_string();
        Some((name, set_of(&case)?))
    });
    // Some random specs have hundreds of tests, and each test that a limit may count takes a twin.
    let sets = cases.chain(random_specs(long::count(2, 60)));
    for (number, (name, set)) in sets.enumerate() {
        let tests = suggested(&set);
        count += tests.len();
        let order: Vec<usize> = (0..tests.len()).collect();
        let failed = failing(&set, &tests, (&order, tests.len()), &planned(&set), backend);
        let failed = failed.expect("nvactl's own rules load");
        wrong.extend(failed.iter().map(|(_, words)| format!("{name}: {words}")));
        println!("{number} specs, {count} tests, {} wrong", wrong.len());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 300, "{count}");
}

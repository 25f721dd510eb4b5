//! The connections that the proof of an import opens.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::clients::named_clients;
use super::named::named_connections;
use crate::forwards::{Forward, PacketTest, TestDestination, TestHost, suggested};
use crate::import::Draft;
use crate::net::Family;
use crate::netfilter::ruleset::Ruleset;

/// The most clients that ask in addition for each listener and target. Rules may name thousands.
const MOST_CLIENTS: usize = 12;

/// The most forwards for which further clients ask: each asks each of them.
const MOST_FORWARDS: usize = 200;

/// Returns the connections that a spec suggests, those that the rules name, and those of the clients that the rules name.
pub(super) fn tests(draft: &Draft, rules: &[(Family, Ruleset)]) -> Vec<PacketTest> {
    let mut tests = suggested(&draft.set);
    let mut seen: BTreeSet<String> = tests.iter().map(key).collect();
    let mut further = Vec::new();
    for (family, rules) in rules {
        further.extend(named_connections(*family, rules, &draft.set, &tests));
        let forwards = draft.set.forwards.iter();
        let forwards: Vec<&Forward> = forwards.filter(|one| one.family() == *family).collect();
        if forwards.len() > MOST_FORWARDS {
            continue;
        }
        let named = named_clients(*family, rules, &forwards);
        for test in tests.iter().filter(|test| test.family() == *family) {
            let Some(forward) = forwards.iter().find(|forward| asks_for(forward, test)) else {
                continue;
            };
            // Those of the lists, too, ask the target directly.
            let of_tests = tests
                .iter()
                .filter(|other| other.ingress == test.ingress && asks_for(forward, other));
            let of_tests: BTreeSet<IpAddr> = of_tests.map(|other| other.from).collect();
            let clients = named.iter().take(MOST_CLIENTS);
            for from in clients.chain(of_tests.iter().take(MOST_CLIENTS)) {
                let one = PacketTest {
                    name: None,
                    from: *from,
                    snat: None,
                    ..test.clone()
                };
                if one.family() == *family && seen.insert(key(&one)) {
                    further.push(one);
                }
            }
        }
    }
    tests.extend(further);
    tests
}

/// Returns what a test asks, without its name and its wishes.
fn key(test: &PacketTest) -> String {
    format!(
        "{} {} {} {:?}",
        test.protocol, test.from, test.to, test.ingress
    )
}

/// Returns whether a test asks for the listener or a target of a forward.
fn asks_for(forward: &Forward, test: &PacketTest) -> bool {
    if test.protocol.transport() != Some(forward.protocol) {
        return false;
    }
    match test.to {
        TestDestination::Machine(port) => forward.listen.ports.contains(port),
        TestDestination::Host(TestHost {
            address,
            port: Some(port),
        }) => {
            let listens =
                forward.listen.address == Some(address) && forward.listen.ports.contains(port);
            let mut targets = forward.target.destinations.iter();
            listens
                || targets.any(|to| to.address == address && forward.ports_at(to).contains(port))
        }
        TestDestination::Host(_) => false,
    }
}

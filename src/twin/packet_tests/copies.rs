//! The machines that are made up for tests with `in`: each test's client is behind the interface that the test names,
//! and stays where it was for every other test.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::forwards::PacketTest;
use crate::net::Interface;

/// A machine that is made up for some tests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TestCopy {
    /// The clients whose interfaces the tests name.
    pub sides: Vec<(IpNet, Interface)>,
    /// The places of the tests in the list of all tests, in order.
    pub tests: Vec<usize>,
}

/// Divides tests among machines. The first machine has the tests without `in`, if there are any. A test shares a machine
/// with others only if no packet of one test goes to a client that another one has moved.
#[must_use]
pub fn copies(tests: &[&PacketTest]) -> Vec<TestCopy> {
    let mut copies: Vec<TestCopy> = Vec::new();
    let (plain, placed): (Vec<usize>, Vec<usize>) =
        (0..tests.len()).partition(|number| tests[*number].ingress.is_none());
    if !plain.is_empty() {
        copies.push(TestCopy {
            sides: Vec::new(),
            tests: plain,
        });
    }
    let first = copies.len();
    for number in placed {
        let test = tests[number];
        let Some(ingress) = &test.ingress else {
            continue;
        };
        let side = (IpNet::from(test.from), ingress.clone());
        let mut others = copies.iter().skip(first);
        let place = others.position(|copy| copy.takes(test, &side, tests));
        let place = place.map_or(copies.len(), |place| place + first);
        if place == copies.len() {
            copies.push(TestCopy::default());
        }
        let copy = &mut copies[place];
        copy.tests.push(number);
        if !copy.sides.contains(&side) {
            copy.sides.push(side);
        }
    }
    copies
}

/// Returns the interfaces that tests name.
#[must_use]
pub fn entrances(tests: &[&PacketTest]) -> Vec<Interface> {
    let named = tests.iter().filter_map(|test| test.ingress.clone());
    let mut entrances: Vec<Interface> = Vec::new();
    for interface in named {
        if !entrances.contains(&interface) {
            entrances.push(interface);
        }
    }
    entrances
}

impl TestCopy {
    /// Returns whether a test and those of this machine do not change each other's packets.
    fn takes(&self, test: &PacketTest, side: &(IpNet, Interface), all: &[&PacketTest]) -> bool {
        if self.sides.contains(side) {
            return true;
        }
        let mut others = self.tests.iter().map(|number| all[*number]);
        self.sides
            .iter()
            .all(|(client, _)| !has(test, client.addr()))
            && others.all(|other| !has(other, test.from))
    }
}

/// Returns whether packets of a test have an address.
fn has(test: &PacketTest, address: IpAddr) -> bool {
    let hosts = test.reaches.hosts().iter().map(|host| host.address);
    let mut all = hosts.chain(test.to.address()).chain([test.from]);
    all.any(|one| one == address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    #[test]
    fn a_test_with_an_interface_moves_its_client_for_no_other_test() {
        for (tests, machines) in [
            (
                "- {from: 198.51.100.7, to: 22, reaches: nothing}
                 - {from: 198.51.100.7, to: 22, in: eth1, reaches: nothing}",
                " 0; 198.51.100.7/32 eth1 1",
            ),
            // Each of two interfaces for one client has a machine.
            (
                "- {from: 198.51.100.7, to: 22, in: eth0, reaches: nothing}
                 - {from: 198.51.100.7, to: 22, in: eth1, reaches: nothing}
                 - {from: 198.51.100.8, to: 22, in: eth1, reaches: nothing}
                 - {from: 198.51.100.7, to: 23, in: eth1, reaches: nothing}",
                "198.51.100.7/32 eth0, 198.51.100.8/32 eth1 0 2; 198.51.100.7/32 eth1 1 3",
            ),
            // A client that another test wants to reach.
            (
                "- {from: 198.51.100.7, to: 22, in: eth1, reaches: nothing}
                 - {from: 10.224.0.9, to: '198.51.100.7:22', in: eth1, reaches: nothing}",
                "198.51.100.7/32 eth1 0; 10.224.0.9/32 eth1 1",
            ),
        ] {
            let lines = tests.replace("\n                 ", "\n");
            let text = format!(
                "firewall: {{interface: {{ingress: eth0, egress: eth1}}, snat: 10.4.0.4}}\n\
                 forwards: [{{name: a, listen: 80, target: {{pod: 10.224.0.118:80}}}}]\n\
                 tests:\n{lines}\n"
            );
            let set = yaml::read(text.as_bytes()).expect("the spec is valid");
            let all: Vec<&PacketTest> = set.tests.iter().collect();
            let shown = copies(&all).into_iter().map(|copy| {
                let sides = copy.sides.iter().map(|(net, side)| format!("{net} {side}"));
                let sides: Vec<String> = sides.collect();
                let numbers = copy.tests.iter().map(|number| format!(" {number}"));
                format!("{}{}", sides.join(", "), numbers.collect::<String>())
            });
            assert_eq!(shown.collect::<Vec<_>>().join("; "), machines, "{tests}");
        }
    }
}

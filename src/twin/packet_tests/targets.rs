//! The hosts that a test's connection may reach by the rules of a spec.

use std::collections::BTreeSet;

use crate::forwards::{Balance, Forward, ForwardSet, PacketTest, TestHost};
use crate::net::Port;

/// Returns how many hosts the connections of a test may reach by the forwards of specs, whichever hosts the test lists.
#[must_use]
pub fn targets(test: &PacketTest, sets: &[&ForwardSet]) -> usize {
    let Some(port) = test.to.port() else {
        return 0;
    };
    let forwards = sets.iter().flat_map(|set| &set.forwards);
    let forwards = forwards.filter(|forward| leads(forward, test, port));
    let each = forwards.flat_map(|forward| {
        let destinations = forward.target.destinations.iter();
        // All connections of one client go to one target.
        let most = match forward.target.balance {
            Balance::Random => usize::MAX,
            Balance::Client => 1,
        };
        let hosts = destinations.map(move |to| TestHost {
            address: to.address,
            port: Some(forward.port_at(to, port)),
        });
        hosts.take(most)
    });
    each.collect::<BTreeSet<TestHost>>().len()
}

/// Returns whether a forward may take a test's connection. Its sources are not asked.
fn leads(forward: &Forward, test: &PacketTest, port: Port) -> bool {
    let listens = forward.listens(test.protocol.transport(), test.family(), port);
    let address = test.to.address().zip(forward.listen.address);
    listens && address.is_none_or(|(to, listener)| to == listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    #[test]
    fn the_targets_are_those_of_the_plan_and_not_of_the_test() {
        let text = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: 443, target: {pod: ['10.224.0.118:8443', '10.224.0.119:8443']}}
  - {name: one, listen: 444, target: {pod: '10.224.0.118:8443'}}
  - {name: sticky, listen: 445, target: {pod: ['10.224.0.118:8443', '10.224.0.119:8443']}, balance: client}
tests:
  - {from: 198.51.100.7, to: 443, reaches: '10.224.0.118:8443'}
  - {from: 198.51.100.7, to: 444, reaches: nothing}
  - {from: 198.51.100.7, to: 445, reaches: '10.224.0.118:8443|10.224.0.119:8443'}
  - {from: 198.51.100.7, to: 443, protocol: udp, reaches: nothing}
  - {from: 198.51.100.7, to: '10.3.0.4:443', reaches: nothing}
  - {from: 198.51.100.7, to: 10.3.0.4, protocol: ping, reaches: nothing}
";
        let set = yaml::read(text.as_bytes()).expect("the spec is valid");
        let found = set.tests.iter().map(|test| targets(test, &[&set]));
        assert_eq!(found.collect::<Vec<_>>(), [2, 1, 1, 0, 2, 0]);
    }
}

//! A forward with a `listen` list, or with two protocols, is several entries with one name. Reports join the
//! entries of one protocol, which differ only in their listener: one name, one row.

use std::borrow::Borrow;

use super::forward::{Destination, Forward, TargetPorts};
use crate::net::{Host, PortRange};

/// Divides forwards into rows: the entries of one name and protocol, which are neighbours.
pub fn rows<F: Borrow<Forward>>(forwards: &[F]) -> impl Iterator<Item = &[F]> {
    forwards.chunk_by(|one, other| {
        let (one, other) = (one.borrow(), other.borrow());
        one.name == other.name && one.protocol == other.protocol
    })
}

/// Returns the listeners of a row: `80,443`, or `10.3.0.4:80,443, 10.3.0.5:80`.
#[must_use]
pub fn listeners_of<F: Borrow<Forward>>(row: &[F]) -> String {
    let address = |one: &F| one.borrow().listen.address;
    let of_address = row.chunk_by(|one, other| address(one) == address(other));
    let words = of_address.map(|pieces| {
        let ports = pieces.iter().map(|one| one.borrow().listen.ports);
        match address(&pieces[0]) {
            Some(address) => format!("{}:{}", Host(address), joined(ports)),
            None => joined(ports),
        }
    });
    words.collect::<Vec<_>>().join(", ")
}

/// Returns the destinations of a row with their ports: `10.224.0.222:80,443`, if they keep the listen ports.
#[must_use]
pub fn reached_of<F: Borrow<Forward>>(row: &[F]) -> String {
    let first = row.first().map(Borrow::borrow);
    let destinations = first.map_or(&[][..], |first| &first.target.destinations);
    let each = destinations.iter().map(|to| reached(row, to));
    each.collect::<Vec<_>>().join(", ")
}

/// Returns one destination of a row with its ports.
#[must_use]
pub fn reached<F: Borrow<Forward>>(row: &[F], to: &Destination) -> String {
    let ports = match to.ports {
        TargetPorts::Range(ports) => ports.to_string(),
        TargetPorts::Kept => joined(row.iter().map(|one| one.borrow().listen.ports)),
    };
    format!("{}:{ports}", Host(to.address))
}

/// Joins ports, each once.
fn joined(all: impl Iterator<Item = PortRange>) -> String {
    let mut all: Vec<PortRange> = all.collect();
    all.sort_unstable();
    all.dedup();
    let words: Vec<String> = all.iter().map(ToString::to_string).collect();
    words.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    #[test]
    fn a_row_has_the_listeners_of_one_name_and_protocol() {
        let set = yaml::read(
            b"firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: [443, 80], target: {ilb: 10.224.0.222}}
  - {name: one, listen: 81, target: {ilb: 10.224.0.222:8080}}
  - {name: api, listen: ['10.3.0.5:443', 8000-8010, '10.3.0.4:443', '10.3.0.4:80'], protocol: [tcp, udp],
     target: {pod: [10.224.0.118, 10.224.0.119:53]}}",
        )
        .expect("it is valid");
        let found: Vec<[String; 3]> = rows(&set.forwards)
            .map(|row| {
                let name = format!("{} {}", row[0].name, row[0].protocol);
                [name, listeners_of(row), reached_of(row)]
            })
            .collect();
        let api = "8000-8010, 10.3.0.4:80,443, 10.3.0.5:443";
        let pods = "10.224.0.118:80,443,8000-8010, 10.224.0.119:53";
        assert_eq!(
            found,
            [
                ["web tcp", "80,443", "10.224.0.222:80,443"],
                ["one tcp", "81", "10.224.0.222:8080"],
                ["api tcp", api, pods],
                ["api udp", api, pods],
            ]
        );
        assert_eq!(set.forward_count(), 3);
    }
}

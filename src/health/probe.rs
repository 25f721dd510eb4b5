//! The ports that a probe tries, and the outcomes.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

use crate::forwards::{Destination, Forward, rows};
use crate::host::probe::{self as edge, ProbeOutcome, Probing, Try};
use crate::net::{Port, PortRange};

/// One port to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint<'s> {
    pub forward: &'s Forward,
    /// The target that has the port; none if the port is the listener's own.
    pub to: Option<&'s Destination>,
    pub port: Port,
}

/// Returns the targets' ports as the firewall reaches them. Listeners of one forward may lead to one port, which
/// is tried once.
#[must_use]
pub fn targets<'s>(forwards: &[&'s Forward]) -> Vec<Endpoint<'s>> {
    let each = rows(forwards).flat_map(|row| {
        let destinations = 0..row[0].target.destinations.len();
        let of_one = destinations.map(|n| {
            let ports = row.iter().map(|forward| {
                let to = &forward.target.destinations[n];
                (*forward, Some(to), forward.ports_at(to))
            });
            endpoints(ports)
        });
        of_one.flatten().collect::<Vec<_>>()
    });
    each.collect()
}

/// Returns the listeners' ports as clients reach them. Listeners of one forward at several addresses may have one
/// port, which is tried once.
#[must_use]
pub fn listeners<'s>(forwards: &[&'s Forward]) -> Vec<Endpoint<'s>> {
    let each = rows(forwards).flat_map(|row| {
        let ports = row
            .iter()
            .map(|forward| (*forward, None, forward.listen.ports));
        endpoints(ports)
    });
    each.collect()
}

/// Returns each of these ports once.
fn endpoints<'s>(
    each: impl Iterator<Item = (&'s Forward, Option<&'s Destination>, PortRange)>,
) -> Vec<Endpoint<'s>> {
    let mut endpoints = Vec::new();
    let mut seen = BTreeSet::new();
    for (forward, to, range) in each {
        let numbers = range.first().number()..=range.last().number();
        let ports = numbers.filter_map(Port::new);
        let new = ports.filter(|port| seen.insert(*port));
        endpoints.extend(new.map(|port| Endpoint { forward, to, port }));
    }
    endpoints
}

/// All tries of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed<'s> {
    pub endpoint: Endpoint<'s>,
    pub tries: Vec<ProbeOutcome>,
}

impl Probed<'_> {
    /// Returns the outcome for a report: the first bad try, else the first try.
    #[must_use]
    pub fn outcome(&self) -> Option<&ProbeOutcome> {
        let bad = self.tries.iter().find(|outcome| !outcome.is_good());
        bad.or(self.tries.first())
    }

    #[must_use]
    pub fn is_good(&self) -> bool {
        self.tries.iter().all(ProbeOutcome::is_good)
    }

    /// Returns the shortest, mean and longest time of the tries that connected.
    #[must_use]
    pub fn latency(&self) -> Option<Latency> {
        let times: Vec<Duration> = self
            .tries
            .iter()
            .filter_map(|outcome| match outcome {
                ProbeOutcome::Open(time) => Some(*time),
                _ => None,
            })
            .collect();
        let count = u32::try_from(times.len()).ok()?;
        Some(Latency {
            min: milliseconds(*times.iter().min()?),
            mean: milliseconds(times.iter().sum::<Duration>() / count),
            max: milliseconds(*times.iter().max()?),
        })
    }
}

/// Times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    pub min: f64,
    pub mean: f64,
    pub max: f64,
}

fn milliseconds(time: Duration) -> f64 {
    // Rounded to the microsecond, because shorter times are noise.
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// Groups neighbouring ports of a forward with the same outcome, for one line of a report.
#[must_use]
pub fn grouped<'p, 's>(probed: &'p [Probed<'s>]) -> Vec<&'p [Probed<'s>]> {
    let alike = |a: &Probed<'_>, b: &Probed<'_>| {
        let kind = |probed: &Probed<'_>| {
            let outcome = probed.outcome().cloned();
            match outcome {
                Some(ProbeOutcome::Open(_)) => Some(ProbeOutcome::Open(Duration::ZERO)),
                other => other,
            }
        };
        let (one, two) = (a.endpoint, b.endpoint);
        std::ptr::eq(one.forward, two.forward) && one.to == two.to && kind(a) == kind(b)
    };
    probed.chunk_by(alike).collect()
}

/// Tries all endpoints in their order, each at the address of `to` and from the address of `from`. After a Ctrl-C it
/// tries no more, and returns the outcomes so far.
#[must_use]
pub fn probe<'s>(
    endpoints: &[Endpoint<'s>],
    to: impl Fn(&Endpoint<'s>) -> IpAddr,
    from: impl Fn(&Endpoint<'s>) -> Option<IpAddr>,
    how: Probing,
) -> Vec<Probed<'s>> {
    let ports = endpoints.iter().map(|endpoint| Try {
        protocol: endpoint.forward.protocol,
        to: SocketAddr::new(to(endpoint), endpoint.port.number()),
        from: from(endpoint),
    });
    let tried = edge::probe(&ports.collect::<Vec<_>>(), how);
    let each = endpoints.iter().zip(tried);
    each.filter_map(|(endpoint, tries)| {
        Some(Probed {
            endpoint: *endpoint,
            tries: tries?,
        })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    #[test]
    fn every_port_is_tried_and_neighbours_with_the_same_outcome_are_one_line() {
        let set = yaml::read(
            b"firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: a, listen: 6000-6004, target: {pod: 10.0.0.1:7000-7004}}
  - {name: b, listen: 6005-6006, target: {pod: 10.0.0.1:80}}
  - {name: c, listen: 6007, target: {ilb: 10.0.0.2}}",
        )
        .expect("it is valid");
        let ports = |endpoints: &[Endpoint<'_>]| -> Vec<u16> {
            let numbers = endpoints.iter().map(|endpoint| endpoint.port.number());
            numbers.collect()
        };
        let forwards: Vec<&Forward> = set.forwards.iter().collect();
        let tried = listeners(&forwards);
        assert_eq!(
            ports(&tried),
            [6000, 6001, 6002, 6003, 6004, 6005, 6006, 6007]
        );
        assert_eq!(
            ports(&targets(&forwards)),
            [7000, 7001, 7002, 7003, 7004, 80, 6007]
        );

        let open = |ms| ProbeOutcome::Open(Duration::from_millis(ms));
        let outcomes = [
            open(1),
            open(2),
            ProbeOutcome::Refused,
            open(3),
            open(4),
            open(5),
            open(6),
            ProbeOutcome::TimedOut,
        ];
        let probed: Vec<Probed<'_>> = tried
            .into_iter()
            .zip(outcomes)
            .map(|(endpoint, outcome)| Probed {
                endpoint,
                tries: vec![open(9), outcome],
            })
            .collect();
        let lengths: Vec<usize> = grouped(&probed).iter().map(|group| group.len()).collect();
        assert_eq!(lengths, [2, 1, 2, 2, 1]);
        assert!(!probed[2].is_good() && probed[0].is_good());
        let latency = probed[0].latency().expect("it was open");
        assert_eq!((latency.min, latency.mean, latency.max), (1.0, 5.0, 9.0));
    }
}

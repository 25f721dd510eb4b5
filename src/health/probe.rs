//! What there is to connect to, and what came of it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;

use crate::forwards::{Destination, Forward};
use crate::net::{Port, PortRange, Protocol};

/// One port to be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint<'s> {
    pub forward: &'s Forward,
    /// The target that has it; none where it is the listener's own.
    pub to: Option<&'s Destination>,
    pub port: Port,
}

/// What an answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// A connection.
    Tcp,
    /// A connection that is not ended at once.
    Kept,
    /// An answer to `GET /`: of this status, or of any below 400.
    Http(Option<u16>),
}

#[derive(Debug, Error)]
#[error("`{0}` is not one of `tcp`, `http`, `http 200`")]
pub struct ExpectError(String);

impl FromStr for Expect {
    type Err = ExpectError;

    /// `tcp`, `http`, or `http` with a status, behind a space or a colon.
    fn from_str(text: &str) -> Result<Self, ExpectError> {
        let wrong = || ExpectError(text.to_owned());
        match text.split_once([' ', ':']) {
            None if text == "tcp" => Ok(Expect::Tcp),
            None if text == "http" => Ok(Expect::Http(None)),
            Some(("http", status)) => match status.parse() {
                Ok(status @ 100..=599) => Ok(Expect::Http(Some(status))),
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }
}

/// What one try came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Connected, or answered; after so long.
    Open(Duration),
    /// Datagrams need no answer: none came, and nobody refused.
    Unanswered,
    Refused,
    TimedOut,
    /// A router on the way says so.
    Unreachable,
    /// Connected, but it is not what was expected.
    Unexpected(String),
    /// It could not even be tried.
    Failed(String),
}

impl Outcome {
    /// Its name in reports, which stays.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Outcome::Open(_) => "open",
            Outcome::Unanswered => "unanswered",
            Outcome::Refused => "refused",
            Outcome::TimedOut => "timed_out",
            Outcome::Unreachable => "unreachable",
            Outcome::Unexpected(_) => "unexpected",
            Outcome::Failed(_) => "failed",
        }
    }

    /// Whether nothing speaks against the endpoint.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self, Outcome::Open(_) | Outcome::Unanswered)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Open(_) => f.write_str("open"),
            Outcome::Unanswered => f.write_str("no answer, nor a refusal"),
            Outcome::Refused => f.write_str("refused"),
            Outcome::TimedOut => f.write_str("timed out"),
            Outcome::Unreachable => f.write_str("unreachable"),
            Outcome::Unexpected(what) => f.write_str(what),
            Outcome::Failed(why) => write!(f, "not tried: {why}"),
        }
    }
}

/// The targets' own ports, as the firewall reaches them: each that packets may carry there.
#[must_use]
pub fn targets<'s>(forwards: impl IntoIterator<Item = &'s Forward>) -> Vec<Endpoint<'s>> {
    let each = forwards.into_iter().flat_map(|forward| {
        let destinations = forward.target.destinations.iter();
        destinations.map(move |to| (forward, Some(to), forward.ports_at(to)))
    });
    endpoints(each)
}

/// The listeners' ports, as clients reach them.
#[must_use]
pub fn listeners<'s>(forwards: impl IntoIterator<Item = &'s Forward>) -> Vec<Endpoint<'s>> {
    let each = forwards.into_iter();
    endpoints(each.map(|forward| (forward, None, forward.listen.ports)))
}

fn endpoints<'s>(
    each: impl Iterator<Item = (&'s Forward, Option<&'s Destination>, PortRange)>,
) -> Vec<Endpoint<'s>> {
    let mut endpoints = Vec::new();
    for (forward, to, range) in each {
        let numbers = range.first().number()..=range.last().number();
        let ports = numbers.filter_map(Port::new);
        endpoints.extend(ports.map(|port| Endpoint { forward, to, port }));
    }
    endpoints
}

/// All tries of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed<'s> {
    pub endpoint: Endpoint<'s>,
    pub tries: Vec<Outcome>,
}

impl Probed<'_> {
    /// What a report says of it: the first try that went wrong, else the first.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        let bad = self.tries.iter().find(|outcome| !outcome.is_good());
        bad.or(self.tries.first())
    }

    #[must_use]
    pub fn is_good(&self) -> bool {
        self.tries.iter().all(Outcome::is_good)
    }

    /// The shortest, mean and longest time of the tries that connected.
    #[must_use]
    pub fn latency(&self) -> Option<Latency> {
        let times: Vec<Duration> = self
            .tries
            .iter()
            .filter_map(|outcome| match outcome {
                Outcome::Open(time) => Some(*time),
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

/// In milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    pub min: f64,
    pub mean: f64,
    pub max: f64,
}

fn milliseconds(time: Duration) -> f64 {
    // To the microsecond: what lies below is noise.
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// Neighbouring ports of a forward that came to the same, as one line of a report.
#[must_use]
pub fn grouped<'p, 's>(probed: &'p [Probed<'s>]) -> Vec<&'p [Probed<'s>]> {
    let alike = |a: &Probed<'_>, b: &Probed<'_>| {
        let kind = |probed: &Probed<'_>| {
            let outcome = probed.outcome().cloned();
            match outcome {
                Some(Outcome::Open(_)) => Some(Outcome::Open(Duration::ZERO)),
                other => other,
            }
        };
        let (one, two) = (a.endpoint, b.endpoint);
        std::ptr::eq(one.forward, two.forward) && one.to == two.to && kind(a) == kind(b)
    };
    probed.chunk_by(alike).collect()
}

/// Whether an endpoint speaks TCP.
#[must_use]
pub fn is_tcp(endpoint: &Endpoint<'_>) -> bool {
    endpoint.forward.protocol == Protocol::Tcp
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    #[test]
    fn every_port_is_tried_and_neighbours_that_came_to_the_same_are_one_line() {
        let set = yaml::read(
            b"firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: a, listen: 6000-6004, target: {pod: 10.0.0.1:7000-7004}}
  - {name: b, listen: 6005-6006, target: {pod: 10.0.0.1:80}}
  - {name: c, listen: 6007, target: {ilb: 10.0.0.2}}",
        )
        .expect("it is sound");
        let ports = |endpoints: &[Endpoint<'_>]| -> Vec<u16> {
            let numbers = endpoints.iter().map(|endpoint| endpoint.port.number());
            numbers.collect()
        };
        let tried = listeners(&set.forwards);
        assert_eq!(
            ports(&tried),
            [6000, 6001, 6002, 6003, 6004, 6005, 6006, 6007]
        );
        assert_eq!(
            ports(&targets(&set.forwards)),
            [7000, 7001, 7002, 7003, 7004, 80, 6007]
        );

        let open = |ms| Outcome::Open(Duration::from_millis(ms));
        let outcomes = [
            open(1),
            open(2),
            Outcome::Refused,
            open(3),
            open(4),
            open(5),
            open(6),
            Outcome::TimedOut,
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

    #[test]
    fn what_is_expected_is_a_connection_or_a_status() {
        for (text, expect) in [
            ("tcp", Some(Expect::Tcp)),
            ("http", Some(Expect::Http(None))),
            ("http 200", Some(Expect::Http(Some(200)))),
            ("http:404", Some(Expect::Http(Some(404)))),
            ("http 20", None),
            ("http x", None),
            ("https", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), expect, "{text}");
        }
    }
}

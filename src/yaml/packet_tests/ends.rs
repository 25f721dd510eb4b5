//! The ends of a test's connection as text: `from`, `to`, `reaches` and `snat`.

use std::net::IpAddr;

use crate::forwards::{OutboundProtocol, Reaches, Snat, TargetPorts, TestDestination, TestHost};
use crate::net::{self, Port};
use crate::yaml::endpoint;
use crate::yaml::networks::{NamedNetworks, NetworkNames};
use crate::yaml::options;
use crate::yaml::problem::ProblemKind;

/// The word for [`Reaches::Nothing`].
const NOTHING: &str = "nothing";

/// The client of a test.
pub enum Client {
    Address(IpAddr),
    /// The networks of a name, one of whose hosts is the client.
    Networks(NamedNetworks),
    /// The networks of the name have a problem, which was reported, or stand in a file that could not be read.
    Unknown,
}

/// Reads an address, or the name of networks.
pub fn client(text: &str, networks: &mut NetworkNames<'_>) -> Result<Client, ProblemKind> {
    if let Ok(address) = text.parse() {
        return usable("from", address).map(Client::Address);
    }
    let named = networks.named(text);
    named.map(|named| named.map_or(Client::Unknown, Client::Networks))
}

/// Reads `PORT` or `IP:PORT`, an IPv6 address in brackets. The destination of a ping is an address.
pub fn destination(text: &str, protocol: OutboundProtocol) -> Result<TestDestination, ProblemKind> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match protocol.transport() {
        None if is_number => Err(ProblemKind::PortOfPingTest),
        Some(_) if is_number => {
            let port = text.parse();
            port.map(TestDestination::Machine)
                .map_err(|error| ProblemKind::InvalidPort { error })
        }
        _ if !text.contains(['.', ':']) => Err(ProblemKind::InvalidDestination {
            text: text.to_owned(),
        }),
        _ => host("to", text, protocol).map(TestDestination::Host),
    }
}

/// Reads `nothing`, or hosts separated by `|`.
pub fn reaches(text: &str, protocol: OutboundProtocol) -> Result<Reaches, ProblemKind> {
    if text == NOTHING {
        return Ok(Reaches::Nothing);
    }
    let mut hosts: Vec<TestHost> = Vec::new();
    for part in text.split('|').map(str::trim) {
        if part == NOTHING {
            return Err(ProblemKind::NothingBesideHosts);
        }
        if !part.contains(['.', ':']) {
            let text = part.to_owned();
            return Err(ProblemKind::InvalidReaches { text });
        }
        let one = host("reaches", part, protocol)?;
        if hosts.contains(&one) {
            let text = one.to_string();
            return Err(ProblemKind::Twice { text });
        }
        hosts.push(one);
    }
    Ok(Reaches::OneOf(hosts))
}

/// Reads the source that the reached host sees.
pub fn snat(text: &str) -> Result<Snat, ProblemKind> {
    let snat = options::snat(text)?;
    if let Snat::Addresses(range) = snat {
        usable("snat", range.first())?;
        usable("snat", range.last())?;
    }
    Ok(snat)
}

fn host(
    key: &'static str,
    text: &str,
    protocol: OutboundProtocol,
) -> Result<TestHost, ProblemKind> {
    let is_ping = protocol == OutboundProtocol::Ping;
    let host = match text.parse() {
        // No port follows, so IPv6 needs no brackets.
        Ok(address) if is_ping => TestHost {
            address,
            port: None,
        },
        _ => {
            let end = endpoint::destination(text)?;
            let port = match end.ports {
                TargetPorts::Kept => None,
                TargetPorts::Range(ports) if ports.is_single() => Some(ports.first()),
                TargetPorts::Range(ports) => return Err(ProblemKind::SeveralPorts { ports }),
            };
            with_port(end.address, port, protocol)?
        }
    };
    usable(key, host.address)?;
    Ok(host)
}

/// Returns a host that has a port if the protocol has ports.
fn with_port(
    address: IpAddr,
    port: Option<Port>,
    protocol: OutboundProtocol,
) -> Result<TestHost, ProblemKind> {
    match (protocol.transport(), port) {
        (Some(protocol), None) => Err(ProblemKind::NoTestPort { address, protocol }),
        (None, Some(_)) => Err(ProblemKind::PortOfPingTest),
        _ => Ok(TestHost { address, port }),
    }
}

fn usable(key: &'static str, address: IpAddr) -> Result<IpAddr, ProblemKind> {
    match net::not_a_host(address) {
        None => Ok(address),
        Some(reason) => Err(ProblemKind::UnusableAddress {
            key,
            address,
            reason,
        }),
    }
}

//! A listener and a target as text: an address with ports.

use std::net::IpAddr;

use super::problem::ProblemKind;
use crate::forwards::{Destination, Listen, TargetPorts};

/// Reads `PORT`, `PORT-PORT`, `IP:PORT` or `IP:PORT-PORT`, an IPv6 address in brackets.
pub fn listen(text: &str) -> Result<Listen, ProblemKind> {
    if !text.contains(']') && text.matches(':').count() > 1 {
        return Err(ProblemKind::NoBrackets {
            text: text.to_owned(),
        });
    }
    let (address, ports) = match text.rsplit_once(':') {
        Some((address, ports)) => (Some(host(address)?), ports),
        None => (None, text),
    };
    Ok(Listen {
        address,
        ports: ports
            .parse()
            .map_err(|error| ProblemKind::InvalidPort { error })?,
    })
}

/// Reads `IP`, `IP:PORT` or `IP:PORT-PORT`, an IPv6 address in brackets.
pub fn destination(text: &str) -> Result<Destination, ProblemKind> {
    if !text.contains(']') && text.matches(':').count() > 1 {
        return Err(ProblemKind::NoBrackets {
            text: text.to_owned(),
        });
    }
    let end = text.rfind(']').map_or(0, |bracket| bracket + 1);
    let (address, ports) = match text[end..].find(':') {
        None => (text, TargetPorts::Kept),
        Some(colon) => {
            let ports = &text[end + colon + 1..];
            let ports = ports
                .parse()
                .map_err(|error| ProblemKind::InvalidPort { error })?;
            (&text[..end + colon], TargetPorts::Range(ports))
        }
    };
    Ok(Destination {
        address: host(address)?,
        ports,
    })
}

/// Reads an address: IPv4, or IPv6 in brackets, since a port may follow.
fn host(text: &str) -> Result<IpAddr, ProblemKind> {
    let bracketed = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let text = text.to_owned();
    match (bracketed, text.parse::<IpAddr>()) {
        (Some(address), _) => address
            .parse()
            .map(IpAddr::V6)
            .map_err(|_| ProblemKind::InvalidAddress { text }),
        (None, Ok(address @ IpAddr::V4(_))) => Ok(address),
        (None, Ok(IpAddr::V6(_))) => Err(ProblemKind::NoBrackets { text }),
        (None, Err(_)) => Err(ProblemKind::InvalidAddress { text }),
    }
}

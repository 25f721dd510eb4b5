//! How a spec writes the places where a forward listens and leads.

use std::str::FromStr;

use super::problem::{self, ProblemKind};
use crate::forwards::{Destination, Listen, TargetPorts};

impl FromStr for Listen {
    type Err = ProblemKind;

    /// `PORT`, `PORT-PORT`, `IP:PORT` or `IP:PORT-PORT`, an IPv6 address in brackets.
    fn from_str(text: &str) -> Result<Self, ProblemKind> {
        if !text.contains(']') && text.matches(':').count() > 1 {
            return Err(ProblemKind::NoBrackets {
                text: text.to_owned(),
            });
        }
        let (address, ports) = match text.rsplit_once(':') {
            Some((address, ports)) => (Some(problem::host(address)?), ports),
            None => (None, text),
        };
        Ok(Self {
            address,
            ports: ports.parse().map_err(ProblemKind::InvalidPort)?,
        })
    }
}

impl FromStr for Destination {
    type Err = ProblemKind;

    /// `IP`, `IP:PORT` or `IP:PORT-PORT`, an IPv6 address in brackets.
    fn from_str(text: &str) -> Result<Self, ProblemKind> {
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
                let ports = ports.parse().map_err(ProblemKind::InvalidPort)?;
                (&text[..end + colon], TargetPorts::Range(ports))
            }
        };
        Ok(Self {
            address: problem::host(address)?,
            ports,
        })
    }
}

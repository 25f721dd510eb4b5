//! The keys `allow_from` and `deny_from`.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::forwards::Nets;
use crate::net::Family;
use crate::yaml::bounds::MAX_PROBLEMS;
use crate::yaml::fields::{Placed, parsed_item, sequence};
use crate::yaml::load::Node;
use crate::yaml::problem::{Problem, ProblemKind};

/// A list of networks by family. Forwards with the same list share both parts.
#[derive(Debug, Clone, Default)]
pub struct ByFamily {
    v4: Nets,
    v6: Nets,
}

impl ByFamily {
    pub fn of(&self, family: Family) -> &Nets {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

/// Reads a list of networks, or nothing if one of them is invalid.
pub fn nets(
    node: &Node<'_>,
    key: &'static str,
    problems: &mut Vec<Problem>,
) -> Option<Placed<ByFamily>> {
    let mut nets: Vec<IpNet> = Vec::new();
    let items = sequence(node, key, problems)?;
    for item in items {
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
        let expected = "a network as `198.51.100.0/24`";
        nets.extend(parsed_item(item, key, expected, problems, net).map(|net| net.value));
    }
    // A check of the other networks alone could report a problem that the spec does not have.
    if nets.len() < items.len() {
        return None;
    }
    let (v4, v6): (Vec<IpNet>, Vec<IpNet>) = nets
        .into_iter()
        .partition(|net| Family::of(net.addr()) == Family::V4);
    Some(Placed {
        value: ByFamily {
            v4: Nets::new(v4),
            v6: Nets::new(v6),
        },
        span: node.span.clone(),
    })
}

/// Reads a network, or an address alone. Leading zeros are refused: iptables reads them as octal. Bits
/// after the prefix are refused: iptables clears them and says nothing.
fn net(text: &str) -> Result<IpNet, ProblemKind> {
    let invalid = || ProblemKind::InvalidNet {
        text: text.to_owned(),
    };
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| invalid())?;
    let Some(bits) = bits else {
        return Ok(IpNet::from(address));
    };
    let plain = bits == "0" || !bits.starts_with(['0', '+']);
    let bits = bits.parse().ok().filter(|_| plain).ok_or_else(invalid)?;
    let net = IpNet::new(address, bits).map_err(|_| invalid())?;
    if net == net.trunc() {
        Ok(net)
    } else {
        Err(ProblemKind::HostBits { net })
    }
}

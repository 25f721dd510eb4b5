//! The keys `allow_from`, `deny_from`, `allow_to` and `deny_to`.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::forwards::{GUARDED, Nets};
use crate::net::Family;
use crate::yaml::bounds::MAX_PROBLEMS;
use crate::yaml::fields::{Placed, parsed, sequence};
use crate::yaml::load::{Node, Value};
use crate::yaml::problem::{Problem, ProblemKind};

/// A list of networks by family. Forwards with the same list share both parts.
#[derive(Debug, Clone, Default)]
pub struct ByFamily {
    v4: Nets,
    v6: Nets,
}

impl ByFamily {
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

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
    let items: Vec<&Node<'_>> = sequence(node, key, problems)?.iter().collect();
    Some(Placed {
        value: by_family(each(&items, key, problems)?),
        span: node.span.clone(),
    })
}

/// Reads the networks of a list's items, or nothing if one of them is invalid.
fn each(items: &[&Node<'_>], key: &'static str, problems: &mut Vec<Problem>) -> Option<Vec<IpNet>> {
    let mut nets: Vec<IpNet> = Vec::new();
    for item in items {
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
        let expected = "a list of networks as `198.51.100.0/24`";
        nets.extend(parsed(item, key, expected, problems, net).map(|net| net.value));
    }
    // A check of the other networks alone could report a problem that the spec does not have.
    (nets.len() == items.len()).then_some(nets)
}

fn by_family(nets: Vec<IpNet>) -> ByFamily {
    let (v4, v6): (Vec<IpNet>, Vec<IpNet>) = nets
        .into_iter()
        .partition(|net| Family::of(net.addr()) == Family::V4);
    ByFamily {
        v4: Nets::new(v4),
        v6: Nets::new(v6),
    }
}

/// The destinations of an outbound entry as written.
#[derive(Debug, Clone, Default)]
pub struct WrittenDestinations {
    pub internet: bool,
    pub nets: ByFamily,
    /// The addresses of [`GUARDED`] that the list names exactly.
    pub named: Vec<IpAddr>,
}

impl WrittenDestinations {
    pub fn internet() -> Self {
        Self {
            internet: true,
            ..Self::default()
        }
    }

    pub fn is_empty(&self) -> bool {
        !self.internet && self.nets.is_empty()
    }

    pub fn has(&self, family: Family) -> bool {
        self.internet || !self.nets.of(family).is_empty()
    }
}

/// Reads a list of networks, in which the word `internet` may stand, or that word alone.
pub fn destinations(
    node: &Node<'_>,
    key: &'static str,
    problems: &mut Vec<Problem>,
) -> Option<Placed<WrittenDestinations>> {
    let is_internet =
        |item: &&Node<'_>| matches!(&item.value, Value::Scalar(text) if text == INTERNET);
    let items = if is_internet(&node) {
        std::slice::from_ref(node)
    } else {
        sequence(node, key, problems)?
    };
    let (internet, others): (Vec<&Node<'_>>, Vec<_>) = items.iter().partition(is_internet);
    if let [_, again, ..] = internet.as_slice() {
        let text = INTERNET.to_owned();
        problems.push(Problem::new(
            again.span.clone(),
            ProblemKind::Twice { text },
        ));
    }
    let nets = each(&others, key, problems)?;
    let exact = |address: &IpAddr| nets.contains(&IpNet::from(*address));
    Some(Placed {
        value: WrittenDestinations {
            internet: !internet.is_empty(),
            named: GUARDED.into_iter().filter(exact).collect(),
            nets: by_family(nets),
        },
        span: node.span.clone(),
    })
}

/// The word for all addresses of the Internet.
const INTERNET: &str = "internet";

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

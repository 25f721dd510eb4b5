//! Networks as text, and lists of them by family.

use std::net::IpAddr;

use ipnet::IpNet;

use super::problem::ProblemKind;
use crate::forwards::{GUARDED, Nets};
use crate::net::Family;

/// A list of networks by family. Forwards with the same list share both parts.
#[derive(Debug, Clone, Default)]
pub struct ByFamily {
    v4: Nets,
    v6: Nets,
    /// The addresses of [`GUARDED`] that the list names exactly: `v4` may have them in a wider network.
    guarded: Vec<IpAddr>,
    /// The first network of each family as it was written.
    first: Vec<IpNet>,
}

impl ByFamily {
    pub fn new(nets: Vec<IpNet>) -> Self {
        let exact = |address: &IpAddr| nets.contains(&IpNet::from(*address));
        let guarded = GUARDED.into_iter().filter(exact).collect();
        let firsts = Family::ALL.into_iter().filter_map(|family| {
            let mut of_family = nets.iter().filter(|net| Family::of(net.addr()) == family);
            of_family.next().copied()
        });
        let first = firsts.collect();
        let of_v4 = |net: &IpNet| Family::of(net.addr()) == Family::V4;
        let (v4, v6): (Vec<IpNet>, Vec<IpNet>) = nets.into_iter().partition(of_v4);
        Self {
            v4: Nets::new(v4),
            v6: Nets::new(v6),
            guarded,
            first,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    pub fn of(&self, family: Family) -> &Nets {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// Returns the first network of a family as the list was written.
    pub fn first(&self, family: Family) -> Option<IpNet> {
        let mut each = self.first.iter().copied();
        each.find(|net| Family::of(net.addr()) == family)
    }

    /// Returns the networks of both families, and the addresses of the platform that the list names exactly.
    pub fn all(&self) -> impl Iterator<Item = IpNet> {
        let both = self.v4.as_slice().iter().chain(self.v6.as_slice());
        let guarded = self.guarded.iter().copied().map(IpNet::from);
        both.copied().chain(guarded)
    }

    /// Returns the addresses of the platform that the list names exactly.
    pub fn guarded(&self) -> &[IpAddr] {
        &self.guarded
    }
}

/// Reads a network, or an address alone. Leading zeros are refused: iptables reads them as octal. Bits
/// after the prefix are refused: iptables clears them and says nothing.
pub fn net(text: &str) -> Result<IpNet, ProblemKind> {
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

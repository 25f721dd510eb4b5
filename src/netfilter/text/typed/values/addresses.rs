//! Addresses and networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::net::{Family, Host};
use crate::netfilter::text::typed::error::{OrProblem, TypedProblem};
use crate::netfilter::text::typed::values::number;
use crate::netfilter::text::typed::values::ports::Ports;

/// A network of `-s`, `-d` or `--ctorigdst`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Net {
    /// Every address: iptables-save leaves it out unless it is negated.
    All,
    /// It may have host bits.
    Of(IpNet),
    /// A mask that is no prefix.
    Masked(Ipv4Addr, Ipv4Addr),
}

impl Net {
    /// Reads `10.0.0.1`, `10/8`, `10.0.0.0/255.0.0.0`, `fd00::/8`.
    pub fn read(typed: &str, family: Family, option: &str) -> OrProblem<Self> {
        let bad = || TypedProblem::BadValue {
            option: option.to_owned(),
            value: typed.to_owned(),
            expected: "an address or a network",
        };
        let (address, mask) = match typed.split_once('/') {
            Some((address, mask)) => (address, Some(mask)),
            None => (typed, None),
        };
        // A name before a mask of 0 is not looked up (`xtables_ipparse_multiple` in libxtables).
        if mask == Some("0") {
            return Ok(Net::All);
        }
        let address = self::address(address, family)
            .ok_or_else(|| unresolved(typed, address, family, option))?;
        match (address, mask) {
            (address, None) => Ok(Net::Of(address.into())),
            (IpAddr::V4(address), Some(mask)) => masked(address, mask).ok_or_else(bad),
            (IpAddr::V6(address), Some(mask)) => {
                let len = match mask.parse::<Ipv6Addr>() {
                    Ok(mask) => ipnet::ip_mask_to_prefix(mask.into()).ok(),
                    Err(_) => number(mask).and_then(|len| len.try_into().ok()),
                };
                let net = len.and_then(|len| IpNet::new(address.into(), len).ok());
                net.map(of).ok_or_else(bad)
            }
        }
    }
}

fn of(net: IpNet) -> Net {
    if net.prefix_len() == 0 {
        Net::All
    } else {
        Net::Of(net)
    }
}

fn masked(address: Ipv4Addr, mask: &str) -> Option<Net> {
    if mask.contains('.') {
        let mask: Ipv4Addr = mask.parse().ok()?;
        return Some(match ipnet::ip_mask_to_prefix(mask.into()) {
            Ok(len) => of(IpNet::new(address.into(), len).ok()?),
            Err(_) => Net::Masked(address & mask, mask),
        });
    }
    let len = number(mask)?.try_into().ok()?;
    IpNet::new(address.into(), len).ok().map(of)
}

/// Says why an address is not read.
fn unresolved(typed: &str, address: &str, family: Family, option: &str) -> TypedProblem {
    let other = match family {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if self::address(address, other).is_some() {
        TypedProblem::OtherFamily {
            value: typed.to_owned(),
            of: family,
        }
    } else if address.contains(|c: char| c.is_ascii_alphabetic()) && address.chars().all(is_name) {
        TypedProblem::HostName(address.to_owned())
    } else {
        TypedProblem::BadValue {
            option: option.to_owned(),
            value: typed.to_owned(),
            expected: "an address or a network",
        }
    }
}

/// Reads an address. The numbers of an IPv4 address may be octal or hexadecimal, and missing ones are 0
/// (`numeric_to_ipaddr` in libxtables).
pub fn address(typed: &str, family: Family) -> Option<IpAddr> {
    if family == Family::V6 {
        return typed.parse::<Ipv6Addr>().ok().map(IpAddr::from);
    }
    let mut octets = [0; 4];
    let mut parts = typed.split('.');
    for (octet, part) in octets.iter_mut().zip(&mut parts) {
        *octet = number(part)?.try_into().ok()?;
    }
    parts.next().is_none().then(|| IpAddr::from(octets))
}

/// Reads `A-B`, or one address as both ends. A range that runs backwards is taken, and matches nothing.
fn range(typed: &str, family: Family) -> Option<(IpAddr, IpAddr)> {
    let (first, last) = typed.split_once('-').unwrap_or((typed, typed));
    Some((address(first, family)?, address(last, family)?))
}

/// Spells the range of `-m iprange`, one address included as a range.
pub fn iprange(typed: &str, family: Family) -> Option<String> {
    let (first, last) = range(typed, family)?;
    Some(format!("{first}-{last}"))
}

/// The addresses and ports that a target of nat gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatTo {
    pub spelled: String,
    pub has_ports: bool,
}

/// Spells `--to-destination` and `--to-source`: `A`, `A-B`, `A:80`, `A:80-90`, `A:80-90/1000`, `:80`; IPv6 in brackets
/// where ports follow.
pub fn nat_to(typed: &str, family: Family) -> Option<NatTo> {
    let (addresses, ports) = match (typed.strip_prefix('['), family) {
        (Some(bracketed), Family::V6) => {
            let (addresses, rest) = bracketed.split_once(']')?;
            let ports = match rest {
                "" => None,
                rest => Some(rest.strip_prefix(':')?),
            };
            (addresses, ports)
        }
        (_, Family::V6) => (typed, None),
        (_, Family::V4) => match typed.split_once(':') {
            Some((addresses, ports)) => (addresses, Some(ports)),
            None => (typed, None),
        },
    };
    let addresses = match addresses {
        "" if ports.is_some() => None,
        addresses => Some(range(addresses, family)?),
    };
    let ports = ports.map(nat_ports);
    let ports = match ports {
        None => None,
        Some(ports) => Some(ports?),
    };
    let mut spelled = match addresses {
        None => String::new(),
        Some((first, last)) if first == last => match &ports {
            Some(_) => Host(first).to_string(),
            None => first.to_string(),
        },
        Some((first, last)) => match (family, &ports) {
            (Family::V6, Some(_)) => format!("[{first}-{last}]"),
            _ => format!("{first}-{last}"),
        },
    };
    if let Some(ports) = &ports {
        spelled = format!("{spelled}:{ports}");
    }
    Some(NatTo {
        spelled,
        has_ports: ports.is_some(),
    })
}

/// Spells `80`, `80-90` or `80-90/1000`.
pub fn nat_ports(typed: &str) -> Option<String> {
    let (ports, base) = match typed.split_once('/') {
        Some((ports, base)) => (
            ports,
            Some(Ports::read(base, '-').filter(|base| base.is_one())?),
        ),
        None => (typed, None),
    };
    let ports = Ports::read(ports, '-')?.spelled('-');
    Some(match base {
        Some(base) => format!("{ports}/{}", base.spelled('-')),
        None => ports,
    })
}

//! Addresses, address ranges, and the addresses that no host can have.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use thiserror::Error;

use super::family::Family;

/// One or more consecutive addresses of one family, both ends included; written `10.3.0.4` or
/// `10.3.0.4-10.3.0.7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    /// Returns the range, or `None` if it runs backwards or its ends are of different families.
    #[must_use]
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        let valid = first <= last && Family::of(first) == Family::of(last);
        valid.then_some(Self { first, last })
    }

    #[must_use]
    pub fn first(self) -> IpAddr {
        self.first
    }

    #[must_use]
    pub fn last(self) -> IpAddr {
        self.last
    }

    #[must_use]
    pub fn family(self) -> Family {
        Family::of(self.first)
    }

    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.first <= address && address <= self.last && self.family() == Family::of(address)
    }

    /// Returns all addresses of the range, in order.
    pub fn addresses(self) -> impl Iterator<Item = IpAddr> {
        let mut next = Some(self.first);
        std::iter::from_fn(move || {
            let address = next.filter(|address| *address <= self.last)?;
            next = match address {
                IpAddr::V4(v4) => v4
                    .to_bits()
                    .checked_add(1)
                    .map(|bits| IpAddr::V4(bits.into())),
                IpAddr::V6(v6) => v6
                    .to_bits()
                    .checked_add(1)
                    .map(|bits| IpAddr::V6(bits.into())),
            };
            Some(address)
        })
    }

    /// Returns the address if the range holds only one.
    #[must_use]
    pub fn single(self) -> Option<IpAddr> {
        (self.first == self.last).then_some(self.first)
    }
}

impl From<IpAddr> for AddressRange {
    fn from(address: IpAddr) -> Self {
        Self {
            first: address,
            last: address,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is neither an address nor a range of addresses")]
pub struct AddressRangeError(String);

impl FromStr for AddressRange {
    type Err = AddressRangeError;

    fn from_str(text: &str) -> Result<Self, AddressRangeError> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) => Self::new(first, last),
            _ => None,
        };
        range.ok_or_else(|| AddressRangeError(text.to_owned()))
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.single() {
            Some(address) => address.fmt(f),
            None => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// An address as it is printed in front of a port: IPv6 in brackets (RFC 3986, 3.2.2).
#[derive(Debug, Clone, Copy)]
pub struct Host(pub IpAddr);

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(address) => write!(f, "[{address}]"),
        }
    }
}

/// Azure's virtual public address: the platform's DNS, DHCP, health probes and host agent
/// (<https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16>).
pub const AZURE_HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16));

/// Returns the reason why no host on a network can have an address, or `None` if a host can.
///
/// RFC 6890 names the blocks. The kernel treats sources in them as martian.
#[must_use]
pub fn not_a_host(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) if address.octets()[0] == 0 => {
            Some("addresses in 0.0.0.0/8 name no host")
        }
        IpAddr::V4(address) if address.is_loopback() => {
            Some("addresses in 127.0.0.0/8 never leave the machine")
        }
        IpAddr::V4(address) if address.is_multicast() => {
            Some("addresses in 224.0.0.0/4 are multicast groups")
        }
        IpAddr::V4(address) if address.octets()[0] >= 240 => {
            Some("addresses in 240.0.0.0/4 are reserved or broadcast")
        }
        IpAddr::V6(address) if address.is_unspecified() => Some("`::` names no host"),
        IpAddr::V6(address) if address.is_loopback() => Some("`::1` never leaves the machine"),
        IpAddr::V6(address) if address.is_multicast() => {
            Some("addresses in ff00::/8 are multicast groups")
        }
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
            Some("addresses in ::ffff:0:0/96 are IPv4 in disguise, which no network carries")
        }
        IpAddr::V6(address) if address.segments()[..6] == [0; 6] => {
            Some("addresses in ::/96 are IPv4 in disguise, which no network carries any more")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_no_host_can_have_is_recognised() {
        for (address, usable) in [
            ("10.3.0.4", true),
            ("223.255.255.255", true),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("127.0.0.1", false),
            ("224.0.0.1", false),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
            ("fd00::10", true),
            ("2001:db8::1", true),
            ("::", false),
            ("::1", false),
            ("ff02::1", false),
            ("::ffff:10.3.0.4", false),
            ("::10.3.0.4", false),
        ] {
            assert_eq!(
                not_a_host(address.parse().unwrap()).is_none(),
                usable,
                "{address}"
            );
        }
    }

    #[test]
    fn an_address_range_has_one_family_and_runs_forwards() {
        for text in ["10.3.0.4", "10.3.0.4-10.3.0.7", "fd00::1-fd00::9"] {
            let range: AddressRange = text.parse().expect("it is a range");
            assert_eq!(range.to_string(), text);
        }
        let one: AddressRange = "10.3.0.4-10.3.0.4".parse().expect("it is a range");
        assert_eq!(one.to_string(), "10.3.0.4");
        for text in [
            "10.3.0.7-10.3.0.4",
            "10.3.0.4-fd00::1",
            "10.3.0.4-",
            "eth0",
            "",
        ] {
            assert!(text.parse::<AddressRange>().is_err(), "{text}");
        }
    }
}

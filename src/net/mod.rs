//! The words of a packet filter that are not rules: interface names, ports and
//! port ranges, protocols, address families and ranges, and the kinds of address that matter to a
//! forward.
//!
//! Every type here is read by `FromStr` and printed by `Display`, and the two are inverses.

pub mod per_family;
pub mod printable;
pub mod words;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::Serialize;
use thiserror::Error;

/// The name of a network interface: 1 to 15 of `[A-Za-z0-9_.-]` (IFNAMSIZ is 16 with the NUL).
///
/// Narrower than the kernel allows on purpose. A trailing `+` is a wildcard to iptables, a space
/// is saved unquoted and does not load again, a leading `-` reads as an option, and the kernel
/// itself refuses `.` and `..` (`dev_valid_name` in net/core/dev.c).
///
/// Held as the kernel holds it, with NULs behind: every rule has one or two, and they cost no
/// allocation.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Interface([u8; Self::SIZE]);

impl Interface {
    const SIZE: usize = 16;

    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|b| *b == 0).unwrap_or(Self::SIZE);
        // It is ASCII.
        str::from_utf8(&self.0[..end]).unwrap_or_default()
    }
}

impl fmt::Debug for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Interface").field(&self.as_str()).finish()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InterfaceError {
    #[error("an interface name cannot be empty")]
    Empty,
    #[error("`{0}` is longer than the kernel's 15 bytes for an interface name")]
    TooLong(String),
    #[error("`{name}` is not an interface name: {found:?} is not one of A-Z a-z 0-9 _ . -")]
    BadCharacter { name: String, found: char },
    #[error("`{0}` starts with `-`, which iptables reads as an option")]
    LeadingDash(String),
    #[error("`{0}` is a folder's name, not an interface's: the kernel refuses it")]
    Dots(String),
}

impl FromStr for Interface {
    type Err = InterfaceError;

    fn from_str(text: &str) -> Result<Self, InterfaceError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if text.is_empty() {
            Err(InterfaceError::Empty)
        } else if let Some(found) = text.chars().find(|c| !allowed(*c)) {
            Err(InterfaceError::BadCharacter {
                name: text.to_owned(),
                found,
            })
        } else if text.len() >= Self::SIZE {
            Err(InterfaceError::TooLong(text.to_owned()))
        } else if text.starts_with('-') {
            Err(InterfaceError::LeadingDash(text.to_owned()))
        } else if matches!(text, "." | "..") {
            Err(InterfaceError::Dots(text.to_owned()))
        } else {
            let mut name = [0; Self::SIZE];
            name[..text.len()].copy_from_slice(text.as_bytes());
            Ok(Self(name))
        }
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A TCP or UDP port that can be used: 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port(u16);

impl Port {
    pub const MIN: Port = Port(1);

    pub const SSH: Port = Port(22);

    /// `None` for 0, which is no port that can be used.
    #[must_use]
    pub fn new(number: u16) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }

    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PortError {
    #[error("`{0}` is not a port: a port is a decimal number from 1 to 65535")]
    NotDecimal(String),
    #[error("`{0}` is not a port: leading zeros read as octal elsewhere")]
    LeadingZero(String),
    #[error("port 0 means `any` to the kernel, a forward cannot use it")]
    Zero,
    #[error("port {0} is above 65535")]
    TooLarge(String),
    #[error("the range {first}-{last} runs backwards")]
    Backwards { first: Port, last: Port },
}

impl FromStr for Port {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            Err(PortError::NotDecimal(text.to_owned()))
        } else if text == "0" {
            Err(PortError::Zero)
        } else if text.starts_with('0') {
            Err(PortError::LeadingZero(text.to_owned()))
        } else {
            // Only digits are left, so the one way to fail is overflow.
            text.parse()
                .map(Self)
                .map_err(|_| PortError::TooLarge(text.to_owned()))
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One or more consecutive ports, both ends included; written `49181` or `5000-5010`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    first: Port,
    last: Port,
}

impl PortRange {
    pub const ALL: PortRange = PortRange {
        first: Port::MIN,
        last: Port(u16::MAX),
    };

    /// # Errors
    /// [`PortError::Backwards`] when `last` is below `first`.
    pub fn new(first: Port, last: Port) -> Result<Self, PortError> {
        if first <= last {
            Ok(Self { first, last })
        } else {
            Err(PortError::Backwards { first, last })
        }
    }

    #[must_use]
    pub fn first(self) -> Port {
        self.first
    }

    #[must_use]
    pub fn last(self) -> Port {
        self.last
    }

    /// How many ports the range holds, at least 1.
    #[must_use]
    pub fn count(self) -> u32 {
        u32::from(self.last.0) - u32::from(self.first.0) + 1
    }

    #[must_use]
    pub fn contains(self, port: Port) -> bool {
        self.first <= port && port <= self.last
    }

    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether this is one port, which iptables spells without a range.
    #[must_use]
    pub fn is_single(self) -> bool {
        self.first == self.last
    }
}

impl From<Port> for PortRange {
    fn from(port: Port) -> Self {
        Self {
            first: port,
            last: port,
        }
    }
}

impl FromStr for PortRange {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        match text.split_once('-') {
            Some((first, last)) => Self::new(first.parse()?, last.parse()?),
            None => text.parse::<Port>().map(Self::from),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_single() {
            self.first.fmt(f)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// A transport protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// In the order in which they are offered to a user.
    pub const ALL: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a protocol")]
pub struct ProtocolError(String);

impl FromStr for Protocol {
    type Err = ProtocolError;

    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        Self::ALL
            .into_iter()
            .find(|protocol| protocol.as_str() == text)
            .ok_or_else(|| ProtocolError(text.to_owned()))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An address family. Each has tables of its own, and programs of its own that load them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// As a spec and the command line spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Family::V4 => "v4",
            Family::V6 => "v6",
        }
    }

    /// The machine's own addresses that never leave it.
    #[must_use]
    pub fn loopback(self) -> IpNet {
        match self {
            Family::V4 => IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
            Family::V6 => IpNet::new_assert(IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// One or more consecutive addresses of one family, both ends included; written `10.3.0.4` or
/// `10.3.0.4-10.3.0.7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    /// `None` when the range runs backwards, or from one family to the other.
    #[must_use]
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        let sound = first <= last && Family::of(first) == Family::of(last);
        sound.then_some(Self { first, last })
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

    /// The address, if it is only one.
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

/// An address in front of a port: IPv6 in brackets (RFC 3986, 3.2.2).
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

/// Why an address cannot be one host's on a network, if it cannot.
///
/// RFC 6890 names the blocks; the kernel treats sources in them as martian.
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
    fn names_the_kernel_and_iptables_read_alike_are_interfaces() {
        for name in ["eth0", "ens5.100", "br-1a_b", "a", "fifteen-bytes-x", "..."] {
            assert_eq!(name.parse::<Interface>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn other_names_are_refused_with_their_reason() {
        for (name, reason) in [
            ("", "cannot be empty"),
            ("sixteen-bytes-xx", "15 bytes"),
            ("eth+", "'+' is not one of"),
            ("eth 0", "' ' is not one of"),
            ("eth0\n-j", "'\\n' is not one of"),
            ("-i", "reads as an option"),
            ("ethernet-ä", "'ä' is not one of"),
            ("..", "folder's name"),
        ] {
            let message = name.parse::<Interface>().unwrap_err().to_string();
            assert!(message.contains(reason), "{name:?}: {message}");
        }
    }

    #[test]
    fn ports_are_decimal_from_1_to_65535() {
        for text in ["1", "80", "65535"] {
            assert_eq!(text.parse::<Port>().unwrap().to_string(), text);
        }
        for (text, reason) in [
            ("0", "port 0"),
            ("65536", "above 65535"),
            ("99999999999999999999", "above 65535"),
            ("080", "octal"),
            ("0x50", "decimal"),
            ("80.0", "decimal"),
            ("1:20", "decimal"),
            ("+80", "decimal"),
            ("8_0", "decimal"),
            (" 80", "decimal"),
            ("٨٠", "decimal"),
            ("", "decimal"),
        ] {
            let message = text.parse::<Port>().unwrap_err().to_string();
            assert!(message.contains(reason), "{text:?}: {message}");
        }
    }

    #[test]
    fn ranges_print_as_they_read_and_know_their_neighbours() {
        let range: PortRange = "5000-5010".parse().unwrap();
        assert_eq!(range.to_string(), "5000-5010");
        assert_eq!(range.count(), 11);
        assert_eq!("80-80".parse::<PortRange>().unwrap().to_string(), "80");
        for (other, overlaps) in [
            ("4999", false),
            ("5000", true),
            ("5010-6000", true),
            ("5011", false),
            ("1-65535", true),
        ] {
            let other: PortRange = other.parse().unwrap();
            assert_eq!(range.overlaps(other), overlaps, "{other}");
            assert_eq!(other.overlaps(range), overlaps, "{other}");
        }
        let error = "10-9".parse::<PortRange>().unwrap_err();
        assert_eq!(error.to_string(), "the range 10-9 runs backwards");
        assert!("1-2-3".parse::<PortRange>().is_err());
        assert!("-5".parse::<PortRange>().is_err());
    }

    #[test]
    fn addresses_that_are_no_host_say_why() {
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
    fn ranges_of_addresses_are_of_one_family_and_run_forwards() {
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

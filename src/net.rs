//! The words of a packet filter that are not rules: interface names, ports and
//! port ranges, protocols, and the kinds of IPv4 address that matter to a forward.
//!
//! Every type here is read by `FromStr` and printed by `Display`, and the two are inverses.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use thiserror::Error;

/// The name of a network interface: 1 to 15 of `[A-Za-z0-9_.-]` (IFNAMSIZ is 16 with the NUL).
///
/// Narrower than the kernel allows on purpose. A trailing `+` is a wildcard to iptables, a space
/// is saved unquoted and does not load again, a leading `-` reads as an option, and the kernel
/// itself refuses `.` and `..` (`dev_valid_name` in net/core/dev.c).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Interface(Box<str>);

impl Interface {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
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
        } else if text.len() > 15 {
            Err(InterfaceError::TooLong(text.to_owned()))
        } else if text.starts_with('-') {
            Err(InterfaceError::LeadingDash(text.to_owned()))
        } else if matches!(text, "." | "..") {
            Err(InterfaceError::Dots(text.to_owned()))
        } else {
            Ok(Self(text.into()))
        }
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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
            write!(f, "{}", self.first)
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

/// Azure's virtual public address: the platform's DNS, DHCP, health probes and host agent
/// (<https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16>).
pub const AZURE_HOST: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

/// Why an address cannot be one host's on a network, if it cannot.
///
/// RFC 6890 names the blocks; the kernel treats sources in them as martian.
#[must_use]
pub fn not_a_host(address: Ipv4Addr) -> Option<&'static str> {
    if address.octets()[0] == 0 {
        Some("addresses in 0.0.0.0/8 name no host")
    } else if address.is_loopback() {
        Some("addresses in 127.0.0.0/8 never leave the machine")
    } else if address.is_multicast() {
        Some("addresses in 224.0.0.0/4 are multicast groups")
    } else if address.octets()[0] >= 240 {
        Some("addresses in 240.0.0.0/4 are reserved or broadcast")
    } else {
        None
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
        ] {
            assert_eq!(
                not_a_host(address.parse().unwrap()).is_none(),
                usable,
                "{address}"
            );
        }
    }
}

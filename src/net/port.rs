//! Ports and port ranges.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A usable TCP or UDP port: 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port(u16);

impl Port {
    pub const MIN: Port = Port(1);

    pub const SSH: Port = Port(22);

    /// Returns the port, or `None` for 0, which no program can listen on.
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
    #[error("a port is missing: a port is a decimal number from 1 to 65535")]
    Missing,
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
        if text.is_empty() {
            Err(PortError::Missing)
        } else if !text.bytes().all(|b| b.is_ascii_digit()) {
            Err(PortError::NotDecimal(text.to_owned()))
        } else if text == "0" {
            Err(PortError::Zero)
        } else if text.starts_with('0') {
            Err(PortError::LeadingZero(text.to_owned()))
        } else {
            // The text is all digits, so `parse` can fail only by overflow.
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

    /// Returns the number of ports in the range, at least 1.
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

    /// Returns the ports that are in both ranges.
    #[must_use]
    pub fn shared(self, other: Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.last.min(other.last)).ok()
    }

    /// Returns the ports that are not in the other range.
    pub fn without(self, other: Self) -> impl Iterator<Item = Self> {
        let before = other.first.0.checked_sub(1).and_then(Port::new);
        let before = before.and_then(|last| Self::new(self.first, self.last.min(last)).ok());
        let after = other.last.0.checked_add(1).and_then(Port::new);
        let after = after.and_then(|first| Self::new(self.first.max(first), self.last).ok());
        before.into_iter().chain(after)
    }

    /// Returns whether this is one port. iptables spells it without a range.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_a_decimal_number_from_1_to_65535() {
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
            ("", "a port is missing"),
        ] {
            let message = text.parse::<Port>().unwrap_err().to_string();
            assert!(message.contains(reason), "{text:?}: {message}");
        }
    }

    #[test]
    fn a_port_range_prints_as_it_reads_and_detects_overlaps() {
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
        for (other, shared, without) in [
            ("4999", None, &["5000-5010"][..]),
            ("5011-6000", None, &["5000-5010"]),
            ("4000-5003", Some("5000-5003"), &["5004-5010"]),
            ("5010", Some("5010"), &["5000-5009"]),
            ("5003-5004", Some("5003-5004"), &["5000-5002", "5005-5010"]),
            ("1-65535", Some("5000-5010"), &[]),
        ] {
            let other: PortRange = other.parse().unwrap();
            let said = range.shared(other).map(|range| range.to_string());
            assert_eq!(said.as_deref(), shared, "{other}");
            let said: Vec<String> = range
                .without(other)
                .map(|range| range.to_string())
                .collect();
            assert_eq!(said, without, "{other}");
        }
        let error = "10-9".parse::<PortRange>().unwrap_err();
        assert_eq!(error.to_string(), "the range 10-9 runs backwards");
        assert!("1-2-3".parse::<PortRange>().is_err());
        for text in ["-5", "1-", "-", ""] {
            assert_eq!(text.parse::<PortRange>(), Err(PortError::Missing), "{text}");
        }
    }
}

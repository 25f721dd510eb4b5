//! The flags of TCP that `--tcp-flags` asks for.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The flags that are looked at, and those of them that must be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TcpFlags {
    pub examined: FlagSet,
    pub set: FlagSet,
}

impl TcpFlags {
    /// `--syn`: the packet opens a connection.
    pub const OPENING: TcpFlags = TcpFlags {
        examined: FlagSet(0b01_0111),
        set: FlagSet(0b00_0010),
    };

    /// The packet announces the size of segments: it opens a connection, or is the answer to one that does.
    pub const ANNOUNCING: TcpFlags = TcpFlags {
        examined: FlagSet(0b00_0110),
        set: FlagSet(0b00_0010),
    };

    /// Returns whether a packet that opens a connection has these flags. SYN is its only one.
    #[must_use]
    pub fn hold_for_opening(self) -> bool {
        Self::OPENING.set.0 & self.examined.0 == self.set.0
    }
}

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.examined, self.set)
    }
}

/// Flags as the bits that they are in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlagSet(u8);

impl FlagSet {
    /// In the order of their bits, which is that of iptables-save.
    const NAMES: [&str; 6] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG"];
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a list of TCP flags as iptables-save prints it")]
pub struct FlagSetError(String);

impl FromStr for FlagSet {
    type Err = FlagSetError;

    fn from_str(text: &str) -> Result<Self, FlagSetError> {
        if text == "NONE" {
            return Ok(Self(0));
        }
        let bits = text.split(',').try_fold(0, |bits, word| {
            let at = Self::NAMES.iter().position(|name| *name == word)?;
            Some(bits | 1 << at)
        });
        bits.map(Self).ok_or_else(|| FlagSetError(text.to_owned()))
    }
}

impl fmt::Display for FlagSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("NONE");
        }
        let set = Self::NAMES.iter().enumerate();
        let mut comma = "";
        for (_, name) in set.filter(|(at, _)| self.0 & 1 << at != 0) {
            write!(f, "{comma}{name}")?;
            comma = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_print_as_they_were_read() {
        for text in ["NONE", "SYN", "SYN,RST", "FIN,SYN,RST,PSH,ACK,URG"] {
            let flags: FlagSet = text.parse().expect("they are flags");
            assert_eq!(flags.to_string(), text);
        }
        assert_eq!(TcpFlags::OPENING.to_string(), "FIN,SYN,RST,ACK SYN");
        assert_eq!(TcpFlags::ANNOUNCING.to_string(), "SYN,RST SYN");
        for text in ["", "syn", "ALL", "SYN,", "SYN|RST"] {
            assert!(text.parse::<FlagSet>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_packet_that_opens_a_connection_has_only_the_flag_syn() {
        for (examined, set, holds) in [
            ("FIN,SYN,RST,ACK", "SYN", true),
            ("SYN,RST", "SYN", true),
            ("ACK", "NONE", true),
            ("SYN,ACK", "ACK", false),
            ("FIN,SYN", "FIN,SYN", false),
            ("PSH", "PSH", false),
            // No packet has a flag that is not examined.
            ("RST", "SYN", false),
        ] {
            let [examined, set] = [examined, set].map(|text| text.parse().expect("they are flags"));
            let flags = TcpFlags { examined, set };
            assert_eq!(flags.hold_for_opening(), holds, "{flags}");
        }
    }
}

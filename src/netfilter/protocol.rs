//! The protocols that a rule may name, and the types of ICMP.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::net::Protocol;

/// The protocol of `-p`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IpProtocol {
    /// One that forwards can have.
    Transport(Protocol),
    Icmp,
    Icmp6,
    /// Any other.
    Other(OtherProtocol),
}

/// A protocol as iptables spells it: a name or a number, depending on the version of iptables and on the
/// machine's `/etc/protocols`. None of those with a variant in [`IpProtocol`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OtherProtocol(Box<str>);

impl IpProtocol {
    /// Returns the protocol, if forwards can have it.
    #[must_use]
    pub fn transport(&self) -> Option<Protocol> {
        match self {
            IpProtocol::Transport(protocol) => Some(*protocol),
            _ => None,
        }
    }

    fn as_str(&self) -> &str {
        match self {
            IpProtocol::Transport(protocol) => protocol.as_str(),
            IpProtocol::Icmp => "icmp",
            IpProtocol::Icmp6 => "ipv6-icmp",
            IpProtocol::Other(OtherProtocol(spelled)) => spelled,
        }
    }
}

impl From<Protocol> for IpProtocol {
    fn from(protocol: Protocol) -> Self {
        IpProtocol::Transport(protocol)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is neither the name nor the number of a protocol")]
pub struct IpProtocolError(String);

impl FromStr for IpProtocol {
    type Err = IpProtocolError;

    fn from_str(text: &str) -> Result<Self, IpProtocolError> {
        // The bytes of the names in /etc/protocols.
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-+._/".contains(&b);
        match text {
            "icmp" => Ok(IpProtocol::Icmp),
            "ipv6-icmp" => Ok(IpProtocol::Icmp6),
            text => match text.parse() {
                Ok(protocol) => Ok(IpProtocol::Transport(protocol)),
                Err(_) if text.starts_with('-') || text.is_empty() => {
                    Err(IpProtocolError(text.to_owned()))
                }
                Err(_) if text.bytes().all(allowed) => {
                    Ok(IpProtocol::Other(OtherProtocol(text.into())))
                }
                Err(_) => Err(IpProtocolError(text.to_owned())),
            },
        }
    }
}

impl fmt::Display for IpProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The type of `--icmp-type` and `--icmpv6-type`, as iptables-save prints it: by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IcmpType {
    /// `any`, as which IPv4's type 255 is printed (measured).
    Any,
    /// `3`: a type with any code.
    Type(u8),
    /// `3/4`: a type with this code.
    Code(u8, u8),
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a type of ICMP as iptables-save prints it")]
pub struct IcmpTypeError(String);

impl FromStr for IcmpType {
    type Err = IcmpTypeError;

    fn from_str(text: &str) -> Result<Self, IcmpTypeError> {
        let number = |text: &str| text.parse().map_err(|_| IcmpTypeError(text.to_owned()));
        match text.split_once('/') {
            _ if text == "any" => Ok(IcmpType::Any),
            Some((kind, code)) => Ok(IcmpType::Code(number(kind)?, number(code)?)),
            None => Ok(IcmpType::Type(number(text)?)),
        }
    }
}

impl fmt::Display for IcmpType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IcmpType::Any => f.write_str("any"),
            IcmpType::Type(kind) => kind.fmt(f),
            IcmpType::Code(kind, code) => write!(f, "{kind}/{code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_prints_as_it_was_read() {
        for (text, is_other) in [
            ("tcp", false),
            ("udp", false),
            ("icmp", false),
            ("ipv6-icmp", false),
            ("icmpv6", true),
            ("esp", true),
            ("254", true),
            ("a/n", true),
        ] {
            let protocol: IpProtocol = text.parse().expect("it is a protocol");
            assert_eq!(protocol.to_string(), text);
            assert_eq!(matches!(protocol, IpProtocol::Other(_)), is_other, "{text}");
        }
        for text in ["", "-j", "a b", "\"tcp\"", "tcp,udp"] {
            assert!(text.parse::<IpProtocol>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_type_of_icmp_prints_as_it_was_read() {
        for text in ["any", "0", "8", "255", "3/4", "3/0"] {
            let kind: IcmpType = text.parse().expect("it is a type");
            assert_eq!(kind.to_string(), text);
        }
        for text in ["", "256", "3/", "/4", "echo-request", "3/4/5", "-1"] {
            assert!(text.parse::<IcmpType>().is_err(), "{text}");
        }
    }
}

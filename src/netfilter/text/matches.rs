//! Prints a match like iptables-save.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::net::PortRange;
use crate::netfilter::mark::Mark;
use crate::netfilter::matches::{AddressType, Cluster, Match, PortsOf, Side};
use crate::netfilter::negatable::Negatable::{self, Is, Not};
use crate::netfilter::token::{Quoted, Token};
use crate::netfilter::tracking::{Conntrack, CtDirection, CtState, CtStates, CtStatus};

/// The options of `-m multiport`, in the order of the variants.
pub(super) const MULTIPORT: [(PortsOf, &str); 3] = [
    (PortsOf::Source, "--sports"),
    (PortsOf::Destination, "--dports"),
    (PortsOf::Either, "--ports"),
];

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Match::Source(net) => option(f, "", "-s ", net.map(Spelled)),
            Match::Destination(net) => option(f, "", "-d ", net.map(Spelled)),
            Match::Ingress(interface) => option(f, "", "-i ", interface.as_ref()),
            Match::Egress(interface) => option(f, "", "-o ", interface.as_ref()),
            Match::Protocol(protocol) => option(f, "", "-p ", protocol.as_ref()),
            Match::Tcp {
                source,
                destination,
                flags,
            } => {
                f.write_str("-m tcp")?;
                write_ports(f, *source, *destination)?;
                optional(f, " --tcp-flags ", *flags)
            }
            Match::Udp {
                source,
                destination,
            } => {
                f.write_str("-m udp")?;
                write_ports(f, *source, *destination)
            }
            Match::Multiport { of, ports } => {
                let (_, name) = MULTIPORT[*of as usize];
                let (not, ranges) = sense(ports.as_ref());
                write!(f, "-m multiport {not}{name} ")?;
                for (n, range) in ranges.iter().enumerate() {
                    write!(f, "{}{}", if n == 0 { "" } else { "," }, Colon(*range))?;
                }
                Ok(())
            }
            Match::Icmp(kind) => option(f, "-m icmp ", "--icmp-type ", *kind),
            Match::Icmp6(kind) => option(f, "-m icmp6 ", "--icmpv6-type ", *kind),
            Match::Conntrack(conntrack) => after(f, "-m conntrack", conntrack),
            Match::State(states) => option(f, "-m state ", "--state ", *states),
            Match::AddressType { of, kind } => {
                let name = match of {
                    Side::Source => "--src-type ",
                    Side::Destination => "--dst-type ",
                };
                let word = kind.map(|kind| AddressType::ALL[kind as usize].1);
                option(f, "-m addrtype ", name, word)
            }
            Match::Probability(share) => {
                option(f, "-m statistic --mode random ", "--probability ", *share)
            }
            Match::Cluster(cluster) => {
                let (not, Cluster { total, node, seed }) = sense(*cluster);
                write!(
                    f,
                    "-m cluster {not}--cluster-local-nodemask {:#010x} --cluster-total-nodes {total} --cluster-hash-seed {seed:#010x}",
                    1_u32 << node
                )
            }
            Match::HashLimit(limit) => write!(f, "-m hashlimit {limit}"),
            Match::ConnLimit(limit) => write!(f, "-m connlimit {limit}"),
            Match::Limit(limit) => write!(f, "-m limit {limit}"),
            Match::Mark(mark) => option(f, "-m mark ", "--mark ", mark.map(Bits)),
            Match::Connmark(mark) => option(f, "-m connmark ", "--mark ", mark.map(Bits)),
            Match::Set(set) => {
                let (not, set) = sense(set.as_ref());
                write!(f, "-m set {not}--match-set {} ", set.spelled)?;
                for (n, side) in set.sides.iter().enumerate() {
                    f.write_str(if n == 0 { "" } else { "," })?;
                    f.write_str(match side {
                        Side::Source => "src",
                        Side::Destination => "dst",
                    })?;
                }
                set.further.iter().try_for_each(|word| after(f, " ", word))
            }
            Match::Comment(text) => after(f, "-m comment --comment ", Quoted(text)),
            Match::Other(words) => write_words(f, words),
        }
    }
}

impl fmt::Display for Conntrack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        optional(f, " --ctstate ", self.states)?;
        optional(
            f,
            " --ctorigdst ",
            self.original_destination.map(|net| net.map(Bare)),
        )?;
        let ports = self.original_destination_port.map(|ports| ports.map(Colon));
        optional(f, " --ctorigdstport ", ports)?;
        let status = |status| CtStatus::ALL[status as usize].1;
        optional(f, " --ctstatus ", self.status.map(|one| one.map(status)))?;
        match self.direction {
            Some(direction) => after(f, " --ctdir ", CtDirection::ALL[direction as usize].1),
            None => Ok(()),
        }
    }
}

impl fmt::Display for CtStates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, state) in self.iter().enumerate() {
            f.write_str(if n == 0 { "" } else { "," })?;
            f.write_str(CtState::ALL[state as usize].1)?;
        }
        Ok(())
    }
}

/// A mark as matches print it: without the mask if that has every bit.
struct Bits(Mark);

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.mask {
            u32::MAX => write!(f, "{:#x}", self.0.value),
            _ => self.0.fmt(f),
        }
    }
}

/// An address as iptables-save prints it: by `inet_ntop(3)`, which writes the end of an address in `::/96` as
/// IPv4 (RFC 4291, 2.5.5.1).
struct SpelledAddress(IpAddr);

impl fmt::Display for SpelledAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V6(address) => match address.segments() {
                [0, 0, 0, 0, 0, 0, high, low] if high > 0 => {
                    let embedded = Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
                    after(f, "::", embedded)
                }
                _ => address.fmt(f),
            },
            IpAddr::V4(address) => address.fmt(f),
        }
    }
}

/// A network as iptables-save prints it.
struct Spelled(IpNet);

impl fmt::Display for Spelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}",
            SpelledAddress(self.0.addr()),
            self.0.prefix_len()
        )
    }
}

/// A network as conntrack prints it: one address without its length.
struct Bare(IpNet);

impl fmt::Display for Bare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            SpelledAddress(self.0.addr()).fmt(f)
        } else {
            Spelled(self.0).fmt(f)
        }
    }
}

/// A range as matches print it: `5000:5010`, where DNAT prints `5000-5010`.
struct Colon(PortRange);

impl fmt::Display for Colon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_single() {
            self.0.first().fmt(f)
        } else {
            write!(f, "{}:{}", self.0.first(), self.0.last())
        }
    }
}

/// Writes words and a value behind them. `write!` does the same at several times the cost, which is most of
/// the time that printing a large plan takes.
pub(super) fn after(
    f: &mut fmt::Formatter<'_>,
    words: &str,
    value: impl fmt::Display,
) -> fmt::Result {
    f.write_str(words)?;
    value.fmt(f)
}

/// Writes words, then an option with its value, `!` before it if it is negated.
fn option(
    f: &mut fmt::Formatter<'_>,
    words: &str,
    name: &str,
    value: Negatable<impl fmt::Display>,
) -> fmt::Result {
    let (not, value) = sense(value);
    f.write_str(words)?;
    f.write_str(not)?;
    after(f, name, value)
}

/// Writes an option, if there is one. `name` begins and ends with a space.
fn optional(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    value: Option<Negatable<impl fmt::Display>>,
) -> fmt::Result {
    match value {
        Some(Is(value)) => after(f, name, value),
        Some(Not(value)) => {
            f.write_str(" !")?;
            after(f, name, value)
        }
        None => Ok(()),
    }
}

fn sense<T>(value: Negatable<T>) -> (&'static str, T) {
    match value {
        Is(value) => ("", value),
        Not(value) => ("! ", value),
    }
}

fn write_ports(
    f: &mut fmt::Formatter<'_>,
    source: Option<Negatable<PortRange>>,
    destination: Option<Negatable<PortRange>>,
) -> fmt::Result {
    optional(f, " --sport ", source.map(|ports| ports.map(Colon)))?;
    optional(f, " --dport ", destination.map(|ports| ports.map(Colon)))
}

pub(super) fn write_words(f: &mut fmt::Formatter<'_>, words: &[Token]) -> fmt::Result {
    for (n, word) in words.iter().enumerate() {
        write!(f, "{}{word}", if n == 0 { "" } else { " " })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each as iptables 1.8.9 gives it back.
    #[test]
    fn networks_are_spelled_as_by_inet_ntop_and_read_back() {
        for (net, spelled) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("::/96", "::/96"),
            ("::7/128", "::7/128"),
            ("::1:ffff/128", "::0.1.255.255/128"),
            ("::a03:0/112", "::10.3.0.0/112"),
            ("::ffff:a03:4/128", "::ffff:10.3.0.4/128"),
            ("::1:0:0/112", "::1:0:0/112"),
            ("64:ff9b::a03:4/128", "64:ff9b::a03:4/128"),
            ("0:0:0:80::/64", "0:0:0:80::/64"),
        ] {
            let net: IpNet = net.parse().expect("it is a network");
            assert_eq!(Spelled(net).to_string(), spelled);
            assert_eq!(spelled.parse(), Ok(net));
        }
    }

    /// As iptables 1.8.9 gives them back, nft and legacy.
    #[test]
    fn conntrack_prints_one_address_without_its_length() {
        for (net, spelled) in [
            ("10.3.0.4/32", "10.3.0.4"),
            ("10.3.0.0/24", "10.3.0.0/24"),
            ("fd00::7/128", "fd00::7"),
            ("::a03:4/128", "::10.3.0.4"),
            ("::a03:0/112", "::10.3.0.0/112"),
        ] {
            let net: IpNet = net.parse().expect("it is a network");
            assert_eq!(Bare(net).to_string(), spelled);
        }
    }
}

//! A rule as iptables-save prints it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::net::{Host, PortRange};
use crate::netfilter::matches::{Cluster, Conntrack, Mark, Match};
use crate::netfilter::rule::Rule;
use crate::netfilter::target::{DEFAULT_LEVEL, DnatPorts, RejectWith, Target};
use crate::netfilter::token::{Quoted, Token};

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        for condition in &self.matches {
            f.write_str(space)?;
            condition.fmt(f)?;
            space = " ";
        }
        match &self.target {
            Some(target) => after(f, space, target),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Match::Source(net) => after(f, "-s ", Spelled(*net)),
            Match::Destination(net) => after(f, "-d ", Spelled(*net)),
            Match::NotDestination(net) => after(f, "! -d ", Spelled(*net)),
            Match::Ingress(interface) => after(f, "-i ", interface),
            Match::Egress(interface) => after(f, "-o ", interface),
            Match::Protocol(protocol) => after(f, "-p ", protocol),
            Match::Tcp {
                source,
                destination,
                syn,
            } => {
                f.write_str("-m tcp")?;
                write_ports(f, source.as_ref(), destination.as_ref())?;
                if *syn {
                    f.write_str(" --tcp-flags FIN,SYN,RST,ACK SYN")?;
                }
                Ok(())
            }
            Match::Udp {
                source,
                destination,
            } => {
                f.write_str("-m udp")?;
                write_ports(f, source.as_ref(), destination.as_ref())
            }
            Match::DestinationPorts(ranges) => {
                f.write_str("-m multiport --dports ")?;
                for (n, range) in ranges.iter().enumerate() {
                    write!(f, "{}{}", if n == 0 { "" } else { "," }, Colon(*range))?;
                }
                Ok(())
            }
            Match::Conntrack(conntrack) => after(f, "-m conntrack", conntrack),
            Match::Confirmed => f.write_str("-m conntrack --ctstatus CONFIRMED"),
            Match::DestinationIsLocal => f.write_str("-m addrtype --dst-type LOCAL"),
            Match::Probability(share) => {
                write!(f, "-m statistic --mode random --probability {share}")
            }
            Match::Cluster(Cluster { total, node, seed }) => write!(
                f,
                "-m cluster --cluster-local-nodemask {:#010x} --cluster-total-nodes {total} --cluster-hash-seed {seed:#010x}",
                1_u32 << node
            ),
            Match::HashLimit(limit) => write!(f, "-m hashlimit {limit}"),
            Match::ConnLimit(limit) => write!(f, "-m connlimit {limit}"),
            Match::Limit(limit) => write!(f, "-m limit {limit}"),
            Match::Connmark(mark) => after(f, "-m connmark --mark ", mark),
            Match::Comment(text) => after(f, "-m comment --comment ", Quoted(text)),
            Match::Other(words) => write_words(f, words),
        }
    }
}

impl fmt::Display for Conntrack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, state) in self.states.iter().enumerate() {
            f.write_str(if n == 0 { " --ctstate " } else { "," })?;
            f.write_str(state.as_str())?;
        }
        if let Some(address) = self.original_destination {
            if address.prefix_len() == address.max_prefix_len() {
                after(f, " --ctorigdst ", address.addr())?;
            } else {
                after(f, " --ctorigdst ", address)?;
            }
        }
        if let Some(ports) = self.original_destination_port {
            after(f, " --ctorigdstport ", Colon(ports))?;
        }
        Ok(())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Goto(chain) => write!(f, "-g {chain}"),
            Target::Dnat { address, ports } => {
                f.write_str("-j DNAT --to-destination ")?;
                match ports {
                    DnatPorts::Kept => address.fmt(f),
                    ports => {
                        Host(*address).fmt(f)?;
                        ports.fmt(f)
                    }
                }
            }
            Target::Snat {
                addresses,
                persistent,
            } => {
                after(f, "-j SNAT --to-source ", addresses)?;
                f.write_str(if *persistent { " --persistent" } else { "" })
            }
            Target::Log { prefix, level } => {
                after(f, "-j LOG --log-prefix ", Quoted(prefix))?;
                match *level {
                    DEFAULT_LEVEL => Ok(()),
                    level => write!(f, " --log-level {level}"),
                }
            }
            Target::Reject(with) => {
                let (_, word) = RejectWith::ALL[*with as usize];
                write!(f, "-j REJECT --reject-with {word}")
            }
            Target::SetConnmark(mark) => write!(f, "-j CONNMARK --set-xmark {mark}"),
            Target::Other(words) => {
                f.write_str("-j ")?;
                write_words(f, words)
            }
            Target::Unread(text) => f.write_str(text),
            simple => after(f, "-j ", simple.name()),
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}/{:#x}", self.value, self.mask)
    }
}

impl fmt::Display for DnatPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DnatPorts::Kept => Ok(()),
            DnatPorts::One(port) => after(f, ":", port),
            DnatPorts::Shifted { to, base } => write!(f, ":{to}/{base}"),
        }
    }
}

/// A network as iptables-save spells it: by `inet_ntop(3)`, which has the end of an address in
/// `::/96` as IPv4 (RFC 4291, 2.5.5.1).
struct Spelled(IpNet);

impl fmt::Display for Spelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.addr() {
            IpAddr::V6(address) => match address.segments() {
                [0, 0, 0, 0, 0, 0, high, low] if high > 0 => {
                    let embedded = Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
                    write!(f, "::{embedded}/{}", self.0.prefix_len())
                }
                _ => self.0.fmt(f),
            },
            IpAddr::V4(_) => self.0.fmt(f),
        }
    }
}

/// A range as matches spell it: `5000:5010`, where DNAT spells it `5000-5010`.
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

/// A value behind the words that it belongs to. `write!` does the same at several times the cost,
/// which is most of what a large plan costs to print.
fn after(f: &mut fmt::Formatter<'_>, words: &str, value: impl fmt::Display) -> fmt::Result {
    f.write_str(words)?;
    value.fmt(f)
}

fn write_ports(
    f: &mut fmt::Formatter<'_>,
    source: Option<&PortRange>,
    destination: Option<&PortRange>,
) -> fmt::Result {
    if let Some(ports) = source {
        after(f, " --sport ", Colon(*ports))?;
    }
    if let Some(ports) = destination {
        after(f, " --dport ", Colon(*ports))?;
    }
    Ok(())
}

fn write_words(f: &mut fmt::Formatter<'_>, words: &[Token]) -> fmt::Result {
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
}

//! A matcher for nvactl's own rules: it finds the rules that may decide on the first packet of a connection. It
//! knows only the conditions that a plan prints.

use std::net::IpAddr;

use nvactl::net::{Interface, Port, Protocol};
use nvactl::netfilter::matches::{Conntrack, CtState, Match};
use nvactl::netfilter::names::{ChainName, TableName};
use nvactl::netfilter::rule::Rule;
use nvactl::netfilter::ruleset::Ruleset;
use nvactl::netfilter::target::Target;

/// The first packet of a connection at a hook.
#[derive(Debug, Clone, PartialEq)]
pub struct Packet<'p> {
    pub protocol: Protocol,
    /// `None`: it is unknown whether a condition on the source matches.
    pub source: Option<IpAddr>,
    pub destination: IpAddr,
    pub port: Port,
    /// The destination before DNAT, after the packet was translated.
    pub sent_to: Option<(IpAddr, Port)>,
    pub ingress: Option<&'p Interface>,
    pub egress: Option<&'p Interface>,
    /// The value of nvactl's bit of the connection's mark.
    pub is_marked: bool,
}

impl Packet<'_> {
    /// Returns whether all conditions match, or `None` if that depends on an unknown source, on chance or on
    /// earlier packets.
    pub fn meets(&self, rule: &Rule) -> Option<bool> {
        let each: Vec<Option<bool>> = rule.matches.iter().map(|one| self.holds(one)).collect();
        if each.contains(&Some(false)) {
            return Some(false);
        }
        each.iter().all(Option::is_some).then_some(true)
    }

    fn holds(&self, condition: &Match) -> Option<bool> {
        let ports = |protocol, source: &Option<_>, destination: &Option<nvactl::net::PortRange>| {
            assert!(source.is_none(), "no plan asks for a source port");
            self.protocol == protocol && destination.is_none_or(|range| range.contains(self.port))
        };
        Some(match condition {
            Match::Source(net) => return self.source.map(|source| net.contains(&source)),
            Match::Destination(net) => net.contains(&self.destination),
            Match::NotDestination(net) => !net.contains(&self.destination),
            Match::Ingress(by) => self.ingress == Some(by),
            Match::Egress(by) => self.egress == Some(by),
            Match::Protocol(protocol) => *protocol == self.protocol,
            Match::Tcp {
                source,
                destination,
                ..
            } => ports(Protocol::Tcp, source, destination),
            Match::Udp {
                source,
                destination,
            } => ports(Protocol::Udp, source, destination),
            Match::DestinationPorts(ranges) => ranges.iter().any(|range| range.contains(self.port)),
            Match::Conntrack(conntrack) => self.is_tracked_as(conntrack),
            // conntrack confirms a connection after its first packet has passed.
            Match::Confirmed => false,
            Match::DestinationIsLocal => self.sent_to.is_none(),
            Match::Connmark(mark) => self.is_marked == (mark.value != 0),
            Match::Comment(_) => true,
            Match::Probability(_)
            | Match::Cluster(_)
            | Match::HashLimit(_)
            | Match::ConnLimit(_)
            | Match::Limit(_) => return None,
            Match::Other(words) => panic!("no plan has {words:?}"),
        })
    }

    fn is_tracked_as(&self, asked: &Conntrack) -> bool {
        let (address, port) = self.sent_to.unwrap_or((self.destination, self.port));
        let is_in = |state| match state {
            CtState::New => true,
            CtState::Dnat => self.sent_to.is_some(),
            _ => false,
        };
        (asked.states.is_empty() || asked.states.iter().copied().any(is_in))
            && asked
                .original_destination
                .is_none_or(|net| net.contains(&address))
            && asked
                .original_destination_port
                .is_none_or(|range| range.contains(port))
    }
}

/// Returns the rules that may decide on a packet, up to the first that decides for certain. Sets and removes the
/// packet's mark on the path.
pub fn deciders<'r>(
    ruleset: &'r Ruleset,
    table: TableName,
    chain: &ChainName,
    packet: &mut Packet<'_>,
) -> Vec<&'r Rule> {
    let mut found = Vec::new();
    follow(ruleset, table, chain, packet, &mut found);
    found
}

/// Adds the rules of a chain that may decide. Returns whether one decides for certain.
fn follow<'r>(
    ruleset: &'r Ruleset,
    table: TableName,
    name: &ChainName,
    packet: &mut Packet<'_>,
    found: &mut Vec<&'r Rule>,
) -> bool {
    let chain = ruleset.chain(table, name);
    for rule in &chain.unwrap_or_else(|| panic!("no chain {name}")).rules {
        let certain = match packet.meets(rule) {
            Some(false) => continue,
            meets => meets == Some(true),
        };
        let decided = match rule.target.as_ref().expect("every rule has one") {
            Target::SetConnmark(mark) => {
                assert!(certain, "chance does not mark: {rule}");
                packet.is_marked = mark.value != 0;
                false
            }
            Target::Return if certain => return false,
            Target::Log { .. } | Target::Return => false,
            Target::Jump(next) => follow(ruleset, table, next, packet, found),
            Target::Goto(next) => {
                let decided = follow(ruleset, table, next, packet, found);
                if certain {
                    return decided;
                }
                decided
            }
            _ => {
                found.push(rule);
                true
            }
        };
        if decided && certain {
            return true;
        }
    }
    false
}

//! A matcher for nvactl's own rules: it finds the rules that may decide on the first packet of a connection. It
//! knows only the conditions that a plan prints.

use std::net::IpAddr;

use nvactl::net::{Interface, Port, PortRange, Protocol};
use nvactl::netfilter::matches::{AddressType, Match, PortsOf, Side};
use nvactl::netfilter::names::{ChainName, TableName};
use nvactl::netfilter::negatable::Negatable::{self, Is, Not};
use nvactl::netfilter::rule::Rule;
use nvactl::netfilter::ruleset::Ruleset;
use nvactl::netfilter::target::Target;
use nvactl::netfilter::tracking::{Conntrack, CtDirection, CtState, CtStates, CtStatus};

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
    /// The port of the server, if the packet is the answer to the first one. `port` is unknown then.
    pub reply_from: Option<Port>,
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
        let ports = |protocol,
                     source: &Option<Negatable<PortRange>>,
                     destination: &Option<Negatable<PortRange>>| {
            let from = |range: &PortRange| self.reply_from.is_some_and(|port| range.contains(port));
            let to = |range: &PortRange| range.contains(self.port);
            self.protocol == protocol
                && source.is_none_or(|ports| ports.holds(from))
                && destination.is_none_or(|ports| ports.holds(to))
        };
        Some(match condition {
            Match::Source(net) => {
                return self
                    .source
                    .map(|source| net.holds(|net| net.contains(&source)));
            }
            Match::Destination(net) => net.holds(|net| net.contains(&self.destination)),
            Match::Ingress(by) => by.holds(|by| self.ingress.is_some_and(|one| by.covers(one))),
            Match::Egress(by) => by.holds(|by| self.egress.is_some_and(|one| by.covers(one))),
            Match::Protocol(protocol) => {
                protocol.holds(|protocol| protocol.transport() == Some(self.protocol))
            }
            Match::Tcp {
                source,
                destination,
                flags,
            } => {
                // The answer has the flag ACK as well, for which no rule of a limit asks.
                ports(Protocol::Tcp, source, destination)
                    && flags.is_none_or(|flags| flags.holds(|flags| flags.hold_for_opening()))
            }
            Match::Udp {
                source,
                destination,
            } => ports(Protocol::Udp, source, destination),
            Match::Conntrack(conntrack) => self.is_tracked_as(conntrack),
            Match::AddressType {
                of: Side::Destination,
                kind: Is(AddressType::Local),
            } => self.sent_to.is_none(),
            Match::Multiport {
                of: PortsOf::Destination,
                ports,
            } => ports.holds(|all| all.iter().any(|range| range.contains(self.port))),
            Match::Multiport {
                of: PortsOf::Source,
                ports,
            } => ports.holds(|all| {
                let mut all = all.iter();
                all.any(|range| self.reply_from.is_some_and(|port| range.contains(port)))
            }),
            Match::Icmp(_) | Match::Icmp6(_) => false,
            Match::AddressType {
                of: Side::Source,
                kind: Not(AddressType::Local),
            } => self.ingress.is_some(),
            Match::Connmark(mark) => mark.holds(|mark| self.is_marked == (mark.value != 0)),
            Match::Comment(_) => true,
            Match::Probability(_)
            | Match::Cluster(_)
            | Match::HashLimit(_)
            | Match::ConnLimit(_)
            | Match::Limit(_) => return None,
            other => panic!("no plan has {other:?}"),
        })
    }

    fn is_tracked_as(&self, asked: &Conntrack) -> bool {
        let (address, port) = self.sent_to.unwrap_or((self.destination, self.port));
        let is_in = |state| match state {
            CtState::New => true,
            CtState::Dnat => self.sent_to.is_some(),
            _ => false,
        };
        let states = |states: &CtStates| states.iter().any(is_in);
        let is_reply = |way| (way == CtDirection::Reply) == self.reply_from.is_some();
        asked.direction.is_none_or(is_reply)
            && asked.states.is_none_or(|asked| asked.holds(states))
            && asked
                .original_destination
                .is_none_or(|net| net.holds(|net| net.contains(&address)))
            && asked
                .original_destination_port
                .is_none_or(|ports| ports.holds(|range| range.contains(port)))
            // The first packet has not left the machine.
            && asked
                .status
                .is_none_or(|status| status.holds(|status| *status != CtStatus::Confirmed))
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
            Target::TcpMss(_) => {
                found.push(rule);
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

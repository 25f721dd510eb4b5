//! A packet, as far as it is known, and what a rule's conditions say of it.
//!
//! Every answer is one of three: it holds for all such packets, for none, or it cannot be told.

use std::net::IpAddr;

use crate::net::{Interface, PortRange, Protocol};
use crate::parse;
use crate::plan::MARKED;
use crate::rule::{Conntrack, CtState, Match, Rule, Target};
use crate::ruleset::ChainName;
use crate::token::Token;

/// What is known of a packet, or of many that are alike, where it meets a rule.
#[derive(Debug, Clone)]
pub struct Packet<'p> {
    pub protocol: Protocol,
    pub source: Option<IpAddr>,
    /// What it carries now; one of these. Empty: not known.
    pub destinations: &'p [IpAddr],
    /// The destination port; one of these.
    pub ports: PortRange,
    /// The source port, if it is known to be one of these.
    pub source_ports: Option<PortRange>,
    pub ingress: Option<&'p Interface>,
    pub egress: Option<&'p Interface>,
    /// Whether the destination is the machine's own.
    pub local: Option<bool>,
    /// Where the connection's first packet was sent before DNAT, if that has been done.
    pub translated_from: Option<(&'p [IpAddr], PortRange)>,
    pub tracked: Tracked,
}

/// What connection tracking says of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracked {
    /// The table raw comes before it: there every packet is INVALID and none is NEW (measured, nft
    /// and legacy).
    NotYet,
    /// The first of its connection.
    New,
    /// A reply, or what follows.
    Established,
}

impl Packet<'_> {
    /// Whether all conditions of a rule hold.
    #[must_use]
    pub fn meets(&self, rule: &Rule) -> Option<bool> {
        // What nvactl's own rules for marked packets let pass, the forward's rules behind let pass as
        // well.
        if is_short_cut(rule) {
            return Some(false);
        }
        if matches!(rule.target, Some(Target::Unread(_))) {
            return None;
        }
        all(rule.matches.iter().map(|condition| self.holds(condition)))
    }

    /// Whether a condition holds.
    #[must_use]
    pub fn holds(&self, condition: &Match) -> Option<bool> {
        match condition {
            Match::Protocol(protocol) => Some(*protocol == self.protocol),
            Match::Source(net) => self.source.map(|source| net.contains(&source)),
            Match::Destination(net) => among(self.destinations, |address| net.contains(address)),
            Match::NotDestination(net) => {
                among(self.destinations, |address| !net.contains(address))
            }
            Match::Ingress(interface) => self.ingress.map(|ingress| ingress == interface),
            Match::Egress(interface) => self.egress.map(|egress| egress == interface),
            Match::Tcp {
                source,
                destination,
                ..
            } => self.carries(Protocol::Tcp, source.as_ref(), destination.as_ref()),
            Match::Udp {
                source,
                destination,
            } => self.carries(Protocol::Udp, source.as_ref(), destination.as_ref()),
            Match::DestinationPorts(ranges) => {
                let each = ranges.iter().map(|range| covers(*range, self.ports));
                any(each)
            }
            Match::Conntrack(conntrack) => self.is_tracked_as(conntrack),
            Match::DestinationIsLocal => self.local,
            // Chance, and what came before, decide.
            Match::Connmark(_)
            | Match::Confirmed
            | Match::Probability(_)
            | Match::Cluster(_)
            | Match::HashLimit(_)
            | Match::ConnLimit(_)
            | Match::Limit(_) => None,
            Match::Comment(_) => Some(true),
            Match::Other(words) => other(self, words),
        }
    }

    fn carries(
        &self,
        protocol: Protocol,
        source: Option<&PortRange>,
        destination: Option<&PortRange>,
    ) -> Option<bool> {
        all([
            Some(protocol == self.protocol),
            source.map_or(Some(true), |range| covers(*range, self.source_ports?)),
            destination.map_or(Some(true), |range| covers(*range, self.ports)),
        ]
        .into_iter())
    }

    /// NEW or the like, and at the same time translated or not.
    fn is_tracked_as(&self, asked: &Conntrack) -> Option<bool> {
        let (destinations, ports) = self
            .translated_from
            .unwrap_or((self.destinations, self.ports));
        let address = asked.original_destination;
        let range = asked.original_destination_port;
        all([
            Some(asked.states.is_empty() || self.is_in(&asked.states)),
            address.map_or(Some(true), |asked| {
                among(destinations, |ip| asked.contains(ip))
            }),
            range.map_or(Some(true), |range| covers(range, ports)),
        ]
        .into_iter())
    }

    /// Whether it is in one of these states.
    pub(crate) fn is_in(&self, states: &[CtState]) -> bool {
        let own = match self.tracked {
            Tracked::NotYet => CtState::Invalid,
            Tracked::New => CtState::New,
            Tracked::Established => CtState::Established,
        };
        let translated = self.translated_from.is_some() && states.contains(&CtState::Dnat);
        states.contains(&own) || translated
    }
}

/// Whether it is one of the plan's rules for marked packets, and not one typed by hand: it leads on
/// among nvactl's chains, or accepts in FORWARD, where alone `-i` and `-o` can both be asked.
fn is_short_cut(rule: &Rule) -> bool {
    let asks = |is_meant: fn(&Match) -> bool| rule.matches.iter().any(is_meant);
    let leads_on = rule.leads_to().is_some_and(ChainName::is_own);
    let accepts = rule.target == Some(Target::Accept)
        && asks(|condition| matches!(condition, Match::Ingress(_)))
        && asks(|condition| matches!(condition, Match::Egress(_)));
    rule.matches.contains(&Match::Connmark(MARKED)) && (leads_on || accepts)
}

/// What is asked in words that nvactl does not plan, as far as it is about these packets.
fn other(packet: &Packet<'_>, words: &[Token]) -> Option<bool> {
    if let Some(condition) = parse::negated(words) {
        return packet.holds(&condition).map(|holds| !holds);
    }
    let spelled: Vec<&str> = words.iter().map(Token::spelled).collect();
    match spelled.as_slice() {
        // Of tcp and udp the model has matches.
        ["-p", "all"] => Some(true),
        ["-p", _] => Some(false),
        ["-m", "state", "--state", states] => is_in_words(packet, states),
        ["-m", "state", "!", "--state", states] | ["-m", "conntrack", "!", "--ctstate", states] => {
            is_in_words(packet, states).map(|holds| !holds)
        }
        ["-m", "tcp", options @ ..] if packet.tracked == Tracked::New => {
            // Any of the other options may say no as well, but none makes this a yes.
            is_syn_asked(options).filter(|holds| !holds)
        }
        _ => None,
    }
}

fn is_in_words(packet: &Packet<'_>, states: &str) -> Option<bool> {
    let state = |word: &str| CtState::ALL.iter().find(|(_, name)| *name == word);
    let states = states.split(',').map(|word| Some(state(word)?.0));
    Some(packet.is_in(&states.collect::<Option<Vec<_>>>()?))
}

/// Whether the flags that are asked for are those of a connection's first packet: of FIN, SYN, RST and
/// ACK it has SYN alone, as nvactl's own rules ask. Its other flags are not known.
fn is_syn_asked(options: &[&str]) -> Option<bool> {
    let at = options.iter().position(|word| *word == "--tcp-flags")?;
    let (mask, set) = (options.get(at + 1)?, options.get(at + 2)?);
    let has = |list: &str, flag| list.split(',').any(|word| word == flag);
    let mut known = ["FIN", "SYN", "RST", "ACK"].into_iter();
    let agrees = known.all(|flag| !has(mask, flag) || has(set, flag) == (flag == "SYN"));
    let unknown = has(mask, "PSH") || has(mask, "URG");
    let holds = match (agrees, unknown) {
        (false, _) => Some(false),
        (true, true) => None,
        (true, false) => Some(true),
    };
    let negated = at > 0 && options[at - 1] == "!";
    holds.map(|holds| holds != negated)
}

fn among(addresses: &[IpAddr], is_meant: impl Fn(&IpAddr) -> bool) -> Option<bool> {
    let meant = addresses.iter().filter(|address| is_meant(address)).count();
    match meant {
        _ if addresses.is_empty() => None,
        0 => Some(false),
        all if all == addresses.len() => Some(true),
        _ => None,
    }
}

/// Whether a range holds all of these ports.
pub(crate) fn covers(asked: PortRange, ports: PortRange) -> Option<bool> {
    match (
        asked.contains(ports.first()) && asked.contains(ports.last()),
        asked.overlaps(ports),
    ) {
        (true, _) => Some(true),
        (_, false) => Some(false),
        _ => None,
    }
}

/// Whether all hold: for certain not as soon as one does not.
pub(crate) fn all(each: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut known = Some(true);
    for one in each {
        match one {
            Some(false) => return Some(false),
            None => known = None,
            Some(true) => {}
        }
    }
    known
}

/// Whether one holds.
pub(crate) fn any(each: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    all(each.map(|one| one.map(|holds| !holds))).map(|none| !none)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;
    use crate::ruleset::TableName;

    #[test]
    fn a_first_packet_of_tcp_is_a_syn() {
        let to = ["10.224.0.118".parse().expect("an address")];
        let first = Packet {
            protocol: Protocol::Tcp,
            source: None,
            destinations: &to,
            ports: "80".parse().expect("a port"),
            source_ports: None,
            ingress: None,
            egress: None,
            local: Some(false),
            translated_from: None,
            tracked: Tracked::New,
        };
        let later = Packet {
            tracked: Tracked::Established,
            ..first.clone()
        };
        for (words, answer) in [
            ("! --tcp-flags FIN,SYN,RST,ACK SYN", Some(false)),
            ("--tcp-flags FIN,SYN FIN,SYN", Some(false)),
            ("--tcp-flags FIN,SYN,RST,PSH,ACK,URG NONE", Some(false)),
            ("--tcp-flags FIN,ACK FIN", Some(false)),
            ("--dport 80 ! --tcp-flags FIN,SYN,RST,ACK SYN", Some(false)),
            ("--tcp-flags SYN,RST SYN", None),
            ("--tcp-flags SYN,URG SYN,URG", None),
            ("! --tcp-flags SYN,URG SYN,URG", None),
        ] {
            let text = format!("*filter\n-A FORWARD -p tcp -m tcp {words} -j DROP\nCOMMIT\n");
            let ruleset = parse(&text).expect("it is readable");
            let chain = ruleset.chain(TableName::Filter, &ChainName::Forward);
            let rule = &chain.expect("it has a rule").rules[0];
            assert_eq!(first.meets(rule), answer, "{words}");
            assert_eq!(later.meets(rule), None, "{words}");
        }
    }

    #[test]
    fn a_condition_holds_for_all_for_none_or_cannot_be_told() {
        let interface: Interface = "eth0".parse().expect("it is a name");
        let own = ["10.3.0.4", "10.3.0.5"].map(|text| text.parse().expect("an address"));
        let packet = Packet {
            protocol: Protocol::Tcp,
            source: None,
            destinations: &own,
            ports: "8000-8010".parse().expect("a range"),
            source_ports: None,
            ingress: Some(&interface),
            egress: None,
            local: Some(true),
            translated_from: None,
            tracked: Tracked::New,
        };
        for (words, answer) in [
            ("", Some(true)),
            ("-p tcp", Some(true)),
            ("-p udp", Some(false)),
            ("! -p udp", Some(true)),
            ("-p icmp", Some(false)),
            ("! -p icmp", None),
            ("-m state --state RELATED,ESTABLISHED", Some(false)),
            ("-m state --state INVALID,NEW", Some(true)),
            ("-m state ! --state NEW", Some(false)),
            ("-m conntrack ! --ctstate NEW,ESTABLISHED", Some(false)),
            ("-m conntrack ! --ctstate RELATED,ESTABLISHED", Some(true)),
            ("-i eth0", Some(true)),
            ("-i eth1", Some(false)),
            ("! -i eth0", Some(false)),
            ("! -i docker0", Some(true)),
            ("-o eth0", None),
            ("-d 10.3.0.0/24", Some(true)),
            ("-d 10.3.0.4/32", None),
            ("! -d 127.0.0.0/8", Some(true)),
            ("-d 10.9.0.0/16", Some(false)),
            ("-s 198.51.100.0/24", None),
            ("-p tcp -m tcp --dport 8000:8010", Some(true)),
            ("-p tcp -m tcp --dport 8010:9000", None),
            ("-p tcp -m tcp --dport 443", Some(false)),
            ("-p tcp -m tcp --sport 443", None),
            ("-p tcp -m multiport --dports 1,8000:9000", Some(true)),
            ("-p tcp -m multiport --dports 1,8000:8005", None),
            ("-p tcp -m multiport --dports 1,2", Some(false)),
            ("-m conntrack --ctstate NEW", Some(true)),
            ("-m conntrack --ctstate RELATED,ESTABLISHED", Some(false)),
            ("-m conntrack --ctstate DNAT", Some(false)),
            ("-m conntrack --ctorigdstport 8000:8010", Some(true)),
            ("-m addrtype --dst-type LOCAL", Some(true)),
            ("-m mark --mark 0x1", None),
            ("-m mark --mark 0x1 -p udp", Some(false)),
        ] {
            let line = format!("-A INPUT {words} -j DROP").replace("  ", " ");
            let text = format!("*filter\n{line}\nCOMMIT\n");
            let ruleset = parse(&text).expect("it is readable");
            let chain = ruleset.chain(TableName::Filter, &ChainName::Input);
            let rule = &chain.expect("it has a rule").rules[0];
            assert_eq!(packet.meets(rule), answer, "{words}");
        }
        for (rule, answer) in [
            (
                "-i eth0 -o eth1 -m connmark --mark 0x10000000/0x10000000 -j ACCEPT",
                Some(false),
            ),
            (
                "-m connmark --mark 0x10000000/0x10000000 -j NVACTL-MARKED",
                Some(false),
            ),
            // By hand.
            ("-m connmark --mark 0x10000000/0x10000000 -j DROP", None),
            ("-m connmark --mark 0x10000000/0x10000000 -j ACCEPT", None),
            ("-m connmark --mark 0x1/0x1 -j ACCEPT", None),
        ] {
            let text = format!("*filter\n-A NVACTL-FORWARD {rule}\nCOMMIT\n");
            let ruleset = parse(&text).expect("it is readable");
            let chain = ruleset.chain(TableName::Filter, &"NVACTL-FORWARD".into());
            let met = packet.meets(&chain.expect("it has a rule").rules[0]);
            assert_eq!(met, answer, "{rule}");
        }
        let target = ["10.224.0.118".parse().expect("an address")];
        let translated = Packet {
            destinations: &target,
            translated_from: Some((&own, packet.ports)),
            local: Some(false),
            ..packet
        };
        for (states, answer) in [
            ("DNAT", true),
            ("NEW", true),
            ("RELATED,ESTABLISHED", false),
        ] {
            let line = format!("-A FORWARD -m conntrack --ctstate {states} -j DROP");
            let ruleset = parse(&format!("*filter\n{line}\nCOMMIT\n")).expect("it is readable");
            let chain = ruleset.chain(TableName::Filter, &ChainName::Forward);
            let rule = &chain.expect("it has a rule").rules[0];
            assert_eq!(translated.meets(rule), Some(answer), "{states}");
        }
    }
}

//! Duplicate rules: rules of others that translate for a listener of the spec too, typed by hand from a guide or
//! written by another program. nvactl names them and never removes them.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::forwards::{Forward, ForwardSet, Name, Snat};
use crate::net::{Interface, PortRange, Protocol};
use crate::netfilter::matches::{Match, PortsOf};
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::negatable::Negatable::Is;
use crate::netfilter::programs;
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::DEEPEST;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::Target;
use crate::netfilter::tcp_flags::TcpFlags;
use crate::netfilter::text::line::Line;
use crate::netfilter::tracking::{Conntrack, CtState};

/// A rule of others in the nat table that matches the protocol and the port of a forward.
#[derive(Debug, PartialEq, Eq)]
pub struct Duplicate<'r> {
    pub chain: &'r ChainName,
    /// The rule that translates, or that leads to such a rule.
    pub rule: &'r Rule,
    /// The forwards that the rule concerns, in the order of the spec.
    pub forwards: Vec<&'r Name>,
}

impl Duplicate<'_> {
    /// Returns the rule as iptables-save prints it.
    #[must_use]
    pub fn line(&self) -> String {
        Line::Append(self.chain, self.rule).to_string()
    }

    /// Returns the program that writes the rule, and would write it again.
    #[must_use]
    pub fn owner(&self) -> Option<&'static str> {
        programs::owner_of(TableName::Nat.as_str(), self.chain.as_str())
    }

    /// Whether the rule redirects connections, or leads to a rule that may.
    #[must_use]
    pub fn redirects(&self) -> bool {
        let target = self.rule.target.as_ref();
        !matches!(target, Some(Target::Snat { .. } | Target::Masquerade))
    }

    /// Returns the command that deletes the rule. `program` is the iptables that has the rule.
    #[must_use]
    pub fn removal(&self, program: &str) -> String {
        Line::Delete(self.chain, self.rule).as_command(program, TableName::Nat)
    }
}

/// Finds the rules of others that do the same as the spec: the DNAT of a listener, and the SNAT that belongs to it.
/// `set` and `have` have the same family.
///
/// The walk follows jumps. It names the last rule with a port on the path to a translation, once, because a rule
/// without a port is about more than forwards. A condition that nvactl does not interpret counts as true, because a
/// rule for some clients is a duplicate too.
#[must_use]
pub fn duplicates<'r>(have: &'r Ruleset, set: &'r ForwardSet) -> Vec<Duplicate<'r>> {
    let mut search = Search {
        have,
        set,
        steps: MOST_STEPS,
        found: Vec::new(),
    };
    let nat = have.tables.get(&TableName::Nat);
    for chain in [ChainName::Prerouting, ChainName::Postrouting] {
        if let Some((chain, _)) = nat.and_then(|nat| nat.get_key_value(&chain)) {
            search.walk(chain, &Asked::default(), None, DEEPEST);
        }
    }
    search.found
}

/// The most rules that a walk visits. It visits a chain once for each rule that leads to it.
const MOST_STEPS: usize = 200_000;

/// A rule and its chain.
type Place<'r> = (&'r ChainName, &'r Rule);

struct Search<'r> {
    have: &'r Ruleset,
    set: &'r ForwardSet,
    steps: usize,
    found: Vec<Duplicate<'r>>,
}

impl<'r> Search<'r> {
    /// Walks a chain. `by` is the last rule with a port on the path so far.
    fn walk(&mut self, chain: &'r ChainName, asked: &Asked, by: Option<Place<'r>>, depth: usize) {
        let Some(body) = self.have.chain(TableName::Nat, chain) else {
            return;
        };
        for rule in &body.rules {
            if self.steps == 0 {
                return;
            }
            self.steps -= 1;
            let Some(asked) = asked.and(rule) else {
                continue;
            };
            let own = Asked::default().and(rule);
            let by = match own {
                Some(own) if own.ports.is_some() => Some((chain, rule)),
                _ => by,
            };
            match &rule.target {
                Some(Target::Jump(next) | Target::Goto(next)) if !next.is_own() && depth > 0 => {
                    self.walk(next, &asked, by, depth - 1);
                }
                Some(target) => self.judge(by, target, &asked),
                None => {}
            }
        }
    }

    fn judge(&mut self, by: Option<Place<'r>>, target: &Target, asked: &Asked) {
        let Some((chain, rule)) = by else {
            return;
        };
        let concerns = |forward: &&Forward| match target.name() {
            "DNAT" | "REDIRECT" => asked.takes(forward),
            "SNAT" | "MASQUERADE" => asked.lets_through(forward),
            _ => false,
        };
        let forwards = self.set.forwards.iter().filter(concerns);
        let forwards: Vec<&Name> = forwards.map(|forward| &forward.name).collect();
        if forwards.is_empty() {
            return;
        }
        let mut known = self.found.iter_mut();
        match known.find(|known| std::ptr::eq(known.rule, rule)) {
            Some(known) => {
                let more = forwards
                    .into_iter()
                    .filter(|name| !known.forwards.contains(name));
                let more: Vec<&Name> = more.collect();
                known.forwards.extend(more);
            }
            None => self.found.push(Duplicate {
                chain,
                rule,
                forwards,
            }),
        }
    }
}

/// The conditions of a rule and of the rules that lead to it, as far as they tell forwards apart.
#[derive(Debug, Clone, Default)]
struct Asked {
    protocol: Option<Protocol>,
    ports: Option<Vec<PortRange>>,
    destinations: Vec<IpNet>,
    ingress: Option<Interface>,
    egress: Option<Interface>,
}

impl Asked {
    /// Returns the conditions with those of `rule` added; `None` if no first packet of a forward can match.
    fn and(&self, rule: &Rule) -> Option<Self> {
        let mut asked = self.clone();
        for condition in &rule.matches {
            match condition {
                // A forward has one of the protocols with ports.
                Match::Protocol(protocol) => {
                    asked.protocol = Some(protocol.wanted()?.transport()?);
                }
                Match::Tcp {
                    source: None | Some(Is(_)),
                    destination,
                    flags: None | Some(Is(TcpFlags::OPENING)),
                }
                | Match::Udp {
                    source: None | Some(Is(_)),
                    destination,
                } => {
                    if let Some(ports) = destination {
                        asked.ports = Some(vec![*ports.wanted()?]);
                    }
                }
                Match::Multiport {
                    of: PortsOf::Destination,
                    ports: Is(ranges),
                } => asked.ports = Some(ranges.clone()),
                // Ports that are excluded, or other flags than those of a first packet.
                Match::Tcp { .. } | Match::Udp { .. } | Match::Multiport { .. } => return None,
                Match::Other(_) if condition.is_of_ports() => return None,
                Match::Destination(Is(net)) => asked.destinations.push(*net),
                Match::Ingress(Is(by)) => asked.ingress = by.exact().cloned().or(asked.ingress),
                Match::Egress(Is(by)) => asked.egress = by.exact().cloned().or(asked.egress),
                // The table sees only first packets, which are new.
                Match::Conntrack(Conntrack {
                    states: Some(Is(states)),
                    ..
                }) if !states.contains(CtState::New) => return None,
                _ => {}
            }
        }
        Some(asked)
    }

    /// Whether the conditions match packets to the forward's listener. A rule without a port matches all ports.
    fn takes(&self, forward: &Forward) -> bool {
        let ports = self.ports.as_deref().unwrap_or(&[PortRange::ALL]);
        self.protocol.is_none_or(|asked| asked == forward.protocol)
            && ports
                .iter()
                .any(|range| range.overlaps(forward.listen.ports))
            && self.comes_in_by(forward)
            && self.could_be_sent_to(forward)
    }

    fn comes_in_by(&self, forward: &Forward) -> bool {
        let asked = self.ingress.as_ref();
        asked.is_none_or(|asked| forward.entrances().any(|ingress| ingress == asked))
    }

    /// Whether the destinations include the listen address. A forward without a listen address accepts any address of
    /// the machine. This function does not know them all, but with one interface the SNAT address is one.
    fn could_be_sent_to(&self, forward: &Forward) -> bool {
        let one_nic = forward.ingress.iter().all(|one| *one == forward.egress);
        let known = match (forward.listen.address, forward.snat) {
            (Some(address), _) => Some(address),
            (None, Snat::Addresses(range)) if one_nic => range.single(),
            _ => None,
        };
        known.is_none_or(|address| self.reaches(address))
    }

    /// Whether the conditions match the forward's packets to its target: by the target's port, or by the listener's
    /// port, as guides write it for a load balancer. A rule without a port is about more than forwards.
    fn lets_through(&self, forward: &Forward) -> bool {
        let asks = |ports| {
            let asked = self.ports.iter().flatten();
            asked.copied().any(|range: PortRange| range.overlaps(ports))
        };
        let mut destinations = forward.target.destinations.iter();
        let one_of = destinations.any(|to| {
            (asks(forward.ports_at(to)) || asks(forward.listen.ports)) && self.reaches(to.address)
        });
        self.protocol.is_none_or(|asked| asked == forward.protocol)
            && one_of
            && self.comes_in_by(forward)
            && self
                .egress
                .as_ref()
                .is_none_or(|asked| *asked == forward.egress)
    }

    fn reaches(&self, address: IpAddr) -> bool {
        self.destinations.iter().all(|net| net.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netfilter::text::parse::parse;
    use crate::yaml;

    fn ruleset(table: &str, lines: &[&str]) -> Ruleset {
        let lines = lines.join("\n");
        parse(&format!("*{table}\n{lines}\nCOMMIT\n")).expect("it is readable")
    }

    #[expect(clippy::too_many_lines, reason = "it is a table")]
    #[test]
    fn duplicates_are_the_rules_that_translate_the_same_packets_and_no_others() {
        let set = yaml::read(
            b"firewall: {interface: eth0, snat: 10.3.0.4}
forwards: [{name: web, listen: 49182, target: {pod: 10.224.0.118:80}}]",
        )
        .expect("it is valid");
        for (table, lines, count) in [
            (
                "nat",
                &[
                    "-A PREROUTING -i eth0 -p tcp -m tcp --dport 49182 -j DNAT --to-destination 10.0.0.9",
                ][..],
                1,
            ),
            (
                "nat",
                &["-A PREROUTING -p tcp -m tcp --dport 49000:50000 -j REDIRECT --to-ports 1"],
                1,
            ),
            (
                "nat",
                &[
                    "-A PREROUTING -p tcp -m multiport --dports 80,49182 -j DNAT --to-destination 10.0.0.9",
                ],
                1,
            ),
            (
                "nat",
                &["-A PREROUTING -d 10.3.0.4/32 -j DNAT --to-destination 10.0.0.9"],
                0,
            ),
            (
                "nat",
                &[
                    ":MY - [0:0]",
                    "-A PREROUTING -p tcp -m tcp --dport 49182 -j MY",
                    "-A MY -p tcp -j DNAT --to-destination 10.0.0.9",
                ],
                1,
            ),
            (
                "nat",
                &["-A POSTROUTING -d 10.224.0.118/32 -p tcp -m tcp --dport 80 -j MASQUERADE"],
                1,
            ),
            (
                "filter",
                &["-A FORWARD -p tcp -m tcp --dport 80 --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT"],
                0,
            ),
            (
                "filter",
                &["-A FORWARD -p tcp -m tcp --dport 49182 -j ACCEPT"],
                0,
            ),
            // A service with two endpoints, as kube-proxy writes it: once, by the rule with the port.
            (
                "nat",
                &[
                    ":KUBE-A - [0:0]",
                    ":KUBE-B - [0:0]",
                    ":KUBE-NODEPORTS - [0:0]",
                    ":KUBE-SVC - [0:0]",
                    "-A PREROUTING -j KUBE-NODEPORTS",
                    "-A KUBE-NODEPORTS -p tcp -m tcp --dport 49182 -j KUBE-SVC",
                    "-A KUBE-SVC -m statistic --mode random --probability 0.50000000000 -j KUBE-A",
                    "-A KUBE-SVC -j KUBE-B",
                    "-A KUBE-A -p tcp -m tcp -j DNAT --to-destination 10.244.0.8:80",
                    "-A KUBE-B -p tcp -m tcp -j DNAT --to-destination 10.244.0.9:80",
                ],
                1,
            ),
            // No first packet meets it.
            (
                "nat",
                &[
                    "-A PREROUTING -p tcp -m tcp --dport 49182 -m conntrack --ctstate ESTABLISHED -j DNAT --to-destination 10.0.0.9",
                ],
                0,
            ),
            // Conditions that are taken to hold: a negated interface, a wildcard, a negated state.
            (
                "nat",
                &[
                    "-A PREROUTING ! -i wg0 -p tcp -m tcp --dport 49182 -j DNAT --to-destination 10.0.0.9",
                ],
                1,
            ),
            (
                "nat",
                &[
                    "-A PREROUTING -i wg+ -p tcp -m tcp --dport 49182 -m mark ! --mark 0x1 -j DNAT --to-destination 10.0.0.9",
                ],
                1,
            ),
            (
                "nat",
                &[
                    "-A PREROUTING -p tcp -m tcp --dport 49182 -m conntrack ! --ctstate NEW -j DNAT --to-destination 10.0.0.9",
                ],
                1,
            ),
            // Ports and flags that a first packet of the forward need not have.
            (
                "nat",
                &[
                    "-A PREROUTING -p tcp -m multiport ! --dports 80,49182 -j DNAT --to-destination 10.0.0.9",
                ],
                0,
            ),
            (
                "nat",
                &[
                    "-A PREROUTING -p tcp -m multiport --sports 49182 -j DNAT --to-destination 10.0.0.9",
                ],
                0,
            ),
            (
                "nat",
                &[
                    "-A PREROUTING -p tcp -m tcp --dport 49182 ! --tcp-flags FIN,SYN,RST,ACK SYN -j DNAT --to-destination 10.0.0.9",
                ],
                0,
            ),
            (
                "nat",
                &["-A PREROUTING ! -p udp -j DNAT --to-destination 10.0.0.9"],
                0,
            ),
            // Another port, protocol, interface or host; a whole network; nvactl's own rule.
            (
                "nat",
                &["-A PREROUTING -p tcp -m tcp --dport 49183 -j DNAT --to-destination 10.0.0.9"],
                0,
            ),
            (
                "nat",
                &["-A PREROUTING -p udp -m udp --dport 49182 -j DNAT --to-destination 10.0.0.9"],
                0,
            ),
            (
                "nat",
                &["-A PREROUTING -p icmp -j DNAT --to-destination 10.0.0.9"],
                0,
            ),
            (
                "nat",
                &["-A PREROUTING -p sctp -m sctp --dport 5 -j DNAT --to-destination 10.0.0.9"],
                0,
            ),
            (
                "nat",
                &["-A PREROUTING -p tcp -m tcp ! --dport 49182 -j DNAT --to-destination 10.0.0.9"],
                0,
            ),
            (
                "nat",
                &[
                    "-A PREROUTING -i wg0 -p tcp -m tcp --dport 49182 -j DNAT --to-destination 10.0.0.9",
                ],
                0,
            ),
            (
                "nat",
                &[
                    "-A PREROUTING -d 10.96.0.1/32 -p tcp -m tcp --dport 49182 -j DNAT --to-destination 10.0.0.9",
                ],
                0,
            ),
            (
                "nat",
                &[
                    ":MY - [0:0]",
                    "-A PREROUTING -p tcp -m tcp --dport 443 -j MY",
                    "-A MY -p tcp -j DNAT --to-destination 10.0.0.9",
                ],
                0,
            ),
            (
                "nat",
                &[
                    ":MY - [0:0]",
                    "-A MY -p tcp -m tcp --dport 49182 -j DNAT --to-destination 10.0.0.9",
                ],
                0,
            ),
            ("nat", &["-A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE"], 0),
            (
                "nat",
                &["-A POSTROUTING -d 10.224.0.119/32 -p tcp -m tcp --dport 80 -j MASQUERADE"],
                0,
            ),
            (
                "filter",
                &["-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"],
                0,
            ),
            (
                "filter",
                &["-A FORWARD -p tcp -m tcp --dport 80 -j DROP"],
                0,
            ),
            (
                "nat",
                &[
                    ":NVACTL-PREROUTING - [0:0]",
                    "-A PREROUTING -j NVACTL-PREROUTING",
                    "-A NVACTL-PREROUTING -p tcp -m tcp --dport 49182 -j DNAT --to-destination 10.0.0.9",
                ],
                0,
            ),
        ] {
            let have = ruleset(table, lines);
            assert_eq!(duplicates(&have, &set).len(), count, "{lines:?}");
        }
    }
}

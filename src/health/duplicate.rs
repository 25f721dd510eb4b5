//! Duplicate rules: rules of others that translate for a listener of the spec too, typed by hand from a guide or
//! written by another program. nvactl names them and never removes them.

use super::first_packets::FirstPackets;
use crate::forwards::{ForwardSet, Name};
use crate::netfilter::matches::{Match, PortsOf};
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::programs;
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::DEEPEST;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::Target;
use crate::netfilter::text::line::Line;
use crate::netfilter::token::shell_word;

/// A rule of others in the nat table that matches the protocol and the port of a forward.
#[derive(Debug, PartialEq, Eq)]
pub struct Duplicate<'r> {
    pub chain: &'r ChainName,
    /// The rule that translates, or that leads to such a rule.
    pub rule: &'r Rule,
    /// The forwards that the rule concerns, in the order of the spec.
    pub forwards: Vec<&'r Name>,
    /// A condition on which it depends whether the rule matches a packet of these forwards.
    pub undecided: Option<&'r Match>,
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

    /// Returns the command that shows the rule and its counters.
    #[must_use]
    pub fn look(&self, program: &str) -> String {
        let chain = shell_word(self.chain.as_str());
        format!("sudo {program} -t {} -vnL {chain}", TableName::Nat)
    }
}

/// Finds the rules of others that do the same as the spec: the DNAT of a listener, and the SNAT that belongs to it.
/// `set` and `have` have the same family.
///
/// The walk follows jumps. It names the last rule with a port on the path to a translation, once, because a rule
/// without a port is about more than forwards. A rule for some clients is a duplicate too.
#[must_use]
pub fn duplicates<'r>(have: &'r Ruleset, set: &'r ForwardSet) -> Vec<Duplicate<'r>> {
    let mut search = Search {
        have,
        steps: MOST_STEPS,
        found: Vec::new(),
    };
    let arriving: Vec<FirstPackets<'_>> = set.forwards.iter().map(FirstPackets::arriving).collect();
    let leaving: Vec<FirstPackets<'_>> = set
        .forwards
        .iter()
        .flat_map(FirstPackets::leaving)
        .collect();
    let nat = have.tables.get(&TableName::Nat);
    for (chain, packets) in [
        (ChainName::Prerouting, arriving),
        (ChainName::Postrouting, leaving),
    ] {
        if let Some((chain, _)) = nat.and_then(|nat| nat.get_key_value(&chain)) {
            search.walk(chain, &packets, None, DEEPEST);
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
    steps: usize,
    found: Vec<Duplicate<'r>>,
}

impl<'r> Search<'r> {
    /// Walks a chain with the packets that come to it. `by` is the last rule with a port on the path so far.
    fn walk(
        &mut self,
        chain: &'r ChainName,
        packets: &[FirstPackets<'r>],
        by: Option<Place<'r>>,
        depth: usize,
    ) {
        let Some(body) = self.have.chain(TableName::Nat, chain) else {
            return;
        };
        for rule in &body.rules {
            if self.steps == 0 {
                return;
            }
            self.steps -= 1;
            let next = match &rule.target {
                Some(Target::Jump(next) | Target::Goto(next)) if !next.is_own() && depth > 0 => {
                    Some(next)
                }
                Some(target) if TRANSLATING.contains(&target.name()) => None,
                _ => continue,
            };
            let by = if names_port(rule) {
                Some((chain, rule))
            } else {
                by
            };
            let left = FirstPackets::all_meeting(packets, rule);
            match (next, by) {
                _ if left.is_empty() => {}
                (Some(next), by) => self.walk(next, &left, by, depth - 1),
                (None, Some(by)) => self.keep(by, &left),
                (None, None) => {}
            }
        }
    }

    /// Keeps a rule with the forwards whose packets it leads to a translation. Forwards for which that is certain
    /// replace those for which it is not.
    fn keep(&mut self, (chain, rule): Place<'r>, packets: &[FirstPackets<'r>]) {
        for packets in packets {
            let name = &packets.forward.name;
            let mut known = self.found.iter_mut();
            let Some(known) = known.find(|known| std::ptr::eq(known.rule, rule)) else {
                self.found.push(Duplicate {
                    chain,
                    rule,
                    forwards: vec![name],
                    undecided: packets.undecided,
                });
                continue;
            };
            match (known.undecided, packets.undecided) {
                (Some(_), None) => {
                    known.forwards = vec![name];
                    known.undecided = None;
                }
                (None, Some(_)) => {}
                _ if known.forwards.contains(&name) => {}
                _ => known.forwards.push(name),
            }
        }
    }
}

/// The targets that give a packet another destination or source.
const TRANSLATING: [&str; 4] = ["DNAT", "REDIRECT", "SNAT", "MASQUERADE"];

/// Whether a rule has a condition on the destination port, now or before any DNAT.
fn names_port(rule: &Rule) -> bool {
    rule.matches.iter().any(|condition| match condition {
        Match::Tcp { destination, .. } | Match::Udp { destination, .. } => destination.is_some(),
        Match::Multiport { of, .. } => *of != PortsOf::Source,
        Match::Conntrack(conntrack) => conntrack.original_destination_port.is_some(),
        _ => false,
    })
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
            // Conditions that hold for the forward's packets, and those that do not.
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
                0,
            ),
            (
                "nat",
                &[
                    "-A PREROUTING -p tcp -m tcp --dport 49182 -m conntrack ! --ctstate NEW -j DNAT --to-destination 10.0.0.9",
                ],
                0,
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

    /// Returns the forwards for which a rule is a duplicate, with `?` if that is not certain.
    fn named(lines: &str) -> String {
        let set = yaml::read(
            b"firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4}
forwards:
  - {name: web, listen: 8080, target: {pod: [10.224.0.118:80, 10.224.0.119:80]}}
  - {name: dns, listen: 10.3.0.4:53, protocol: udp, target: {ilb: 10.224.0.222}}
  - {name: many, listen: 9000-9010, target: {pod: '10.224.0.120:9000-9010'}}",
        )
        .expect("it is valid");
        let lines: Vec<&str> = lines.split("; ").collect();
        let have = ruleset("nat", &lines);
        let found = duplicates(&have, &set);
        let named = found.iter().flat_map(|one| {
            let unsure = if one.undecided.is_some() { "?" } else { "" };
            one.forwards
                .iter()
                .map(move |name| format!("{name}{unsure}"))
        });
        named.collect::<Vec<_>>().join(" ")
    }

    /// The conditions of a DNAT in PREROUTING, and the forwards whose first packets meet them.
    const ARRIVING: &[(&str, &str)] = &[
        ("-p tcp -m tcp --dport 8080", "web"),
        ("-i eth+ -p tcp -m tcp --dport 8080", "web"),
        ("-i wlan+ -p tcp -m tcp --dport 8080", ""),
        ("! -i eth0 -p tcp -m tcp --dport 8080", ""),
        ("! -i eth+ -p tcp -m tcp --dport 8080", ""),
        ("! -i eth1 -p tcp -m tcp --dport 8080", "web"),
        (
            "-p tcp -m tcp --dport 8080 -m state --state ESTABLISHED",
            "",
        ),
        (
            "-p tcp -m tcp --dport 8080 -m state --state NEW,RELATED",
            "web",
        ),
        ("-p tcp -m tcp --dport 8080 -m state ! --state NEW", ""),
        (
            "-p tcp -m tcp --dport 8080 -m conntrack ! --ctstate NEW",
            "",
        ),
        (
            "-p tcp -m tcp --dport 8080 -m conntrack ! --ctstate INVALID",
            "web",
        ),
        ("-p tcp -m tcp --dport 8080 -m conntrack --ctstate DNAT", ""),
        ("-p tcp -m tcp --dport 8080 -m conntrack --ctdir REPLY", ""),
        (
            "-p tcp -m tcp --dport 8080 -m conntrack --ctstatus CONFIRMED",
            "",
        ),
        (
            "-p tcp -m tcp --dport 8080 -m conntrack ! --ctstatus CONFIRMED",
            "web",
        ),
        (
            "-p tcp -m tcp --dport 8080 -m conntrack --ctorigdstport 9999",
            "",
        ),
        ("-p tcp -m conntrack --ctorigdstport 8080", "web"),
        ("-p tcp -m conntrack ! --ctorigdstport 8080", "many"),
        (
            "-p tcp -m tcp --dport 8080 -m addrtype --dst-type LOCAL",
            "web",
        ),
        (
            "-p tcp -m tcp --dport 8080 -m addrtype ! --dst-type LOCAL",
            "",
        ),
        (
            "-p tcp -m tcp --dport 8080 -m addrtype ! --src-type LOCAL",
            "web",
        ),
        ("-d 10.3.0.4/32 -p udp -m udp --dport 53", "dns"),
        ("! -d 10.3.0.4/32 -p udp -m udp --dport 53", ""),
        (
            "-p udp -m udp --dport 53 -m conntrack ! --ctorigdst 10.3.0.4",
            "",
        ),
        (
            "-p udp -m udp --dport 53 -m conntrack --ctorigdst 10.3.0.0/24",
            "dns",
        ),
        // Ports that are excluded.
        ("-p tcp -m tcp ! --dport 22", "web many"),
        ("-p tcp -m tcp ! --dport 8080", "many"),
        ("-p tcp -m multiport ! --dports 22", "web many"),
        ("-p tcp -m multiport ! --dports 22,8000:8999", "many"),
        (
            "-p tcp -m multiport ! --dports 8080,9000:9004,9005:9010",
            "",
        ),
        ("-p tcp -m multiport ! --dports 8080,9001", "many"),
        ("-p tcp -m multiport --ports 8080", "web"),
        ("-p tcp -m multiport ! --ports 8080", "many"),
        ("-p tcp -m tcp --dport 8080 ! --sport 1:1023", "web"),
        (
            "-p tcp -m tcp --dport 9000:9005 -m multiport ! --dports 9000:9006",
            "",
        ),
        // Flags and protocols.
        ("-p tcp -m tcp --dport 8080 --tcp-flags SYN,RST SYN", "web"),
        (
            "-p tcp -m tcp --dport 8080 ! --tcp-flags SYN,ACK ACK",
            "web",
        ),
        ("-p tcp -m tcp --dport 8080 --tcp-flags SYN,ACK ACK", ""),
        ("! -p udp -m conntrack --ctorigdstport 8080", "web"),
        ("! -p tcp -m conntrack --ctorigdstport 8080", ""),
        // Some of the clients, or some of a client's packets.
        ("-s 198.51.100.0/24 -p tcp -m tcp --dport 8080", "web"),
        ("! -s 198.51.100.0/24 -p tcp -m tcp --dport 8080", "web"),
        ("-p tcp -m tcp --dport 8080 -m limit --limit 5/sec", "web"),
        // Conditions that nvactl does not know or cannot decide.
        ("-p tcp -m tcp --dport 8080 -m mark ! --mark 0x1", "web?"),
        (
            "-p tcp -m tcp --dport 8080 -m time --timestart 08:00:00",
            "web?",
        ),
        (
            "-p tcp -m tcp --dport 8080 -m set --match-set here dst",
            "web?",
        ),
        ("-d 10.96.0.1/32 -p tcp -m tcp --dport 8080", "web?"),
        ("-p tcp -m tcp --dport 8081 -m mark ! --mark 0x1", ""),
    ];

    #[test]
    fn a_dnat_is_a_duplicate_if_a_first_packet_of_a_forward_meets_its_conditions() {
        for (conditions, forwards) in ARRIVING {
            let rule = format!("-A PREROUTING {conditions} -j DNAT --to-destination 10.9.9.9");
            assert_eq!(named(&rule), *forwards, "{rule}");
        }
    }

    #[test]
    fn a_source_translation_is_a_duplicate_if_packets_to_a_target_meet_its_conditions() {
        for (conditions, forwards) in [
            ("-p tcp -m tcp --dport 80", "web"),
            ("-d 10.224.0.119/32 -o eth1 -p tcp -m tcp --dport 80", "web"),
            (
                "-d 10.224.0.119/32 -p tcp -m conntrack --ctorigdstport 8080",
                "web",
            ),
            (
                "-p tcp -m tcp --dport 80 -m conntrack --ctstate DNAT",
                "web",
            ),
            ("! -d 10.224.0.0/16 -p tcp -m tcp --dport 80", ""),
            ("! -d 10.224.0.118/32 -p tcp -m tcp --dport 80", "web"),
            ("! -d 10.0.0.0/8 -p tcp -m multiport --dports 80,443", ""),
            ("! -o eth1 -p tcp -m tcp --dport 80", ""),
            ("-o wl+ -p tcp -m tcp --dport 80", ""),
            ("-o eth+ -p tcp -m tcp --dport 80", "web"),
            (
                "-p tcp -m tcp --dport 80 -m addrtype ! --dst-type LOCAL",
                "web?",
            ),
            // A packet to a target has the target's port.
            ("-p tcp -m tcp --dport 8080", ""),
            ("-p tcp -m tcp --dport 9003", "many"),
            // A container and its own published port, as Docker writes it.
            (
                "-s 10.224.0.118/32 -d 10.224.0.118/32 -p tcp -m tcp --dport 80",
                "",
            ),
        ] {
            let rule = format!("-A POSTROUTING {conditions} -j MASQUERADE");
            assert_eq!(named(&rule), forwards, "{rule}");
        }
    }

    #[test]
    fn all_conditions_on_the_path_to_a_translation_count() {
        let dnat = "-j DNAT --to-destination 10.9.9.9";
        for (lines, forwards) in [
            (
                "-A PREROUTING ! -p udp -j SUB; -A SUB -p tcp -m tcp --dport 8080",
                "web",
            ),
            (
                "-A PREROUTING ! -p tcp -j SUB; -A SUB -p tcp -m tcp --dport 8080",
                "",
            ),
            (
                "-A PREROUTING -m mark --mark 0x1 -j SUB; -A SUB -p tcp -m tcp --dport 8080",
                "web?",
            ),
            (
                "-A PREROUTING -p tcp -m tcp --dport 9000:9004 -j SUB; -A SUB -p tcp -m tcp ! --dport 9000:9004",
                "",
            ),
            (
                "-A PREROUTING -i eth0 -j SUB; -A SUB ! -i eth0 -p tcp -m tcp --dport 8080",
                "",
            ),
        ] {
            let lines = format!(":SUB - [0:0]; {lines} {dnat}");
            assert_eq!(named(&lines), forwards, "{lines}");
        }
        // A path that is certain counts more than one that is not.
        let twice = format!(
            ":SUB - [0:0]; -A PREROUTING -m mark --mark 0x1 -j SUB; -A PREROUTING -j SUB; \
             -A SUB -p tcp -m tcp --dport 8080 {dnat}"
        );
        assert_eq!(named(&twice), "web");
    }
}

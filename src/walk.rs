//! A packet's walk through the chains of one table: the rules that could decide on it, in order.

use crate::foreign::DEEPEST;
use crate::packet::Packet;
use crate::rule::{Rule, Target};
use crate::ruleset::{ChainName, Ruleset, TableName};
use crate::token::Token;

/// A rule that may end the walk.
/// In a built-in chain RETURN is one: what it takes does not come to the rules behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decider<'r> {
    pub chain: &'r ChainName,
    pub rule: &'r Rule,
    /// The rule's place in the chain, counted from 1.
    pub place: usize,
    /// Whether it decides on every such packet that none before it has decided on.
    pub certain: bool,
}

/// What a walk came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Walked<'r> {
    /// Up to the first that decides for certain.
    pub deciders: Vec<Decider<'r>>,
    /// Whether a packet may come to the chain's end, where the policy decides.
    pub ends: bool,
}

/// Follows a packet through a built-in chain, up to the jump to `until` if that is given and the
/// chain has it: what stands behind sees only what comes back.
#[must_use]
pub fn walk<'r>(
    ruleset: &'r Ruleset,
    table: TableName,
    chain: &ChainName,
    packet: &Packet<'_>,
    until: Option<&ChainName>,
) -> Walked<'r> {
    let mut walk = Walk {
        ruleset,
        table,
        packet,
        until,
        steps: MOST_STEPS,
        deciders: Vec::new(),
    };
    let ends = matches!(walk.follow(chain, true, DEEPEST), Way::Back);
    // What has returned from a built-in chain is past the jump, and meets the policy.
    let returns = |decider: &Decider<'_>| decider.rule.target == Some(Target::Return);
    let returned = walk.deciders.iter().any(returns);
    Walked {
        deciders: walk.deciders,
        ends: ends || returned,
    }
}

/// Chains that many others lead to are walked once for each: this bounds what that can cost.
const MOST_STEPS: usize = 100_000;

struct Walk<'r, 'p> {
    ruleset: &'r Ruleset,
    table: TableName,
    packet: &'p Packet<'p>,
    until: Option<&'p ChainName>,
    steps: usize,
    deciders: Vec<Decider<'r>>,
}

enum Way {
    /// Every such packet was decided on.
    Decided,
    /// Some, or all, go on behind the rule that led here.
    Back,
}

impl Walk<'_, '_> {
    /// `certain`: whether every packet that was not decided on comes to this chain.
    fn follow(&mut self, name: &ChainName, certain: bool, depth: usize) -> Way {
        let table = self.ruleset.tables.get(&self.table);
        let Some((name, body)) = table.and_then(|table| table.get_key_value(name)) else {
            return Way::Back;
        };
        // Whether some may have left the chain without a decision.
        let mut left = false;
        for (place, rule) in (1..).zip(&body.rules) {
            if self.until.is_some() && rule.leads_to() == self.until {
                return if left { Way::Back } else { Way::Decided };
            }
            self.steps = self.steps.saturating_sub(1);
            let Some(target) = &rule.target else {
                continue;
            };
            let all = match self.packet.meets(rule) {
                Some(false) => continue,
                _ if self.steps == 0 => return Way::Back,
                meets => meets == Some(true),
            };
            let decided = match target {
                Target::Return if depth == DEEPEST => {
                    self.deciders.push(Decider {
                        chain: name,
                        rule,
                        place,
                        certain: certain && all && !left,
                    });
                    all
                }
                Target::Return if all => return Way::Back,
                Target::Return => {
                    left = true;
                    continue;
                }
                Target::Jump(next) | Target::Goto(next) => {
                    let way = if depth > 0 {
                        self.follow(next, certain && all && !left, depth - 1)
                    } else {
                        Way::Back
                    };
                    match (way, target) {
                        (Way::Decided, _) => all,
                        // Those that come back from where they have gone to are not seen here.
                        (Way::Back, Target::Goto(_)) if all => return Way::Back,
                        (Way::Back, Target::Goto(_)) => {
                            left = true;
                            false
                        }
                        (Way::Back, _) => false,
                    }
                }
                _ => {
                    let Some(surely) = decides(target) else {
                        continue;
                    };
                    self.deciders.push(Decider {
                        chain: name,
                        rule,
                        place,
                        certain: certain && all && surely && !left,
                    });
                    // It may as well lead some of them back.
                    left |= matches!(target, Target::Unread(_));
                    all && surely
                }
            };
            if decided {
                return if left { Way::Back } else { Way::Decided };
            }
        }
        Way::Back
    }
}

/// Targets that end a packet's walk through a table; iptables-extensions(8). `None` for those that
/// only mark, log or count; one that is not known may do either.
fn decides(target: &Target) -> Option<bool> {
    const PASSING: [&str; 22] = [
        "AUDIT",
        "CHECKSUM",
        "CLASSIFY",
        "CONNMARK",
        "CONNSECMARK",
        "CT",
        "DSCP",
        "ECN",
        "HL",
        "HMARK",
        "IDLETIMER",
        "LOG",
        "MARK",
        "NFLOG",
        "RATEEST",
        "SECMARK",
        "SET",
        "TCPMSS",
        "TEE",
        "TOS",
        "TRACE",
        "TTL",
    ];
    match target.name() {
        "CT" | "NOTRACK" if is_notrack(target) => Some(true),
        "ACCEPT" | "DROP" | "REJECT" | "DNAT" | "SNAT" | "MASQUERADE" | "REDIRECT" | "NETMAP" => {
            Some(true)
        }
        name if PASSING.contains(&name) => None,
        _ => Some(false),
    }
}

/// Returns whether no packet passes a rule of a chain: it has no conditions, and its target ends the walk
/// through that chain. A queue's verdict ends it too (`--queue-bypass` in iptables-extensions(8)).
#[must_use]
pub fn stops_every_packet(rule: &Rule) -> bool {
    let ends = |target: &Target| match target {
        Target::Return | Target::Goto(_) => true,
        Target::Jump(_) => false,
        _ => matches!(target.name(), "QUEUE" | "NFQUEUE") || decides(target) == Some(true),
    };
    rule.is_unconditional() && rule.target.as_ref().is_some_and(ends)
}

/// Whether connections are not tracked behind this rule, and so not translated.
fn is_notrack(target: &Target) -> bool {
    let Target::Other(words) = target else {
        return false;
    };
    words
        .iter()
        .map(Token::spelled)
        .any(|word| matches!(word, "NOTRACK" | "--notrack"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Protocol;
    use crate::packet::Tracked;
    use crate::parse::parse;

    #[test]
    fn what_could_decide_is_found_and_how_certain_it_is() {
        let to = ["10.224.0.118".parse().expect("an address")];
        let packet = Packet {
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
        let own = ChainName::from("NVACTL-FORWARD");
        // Each decider by its target, with `?` for one that is not certain, and `.` for the end.
        for (rules, found) in [
            ("", "."),
            ("-A FORWARD -p udp -j DROP\n", "."),
            (
                "-A FORWARD -p tcp -j LOG\n-A FORWARD -j TCPMSS --clamp-mss-to-pmtu\n",
                ".",
            ),
            ("-A FORWARD -p tcp -j DROP\n-A FORWARD -j ACCEPT\n", "DROP"),
            (
                "-A FORWARD -i eth0 -j DROP\n-A FORWARD -j ACCEPT\n",
                "DROP? ACCEPT",
            ),
            ("-A FORWARD -j NFQUEUE --queue-num 0\n", "NFQUEUE? ."),
            ("-A FORWARD -j NVACTL-FORWARD\n-A FORWARD -j DROP\n", ""),
            ("-A FORWARD -j DROP\n-A FORWARD -j NVACTL-FORWARD\n", "DROP"),
            (
                ":MY - [0:0]\n-A FORWARD -j MY\n-A MY -p tcp -j DROP\n",
                "DROP",
            ),
            (
                ":MY - [0:0]\n-A FORWARD -i eth0 -j MY\n-A MY -p tcp -j DROP\n",
                "DROP? .",
            ),
            (
                ":MY - [0:0]\n-A FORWARD -j MY\n-A FORWARD -j DROP\n-A MY -j RETURN\n-A MY -j ACCEPT\n",
                "DROP",
            ),
            (
                ":MY - [0:0]\n-A FORWARD -j MY\n-A MY -i eth0 -j RETURN\n-A MY -j ACCEPT\n-A FORWARD -j DROP\n",
                "ACCEPT? DROP",
            ),
            (":MY - [0:0]\n-A FORWARD -g MY\n-A FORWARD -j DROP\n", "."),
            (
                ":MY - [0:0]\n-A FORWARD -i eth0 -g MY\n-A FORWARD -j DROP\n",
                "DROP? .",
            ),
            (":A - [0:0]\n-A FORWARD -j A\n-A A -j A\n", "."),
            // What it does is not known: it may lead back, too.
            (
                "-A FORWARD -i \"x -j ACCEPT\n-A FORWARD -j DROP\n",
                "? DROP? .",
            ),
            (
                "-A FORWARD -p tcp -j RETURN\n-A FORWARD -j DROP\n",
                "RETURN .",
            ),
            (
                "-A FORWARD -i eth0 -j RETURN\n-A FORWARD -j DROP\n",
                "RETURN? DROP .",
            ),
        ] {
            let text = format!("*filter\n:NVACTL-FORWARD - [0:0]\n{rules}COMMIT\n");
            let ruleset = parse(&text).expect("it is readable");
            let walked = walk(
                &ruleset,
                TableName::Filter,
                &ChainName::Forward,
                &packet,
                Some(&own),
            );
            let deciders = walked.deciders.iter().map(|decider| {
                let target = decider.rule.target.as_ref().map_or("", Target::name);
                format!("{target}{}", if decider.certain { "" } else { "?" })
            });
            let end = walked.ends.then(|| ".".to_owned());
            let said: Vec<String> = deciders.chain(end).collect();
            assert_eq!(said.join(" "), found, "{rules}");
        }
    }
}

//! Rules that are not nvactl's and that could take a forward's packets before nvactl's own see them.

use std::net::IpAddr;

use crate::foreign;
use crate::line::Line;
use crate::net::{Family, Interface, PortRange};
use crate::network::Links;
use crate::packet::{Packet, Tracked};
use crate::plan::Hook;
use crate::rule::{Rule, Target};
use crate::ruleset::{ChainName, Policy, Ruleset, TableName};
use crate::spec::{Destination, Forward, Snat};
use crate::unplan::name_of;
use crate::walk::{Decider, is_notrack, walk};

/// A rule, or a policy, in a packet's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shadow<'r> {
    pub table: TableName,
    pub chain: &'r ChainName,
    /// `None`: the chain's policy.
    pub rule: Option<&'r Rule>,
    /// The rule's place in the chain, counted from 1; a policy has none.
    pub place: Option<usize>,
    /// Whether it takes every packet of the forward, or only may take some.
    pub certain: bool,
    /// Whether it is about what targets answer.
    pub reply: bool,
}

impl Shadow<'_> {
    /// Whether it is the same rule or policy.
    fn is(&self, other: &Self) -> bool {
        self.table == other.table
            && self.chain == other.chain
            && self.rule.map(std::ptr::from_ref) == other.rule.map(std::ptr::from_ref)
    }

    /// As iptables-save prints it.
    #[must_use]
    pub fn line(&self) -> String {
        match self.rule {
            Some(rule) => Line::Append(self.chain, rule).to_string(),
            None => Line::Chain(self.chain, Some(Policy::Drop)).to_string(),
        }
    }

    /// Whether it is the policy of FORWARD, which decides where nvactl's own jump is missing.
    #[must_use]
    pub fn is_forward_policy(&self) -> bool {
        self.rule.is_none() && self.table == TableName::Filter
    }

    /// Whether it only comes first because nvactl's jump does not: applying puts that right, and
    /// leaves the rule to those who made it.
    #[must_use]
    pub fn ends_with_the_jump_first(&self) -> bool {
        matches!(self.table, TableName::Filter | TableName::Nat)
    }

    /// The command that takes it out of the way.
    #[must_use]
    pub fn removal(&self, family: Family) -> String {
        match (self.rule, self.place) {
            (Some(rule), Some(place)) if !rule.is_loadable() => Line::DeleteAt(self.chain, place),
            (Some(rule), _) => Line::Delete(self.chain, rule),
            (None, _) => Line::SetPolicy(self.chain, Policy::Accept),
        }
        .as_command(family, self.table)
    }

    /// The program that wrote it, by its chain.
    #[must_use]
    pub fn program(&self) -> Option<&'static str> {
        foreign::program_of(self.chain)
    }

    /// What it does, as a verb with its object.
    #[must_use]
    pub fn does(&self) -> &'static str {
        let target = self.rule.and_then(|rule| rule.target.as_ref());
        let name = target.map_or("DROP", Target::name);
        match (self.table, name, self.reply) {
            _ if target.is_some_and(is_notrack) => "takes out of connection tracking its packets",
            (TableName::Nat, "ACCEPT" | "RETURN", _) => "exempts from translation its packets",
            (TableName::Nat, "SNAT" | "MASQUERADE", _) => "gives another source to its packets",
            (TableName::Nat, ..) => "sends elsewhere its packets",
            (_, "DROP" | "REJECT" | "RETURN", true) => "drops the replies to its packets",
            (_, "DROP" | "REJECT" | "RETURN", false) => "drops its packets",
            _ => "takes its packets",
        }
    }
}

/// One of a forward's ways, on the machine it is for.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'s> {
    pub forward: &'s Forward,
    /// Where the client comes in.
    pub ingress: &'s Interface,
    pub to: &'s Destination,
    /// The machine's addresses where clients come in, as far as they are known.
    pub own: &'s [IpAddr],
}

/// Every way that a forward's connections may take.
pub fn ways<'s>(
    forward: &'s Forward,
    links: &'s Links,
) -> impl Iterator<Item = Situation<'s>> + Clone {
    forward.ingress.iter().flat_map(move |ingress| {
        let own = links.addresses(ingress);
        let each = forward.target.destinations.iter();
        each.map(move |to| Situation {
            forward,
            ingress,
            to,
            own,
        })
    })
}

/// The packets of one of a forward's connections, at each hook that they meet.
#[derive(Debug)]
pub struct Packets<'s> {
    /// The first, before it is translated.
    pub arriving: Packet<'s>,
    /// The same on its way to the target.
    pub passing: Packet<'s>,
    /// The same, about to leave.
    pub leaving: Packet<'s>,
    /// What the target answers.
    pub answer: Packet<'s>,
    /// The same on its way to the client.
    pub returning: Packet<'s>,
}

impl Situation<'_> {
    /// Gives the packets to `work`: they borrow from addresses that live as long.
    pub fn with_packets<T>(&self, work: impl FnOnce(&Packets<'_>) -> T) -> T {
        let Situation {
            forward,
            ingress,
            to,
            own,
        } = *self;
        let one = forward.listen.address.map(|address| [address]);
        let family = |address: &&IpAddr| Family::of(**address) == forward.family();
        let own: Vec<IpAddr> = own.iter().filter(family).copied().collect();
        let listen = one.as_ref().map_or(own.as_slice(), |one| one.as_slice());
        let (target, behind) = ([to.address], forward.ports_at(to));
        let snat: Vec<IpAddr> = match forward.snat {
            Snat::Addresses(range) => range.single().into_iter().collect(),
            Snat::Masquerade | Snat::Client => Vec::new(),
        };
        let arriving = Packet {
            protocol: forward.protocol,
            source: None,
            destinations: listen,
            ports: forward.listen.ports,
            source_ports: None,
            ingress: Some(ingress),
            egress: None,
            local: Some(true),
            translated_from: None,
            tracked: Tracked::New,
        };
        let passing = Packet {
            destinations: &target,
            ports: behind,
            egress: Some(&forward.egress),
            local: Some(false),
            translated_from: Some((listen, forward.listen.ports)),
            ..arriving.clone()
        };
        let leaving = Packet {
            ingress: None,
            ..passing.clone()
        };
        let answer = Packet {
            source: Some(to.address),
            destinations: &snat,
            ports: PortRange::ALL,
            source_ports: Some(behind),
            ingress: Some(&forward.egress),
            egress: None,
            // A client that keeps its address is answered itself.
            local: Some(forward.snat != Snat::Client),
            tracked: Tracked::Established,
            ..passing.clone()
        };
        let returning = Packet {
            destinations: &[],
            egress: Some(ingress),
            local: Some(false),
            ..answer.clone()
        };
        work(&Packets {
            arriving,
            passing,
            leaving,
            answer,
            returning,
        })
    }
}

/// What stands in a forward's way, in the order of a packet's way and of its answer's: in front of
/// nvactl's jumps, and in the tables where nvactl has none. Certain is what stands in all its ways.
#[must_use]
pub fn shadows<'r>(ruleset: &'r Ruleset, forward: &Forward, links: &Links) -> Vec<Shadow<'r>> {
    let each = ways(forward, links)
        .map(|situation| situation.with_packets(|packets| found(ruleset, forward, packets)));
    in_all(each.collect())
}

/// What is found in any of several ways; certain only if it is so in each.
fn in_all(each: Vec<Vec<Shadow<'_>>>) -> Vec<Shadow<'_>> {
    let ways = each.len();
    let mut all: Vec<Shadow<'_>> = Vec::new();
    let mut times: Vec<usize> = Vec::new();
    for shadow in each.into_iter().flatten() {
        let certain = usize::from(shadow.certain);
        match all.iter().position(|known| known.is(&shadow)) {
            Some(n) => times[n] += certain,
            None => {
                all.push(shadow);
                times.push(certain);
            }
        }
    }
    for (shadow, times) in all.iter_mut().zip(times) {
        shadow.certain = times >= ways;
    }
    all
}

fn found<'r>(ruleset: &'r Ruleset, forward: &Forward, packets: &Packets<'_>) -> Vec<Shadow<'r>> {
    use ChainName::{Forward, Postrouting, Prerouting};
    use TableName::{Filter, Mangle, Nat, Raw, Security};
    let Packets {
        arriving,
        passing,
        leaving,
        answer,
        returning,
    } = packets;
    let (first, first_answer) = (arriving.untracked(), answer.untracked());
    let home = Packet {
        ingress: None,
        ..returning.clone()
    };
    // The order of the hooks, and of the tables at each (nf_ip_hook_priorities in
    // linux/netfilter_ipv4.h). Answers do not come to nat.
    let hooks = [
        (Raw, Prerouting, None, &first, false),
        (Mangle, Prerouting, None, arriving, false),
        (Nat, Prerouting, Some(Hook::Arriving), arriving, false),
        (Mangle, Forward, None, passing, false),
        (Filter, Forward, Some(Hook::Passing), passing, false),
        (Security, Forward, None, passing, false),
        (Mangle, Postrouting, None, leaving, false),
        (Nat, Postrouting, Some(Hook::Leaving), leaving, false),
        (Raw, Prerouting, None, &first_answer, true),
        (Mangle, Prerouting, None, answer, true),
        (Mangle, Forward, None, returning, true),
        (Filter, Forward, Some(Hook::Passing), returning, true),
        (Security, Forward, None, returning, true),
        (Mangle, Postrouting, None, &home, true),
    ];
    let mut found: Vec<Shadow<'r>> = Vec::new();
    for (table, chain, until, packet, reply) in hooks {
        let Some((chain, body)) = ruleset
            .tables
            .get(&table)
            .and_then(|table| table.get_key_value(&chain))
        else {
            continue;
        };
        let drops = body.policy == Some(Policy::Drop);
        let until = until.map(|hook| ChainName::from(hook.own()));
        let walked = walk(ruleset, table, chain, packet, until.as_ref());
        for decider in &walked.deciders {
            let target = decider.rule.target.as_ref();
            let Some(certain) = target.and_then(|target| takes(table, target, drops, forward.snat))
            else {
                continue;
            };
            let shadow = Shadow {
                table,
                chain: decider.chain,
                rule: Some(decider.rule),
                place: Some(decider.place),
                certain: certain && decider.certain,
                reply,
            };
            // Another's SNAT for some packets only, as Docker's for its containers, leaves them
            // their way back.
            // A client's port may be any, so nearly every rule may take some answers.
            if shadow.certain || !(reply || is_snat(&shadow)) {
                add(&mut found, shadow);
            }
        }
        if walked.ends && drops {
            let accepts = |decider: &Decider<'_>| decider.rule.target == Some(Target::Accept);
            let policy = Shadow {
                table,
                chain,
                rule: None,
                place: None,
                certain: !walked.deciders.iter().any(accepts),
                reply,
            };
            if policy.certain || !reply {
                add(&mut found, policy);
            }
        }
    }
    found
}

/// Each rule once: by what it does for certain, if it does anything.
fn add<'r>(found: &mut Vec<Shadow<'r>>, new: Shadow<'r>) {
    match found.iter_mut().find(|one| one.is(&new)) {
        Some(known) if known.certain || !new.certain => {}
        Some(known) => *known = new,
        None => found.push(new),
    }
}

fn is_snat(shadow: &Shadow<'_>) -> bool {
    let target = shadow.rule.and_then(|rule| rule.target.as_ref());
    matches!(target, Some(Target::Snat { .. } | Target::Masquerade))
}

/// Whether a decision by this target is one against the forward, and whether surely. `drops` is the
/// chain's policy, which a RETURN leads to.
fn takes(table: TableName, target: &Target, drops: bool, snat: Snat) -> Option<bool> {
    match (table, target) {
        (TableName::Nat, Target::Snat { addresses, .. }) => {
            (snat != Snat::Addresses(*addresses)).then_some(true)
        }
        // As a rule it gives the same address, if any is to be given.
        (TableName::Nat, Target::Masquerade) => (snat == Snat::Client).then_some(true),
        (TableName::Nat, _) => Some(true),
        (_, Target::Accept) => None,
        (_, Target::Return) => drops.then_some(true),
        _ => Some(true),
    }
}

/// What takes a forward's packets in nvactl's own chains before its rules do: lines that somebody
/// has put in. `planned` is what should be there.
#[must_use]
pub fn inside<'r>(
    ruleset: &'r Ruleset,
    planned: &Ruleset,
    forward: &Forward,
    links: &Links,
) -> Vec<Shadow<'r>> {
    let each = ways(forward, links).map(|situation| {
        situation.with_packets(|packets| put_in(ruleset, planned, forward, packets))
    });
    in_all(each.collect())
}

fn put_in<'r>(
    ruleset: &'r Ruleset,
    planned: &Ruleset,
    forward: &Forward,
    packets: &Packets<'_>,
) -> Vec<Shadow<'r>> {
    let name = forward.name.as_str();
    let is_planned = |table, decider: &Decider<'_>| {
        let chain = planned.chain(table, decider.chain);
        chain.is_some_and(|chain| chain.rules.contains(decider.rule))
    };
    let mut found = Vec::new();
    for (hook, packet, reply) in [
        (Hook::Arriving, &packets.arriving, false),
        (Hook::Passing, &packets.passing, false),
        (Hook::Leaving, &packets.leaving, false),
        (Hook::Passing, &packets.returning, true),
    ] {
        let (table, own) = (hook.table(), ChainName::from(hook.own()));
        let walked = walk(ruleset, table, &own, packet, None);
        let others = walked
            .deciders
            .iter()
            .take_while(|decider| name_of(decider.rule) != Some(name))
            .filter(|decider| !is_planned(table, decider));
        found.extend(others.map(|decider| Shadow {
            table,
            chain: decider.chain,
            rule: Some(decider.rule),
            place: Some(decider.place),
            certain: decider.certain,
            reply,
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Link;
    use crate::parse::parse;
    use crate::plan::plan;
    use crate::spec;

    #[expect(clippy::too_many_lines, reason = "it is a table")]
    #[test]
    fn what_could_take_a_forward_s_packets_is_named_and_nothing_else() {
        let set = spec::read(
            b"firewall: {interface: eth0, snat: 10.3.0.4}
forwards: [{name: web, listen: 49182, target: {pod: 10.224.0.118:80}}]",
        )
        .expect("it is sound");
        let links = Links(vec![Link {
            name: "eth0".to_owned(),
            up: true,
            addresses: vec!["10.3.0.4".parse().expect("an address")],
        }]);
        // `line` as iptables prints it, put in front of what nvactl plans; what it does, and
        // whether to all packets.
        for (table, lines, found) in [
            (
                "filter",
                "-A FORWARD -p tcp -m tcp --dport 80 -j DROP",
                Some(("drops its packets", true)),
            ),
            (
                "filter",
                "-A FORWARD -s 192.0.2.0/24 -j REJECT",
                Some(("drops its packets", false)),
            ),
            (
                "filter",
                "-A FORWARD -d 10.224.0.0/16 -o eth0 -j DROP",
                Some(("drops its packets", true)),
            ),
            (
                "filter",
                "-A FORWARD -p tcp -m tcp --dport 49182 -j DROP",
                None,
            ),
            (
                "filter",
                "-A FORWARD -p tcp -m tcp --dport 80 -j ACCEPT",
                None,
            ),
            (
                "filter",
                "-A FORWARD -m conntrack --ctstate INVALID -j DROP",
                None,
            ),
            ("filter", "-A INPUT -j DROP", None),
            (
                "nat",
                "-A PREROUTING -p tcp -m tcp --dport 49182 -j DNAT --to-destination 10.0.0.9",
                Some(("sends elsewhere its packets", true)),
            ),
            (
                "nat",
                "-A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.9",
                None,
            ),
            (
                "nat",
                "-A PREROUTING -d 10.96.0.1/32 -j DNAT --to-destination 10.0.0.9",
                None,
            ),
            (
                "nat",
                "-A PREROUTING -i eth0 -j ACCEPT",
                Some(("exempts from translation its packets", true)),
            ),
            (
                "nat",
                "-A POSTROUTING -d 10.0.0.0/8 -j ACCEPT",
                Some(("exempts from translation its packets", true)),
            ),
            (
                "nat",
                "-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
                None,
            ),
            ("nat", "-A POSTROUTING ! -d 10.0.0.0/8 -j MASQUERADE", None),
            ("nat", "-A POSTROUTING -o eth0 -j MASQUERADE", None),
            (
                "nat",
                "-A POSTROUTING -o eth0 -j SNAT --to-source 10.3.0.4",
                None,
            ),
            (
                "nat",
                "-A POSTROUTING -o eth0 -j SNAT --to-source 10.3.0.9",
                Some(("gives another source to its packets", true)),
            ),
            (
                "nat",
                "-A PREROUTING -p tcp -m tcp --dport 49182 -j RETURN",
                Some(("exempts from translation its packets", true)),
            ),
            ("filter", "-A FORWARD -p tcp -j RETURN", None),
            (
                "filter",
                ":FORWARD DROP [0:0]
-A FORWARD -p tcp -j RETURN",
                Some(("drops its packets", true)),
            ),
            (
                "filter",
                "-A FORWARD -m conntrack --ctstate ESTABLISHED -j DROP",
                Some(("drops the replies to its packets", true)),
            ),
            (
                "filter",
                "-A FORWARD -s 10.224.0.118/32 -j DROP",
                Some(("drops the replies to its packets", true)),
            ),
            ("filter", "-A FORWARD -p icmp -j DROP", None),
            (
                "mangle",
                "-A FORWARD -p tcp -m tcp --sport 80 -j DROP",
                Some(("drops the replies to its packets", true)),
            ),
            (
                "mangle",
                "-A FORWARD -p tcp -m tcp --sport 443 -j DROP",
                Some(("drops its packets", false)),
            ),
            (
                "raw",
                "-A PREROUTING -p tcp -m tcp --sport 80 -j CT --notrack",
                Some(("takes out of connection tracking its packets", true)),
            ),
            (
                "raw",
                "-A PREROUTING -m conntrack --ctstate NEW -j DROP",
                None,
            ),
            (
                "raw",
                "-A PREROUTING -p tcp -j CT --notrack",
                Some(("takes out of connection tracking its packets", true)),
            ),
            ("raw", "-A PREROUTING -p tcp -j CT --helper ftp", None),
            (
                "mangle",
                "-A PREROUTING -p tcp -j MARK --set-xmark 0x1/0xffffffff",
                None,
            ),
            (
                "mangle",
                ":FORWARD DROP [0:0]",
                Some(("drops its packets", true)),
            ),
        ] {
            let mut have = parse(&format!("*{table}\n{lines}\nCOMMIT\n")).expect("it is readable");
            for (table, name, chain) in plan(&set, Family::V4).chains() {
                have.chain_mut(table, name.clone())
                    .rules
                    .extend(chain.rules.clone());
            }
            let shadows = shadows(&have, &set.forwards[0], &links);
            let said = shadows
                .first()
                .map(|shadow| (shadow.does(), shadow.certain));
            assert_eq!(said, found, "{lines}: {shadows:?}");
        }
    }
}

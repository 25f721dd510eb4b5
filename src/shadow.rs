//! Rules that are not nvactl's and that could take a forward's packets before nvactl's own see them.

use std::net::Ipv4Addr;

use crate::foreign;
use crate::line::Line;
use crate::packet::Packet;
use crate::plan::{FORWARD, POSTROUTING, PREROUTING};
use crate::rule::{Rule, Target};
use crate::ruleset::{ChainName, Policy, Ruleset, TableName};
use crate::spec::{Firewall, Forward};
use crate::walk::{is_notrack, walk};

/// A rule, or a policy, in a packet's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shadow<'r> {
    pub table: TableName,
    pub chain: &'r ChainName,
    /// `None`: the chain's policy.
    pub rule: Option<&'r Rule>,
    /// Whether it takes every packet of the forward, or only may take some.
    pub certain: bool,
}

impl Shadow<'_> {
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

    /// The command that takes it out of the way.
    #[must_use]
    pub fn removal(&self) -> String {
        match self.rule {
            Some(rule) => Line::Delete(self.chain, rule),
            None => Line::SetPolicy(self.chain, Policy::Accept),
        }
        .as_command(self.table)
    }

    /// The program that wrote it, by its chain.
    #[must_use]
    pub fn program(&self) -> Option<&'static str> {
        foreign::program_of(self.chain)
    }

    /// What it does to the packet, as a verb.
    #[must_use]
    pub fn does(&self) -> &'static str {
        let Some(target) = self.rule.and_then(|rule| rule.target.as_ref()) else {
            return "drops";
        };
        match (self.table, target) {
            (_, target) if is_notrack(target) => "takes out of connection tracking",
            (TableName::Nat, Target::Accept) => "exempts from translation",
            (TableName::Nat, Target::Snat(_) | Target::Masquerade) => "gives another source to",
            (TableName::Nat, _) => "sends elsewhere",
            (_, target) if matches!(target.name(), "DROP" | "REJECT") => "drops",
            _ => "takes",
        }
    }
}

/// What stands in a forward's way, in the order of a packet's way: in front of nvactl's jumps, and
/// in the tables where nvactl has none. `own` are the machine's addresses where clients come in, as
/// far as they are known.
#[must_use]
pub fn shadows<'r>(
    ruleset: &'r Ruleset,
    forward: &Forward,
    firewall: &Firewall,
    own: &[Ipv4Addr],
) -> Vec<Shadow<'r>> {
    let one = forward.listen.address.map(|address| [address]);
    let listen = one.as_ref().map_or(own, |one| one.as_slice());
    let target = [forward.target.address];
    let arriving = Packet {
        protocol: forward.protocol,
        source: None,
        destinations: listen,
        ports: forward.listen.ports,
        ingress: Some(&firewall.ingress),
        egress: None,
        local: Some(true),
        translated_from: None,
    };
    let passing = Packet {
        destinations: &target,
        ports: forward.ports_behind(),
        egress: Some(&firewall.egress),
        local: Some(false),
        translated_from: Some((listen, forward.listen.ports)),
        ..arriving.clone()
    };
    let leaving = Packet {
        ingress: None,
        ..passing.clone()
    };
    let own = |name| ChainName::from(name);
    let nowhere = || own("");
    // The order of the hooks, and of the tables at each (nf_ip_hook_priorities in
    // linux/netfilter_ipv4.h).
    let hooks = [
        (TableName::Raw, ChainName::Prerouting, nowhere(), &arriving),
        (
            TableName::Mangle,
            ChainName::Prerouting,
            nowhere(),
            &arriving,
        ),
        (
            TableName::Nat,
            ChainName::Prerouting,
            own(PREROUTING),
            &arriving,
        ),
        (TableName::Mangle, ChainName::Forward, nowhere(), &passing),
        (
            TableName::Filter,
            ChainName::Forward,
            own(FORWARD),
            &passing,
        ),
        (TableName::Security, ChainName::Forward, nowhere(), &passing),
        (
            TableName::Mangle,
            ChainName::Postrouting,
            nowhere(),
            &leaving,
        ),
        (
            TableName::Nat,
            ChainName::Postrouting,
            own(POSTROUTING),
            &leaving,
        ),
    ];
    let mut found = Vec::new();
    for (table, chain, until, packet) in hooks {
        let walked = walk(ruleset, table, &chain, packet, &until);
        let takers = walked.deciders.iter().filter(|decider| {
            let target = decider.rule.target.as_ref();
            target.is_some_and(|target| takes(table, target, decider.certain))
        });
        found.extend(takers.map(|decider| Shadow {
            table,
            chain: decider.chain,
            rule: Some(decider.rule),
            certain: decider.certain,
        }));
        let tables = ruleset.tables.get(&table);
        let Some((chain, body)) = tables.and_then(|table| table.get_key_value(&chain)) else {
            continue;
        };
        if walked.ends && body.policy == Some(Policy::Drop) {
            found.push(Shadow {
                table,
                chain,
                rule: None,
                certain: walked.deciders.is_empty(),
            });
        }
    }
    found
}

/// Whether a decision by this target is one against the forward. Another's SNAT for some packets
/// only, as Docker's for its containers, leaves them their way back.
fn takes(table: TableName, target: &Target, certain: bool) -> bool {
    match (table, target.name()) {
        (TableName::Nat, "SNAT" | "MASQUERADE") => certain,
        (TableName::Nat, _) => true,
        (_, name) => name != "ACCEPT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;
    use crate::plan::plan;
    use crate::spec;

    #[test]
    fn what_could_take_a_forward_s_packets_is_named_and_nothing_else() {
        let set = spec::read(
            b"firewall: {interface: eth0, snat: 10.3.0.4}
forwards: [{name: web, listen: 49182, target: {pod: 10.224.0.118:80}}]",
        )
        .expect("it is sound");
        let own = ["10.3.0.4".parse().expect("an address")];
        // `line` as iptables prints it, put in front of what nvactl plans; what it does, and
        // whether to all packets.
        for (table, lines, found) in [
            (
                "filter",
                "-A FORWARD -p tcp -m tcp --dport 80 -j DROP",
                Some(("drops", true)),
            ),
            (
                "filter",
                "-A FORWARD -s 192.0.2.0/24 -j REJECT",
                Some(("drops", false)),
            ),
            (
                "filter",
                "-A FORWARD -d 10.224.0.0/16 -o eth0 -j DROP",
                Some(("drops", true)),
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
                Some(("sends elsewhere", true)),
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
                Some(("exempts from translation", true)),
            ),
            (
                "nat",
                "-A POSTROUTING -d 10.0.0.0/8 -j ACCEPT",
                Some(("exempts from translation", true)),
            ),
            (
                "nat",
                "-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
                None,
            ),
            ("nat", "-A POSTROUTING ! -d 10.0.0.0/8 -j MASQUERADE", None),
            (
                "nat",
                "-A POSTROUTING -o eth0 -j MASQUERADE",
                Some(("gives another source to", true)),
            ),
            (
                "raw",
                "-A PREROUTING -p tcp -j CT --notrack",
                Some(("takes out of connection tracking", true)),
            ),
            ("raw", "-A PREROUTING -p tcp -j CT --helper ftp", None),
            (
                "mangle",
                "-A PREROUTING -p tcp -j MARK --set-xmark 0x1/0xffffffff",
                None,
            ),
            ("mangle", ":FORWARD DROP [0:0]", Some(("drops", true))),
        ] {
            let mut have = parse(&format!("*{table}\n{lines}\nCOMMIT\n")).expect("it is readable");
            for (table, name, chain) in plan(&set).chains() {
                have.chain_mut(table, name.clone())
                    .rules
                    .extend(chain.rules.clone());
            }
            let shadows = shadows(&have, &set.forwards[0], &set.firewall, &own);
            let said = shadows
                .first()
                .map(|shadow| (shadow.does(), shadow.certain));
            assert_eq!(said, found, "{lines}: {shadows:?}");
        }
    }
}

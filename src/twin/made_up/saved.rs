//! The outline of a machine on which rules may work. Rules say less than a spec, so more is guessed.
//!
//! The interface behind which a network is:
//! 1. the `-o` of the first rule whose `-d` is that network;
//! 2. the `-i` of the first rule of the filter table whose `-s` is that network;
//! 3. for the target of a DNAT rule: the `-o` of the rule with the narrowest `-d` around it; else, if the target's
//!    address is not public, the only other interface that a rule names by `-o`; else the interface of the default
//!    route.
//!
//! A negated address or interface says that the interface exists, and nothing about networks.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::outline::Outline;
use super::sides::Sides;
use super::spec::MOST_OF_RANGE;
use crate::net::{Family, Interface};
use crate::netfilter::interface::InterfacePattern;
use crate::netfilter::matches::Match;
use crate::netfilter::names::TableName;
use crate::netfilter::negatable::Negatable::{Is, Not};
use crate::netfilter::protocol::IpProtocol;
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::Target;
use crate::netfilter::text::parse::{first_destination, first_source};
use crate::twin::clients::is_public;

/// The interface of a machine whose rules name none.
const ONLY: &str = "eth0";

/// Returns the family of rules by the first address or protocol of one family that they name; `None` if they name none.
#[must_use]
pub fn family_of(rules: &Ruleset) -> Option<Family> {
    let mut all = rules.chains().flat_map(|(_, _, chain)| &chain.rules);
    all.find_map(|rule| {
        let by_match = rule.matches.iter().find_map(|one| match one {
            Match::Source(Is(net) | Not(net)) | Match::Destination(Is(net) | Not(net)) => {
                Some(Family::of(net.addr()))
            }
            Match::Protocol(Is(protocol) | Not(protocol)) => match protocol {
                IpProtocol::Icmp => Some(Family::V4),
                IpProtocol::Icmp6 => Some(Family::V6),
                IpProtocol::Transport(_) | IpProtocol::Other(_) => None,
            },
            Match::Icmp6(_) => Some(Family::V6),
            _ => None,
        });
        by_match.or_else(|| match &rule.target {
            Some(Target::Dnat { address, .. }) => Some(Family::of(*address)),
            Some(Target::Snat { addresses, .. }) => Some(addresses.family()),
            _ => None,
        })
    })
}

/// Returns the outline of a machine for rules of one family or both. `asked`: the address that a connection goes to.
#[must_use]
pub fn outline(rules: &[(Family, Ruleset)], asked: Option<IpAddr>) -> Outline<'static> {
    let mut outline = Outline::default();
    let read: Vec<(Family, Vec<ReadRule<'_>>)> = rules
        .iter()
        .map(|(family, rules)| (*family, read(rules)))
        .collect();
    let all = || read.iter().flat_map(|(_, rules)| rules);
    let names = Names::of(all());
    for interface in &names.0 {
        outline.add_interface(interface);
    }
    for (family, rules) in &read {
        let Some(default) = default_side(rules, &names) else {
            continue;
        };
        outline.families.push(*family);
        outline.default.push((*family, default.clone()));
        outline.addresses.extend(addresses(rules, &names, &default));
        outline
            .behind
            .extend(behind(rules, &names, (*family, &default), asked));
    }
    outline
}

/// The parts of a rule that say something about the machine.
#[derive(Debug)]
struct ReadRule<'r> {
    table: TableName,
    came: Option<&'r InterfacePattern>,
    by: Option<&'r InterfacePattern>,
    /// The interfaces that the rule rules out: they exist as well.
    others: Vec<&'r InterfacePattern>,
    source: Option<IpNet>,
    destination: Option<IpNet>,
    target: Option<&'r Target>,
}

fn read(rules: &Ruleset) -> Vec<ReadRule<'_>> {
    let all = rules.chains().flat_map(|(table, _, chain)| {
        let rules = chain.rules.iter();
        rules.map(move |rule| read_rule(table, rule))
    });
    all.collect()
}

fn read_rule(table: TableName, rule: &Rule) -> ReadRule<'_> {
    let mut read = ReadRule {
        table,
        came: None,
        by: None,
        others: Vec::new(),
        source: None,
        destination: None,
        target: rule.target.as_ref(),
    };
    for one in &rule.matches {
        match one {
            Match::Ingress(Is(name)) => read.came = Some(name),
            Match::Egress(Is(name)) => read.by = Some(name),
            Match::Ingress(Not(name)) | Match::Egress(Not(name)) => read.others.push(name),
            Match::Source(Is(net)) => read.source = Some(net.trunc()),
            Match::Destination(Is(net)) => read.destination = Some(net.trunc()),
            _ => {}
        }
    }
    read
}

impl ReadRule<'_> {
    fn translates_source(&self) -> bool {
        let name = self.target.map(Target::name);
        matches!(name, Some("SNAT" | "MASQUERADE"))
    }

    /// Returns the first target of a DNAT rule.
    fn redirect(&self) -> Option<IpAddr> {
        first_destination(self.target?)
    }

    /// Returns the sources that an SNAT rule gives packets: the first ones of a range, and the first one of a form without a
    /// type.
    fn sources_given(&self) -> Vec<IpAddr> {
        match self.target {
            Some(Target::Snat { addresses, .. }) => {
                addresses.addresses().take(MOST_OF_RANGE).collect()
            }
            other => other.and_then(first_source).into_iter().collect(),
        }
    }
}

/// The interfaces of the machine.
#[derive(Debug)]
struct Names(Vec<Interface>);

impl Names {
    fn of<'r>(rules: impl Iterator<Item = &'r ReadRule<'r>>) -> Self {
        let patterns = rules.flat_map(|rule| {
            let both = rule.came.into_iter().chain(rule.by);
            both.chain(rule.others.iter().copied())
        });
        let patterns: Vec<&InterfacePattern> = patterns.collect();
        let mut names: Vec<Interface> = Vec::new();
        let mut add = |name: Interface| {
            if !names.contains(&name) {
                names.push(name);
            }
        };
        for name in patterns.iter().filter_map(|pattern| pattern.exact()) {
            add(name.clone());
        }
        let mut names = Self(names);
        for pattern in &patterns {
            if names.side(Some(pattern)).is_none() {
                names.0.extend(first_of(pattern));
            }
        }
        let is_real = |name: &Interface| name.as_str() != "lo";
        if !names.0.iter().any(is_real) {
            names.0.extend(ONLY.parse::<Interface>().ok());
        }
        names
    }

    /// Returns the first interface that a pattern covers. The loopback interface leads nowhere.
    fn side(&self, pattern: Option<&InterfacePattern>) -> Option<&Interface> {
        let pattern = pattern?;
        let mut real = self.0.iter().filter(|name| name.as_str() != "lo");
        real.find(|name| pattern.covers(name))
    }

    /// Returns the first interface.
    fn first(&self) -> Option<&Interface> {
        self.0.iter().find(|name| name.as_str() != "lo")
    }
}

/// Returns an interface that a pattern covers: `eth0` for `eth+`.
fn first_of(pattern: &InterfacePattern) -> Option<Interface> {
    let text = pattern.to_string();
    let prefix = text.strip_suffix('+').filter(|_| text != "lo")?;
    let numbered = format!("{prefix}0").parse();
    numbered.or_else(|_| prefix.parse()).ok()
}

/// Returns the interface of the default route.
fn default_side(rules: &[ReadRule<'_>], names: &Names) -> Option<Interface> {
    let redirects = rules.iter().filter(|rule| rule.redirect().is_some());
    let mut entrances = redirects.filter_map(|rule| names.side(rule.came));
    let sources = rules.iter().filter(|rule| rule.translates_source());
    // A rule for one destination leads to that.
    let wide = sources.filter(|rule| rule.destination.is_none());
    let mut exits = wide.filter_map(|rule| names.side(rule.by));
    let side = entrances
        .next()
        .or_else(|| exits.next())
        .or_else(|| names.first());
    side.cloned()
}

/// Returns the addresses that rules give the machine.
fn addresses(
    rules: &[ReadRule<'_>],
    names: &Names,
    default: &Interface,
) -> Vec<(Interface, IpAddr)> {
    let sources = rules.iter().flat_map(|rule| {
        let side = names.side(rule.by).unwrap_or(default);
        let each = rule.sources_given().into_iter();
        each.map(|address| (side.clone(), address))
    });
    let listeners = rules.iter().filter_map(|rule| {
        rule.redirect()?;
        let side = names.side(rule.came).unwrap_or(default);
        Some((side.clone(), host(rule.destination?)?))
    });
    let mut seen = BTreeSet::new();
    sources
        .chain(listeners)
        .filter(|one| seen.insert(one.clone()))
        .collect()
}

fn host(net: IpNet) -> Option<IpAddr> {
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

/// Returns the networks behind the interfaces. An address that a connection goes to is placed as a target is.
fn behind(
    rules: &[ReadRule<'_>],
    names: &Names,
    (family, default): (Family, &Interface),
    asked: Option<IpAddr>,
) -> Vec<(IpNet, Interface)> {
    let own: BTreeSet<IpAddr> = addresses(rules, names, default)
        .into_iter()
        .map(|(_, address)| address)
        .collect();
    let is_of_network = |net: &IpNet| {
        net.prefix_len() > 0 && !own.contains(&net.addr()) && Family::of(net.addr()) == family
    };
    let mut known = Sides::default();
    let mut behind = Vec::new();
    let mut claim = |net: IpNet, side: &Interface| {
        known.claim(net, side);
        behind.push((net, side.clone()));
    };
    for rule in rules {
        if let (Some(net), Some(side)) = (rule.destination, names.side(rule.by))
            && is_of_network(&net)
        {
            claim(net, side);
        }
    }
    for rule in rules.iter().filter(|rule| rule.table == TableName::Filter) {
        if let (Some(net), Some(side)) = (rule.source, names.side(rule.came))
            && is_of_network(&net)
        {
            claim(net, side);
        }
    }
    let mut exits: Vec<&Interface> = Vec::new();
    for side in rules.iter().filter_map(|rule| names.side(rule.by)) {
        if side != default && !exits.contains(&side) {
            exits.push(side);
        }
    }
    let mut guessed = Vec::new();
    let asked = asked.filter(|to| Family::of(*to) == family && !own.contains(to));
    let targets = rules.iter().filter_map(ReadRule::redirect).chain(asked);
    for target in targets {
        let only = match exits[..] {
            [only] if !is_public(target) || target.is_ipv6() => Some(only),
            _ => None,
        };
        if known.of(target).is_none()
            && let Some(side) = only
        {
            guessed.push((IpNet::from(target), side.clone()));
        }
    }
    behind.extend(guessed);
    behind.retain(|(net, _)| *net != family.everything());
    behind
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netfilter::text::parse::parse;

    fn described(text: &str) -> Vec<String> {
        let rules = parse(text).expect("it is iptables-save text");
        let family = family_of(&rules).unwrap_or(Family::V4);
        super::super::MadeUp::of_rules(&[(family, rules)], &[]).words
    }

    #[test]
    fn a_private_address_of_a_connection_is_behind_the_only_other_exit() {
        let text = "*filter\n-A FORWARD -i eth0 -o eth1 -p tcp --dport 80 -j ACCEPT\nCOMMIT\n";
        let rules = [(Family::V4, parse(text).expect("it is iptables-save text"))];
        for (to, side) in [("10.224.0.119", "eth1"), ("203.0.113.9", "eth0")] {
            let to: IpAddr = to.parse().expect("it is an address");
            let made_up = super::super::MadeUp::of_rules_to(&rules, Some(to), &[]);
            assert_eq!(made_up.side(to).map(Interface::as_str), Some(side));
        }
    }

    #[test]
    fn the_family_is_that_of_the_first_address_or_protocol() {
        for (rule, family) in [
            ("-A FORWARD -p tcp -m tcp --dport 81 -j DROP", None),
            ("-A FORWARD ! -s 10.0.0.0/8 -j DROP", Some(Family::V4)),
            ("-A FORWARD -d fd00::/8 -j DROP", Some(Family::V6)),
            ("-A INPUT -p icmp -j ACCEPT", Some(Family::V4)),
            ("-A INPUT -p ipv6-icmp -j ACCEPT", Some(Family::V6)),
            (
                "-A FORWARD -p tcp -j DNAT --to-destination [fd00::8]:80",
                Some(Family::V6),
            ),
            ("-A FORWARD -j SNAT --to-source 10.3.0.4", Some(Family::V4)),
        ] {
            let rules = parse(&format!("*filter\n{rule}\nCOMMIT\n")).expect("it is text");
            assert_eq!(family_of(&rules), family, "{rule}");
        }
    }

    #[test]
    fn the_first_scenario_has_one_interface() {
        let text = "*nat\n\
            -A PREROUTING -i eth0 -p tcp -m tcp --dport 49181 -j DNAT --to-destination 10.224.0.222\n\
            -A POSTROUTING -d 10.224.0.222/32 -o eth0 -p tcp -m tcp --dport 49181 -j SNAT --to-source 10.3.0.4\n\
            COMMIT\n*filter\n:FORWARD DROP [0:0]\n\
            -A FORWARD -p tcp -m tcp --dport 49181 --syn -m conntrack --ctstate NEW -j ACCEPT\n\
            -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT\n";
        assert_eq!(
            described(text),
            ["eth0 has 10.3.0.4/24; behind it: all other networks"]
        );
    }

    #[test]
    fn rules_say_which_interface_leads_to_a_network() {
        for (rules, words) in [
            // No name and no address.
            (
                "*nat\n-A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.8\n\
                 -A POSTROUTING -j MASQUERADE\n",
                &["eth0 has 198.18.0.4/24 (made up); behind it: all other networks"][..],
            ),
            // The narrowest destination around the target.
            (
                "*nat\n-A PREROUTING -d 203.0.113.10/32 -i wan0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.8\n\
                 -A POSTROUTING -d 10.0.0.0/24 -o lan0 -j SNAT --to-source 10.0.0.1\n\
                 -A POSTROUTING -d 10.0.0.0/8 -o dmz0 -j MASQUERADE\n",
                &[
                    "wan0 has 203.0.113.10/24; behind it: all other networks",
                    "lan0 has 10.0.0.1/24",
                    "dmz0 has 198.18.2.4/24 (made up); behind it: 10.0.0.0/8",
                ],
            ),
            // The only other interface by which packets leave.
            (
                "*nat\n-A PREROUTING -i eth0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.8\n\
                 -A POSTROUTING -o eth1 -j MASQUERADE\n",
                &[
                    "eth0 has 198.18.0.4/24 (made up); behind it: all other networks",
                    "eth1 has 198.18.1.4/24 (made up); behind it: 10.0.0.8",
                ],
            ),
            // Packets of a network that comes in by an interface.
            (
                "*nat\n-A POSTROUTING -o ppp+ -j MASQUERADE\nCOMMIT\n\
                 *filter\n-A FORWARD -s 192.168.1.0/24 -i br-lan -o ppp+ -j ACCEPT\n\
                 -A FORWARD ! -i lo -j DROP\n",
                &[
                    "br-lan has 198.18.0.4/24 (made up); behind it: 192.168.1.0/24",
                    "ppp0 has 198.18.2.4/24 (made up); behind it: all other networks",
                ],
            ),
            (
                "*nat\n-A PREROUTING -i eth0 -p tcp -m tcp --dport 80 -j DNAT --to-destination [fd00:1::8]:80\n\
                 -A POSTROUTING -d fd00:1::/64 -o eth1 -j SNAT --to-source fd00:2::4\n",
                &[
                    "eth0 has fd00:198:18::4/64 (made up); behind it: all other networks",
                    "eth1 has fd00:2::4/64; behind it: fd00:1::/64",
                ],
            ),
        ] {
            assert_eq!(described(&format!("{rules}COMMIT\n")), words, "{rules}");
        }
    }
}

//! The chains beside those of the hooks: lists of networks, rules that log a packet before its verdict, and the
//! chains of outbound entries.
//!
//! Such a chain is named by a digest of its rules. So forwards with equal rules share one chain, and a
//! chain never changes. If a list changes, only the chains between the change and the top are replaced.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::forwards::{Destinations, Log, Nets, not_internet_v4};
use crate::net::Protocol;
use crate::netfilter::limit::Limit;
use crate::netfilter::matches::{Match, Side};
use crate::netfilter::names::ChainName;
use crate::netfilter::negatable::Negatable::Is;
use crate::netfilter::rule::Rule;
use crate::netfilter::target::{RejectWith, Target};
use crate::netfilter::tracking::CtDirection;
use crate::plan::digest::Digest;

pub(crate) const ADMIT: &str = "NVACTL-ADMIT-";
pub(crate) const ALLOW: &str = "NVACTL-ALLOW-";
pub(crate) const DENY: &str = "NVACTL-DENY-";
const LOG: &str = "NVACTL-LOG-";
/// The sources of an outbound entry.
pub(crate) const FROM: &str = "NVACTL-FROM-";
/// The destinations of an outbound entry.
pub(crate) const TO: &str = "NVACTL-TO-";
/// The destinations that an outbound entry denies.
pub(crate) const NOT_TO: &str = "NVACTL-NOTTO-";
/// The protocols, ports and verdicts of an outbound entry.
pub(crate) const EXIT: &str = "NVACTL-EXIT-";

/// A chain with more networks than this branches. Few long chains load faster than many short ones, and
/// a packet still traverses only some dozens of ten thousand rules.
const MOST_IN_ONE: usize = 64;
/// The most branches of a chain. Many branches keep the tree shallow: nft refuses more than 16 chains in
/// a row (`NFT_JUMP_STACK_SIZE` in `net/netfilter/nf_tables.h`), and a list that narrows bit by bit
/// needs the most.
const MOST_BRANCHES: usize = 96;

/// The chains made so far.
#[derive(Debug, Default)]
pub struct Chains {
    made: BTreeMap<ChainName, Vec<Rule>>,
    /// The list chains by the address of their list in memory, their prefix, the end of a packet that they look at, and
    /// the verdict for refused clients.
    lists: BTreeMap<(usize, &'static str, Side, Target), (Nets, ChainName)>,
}

impl Chains {
    #[must_use]
    pub fn into_made(self) -> BTreeMap<ChainName, Vec<Rule>> {
        self.made
    }

    /// Returns the target for a refused packet: `target`, or a chain that logs the packet first if `log` asks for
    /// that.
    pub fn refuse(&mut self, target: Target, log: Option<&Log>) -> Target {
        match log.filter(|log| log.connections.refused()) {
            Some(log) => self.logged(log, "refused", target),
            None => target,
        }
    }

    fn logged(&mut self, log: &Log, what: &str, target: Target) -> Target {
        let (limit, line) = log_line(log, what);
        let rules = vec![Rule::new([limit], line), decided(target)];
        Target::Goto(self.add(LOG, rules))
    }

    /// Returns the chain that refuses clients in these networks.
    pub fn denied(&mut self, nets: &Nets, refused: &Target) -> ChainName {
        self.list(DENY, Side::Source, nets, refused, None)
    }

    /// Returns the chain that refuses packets to these networks.
    pub fn denied_destinations(&mut self, nets: &Nets, refused: &Target) -> ChainName {
        self.list(NOT_TO, Side::Destination, nets, refused, None)
    }

    /// Returns the chain that sends packets of connections from these networks on to `next`. Others return.
    pub fn sources(&mut self, way: CtDirection, nets: &Nets, next: ChainName) -> ChainName {
        let side = match way {
            CtDirection::Original => Side::Source,
            CtDirection::Reply => Side::Destination,
        };
        self.list(FROM, side, nets, &Target::Goto(next), None)
    }

    /// Returns the chain that sends packets of connections to these destinations, and to the addresses `dropped` there, on
    /// to `next`. Others return.
    pub fn destinations(
        &mut self,
        way: CtDirection,
        to: &Destinations,
        dropped: &[IpAddr],
        next: ChainName,
    ) -> ChainName {
        let side = match way {
            CtDirection::Original => Side::Destination,
            CtDirection::Reply => Side::Source,
        };
        let found = Target::Goto(next);
        let nets = to.nets.as_slice();
        if !to.internet {
            return self.list(TO, side, &to.nets, &found, None);
        }
        let of_net = |net: &IpNet, target: &Target| of_net(*net, side, target.clone());
        let mut rules: Vec<Rule> = if nets.len() <= MOST_IN_ONE {
            nets.iter().map(|net| of_net(net, &found)).collect()
        } else {
            let list = self.list(TO, side, &to.nets, &found, None);
            vec![Rule::jump(list)]
        };
        // They lie in networks that return.
        let dropped = dropped.iter().filter(|one| !to.nets.contains(**one));
        rules.extend(dropped.map(|one| of_net(&IpNet::from(*one), &found)));
        let excluded = not_internet_v4().as_slice().iter();
        rules.extend(excluded.map(|net| of_net(net, &Target::Return)));
        rules.push(Rule::new([], found));
        self.add(TO, rules)
    }

    /// Returns the chain that refuses clients outside of these networks.
    pub fn allowed(&mut self, nets: &Nets, refused: &Target) -> ChainName {
        self.list(ALLOW, Side::Source, nets, &Target::Return, Some(refused))
    }

    fn list(
        &mut self,
        prefix: &'static str,
        side: Side,
        nets: &Nets,
        found: &Target,
        otherwise: Option<&Target>,
    ) -> ChainName {
        let place = nets.as_slice().as_ptr() as usize;
        let key = (place, prefix, side, otherwise.unwrap_or(found).clone());
        if let Some((_, known)) = self.lists.get(&key) {
            return known.clone();
        }
        let name = self.branch(prefix, side, nets.as_slice(), found, otherwise);
        // The list is stored as well, so that its memory is not reused and its address stays unique.
        self.lists.insert(key, (nets.clone(), name.clone()));
        name
    }

    fn branch(
        &mut self,
        prefix: &'static str,
        side: Side,
        nets: &[IpNet],
        found: &Target,
        otherwise: Option<&Target>,
    ) -> ChainName {
        let mut rules = Vec::new();
        for group in groups(nets) {
            if let [one] = group {
                rules.push(of_net(*one, side, found.clone()));
            } else {
                let branch = self.branch(prefix, side, group, found, otherwise);
                rules.push(of_net(common(group), side, Target::Goto(branch)));
            }
        }
        rules.extend(otherwise.cloned().map(decided));
        self.add(prefix, rules)
    }

    /// Adds a chain with these rules, and returns its name.
    pub fn add(&mut self, prefix: &str, rules: Vec<Rule>) -> ChainName {
        let name = ChainName::from(
            format!("{prefix}{}", Digest::of(rules.iter().map(Rule::to_string))).as_str(),
        );
        self.made.insert(name.clone(), rules);
        name
    }
}

/// Divides sorted networks, none within another, among the rules of one chain: one rule for each network
/// if they are few, else one for each group that begins with the same bits.
fn groups(nets: &[IpNet]) -> Vec<&[IpNet]> {
    if nets.len() <= MOST_IN_ONE {
        return nets.chunks(1).collect();
    }
    // A power of two, so that one network more or less rarely moves the ends of groups.
    let enough = MOST_IN_ONE.max(nets.len().next_power_of_two() / MOST_IN_ONE);
    let mut groups = vec![nets];
    while groups.len() < MOST_BRANCHES {
        let largest = (0..groups.len()).max_by_key(|n| (groups[*n].len(), usize::MAX - n));
        let Some(n) = largest.filter(|n| groups[*n].len() > enough) else {
            break;
        };
        let (zeros, ones) = halves(groups[n]);
        groups.splice(n..=n, [zeros, ones]);
    }
    groups
}

/// Splits networks by the first bit in which they differ.
fn halves(nets: &[IpNet]) -> (&[IpNet], &[IpNet]) {
    let bits = common(nets).prefix_len() + 1;
    let zero = |net: &IpNet| upto(*net, bits) == upto(nets[0], bits);
    nets.split_at(nets.partition_point(zero))
}

/// Returns the narrowest network that holds all of these.
fn common(nets: &[IpNet]) -> IpNet {
    let (first, last) = (nets[0], nets[nets.len() - 1]);
    // The networks are sorted, so all share the bits that the first and the last share.
    let bits = (0..first.prefix_len().min(last.prefix_len()))
        .take_while(|bits| upto(first, bits + 1) == upto(last, bits + 1))
        .count();
    upto(first, u8::try_from(bits).unwrap_or(u8::MAX))
}

/// Returns the network of `bits` bits that a network lies in.
pub(super) fn upto(net: IpNet, bits: u8) -> IpNet {
    let bits = bits.min(net.prefix_len());
    IpNet::new(net.addr(), bits).map_or(net, |wider| wider.trunc())
}

/// Returns the condition and the target of a rule that logs.
pub fn log_line(log: &Log, what: &str) -> (Match, Target) {
    let line = Target::Log {
        prefix: format!("{} {what} ", log.prefix).into(),
        level: log.level,
    };
    (Match::Limit(Limit::a_minute(log.per_minute)), line)
}

fn of_net(net: IpNet, side: Side, target: Target) -> Rule {
    let end = match side {
        Side::Source => Match::Source(Is(net)),
        Side::Destination => Match::Destination(Is(net)),
    };
    // iptables-save does not print `-s 0.0.0.0/0`.
    Rule::new((net.prefix_len() > 0).then_some(end), target)
}

/// Returns the last rule of a chain. iptables accepts a TCP reset only in a rule that matches TCP.
fn decided(target: Target) -> Rule {
    let tcp = target == Target::Reject(RejectWith::TcpReset);
    Rule::new(
        tcp.then_some(Match::Protocol(Is(Protocol::Tcp.into()))),
        target,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(count: u32) -> Nets {
        let net = |n: u32| {
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + n * 0x200);
            IpNet::new(address.into(), 24).expect("a net")
        };
        Nets::new((0..count).map(net).collect())
    }

    /// Returns how many rules and chains a packet from `source` traverses, and its verdict.
    fn met(chains: &Chains, start: &ChainName, source: std::net::IpAddr) -> (usize, usize, Target) {
        let (mut chain, mut met, mut depth) = (start.clone(), 0, 1);
        'chains: loop {
            for rule in &chains.made[&chain] {
                met += 1;
                let matches = rule.matches.iter().all(|one| match one {
                    Match::Source(Is(net)) => net.contains(&source),
                    _ => true,
                });
                match (matches, rule.target.clone()) {
                    (true, Some(Target::Goto(next))) => {
                        chain = next;
                        depth += 1;
                        continue 'chains;
                    }
                    (true, Some(target)) => return (met, depth, target),
                    _ => {}
                }
            }
            return (met, depth, Target::Return);
        }
    }

    #[test]
    fn a_packet_traverses_some_dozens_of_ten_thousand_networks() {
        let list = nets(10_000);
        let mut chains = Chains::default();
        let allowed = chains.allowed(&list, &Target::Drop);
        let denied = chains.denied(&list, &Target::Drop);
        let mut most = 0;
        for n in 0..20_010 {
            let source = std::net::Ipv4Addr::from(0x0a00_0000 + n * 0x100 + 7).into();
            let listed = list.contains(source);
            let (rules, _, target) = met(&chains, &allowed, source);
            assert_eq!(target == Target::Return, listed, "{source}");
            assert_eq!(
                met(&chains, &denied, source).2 == Target::Drop,
                listed,
                "{source}"
            );
            most = most.max(rules);
        }
        assert!(most < 150, "{most} rules");
        assert!(chains.made.len() < 1000, "{} chains", chains.made.len());
        let longest = chains.made.keys().map(|name| name.as_str().len()).max();
        assert!(longest <= Some(28), "iptables refuses a longer name");
    }

    #[test]
    fn equal_lists_share_a_chain_and_a_changed_list_keeps_most_chains() {
        let mut chains = Chains::default();
        let one = chains.allowed(&nets(10_000), &Target::Drop);
        let before = chains.made.len();
        assert_eq!(chains.allowed(&nets(10_000), &Target::Drop), one);
        assert_eq!(chains.made.len(), before);
        chains.allowed(&nets(9_999), &Target::Drop);
        assert!(chains.made.len() - before < 10);
    }

    /// The worst case: a list with one network for every bit.
    #[test]
    fn a_list_that_narrows_bit_by_bit_is_not_deeper_than_nft_allows() {
        let base: u128 = 0xfd00 << 112;
        let peeled = (0..60u32).map(|n| (base | 1 << (100 - n), u8::try_from(28 + n).unwrap()));
        let narrow = (0..1000u128).map(|n| (base | n, 128));
        let nets: Vec<IpNet> = peeled
            .chain(narrow)
            .map(|(address, bits)| {
                let address = std::net::Ipv6Addr::from(address);
                IpNet::new(address.into(), bits).expect("a net").trunc()
            })
            .collect();
        let list = Nets::new(nets);
        let mut chains = Chains::default();
        let denied = chains.denied(&list, &Target::Drop);
        for net in list.as_slice() {
            let (_, depth, target) = met(&chains, &denied, net.addr());
            assert_eq!(target, Target::Drop, "{net}");
            assert!(depth <= 4, "{depth} chains for {net}");
        }
    }
}

//! The chains beside the three: lists of networks, and what is logged before it is decided.
//!
//! Such a chain is named by a digest of what it holds. So forwards that ask for the same share one,
//! a chain never changes, and where a list does only the chains between the change and the top
//! are others.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::limit::Limit;
use crate::net::{Family, Protocol};
use crate::rule::{Match, RejectWith, Rule, Target};
use crate::ruleset::ChainName;
use crate::spec::{Log, Nets};

pub(crate) const ALLOW: &str = "NVACTL-ALLOW-";
pub(crate) const DENY: &str = "NVACTL-DENY-";
const LOG: &str = "NVACTL-LOG-";

/// A chain with more networks than this branches. Few and longish chains load fast, and a packet
/// still meets only some dozens of rules of ten thousand.
const MOST_IN_ONE: usize = 64;
/// How many bits of the address one branching tells apart: with more of them the last chains would
/// hold a handful each.
const STEP: u8 = 2;

/// How a packet is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Drop,
    /// TCP's own way.
    Reset,
    Unreachable(Family),
}

/// The chains made so far.
#[derive(Debug, Default)]
pub struct Chains {
    made: BTreeMap<ChainName, Vec<Rule>>,
    /// The list chains by where their list stands, prefix and what becomes of who is refused.
    lists: BTreeMap<(usize, &'static str, Target), (Nets, ChainName)>,
}

impl Chains {
    #[must_use]
    pub fn into_made(self) -> BTreeMap<ChainName, Vec<Rule>> {
        self.made
    }

    /// What turns a packet away, with a line in the log if one is asked for.
    pub fn refuse(&mut self, refusal: Refusal, log: Option<&Log>) -> Target {
        let target = match refusal {
            Refusal::Drop => Target::Drop,
            Refusal::Reset => Target::Reject(RejectWith::TcpReset),
            Refusal::Unreachable(Family::V4) => Target::Reject(RejectWith::IcmpPortUnreachable),
            Refusal::Unreachable(Family::V6) => Target::Reject(RejectWith::Icmp6PortUnreachable),
        };
        match log.filter(|log| log.connections.refused()) {
            Some(log) => self.logged(log, "refused", target),
            None => target,
        }
    }

    /// What lets a packet pass, likewise.
    pub fn accept(&mut self, log: Option<&Log>) -> Target {
        match log.filter(|log| log.connections.accepted()) {
            Some(log) => self.logged(log, "accepted", Target::Accept),
            None => Target::Accept,
        }
    }

    fn logged(&mut self, log: &Log, what: &str, target: Target) -> Target {
        let line = Target::Log {
            prefix: format!("{} {what} ", log.prefix).into(),
            level: log.level,
        };
        let rules = vec![
            Rule::new([Match::Limit(Limit::a_minute(log.per_minute))], line),
            decided(target),
        ];
        Target::Goto(self.add(LOG, rules))
    }

    /// The chain that turns away who is in one of the networks.
    pub fn denied(&mut self, nets: &Nets, refused: &Target) -> ChainName {
        self.list(DENY, nets, refused, None)
    }

    /// The chain that turns away who is in none of them.
    pub fn allowed(&mut self, nets: &Nets, refused: &Target) -> ChainName {
        self.list(ALLOW, nets, &Target::Return, Some(refused))
    }

    fn list(
        &mut self,
        prefix: &'static str,
        nets: &Nets,
        found: &Target,
        otherwise: Option<&Target>,
    ) -> ChainName {
        let place = nets.as_slice().as_ptr() as usize;
        let key = (place, prefix, otherwise.unwrap_or(found).clone());
        if let Some((_, known)) = self.lists.get(&key) {
            return known.clone();
        }
        let name = self.branch(prefix, nets.as_slice(), 0, found, otherwise);
        // Kept with its list, so that no other can come to stand in its place.
        self.lists.insert(key, (nets.clone(), name.clone()));
        name
    }

    /// The chain for networks that have their first `known` bits in common.
    fn branch(
        &mut self,
        prefix: &'static str,
        nets: &[IpNet],
        known: u8,
        found: &Target,
        otherwise: Option<&Target>,
    ) -> ChainName {
        let mut rules = Vec::new();
        if nets.len() <= MOST_IN_ONE {
            rules.extend(nets.iter().map(|net| of_net(*net, found.clone())));
        } else {
            let mut next = known + STEP;
            let (first, last) = (nets[0], nets[nets.len() - 1]);
            // In order, so what the first and the last have in common all have.
            while upto(first, next) == upto(last, next) {
                next += STEP;
            }
            // Networks of one branch follow one another, since they are in order.
            for group in nets.chunk_by(|a, b| upto(*a, next) == upto(*b, next)) {
                let [first, _, ..] = group else {
                    rules.extend(group.iter().map(|net| of_net(*net, found.clone())));
                    continue;
                };
                let branch = self.branch(prefix, group, next, found, otherwise);
                rules.push(of_net(upto(*first, next), Target::Goto(branch)));
            }
        }
        rules.extend(otherwise.cloned().map(decided));
        self.add(prefix, rules)
    }

    fn add(&mut self, prefix: &str, rules: Vec<Rule>) -> ChainName {
        let name = ChainName::from(format!("{prefix}{}", digest(&rules)).as_str());
        self.made.insert(name.clone(), rules);
        name
    }
}

/// The network of so many bits that a network lies in; the network itself where it is wider.
fn upto(net: IpNet, bits: u8) -> IpNet {
    let bits = bits.min(net.prefix_len());
    IpNet::new(net.addr(), bits).map_or(net, |wider| wider.trunc())
}

fn of_net(net: IpNet, target: Target) -> Rule {
    // iptables leaves out a condition that every packet meets.
    let source = (net.prefix_len() > 0).then_some(Match::Source(net));
    Rule::new(source, target)
}

/// The last rule of a chain: a reset is only for TCP, and iptables wants that said.
fn decided(target: Target) -> Rule {
    let tcp = target == Target::Reject(RejectWith::TcpReset);
    Rule::new(tcp.then_some(Match::Protocol(Protocol::Tcp)), target)
}

/// 60 bits of FNV-1a over the rules' text (<http://www.isthe.com/chongo/tech/comp/fnv/>), in 15
/// digits: as long as a chain's name can be, and the same on every machine.
fn digest(rules: &[Rule]) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for rule in rules {
        for byte in rule.to_string().bytes().chain([b'\n']) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    format!("{:015x}", hash >> 4)
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

    /// The rules that a packet from `source` meets, and what becomes of it.
    fn met(chains: &Chains, start: &ChainName, source: std::net::IpAddr) -> (usize, Target) {
        let (mut chain, mut met) = (start.clone(), 0);
        'chains: loop {
            for rule in &chains.made[&chain] {
                met += 1;
                let matches = rule.matches.iter().all(|one| match one {
                    Match::Source(net) => net.contains(&source),
                    _ => true,
                });
                match (matches, rule.target.clone()) {
                    (true, Some(Target::Goto(next))) => {
                        chain = next;
                        continue 'chains;
                    }
                    (true, Some(target)) => return (met, target),
                    _ => {}
                }
            }
            return (met, Target::Return);
        }
    }

    #[test]
    fn ten_thousand_networks_cost_a_packet_some_dozens_of_rules() {
        let list = nets(10_000);
        let mut chains = Chains::default();
        let allowed = chains.allowed(&list, &Target::Drop);
        let denied = chains.denied(&list, &Target::Drop);
        let mut most = 0;
        for n in 0..20_010 {
            let source = std::net::Ipv4Addr::from(0x0a00_0000 + n * 0x100 + 7).into();
            let listed = list.contains(source);
            let (rules, target) = met(&chains, &allowed, source);
            assert_eq!(target == Target::Return, listed, "{source}");
            assert_eq!(
                met(&chains, &denied, source).1 == Target::Drop,
                listed,
                "{source}"
            );
            most = most.max(rules);
        }
        assert!(most < 150, "{most} rules");
        assert!(chains.made.len() < 1000, "{} chains", chains.made.len());
        let longest = chains.made.keys().map(|name| name.as_str().len()).max();
        assert!(longest <= Some(28), "iptables takes no longer name");
    }

    #[test]
    fn a_list_is_one_chain_however_many_ask_and_a_change_leaves_most_chains() {
        let mut chains = Chains::default();
        let one = chains.allowed(&nets(10_000), &Target::Drop);
        let before = chains.made.len();
        assert_eq!(chains.allowed(&nets(10_000), &Target::Drop), one);
        assert_eq!(chains.made.len(), before);
        chains.allowed(&nets(9_999), &Target::Drop);
        assert!(chains.made.len() - before < 10);
    }
}

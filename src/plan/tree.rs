//! The rules of many forwards, spread over chains so that a packet meets few of them.
//!
//! Chains are told apart by protocol, listen address and the first bits of the listen port. Where
//! these are cut is fixed, and a chain is named by its place: so one forward more changes the chain
//! that it comes to, and the others keep their names and their counters. Listeners of one place do
//! not overlap, so what a packet meets first is the same as in one long chain.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::Hook;
use super::chains::{common, digest, upto};
use super::forward::transport;
use crate::net::{Port, PortRange, Protocol};
use crate::rule::{Conntrack, Match, Rule, Target};
use crate::ruleset::ChainName;
use crate::spec::Listen;

/// A chain with more rules than this branches. A packet pays for every rule that it meets, and nft,
/// when rules are loaded, for every chain.
const MOST_RULES: usize = 64;
/// A chain that tells more addresses apart than this branches.
const MOST_ADDRESSES: usize = 16;
/// How many bits of a port, or of an address, one chain tells apart.
const STEP: u8 = 4;

/// What one forward has in the chain of a hook.
#[derive(Debug)]
pub struct Part {
    pub protocol: Protocol,
    pub listen: Listen,
    pub rules: Vec<Rule>,
}

/// The chains that the chain of one hook leads to.
#[derive(Debug)]
pub struct Tree {
    hook: Hook,
    made: BTreeMap<ChainName, Vec<Rule>>,
}

impl Tree {
    /// Makes the chains for these, and gives the rules that lead there, and the chains. A packet that
    /// finds nothing there comes back.
    #[must_use]
    pub fn grow(hook: Hook, parts: Vec<Part>) -> (Vec<Rule>, BTreeMap<ChainName, Vec<Rule>>) {
        let made = BTreeMap::new();
        let mut tree = Self { hook, made };
        let rules = tree.top(parts);
        (rules, tree.made)
    }

    fn top(&mut self, mut parts: Vec<Part>) -> Vec<Rule> {
        parts.sort_by_key(|part| (part.protocol, part.listen.address, part.listen.ports.first()));
        let mut rules = Vec::new();
        for parts in parts.chunk_by(|one, other| one.protocol == other.protocol) {
            let place = Place {
                protocol: parts[0].protocol,
                net: None,
            };
            let (open, addressed) =
                parts.split_at(parts.partition_point(|part| part.listen.address.is_none()));
            let each = addressed.chunk_by(|one, other| one.listen.address == other.listen.address);
            let each: Vec<(IpNet, &[Part])> = each
                .filter_map(|parts| Some((parts[0].listen.address?.into(), parts)))
                .collect();
            // Before those for all addresses, which would take their packets.
            for (net, chain) in self.addresses(place, &each) {
                let protocol = Some(Match::Protocol(place.protocol));
                rules.push(self.at_net(net, protocol, Target::Jump(chain)));
            }
            if !open.is_empty() {
                let chain = self.ports(place, Block::ALL, open);
                let protocol = Match::Protocol(place.protocol);
                rules.push(Rule::new([protocol], Target::Jump(chain)));
            }
        }
        rules
    }

    /// Makes the chains for the listeners of each address, or where these are many, of the networks
    /// that they are in.
    fn addresses(&mut self, within: Place, each: &[(IpNet, &[Part])]) -> Vec<(IpNet, ChainName)> {
        let place = |net| Place {
            net: Some(net),
            ..within
        };
        if each.len() <= MOST_ADDRESSES {
            let each = each.iter();
            return each
                .map(|(net, parts)| (*net, self.ports(place(*net), Block::ALL, parts)))
                .collect();
        }
        let nets: Vec<IpNet> = each.iter().map(|(net, _)| *net).collect();
        let bits = common(&nets).prefix_len() / STEP * STEP + STEP;
        let groups = each.chunk_by(|(one, _), (other, _)| upto(*one, bits) == upto(*other, bits));
        let mut made = Vec::new();
        for group in groups {
            let net = upto(group[0].0, bits);
            let further = self.addresses(place(net), group);
            let rules = further
                .into_iter()
                .map(|(net, chain)| self.at_net(net, None, Target::Goto(chain)))
                .collect();
            let name = place(net).name(self.hook.stem(), Block::ALL);
            made.push((net, self.add(name, rules)));
        }
        made
    }

    /// Makes the chain for listeners of one place whose ports are all in one block.
    fn ports(&mut self, place: Place, block: Block, parts: &[Part]) -> ChainName {
        let mut rules: Vec<Rule> = Vec::new();
        let mut further = Vec::new();
        let few = parts.iter().map(|part| part.rules.len()).sum::<usize>() <= MOST_RULES;
        let inner = |part: &Part| block.inner(part.listen.ports).filter(|_| !few);
        for group in parts.chunk_by(|one, other| inner(one) == inner(other)) {
            match inner(&group[0]) {
                // Nothing comes back from a further block, so what is in several comes first.
                None => rules.extend(group.iter().flat_map(|part| part.rules.iter().cloned())),
                Some(inner) => {
                    let chain = self.ports(place, inner, group);
                    further.push(self.at_ports(place.protocol, inner.ports(), Target::Goto(chain)));
                }
            }
        }
        rules.append(&mut further);
        self.add(place.name(self.hook.stem(), block), rules)
    }

    fn add(&mut self, name: ChainName, rules: Vec<Rule>) -> ChainName {
        self.made.insert(name.clone(), rules);
        name
    }

    /// Whether packets still carry what they were sent to, or only conntrack remembers it.
    fn before_dnat(&self) -> bool {
        matches!(self.hook, Hook::Arriving | Hook::Sent)
    }

    /// What was sent to an address of this network.
    fn at_net(&self, net: IpNet, protocol: Option<Match>, target: Target) -> Rule {
        if self.before_dnat() {
            return Rule::new([Match::Destination(net)].into_iter().chain(protocol), target);
        }
        let sent = Match::Conntrack(Conntrack {
            original_destination: Some(net),
            ..Conntrack::default()
        });
        Rule::new(protocol.into_iter().chain([sent]), target)
    }

    /// What was sent to one of these ports.
    fn at_ports(&self, protocol: Protocol, ports: PortRange, target: Target) -> Rule {
        if self.before_dnat() {
            return Rule::new(transport(protocol, ports, false), target);
        }
        let sent = Match::Conntrack(Conntrack {
            original_destination_port: Some(ports),
            ..Conntrack::default()
        });
        Rule::new([sent], target)
    }
}

/// What the listeners of a chain have in common, but for their ports.
#[derive(Debug, Clone, Copy)]
struct Place {
    protocol: Protocol,
    /// `None`: they listen on all addresses.
    net: Option<IpNet>,
}

impl Place {
    /// `NVACTL-DNAT-TCP-4096-8191`; for an address, which has no room in a name, a digest.
    fn name(self, stem: &str, block: Block) -> ChainName {
        let ports = match block {
            Block::ALL => String::new(),
            block => format!("-{}", block.ports()),
        };
        let protocol = self.protocol.as_str().to_ascii_uppercase();
        let name = match self.net {
            None => format!("{stem}{protocol}{ports}"),
            Some(net) => format!("{stem}{}", digest([format!("{protocol}-{net}{ports}")])),
        };
        ChainName::from(name.as_str())
    }
}

/// The ports that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    first: u16,
    /// How many bits they share.
    bits: u8,
}

impl Block {
    const ALL: Self = Self { first: 0, bits: 0 };

    fn ports(self) -> PortRange {
        let last = self.first | u16::MAX.checked_shr(u32::from(self.bits)).unwrap_or(0);
        // There is no port 0.
        let port = |number| Port::new(number).unwrap_or(Port::MIN);
        PortRange::new(port(self.first), port(last)).unwrap_or(PortRange::ALL)
    }

    /// The next narrower block that all of these ports are in, if they are in one.
    fn inner(self, ports: PortRange) -> Option<Self> {
        let bits = self.bits + STEP;
        let rest = 16_u32.checked_sub(u32::from(bits))?;
        let first = |port: Port| port.number() >> rest << rest;
        let first_of_all = first(ports.first());
        (first_of_all == first(ports.last())).then_some(Self {
            first: first_of_all,
            bits,
        })
    }
}

//! Divides the rules of many forwards among chains, so that a packet traverses few of them.
//!
//! The chains divide packets by protocol, listen address and the first bits of the listen port. The
//! boundaries are fixed, and a chain is named by its range. So a new forward changes only the chain for
//! its listener, and the other chains keep their names and counters. Listeners of one chain do not
//! overlap, so the first rule that matches a packet is the same as in one long chain.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::Hook;
use super::chains::upto;
use super::forward::transport;
use crate::forwards::Listen;
use crate::net::{Port, PortRange, Protocol};
use crate::netfilter::matches::Match;
use crate::netfilter::names::ChainName;
use crate::netfilter::negatable::Negatable::Is;
use crate::netfilter::rule::Rule;
use crate::netfilter::target::Target;
use crate::netfilter::tracking::Conntrack;
use crate::plan::digest::Digest;

/// A chain with more rules than this branches. Each rule costs a packet time, and each chain costs nft time
/// when it loads rules.
const MOST_RULES: usize = 64;
/// A chain that leads to more addresses than this branches by networks.
const MOST_ADDRESSES: usize = 16;
/// The most networks that one chain branches into.
const MOST_NETWORKS: usize = 64;
/// The number of port bits that one chain branches by. Networks are cut at multiples of it.
const STEP: u8 = 4;

/// The rules of one forward at a hook.
#[derive(Debug)]
pub struct ForwardRules {
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
    /// Builds the chains for these rules. Returns the rules that lead to the chains, and the chains. A packet
    /// that no rule of a chain matches returns from it.
    #[must_use]
    pub fn grow(
        hook: Hook,
        parts: Vec<ForwardRules>,
    ) -> (Vec<Rule>, BTreeMap<ChainName, Vec<Rule>>) {
        let made = BTreeMap::new();
        let mut tree = Self { hook, made };
        let rules = tree.top(parts);
        (rules, tree.made)
    }

    fn top(&mut self, mut parts: Vec<ForwardRules>) -> Vec<Rule> {
        parts.sort_by_key(|part| {
            (
                part.protocol,
                part.listen.address,
                part.listen.ports.first(),
            )
        });
        let mut rules = Vec::new();
        for parts in parts.chunk_by(|one, other| one.protocol == other.protocol) {
            let scope = TreeScope {
                protocol: parts[0].protocol,
                net: None,
            };
            let (open, addressed) =
                parts.split_at(parts.partition_point(|part| part.listen.address.is_none()));
            let each = addressed.chunk_by(|one, other| one.listen.address == other.listen.address);
            let each: Vec<(IpNet, &[ForwardRules])> = each
                .filter_map(|parts| Some((parts[0].listen.address?.into(), parts)))
                .collect();
            // These come before the listeners for all addresses, which would take their packets.
            for (net, chain) in self.addresses(scope, &each, self.levels()) {
                let protocol = Some(Match::Protocol(Is(scope.protocol.into())));
                rules.push(self.at_net(net, protocol, Target::Jump(chain)));
            }
            if !open.is_empty() {
                let chain = self.ports(scope, PortBlock::ALL, open);
                let protocol = Match::Protocol(Is(scope.protocol.into()));
                rules.push(Rule::new([protocol], Target::Jump(chain)));
            }
        }
        rules
    }

    /// Builds a chain for the listeners of each address. Many addresses are first divided by their networks,
    /// at most `levels` times.
    fn addresses(
        &mut self,
        within: TreeScope,
        each: &[(IpNet, &[ForwardRules])],
        levels: usize,
    ) -> Vec<(IpNet, ChainName)> {
        let scope = |net| TreeScope {
            net: Some(net),
            ..within
        };
        if levels == 0 || each.len() <= MOST_ADDRESSES {
            let each = each.iter();
            return each
                .map(|(net, parts)| (*net, self.ports(scope(*net), PortBlock::ALL, parts)))
                .collect();
        }
        let open = open_bits(each);
        let mut made = Vec::new();
        for group in networks(each, open) {
            let net = wider(group[0].0, open);
            let all = || group.iter().flat_map(|(_, parts)| parts.iter());
            let rules = if few(all()) {
                all().flat_map(|part| part.rules.iter().cloned()).collect()
            } else {
                let further = self.addresses(scope(net), group, levels - 1).into_iter();
                further
                    .map(|(net, chain)| self.at_net(net, None, Target::Goto(chain)))
                    .collect()
            };
            let name = scope(net).name(self.hook.stem(), PortBlock::ALL);
            made.push((net, self.add(name, rules)));
        }
        made
    }

    /// Builds the chain for listeners of one scope whose ports are all in one block.
    fn ports(&mut self, scope: TreeScope, block: PortBlock, parts: &[ForwardRules]) -> ChainName {
        let mut rules: Vec<Rule> = Vec::new();
        let mut further = Vec::new();
        let few = few(parts);
        let inner = |part: &ForwardRules| block.inner(part.listen.ports).filter(|_| !few);
        for group in parts.chunk_by(|one, other| inner(one) == inner(other)) {
            match inner(&group[0]) {
                // A packet does not come back from a narrower block, so the rules of listeners that
                // span several blocks come first.
                None => rules.extend(group.iter().flat_map(|part| part.rules.iter().cloned())),
                Some(inner) => {
                    let chain = self.ports(scope, inner, group);
                    further.push(self.at_ports(scope.protocol, inner.ports(), Target::Goto(chain)));
                }
            }
        }
        rules.append(&mut further);
        self.add(scope.name(self.hook.stem(), block), rules)
    }

    fn add(&mut self, name: ChainName, rules: Vec<Rule>) -> ChainName {
        self.made.insert(name.clone(), rules);
        name
    }

    /// Returns how many chains of networks may follow one another.
    ///
    /// nft allows 16 chains in a row, the built-in one included (`NFT_JUMP_STACK_SIZE` in
    /// `net/netfilter/nf_tables.h`). Ports may need five of them. In FORWARD a forward's lists may need
    /// six more.
    fn levels(&self) -> usize {
        match self.hook {
            Hook::Passing => 2,
            _ => 6,
        }
    }

    /// Returns whether packets still carry their original destination. After DNAT only conntrack knows it.
    fn before_dnat(&self) -> bool {
        matches!(self.hook, Hook::Arriving | Hook::Sent)
    }

    /// Returns a rule for packets that were sent to an address of this network.
    fn at_net(&self, net: IpNet, protocol: Option<Match>, target: Target) -> Rule {
        if self.before_dnat() {
            return Rule::new(
                [Match::Destination(Is(net))].into_iter().chain(protocol),
                target,
            );
        }
        let sent = Match::Conntrack(Conntrack {
            original_destination: Some(Is(net)),
            ..Conntrack::default()
        });
        Rule::new(protocol.into_iter().chain([sent]), target)
    }

    /// Returns a rule for packets that were sent to one of these ports.
    fn at_ports(&self, protocol: Protocol, ports: PortRange, target: Target) -> Rule {
        if self.before_dnat() {
            return Rule::new(transport(protocol, ports, false), target);
        }
        let sent = Match::Conntrack(Conntrack {
            original_destination_port: Some(Is(ports)),
            ..Conntrack::default()
        });
        Rule::new([sent], target)
    }
}

/// Returns the number of host bits of the networks that divide these addresses: as few as possible, but at
/// most [`MOST_NETWORKS`] networks. Networks can be cut only at fixed places, and only these addresses
/// decide which. So one more address may change the rules that lead to the networks, but not the chains of
/// other networks.
fn open_bits(each: &[(IpNet, &[ForwardRules])]) -> u8 {
    let widest = each[0].0.max_prefix_len() - STEP;
    let mut cuts = (STEP..widest).step_by(STEP.into());
    let cut =
        cuts.find(|open| networks(each, *open).take(MOST_NETWORKS + 1).count() <= MOST_NETWORKS);
    cut.unwrap_or(widest)
}

fn networks<'e, 'p>(
    each: &'e [(IpNet, &'p [ForwardRules])],
    open: u8,
) -> impl Iterator<Item = &'e [(IpNet, &'p [ForwardRules])]> {
    each.chunk_by(move |(one, _), (other, _)| wider(*one, open) == wider(*other, open))
}

fn wider(net: IpNet, open: u8) -> IpNet {
    upto(net, net.max_prefix_len() - open)
}

/// Returns whether one chain may hold all these rules.
fn few<'p>(parts: impl IntoIterator<Item = &'p ForwardRules>) -> bool {
    let rules = parts.into_iter().map(|part| part.rules.len());
    rules.sum::<usize>() <= MOST_RULES
}

/// The protocol and the addresses that the listeners of a chain share.
#[derive(Debug, Clone, Copy)]
struct TreeScope {
    protocol: Protocol,
    /// `None`: they listen on all addresses.
    net: Option<IpNet>,
}

impl TreeScope {
    /// Returns the name of the chain for a scope and a block: `NVACTL-DNAT-TCP-4096-8191`. An address does not
    /// fit in a name, so a digest replaces it.
    fn name(self, stem: &str, block: PortBlock) -> ChainName {
        let ports = match block {
            PortBlock::ALL => String::new(),
            block => format!("-{}", block.ports()),
        };
        let protocol = self.protocol.as_str().to_ascii_uppercase();
        let name = match self.net {
            None => format!("{stem}{protocol}{ports}"),
            Some(net) => format!("{stem}{}", Digest::of([format!("{protocol}-{net}{ports}")])),
        };
        ChainName::from(name.as_str())
    }
}

/// The ports that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PortBlock {
    first: u16,
    /// The number of bits that they share.
    bits: u8,
}

impl PortBlock {
    const ALL: Self = Self { first: 0, bits: 0 };

    fn ports(self) -> PortRange {
        let last = self.first | u16::MAX.checked_shr(u32::from(self.bits)).unwrap_or(0);
        // There is no port 0.
        let port = |number| Port::new(number).unwrap_or(Port::MIN);
        PortRange::new(port(self.first), port(last)).unwrap_or(PortRange::ALL)
    }

    /// Returns the next narrower block that holds all of these ports, if one does.
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Write as _;

    use crate::diff::changes;
    use crate::forwards::{ForwardSet, Layout};
    use crate::net::Family;
    use crate::netfilter::names::{ChainName, TableName};
    use crate::netfilter::rule::Rule;
    use crate::netfilter::ruleset::Ruleset;
    use crate::plan::{Hook, layout, plan_in};
    use crate::yaml;

    fn set_of(listens: impl Iterator<Item = String>) -> ForwardSet {
        let mut text =
            "firewall: {interface: eth0, snat: 10.3.0.4, mss: clamp}\nforwards:\n".to_owned();
        for (n, listen) in listens.enumerate() {
            let _ = writeln!(
                text,
                "- {{name: f-{n}, listen: '{listen}', target: {{pod: '10.224.0.9:80'}}}}"
            );
        }
        yaml::read(text.as_bytes()).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    fn tree_of(set: &ForwardSet) -> Ruleset {
        plan_in(Layout::Tree, set, Family::V4)
    }

    #[test]
    fn each_listener_of_a_list_counts_towards_the_layout() {
        for (count, expected) in [(128, Layout::Flat), (129, Layout::Tree)] {
            let ports: Vec<String> = (0..count).map(|n| (2000 + 2 * n).to_string()).collect();
            let text = format!(
                "firewall: {{interface: eth0, snat: 10.3.0.4}}\nforwards: [{{name: a, listen: [{}], \
                 target: {{ilb: 10.224.0.222}}}}]",
                ports.join(", ")
            );
            let set = yaml::read(text.as_bytes()).expect("it is valid");
            assert_eq!(layout(&set, Family::V4), expected, "{count}");
        }
    }

    #[test]
    fn a_new_address_does_not_change_the_chains_of_other_addresses() {
        let address = |n: u32| format!("10.8.{}.{}:443", n / 250, n % 250);
        let before = tree_of(&set_of((0..2000).map(address)));
        for more in ["10.8.77.7:443", "10.8.3.251:443", "192.0.2.1:443"] {
            let after = tree_of(&set_of((0..2000).map(address).chain([more.to_owned()])));
            let changes = changes(&before, &after);
            let (added, removed) = changes.rule_counts();
            // A network with few addresses holds the rules itself. One with more leads to other chains.
            // The limit on segment sizes is two rules.
            assert!(
                added <= 4 * 6 + 1 && removed <= 4,
                "{more}: {added}, {removed}"
            );
        }
    }

    #[test]
    fn a_new_forward_changes_one_chain_of_each_hook() {
        let before = tree_of(&set_of((0..5000).map(|n| (20_000 + 3 * n).to_string())));
        for more in [20_001, 34_999, 60_000] {
            let listens = (0..5000).map(|n| 20_000 + 3 * n).chain([more]);
            let after = tree_of(&set_of(listens.map(|port| port.to_string())));
            for hook in Hook::ALL {
                let chains = |ruleset: &Ruleset| {
                    let mine = ruleset.tables[&hook.table()].clone();
                    let mine = mine
                        .into_iter()
                        .filter(|(name, _)| Hook::of(name) == Some(hook));
                    mine.collect::<BTreeMap<_, _>>()
                };
                let (before, after) = (chains(&before), chains(&after));
                let changed = after
                    .iter()
                    .filter(|(name, chain)| before.get(*name) != Some(chain));
                // A block that was empty gets a new chain, and another chain gets the rule that leads there.
                assert!(changed.count() <= 2, "{more}");
                assert!(before.keys().all(|name| after.contains_key(name)), "{more}");
            }
        }
    }

    /// Returns how many chains follow one another from this one on.
    fn depth(ruleset: &Ruleset, table: TableName, chain: &ChainName) -> usize {
        let rules = &ruleset.chain(table, chain).expect("it is there").rules;
        let next = rules.iter().filter_map(Rule::leads_to);
        1 + next
            .map(|next| depth(ruleset, table, next))
            .max()
            .unwrap_or(0)
    }

    /// The worst case: networks, ports and lists that branch at every step, and a log chain after them.
    #[test]
    fn the_deepest_tree_is_not_deeper_than_nft_allows() {
        let v6 = |bits: u128| std::net::Ipv6Addr::from(bits);
        let mut text = "firewall: {interface: eth0, snat: {v4: 10.3.0.4, v6: 'fd00::4'}, mss: clamp, layout: tree}\nforwards:\n".to_owned();
        let peeled = (2..27).flat_map(|n| (1..16).map(move |k| v6(0xfd00 << 112 | k << (4 * n))));
        let narrow = (1..40).map(|n| v6(0xfd00 << 112 | n));
        let peeled_nets =
            (0..60).map(|n| format!("'{}/{}'", v6(0xfd01 << 112 | 1 << (100 - n)), 28 + n));
        let narrow_nets = (0..1000).map(|n| format!("'{}/128'", v6(0xfd01 << 112 | n)));
        let lists: Vec<String> = peeled_nets.chain(narrow_nets).collect();
        let pods: Vec<String> = (0..32).map(|n| format!("'[fd00:9::{n:x}]:80'")).collect();
        for (n, address) in peeled.enumerate() {
            let _ = writeln!(
                text,
                "- {{name: p-{n}, listen: '[{address}]:443', target: {{pod: {}}}, deny_from: ['fd01::/64']}}",
                pods[0],
            );
        }
        for (n, address) in narrow.enumerate() {
            let denied = if n == 30 {
                lists.join(", ")
            } else {
                "'fd01::/64'".to_owned()
            };
            for port in [4096, 4097, 4098] {
                let _ = writeln!(
                    text,
                    "- {{name: f-{n}-{port}, listen: '[{address}]:{port}', target: {{pod: [{}]}}, log: true, deny_from: [{denied}]}}",
                    pods.join(", "),
                );
            }
        }
        let set = yaml::read(text.as_bytes()).unwrap_or_else(|problems| panic!("{problems:?}"));
        let tree = plan_in(Layout::Tree, &set, Family::V6);
        for hook in [Hook::Arriving, Hook::Sizing, Hook::Passing, Hook::Leaving] {
            let depth = depth(&tree, hook.table(), &hook.builtin());
            assert!(
                (5..=16).contains(&depth),
                "{depth} chains from {}",
                hook.builtin()
            );
        }
    }
}

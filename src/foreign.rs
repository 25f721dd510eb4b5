//! What other hands have put into a ruleset, as far as it concerns nvactl's forwards.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::line::Line;
use crate::net::{PortRange, Protocol};
use crate::rule::{CtState, Match, Rule, Target};
use crate::ruleset::{ChainName, Policy, Ruleset, TableName};
use crate::spec::{Forward, ForwardSet, Name};

/// A foreign rule that does what a forward of the spec does.
#[derive(Debug, PartialEq, Eq)]
pub struct Rival<'r> {
    pub table: TableName,
    pub chain: &'r ChainName,
    pub rule: &'r Rule,
    /// The forwards it concerns, in the order of the spec.
    pub forwards: Vec<&'r Name>,
}

impl Rival<'_> {
    /// The rule as iptables-save prints it.
    #[must_use]
    pub fn line(&self) -> String {
        Line::Append(self.chain, self.rule).to_string()
    }

    /// The command that takes it out.
    #[must_use]
    pub fn removal(&self) -> String {
        Line::Delete(self.chain, self.rule).as_command(self.table)
    }
}

/// Foreign rules that already forward what the spec forwards, as a person types them by hand or
/// another program writes them: the translation of a listen port, and the ACCEPT and SNAT that go
/// with it. They are nvactl's to name, never to remove.
///
/// A rule counts only by a port it asks for itself, or when it stands in PREROUTING and translates
/// every port: what a chain's caller has asked for is not followed.
#[must_use]
pub fn rivals<'r>(have: &'r Ruleset, set: &'r ForwardSet) -> Vec<Rival<'r>> {
    have.chains()
        .filter(|(_, name, _)| !name.is_own())
        .flat_map(|(table, chain, body)| body.rules.iter().map(move |rule| (table, chain, rule)))
        .filter_map(|(table, chain, rule)| {
            let asked = Asked::of(table, chain, rule)?;
            let concerned = |forward: &&Forward| asked.concerns(forward);
            let forwards: Vec<&Name> = set
                .forwards
                .iter()
                .filter(concerned)
                .map(|forward| &forward.name)
                .collect();
            (!forwards.is_empty()).then_some(Rival {
                table,
                chain,
                rule,
                forwards,
            })
        })
        .collect()
}

/// What a rule asks of a packet, as far as forwards can be told apart by it.
struct Asked {
    does: Does,
    protocol: Option<Protocol>,
    ports: Vec<PortRange>,
    destinations: Vec<Ipv4Net>,
}

enum Does {
    /// Sends packets for a listener elsewhere.
    Translate,
    /// Lets packets on to a target, or hides their source there.
    LetThrough,
}

impl Asked {
    /// `None` when the rule is not of the kind that forwards.
    fn of(table: TableName, chain: &ChainName, rule: &Rule) -> Option<Self> {
        let target = rule.target.as_ref().map_or("", Target::name);
        let does = match (table, chain, target) {
            (TableName::Nat, _, "DNAT" | "REDIRECT") => Does::Translate,
            (TableName::Nat, ChainName::Postrouting, "SNAT" | "MASQUERADE")
            | (TableName::Filter, ChainName::Forward, "ACCEPT") => Does::LetThrough,
            _ => return None,
        };
        let (mut protocol, mut ports, mut destinations) = (None, None, Vec::new());
        for condition in &rule.matches {
            match condition {
                Match::Protocol(asked) => protocol = Some(*asked),
                Match::Tcp { destination, .. } | Match::Udp { destination, .. } => {
                    ports = destination.map(|range| vec![range]).or(ports);
                }
                Match::DestinationPorts(ranges) => ports = Some(ranges.clone()),
                Match::Destination(net) => destinations.push(*net),
                // Somebody else's translated connections: Docker's, for one.
                Match::Conntrack(conntrack) if conntrack.states == [CtState::Dnat] => return None,
                _ => {}
            }
        }
        if ports.is_none() && matches!((&does, chain), (Does::Translate, ChainName::Prerouting)) {
            ports = Some(vec![PortRange::ALL]);
        }
        Some(Self {
            does,
            protocol,
            ports: ports?,
            destinations,
        })
    }

    fn concerns(&self, forward: &Forward) -> bool {
        let asks = |ports: PortRange| self.ports.iter().any(|range| range.overlaps(ports));
        let reaches = |ip: Ipv4Addr| self.destinations.iter().all(|net| net.contains(&ip));
        let listen = forward.listen;
        self.protocol.is_none_or(|asked| asked == forward.protocol)
            && match self.does {
                Does::Translate => asks(listen.ports) && listen.address.is_none_or(reaches),
                // By the listen port too, as the post has it in its first scenario.
                Does::LetThrough => {
                    (asks(forward.ports_behind()) || asks(listen.ports))
                        && reaches(forward.target.address)
                }
            }
    }
}

/// The first rule of a foreign user-defined chain that leads to one of nvactl's chains: while it
/// stands, the kernel refuses to delete that chain.
#[must_use]
pub fn reference(have: &Ruleset) -> Option<(TableName, &ChainName, &Rule)> {
    have.chains()
        .filter(|(_, name, _)| !name.is_own() && !name.is_builtin())
        .flat_map(|(table, name, chain)| chain.rules.iter().map(move |rule| (table, name, rule)))
        .find(|(_, _, rule)| rule.leads_to().is_some_and(ChainName::is_own))
}

/// The first line of a ruleset that is not nvactl's: a rule, a chain, or a policy that drops.
#[must_use]
pub fn first_line(ruleset: &Ruleset) -> Option<String> {
    ruleset
        .chains()
        .filter(|(_, name, _)| !name.is_own())
        .find_map(|(table, name, chain)| {
            let declared = Line::Chain(name, chain.policy).to_string();
            let nvactls_policy = (table, name) == (TableName::Filter, &ChainName::Forward);
            if !name.is_builtin() || (chain.policy == Some(Policy::Drop) && !nvactls_policy) {
                return Some(declared);
            }
            let foreign = |rule: &&Rule| !rule.leads_to().is_some_and(ChainName::is_own);
            let rule = chain.rules.iter().find(foreign)?;
            Some(Line::Append(name, rule).to_string())
        })
}

/// Whether a packet that asks for nothing in particular is forwarded: the policy accepts, and no
/// rule of the chain drops or rejects everything.
#[must_use]
pub fn forwards_everything(ruleset: &Ruleset) -> bool {
    let closes = |rule: &Rule| {
        let target = rule.target.as_ref().map_or("", Target::name);
        rule.matches.is_empty() && matches!(target, "DROP" | "REJECT")
    };
    ruleset.forward_policy() == Policy::Accept
        && !ruleset
            .chain(TableName::Filter, &ChainName::Forward)
            .is_some_and(|chain| chain.rules.iter().any(closes))
}

/// Programs that write their rules anew at each start, by how their chains are named.
const GENERATORS: [(&str, &str); 8] = [
    ("DOCKER", "Docker"),
    ("f2b-", "fail2ban"),
    ("KUBE-", "kube-proxy"),
    ("cali-", "Calico"),
    ("CNI-", "a container network plugin"),
    ("FLANNEL-", "Flannel"),
    ("LIBVIRT_", "libvirt"),
    ("ufw-", "ufw"),
];

/// Programs whose rules are loaded and that make them anew at each start, each with one chain of
/// theirs.
#[must_use]
pub fn generated(ruleset: &Ruleset) -> Vec<(&'static str, &ChainName)> {
    GENERATORS
        .into_iter()
        .filter_map(|(prefix, program)| {
            let mut names = ruleset.chains().map(|(_, name, _)| name);
            let chain = names.find(|name| name.as_str().starts_with(prefix))?;
            Some((program, chain))
        })
        .collect()
}

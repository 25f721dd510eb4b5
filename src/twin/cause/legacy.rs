//! Rules of iptables-legacy that matched. nft cannot trace them, but each has a counter.

use std::collections::BTreeMap;
use std::fs;

use super::error::CauseError;
use super::trace::Stage;
use crate::host::child::ChildError;
use crate::host::iptables::{Iptables, IptablesError};
use crate::net::Family;
use crate::netfilter::backend::Backend;
use crate::netfilter::counters::Counters;
use crate::netfilter::matches::Match;
use crate::netfilter::names::{ChainName, Policy, TableName};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::DEEPEST;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::text::line::Line;
use crate::twin::rules::SHADOW;

/// A rule of iptables-legacy that matched packets, or a policy that drops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountedRule {
    pub stage: Stage,
    pub family: Family,
    pub table: TableName,
    pub chain: ChainName,
    /// The place of the rule in its chain of the twin, counted from 1; `None` for a policy.
    pub place: Option<usize>,
    /// The place in the machine's chain, which lacks the rules that only count.
    pub live_place: Option<usize>,
    /// The rule as iptables-save prints it; a policy as `-P CHAIN DROP`.
    pub text: String,
    /// The name of the rule's target.
    pub target: String,
    /// How many packets matched the rule or reached the policy.
    pub packets: u64,
}

impl CountedRule {
    /// Returns whether no later chain sees the packet.
    #[must_use]
    pub fn takes(&self) -> bool {
        let takers = [
            "DROP", "REJECT", "QUEUE", "NFQUEUE", "TPROXY", "SYNPROXY", "STEAL",
        ];
        takers.contains(&self.target.as_str())
    }

    /// Returns whether it gives a connection another destination or source.
    #[must_use]
    pub fn translates(&self) -> bool {
        let translators = ["DNAT", "REDIRECT", "NETMAP", "SNAT", "MASQUERADE"];
        translators.contains(&self.target.as_str())
    }

    /// Returns whether it ends a search for a translation without one.
    #[must_use]
    pub fn keeps_address(&self) -> bool {
        let ends = match self.target.as_str() {
            "ACCEPT" => true,
            // After a `RETURN` in a built-in chain comes only the policy.
            "RETURN" => self.chain.is_builtin(),
            _ => false,
        };
        self.table == TableName::Nat && ends
    }

    /// Returns whether it exempts a packet from connection tracking.
    #[must_use]
    pub fn untracks(&self) -> bool {
        self.target == "NOTRACK" || (self.target == "CT" && self.text.contains("--notrack"))
    }
}

/// The rules of one family with their counters.
#[derive(Debug)]
pub struct Legacy {
    family: Family,
    ruleset: Ruleset,
    counters: Counters,
    policies: BTreeMap<(TableName, ChainName), u64>,
}

impl Legacy {
    /// Reads the rules of both families. A family without tables in the calling thread's namespace is skipped, since
    /// listing a table would create it.
    pub fn read() -> Result<Vec<Self>, CauseError> {
        let mut read = Vec::new();
        for (family, names) in [
            (Family::V4, "ip_tables_names"),
            (Family::V6, "ip6_tables_names"),
        ] {
            let names = fs::read(format!("/proc/thread-self/net/{names}"));
            if names.unwrap_or_default().is_empty() {
                continue;
            }
            let iptables = Iptables {
                backend: Backend::Legacy,
                lock_wait: 5,
            };
            match iptables.read_counted(family) {
                Ok(live) => read.push(Self {
                    family,
                    policies: live.policy_packets(),
                    ruleset: live.ruleset,
                    counters: live.counters,
                }),
                Err(IptablesError::Child(ChildError::NotFound(_))) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(read)
    }

    /// Returns the rules that counted since `before`, in the order in which a forwarded packet meets them.
    fn counted(&self, before: Option<&Self>) -> Vec<CountedRule> {
        use TableName::{Filter, Mangle, Nat, Raw, Security};
        let mut listing = Lister {
            now: self,
            before,
            listed: Vec::new(),
        };
        for (stage, chain, tables) in [
            (
                Stage::Prerouting,
                ChainName::Prerouting,
                &[Raw, Mangle, Nat][..],
            ),
            (
                Stage::Input,
                ChainName::Input,
                &[Mangle, Filter, Security, Nat],
            ),
            (
                Stage::Forward,
                ChainName::Forward,
                &[Mangle, Filter, Security],
            ),
            (
                Stage::Output,
                ChainName::Output,
                &[Raw, Mangle, Nat, Filter, Security],
            ),
            (Stage::Postrouting, ChainName::Postrouting, &[Mangle, Nat]),
        ] {
            for table in tables {
                listing.chain(stage, *table, &chain, DEEPEST);
            }
        }
        listing.listed
    }
}

/// Returns the rules of both families that counted between two readings.
#[must_use]
pub fn counted(before: &[Legacy], after: &[Legacy]) -> Vec<CountedRule> {
    let counted = after.iter().map(|now| {
        let before = before.iter().find(|before| before.family == now.family);
        now.counted(before)
    });
    counted.flatten().collect()
}

struct Lister<'r> {
    now: &'r Legacy,
    before: Option<&'r Legacy>,
    listed: Vec<CountedRule>,
}

impl Lister<'_> {
    /// Adds the rules of a chain that counted, and those of the chains to which they lead.
    fn chain(&mut self, stage: Stage, table: TableName, name: &ChainName, depth: usize) {
        let Some(chain) = self.now.ruleset.chain(table, name) else {
            return;
        };
        let (now, before) = (
            self.now.counters.of(table, name),
            self.before
                .map_or(&[][..], |before| before.counters.of(table, name)),
        );
        let mut live_place = 0;
        for (at, rule) in chain.rules.iter().enumerate() {
            live_place += usize::from(!is_shadow(rule));
            let count = |counts: &[crate::netfilter::counters::Count]| {
                counts.get(at).map_or(0, |count| count.packets)
            };
            let packets = count(now).saturating_sub(count(before));
            if packets == 0 {
                continue;
            }
            let target = rule.target.as_ref().map(|target| target.name().to_owned());
            self.listed.push(CountedRule {
                stage,
                family: self.now.family,
                table,
                chain: name.clone(),
                place: Some(at + 1),
                live_place: Some(live_place),
                text: Line::Append(name, rule).to_string(),
                target: target.unwrap_or_default(),
                packets,
            });
            if let Some(next) = rule.leads_to().filter(|_| depth > 0) {
                self.chain(stage, table, next, depth - 1);
            }
        }
        let key = (table, name.clone());
        let came = |of: &Legacy| of.policies.get(&key).copied().unwrap_or_default();
        let packets = came(self.now).saturating_sub(self.before.map_or(0, came));
        if chain.policy == Some(Policy::Drop) && name.is_builtin() && packets > 0 {
            self.listed.push(CountedRule {
                stage,
                family: self.now.family,
                table,
                chain: name.clone(),
                place: None,
                live_place: None,
                text: Line::SetPolicy(name, Policy::Drop).to_string(),
                target: Policy::Drop.as_str().to_owned(),
                packets,
            });
        }
    }
}

fn is_shadow(rule: &Rule) -> bool {
    let mut matches = rule.matches.iter();
    matches.any(|one| matches!(one, Match::Comment(text) if text.starts_with(SHADOW)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netfilter::text::parse::parse_counted;

    fn legacy(text: &str) -> Legacy {
        let (ruleset, counters) = parse_counted(text).expect("it is readable");
        Legacy {
            family: Family::V4,
            ruleset,
            counters,
            policies: crate::netfilter::text::parse::policy_packets(text),
        }
    }

    /// A policy that no packet reached has taken none, even if a later rule in another table has.
    #[test]
    fn a_policy_is_listed_only_if_packets_reached_it() {
        let text = |mangle: u8, rule: u8| {
            format!(
                "*mangle\n:FORWARD DROP [{mangle}:60]\n[9:9] -A FORWARD -i eth0 -j ACCEPT\nCOMMIT\n\
                 *filter\n:FORWARD ACCEPT [0:0]\n[{rule}:60] -A FORWARD -p tcp -j DROP\nCOMMIT\n"
            )
        };
        let before = legacy(&text(1, 1));
        for (after, named) in [
            (text(1, 2), &["-A FORWARD -p tcp -j DROP"][..]),
            (text(2, 1), &["-P FORWARD DROP"]),
        ] {
            let counted = legacy(&after).counted(Some(&before));
            let taking = counted.iter().filter(|one| one.takes());
            let texts: Vec<&str> = taking.map(|one| one.text.as_str()).collect();
            assert_eq!(texts, named);
        }
    }
}

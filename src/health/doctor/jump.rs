//! Checks nvactl's jumps from the built-in chains: whether each is loaded, and packets reach it.

use std::fmt::Display;

use super::{Case, Check, Hop, Status};
use crate::net::Family;
use crate::netfilter::backend::iptables as plain;
use crate::netfilter::names::{ChainName, Policy, TableName};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::{Chain, Ruleset};
use crate::netfilter::text::line::Line;

/// Reports for each jump from a built-in chain whether it is loaded and packets reach it.
pub fn check(case: &Case<'_>, planned: &Ruleset, checks: &mut Vec<Check>) {
    for (table, name, chain) in planned.chains().filter(|(_, name, _)| name.is_builtin()) {
        for rule in &chain.rules {
            let jump = Jump {
                family: case.family,
                table,
                name,
                rule,
            };
            let check = jump.judged(case.facts.live.chain(table, name));
            let is_ok = check.status == Status::Ok;
            checks.push(if is_ok {
                check
            } else {
                check.fix(case.apply.as_str())
            });
        }
    }
}

/// A jump of nvactl from a built-in chain.
#[derive(Clone, Copy)]
struct Jump<'j> {
    family: Family,
    table: TableName,
    name: &'j ChainName,
    rule: &'j Rule,
}

impl Jump<'_> {
    /// Judges the jump by the loaded chain.
    fn judged(self, live: Option<&Chain>) -> Check {
        let Self {
            family,
            table,
            name,
            rule,
        } = self;
        // Packets are forwarded even if the jump in mangle is missing.
        let hop = match table {
            TableName::Mangle => Hop::MssRule,
            _ => Hop::Jump,
        };
        let rules = live.map_or(&[][..], |chain| chain.rules.as_slice());
        let (place, words) = (of_table(family, table), Line::Append(name, rule));
        let Some(before) = rules.iter().position(|one| one == rule) else {
            return hop.fail(format!(
                "{place}: `{words}` is missing, so no packet reaches that chain"
            ));
        };
        let mut each = rules[..before].iter();
        if let Some((rule, stop)) = each.find_map(|one| Some((one, one.stop()?))) {
            let is_drop = live.and_then(|chain| chain.policy) == Some(Policy::Drop);
            let policy = if is_drop {
                ", and the policy DROP has no effect"
            } else {
                ""
            };
            return hop.warn(format!(
                "{place}: `{}` is before nvactl's jump and {} every packet: no packet reaches nvactl's \
                 rules{policy}",
                Line::Append(name, rule),
                stop.verb()
            ));
        }
        if rules.iter().filter(|one| *one == rule).count() > 1 {
            return hop.warn(format!("nvactl's jump is there twice in {place} {name}"));
        }
        hop.ok(match before {
            0 => format!("{place}: `{words}` is first"),
            1 => format!("{place}: `{words}` is after another program's rule"),
            more => format!("{place}: `{words}` is after {more} of other programs' rules"),
        })
    }
}

/// Names a table with its program, which differs between the families.
pub fn of_table(family: Family, table: impl Display) -> String {
    format!("{} {table}", plain(family))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netfilter::text::parse::parse;

    #[test]
    fn a_jump_that_packets_do_not_reach_is_named_with_its_family() {
        let jump = "-A FORWARD -j NVACTL-FORWARD";
        let one = "-A FORWARD -p tcp -j DROP";
        let all = "-A FORWARD -j ACCEPT";
        for (policy, rules, said) in [
            (
                "DROP",
                &[one][..],
                "fail: ip6tables filter: `-A FORWARD -j NVACTL-FORWARD` is missing, so no packet reaches that chain",
            ),
            (
                "DROP",
                &[jump, all],
                "ok: ip6tables filter: `-A FORWARD -j NVACTL-FORWARD` is first",
            ),
            (
                "DROP",
                &[one, jump],
                "ok: ip6tables filter: `-A FORWARD -j NVACTL-FORWARD` is after another program's rule",
            ),
            (
                "DROP",
                &[all, jump],
                "warn: ip6tables filter: `-A FORWARD -j ACCEPT` is before nvactl's jump and accepts every packet: no packet reaches nvactl's rules, and the policy DROP has no effect",
            ),
            (
                "ACCEPT",
                &[one, all, jump],
                "warn: ip6tables filter: `-A FORWARD -j ACCEPT` is before nvactl's jump and accepts every packet: no packet reaches nvactl's rules",
            ),
            (
                "ACCEPT",
                &[jump, jump],
                "warn: nvactl's jump is there twice in ip6tables filter FORWARD",
            ),
        ] {
            let rules = rules.join("\n");
            let text = format!(
                "*filter\n:FORWARD {policy} [0:0]\n:NVACTL-FORWARD - [0:0]\n{rules}\nCOMMIT\n"
            );
            let live = parse(&text).expect("it is readable");
            let planned = parse(&format!(
                "*filter\n:NVACTL-FORWARD - [0:0]\n{jump}\nCOMMIT\n"
            ));
            let planned = planned.expect("it is readable");
            let name = &ChainName::Forward;
            let chain = planned.chain(TableName::Filter, name).expect("it is there");
            let jump = Jump {
                family: Family::V6,
                table: TableName::Filter,
                name,
                rule: &chain.rules[0],
            };
            let check = jump.judged(live.chain(TableName::Filter, name));
            assert_eq!(format!("{}: {}", check.status.word(), check.reason), said);
        }
    }
}

//! Rules of others that write the mark bit of a tree's short cut (`plan`'s `marked`). Each is reported, whether or
//! not packets reach it.

use crate::host::nft_mark::NftRule;
use crate::netfilter::mark::Mark;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::target::Target;
use crate::netfilter::text::line::Line;
use crate::plan::{MARKED, OF_MARKED};

/// A rule of others that writes the bit, in words.
#[derive(Debug, PartialEq, Eq)]
pub struct Writer {
    /// The rule, its place, and the purpose of the bit.
    pub told: String,
    pub fix: String,
}

/// Whether a plan, or live rules, have the short cut.
#[must_use]
pub fn is_used(own: &Ruleset) -> bool {
    let of_marked = own.chain(TableName::Nat, &ChainName::from(OF_MARKED));
    of_marked.is_some_and(|chain| !chain.rules.is_empty())
}

/// Returns the rules of others in a ruleset that write the bit. `program` is the iptables that loaded the rules.
#[must_use]
pub fn writers(rules: &Ruleset, program: &str) -> Vec<Writer> {
    let others = rules.chains().filter(|(_, name, _)| !name.is_own());
    let each = others
        .flat_map(|(table, name, chain)| chain.rules.iter().map(move |rule| (table, name, rule)));
    let writing = each.filter(|(_, _, rule)| writes(rule));
    let writers = writing.map(|(table, name, rule)| {
        let line = Line::Append(name, rule);
        let instead = without_bit(rule).map(|target| format!(": {target}"));
        Writer {
            told: format!(
                "another program's rule in {program} {table} {}: {line}",
                purpose()
            ),
            fix: fix(&instead.unwrap_or_default()),
        }
    });
    writers.collect()
}

/// Returns the words about nft's own rule.
#[must_use]
pub fn of_nft(rule: &NftRule) -> Writer {
    let NftRule {
        family,
        table,
        chain,
        handle,
    } = rule;
    let look = format!("; to look: sudo nft -a list chain {family} {table} {chain}");
    Writer {
        told: format!(
            "the rule with handle {handle} in the nft chain {family} {table} {chain} {}",
            purpose()
        ),
        fix: fix(&look),
    }
}

fn purpose() -> String {
    format!(
        "sets bit {:#x} of the connection mark, which nvactl uses to skip a forward's own rules: connections \
         with that bit skip deny lists, limits and `snat`",
        MARKED.value
    )
}

fn fix(how: &str) -> String {
    format!(
        "write `firewall.layout: flat` into the spec, or change that rule so that it leaves the bit alone{how}"
    )
}

fn writes(rule: &Rule) -> bool {
    match &rule.target {
        // The kernel clears the bits of the mask and toggles those of the value
        // (`net/netfilter/xt_connmark.c`).
        Some(Target::SetConnmark(Mark { value, mask })) => (value | mask) & MARKED.mask != 0,
        // A bit that was at another place comes to this one.
        Some(Target::SetShiftedConnmark { .. }) => true,
        Some(Target::SaveMark(copy)) => copy.writes_connection(MARKED.mask),
        _ => false,
    }
}

/// Returns the target with which the rule leaves the bit alone.
fn without_bit(rule: &Rule) -> Option<Target> {
    let Some(Target::SetConnmark(Mark { value, mask })) = rule.target else {
        return None;
    };
    Some(Target::SetConnmark(Mark {
        value: value & !MARKED.mask,
        mask: mask & !MARKED.mask,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netfilter::text::parse::parse;

    /// Rules as iptables 1.8.9 prints them, whether they are named, and what leaves the bit alone.
    const CASES: &[(&str, bool, &str)] = &[
        // --set-mark 0x10000001
        (
            "-A FORWARD -j CONNMARK --set-xmark 0x10000001/0xffffffff",
            true,
            "--set-xmark 0x1/0xefffffff",
        ),
        // --xor-mark 0x10000000
        (
            "-A POSTROUTING -j CONNMARK --set-xmark 0x10000000/0x0",
            true,
            "--set-xmark 0x0/0x0",
        ),
        // --set-mark 0x1
        (
            "-A OUTPUT -p icmp -j CONNMARK --set-xmark 0x1/0xffffffff",
            true,
            "--set-xmark 0x1/0xefffffff",
        ),
        ("-A FORWARD -j CONNMARK --set-xmark 0x1/0xff", false, ""),
        (
            "-A FORWARD -j CONNMARK --set-xmark 0x2000000/0x2000000 --left-shift-mark 3",
            true,
            "",
        ),
        (
            "-A FORWARD -j CONNMARK --set-xmark 0x80000000/0x80000000 --right-shift-mark 3",
            true,
            "",
        ),
        // It moves a bit that another rule has set.
        (
            "-A FORWARD -j CONNMARK --set-xmark 0x0/0x0 --left-shift-mark 1",
            true,
            "",
        ),
        (
            "-A MINE -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff",
            true,
            "",
        ),
        (
            "-A MINE -j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff",
            false,
            "",
        ),
        (
            "-A MINE -j CONNMARK --save-mark --nfmask 0x1000001 --ctmask 0xff --left-shift-mark 4",
            true,
            "",
        ),
        // It writes the packet's mark.
        (
            "-A FORWARD -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff",
            false,
            "",
        ),
        (
            "-A FORWARD -j MARK --set-xmark 0x10000000/0xffffffff",
            false,
            "",
        ),
        (
            "-A NVACTL-PREROUTING -j CONNMARK --set-xmark 0x10000000/0x10000000",
            false,
            "",
        ),
    ];

    #[test]
    fn a_rule_that_writes_the_bit_is_named_wherever_it_stands() {
        for (rule, is_named, instead) in CASES {
            let rules = format!("*mangle\n:MINE - [0:0]\n{rule}\nCOMMIT\n");
            let rules = parse(&rules).expect("it is readable");
            let found = writers(&rules, "iptables");
            assert_eq!(found.len(), usize::from(*is_named), "{rule}");
            if let [one] = found.as_slice() {
                let begin = "another program's rule in iptables mangle sets bit 0x10000000";
                assert!(one.told.starts_with(begin), "{one:?}");
                assert!(one.told.ends_with(rule), "{one:?}");
                assert!(one.fix.contains("firewall.layout: flat"), "{one:?}");
                assert!(one.fix.contains(instead), "{one:?}");
            }
        }
    }

    #[test]
    fn a_plan_without_the_chain_of_marked_packets_has_no_short_cut() {
        let tree = "*nat\n:NVACTL-MARKED - [0:0]\n-A NVACTL-MARKED -j CONNMARK --set-xmark 0x0/0x10000000\nCOMMIT\n";
        assert!(is_used(&parse(tree).expect("it is readable")));
        assert!(!is_used(&Ruleset::default()));
    }

    #[test]
    fn a_rule_of_nft_is_named_with_its_place() {
        let told = of_nft(&NftRule {
            family: "inet".into(),
            table: "shop".into(),
            chain: "passing".into(),
            handle: 3,
        });
        let place = "the rule with handle 3 in the nft chain inet shop passing sets bit 0x10000000";
        assert!(told.told.starts_with(place), "{told:?}");
    }
}

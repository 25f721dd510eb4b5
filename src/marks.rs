//! Foreign rules, of either backend or nft's own, that can give a connection nvactl's own mark behind
//! the rules that take it off.
//!
//! In a tree it is that mark by which a packet passes by the forwards' own rules (`plan`'s `marked`).
//! What overwrites it with another costs the short cut only; what sets it lets packets take it that
//! must not.

use std::collections::{BTreeMap, BTreeSet};

use crate::line::Line;
use crate::native::NativeChain;
use crate::plan::{MARKED, OF_MARKED};
use crate::rule::{Conntrack, CtState, Mark, Match, Rule, Target};
use crate::ruleset::{Chain, ChainName, Ruleset, TableName};
use crate::token::Token;

/// A foreign rule that sets nvactl's bit of a connection's mark, or may.
#[derive(Debug, PartialEq, Eq)]
pub struct Marking<'r> {
    pub table: TableName,
    pub chain: &'r ChainName,
    pub rule: &'r Rule,
    /// Whether the bit is set whatever the packet is; else only if the packet's own mark has it, or
    /// for some connections.
    pub certain: bool,
    /// The same without nvactl's bit.
    instead: Target,
}

impl Marking<'_> {
    /// What it does to nvactl's forwards. `program` is the iptables that has the rule.
    #[must_use]
    pub fn told(&self, program: &str) -> String {
        let line = Line::Append(self.chain, self.rule);
        let sets = if self.certain { "sets" } else { "may set" };
        let table = self.table;
        format!(
            "a rule in {program}'s table {table} that is not nvactl's {}: {line}",
            danger(sets)
        )
    }

    /// The two ways out.
    #[must_use]
    pub fn ways_out(&self) -> String {
        let instead = &self.instead;
        format!(
            "let it leave that bit alone: `{instead}`; or write `firewall.layout: flat` into the spec"
        )
    }
}

/// What a chain of nft's own does to nvactl's forwards, where one of its rules may set the bit.
#[must_use]
pub fn told_of_native(chain: &NativeChain) -> String {
    format!("the nft chain {} {}", chain.named(), danger("may set"))
}

/// The two ways out of that.
#[must_use]
pub fn ways_out_of_native(chain: &NativeChain) -> String {
    format!(
        "let it leave that bit alone, or write `firewall.layout: flat` into the spec; to look: sudo nft \
         list chain {}",
        chain.named()
    )
}

fn danger(sets: &str) -> String {
    format!(
        "{sets} nvactl's bit {:#x} of a connection's mark, and connections that have it pass by the \
         deny lists, limits and `snat` of forwards",
        MARKED.value
    )
}

/// Whether nvactl's rules, planned or live, go by the mark at all.
#[must_use]
pub fn used(own: &Ruleset) -> bool {
    let of_marked = own.chain(TableName::Nat, &ChainName::from(OF_MARKED));
    of_marked.is_some_and(|chain| !chain.rules.is_empty())
}

/// The foreign rules that can set it, where nvactl's rules are as in `own`, planned or live.
///
/// Of the hooks that a forwarded packet meets, only the table raw cannot: it comes before connections
/// are known.
#[must_use]
pub fn marking<'r>(have: &'r Ruleset, own: &Ruleset) -> Vec<Marking<'r>> {
    if !used(own) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (table, chains) in &have.tables {
        let table = *table;
        let from = |builtin: &[ChainName]| reached(chains, builtin);
        let arriving = from(&[ChainName::Prerouting]);
        let mut behind = from(&[ChainName::Forward, ChainName::Postrouting]);
        match table {
            TableName::Raw => continue,
            TableName::Mangle => {}
            _ => behind.extend(&arriving),
        }
        for (chain, body) in chains {
            // nvactl's own rules come behind and decide anew, but for a connection whose first packet
            // has passed and that nobody has answered: nat does not see what follows, and it is still
            // NEW.
            let before = !behind.contains(chain);
            if chain.is_own() || (before && !arriving.contains(chain)) {
                continue;
            }
            for rule in body.rules.iter().filter(|rule| can_be_a_first(rule)) {
                let (certain, instead) = match &rule.target {
                    Some(Target::SetConnmark(mark)) if has_bit(mark.value) => (
                        !before && chain.is_builtin() && concerns_all(rule),
                        Target::SetConnmark(without_bit(*mark)),
                    ),
                    // Here it is how machines with several ways out remember which a connection takes.
                    Some(Target::Other(words)) if !before && !marked_otherwise(rule) => {
                        match saved_without_bit(words) {
                            Some(instead) => (false, instead),
                            None => continue,
                        }
                    }
                    _ => continue,
                };
                found.push(Marking {
                    table,
                    chain,
                    rule,
                    certain,
                    instead,
                });
            }
        }
    }
    found
}

/// The chains that a packet may come to from these.
fn reached<'r>(
    chains: &'r BTreeMap<ChainName, Chain>,
    from: &[ChainName],
) -> BTreeSet<&'r ChainName> {
    let mut found = BTreeSet::new();
    let name = |name| chains.get_key_value(name).map(|(name, _)| name);
    let mut next: Vec<&ChainName> = from.iter().filter_map(name).collect();
    while let Some(chain) = next.pop() {
        if found.insert(chain) {
            let leads_to = chains[chain].rules.iter().filter_map(Rule::leads_to);
            next.extend(leads_to.filter_map(name));
        }
    }
    found
}

/// Whether a rule can be for the first packets of a forward, which is of tcp or udp: later ones take
/// no short cut.
fn can_be_a_first(rule: &Rule) -> bool {
    let other = |condition: &Match| match condition {
        Match::Other(words) => {
            let spelled: Vec<&str> = words.iter().map(Token::spelled).collect();
            matches!(spelled.as_slice(), ["-p", protocol] if !["tcp", "udp", "all"].contains(protocol))
        }
        Match::Conntrack(Conntrack { states, .. }) => {
            let later = [CtState::Related, CtState::Established];
            !states.is_empty() && states.iter().all(|state| later.contains(state))
        }
        _ => false,
    };
    !rule.matches.iter().any(other)
}

/// Whether it is for all connections, or all of a protocol.
fn concerns_all(rule: &Rule) -> bool {
    let mut conditions = rule.matches.iter();
    conditions.all(|condition| matches!(condition, Match::Protocol(_)))
}

fn has_bit(bits: u32) -> bool {
    bits & MARKED.mask != 0
}

fn without_bit(Mark { value, mask }: Mark) -> Mark {
    Mark {
        value: value & !MARKED.mask,
        mask: mask & !MARKED.mask,
    }
}

/// `CONNMARK --save-mark` that can save nvactl's bit, as it would be without that bit. The kernel
/// clears what is in the connection's mask, then toggles what the packet's mark has of the other
/// (`net/netfilter/xt_connmark.c`): the latter is what can set the bit.
fn saved_without_bit(words: &[Token]) -> Option<Target> {
    let spelled: Vec<&str> = words.iter().map(Token::spelled).collect();
    let [
        "CONNMARK",
        "--save-mark",
        "--nfmask",
        of_packet,
        "--ctmask",
        of_connection,
        shift @ ..,
    ] = spelled.as_slice()
    else {
        return None;
    };
    // Where the bit comes from: the packet's mark is shifted before it is saved.
    let bit = match shift {
        ["--left-shift-mark", by] => MARKED.mask.checked_shr(by.parse().ok()?)?,
        ["--right-shift-mark", by] => MARKED.mask.checked_shl(by.parse().ok()?)?,
        _ => MARKED.mask,
    };
    let (of_packet, of_connection) = (read(of_packet)?, read(of_connection)?);
    let masks = [of_packet & !bit, of_connection & !MARKED.mask].map(|mask| format!("{mask:#x}"));
    let mut instead = words.to_vec();
    instead[3] = Token::from(masks[0].as_str());
    instead[5] = Token::from(masks[1].as_str());
    (of_packet & bit != 0).then_some(Target::Other(instead))
}

/// Whether a rule is for packets alone whose own mark does not have the bit, as those of `wg-quick`.
fn marked_otherwise(rule: &Rule) -> bool {
    rule.matches.iter().any(|condition| {
        let Match::Other(words) = condition else {
            return false;
        };
        let spelled: Vec<&str> = words.iter().map(Token::spelled).collect();
        let ["-m", "mark", "--mark", asked] = spelled.as_slice() else {
            return false;
        };
        let (value, mask) = asked.split_once('/').unwrap_or((asked, "0xffffffff"));
        let bits = read(value).zip(read(mask));
        bits.is_some_and(|(value, mask)| has_bit(mask) && !has_bit(value))
    })
}

/// `0x1`, as iptables-save prints it.
fn read(bits: &str) -> Option<u32> {
    u32::from_str_radix(bits.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    /// A table, rules of it as iptables 1.8.9 gives them back, and what is named: whether it is certain,
    /// and what would leave the bit alone.
    type Case = (&'static str, &'static str, Option<(bool, &'static str)>);
    const CASES: &[Case] = &[
        // --set-mark 0x10000001
        (
            "mangle",
            "-A FORWARD -j CONNMARK --set-xmark 0x10000001/0xffffffff",
            Some((true, "-j CONNMARK --set-xmark 0x1/0xefffffff")),
        ),
        // --xor-mark 0x10000000
        (
            "mangle",
            "-A POSTROUTING -j CONNMARK --set-xmark 0x10000000/0x0",
            Some((true, "-j CONNMARK --set-xmark 0x0/0x0")),
        ),
        (
            "nat",
            "-A PREROUTING -p tcp -j CONNMARK --set-xmark 0x10000000/0x10000000",
            Some((true, "-j CONNMARK --set-xmark 0x0/0x0")),
        ),
        (
            "mangle",
            "-A PREROUTING -j CONNMARK --set-xmark 0x10000001/0xffffffff",
            Some((false, "-j CONNMARK --set-xmark 0x1/0xefffffff")),
        ),
        (
            "mangle",
            "-A POSTROUTING -p tcp -g MINE\n-A MINE -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff",
            Some((
                false,
                "-j CONNMARK --save-mark --nfmask 0xefffffff --ctmask 0xefffffff",
            )),
        ),
        (
            "mangle",
            "-A FORWARD -j CONNMARK --save-mark --nfmask 0x1000001 --ctmask 0xff --left-shift-mark 4",
            Some((
                false,
                "-j CONNMARK --save-mark --nfmask 0x1 --ctmask 0xff --left-shift-mark 4",
            )),
        ),
        // For some connections only.
        (
            "mangle",
            "-A FORWARD -d 192.0.2.1/32 -j CONNMARK --set-xmark 0x10000000/0xffffffff",
            Some((false, "-j CONNMARK --set-xmark 0x0/0xefffffff")),
        ),
        (
            "mangle",
            "-A FORWARD -s 192.0.2.1/32 -j MINE\n-A MINE -j CONNMARK --set-xmark 0x10000000/0xffffffff",
            Some((false, "-j CONNMARK --set-xmark 0x0/0xefffffff")),
        ),
        // Where no first packet of a forward comes.
        (
            "mangle",
            "-A FORWARD -p icmp -j CONNMARK --set-xmark 0x10000000/0xffffffff",
            None,
        ),
        (
            "mangle",
            "-A POSTROUTING -m conntrack --ctstate RELATED,ESTABLISHED -j CONNMARK --set-xmark 0x10000000/0xffffffff",
            None,
        ),
        (
            "mangle",
            "-A OUTPUT -j MINE\n-A MINE -j CONNMARK --set-xmark 0x10000000/0xffffffff",
            None,
        ),
        (
            "mangle",
            "-A PREROUTING -j MINE\n-A MINE -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff",
            None,
        ),
        // What clears it, or leaves it alone; where no forwarded connection is.
        (
            "mangle",
            "-A FORWARD -j CONNMARK --set-xmark 0x1/0xffffffff",
            None,
        ),
        (
            "mangle",
            "-A FORWARD -j CONNMARK --save-mark --nfmask 0xff --ctmask 0xffffffff",
            None,
        ),
        (
            "mangle",
            "-A FORWARD -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff",
            None,
        ),
        (
            "mangle",
            "-A POSTROUTING -p udp -m mark --mark 0xca6c -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff",
            None,
        ),
        (
            "mangle",
            "-A PREROUTING -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff",
            None,
        ),
        (
            "mangle",
            "-A OUTPUT -j CONNMARK --set-xmark 0x10000001/0xffffffff",
            None,
        ),
        (
            "raw",
            "-A PREROUTING -j CONNMARK --set-xmark 0x10000001/0xffffffff",
            None,
        ),
        (
            "nat",
            "-A NVACTL-PREROUTING -j CONNMARK --set-xmark 0x10000000/0x10000000",
            None,
        ),
    ];

    #[test]
    fn what_can_set_the_bit_is_named_with_what_would_not() {
        let own = "*nat\n:NVACTL-MARKED - [0:0]\n-A NVACTL-MARKED -j CONNMARK --set-xmark 0x0/0x10000000\nCOMMIT\n";
        let own = parse(own).expect("it is readable");
        for (table, rule, found) in CASES {
            let have = parse(&format!("*{table}\n:MINE - [0:0]\n{rule}\nCOMMIT\n"))
                .expect("it is readable");
            let told: Vec<_> = marking(&have, &own)
                .iter()
                .map(|one| (one.certain, one.instead.to_string()))
                .collect();
            let found: Vec<_> = found
                .iter()
                .map(|(certain, instead)| (*certain, (*instead).to_owned()))
                .collect();
            assert_eq!(told, found, "{rule}");
            assert_eq!(marking(&have, &Ruleset::default()), [], "{rule}");
        }
    }
}

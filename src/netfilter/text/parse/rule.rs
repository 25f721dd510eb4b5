//! Reads the words of one rule: where each match begins, and the target. Options without a type are kept
//! word for word.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::matches::{parsed, read_hex, read_mark, read_match, tokens};
use crate::netfilter::mark::{BitShift, MarkCopy};
use crate::netfilter::matches::Match;
use crate::netfilter::names::ChainName;
use crate::netfilter::rule::Rule;
use crate::netfilter::target::{DEFAULT_LEVEL, DnatPorts, Mss, RejectWith, Target};
use crate::netfilter::token::{Token, value};

/// Reads the words of a rule, spelled as iptables-save prints them. A jump to a chain that is not in `chains` is read
/// as a target of that name.
pub(in crate::netfilter::text) fn read_rule(words: &[&str], chains: &BTreeSet<ChainName>) -> Rule {
    let mut rule = Rule {
        // As many as most rules of a plan have, so that the vector seldom grows.
        matches: Vec::with_capacity(6),
        target: None,
    };
    let mut rest = words;
    while let Some(first) = rest.first() {
        if let Some(target) = read_target(first, &rest[1..], chains) {
            rule.target = Some(target);
            break;
        }
        let (words, after) = rest.split_at(match_len(rest));
        rest = after;
        rule.matches
            .push(read_match(words).unwrap_or_else(|| Match::Other(tokens(words))));
    }
    rule
}

/// Options whose value may be any word, one that looks like an option included: iptables-save prints it
/// without quotes if it has no odd byte.
const WITH_ANY_TEXT: [&str; 18] = [
    "--comment",
    "--helper",
    "--match-set",
    "--physdev-in",
    "--physdev-out",
    "--path",
    "--nfacct-name",
    "--rateest",
    "--rateest1",
    "--rateest2",
    "--log-prefix",
    "--nflog-prefix",
    "--ulog-prefix",
    "--string",
    "--hex-string",
    "--name",
    "--hashlimit-name",
    "--type",
];

/// Returns how many words the match at the front takes: up to the next one, or to the target.
fn match_len(words: &[&str]) -> usize {
    let begins = |at: usize| {
        let option = |at: usize| words.get(at).copied().unwrap_or_default();
        let negated = usize::from(option(at) == "!");
        matches!(
            option(at + negated),
            "-s" | "-d" | "-i" | "-o" | "-p" | "-m" | "-j" | "-g" | "-f" | "-c"
        )
    };
    // The first option begins this match, negated or not.
    let mut at = if words[0] == "!" { 2 } else { 1 };
    // The name of an interface may be any word.
    at += usize::from(matches!(words.get(at - 1), Some(&("-i" | "-o"))));
    while at < words.len() && !begins(at) {
        let word = words[at];
        let has_text = word.starts_with("--") && WITH_ANY_TEXT.contains(&word);
        at += if has_text { 2 } else { 1 };
    }
    at.min(words.len())
}

fn read_target(option: &str, words: &[&str], chains: &BTreeSet<ChainName>) -> Option<Target> {
    let (name, options) = words.split_first()?;
    let chain = || ChainName::from(*name);
    let is_chain = |chain: &ChainName| chains.contains(chain) || chain.is_own();
    match (option, *name, options) {
        ("-g", _, []) => Some(Target::Goto(chain())),
        ("-j", _, []) if is_chain(&chain()) => Some(Target::Jump(chain())),
        ("-j", "ACCEPT", []) => Some(Target::Accept),
        ("-j", "DROP", []) => Some(Target::Drop),
        ("-j", "RETURN", []) => Some(Target::Return),
        ("-j", "MASQUERADE", []) => Some(Target::Masquerade),
        ("-j", name, options) => {
            let known = read_extension(name, options);
            Some(known.unwrap_or_else(|| Target::Other(tokens(words))))
        }
        _ => None,
    }
}

/// Reads a target with options, if all of them have a type.
fn read_extension(name: &str, options: &[&str]) -> Option<Target> {
    Some(match (name, options) {
        ("SNAT", ["--to-source", addresses, options @ ..]) => Target::Snat {
            addresses: parsed(addresses)?,
            persistent: match options {
                [] => false,
                ["--persistent"] => true,
                _ => return None,
            },
        },
        ("DNAT", ["--to-destination", to]) => read_dnat(to)?,
        ("REJECT", ["--reject-with", with]) => {
            let (with, _) = RejectWith::ALL.iter().find(|(_, word)| word == with)?;
            Target::Reject(*with)
        }
        ("MARK", ["--set-xmark", mark]) => Target::SetMark(read_mark(mark)?),
        ("CONNMARK", ["--set-xmark", mark]) => Target::SetConnmark(read_mark(mark)?),
        ("CONNMARK", ["--set-xmark", mark, option, by]) => Target::SetShiftedConnmark {
            mark: read_mark(mark)?,
            shift: read_shift(option, by)?,
        },
        ("CONNMARK", ["--save-mark", options @ ..]) => Target::SaveMark(read_copy(options)?),
        ("CONNMARK", ["--restore-mark", options @ ..]) => Target::RestoreMark(read_copy(options)?),
        ("TCPMSS", ["--clamp-mss-to-pmtu"]) => Target::TcpMss(Mss::Clamp),
        ("TCPMSS", ["--set-mss", bytes]) => Target::TcpMss(Mss::Bytes(parsed(bytes)?)),
        ("LOG", ["--log-prefix", prefix, level @ ..]) => Target::Log {
            prefix: value(prefix).into(),
            level: match level {
                [] => DEFAULT_LEVEL,
                ["--log-level", level] => parsed(level)?,
                _ => return None,
            },
        },
        _ => return None,
    })
}

/// Reads the options of a copy of marks. iptables-save prints both masks; without them all bits are copied.
fn read_copy(options: &[&str]) -> Option<MarkCopy> {
    let (packet_bits, connection_bits, shift) = match options {
        ["--nfmask", packet, "--ctmask", connection, shift @ ..] => {
            (read_hex(packet)?, read_hex(connection)?, shift)
        }
        shift => (u32::MAX, u32::MAX, shift),
    };
    Some(MarkCopy {
        packet_bits,
        connection_bits,
        shift: match shift {
            [] => None,
            [option, by] => Some(read_shift(option, by)?),
            _ => return None,
        },
    })
}

fn read_shift(option: &str, by: &str) -> Option<BitShift> {
    match option {
        "--left-shift-mark" => Some(BitShift::Left(parsed(by)?)),
        "--right-shift-mark" => Some(BitShift::Right(parsed(by)?)),
        _ => None,
    }
}

/// Reads `A`, `A:P` or `A:P-P/BASE`, IPv6 in brackets if a port follows. Other forms have no type.
fn read_dnat(to: &str) -> Option<Target> {
    if let Ok(address) = to.parse() {
        return Some(Target::Dnat {
            address,
            ports: DnatPorts::Kept,
        });
    }
    let (address, ports) = match to.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once("]:")?,
        None => to.split_once(':')?,
    };
    let ports = match ports.split_once('/') {
        None => DnatPorts::One(ports.parse().ok()?),
        Some((to, base)) => DnatPorts::Shifted {
            to: to.parse().ok()?,
            base: base.parse().ok()?,
        },
    };
    Some(Target::Dnat {
        address: address.parse().ok()?,
        ports,
    })
}

/// Returns the first address to which a target redirects packets.
#[must_use]
pub fn first_destination(target: &Target) -> Option<IpAddr> {
    match target {
        Target::Dnat { address, .. } => Some(*address),
        Target::Other(words) => first_address(words, "--to-destination"),
        _ => None,
    }
}

/// Returns the first source that a target gives packets.
#[must_use]
pub fn first_source(target: &Target) -> Option<IpAddr> {
    match target {
        Target::Snat { addresses, .. } => Some(addresses.first()),
        Target::Other(words) => first_address(words, "--to-source"),
        _ => None,
    }
}

/// Returns the first address of an option's value, such as `10.0.0.8-10.0.0.9:80` or `[fd00::8]-[fd00::9]:80`.
fn first_address(words: &[Token], option: &str) -> Option<IpAddr> {
    let mut words = words.iter().map(Token::spelled);
    words.find(|word| *word == option)?;
    let first = words.next()?.split('-').next()?;
    let bare = first.trim_start_matches('[').split(']').next()?;
    let before_port = first.rsplit_once(':').map_or(first, |(address, _)| address);
    bare.parse().or_else(|_| before_port.parse()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_targets_begins_with_its_first() {
        for (value, address) in [
            ("10.0.0.8-10.0.0.9", "10.0.0.8"),
            ("10.0.0.8-10.0.0.9:80", "10.0.0.8"),
            ("10.0.0.8:80-90", "10.0.0.8"),
            ("[fd00::8]-[fd00::9]:80", "fd00::8"),
            ("fd00::8-fd00::9", "fd00::8"),
        ] {
            let words = ["DNAT", "--to-destination", value, "--random"];
            let words = words.map(Token::from);
            let found = first_destination(&Target::Other(words.into()));
            assert_eq!(found.map(|one| one.to_string()).as_deref(), Some(address));
        }
    }
}

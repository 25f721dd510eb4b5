//! The words of one rule to a [`Rule`]: the matches and targets that nvactl interprets, and the
//! others word for word.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::net::{Port, PortRange};
use crate::netfilter::limit::{ConnLimit, HashLimit, Limit, PerSecond, Whose};
use crate::netfilter::matches::{Cluster, Conntrack, CtState, Mark, Match, Probability};
use crate::netfilter::names::ChainName;
use crate::netfilter::rule::Rule;
use crate::netfilter::target::{DEFAULT_LEVEL, DnatPorts, RejectWith, Target};
use crate::netfilter::token::{Token, value};

pub(super) fn read_rule(words: &[&str], chains: &BTreeSet<ChainName>) -> Rule {
    let mut rule = Rule {
        // As many as most rules of a plan have: none is moved to a larger place, and few are left.
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

fn tokens(words: &[&str]) -> Vec<Token> {
    words.iter().map(|word| Token::from(*word)).collect()
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

/// A target with options, if these are all ones that nvactl interprets.
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
        ("CONNMARK", ["--set-xmark", mark]) => Target::SetConnmark(read_mark(mark)?),
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

/// `A`, `A:P` or `A:P-P/BASE`, IPv6 in brackets where a port follows. Any other form means something
/// nvactl never plans.
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

/// How many words the match at the front takes: up to the next one, or the target.
fn match_len(words: &[&str]) -> usize {
    // A comment may be any word, `-j` included, and stands bare if it has no odd byte.
    if let ["-m", "comment", "--comment", _, ..] = words {
        return 4;
    }
    let begins = |at: usize| {
        let option = |at: usize| words.get(at).copied().unwrap_or_default();
        let negated = usize::from(option(at) == "!");
        matches!(
            option(at + negated),
            "-s" | "-d" | "-i" | "-o" | "-p" | "-m" | "-j" | "-g" | "-f" | "-c"
        )
    };
    // The first word begins this match, negated or not; what follows belongs to it.
    let head = if words[0] == "!" { 2 } else { 1 };
    (head..words.len())
        .find(|at| begins(*at))
        .unwrap_or(words.len())
}

/// The match these words spell, if they spell one that nvactl interprets in full.
fn read_match(words: &[&str]) -> Option<Match> {
    Some(match words {
        ["-m", "comment", "--comment", text] => Match::Comment(value(text).into()),
        ["-s", net] => Match::Source(read_net(net)?),
        ["-d", net] => Match::Destination(read_net(net)?),
        ["!", "-d", net] => Match::NotDestination(read_net(net)?),
        ["-i", name] => Match::Ingress(name.parse().ok()?),
        ["-o", name] => Match::Egress(name.parse().ok()?),
        ["-p", name] => Match::Protocol(name.parse().ok()?),
        ["-m", "tcp", options @ ..] => {
            let (source, destination, syn) = read_ports(options)?;
            Match::Tcp {
                source,
                destination,
                syn,
            }
        }
        ["-m", "udp", options @ ..] => match read_ports(options)? {
            (source, destination, false) => Match::Udp {
                source,
                destination,
            },
            _ => return None,
        },
        ["-m", "multiport", "--dports", ports] => {
            Match::DestinationPorts(ports.split(',').map(read_range).collect::<Option<_>>()?)
        }
        ["-m", "conntrack", "--ctstatus", "CONFIRMED"] => Match::Confirmed,
        ["-m", "conntrack", options @ ..] => Match::Conntrack(read_conntrack(options)?),
        ["-m", "addrtype", "--dst-type", "LOCAL"] => Match::DestinationIsLocal,
        [
            "-m",
            "statistic",
            "--mode",
            "random",
            "--probability",
            share,
        ] => Match::Probability(Probability::read(share)?),
        [
            "-m",
            "cluster",
            "--cluster-local-nodemask",
            mask,
            "--cluster-total-nodes",
            total,
            "--cluster-hash-seed",
            seed,
        ] => {
            let mask = read_hex(mask).filter(|mask| mask.is_power_of_two())?;
            Match::Cluster(Cluster {
                total: parsed(total)?,
                node: mask.trailing_zeros(),
                seed: read_hex(seed)?,
            })
        }
        ["-m", "hashlimit", options @ ..] => Match::HashLimit(read_hash_limit(options)?),
        [
            "-m",
            "connlimit",
            "--connlimit-above",
            most,
            "--connlimit-mask",
            mask,
            "--connlimit-saddr",
        ] => Match::ConnLimit(ConnLimit {
            most: parsed(most)?,
            mask: parsed(mask)?,
        }),
        ["-m", "connmark", "--mark", mark] => Match::Connmark(read_mark(mark)?),
        ["-m", "limit", "--limit", rate] => Match::Limit(Limit::read(rate, None)?),
        ["-m", "limit", "--limit", rate, "--limit-burst", burst] => {
            Match::Limit(Limit::read(rate, Some(burst))?)
        }
        _ => return None,
    })
}

/// The source ports, the destination ports, and whether only a SYN matches.
fn read_ports(options: &[&str]) -> Option<(Option<PortRange>, Option<PortRange>, bool)> {
    let (mut source, mut destination, mut syn) = (None, None, None);
    let mut rest = options;
    while !rest.is_empty() {
        rest = match rest {
            ["--sport", ports, rest @ ..] => set(&mut source, read_range(ports)?, rest)?,
            ["--dport", ports, rest @ ..] => set(&mut destination, read_range(ports)?, rest)?,
            ["--tcp-flags", "FIN,SYN,RST,ACK", "SYN", rest @ ..] => set(&mut syn, (), rest)?,
            _ => return None,
        };
    }
    Some((source, destination, syn.is_some()))
}

fn read_conntrack(options: &[&str]) -> Option<Conntrack> {
    let mut conntrack = Conntrack::default();
    let mut rest = options;
    while !rest.is_empty() {
        rest = match rest {
            ["--ctstate", states, rest @ ..] if conntrack.states.is_empty() => {
                let state = |word: &str| CtState::ALL.iter().find(|(_, name)| *name == word);
                let states = states
                    .split(',')
                    .map(|word| state(word).map(|(state, _)| *state));
                conntrack = Conntrack {
                    states: Conntrack::states(states.collect::<Option<Vec<_>>>()?).states,
                    ..conntrack
                };
                rest
            }
            ["--ctorigdst", net, rest @ ..] => {
                set(&mut conntrack.original_destination, read_net(net)?, rest)?
            }
            ["--ctorigdstport", ports, rest @ ..] => set(
                &mut conntrack.original_destination_port,
                read_range(ports)?,
                rest,
            )?,
            _ => return None,
        };
    }
    Some(conntrack)
}

fn read_hash_limit(options: &[&str]) -> Option<HashLimit> {
    let (options, bits) = match options {
        [options @ .., "--hashlimit-srcmask", bits] => (options, Some(parsed(bits)?)),
        options => (options, None),
    };
    let (options, expire) = match options {
        [options @ .., "--hashlimit-htable-expire", time] => {
            (options, parsed(time.strip_suffix("000")?)?)
        }
        options => (options, 1),
    };
    let (first, name, of) = match (options, bits) {
        (
            [
                first @ ..,
                "--hashlimit-mode",
                "srcip",
                "--hashlimit-name",
                name,
            ],
            bits,
        ) => (first, name, bits.map_or(Whose::Address, Whose::Net)),
        ([first @ .., "--hashlimit-name", name], None) => (first, name, Whose::All),
        _ => return None,
    };
    let ["--hashlimit-above", rate, "--hashlimit-burst", burst] = first else {
        return None;
    };
    Some(HashLimit {
        per_second: PerSecond::new(parsed(rate.strip_suffix("/sec")?)?).ok()?,
        burst: parsed(burst)?,
        expire,
        of,
        name: (*name).into(),
    })
}

/// `0x00000001`
fn read_hex(word: &str) -> Option<u32> {
    u32::from_str_radix(word.strip_prefix("0x")?, 16).ok()
}

/// `0x1/0xff`; without a mask all bits are meant, which nvactl never plans.
fn read_mark(word: &str) -> Option<Mark> {
    let (value, mask) = word.split_once('/')?;
    let (value, mask) = (read_hex(value)?, read_hex(mask)?);
    Some(Mark { value, mask })
}

/// Sets what is not set yet and goes on with `rest`; an option given twice is not interpreted.
fn set<'w, T>(slot: &mut Option<T>, value: T, rest: &'w [&'w str]) -> Option<&'w [&'w str]> {
    slot.replace(value).is_none().then_some(rest)
}

fn parsed<T: FromStr>(word: &str) -> Option<T> {
    word.parse().ok()
}

/// `10.0.0.0/8`, or an address alone for its `/32`; host bits are cut, as iptables does.
fn read_net(word: &str) -> Option<IpNet> {
    if word.contains('/') {
        parsed::<IpNet>(word).map(|net| net.trunc())
    } else {
        parsed::<IpAddr>(word).map(IpNet::from)
    }
}

/// `80` or `5000:5010`, as matches spell ports.
fn read_range(word: &str) -> Option<PortRange> {
    match word.split_once(':') {
        Some((first, last)) => PortRange::new(parsed(first)?, parsed(last)?).ok(),
        None => parsed::<Port>(word).map(PortRange::from),
    }
}

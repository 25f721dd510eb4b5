//! Reads one match from its words.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::net::{Port, PortRange};
use crate::netfilter::limit::{ConnLimit, HashLimit, Limit, PerSecond, Whose};
use crate::netfilter::mark::Mark;
use crate::netfilter::matches::{AddressType, Cluster, InSet, Match, Probability, Side};
use crate::netfilter::negatable::Negatable;
use crate::netfilter::tcp_flags::TcpFlags;
use crate::netfilter::text::matches::MULTIPORT;
use crate::netfilter::token::{Token, value};
use crate::netfilter::tracking::{Conntrack, CtDirection, CtState, CtStates, CtStatus};

/// Reads the match that these words spell, if every option of it has a type.
pub(super) fn read_match(words: &[&str]) -> Option<Match> {
    if let ["-m", module, options @ ..] = words {
        return read_module(module, options);
    }
    let (is_negated, option) = negation(words);
    Some(match option {
        ["-s", net] => Match::Source(Negatable::new(is_negated, read_net(net)?)),
        ["-d", net] => Match::Destination(Negatable::new(is_negated, read_net(net)?)),
        ["-i", name] => Match::Ingress(Negatable::new(is_negated, parsed(name)?)),
        ["-o", name] => Match::Egress(Negatable::new(is_negated, parsed(name)?)),
        ["-p", name] => Match::Protocol(Negatable::new(is_negated, parsed(name)?)),
        _ => return None,
    })
}

/// Returns whether an option is negated, and the option.
fn negation<'o, 'w>(option: &'o [&'w str]) -> (bool, &'o [&'w str]) {
    match option {
        ["!", option @ ..] => (true, option),
        option => (false, option),
    }
}

fn read_module(module: &str, options: &[&str]) -> Option<Match> {
    let (is_negated, option) = negation(options);
    Some(match (module, option) {
        ("comment", ["--comment", text]) if !is_negated => Match::Comment(value(text).into()),
        ("tcp", _) => read_tcp(options)?,
        ("udp", _) => match read_tcp(options)? {
            Match::Tcp {
                source,
                destination,
                flags: None,
            } => Match::Udp {
                source,
                destination,
            },
            _ => return None,
        },
        ("multiport", [name, ports]) => {
            let ranges = ports.split(',').map(read_range).collect::<Option<_>>()?;
            Match::Multiport {
                of: word_of(&MULTIPORT, name)?,
                ports: Negatable::new(is_negated, ranges),
            }
        }
        ("icmp", ["--icmp-type", kind]) => Match::Icmp(Negatable::new(is_negated, parsed(kind)?)),
        ("icmp6", ["--icmpv6-type", kind]) => {
            Match::Icmp6(Negatable::new(is_negated, parsed(kind)?))
        }
        ("conntrack", _) => Match::Conntrack(read_conntrack(options)?),
        ("state", ["--state", states]) => {
            Match::State(Negatable::new(is_negated, read_states(states)?))
        }
        ("addrtype", [name, kind]) => Match::AddressType {
            of: match *name {
                "--src-type" => Side::Source,
                "--dst-type" => Side::Destination,
                _ => return None,
            },
            kind: Negatable::new(is_negated, word_of(&AddressType::ALL, kind)?),
        },
        ("statistic", ["--mode", "random", share @ ..]) if !is_negated => {
            let (is_negated, share) = negation(share);
            let ["--probability", share] = share else {
                return None;
            };
            Match::Probability(Negatable::new(is_negated, Probability::read(share)?))
        }
        ("cluster", _) => Match::Cluster(Negatable::new(is_negated, read_cluster(option)?)),
        ("hashlimit", _) => Match::HashLimit(read_hash_limit(options)?),
        (
            "connlimit",
            [
                "--connlimit-above",
                most,
                "--connlimit-mask",
                mask,
                "--connlimit-saddr",
            ],
        ) if !is_negated => Match::ConnLimit(ConnLimit {
            most: parsed(most)?,
            mask: parsed(mask)?,
        }),
        ("mark", ["--mark", mark]) => {
            Match::Mark(Negatable::new(is_negated, read_asked_mark(mark)?))
        }
        ("connmark", ["--mark", mark]) => {
            Match::Connmark(Negatable::new(is_negated, read_asked_mark(mark)?))
        }
        ("limit", ["--limit", rate]) if !is_negated => Match::Limit(Limit::read(rate, None)?),
        ("limit", ["--limit", rate, "--limit-burst", burst]) if !is_negated => {
            Match::Limit(Limit::read(rate, Some(burst))?)
        }
        ("set", ["--match-set", name, sides, further @ ..]) => {
            let set = InSet {
                spelled: Token::from(*name),
                sides: read_sides(sides)?,
                further: tokens(further),
            };
            Match::Set(Negatable::new(is_negated, Box::new(set)))
        }
        _ => return None,
    })
}

/// Reads the options of `-m tcp`; `-m udp` has the same ones for ports.
fn read_tcp(options: &[&str]) -> Option<Match> {
    let (mut source, mut destination, mut flags) = (None, None, None);
    let mut rest = options;
    while !rest.is_empty() {
        let (is_negated, option) = negation(rest);
        rest = match option {
            ["--sport", ports, rest @ ..] => set(
                &mut source,
                Negatable::new(is_negated, read_range(ports)?),
                rest,
            )?,
            ["--dport", ports, rest @ ..] => {
                let ports = Negatable::new(is_negated, read_range(ports)?);
                set(&mut destination, ports, rest)?
            }
            ["--tcp-flags", examined, which, rest @ ..] => {
                let asked = TcpFlags {
                    examined: parsed(examined)?,
                    set: parsed(which)?,
                };
                set(&mut flags, Negatable::new(is_negated, asked), rest)?
            }
            _ => return None,
        };
    }
    Some(Match::Tcp {
        source,
        destination,
        flags,
    })
}

fn read_conntrack(options: &[&str]) -> Option<Conntrack> {
    let mut conntrack = Conntrack::default();
    let mut rest = options;
    while !rest.is_empty() {
        let (is_negated, option) = negation(rest);
        rest = match option {
            ["--ctstate", states, rest @ ..] => {
                let states = Negatable::new(is_negated, read_states(states)?);
                set(&mut conntrack.states, states, rest)?
            }
            ["--ctorigdst", net, rest @ ..] => {
                let net = Negatable::new(is_negated, read_net(net)?);
                set(&mut conntrack.original_destination, net, rest)?
            }
            ["--ctorigdstport", ports, rest @ ..] => {
                let ports = Negatable::new(is_negated, read_range(ports)?);
                set(&mut conntrack.original_destination_port, ports, rest)?
            }
            ["--ctstatus", status, rest @ ..] => {
                let status = Negatable::new(is_negated, word_of(&CtStatus::ALL, status)?);
                set(&mut conntrack.status, status, rest)?
            }
            ["--ctdir", direction, rest @ ..] if !is_negated => {
                let direction = word_of(&CtDirection::ALL, direction)?;
                set(&mut conntrack.direction, direction, rest)?
            }
            _ => return None,
        };
    }
    Some(conntrack)
}

/// Reads `RELATED,ESTABLISHED`.
fn read_states(words: &str) -> Option<CtStates> {
    let mut states = words.split(',').map(|word| word_of(&CtState::ALL, word));
    let first = CtStates::from(states.next()??);
    states.try_fold(first, |states, state| Some(states.or(state?)))
}

/// Reads `src` or `dst,src`.
fn read_sides(words: &str) -> Option<Box<[Side]>> {
    let side = |word| match word {
        "src" => Some(Side::Source),
        "dst" => Some(Side::Destination),
        _ => None,
    };
    words.split(',').map(side).collect()
}

fn read_cluster(options: &[&str]) -> Option<Cluster> {
    let [
        "--cluster-local-nodemask",
        mask,
        "--cluster-total-nodes",
        total,
        "--cluster-hash-seed",
        seed,
    ] = options
    else {
        return None;
    };
    let mask = read_hex(mask).filter(|mask| mask.is_power_of_two())?;
    Some(Cluster {
        total: parsed(total)?,
        node: mask.trailing_zeros(),
        seed: read_hex(seed)?,
    })
}

pub(super) fn read_hash_limit(options: &[&str]) -> Option<HashLimit> {
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

/// Returns the value that a word stands for.
fn word_of<T: Copy>(all: &[(T, &str)], word: &str) -> Option<T> {
    all.iter()
        .find(|(_, name)| *name == word)
        .map(|(value, _)| *value)
}

/// Reads `0x00000001`.
pub(super) fn read_hex(word: &str) -> Option<u32> {
    u32::from_str_radix(word.strip_prefix("0x")?, 16).ok()
}

/// Reads `0x1/0xff`.
pub(super) fn read_mark(word: &str) -> Option<Mark> {
    let (value, mask) = word.split_once('/')?;
    Some(Mark {
        value: read_hex(value)?,
        mask: read_hex(mask)?,
    })
}

/// Reads `0x1/0xff`, or `0x1` for all bits.
fn read_asked_mark(word: &str) -> Option<Mark> {
    let all_bits = |value| Mark {
        value,
        mask: u32::MAX,
    };
    read_mark(word).or_else(|| read_hex(word).map(all_bits))
}

/// Sets an option that is not set yet, and returns the words behind it. An option that is given twice has no
/// type.
fn set<'o, 'w, T>(slot: &mut Option<T>, value: T, rest: &'o [&'w str]) -> Option<&'o [&'w str]> {
    slot.replace(value).is_none().then_some(rest)
}

pub(super) fn tokens<T: FromIterator<Token>>(words: &[&str]) -> T {
    words.iter().map(|word| Token::from(*word)).collect()
}

pub(super) fn parsed<T: FromStr>(word: &str) -> Option<T> {
    word.parse().ok()
}

/// Reads `10.0.0.0/8`, or an address alone for its `/32`. Host bits are cut, as iptables does.
fn read_net(word: &str) -> Option<IpNet> {
    if word.contains('/') {
        parsed::<IpNet>(word).map(|net| net.trunc())
    } else {
        parsed::<IpAddr>(word).map(IpNet::from)
    }
}

/// Reads `80` or `5000:5010`.
fn read_range(word: &str) -> Option<PortRange> {
    match word.split_once(':') {
        Some((first, last)) => PortRange::new(parsed(first)?, parsed(last)?).ok(),
        None => parsed::<Port>(word).map(PortRange::from),
    }
}

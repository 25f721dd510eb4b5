//! Reads words of matches and targets that the model keeps as they are: an import understands more than nvactl writes.

use super::matches::read_hash_limit;
use crate::net::{AddressRange, PortRange};
use crate::netfilter::limit::{ConnLimit, HashLimit};
use crate::netfilter::token::Token;

/// A redirection to several addresses, or one with flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnatRange {
    pub addresses: AddressRange,
    pub ports: Option<PortRange>,
    /// `--random`, `--persistent`.
    pub flags: Vec<String>,
}

/// Reads the words of `DNAT --to-destination A-B:P-P`, from its name on. Returns `None` for another form.
#[must_use]
pub fn dnat_range(words: &[Token]) -> Option<DnatRange> {
    let words: Vec<&str> = words.iter().map(Token::spelled).collect();
    let ["DNAT", "--to-destination", to, flags @ ..] = words.as_slice() else {
        return None;
    };
    let (addresses, ports) = split(to)?;
    let ports = match ports {
        None => None,
        Some(ports) => Some(ports.parse().ok()?),
    };
    Some(DnatRange {
        addresses: addresses.parse().ok()?,
        ports,
        flags: flags.iter().map(ToString::to_string).collect(),
    })
}

/// A change of the source address, with ports or flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnatRange {
    /// `None` for MASQUERADE, which takes the address of the interface.
    pub addresses: Option<AddressRange>,
    /// Whether the rule has ports or flags beside `--persistent`: it chooses the source ports.
    pub chooses_ports: bool,
}

/// Reads the words of `SNAT --to-source A-B:P-P` and `MASQUERADE --to-ports P-P`, from their name on. Returns `None` for
/// another form.
#[must_use]
pub fn snat_range(words: &[Token]) -> Option<SnatRange> {
    let words: Vec<&str> = words.iter().map(Token::spelled).collect();
    match words.as_slice() {
        ["MASQUERADE", ..] => Some(SnatRange {
            addresses: None,
            chooses_ports: true,
        }),
        ["SNAT", "--to-source", to, flags @ ..] => {
            let (addresses, ports) = split(to)?;
            Some(SnatRange {
                addresses: Some(addresses.parse().ok()?),
                chooses_ports: ports.is_some() || flags.iter().any(|flag| *flag != "--persistent"),
            })
        }
        _ => None,
    }
}

/// Returns whether a match is for packets from port 0, from which no client opens a connection.
#[must_use]
pub fn comes_from_port_0(words: &[Token]) -> bool {
    let words: Vec<&str> = words.iter().map(Token::spelled).collect();
    words
        .windows(3)
        .any(|words| words[0] != "!" && words[1..] == ["--sport", "0"])
}

/// Splits `A-B:P` or `[A]-[B]:P` into its addresses and ports.
fn split(to: &str) -> Option<(String, Option<&str>)> {
    if let Some(rest) = to.strip_prefix('[') {
        let (inner, ports) = match rest.rsplit_once("]:") {
            Some((inner, ports)) => (inner, Some(ports)),
            None => (rest.strip_suffix(']')?, None),
        };
        return Some((inner.replace("]-[", "-"), ports));
    }
    // An IPv6 address without brackets has no port.
    if to.matches(':').count() > 1 {
        return Some((to.to_owned(), None));
    }
    match to.split_once(':') {
        Some((addresses, ports)) => Some((addresses.to_owned(), Some(ports))),
        None => Some((to.to_owned(), None)),
    }
}

/// One packet of every few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EveryNth {
    pub every: u32,
    /// Counted from 0.
    pub packet: u32,
}

/// Reads the words of `-m statistic --mode nth --every N --packet P`. Returns `None` for another match.
#[must_use]
pub fn every_nth(words: &[Token]) -> Option<EveryNth> {
    let words: Vec<&str> = words.iter().map(Token::spelled).collect();
    let [
        "-m",
        "statistic",
        "--mode",
        "nth",
        "--every",
        every,
        rest @ ..,
    ] = words.as_slice()
    else {
        return None;
    };
    let packet = match rest {
        [] => 0,
        ["--packet", packet] => packet.parse().ok()?,
        _ => return None,
    };
    Some(EveryNth {
        every: every.parse().ok()?,
        packet,
    })
}

/// A limit up to which packets match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpTo {
    /// `-m hashlimit --hashlimit-upto`. The value is that of `--hashlimit-above`, above which packets do not match.
    Rate(HashLimit),
    /// `-m connlimit --connlimit-upto`. The value is that of `--connlimit-above`.
    Connections(ConnLimit),
}

/// Reads the words of `-m hashlimit --hashlimit-upto` and `-m connlimit --connlimit-upto`. Returns `None` for another match.
#[must_use]
pub fn up_to(words: &[Token]) -> Option<UpTo> {
    let words: Vec<&str> = words.iter().map(Token::spelled).collect();
    match words.as_slice() {
        ["-m", "hashlimit", "--hashlimit-upto", rest @ ..] => {
            let above: Vec<&str> = ["--hashlimit-above"].iter().chain(rest).copied().collect();
            read_hash_limit(&above).map(UpTo::Rate)
        }
        [
            "-m",
            "connlimit",
            "--connlimit-upto",
            most,
            "--connlimit-mask",
            mask,
            "--connlimit-saddr",
        ] => Some(UpTo::Connections(ConnLimit {
            most: most.parse().ok()?,
            mask: mask.parse().ok()?,
        })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netfilter::matches::Match;
    use crate::netfilter::rule::Rule;
    use crate::netfilter::target::Target;
    use crate::netfilter::text::parse::parse;

    fn rule(rest: &str) -> Rule {
        let rules = parse(&format!("*nat\n-A PREROUTING {rest}\nCOMMIT\n")).expect("it is a rule");
        let mut chains = rules.chains();
        chains.next().expect("it has a chain").2.rules[0].clone()
    }

    #[test]
    fn a_redirection_to_several_addresses_is_read() {
        for (to, expected) in [
            ("10.0.0.2-10.0.0.4", "10.0.0.2-10.0.0.4 - []"),
            ("10.0.0.2-10.0.0.4:80-81", "10.0.0.2-10.0.0.4 80-81 []"),
            ("10.0.0.2:80 --persistent", "10.0.0.2 80 [\"--persistent\"]"),
            ("[fd00::2]-[fd00::3]:80", "fd00::2-fd00::3 80 []"),
            (
                "fd00::2-fd00::3 --random",
                "fd00::2-fd00::3 - [\"--random\"]",
            ),
            ("10.0.0.2:", "-"),
        ] {
            let rule = rule(&format!("-p tcp -j DNAT --to-destination {to}"));
            let Some(Target::Other(words)) = &rule.target else {
                panic!("{to} has a type");
            };
            let found = dnat_range(words).map_or("-".to_owned(), |range| {
                let ports = range
                    .ports
                    .map_or("-".to_owned(), |ports| ports.to_string());
                format!("{} {ports} {:?}", range.addresses, range.flags)
            });
            assert_eq!(found, expected, "{to}");
        }
    }

    #[test]
    fn a_share_by_turns_is_read() {
        for (words, expected) in [
            (
                "statistic --mode nth --every 3",
                Some(EveryNth {
                    every: 3,
                    packet: 0,
                }),
            ),
            (
                "statistic --mode nth --every 3 --packet 2",
                Some(EveryNth {
                    every: 3,
                    packet: 2,
                }),
            ),
            ("u32 --u32 0&0xFF=5", None),
        ] {
            let rule = rule(&format!("-m {words} -j RETURN"));
            let [Match::Other(words)] = rule.matches.as_slice() else {
                panic!("{words} has a type");
            };
            assert_eq!(every_nth(words), expected);
        }
    }
}

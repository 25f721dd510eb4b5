//! What a forward may say beside its listener and target, and `defaults` for all that do not.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::fields::{Fields, Placed, parsed, sequence};
use super::limits::MAX_PROBLEMS;
use super::load::{Node, Value};
use super::problem::{Problem, ProblemKind};
use crate::forwards::Rate;
use crate::forwards::{Balance, Limits, Log, Logged, Nets, Per, Snat, Snats};
use crate::net::{AddressRange, Family, Interface, Protocol};
use crate::netfilter::limit::{Limit, PerSecond};

/// The keys that a forward may have: first those that are its own.
pub const OF_FORWARD: &[&str] = &[
    "name",
    "enabled",
    "listen",
    "target",
    "silence",
    "protocol",
    "balance",
    "interface",
    "snat",
    "allow_from",
    "deny_from",
    "limits",
    "log",
    "hairpin",
];

/// Those that `defaults` may have too.
pub const KEYS: &[&str] = OF_FORWARD.split_at(5).1;

/// Each is `None` where nothing is said, or nothing that can be read, which is reported.
#[derive(Debug, Clone)]
pub struct Options {
    /// At least one, each once; TCP where nothing is said.
    pub protocols: Option<&'static [Protocol]>,
    pub balance: Option<Balance>,
    pub interfaces: Option<Interfaces>,
    pub snat: Option<Placed<Snats>>,
    pub allow: Option<Placed<ByFamily>>,
    pub deny: Option<Placed<ByFamily>>,
    pub limits: Option<Limits>,
    pub log: Option<WrittenLog>,
    pub hairpin: Option<Placed<bool>>,
}

/// The interfaces as written; a side that is not is another's to say.
#[derive(Debug, Clone, Default)]
pub struct Interfaces {
    pub ingress: Option<Vec<Interface>>,
    pub egress: Option<Interface>,
}

/// A list of networks, split once: forwards that share it share both parts.
#[derive(Debug, Clone, Default)]
pub struct ByFamily {
    v4: Nets,
    v6: Nets,
}

impl ByFamily {
    pub fn of(&self, family: Family) -> &Nets {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

/// A log without the name of the forward, which lines begin with where no prefix is written.
#[derive(Debug, Clone)]
pub struct WrittenLog {
    pub prefix: Option<Box<str>>,
    pub level: u8,
    pub per_minute: u32,
    pub connections: Logged,
}

/// Lines a minute where no number is written.
const LOG_PER_MINUTE: u32 = 60;
const WARNING: u8 = 4;
/// More connections than a machine can track.
const MOST_CONNECTIONS: u32 = 10_000_000;

impl Default for Options {
    fn default() -> Self {
        Self {
            protocols: Some(&[Protocol::Tcp]),
            balance: None,
            interfaces: None,
            snat: None,
            allow: None,
            deny: None,
            limits: None,
            log: None,
            hairpin: None,
        }
    }
}

impl Options {
    /// What is written, and else what `otherwise` has.
    pub fn decode(fields: &Fields<'_>, otherwise: &Self, problems: &mut Vec<Problem>) -> Self {
        let mut options = otherwise.clone();
        for key in KEYS {
            let Some(node) = fields.get(key) else {
                continue;
            };
            match *key {
                "protocol" => options.protocols = protocols(node, problems),
                "balance" => options.balance = balance(node, problems),
                "interface" => options.interfaces = interfaces(node, false, problems),
                "snat" => options.snat = snats(node, problems),
                "allow_from" => options.allow = nets(node, "allow_from", problems),
                "deny_from" => options.deny = nets(node, "deny_from", problems),
                "limits" => options.limits = limits(node, problems),
                "log" => options.log = log(node, problems),
                _ => options.hairpin = yes_or_no(node, "hairpin", problems),
            }
        }
        options
    }
}

/// One, or a list of them.
fn protocols(node: &Node<'_>, problems: &mut Vec<Problem>) -> Option<&'static [Protocol]> {
    let list = one_or_list(node);
    let mut found: Vec<Protocol> = Vec::new();
    for item in list {
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
        let expected = "`tcp`, `udp` or `[tcp, udp]`";
        let read = |text: &str| {
            let known = &["tcp", "udp"];
            one_of_words(text, known)?
                .parse()
                .map_err(|_| unknown(text, known))
        };
        let one: Placed<Protocol> = parsed(item, "protocol", expected, problems, read)?;
        if found.contains(&one.value) {
            let text = one.value.to_string();
            problems.push(Problem::new(one.span, ProblemKind::Twice { text }));
        } else {
            found.push(one.value);
        }
    }
    if list.is_empty() {
        let kind = ProblemKind::EmptyList { key: "protocol" };
        problems.push(Problem::new(node.span.clone(), kind));
        return None;
    }
    // Their order says nothing.
    Some(match found.as_slice() {
        [] => &[],
        [Protocol::Tcp] => &[Protocol::Tcp],
        [Protocol::Udp] => &[Protocol::Udp],
        _ => &Protocol::ALL,
    })
}

fn balance(node: &Node<'_>, problems: &mut Vec<Problem>) -> Option<Balance> {
    let read = |text: &str| {
        one_of_words(text, &["random", "client"]).map(|word| match word {
            "client" => Balance::Client,
            _ => Balance::Random,
        })
    };
    let balance = parsed(node, "balance", "`random` or `client`", problems, read);
    balance.map(|balance| balance.value)
}

/// One interface for both sides, or a mapping of them, of which a forward may leave one out.
pub fn interfaces(node: &Node<'_>, both: bool, problems: &mut Vec<Problem>) -> Option<Interfaces> {
    let expected = "a name, or a mapping of `ingress` and `egress`";
    let read = |text: &str| text.parse().map_err(ProblemKind::InvalidInterface);
    if !matches!(node.value, Value::Mapping(_)) {
        let one: Interface = parsed(node, "interface", expected, problems, read)?.value;
        return Some(Interfaces {
            ingress: Some(vec![one.clone()]),
            egress: Some(one),
        });
    }
    let known = &["ingress", "egress"];
    let fields = Fields::of(node, "interface", "`interface`", known, problems)?;
    let mut found = Interfaces::default();
    for key in known {
        let node = if both {
            fields.required(key, problems)
        } else {
            fields.get(key)
        };
        let Some(node) = node else { continue };
        if *key == "egress" {
            let one = parsed(node, key, "an interface name", problems, read)?;
            found.egress = Some(one.value);
            continue;
        }
        let mut several: Vec<Interface> = Vec::new();
        let mut seen = BTreeSet::new();
        for item in one_or_list(node) {
            if problems.len() >= MAX_PROBLEMS {
                break;
            }
            let expected = "an interface name, or a list of them";
            let one: Placed<Interface> = parsed(item, key, expected, problems, read)?;
            if seen.insert(one.value.clone()) {
                several.push(one.value);
            } else {
                let text = one.value.to_string();
                problems.push(Problem::new(one.span, ProblemKind::Twice { text }));
            }
        }
        if several.is_empty() {
            let kind = ProblemKind::EmptyList { key: "ingress" };
            problems.push(Problem::new(node.span.clone(), kind));
            return None;
        }
        found.ingress = Some(several);
    }
    Some(found)
}

/// One for both families, or a mapping with one for each. An address is of one family only.
pub fn snats(node: &Node<'_>, problems: &mut Vec<Problem>) -> Option<Placed<Snats>> {
    let expected = "an address, a range of them, `masquerade` or `none`, or these by `v4` and `v6`";
    let mut snats = Snats::default();
    if !matches!(node.value, Value::Mapping(_)) {
        let one = parsed(node, "snat", expected, problems, snat)?;
        let family = match one.value {
            Snat::Addresses(range) => Some(range.family()),
            _ => None,
        };
        snats.v4 = (family != Some(Family::V6)).then_some(one.value);
        snats.v6 = (family != Some(Family::V4)).then_some(one.value);
        return Some(Placed {
            value: snats,
            span: one.span,
        });
    }
    let fields = Fields::of(node, "snat", "`snat`", &["v4", "v6"], problems)?;
    let mut readable = true;
    for family in Family::ALL {
        let of_family = |text: &str| match snat(text)? {
            Snat::Addresses(range) if range.family() != family => Err(ProblemKind::WrongFamily {
                key: family.as_str(),
                address: range.first(),
                family,
            }),
            snat => Ok(snat),
        };
        let one = fields.parsed(family.as_str(), expected, problems, of_family);
        if one.is_none() && fields.get(family.as_str()).is_some() {
            readable = false;
        }
        match family {
            Family::V4 => snats.v4 = one.map(|one| one.value),
            Family::V6 => snats.v6 = one.map(|one| one.value),
        }
    }
    readable.then(|| Placed {
        value: snats,
        span: node.span.clone(),
    })
}

fn snat(text: &str) -> Result<Snat, ProblemKind> {
    match text {
        "masquerade" => Ok(Snat::Masquerade),
        "none" => Ok(Snat::Client),
        addresses => AddressRange::from_str(addresses)
            .map(Snat::Addresses)
            .map_err(|_| ProblemKind::InvalidSnat {
                text: addresses.to_owned(),
            }),
    }
}

fn nets(
    node: &Node<'_>,
    key: &'static str,
    problems: &mut Vec<Problem>,
) -> Option<Placed<ByFamily>> {
    let mut nets: Vec<IpNet> = Vec::new();
    let items = sequence(node, key, problems)?;
    for item in items {
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
        let expected = "a list of networks as `198.51.100.0/24`";
        nets.extend(parsed(item, key, expected, problems, net).map(|net| net.value));
    }
    // One that could not be read may be the one that matters.
    if nets.len() < items.len() {
        return None;
    }
    let (v4, v6): (Vec<IpNet>, Vec<IpNet>) = nets
        .into_iter()
        .partition(|net| Family::of(net.addr()) == Family::V4);
    Some(Placed {
        value: ByFamily {
            v4: Nets::new(v4),
            v6: Nets::new(v6),
        },
        span: node.span.clone(),
    })
}

/// A network, or an address alone, without leading zeros, which others read as octal. Bits behind
/// the prefix would be cut by iptables, silently.
fn net(text: &str) -> Result<IpNet, ProblemKind> {
    let invalid = || ProblemKind::InvalidNet {
        text: text.to_owned(),
    };
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| invalid())?;
    let Some(bits) = bits else {
        return Ok(IpNet::from(address));
    };
    let plain = bits == "0" || !bits.starts_with(['0', '+']);
    let bits = bits.parse().ok().filter(|_| plain).ok_or_else(invalid)?;
    let net = IpNet::new(address, bits).map_err(|_| invalid())?;
    if net == net.trunc() {
        Ok(net)
    } else {
        Err(ProblemKind::HostBits { net })
    }
}

/// None where no number is written: that takes back what the defaults say.
fn limits(node: &Node<'_>, problems: &mut Vec<Problem>) -> Option<Limits> {
    let known = &[
        "new_per_second",
        "burst",
        "per",
        "max_connections",
        "reject",
    ];
    let fields = Fields::of(node, "limits", "`limits`", known, problems)?;
    let most = PerSecond::MOST;
    let rate = fields.parsed("new_per_second", "a number", problems, |text| {
        PerSecond::new(number(text, most)?).map_err(|nearest| ProblemKind::RoundedRate {
            text: text.to_owned(),
            nearest,
        })
    });
    let burst = fields.parsed("burst", "a number", problems, |text| number(text, most));
    let max_connections = fields.parsed("max_connections", "a number", problems, |text| {
        number(text, MOST_CONNECTIONS)
    });
    let per = fields.parsed("per", "`total` or `client`", problems, |text| {
        one_of_words(text, &["total", "client"]).map(|word| match word {
            "client" => Per::Client,
            _ => Per::Total,
        })
    });
    let reject = fields
        .get("reject")
        .and_then(|node| yes_or_no(node, "reject", problems));
    let said = |key: &str| fields.get(key).is_some();
    // How is nothing without how much, and a burst without a rate.
    if said("burst") || ((said("per") || said("reject")) && !said("max_connections")) {
        fields.required("new_per_second", problems);
    }
    if rate.is_none() && max_connections.is_none() {
        return None;
    }
    Some(Limits {
        rate: rate.map(|rate| Rate {
            new_per_second: rate.value,
            burst: burst.map_or(rate.value.times(), |burst| burst.value),
        }),
        max_connections: max_connections.map(|most| most.value),
        per: per.map_or(Per::Total, |per| per.value),
        reject: reject.is_some_and(|reject| reject.value),
    })
}

/// `true`, `false`, or how.
fn log(node: &Node<'_>, problems: &mut Vec<Problem>) -> Option<WrittenLog> {
    let usual = WrittenLog {
        prefix: None,
        level: WARNING,
        per_minute: LOG_PER_MINUTE,
        connections: Logged::All,
    };
    if !matches!(node.value, Value::Mapping(_)) {
        let on = yes_or_no(node, "log", problems)?;
        return on.value.then_some(usual);
    }
    let known = &["prefix", "level", "per_minute", "connections"];
    let fields = Fields::of(node, "log", "`log`", known, problems)?;
    let prefix = fields.parsed("prefix", "a few words", problems, |text| {
        let printable = |c: char| c.is_ascii_graphic() || c == ' ';
        let sound = !text.is_empty() && text.len() <= Log::LONGEST_PREFIX;
        if sound && text.chars().all(printable) {
            Ok(text.into())
        } else {
            Err(ProblemKind::InvalidPrefix {
                text: text.to_owned(),
            })
        }
    });
    let level = fields.parsed("level", "a level of syslog", problems, |text| {
        let word = one_of_words(text, &Log::LEVELS)?;
        let place = (0..).zip(Log::LEVELS).find(|(_, level)| *level == word);
        Ok(place.map_or(WARNING, |(n, _)| n))
    });
    let per_minute = fields.parsed("per_minute", "a number", problems, |text| {
        number(text, Limit::MOST_A_MINUTE)
    });
    let expected = "`accepted`, `refused` or `all`";
    let connections = fields.parsed("connections", expected, problems, |text| {
        one_of_words(text, &["accepted", "refused", "all"]).map(|word| match word {
            "accepted" => Logged::Accepted,
            "refused" => Logged::Refused,
            _ => Logged::All,
        })
    });
    Some(WrittenLog {
        prefix: prefix.map(|prefix| prefix.value),
        level: level.map_or(usual.level, |level| level.value),
        per_minute: per_minute.map_or(usual.per_minute, |times| times.value),
        connections: connections.map_or(usual.connections, |which| which.value),
    })
}

pub fn yes_or_no(
    node: &Node<'_>,
    key: &'static str,
    problems: &mut Vec<Problem>,
) -> Option<Placed<bool>> {
    parsed(node, key, "`true` or `false`", problems, |text| {
        one_of_words(text, &["true", "false"]).map(|word| word == "true")
    })
}

/// A decimal number from 1 to `most`.
fn number(text: &str, most: u32) -> Result<u32, ProblemKind> {
    let decimal = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|number| *number <= most);
    number
        .filter(|_| decimal)
        .ok_or_else(|| ProblemKind::InvalidNumber {
            text: text.to_owned(),
            most,
        })
}

fn one_or_list<'n>(node: &'n Node<'n>) -> &'n [Node<'n>] {
    match &node.value {
        Value::Sequence(items) => items,
        _ => std::slice::from_ref(node),
    }
}

pub fn one_of_words(
    text: &str,
    known: &'static [&'static str],
) -> Result<&'static str, ProblemKind> {
    let mut words = known.iter().copied();
    words
        .find(|word| *word == text)
        .ok_or_else(|| unknown(text, known))
}

fn unknown(text: &str, known: &'static [&'static str]) -> ProblemKind {
    ProblemKind::UnknownWord {
        text: text.to_owned(),
        known,
    }
}

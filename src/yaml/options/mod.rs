//! The options of a forward, which `defaults` may set for all forwards. A long option has a file of its own.

mod interfaces;
mod limits;
mod log;
mod nets;
mod snat;

pub use interfaces::{Interfaces, interfaces};
pub use log::WrittenLog;
pub use nets::ByFamily;
pub use snat::snats;

use super::bounds::MAX_PROBLEMS;
use super::fields::{Fields, Placed, one_of_words, one_or_list, parsed, unknown, yes_or_no};
use super::load::Node;
use super::problem::{Problem, ProblemKind};
use crate::forwards::{Balance, Limits, Snats};
use crate::net::Protocol;

/// The keys that a forward may have. The first five are not options.
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

/// The keys of the options, which `defaults` may have too.
pub const KEYS: &[&str] = OF_FORWARD.split_at(5).1;

/// The options as written. `None` if a value is missing, or invalid and reported.
#[derive(Debug, Clone)]
pub struct Options {
    /// Each once, at least one; TCP if the key is missing.
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
    /// Reads the options of a mapping, and takes those that it does not have from `otherwise`.
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
                "allow_from" => options.allow = nets::nets(node, "allow_from", problems),
                "deny_from" => options.deny = nets::nets(node, "deny_from", problems),
                "limits" => options.limits = limits::limits(node, problems),
                "log" => options.log = log::log(node, problems),
                _ => options.hairpin = yes_or_no(node, "hairpin", problems),
            }
        }
        options
    }
}

/// Reads one protocol, or a list of them.
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
    // Their order has no meaning.
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

//! The options of a forward, which `defaults` may set for all forwards. A long option has a file of its own.

mod interfaces;
mod limits;
mod log;
mod nets;
mod snat;

pub use interfaces::{Interfaces, interfaces};
pub use limits::limits;
pub use log::{WrittenLog, log, named};
pub use nets::{WrittenDestinations, destinations, nets};
pub use snat::{check_snat, snat, snats};

use super::fields::{Fields, Placed, distinct, one_of_words, parsed, unknown, yes_or_no};
use super::load::Node;
use super::nets::ByFamily;
use super::networks::NetworkNames;
use super::problem::Problem;
use crate::forwards::{Balance, Limits, Snats};
use crate::net::Protocol;

/// Reads the value of a key into the options.
type OptionReader = fn(&mut Options, &Node<'_>, &mut NetworkNames<'_>, &mut Vec<Problem>);

/// The options' keys, each with its reader.
const READERS: [(&str, OptionReader); 9] = [
    ("protocol", |options, node, _, problems| {
        options.protocols = protocols(node, problems);
    }),
    ("balance", |options, node, _, problems| {
        options.balance = balance(node, problems);
    }),
    ("interface", |options, node, _, problems| {
        options.interfaces = interfaces(node, false, problems);
    }),
    ("snat", |options, node, _, problems| {
        options.snat = snats(node, problems);
    }),
    ("allow_from", |options, node, networks, problems| {
        options.allow = nets(node, "allow_from", networks, problems);
    }),
    ("deny_from", |options, node, networks, problems| {
        options.deny = nets(node, "deny_from", networks, problems);
    }),
    ("limits", |options, node, _, problems| {
        options.limits = limits(node, problems);
    }),
    ("log", |options, node, _, problems| {
        options.log = log(node, problems);
    }),
    ("hairpin", |options, node, _, problems| {
        options.hairpin = yes_or_no(node, "hairpin", problems);
    }),
];

/// The keys of a forward that are not options.
const OWN: [&str; 6] = [
    "name",
    "description",
    "enabled",
    "listen",
    "target",
    "silence",
];

/// The keys that a forward may have.
pub const OF_FORWARD: &[&str] = &keys();

/// The keys of the options, which `defaults` may have too.
pub const KEYS: &[&str] = OF_FORWARD.split_at(OWN.len()).1;

const fn keys() -> [&'static str; OWN.len() + READERS.len()] {
    let mut keys = [""; OWN.len() + READERS.len()];
    let mut n = 0;
    while n < keys.len() {
        keys[n] = if n < OWN.len() {
            OWN[n]
        } else {
            READERS[n - OWN.len()].0
        };
        n += 1;
    }
    keys
}

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
    pub fn decode(
        fields: &Fields<'_>,
        otherwise: &Self,
        networks: &mut NetworkNames<'_>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut options = otherwise.clone();
        for (key, read) in READERS {
            if let Some(node) = fields.get(key) {
                read(&mut options, node, networks, problems);
            }
        }
        options
    }
}

/// Reads one protocol, or a list of them.
fn protocols(node: &Node<'_>, problems: &mut Vec<Problem>) -> Option<&'static [Protocol]> {
    let expected = "`tcp`, `udp` or `[tcp, udp]`";
    let found = distinct(node, "protocol", expected, problems, |text| {
        let known = &["tcp", "udp"];
        one_of_words(text, known)?
            .parse()
            .map_err(|_| unknown(text, known))
    })?;
    // Their order has no meaning.
    Some(match found.as_slice() {
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

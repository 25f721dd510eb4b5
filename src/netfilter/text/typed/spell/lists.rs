//! Values of matches that are lists of words, in the order of iptables-save.

use crate::netfilter::text::typed::values::ports::Ports;
use crate::netfilter::text::typed::values::protocols;
use crate::netfilter::tracking::{CtState, CtStatus};

/// Spells the ports of `-m multiport`, which has 15 slots; a range takes two.
pub fn multiport(typed: &str) -> Option<String> {
    let ports: Vec<Ports> = typed
        .split(',')
        .map(|ports| Ports::read(ports, ':'))
        .collect::<Option<_>>()?;
    let slots: usize = ports
        .iter()
        .map(|ports| if ports.is_one() { 1 } else { 2 })
        .sum();
    let spelled: Vec<String> = ports.iter().map(|ports| ports.spelled(':')).collect();
    (slots <= 15).then(|| spelled.join(","))
}

/// In the order of their bits.
const FLAG_NAMES: [&str; 6] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG"];

/// Spells a list of TCP flags, `ALL` or `NONE`.
pub fn flags(typed: &str) -> Option<String> {
    let mut asked = [false; FLAG_NAMES.len()];
    for word in typed.split(',') {
        let word = word.to_ascii_uppercase();
        match word.as_str() {
            "ALL" => asked = [true; FLAG_NAMES.len()],
            "NONE" => {}
            word => asked[FLAG_NAMES.iter().position(|name| *name == word)?] = true,
        }
    }
    let names = FLAG_NAMES.iter().zip(asked).filter(|(_, asked)| *asked);
    let names: Vec<&str> = names.map(|(name, _)| *name).collect();
    Some(if names.is_empty() {
        "NONE".to_owned()
    } else {
        names.join(",")
    })
}

/// Returns the name that a word, in any case, is or begins.
pub fn one_of(names: &[&'static str], word: &str) -> Option<String> {
    let begins = |name: &&&str| {
        let start = name.get(..word.len());
        !word.is_empty() && start.is_some_and(|start| start.eq_ignore_ascii_case(word))
    };
    names.iter().find(begins).map(|name| (*name).to_owned())
}

/// Spells a list in the order of the names.
fn listed(names: &[&'static str], typed: &str) -> Option<String> {
    let words: Vec<String> = typed
        .split(',')
        .map(|word| one_of(names, word))
        .collect::<Option<_>>()?;
    let in_order = names
        .iter()
        .filter(|name| words.iter().any(|word| word == *name));
    Some(in_order.copied().collect::<Vec<&str>>().join(","))
}

/// Spells a list of the states of `--ctstate`.
pub fn states(typed: &str) -> Option<String> {
    listed(&CtState::ALL.map(|(_, name)| name), typed)
}

/// Spells a list of the statuses of `--ctstatus`.
pub fn statuses(typed: &str) -> Option<String> {
    let spelled = listed(&CtStatus::ALL.map(|(_, name)| name), typed)?;
    // NONE has no bit, so that it is printed alone.
    Some(match spelled.strip_prefix("NONE,") {
        Some(others) => others.to_owned(),
        None => spelled,
    })
}

/// In the order of their numbers (`rtn_names` in `extensions/libxt_addrtype.c`).
const ADDRESS_TYPES: [&str; 12] = [
    "UNSPEC",
    "UNICAST",
    "LOCAL",
    "BROADCAST",
    "ANYCAST",
    "MULTICAST",
    "BLACKHOLE",
    "UNREACHABLE",
    "PROHIBIT",
    "THROW",
    "NAT",
    "XRESOLVE",
];

/// Spells a list of the types of addresses.
pub fn address_types(typed: &str) -> Option<String> {
    listed(&ADDRESS_TYPES, typed)
}

/// Spells a protocol by its number.
pub fn protocol_number(typed: &str) -> Option<String> {
    protocols::number(typed).map(|number| number.to_string())
}

/// Spells a MAC address.
pub fn mac(typed: &str) -> Option<String> {
    let bytes: Vec<u8> = typed
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect::<Option<_>>()?;
    let spelled: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    (bytes.len() == 6).then(|| spelled.join(":"))
}

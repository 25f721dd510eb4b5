//! The protocols of `-p`.

use crate::net::Family;

/// The protocols that iptables knows by itself (`xtables_chain_protos` in libxtables) and those of `/etc/protocols` that
/// firewalls name, each with its number. The first name of a number is printed.
const PROTOCOLS: [(&str, u8); 32] = [
    ("icmp", 1),
    ("igmp", 2),
    ("ipencap", 4),
    ("tcp", 6),
    ("egp", 8),
    ("udp", 17),
    ("dccp", 33),
    ("ipv6", 41),
    ("ipv6-route", 43),
    ("ipv6-frag", 44),
    ("rsvp", 46),
    ("gre", 47),
    ("esp", 50),
    ("ipv6-crypt", 50),
    ("ah", 51),
    ("ipv6-auth", 51),
    ("ipv6-icmp", 58),
    ("icmpv6", 58),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("eigrp", 88),
    ("ospf", 89),
    ("ipip", 94),
    ("etherip", 97),
    ("pim", 103),
    ("ipcomp", 108),
    ("vrrp", 112),
    ("l2tp", 115),
    ("sctp", 132),
    ("mobility-header", 135),
    ("ipv6-mh", 135),
    ("udplite", 136),
];

/// Returns the number of a protocol, 0 for all.
pub fn number(typed: &str) -> Option<u8> {
    let typed = typed.to_ascii_lowercase();
    if typed == "all" {
        return Some(0);
    }
    let mut named = PROTOCOLS.iter();
    match named.find(|(name, _)| *name == typed) {
        Some((_, number)) => Some(*number),
        None => super::number(&typed)?.try_into().ok(),
    }
}

/// Returns a protocol as iptables-save prints it: an empty text for all protocols. `None` if it is not known.
pub fn spelled(typed: &str) -> Option<String> {
    let number = number(typed)?;
    if number == 0 {
        return Some(String::new());
    }
    let mut known = PROTOCOLS.iter();
    let name = known.find(|(_, of)| *of == number);
    Some(name.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned()))
}

/// Returns the match that iptables loads for a protocol by itself.
pub fn module(typed: &str, family: Family) -> Option<&'static str> {
    Some(match (number(typed)?, family) {
        (1, Family::V4) => "icmp",
        (6, _) => "tcp",
        (17, _) => "udp",
        (33, _) => "dccp",
        (50, _) => "esp",
        (51, _) => "ah",
        (58, Family::V6) => "icmp6",
        (132, _) => "sctp",
        (135, Family::V6) => "mh",
        _ => return None,
    })
}

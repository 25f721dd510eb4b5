//! The names of ICMP types (`icmp_codes` in `extensions/libxt_icmp.h`, `icmpv6_codes` in `extensions/libip6t_icmp6.c`).

use crate::net::Family;
use crate::netfilter::text::typed::values::number;

/// A type with its codes, from the first to the last.
type TypeName = (&'static str, u8, Option<u8>);

const V4: [TypeName; 39] = [
    ("echo-reply", 0, None),
    ("pong", 0, None),
    ("destination-unreachable", 3, None),
    ("network-unreachable", 3, Some(0)),
    ("host-unreachable", 3, Some(1)),
    ("protocol-unreachable", 3, Some(2)),
    ("port-unreachable", 3, Some(3)),
    ("fragmentation-needed", 3, Some(4)),
    ("source-route-failed", 3, Some(5)),
    ("network-unknown", 3, Some(6)),
    ("host-unknown", 3, Some(7)),
    ("network-prohibited", 3, Some(9)),
    ("host-prohibited", 3, Some(10)),
    ("tos-network-unreachable", 3, Some(11)),
    ("tos-host-unreachable", 3, Some(12)),
    ("communication-prohibited", 3, Some(13)),
    ("host-precedence-violation", 3, Some(14)),
    ("precedence-cutoff", 3, Some(15)),
    ("source-quench", 4, None),
    ("redirect", 5, None),
    ("network-redirect", 5, Some(0)),
    ("host-redirect", 5, Some(1)),
    ("tos-network-redirect", 5, Some(2)),
    ("tos-host-redirect", 5, Some(3)),
    ("echo-request", 8, None),
    ("ping", 8, None),
    ("router-advertisement", 9, None),
    ("router-solicitation", 10, None),
    ("time-exceeded", 11, None),
    ("ttl-exceeded", 11, None),
    ("ttl-zero-during-transit", 11, Some(0)),
    ("ttl-zero-during-reassembly", 11, Some(1)),
    ("parameter-problem", 12, None),
    ("ip-header-bad", 12, Some(0)),
    ("required-option-missing", 12, Some(1)),
    ("timestamp-request", 13, None),
    ("timestamp-reply", 14, None),
    ("address-mask-request", 17, None),
    ("address-mask-reply", 18, None),
];

const V6: [TypeName; 28] = [
    ("destination-unreachable", 1, None),
    ("no-route", 1, Some(0)),
    ("communication-prohibited", 1, Some(1)),
    ("beyond-scope", 1, Some(2)),
    ("address-unreachable", 1, Some(3)),
    ("port-unreachable", 1, Some(4)),
    ("failed-policy", 1, Some(5)),
    ("reject-route", 1, Some(6)),
    ("packet-too-big", 2, None),
    ("time-exceeded", 3, None),
    ("ttl-exceeded", 3, None),
    ("ttl-zero-during-transit", 3, Some(0)),
    ("ttl-zero-during-reassembly", 3, Some(1)),
    ("parameter-problem", 4, None),
    ("bad-header", 4, Some(0)),
    ("unknown-header-type", 4, Some(1)),
    ("unknown-option", 4, Some(2)),
    ("echo-request", 128, None),
    ("ping", 128, None),
    ("echo-reply", 129, None),
    ("pong", 129, None),
    ("router-solicitation", 133, None),
    ("router-advertisement", 134, None),
    ("neighbour-solicitation", 135, None),
    ("neighbor-solicitation", 135, None),
    ("neighbour-advertisement", 136, None),
    ("neighbor-advertisement", 136, None),
    ("redirect", 137, None),
];

/// Spells a type by its number. A name may be abbreviated as long as it stands for one type.
pub fn spelled(typed: &str, family: Family) -> Option<String> {
    let names: &[TypeName] = match family {
        Family::V4 => &V4,
        Family::V6 => &V6,
    };
    let spell = |kind: u8, code: Option<u8>| match code {
        Some(code) => format!("{kind}/{code}"),
        None => kind.to_string(),
    };
    let lower = typed.to_ascii_lowercase();
    if family == Family::V4 && lower == "any" {
        return Some(lower);
    }
    if let Some((_, kind, code)) = names.iter().find(|(name, ..)| *name == lower) {
        return Some(spell(*kind, *code));
    }
    let mut begin = names.iter().filter(|(name, ..)| name.starts_with(&lower));
    if let Some((_, kind, code)) = begin.next().filter(|_| !lower.is_empty()) {
        return begin.next().is_none().then(|| spell(*kind, *code));
    }
    let (kind, code) = match typed.split_once('/') {
        Some((kind, code)) => (kind, Some(number(code)?.try_into().ok()?)),
        None => (typed, None),
    };
    let kind: u8 = number(kind)?.try_into().ok()?;
    // IPv4's 255 is every type.
    Some(match (family, kind, code) {
        (Family::V4, 255, None) => "any".to_owned(),
        (_, kind, code) => spell(kind, code),
    })
}

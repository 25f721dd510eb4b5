//! Rules that iptables or the kernel refuses because of their place or because two parts of them do not fit.

use super::place::TypedPlace;
use crate::netfilter::names::ChainName::{Forward, Input, Output, Postrouting, Prerouting};
use crate::netfilter::names::TableName;
use crate::netfilter::text::typed::command::{Loaded, TypedRule};
use crate::netfilter::text::typed::error::TypedProblem;
use crate::netfilter::text::typed::values::addresses::nat_to;
use crate::netfilter::text::typed::values::protocols;

/// Checks that a rule may stand in its place.
pub(super) fn check(rule: &TypedRule, place: TypedPlace<'_>) -> Result<(), TypedProblem> {
    let refused = interfaces(rule, place)
        .or_else(|| owner(rule, place))
        .or_else(|| target(rule, place))
        .or_else(|| ports(rule, place));
    refused.map_or(Ok(()), |why| Err(TypedProblem::Refused(why)))
}

fn interfaces(rule: &TypedRule, place: TypedPlace<'_>) -> Option<&'static str> {
    match place.chain {
        Output | Postrouting if rule.ingress.is_some() => {
            Some("`-i` cannot stand in OUTPUT or POSTROUTING")
        }
        Input | Prerouting if rule.egress.is_some() => {
            Some("`-o` cannot stand in PREROUTING or INPUT")
        }
        _ => None,
    }
}

/// Only packets of the machine itself have an owner.
fn owner(rule: &TypedRule, place: TypedPlace<'_>) -> Option<&'static str> {
    let mut matches = rule.matches.iter();
    let asks_owner = matches.any(|loaded| loaded.extension.name == "owner");
    let is_refused = matches!(place.chain, Prerouting | Input | Forward);
    (asks_owner && is_refused).then_some("`-m owner` stands in OUTPUT or POSTROUTING")
}

/// Chains that users made are checked by the kernel with those that lead to them, which is not done here.
fn target(rule: &TypedRule, place: TypedPlace<'_>) -> Option<&'static str> {
    let TypedPlace { table, chain, .. } = place;
    let name = rule.target.as_ref()?.name.as_str();
    let is_there = |chains: &[_]| !chain.is_builtin() || chains.contains(chain);
    match name {
        "DNAT" | "REDIRECT" if table != TableName::Nat || !is_there(&[Prerouting, Output]) => {
            Some("DNAT and REDIRECT stand in PREROUTING or OUTPUT of the table nat")
        }
        "SNAT" if table != TableName::Nat || !is_there(&[Postrouting, Input]) => {
            Some("SNAT stands in POSTROUTING or INPUT of the table nat")
        }
        "MASQUERADE" if table != TableName::Nat || !is_there(&[Postrouting]) => {
            Some("MASQUERADE stands in POSTROUTING of the table nat")
        }
        "NETMAP" if table != TableName::Nat => Some("NETMAP stands in the table nat"),
        "REJECT" if table != TableName::Filter || !is_there(&[Input, Forward, Output]) => {
            Some("REJECT stands in the table filter")
        }
        "CT" | "NOTRACK" if table != TableName::Raw => {
            Some("CT and NOTRACK stand in the table raw")
        }
        "TPROXY" if table != TableName::Mangle || !is_there(&[Prerouting]) => {
            Some("TPROXY stands in PREROUTING of the table mangle")
        }
        "DROP" if table == TableName::Nat => Some(
            "DROP cannot stand in the table nat, which sees only the first packet of a connection",
        ),
        _ => None,
    }
}

/// The protocols whose packets have ports that `-m multiport` and nat know.
const WITH_PORTS: [&str; 5] = ["tcp", "udp", "udplite", "sctp", "dccp"];

fn ports(rule: &TypedRule, place: TypedPlace<'_>) -> Option<&'static str> {
    let protocol = rule.protocol.as_ref().filter(|typed| !typed.is_negated);
    let spelled = protocol.and_then(|typed| protocols::spelled(&typed.value));
    let spelled = spelled.as_deref().unwrap_or_default();
    let module = protocol.and_then(|typed| protocols::module(&typed.value, place.family));
    let has_ports = WITH_PORTS.contains(&spelled);
    for loaded in &rule.matches {
        match loaded.extension.name {
            "multiport" if !has_ports => {
                return Some(
                    "`-m multiport` needs `-p tcp`, `-p udp` or another protocol with ports",
                );
            }
            name @ ("tcp" | "udp" | "sctp" | "dccp" | "icmp" | "icmp6" | "esp" | "ah" | "mh")
                if module != Some(name) =>
            {
                return Some("a match of a protocol needs that protocol behind `-p`");
            }
            _ => {}
        }
    }
    let loaded = rule.target.as_ref()?.loaded.as_ref()?;
    let needs_tcp = loaded.extension.name == "TCPMSS"
        || matches!(loaded.value("reject-with"), Some("tcp-reset" | "tcp-rst"));
    if gives_ports(loaded, place) && !has_ports {
        return Some("a target with ports needs `-p tcp`, `-p udp` or another protocol with ports");
    }
    (needs_tcp && spelled != "tcp").then_some("the target needs `-p tcp`")
}

fn gives_ports(loaded: &Loaded, place: TypedPlace<'_>) -> bool {
    let to = ["to-destination", "to-source"].into_iter();
    let mut to = to.filter_map(|option| loaded.value(option));
    loaded.given("to-ports").is_some()
        || to.any(|to| nat_to(to, place.family).is_some_and(|to| to.has_ports))
}

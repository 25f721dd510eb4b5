//! One entry of `forwards`, from all pieces that have its name.

use serde_yaml::Value;

use super::nets::{allowed, list};
use super::values::{interfaces, limits, log, mapping, one_or_list, ports, snats, text};
use crate::forwards::{Balance, Firewall, Forward, Listen, Snat, Sources, TargetKind, TargetPorts};
use crate::net::{Family, Port, Protocol};

/// Returns the entry of a forward. `pieces` are those of its name, at least one; they differ in protocol and listener
/// alone.
pub fn value(pieces: &[Forward], firewall: &Firewall) -> Value {
    let first = &pieces[0];
    let Forward {
        name,
        description,
        listen: _,
        protocol: _,
        target: _,
        ingress,
        egress,
        snat,
        sources: Sources { allow, deny },
        limits: limited,
        log: logged,
        hairpin,
    } = first;
    let has_own_sides = *ingress != firewall.ingress || *egress != firewall.egress;
    let has_own_snat = firewall.snat.of(first.family()) != Some(*snat);
    let allow = allow.as_ref().map(|nets| allowed(nets, first.family()));
    let deny = (!deny.is_empty()).then(|| list(deny.as_slice()));
    mapping([
        ("name", Some(text(name))),
        (
            "description",
            description.as_ref().map(|words| text(words.as_str())),
        ),
        ("listen", Some(listeners(pieces))),
        ("protocol", protocols(pieces)),
        ("target", Some(target(first))),
        (
            "balance",
            (first.target.balance == Balance::Client).then(|| text("client")),
        ),
        (
            "interface",
            has_own_sides.then(|| interfaces(ingress, egress)),
        ),
        (
            "snat",
            has_own_snat
                .then(|| own_snat(*snat, first.family()))
                .flatten(),
        ),
        ("allow_from", allow),
        ("deny_from", deny),
        ("limits", limited.as_ref().map(limits)),
        ("log", logged.as_ref().map(|one| log(one, name))),
        ("hairpin", hairpin.then_some(Value::from(true))),
        (
            "silence",
            takes_ssh(pieces).then(|| one_item_list("takes-ssh")),
        ),
    ])
}

fn own_snat(snat: Snat, family: Family) -> Option<Value> {
    match (snat, family) {
        // A word stands for both families.
        (Snat::Masquerade | Snat::Client, _) => Some(text(&snat)),
        (_, Family::V4) => snats(Some(snat), None),
        (_, Family::V6) => snats(None, Some(snat)),
    }
}

fn one_item_list(word: &str) -> Value {
    Value::Sequence(vec![text(word)])
}

/// Returns whether a spec must say that the listener is meant.
fn takes_ssh(pieces: &[Forward]) -> bool {
    let is_ssh = |one: &Forward| {
        let ports = one.listen.ports;
        one.protocol == Protocol::Tcp && Port::new(22).is_some_and(|ssh| ports.contains(ssh))
    };
    pieces.iter().any(is_ssh)
}

fn listeners(pieces: &[Forward]) -> Value {
    let protocol = pieces[0].protocol;
    let of_one = pieces.iter().filter(|one| one.protocol == protocol);
    let listens: Vec<Listen> = of_one.map(|one| one.listen).collect();
    let item = |listen: &Listen| match listen.address {
        None => ports(listen.ports),
        Some(_) => text(listen),
    };
    // Only beside a list may a pod be without a port.
    let target = &pieces[0].target;
    let is_without_port = target
        .destinations
        .iter()
        .any(|to| to.ports == TargetPorts::Kept);
    if target.kind == TargetKind::Pod && is_without_port {
        Value::Sequence(listens.iter().map(item).collect())
    } else {
        one_or_list(listens.iter().map(item))
    }
}

/// Returns the protocols; `None` for TCP alone, which is the default.
fn protocols(pieces: &[Forward]) -> Option<Value> {
    let mut found: Vec<Protocol> = Vec::new();
    for piece in pieces {
        if !found.contains(&piece.protocol) {
            found.push(piece.protocol);
        }
    }
    (found != [Protocol::Tcp]).then(|| one_or_list(found.iter().map(text)))
}

fn target(forward: &Forward) -> Value {
    let kind = match forward.target.kind {
        TargetKind::Ilb => "ilb",
        TargetKind::Pod => "pod",
    };
    let destinations = forward.target.destinations.iter();
    mapping([(kind, Some(one_or_list(destinations.map(text))))])
}

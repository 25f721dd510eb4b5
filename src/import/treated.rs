//! The parts of a redirection that FORWARD and POSTROUTING treat alike, each a forward.

use super::names::description;
use super::redirect::Redirect;
use super::treatment::{RedirectPart, RedirectedWay};
use crate::forwards::{
    Balance, Destination, Forward, ForwardTarget, Listen, Name, TargetKind, TargetPorts,
};
use crate::net::{Interface, PortRange, Protocol};

/// Parts of a redirection that are treated alike.
#[derive(Debug)]
pub struct Treated {
    pub protocols: Vec<Protocol>,
    pub ingress: Vec<Interface>,
    pub listens: Vec<Listen>,
    pub destinations: Vec<Destination>,
    /// At least one; all mean the same.
    pub ways: Vec<RedirectedWay>,
}

impl Treated {
    /// Returns the forwards, one for each protocol and range of ports.
    pub fn forwards(&self, one: &Redirect<'_>, name: &Name) -> Vec<Forward> {
        let group = self;
        let way = &group.ways[0];
        let of_protocol = |protocol: &Protocol| {
            let protocol = *protocol;
            group.listens.iter().map(move |listen| Forward {
                name: name.clone(),
                description: description(one.comment),
                listen: *listen,
                protocol,
                target: target(one, &group.destinations),
                ingress: group.ingress.clone(),
                egress: way.egress.clone(),
                snat: way.origin.snat,
                sources: way.admission.sources.clone(),
                limits: way.admission.limits,
                log: way.admission.log.clone(),
                hairpin: way.origin.hairpin,
            })
        };
        group.protocols.iter().flat_map(of_protocol).collect()
    }
}

/// Returns the target of a forward. No rule says whether an address is a load balancer's: one without a port counts as
/// one.
fn target(one: &Redirect<'_>, destinations: &[Destination]) -> ForwardTarget {
    let is_kept = destinations.iter().all(|to| to.ports == TargetPorts::Kept);
    ForwardTarget {
        kind: if is_kept && destinations.len() == 1 {
            TargetKind::Ilb
        } else {
            TargetKind::Pod
        },
        destinations: destinations.to_vec(),
        balance: if one.by_client {
            Balance::Client
        } else {
            Balance::Random
        },
    }
}

/// Brings the parts of a redirection together that mean the same: neighbouring ports, then interfaces, then protocols.
pub fn alike(parts: Vec<(RedirectPart, RedirectedWay)>, one: &Redirect<'_>) -> Vec<Treated> {
    let mut groups: Vec<Treated> = Vec::new();
    for (part, way) in parts {
        let listen = Listen {
            ports: part.ports,
            ..part.listen
        };
        let shifts = one.destinations.iter().any(|to| match to.ports {
            TargetPorts::Kept => false,
            TargetPorts::Range(range) => !range.is_single(),
        });
        let same = groups.iter_mut().find(|group| {
            group.protocols == [part.protocol]
                && group.ingress == std::slice::from_ref(&part.ingress)
                && group.ways[0].means_the_same(&way)
                && (!shifts || follows(group.listens.last(), listen))
        });
        let Some(group) = same else {
            groups.push(Treated {
                protocols: vec![part.protocol],
                ingress: vec![part.ingress],
                listens: vec![listen],
                destinations: Vec::new(),
                ways: vec![way],
            });
            continue;
        };
        group.ways.push(way);
        match group.listens.last_mut() {
            Some(last) if follows(Some(last), listen) && is_of_one(one, *last, listen) => {
                last.ports =
                    PortRange::new(last.ports.first(), listen.ports.last()).unwrap_or(last.ports);
            }
            _ => group.listens.push(listen),
        }
    }
    let groups = merged(groups, |group, other| {
        group.protocols == other.protocols && group.listens == other.listens
    });
    let mut groups = merged(groups, |group, other| {
        group.ingress == other.ingress && group.listens == other.listens
    });
    for group in &mut groups {
        let listen = group.listens[0];
        let around = one
            .listens
            .iter()
            .find(|one| one.ports.shared(listen.ports).is_some());
        let around = *around.unwrap_or(&listen);
        group.destinations = one.of_ports(around, listen.ports).unwrap_or_default();
    }
    groups
}

fn follows(last: Option<&Listen>, listen: Listen) -> bool {
    last.is_some_and(|last| {
        u32::from(last.ports.last().number()) + 1 == u32::from(listen.ports.first().number())
    })
}

/// Returns whether two ranges are parts of one range of a redirection.
fn is_of_one(one: &Redirect<'_>, first: Listen, second: Listen) -> bool {
    one.listens.iter().any(|listen| {
        listen.ports.shared(first.ports).is_some() && listen.ports.shared(second.ports).is_some()
    })
}

fn merged(groups: Vec<Treated>, may: impl Fn(&Treated, &Treated) -> bool) -> Vec<Treated> {
    let mut merged: Vec<Treated> = Vec::new();
    for group in groups {
        let same = merged
            .iter_mut()
            .find(|other| other.ways[0].means_the_same(&group.ways[0]) && may(other, &group));
        let Some(other) = same else {
            merged.push(group);
            continue;
        };
        for protocol in group.protocols {
            if !other.protocols.contains(&protocol) {
                other.protocols.push(protocol);
            }
        }
        for interface in group.ingress {
            if !other.ingress.contains(&interface) {
                other.ingress.push(interface);
            }
        }
        other.ways.extend(group.ways);
    }
    merged
}

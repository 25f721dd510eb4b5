//! DNAT rules, and the listeners and targets that they say.

use std::net::IpAddr;

use super::addresses::Addresses;
use super::conditions::{RuleConditions, Share};
use super::place::{ImportedPlace, RuleWay};
use super::remark::ImportRemark;
use super::walk::Met;
use crate::forwards::{Destination, Listen, TargetPorts};
use crate::net::{AddressRange, Family, Interface, Port, PortRange, Protocol};
use crate::netfilter::interface::InterfacePattern;
use crate::netfilter::negatable::Negatable::{self, Is, Not};
use crate::netfilter::target::{DnatPorts, Target};
use crate::netfilter::text::parse::{DnatRange, dnat_range};
use crate::netfilter::token::Token;

/// A listener and its target, as one DNAT rule says it.
#[derive(Debug, Clone)]
pub struct Redirect<'r> {
    pub places: Vec<ImportedPlace>,
    /// The ways to these rules.
    pub ways: Vec<RuleWay>,
    pub listens: Vec<Listen>,
    /// At least one.
    pub protocols: Vec<Protocol>,
    /// Empty: every interface.
    pub ingress: Vec<Interface>,
    pub sources: Addresses,
    pub destinations: Vec<Destination>,
    pub share: Option<Share>,
    /// `--persistent` over several addresses.
    pub by_client: bool,
    pub comment: Option<&'r str>,
    pub remarks: Vec<(ImportedPlace, ImportRemark)>,
}

impl Redirect<'_> {
    /// Returns the interfaces by which its packets come in. `entrance` stands for every interface.
    pub fn ingress_or(&self, entrance: &Interface) -> Vec<Interface> {
        if self.ingress.is_empty() {
            vec![entrance.clone()]
        } else {
            self.ingress.clone()
        }
    }

    /// Returns whether some clients are left out at the port of ssh.
    pub fn keeps_some_from_ssh(&self) -> bool {
        let is_ssh = |listen: &Listen| Port::new(22).is_some_and(|ssh| listen.ports.contains(ssh));
        !self.sources.are_all()
            && self.protocols.contains(&Protocol::Tcp)
            && self.listens.iter().any(is_ssh)
    }

    /// Returns the redirection of some of its ports, which lie in `listen`; `None` if the ports of its targets depend on
    /// theirs in a way that a forward cannot say.
    pub fn of_ports(&self, listen: Listen, ports: PortRange) -> Option<Vec<Destination>> {
        let each = self.destinations.iter().map(|to| {
            let ports = match to.ports {
                TargetPorts::Range(all) if !all.is_single() => {
                    TargetPorts::Range(shifted_part(all, listen.ports, ports)?)
                }
                other => other,
            };
            Some(Destination { ports, ..*to })
        });
        each.collect()
    }

    /// Returns the ports of its listeners.
    pub fn listen_ports(&self) -> Vec<PortRange> {
        self.listens.iter().map(|listen| listen.ports).collect()
    }

    /// Leaves ports out. Returns `None`, and leaves the redirection as it is, if its targets' ports depend on theirs.
    pub fn leave_ports(&mut self, ports: &[PortRange]) -> Option<()> {
        let is_shifted = self.destinations.iter().any(|to| match to.ports {
            TargetPorts::Kept => false,
            TargetPorts::Range(ports) => !ports.is_single(),
        });
        let left = self.listens.iter().flat_map(|listen| {
            let left = ports.iter().fold(vec![listen.ports], |left, taken| {
                left.into_iter()
                    .flat_map(|one| one.without(*taken))
                    .collect()
            });
            left.into_iter().map(|ports| Listen { ports, ..*listen })
        });
        let left: Vec<Listen> = left.collect();
        if is_shifted && !left.is_empty() && left != self.listens {
            return None;
        }
        self.listens = left;
        Some(())
    }

    /// Returns the ports at its targets to which some of its ports lead.
    pub fn target_ports(&self, listen: Listen, ports: PortRange) -> Vec<PortRange> {
        let each = self.of_ports(listen, ports).unwrap_or_default();
        each.into_iter()
            .map(|to| match to.ports {
                TargetPorts::Kept => ports,
                TargetPorts::Range(ports) => ports,
            })
            .collect()
    }
}

/// Returns the part of a shifted range that belongs to a part of the listener's ports.
fn shifted_part(to: PortRange, listen: PortRange, part: PortRange) -> Option<PortRange> {
    let at = |port: Port| {
        let from_first = port.number().checked_sub(listen.first().number())?;
        Port::new(to.first().number().checked_add(from_first)?)
    };
    PortRange::new(at(part.first())?, at(part.last())?).ok()
}

/// Reads a DNAT rule.
///
/// # Errors
/// The reason why a spec cannot say it.
pub fn redirect<'r>(met: &Met<'r>, family: Family) -> Result<Redirect<'r>, String> {
    let conditions = &met.conditions;
    let protocols = protocols(conditions)?;
    if !conditions.beyond.is_empty() {
        return Err(format!(
            "it asks for {}, which a spec has no words for",
            conditions.beyond_words()
        ));
    }
    if conditions.has_limit() {
        return Err("it redirects a part of the connections only, by a limit".to_owned());
    }
    if conditions.for_replies {
        return Err("no packet that opens a connection meets it".to_owned());
    }
    if conditions.to_machine == Some(false) {
        return Err("it redirects packets that only pass through the machine".to_owned());
    }
    let mut remarks = Vec::new();
    let mut remark = |one| remarks.push((met.place.clone(), one));
    let address = listen_address(conditions)?;
    if address.is_none() && conditions.to_machine != Some(true) {
        remark(ImportRemark::TakesTransit);
    }
    let ranges = match (&conditions.ports, address) {
        (Some(ranges), _) => ranges.clone(),
        (None, Some(_)) => {
            if conditions.protocol.is_none() {
                remark(ImportRemark::EveryProtocol);
            }
            vec![PortRange::ALL]
        }
        (None, None) => {
            return Err(
                "it takes every port of every address, the machine's own included".to_owned(),
            );
        }
    };
    let sources = conditions.sources(family);
    if !sources.are_all() {
        remark(ImportRemark::OthersReachedMachine);
    }
    let target = target(met, &ranges)?;
    if target
        .destinations
        .iter()
        .any(|to| to.address.is_loopback())
    {
        return Err("its target is the machine itself; a forward leads to another host".to_owned());
    }
    if target.is_chosen_otherwise {
        remark(ImportRemark::OtherShares);
    }
    Ok(Redirect {
        places: vec![met.place.clone()],
        ways: vec![met.way()],
        listens: ranges
            .into_iter()
            .map(|ports| Listen { address, ports })
            .collect(),
        protocols,
        ingress: ingress(&conditions.ingress)?,
        sources,
        destinations: target.destinations,
        share: conditions.share,
        by_client: target.by_client,
        comment: conditions.comment,
        remarks,
    })
}

fn listen_address(conditions: &RuleConditions<'_>) -> Result<Option<IpAddr>, String> {
    match conditions.destination.as_slice() {
        [] => Ok(None),
        [Is(net)] if net.prefix_len() == net.max_prefix_len() => Ok(Some(net.addr())),
        [Is(net)] => Err(format!(
            "it listens at all addresses of {net}; a listener has one address, or all that the machine has"
        )),
        [Not(_)] => Err(
            "it listens at all addresses but some; a listener has one, or all that the machine has"
                .to_owned(),
        ),
        _ => Err("its chain and the rule itself both ask for a destination".to_owned()),
    }
}

fn protocols(conditions: &RuleConditions<'_>) -> Result<Vec<Protocol>, String> {
    match conditions.protocol {
        None => Ok(vec![Protocol::Tcp, Protocol::Udp]),
        Some(Is(protocol)) => match protocol.transport() {
            Some(protocol) => Ok(vec![protocol]),
            None => Err(format!("it redirects {protocol}; a forward has TCP or UDP")),
        },
        Some(Not(_)) => Err("it redirects all protocols but one".to_owned()),
    }
}

fn ingress(patterns: &[&Negatable<InterfacePattern>]) -> Result<Vec<Interface>, String> {
    match patterns {
        [] => Ok(Vec::new()),
        [Is(pattern)] => match pattern.exact() {
            Some(interface) => Ok(vec![interface.clone()]),
            None => Err("its -i stands for several interfaces; a forward names each".to_owned()),
        },
        [Not(_)] => Err("it takes all interfaces but one; a forward names each".to_owned()),
        _ => Err("its chain and the rule itself both ask for an interface".to_owned()),
    }
}

struct TargetOf {
    destinations: Vec<Destination>,
    by_client: bool,
    is_chosen_otherwise: bool,
}

fn target(met: &Met<'_>, listens: &[PortRange]) -> Result<TargetOf, String> {
    let one = |address, ports| TargetOf {
        destinations: vec![Destination { address, ports }],
        by_client: false,
        is_chosen_otherwise: false,
    };
    match &met.rule.target {
        Some(Target::Dnat { address, ports }) => {
            let ports = match ports {
                DnatPorts::Kept => TargetPorts::Kept,
                DnatPorts::One(port) => TargetPorts::Range(PortRange::from(*port)),
                DnatPorts::Shifted { to, base } => shifted(*to, *base, listens)?,
            };
            Ok(one(*address, ports))
        }
        Some(Target::Other(words)) => several(words, listens),
        _ => Err("it is no DNAT".to_owned()),
    }
}

fn shifted(to: PortRange, base: Port, listens: &[PortRange]) -> Result<TargetPorts, String> {
    match listens {
        [only] if only.first() == base && only.count() == to.count() => Ok(TargetPorts::Range(to)),
        _ => Err("its ports are shifted in a way that a forward cannot say".to_owned()),
    }
}

/// Returns the targets of a redirection to several addresses, or of one with flags.
fn several(words: &[Token], listens: &[PortRange]) -> Result<TargetOf, String> {
    let DnatRange {
        addresses,
        ports,
        flags,
    } = dnat_range(words).ok_or("its target has a form that nvactl does not read")?;
    if let Some(flag) = flags.iter().find(|flag| *flag != "--persistent") {
        return Err(format!(
            "its DNAT has `{flag}`, which a spec has no words for"
        ));
    }
    let ports = match (ports, listens) {
        (None, _) => TargetPorts::Kept,
        // A range that is equal to the listener's keeps each port.
        (Some(ports), [only]) if *only == ports && !ports.is_single() => TargetPorts::Kept,
        (Some(ports), _) if ports.is_single() => TargetPorts::Range(ports),
        _ => return Err("it gives connections any of several ports".to_owned()),
    };
    let addresses: Vec<IpAddr> = addresses_of(addresses).take(MOST_TARGETS + 1).collect();
    if addresses.len() > MOST_TARGETS {
        return Err(format!("it has more than {MOST_TARGETS} targets"));
    }
    Ok(TargetOf {
        by_client: !flags.is_empty() && addresses.len() > 1,
        is_chosen_otherwise: addresses.len() > 1,
        destinations: addresses
            .into_iter()
            .map(|address| Destination { address, ports })
            .collect(),
    })
}

/// The most targets of one forward (docs/spec.md).
const MOST_TARGETS: usize = 32;

/// Returns the addresses of a range in order.
pub fn addresses_of(range: AddressRange) -> impl Iterator<Item = IpAddr> {
    let next = |address: IpAddr| match address {
        IpAddr::V4(address) => address
            .to_bits()
            .checked_add(1)
            .map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(address) => address
            .to_bits()
            .checked_add(1)
            .map(|bits| IpAddr::V6(bits.into())),
    };
    std::iter::successors(Some(range.first()), move |address| {
        next(*address).filter(|next| *next <= range.last())
    })
}

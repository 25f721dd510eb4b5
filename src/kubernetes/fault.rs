//! The faults of a spec's targets, according to the objects.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::names::KubeName;
use super::objects::{KubeHolder, KubeKind, KubeObjects};
use super::protocol::KubeProtocol;
use super::service::no_rule_annotation;
use crate::net::words::few;
use crate::net::{Port, PortRange, Protocol};

/// The most ports that a message lists.
const MOST_PORTS: usize = 6;

/// The most objects that a message names.
const MOST_NAMES: usize = 2;

/// The fault of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetFault {
    /// No object has its address.
    NoObject {
        /// The objects that there are.
        contents: String,
        /// Whether pods, or the endpoints of Services, are among them.
        with_pods: bool,
        /// The namespace of all objects, if they have one: kubectl was asked for no other.
        namespace: Option<String>,
    },
    /// It is a cluster address, which exists on the nodes of the cluster alone.
    InCluster {
        service: KubeName,
        /// The address of the Service's load balancer, if it has one of the family.
        balancer: Option<IpAddr>,
    },
    /// The objects that have its address do not have all its ports.
    NoPort(Box<WrongPorts>),
}

/// Ports that the objects of an address do not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongPorts {
    /// The object or several, with the verb: ``the pod `a/web` has``.
    pub holders: String,
    /// The ports that it does not have.
    pub missing: String,
    /// The ports that it has.
    pub has: String,
    /// The port to write, if a Service has only one of the protocol.
    pub instead: Option<Port>,
}

impl KubeObjects {
    /// Returns what is wrong with a target; `None` if nothing is, or the objects do not say it.
    #[must_use]
    pub fn fault(
        &self,
        address: IpAddr,
        protocols: &[Protocol],
        ports: &[PortRange],
    ) -> Option<TargetFault> {
        let Some(holders) = self.holders.get(&address) else {
            // The address of a node is not known without the nodes.
            let has_nodes = self.counts.contains_key(&KubeKind::Node);
            let missing = MissingPorts::of(&self.node_ports, protocols, ports);
            if !has_nodes && missing.count == 0 {
                return None;
            }
            return Some(TargetFault::NoObject {
                contents: self.contents(),
                with_pods: self.has_pods(),
                namespace: self.only_namespace().map(str::to_owned),
            });
        };
        if let Some(fault) = self.in_cluster(address) {
            return Some(fault);
        }
        // A pod or a node may have ports that its object does not name.
        let known = holders.iter().map(|holder| holder.ports.as_ref());
        let known: Option<Vec<_>> = known.collect();
        let known: BTreeSet<(KubeProtocol, Port)> = known?.into_iter().flatten().copied().collect();
        let has = |kind| holders.iter().any(|holder| holder.kind == kind);
        let is_service = has(KubeKind::Service);
        // The endpoint may be a pod in the network of its node.
        let maybe_node = !is_service && !has(KubeKind::Pod);
        let missing = if maybe_node {
            MissingPorts::of(&(&known | &self.node_ports), protocols, ports)
        } else {
            MissingPorts::of(&known, protocols, ports)
        };
        let (first, _) = missing.first.first()?;
        let mut of_protocol = known.iter().filter(|(protocol, _)| protocol == first);
        let instead = match (of_protocol.next(), of_protocol.next(), missing.count) {
            // The ports that a pod names inform only.
            (Some((_, port)), None, 1) if is_service || has(KubeKind::Endpoints) => Some(*port),
            _ => None,
        };
        Some(TargetFault::NoPort(Box::new(WrongPorts {
            holders: holder_words(holders),
            missing: missing.words(),
            has: format!("{}{}", port_words(&known), without_rule(holders)),
            instead,
        })))
    }

    /// Returns the fault of a cluster address; `None` for another one.
    fn in_cluster(&self, address: IpAddr) -> Option<TargetFault> {
        let service = self.services.get(*self.in_cluster.get(&address)?)?;
        if service.ingress.contains(&address) || service.external.contains(&address) {
            return None;
        }
        let mut balancers = service.ingress.iter().copied();
        Some(TargetFault::InCluster {
            service: service.name.clone(),
            balancer: balancers.find(|one| one.is_ipv4() == address.is_ipv4()),
        })
    }
}

/// The ports that a target needs and its objects do not have. Only the first of many are listed.
struct MissingPorts {
    first: Vec<(KubeProtocol, Port)>,
    count: usize,
}

impl MissingPorts {
    fn of(
        known: &BTreeSet<(KubeProtocol, Port)>,
        protocols: &[Protocol],
        ports: &[PortRange],
    ) -> Self {
        let mut missing = Self {
            first: Vec::new(),
            count: 0,
        };
        for protocol in protocols.iter().map(|one| KubeProtocol::from(*one)) {
            for range in ports {
                let there = known.range((protocol, range.first())..=(protocol, range.last()));
                missing.count += range.count() as usize - there.count();
                let each = numbers(*range).map(|port| (protocol, port));
                let further = each.filter(|one| !known.contains(one));
                let room = MOST_PORTS - missing.first.len();
                missing.first.extend(further.take(room));
            }
        }
        missing
    }

    fn words(&self) -> String {
        let listed = few(self.first.iter().copied().map(port_word), MOST_PORTS);
        match self.count - self.first.len() {
            0 => listed,
            more => format!("{listed} and {more} more"),
        }
    }
}

fn port_word((protocol, port): (KubeProtocol, Port)) -> String {
    format!("{protocol}/{port}")
}

fn numbers(range: PortRange) -> impl Iterator<Item = Port> {
    let numbers = range.first().number()..=range.last().number();
    numbers.filter_map(Port::new)
}

/// Returns the reason why a load balancer does not have ports of its Service.
fn without_rule(holders: &[KubeHolder]) -> String {
    let ports = holders.iter().flat_map(|holder| &holder.without_rule);
    let ports: BTreeSet<Port> = ports.copied().collect();
    let each = ports.iter().map(|port| no_rule_annotation(*port));
    let each = few(each.map(|name| format!("`{name}`")), MOST_PORTS);
    match ports.len() {
        0 => String::new(),
        1 => format!(" (the annotation {each} takes one from the load balancer)"),
        _ => format!(" (annotations take some from the load balancer: {each})"),
    }
}

/// Names the objects of an address, as the subject of "has" or "have". The name of a Service says more than those of its
/// endpoints.
fn holder_words(holders: &[KubeHolder]) -> String {
    let Some(kind) = holders.iter().map(|one| one.kind).min() else {
        return String::new();
    };
    let of_kind = holders.iter().filter(|one| one.kind == kind);
    let names: BTreeSet<String> = of_kind.map(|one| format!("`{}`", one.name)).collect();
    let (plural, verb) = match names.len() {
        1 => ("", "has"),
        _ => ("s", "have"),
    };
    format!("the {kind}{plural} {} {verb}", few(names, MOST_NAMES))
}

fn port_words(ports: &BTreeSet<(KubeProtocol, Port)>) -> String {
    if ports.is_empty() {
        return "none".to_owned();
    }
    few(ports.iter().copied().map(port_word), MOST_PORTS)
}

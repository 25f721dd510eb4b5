//! All objects of a file, and the addresses that they have.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use super::names::KubeName;
use super::protocol::KubeProtocol;
use super::service::KubeService;
use crate::net::Port;
use crate::net::words::counted;

/// The kinds of objects that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KubeKind {
    Service,
    Pod,
    /// Endpoints and endpoint slices.
    Endpoints,
    Node,
}

impl fmt::Display for KubeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KubeKind::Service => "Service",
            KubeKind::Pod => "pod",
            KubeKind::Endpoints => "endpoint object",
            KubeKind::Node => "node",
        })
    }
}

/// The objects of a file.
#[derive(Debug, Clone, Default)]
pub struct KubeObjects {
    pub services: Vec<KubeService>,
    /// How many objects of each kind there are; without kinds that have none.
    pub counts: BTreeMap<KubeKind, usize>,
    /// The namespaces of Services, pods and endpoints. A node has none.
    pub(super) namespaces: BTreeSet<String>,
    pub(super) holders: BTreeMap<IpAddr, Vec<KubeHolder>>,
    /// The places of the Services that have cluster addresses.
    pub(super) in_cluster: BTreeMap<IpAddr, usize>,
    /// The places of the Services in their list, by name. A file may have several of one name.
    places: BTreeMap<KubeName, Vec<usize>>,
    /// The ports of every node that lead to Services.
    pub(super) node_ports: BTreeSet<(KubeProtocol, Port)>,
}

/// An object that has an address.
#[derive(Debug, Clone)]
pub(super) struct KubeHolder {
    pub kind: KubeKind,
    pub name: KubeName,
    /// The ports that it has there; `None` if the object does not say them.
    pub ports: Option<BTreeSet<(KubeProtocol, Port)>>,
    /// The ports of a Service that its load balancer has no rule for.
    pub without_rule: BTreeSet<Port>,
}

impl KubeObjects {
    /// Adds a Service and its addresses, and counts it. A Service that is there already counts once.
    pub(super) fn add_service(&mut self, service: KubeService) {
        let of_name = self.places.entry(service.name.clone()).or_default();
        if of_name.iter().any(|at| self.services[*at] == service) {
            return;
        }
        of_name.push(self.services.len());
        self.count(KubeKind::Service);
        let ports = service.ports.iter().map(|one| (one.protocol, one.port));
        let holder = KubeHolder {
            kind: KubeKind::Service,
            name: service.name.clone(),
            ports: Some(ports.collect()),
            without_rule: BTreeSet::new(),
        };
        let place = self.services.len();
        let in_cluster = service.cluster.iter().map(|address| (*address, place));
        self.in_cluster.extend(in_cluster);
        self.add_holder(&holder, service.others());
        let ports = holder.ports.into_iter().flatten();
        let balanced = ports.filter(|(_, port)| !service.without_rule.contains(port));
        let holder = KubeHolder {
            ports: Some(balanced.collect()),
            without_rule: service.without_rule.clone(),
            ..holder
        };
        self.add_holder(&holder, service.ingress.iter().copied());
        let each = service.ports.iter();
        let each = each.filter_map(|one| Some((one.protocol, one.node_port?)));
        self.node_ports.extend(each);
        self.services.push(service);
    }

    /// Counts an object.
    pub(super) fn count(&mut self, kind: KubeKind) {
        *self.counts.entry(kind).or_default() += 1;
    }

    /// Adds the addresses of an object, or of a part of it.
    pub(super) fn add_holder(
        &mut self,
        holder: &KubeHolder,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) {
        if holder.kind != KubeKind::Node {
            self.namespaces.insert(holder.name.namespace.clone());
        }
        let addresses: BTreeSet<IpAddr> = addresses.into_iter().collect();
        for address in addresses {
            let holders = self.holders.entry(address).or_default();
            holders.push(holder.clone());
        }
    }

    /// Says how many objects of which kinds there are: `2 Services and no pods`.
    #[must_use]
    pub fn contents(&self) -> String {
        let each = self.counts.iter();
        let each = each.map(|(kind, count)| counted(*count, &kind.to_string()));
        let mut words: Vec<String> = each.collect();
        if words.is_empty() {
            words.push("no Services".to_owned());
        }
        let pods = if self.has_pods() { "" } else { " and no pods" };
        format!("{}{pods}", words.join(", "))
    }

    /// Returns the namespace of all objects, if they have one.
    #[must_use]
    pub fn only_namespace(&self) -> Option<&str> {
        let mut all = self.namespaces.iter();
        all.next()
            .filter(|_| all.next().is_none())
            .map(String::as_str)
    }

    /// Returns whether the file has pods, or the endpoints of Services.
    #[must_use]
    pub fn has_pods(&self) -> bool {
        let mut kinds = self.counts.keys();
        kinds.any(|kind| matches!(kind, KubeKind::Pod | KubeKind::Endpoints))
    }
}

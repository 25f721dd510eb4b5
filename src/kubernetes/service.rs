//! A Service: the ports that it exposes, and the addresses at which it does.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use super::names::KubeName;
use super::object::{Metadata, WrittenPort, WrittenService};
use super::protocol::KubeProtocol;
use crate::net::Port;

/// The annotation of an internal load balancer of Azure
/// (<https://learn.microsoft.com/azure/aks/internal-lb>).
const INTERNAL: &str = "service.beta.kubernetes.io/azure-load-balancer-internal";

/// The annotation that keeps Azure's load balancer from having a rule for a port, so nobody reaches the port there: its
/// beginning and its end, with the port between them
/// (<https://cloud-provider-azure.sigs.k8s.io/topics/loadbalancer/>).
const NO_RULE: [&str; 2] = ["service.beta.kubernetes.io/port_", "_no_lb_rule"];

/// The field, and the annotations, that restrict the clients of a load balancer: the old form of the field, and two of
/// Azure.
const SOURCE_RANGES: &str = "loadBalancerSourceRanges";
const RESTRICTING: [&str; 3] = [
    "service.beta.kubernetes.io/load-balancer-source-ranges",
    "service.beta.kubernetes.io/azure-allowed-ip-ranges",
    "service.beta.kubernetes.io/azure-allowed-service-tags",
];

/// The namespace of an object that names none.
const NAMESPACE: &str = "default";

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeService {
    pub name: KubeName,
    pub kind: ServiceType,
    /// Whether its annotation asks Azure for an internal load balancer.
    pub is_internal: bool,
    /// The ports at its load balancer, cluster addresses and external addresses. Pods may listen on others.
    pub ports: Vec<KubePort>,
    /// Those that its load balancer has no rule for. Its other addresses have them.
    pub without_rule: BTreeSet<Port>,
    /// The addresses of its load balancer, each once.
    pub ingress: Vec<IpAddr>,
    /// The names of its load balancer, if that has no address.
    pub hostnames: Vec<String>,
    /// Its cluster addresses. They exist on the nodes of the cluster alone.
    pub cluster: Vec<IpAddr>,
    /// Its external addresses.
    pub external: Vec<IpAddr>,
    /// The clients that its load balancer admits; empty for all.
    pub admits: Vec<AdmittedClients>,
}

/// Clients that a load balancer admits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmittedClients {
    /// Networks, or service tags of Azure, as they are written.
    pub who: Vec<String>,
    /// The field or the annotation.
    pub by: &'static str,
}

/// A port that a Service exposes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubePort {
    pub name: Option<String>,
    pub protocol: KubeProtocol,
    pub port: Port,
    /// The port of every node that leads to it.
    pub node_port: Option<Port>,
}

/// The type of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceType {
    LoadBalancer,
    /// Another type, by its name: `ClusterIP`, `NodePort`, `ExternalName`.
    Other(String),
}

impl fmt::Display for ServiceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServiceType::LoadBalancer => f.write_str("LoadBalancer"),
            ServiceType::Other(name) => f.write_str(name),
        }
    }
}

impl KubeService {
    /// Returns its cluster addresses and external addresses.
    pub fn others(&self) -> impl Iterator<Item = IpAddr> {
        self.cluster.iter().chain(&self.external).copied()
    }
}

/// Returns the annotation that keeps the load balancer from having a rule for a port.
#[must_use]
pub fn no_rule_annotation(port: Port) -> String {
    let [begin, end] = NO_RULE;
    format!("{begin}{port}{end}")
}

impl From<WrittenService> for KubeService {
    fn from(written: WrittenService) -> Self {
        let WrittenService {
            metadata,
            spec,
            status,
        } = written;
        let spec = spec.unwrap_or_default();
        let balancer = status.unwrap_or_default().load_balancer.unwrap_or_default();
        let ingress = balancer.ingress.unwrap_or_default();
        let annotations = metadata.annotations.as_ref();
        let internal = annotations.and_then(|all| all.get(INTERNAL));
        let cluster = spec.cluster_addresses.unwrap_or_default();
        let cluster = cluster.into_iter().chain(spec.cluster_address);
        let kind = match spec.kind.as_deref() {
            Some("LoadBalancer") => ServiceType::LoadBalancer,
            other => ServiceType::Other(other.unwrap_or("ClusterIP").to_owned()),
        };
        let ports = spec.ports.unwrap_or_default();
        let is_internal = internal.is_some_and(|value| value == "true");
        // Load balancers of others do not know the annotation.
        let is_without_rule = |port: &Port| {
            let value = annotations.and_then(|all| all.get(&no_rule_annotation(*port)));
            is_internal && value.is_some_and(|value| value.eq_ignore_ascii_case("true"))
        };
        let mut reached_at: Vec<IpAddr> = Vec::new();
        for address in ingress.iter().filter_map(|one| one.ip) {
            if !reached_at.contains(&address) {
                reached_at.push(address);
            }
        }
        let ranges = spec.load_balancer_source_ranges.unwrap_or_default();
        let written = RESTRICTING.into_iter().filter_map(|by| {
            let value = annotations?.get(by)?;
            let who = value
                .split(',')
                .map(str::trim)
                .filter(|one| !one.is_empty());
            let who: Vec<String> = who.map(str::to_owned).collect();
            Some(AdmittedClients { who, by })
        });
        let field = AdmittedClients {
            who: ranges,
            by: SOURCE_RANGES,
        };
        let all = [field].into_iter().chain(written);
        let admits = all.filter(|one| !one.who.is_empty()).collect();
        let numbers = ports.iter().map(|one| one.port);
        Self {
            without_rule: numbers.filter(is_without_rule).collect(),
            is_internal,
            name: name_of(metadata),
            kind,
            ports: ports.into_iter().map(KubePort::from).collect(),
            ingress: reached_at,
            hostnames: ingress.into_iter().filter_map(|one| one.hostname).collect(),
            cluster: addresses(cluster),
            external: addresses(spec.external_addresses.unwrap_or_default()),
            admits,
        }
    }
}

/// Returns addresses in order, each once. `None` is no address.
fn addresses(texts: impl IntoIterator<Item = String>) -> Vec<IpAddr> {
    let read = texts.into_iter().filter_map(|text| text.parse().ok());
    let read: BTreeSet<IpAddr> = read.collect();
    read.into_iter().collect()
}

impl From<WrittenPort> for KubePort {
    fn from(written: WrittenPort) -> Self {
        Self {
            name: written.name.filter(|name| !name.is_empty()),
            protocol: written.protocol,
            port: written.port,
            node_port: written.node_port.and_then(Port::new),
        }
    }
}

/// Returns the name of an object.
pub fn name_of(metadata: Metadata) -> KubeName {
    KubeName {
        namespace: metadata.namespace.unwrap_or_else(|| NAMESPACE.to_owned()),
        name: metadata.name,
    }
}

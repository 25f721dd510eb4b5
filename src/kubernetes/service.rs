//! A Service: the ports that it exposes, and the addresses at which it does.

use std::fmt;
use std::net::IpAddr;

use super::names::KubeName;
use super::object::{Metadata, WrittenPort, WrittenService};
use super::protocol::KubeProtocol;
use crate::net::Port;

/// The annotation of an internal load balancer of Azure
/// (<https://learn.microsoft.com/azure/aks/internal-lb>).
const INTERNAL: &str = "service.beta.kubernetes.io/azure-load-balancer-internal";

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
    /// The addresses of its load balancer.
    pub ingress: Vec<IpAddr>,
    /// The names of its load balancer, if that has no address.
    pub hostnames: Vec<String>,
    /// Its cluster addresses and external addresses.
    pub others: Vec<IpAddr>,
    /// The networks that its load balancer admits; empty for all.
    pub admits: Vec<String>,
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
    /// Returns all addresses at which it exposes its ports.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ingress.iter().chain(&self.others).copied()
    }
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
        let texts = [
            spec.cluster_address.into_iter().collect(),
            spec.cluster_addresses.unwrap_or_default(),
            spec.external_addresses.unwrap_or_default(),
        ];
        // `None` is no address.
        let others = texts.iter().flatten().filter_map(|text| text.parse().ok());
        let mut others: Vec<IpAddr> = others.collect();
        others.sort_unstable();
        others.dedup();
        let kind = match spec.kind.as_deref() {
            Some("LoadBalancer") => ServiceType::LoadBalancer,
            other => ServiceType::Other(other.unwrap_or("ClusterIP").to_owned()),
        };
        let ports = spec.ports.unwrap_or_default();
        Self {
            is_internal: internal.is_some_and(|value| value == "true"),
            name: name_of(metadata),
            kind,
            ports: ports.into_iter().map(KubePort::from).collect(),
            ingress: ingress.iter().filter_map(|one| one.ip).collect(),
            hostnames: ingress.into_iter().filter_map(|one| one.hostname).collect(),
            others,
            admits: spec.load_balancer_source_ranges.unwrap_or_default(),
        }
    }
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

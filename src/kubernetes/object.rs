//! The fields of objects that are read, as the API has them
//! (<https://kubernetes.io/docs/reference/kubernetes-api/>). A field that is null counts as missing: Go writes an empty
//! list so.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::protocol::KubeProtocol;
use crate::net::Port;

/// The fields of every object and every list.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an object of Kubernetes")]
#[serde(rename_all = "camelCase")]
pub struct Head<'t> {
    #[serde(borrow)]
    pub api_version: Option<Cow<'t, str>>,
    #[serde(borrow)]
    pub kind: Option<Cow<'t, str>>,
    /// The objects of a list, read one by one. Objects of other kinds may have any form.
    #[serde(borrow)]
    pub items: Option<Vec<&'t RawValue>>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "the metadata of an object")]
pub struct Metadata {
    pub name: String,
    pub namespace: Option<String>,
    pub annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub struct WrittenService {
    pub metadata: Metadata,
    pub spec: Option<WrittenServiceSpec>,
    pub status: Option<WrittenServiceStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "the spec of a Service")]
#[serde(rename_all = "camelCase")]
pub struct WrittenServiceSpec {
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub ports: Option<Vec<WrittenPort>>,
    /// An address, `None`, or empty.
    #[serde(rename = "clusterIP")]
    pub cluster_address: Option<String>,
    #[serde(rename = "clusterIPs")]
    pub cluster_addresses: Option<Vec<String>>,
    #[serde(rename = "externalIPs")]
    pub external_addresses: Option<Vec<String>>,
    pub load_balancer_source_ranges: Option<Vec<String>>,
}

/// A port of a Service, an Endpoints object, an `EndpointSlice` or a container.
#[derive(Debug, Deserialize)]
#[serde(expecting = "a port")]
pub struct WrittenPort {
    pub name: Option<String>,
    #[serde(default)]
    pub protocol: KubeProtocol,
    #[serde(deserialize_with = "port")]
    pub port: Port,
    /// The port of every node that leads to it; 0 for none. Only a Service has it.
    #[serde(rename = "nodePort")]
    pub node_port: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "the status of a Service")]
#[serde(rename_all = "camelCase")]
pub struct WrittenServiceStatus {
    pub load_balancer: Option<WrittenBalancer>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "an object")]
pub struct WrittenBalancer {
    pub ingress: Option<Vec<WrittenIngress>>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub struct WrittenIngress {
    pub ip: Option<IpAddr>,
    pub hostname: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub struct WrittenPod {
    pub metadata: Metadata,
    pub spec: Option<WrittenPodSpec>,
    pub status: Option<WrittenPodStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "an object")]
#[serde(rename_all = "camelCase")]
pub struct WrittenPodSpec {
    pub containers: Option<Vec<WrittenContainer>>,
    /// Those that are always restarted run beside the others: sidecars.
    pub init_containers: Option<Vec<WrittenContainer>>,
    /// Whether it has the addresses and ports of its node.
    pub host_network: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
#[serde(rename_all = "camelCase")]
pub struct WrittenContainer {
    /// They inform only: a container may listen on others too.
    pub ports: Option<Vec<WrittenContainerPort>>,
    pub restart_policy: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "a port")]
#[serde(rename_all = "camelCase")]
pub struct WrittenContainerPort {
    #[serde(default)]
    pub protocol: KubeProtocol,
    #[serde(deserialize_with = "port")]
    pub container_port: Port,
}

#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "an object")]
pub struct WrittenPodStatus {
    pub phase: Option<String>,
    #[serde(rename = "podIP")]
    pub address: Option<String>,
    #[serde(rename = "podIPs")]
    pub addresses: Option<Vec<WrittenPodAddress>>,
    /// An address of its node.
    #[serde(rename = "hostIP")]
    pub host_address: Option<String>,
}

/// An address of a pod, or of an Endpoints object.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub struct WrittenPodAddress {
    pub ip: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub struct WrittenEndpoints {
    pub metadata: Metadata,
    pub subsets: Option<Vec<WrittenSubset>>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
#[serde(rename_all = "camelCase")]
pub struct WrittenSubset {
    pub addresses: Option<Vec<WrittenPodAddress>>,
    pub not_ready_addresses: Option<Vec<WrittenPodAddress>>,
    pub ports: Option<Vec<WrittenPort>>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub struct WrittenSlice {
    pub metadata: Metadata,
    pub endpoints: Option<Vec<WrittenEndpoint>>,
    pub ports: Option<Vec<WrittenSlicePort>>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub struct WrittenEndpoint {
    pub addresses: Option<Vec<String>>,
}

/// It stands for every port if it names none.
#[derive(Debug, Deserialize)]
#[serde(expecting = "a port")]
pub struct WrittenSlicePort {
    #[serde(default)]
    pub protocol: KubeProtocol,
    pub port: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub struct WrittenNode {
    pub metadata: Metadata,
    pub status: Option<WrittenNodeStatus>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub struct WrittenNodeStatus {
    pub addresses: Option<Vec<WrittenNodeAddress>>,
}

/// An address, or a name.
#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
pub struct WrittenNodeAddress {
    pub address: String,
}

fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Port, D::Error> {
    let number = u16::deserialize(deserializer).ok();
    let port = number.and_then(Port::new);
    port.ok_or_else(|| D::Error::custom("a port is a number from 1 to 65535"))
}

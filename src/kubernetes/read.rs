//! Reads JSON of kubectl: one object, or a list.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::error::Category;
use thiserror::Error;

use super::names::KubeName;
use super::object::{
    Head, WrittenEndpoints, WrittenNode, WrittenPod, WrittenPodSpec, WrittenPort, WrittenService,
    WrittenSlice,
};
use super::objects::{KubeHolder, KubeKind, KubeObjects};
use super::protocol::KubeProtocol;
use super::service::name_of;
use crate::net::Port;

/// The reason why a text is not objects of Kubernetes. Lines and columns count from 1; columns count bytes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KubeError {
    #[error("the text is empty")]
    Empty,
    #[error("the text is not UTF-8")]
    NotUtf8,
    #[error("the text is UTF-16, which PowerShell writes with `>`")]
    Utf16,
    #[error("line {line}, column {column}: {reason}")]
    Json {
        line: usize,
        column: usize,
        reason: String,
    },
    #[error(
        "line {line}, column {column}: this is no object of Kubernetes, since it has no `kind`"
    )]
    NoKind { line: usize, column: usize },
    #[error(
        "line {line}, column {column}: this is no object of Kubernetes, since it has no `apiVersion`"
    )]
    NoVersion { line: usize, column: usize },
}

impl KubeError {
    /// Returns the command that prints what is expected.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            KubeError::Utf16 => {
                "in PowerShell: kubectl get services --all-namespaces -o json | Out-File -Encoding utf8 services.json"
            }
            _ => "to write the file: kubectl get services --all-namespaces -o json > services.json",
        }
    }
}

/// Reads objects. A list may have objects of any kind; other kinds than [`KubeKind`] are passed over.
///
/// # Errors
/// If the text is not JSON, is not an object with a `kind`, or an object of a known kind has a field of another type.
pub fn read(text: &[u8]) -> Result<KubeObjects, KubeError> {
    if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") {
        return Err(KubeError::Utf16);
    }
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let text = str::from_utf8(text).map_err(|_| KubeError::NotUtf8)?;
    if text.trim().is_empty() {
        return Err(KubeError::Empty);
    }
    let reader = KubeReader { text };
    let head = reader.head(text)?;
    let Some(kind) = head.kind.as_deref() else {
        return Err(reader.no_kind(text));
    };
    let mut objects = KubeObjects::default();
    let version = head.api_version.as_deref();
    match (head.items, kind.strip_suffix("List")) {
        (Some(items), Some(of_list)) => {
            for item in items {
                reader.add_item(item.get(), (version, of_list), &mut objects)?;
            }
        }
        // A list without items, as Go writes it.
        (None, Some(_)) => {}
        (_, None) => reader.add(text, (version, kind), &mut objects)?,
    }
    Ok(objects)
}

/// Reads parts of a text, and knows where they are.
struct KubeReader<'t> {
    text: &'t str,
}

impl<'t> KubeReader<'t> {
    /// Adds an object of a list. The items of a list of one kind have neither a kind nor a version of their own.
    fn add_item(
        &self,
        item: &'t str,
        (version, of_list): (Option<&str>, &str),
        objects: &mut KubeObjects,
    ) -> Result<(), KubeError> {
        let head = self.head(item)?;
        let kind = match &head.kind {
            Some(kind) => kind.as_ref(),
            None if of_list.is_empty() => return Err(self.no_kind(item)),
            None => of_list,
        };
        let version = head.api_version.as_deref().or(version);
        self.add(item, (version, kind), objects)
    }

    /// Adds an object, if its kind is known. Others have kinds of the same names.
    fn add(
        &self,
        item: &'t str,
        (version, kind): (Option<&str>, &str),
        objects: &mut KubeObjects,
    ) -> Result<(), KubeError> {
        let Some(version) = version else {
            let (line, column) = self.position(item, 1, 1);
            return Err(KubeError::NoVersion { line, column });
        };
        let kind = match (version, kind) {
            ("v1", "Service") => {
                let service: WrittenService = self.parsed(item)?;
                objects.add_service(service.into());
                return Ok(());
            }
            ("v1", "Pod") => {
                add_pod(self.parsed(item)?, objects);
                KubeKind::Pod
            }
            ("v1", "Endpoints") => {
                add_endpoints(self.parsed(item)?, objects);
                KubeKind::Endpoints
            }
            ("v1", "Node") => {
                add_node(self.parsed(item)?, objects);
                KubeKind::Node
            }
            (version, "EndpointSlice") if version.starts_with("discovery.k8s.io/") => {
                add_slice(self.parsed(item)?, objects);
                KubeKind::Endpoints
            }
            _ => return Ok(()),
        };
        objects.count(kind);
        Ok(())
    }

    /// Reads what every object has.
    fn head(&self, part: &'t str) -> Result<Head<'t>, KubeError> {
        // A list would be read as the fields in their order.
        if part.trim_start().starts_with('[') {
            return Err(self.no_kind(part));
        }
        self.parsed(part)
    }

    fn parsed<T: Deserialize<'t>>(&self, part: &'t str) -> Result<T, KubeError> {
        serde_json::from_str(part).map_err(|error| {
            let (line, column) = self.position(part, error.line(), error.column());
            let words = error.to_string();
            // The place in the part stands behind the reason.
            let end = words.rfind(" at line ").unwrap_or(words.len());
            let reason = match error.classify() {
                Category::Data => words[..end].to_owned(),
                _ => format!("this is not JSON ({})", &words[..end]),
            };
            KubeError::Json {
                line,
                column,
                reason,
            }
        })
    }

    fn no_kind(&self, part: &str) -> KubeError {
        let (line, column) = self.position(part, 1, 1);
        KubeError::NoKind { line, column }
    }

    /// Returns the line and the column in the whole text of a place in a part of it.
    fn position(&self, part: &str, line: usize, column: usize) -> (usize, usize) {
        let start = part.as_ptr().addr() - self.text.as_ptr().addr();
        let before = &self.text[..start];
        let lines = before.matches('\n').count();
        let behind_newline = before.rfind('\n').map_or(0, |at| at + 1);
        let columns = if line == 1 { start - behind_newline } else { 0 };
        (lines + line, columns + column)
    }
}

fn add_pod(pod: WrittenPod, objects: &mut KubeObjects) {
    let status = pod.status.unwrap_or_default();
    let further = status.addresses.unwrap_or_default();
    let texts = status
        .address
        .into_iter()
        .chain(further.into_iter().filter_map(|one| one.ip));
    // The address of a pod that has ended is another pod's now, or will be.
    let has_ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let texts = texts.filter(|_| !has_ended);
    let host = status.host_address.filter(|_| !has_ended);
    let holder = KubeHolder {
        kind: KubeKind::Pod,
        name: name_of(pod.metadata),
        ports: pod_ports(pod.spec.unwrap_or_default()),
        without_rule: BTreeSet::new(),
    };
    let node = KubeHolder {
        kind: KubeKind::Node,
        name: holder.name.clone(),
        ports: None,
        without_rule: BTreeSet::new(),
    };
    objects.add_holder(&node, parsed_addresses(host));
    objects.add_holder(&holder, parsed_addresses(texts));
}

/// Returns the ports of a pod, if all its containers name some: one that names none may listen on any, and a pod in the
/// network of its node shares the ports of all others there.
fn pod_ports(spec: WrittenPodSpec) -> Option<BTreeSet<(KubeProtocol, Port)>> {
    if spec.host_network == Some(true) {
        return None;
    }
    let sidecars = spec.init_containers.into_iter().flatten();
    let sidecars = sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let containers = spec.containers.into_iter().flatten().chain(sidecars);
    let ports = containers.map(|one| one.ports.filter(|ports| !ports.is_empty()));
    let ports: Option<Vec<_>> = ports.collect();
    let ports = ports?.into_iter().flatten();
    let ports: BTreeSet<_> = ports
        .map(|one| (one.protocol, one.container_port))
        .collect();
    (!ports.is_empty()).then_some(ports)
}

fn add_endpoints(endpoints: WrittenEndpoints, objects: &mut KubeObjects) {
    let name = name_of(endpoints.metadata);
    for subset in endpoints.subsets.unwrap_or_default() {
        let ready = subset.addresses.unwrap_or_default();
        let others = subset.not_ready_addresses.unwrap_or_default();
        let texts = ready.into_iter().chain(others).filter_map(|one| one.ip);
        let ports = subset.ports.unwrap_or_default();
        let port = |one: &WrittenPort| (one.protocol, one.port);
        let ports: BTreeSet<_> = ports.iter().map(port).collect();
        objects.add_holder(&of_endpoints(&name, ports), parsed_addresses(texts));
    }
}

fn add_slice(slice: WrittenSlice, objects: &mut KubeObjects) {
    let name = name_of(slice.metadata);
    let ports = slice.ports.unwrap_or_default();
    let ports = ports
        .iter()
        .filter_map(|one| Some((one.protocol, Port::new(one.port?)?)));
    let holder = of_endpoints(&name, ports.collect());
    let endpoints = slice.endpoints.unwrap_or_default();
    let texts = endpoints
        .into_iter()
        .filter_map(|one| one.addresses)
        .flatten();
    objects.add_holder(&holder, parsed_addresses(texts));
}

fn of_endpoints(name: &KubeName, ports: BTreeSet<(KubeProtocol, Port)>) -> KubeHolder {
    KubeHolder {
        kind: KubeKind::Endpoints,
        name: name.clone(),
        ports: (!ports.is_empty()).then_some(ports),
        without_rule: BTreeSet::new(),
    }
}

fn add_node(node: WrittenNode, objects: &mut KubeObjects) {
    let addresses = node.status.and_then(|status| status.addresses);
    let texts = addresses
        .into_iter()
        .flatten()
        .map(|one| one.address)
        .collect::<Vec<String>>();
    let holder = KubeHolder {
        kind: KubeKind::Node,
        name: name_of(node.metadata),
        ports: None,
        without_rule: BTreeSet::new(),
    };
    objects.add_holder(&holder, parsed_addresses(texts));
}

/// Returns the addresses among texts. A node also has names, and a pod that waits has an empty text.
fn parsed_addresses(texts: impl IntoIterator<Item = String>) -> Vec<IpAddr> {
    let texts = texts.into_iter();
    texts.filter_map(|text| text.parse().ok()).collect()
}

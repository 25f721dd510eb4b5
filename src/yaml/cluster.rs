//! Warnings about targets that the objects of a Kubernetes cluster do not have.

use std::net::IpAddr;

use super::problem::{Problem, ProblemKind, TargetEdit};
use super::written::{WrittenForward, WrittenSpec, WrittenTarget};
use crate::forwards::{Destination, TargetKind, TargetPorts};
use crate::kubernetes::{KubeObjects, TargetFault};
use crate::net::{Host, Port, PortRange};

/// Adds the warnings that the spec does not silence.
pub fn warn(spec: &WrittenSpec, objects: &KubeObjects, problems: &mut Vec<Problem>) {
    for forward in spec.enabled() {
        let found = of_forward(forward, objects).filter(|problem| {
            let code = problem.kind.code();
            !spec.silence.contains(&code) && !forward.silence.contains(&code)
        });
        problems.extend(found);
    }
}

fn of_forward(forward: &WrittenForward, objects: &KubeObjects) -> impl Iterator<Item = Problem> {
    let protocols = forward.options.protocols.unwrap_or_default();
    let target = forward.target.iter();
    let each = target.flat_map(|target| target.destinations.iter().map(move |to| (target, to)));
    each.filter_map(move |(target, to)| {
        let Destination { address, ports } = to.value;
        let ports = match ports {
            TargetPorts::Range(ports) => vec![ports],
            TargetPorts::Kept => {
                let pieces = forward.pieces().iter();
                pieces.map(|piece| piece.value.ports).collect()
            }
        };
        let ports: Vec<PortRange> = ports;
        let fault = objects.fault(address, protocols, &ports)?;
        Some(Problem::new(
            to.span.clone(),
            problem(target, to.value, fault),
        ))
    })
}

fn problem(target: &WrittenTarget, to: Destination, fault: TargetFault) -> ProblemKind {
    let address = to.address;
    match fault {
        TargetFault::NoObject {
            contents,
            with_pods,
            namespace,
        } => ProblemKind::NotInCluster {
            address,
            contents,
            with_pods,
            namespace,
        },
        TargetFault::InCluster { service, balancer } => ProblemKind::ClusterAddress {
            address,
            service,
            write: balancer.map(|balancer| balancer_written(balancer, to.ports)),
        },
        TargetFault::NoPort(ports) => ProblemKind::NotExposed {
            address,
            edit: ports.instead.map(|port| edit(target, address, port)),
            ports,
        },
    }
}

/// Returns a load balancer with the ports of a target, as a spec has it.
fn balancer_written(address: IpAddr, ports: TargetPorts) -> String {
    let written = match ports {
        TargetPorts::Range(ports) if ports.is_single() => {
            format!("{}:{}", Host(address), ports.first())
        }
        _ => Host(address).to_string(),
    };
    format!("ilb: {}", quoted(address, written))
}

/// Quotes IPv6: brackets at the beginning of a value are a list in YAML.
fn quoted(address: IpAddr, written: String) -> String {
    match address {
        IpAddr::V4(_) => written,
        IpAddr::V6(_) => format!("\"{written}\""),
    }
}

/// Returns the edit that gives a target another port.
fn edit(target: &WrittenTarget, address: IpAddr, port: Port) -> TargetEdit {
    let written = quoted(address, format!("{}:{port}", Host(address)));
    let fixed = Destination {
        address,
        ports: TargetPorts::Range(PortRange::from(port)),
    };
    let key = match target.kind {
        TargetKind::Ilb => "ilb",
        TargetKind::Pod => "pod",
    };
    match target.destinations.len() {
        1 => TargetEdit::Write(format!("{key}: {written}")),
        _ if target.destinations.iter().any(|to| to.value == fixed) => {
            TargetEdit::Remove { beside: written }
        }
        _ => TargetEdit::Write(written),
    }
}

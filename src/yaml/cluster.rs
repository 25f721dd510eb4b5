//! Warnings about targets that the objects of a Kubernetes cluster do not have.

use std::net::IpAddr;

use super::problem::{Problem, ProblemKind};
use super::written::{WrittenForward, WrittenSpec};
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
    let each = target.flat_map(|target| target.destinations.iter().map(|to| (target.kind, to)));
    each.filter_map(move |(kind, to)| {
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
        Some(Problem::new(to.span.clone(), problem(kind, address, fault)))
    })
}

fn problem(kind: TargetKind, address: IpAddr, fault: TargetFault) -> ProblemKind {
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
        TargetFault::NoPort(ports) => ProblemKind::NotExposed {
            address,
            write: ports.instead.map(|port| written(kind, address, port)),
            ports,
        },
    }
}

/// Returns a target as a spec has it.
fn written(kind: TargetKind, address: IpAddr, port: Port) -> String {
    let key = match kind {
        TargetKind::Ilb => "ilb",
        TargetKind::Pod => "pod",
    };
    match address {
        IpAddr::V4(_) => format!("{key}: {}:{port}", Host(address)),
        // Brackets at the beginning of a value are a list in YAML.
        IpAddr::V6(_) => format!("{key}: \"{}:{port}\"", Host(address)),
    }
}

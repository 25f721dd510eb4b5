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
            problem(target, address, fault),
        ))
    })
}

fn problem(target: &WrittenTarget, address: IpAddr, fault: TargetFault) -> ProblemKind {
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
            edit: ports.instead.map(|port| edit(target, address, port)),
            ports,
        },
    }
}

/// Returns the edit that gives a target another port.
fn edit(target: &WrittenTarget, address: IpAddr, port: Port) -> TargetEdit {
    let written = format!("{}:{port}", Host(address));
    // Brackets at the beginning of a value are a list in YAML.
    let written = match address {
        IpAddr::V4(_) => written,
        IpAddr::V6(_) => format!("\"{written}\""),
    };
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

//! The key `interface`, of the firewall and of a forward.

use crate::net::Interface;
use crate::yaml::fields::{Fields, Placed, distinct, parsed};
use crate::yaml::load::{Node, Value};
use crate::yaml::problem::{Problem, ProblemKind};

/// The interfaces as written. A forward takes a missing side from the defaults or the firewall.
#[derive(Debug, Clone, Default)]
pub struct Interfaces {
    pub ingress: Option<Vec<Interface>>,
    pub egress: Option<Interface>,
}

/// Reads one interface for both sides, or a mapping of both. A forward may omit one; the firewall must have
/// `both`. Returns `None` if one of them is invalid.
pub fn interfaces(node: &Node<'_>, both: bool, problems: &mut Vec<Problem>) -> Option<Interfaces> {
    let expected = "a name, or a mapping of `ingress` and `egress`";
    let read = |text: &str| {
        text.parse()
            .map_err(|error| ProblemKind::InvalidInterface { error })
    };
    if !matches!(node.value, Value::Mapping(_)) {
        let one: Interface = parsed(node, "interface", expected, problems, read)?.value;
        return Some(Interfaces {
            ingress: Some(vec![one.clone()]),
            egress: Some(one),
        });
    }
    let fields = Fields::of(
        node,
        "interface",
        "`interface`",
        &["ingress", "egress"],
        problems,
    )?;
    let side = |key, problems: &mut Vec<Problem>| {
        if both {
            fields.required(key, problems)
        } else {
            fields.get(key)
        }
    };
    let ingress = side("ingress", problems).map(|node| {
        let expected = "an interface name, or a list of them";
        distinct(node, "ingress", expected, problems, read)
    });
    let egress = side("egress", problems)
        .map(|node| parsed(node, "egress", "an interface name", problems, read));
    // Both sides are read before either ends this, so that all their problems are reported.
    let (ingress, egress) = match (ingress, egress) {
        (Some(None), _) | (_, Some(None)) => return None,
        (ingress, egress) => (ingress.flatten(), egress.flatten()),
    };
    Some(Interfaces {
        ingress,
        egress: egress.map(|egress: Placed<Interface>| egress.value),
    })
}

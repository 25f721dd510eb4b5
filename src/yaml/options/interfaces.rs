//! The key `interface`, of the firewall and of a forward.

use std::collections::BTreeSet;

use crate::net::Interface;
use crate::yaml::bounds::MAX_PROBLEMS;
use crate::yaml::fields::{Fields, Placed, one_or_list, parsed};
use crate::yaml::load::{Node, Value};
use crate::yaml::problem::{Problem, ProblemKind};

/// The interfaces as written. A forward takes a missing side from the defaults or the firewall.
#[derive(Debug, Clone, Default)]
pub struct Interfaces {
    pub ingress: Option<Vec<Interface>>,
    pub egress: Option<Interface>,
}

/// Reads one interface for both sides, or a mapping of both. A forward may omit one; the firewall must have
/// `both`.
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
    let known = &["ingress", "egress"];
    let fields = Fields::of(node, "interface", "`interface`", known, problems)?;
    let mut found = Interfaces::default();
    for key in known {
        let node = if both {
            fields.required(key, problems)
        } else {
            fields.get(key)
        };
        let Some(node) = node else { continue };
        if *key == "egress" {
            let one = parsed(node, key, "an interface name", problems, read)?;
            found.egress = Some(one.value);
            continue;
        }
        let mut several: Vec<Interface> = Vec::new();
        let mut seen = BTreeSet::new();
        for item in one_or_list(node) {
            if problems.len() >= MAX_PROBLEMS {
                break;
            }
            let expected = "an interface name, or a list of them";
            let one: Placed<Interface> = parsed(item, key, expected, problems, read)?;
            if seen.insert(one.value.clone()) {
                several.push(one.value);
            } else {
                let text = one.value.to_string();
                problems.push(Problem::new(one.span, ProblemKind::Twice { text }));
            }
        }
        if several.is_empty() {
            let kind = ProblemKind::EmptyList { key: "ingress" };
            problems.push(Problem::new(node.span.clone(), kind));
            return None;
        }
        found.ingress = Some(several);
    }
    Some(found)
}

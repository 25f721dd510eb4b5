//! Compares the meaning of foreign rules, as an import reads them, with that of a spec.

use crate::diff::drift::{FieldChange, field_changes, outbound_field_changes};
use crate::forwards::{Balance, Forward, ForwardSet, Name, Outbound, TargetPorts};

/// The words of a spec for an entry that foreign rules became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// These forwards or outbound entries of the spec say the same.
    Same(Vec<Name>),
    /// The spec has nothing about these connections.
    NotSaid,
    /// An entry of the spec is about the same connections, and says something else.
    Differs {
        entry: Name,
        /// From the rules to the spec.
        fields: Vec<FieldChange>,
    },
}

/// Compares an entry of a draft with a spec. Names, descriptions and kinds of targets do not count: no rule says them.
#[must_use]
pub fn meaning(name: &Name, draft: &ForwardSet, spec: &ForwardSet) -> Meaning {
    let forwards = draft.forwards.iter().filter(|one| one.name == *name);
    let forwards = forwards.map(|one| of_forward(one, spec));
    let entries = draft.outbound.iter().filter(|one| one.name == *name);
    let entries = entries.map(|one| of_outbound(one, spec));
    let mut same: Vec<Name> = Vec::new();
    let mut unsaid = 0;
    let mut pieces = 0;
    for piece in forwards.chain(entries) {
        pieces += 1;
        match piece {
            Meaning::Same(names) => {
                for name in names {
                    if !same.contains(&name) {
                        same.push(name);
                    }
                }
            }
            Meaning::NotSaid => unsaid += 1,
            differs @ Meaning::Differs { .. } => return differs,
        }
    }
    match same.first() {
        Some(entry) if unsaid > 0 => Meaning::Differs {
            entry: entry.clone(),
            fields: vec![FieldChange {
                field: "listen",
                from: pieces_of(draft, name),
                to: pieces_of(spec, entry),
            }],
        },
        Some(_) if pieces > 0 => Meaning::Same(same),
        _ => Meaning::NotSaid,
    }
}

/// Lists the listeners of a forward with their protocols.
fn pieces_of(set: &ForwardSet, name: &Name) -> String {
    let of_name = set.forwards.iter().filter(|one| one.name == *name);
    let each = of_name.map(|one| format!("{} {}", one.protocol, one.listen));
    each.collect::<Vec<_>>().join(", ")
}

fn of_forward(rules: &Forward, spec: &ForwardSet) -> Meaning {
    let is_same_listener = |one: &&Forward| {
        let addresses = [one.listen.address, rules.listen.address];
        let shares_address = match addresses {
            [Some(one), Some(other)] => one == other,
            _ => true,
        };
        one.family() == rules.family()
            && one.protocol == rules.protocol
            && shares_address
            && one.listen.ports.overlaps(rules.listen.ports)
    };
    let compared = spec.forwards.iter().filter(is_same_listener).map(|one| {
        let fields = field_changes(&[plain(rules)], &[plain(one)]);
        (one.name.clone(), fields)
    });
    nearest(compared)
}

fn of_outbound(rules: &Outbound, spec: &ForwardSet) -> Meaning {
    let shares = |one: &&Outbound| {
        let mut protocols = one.protocols.iter();
        let mut ingress = one.ingress.iter();
        one.family == rules.family
            && one.egress == rules.egress
            && ingress.any(|interface| rules.ingress.contains(interface))
            && one.allow_from.overlap(&rules.allow_from)
            && one.allow_to.overlap(&rules.allow_to)
            && protocols.any(|protocol| rules.protocols.contains(protocol))
    };
    let sorted = |entry: &Outbound| {
        let mut entry = entry.clone();
        entry.ingress.sort();
        entry
    };
    let compared = spec.outbound.iter().filter(shares).map(|one| {
        let fields = outbound_field_changes(&sorted(rules), &sorted(one));
        (one.name.clone(), fields)
    });
    nearest(compared)
}

/// Returns the meaning of the entry with the fewest different fields.
fn nearest(compared: impl Iterator<Item = (Name, Vec<FieldChange>)>) -> Meaning {
    let nearest = compared.min_by_key(|(_, fields)| fields.len());
    match nearest {
        None => Meaning::NotSaid,
        Some((entry, fields)) if fields.is_empty() => Meaning::Same(vec![entry]),
        Some((entry, fields)) => Meaning::Differs { entry, fields },
    }
}

/// Returns a forward in one spelling of its meaning.
fn plain(forward: &Forward) -> Forward {
    let mut plain = forward.clone();
    plain.ingress.sort();
    for to in &mut plain.target.destinations {
        if to.ports == TargetPorts::Kept {
            to.ports = TargetPorts::Range(plain.listen.ports);
        }
    }
    plain.target.destinations.sort();
    if plain.target.destinations.len() == 1 {
        plain.target.balance = Balance::default();
    }
    plain
}

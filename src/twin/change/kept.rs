//! The connections of loaded outbound entries that the new spec keeps. An entry that is added in front may take them, and
//! with other interfaces none of them may reach the entry.

use std::collections::{BTreeMap, BTreeSet};

use super::trial::PreparedTrial;
use crate::diff::drift::moved;
use crate::forwards::{Name, Outbound, Snat};
use crate::net::{Family, Interface, Port};
use crate::twin::Twin;
use crate::twin::battery::{Ask, InDoubt, Subject, Wanted, battery};
use crate::twin::verdict::{Judged, Verdict};

/// A connection of a loaded outbound entry.
#[derive(Debug)]
pub struct Kept<'f> {
    /// For the entry of its name in the new spec.
    pub ask: Ask<'f>,
    /// The interface by which the loaded entry's packets leave.
    egress: &'f Interface,
}

/// Connections of loaded outbound entries that are opened with the change.
#[derive(Debug, Default)]
pub struct InQuestion<'f> {
    pub asks: Vec<Ask<'f>>,
    /// For an entry with such a connection, the entry in front of it that decides on the connection.
    pub in_front: BTreeMap<&'f Name, &'f Name>,
}

/// Returns the connections of the loaded outbound entries that the new spec has. Leaves out those that the new entry does
/// not accept by itself: then the spec narrows it.
pub fn kept<'f>(trial: &PreparedTrial<'f>, twin: &Twin) -> Vec<Kept<'f>> {
    let each = trial.loaded_clients.iter().flat_map(|(set, clients)| {
        let entries: Vec<&Outbound> = set.outbound.iter().collect();
        let (machine, worlds) = (twin.machine(), twin.worlds());
        battery(&[], &entries, clients, machine, worlds, &InDoubt::default())
    });
    let each = each.filter(|ask| ask.wanted == Wanted::Through);
    let kept = each.filter_map(|ask| {
        let mut new = of_family(trial, ask.of.family()).iter();
        let new = new.find(|new| new.name == *ask.of.name())?;
        let (question, port) = (&ask.question, Port::new(ask.question.to.port())?);
        let (from, to) = (question.client, question.to.ip());
        let egress = ask.of.egress();
        let accepted = new.accepts(question.protocol, from, to, port);
        accepted.then_some(Kept {
            ask: Ask {
                of: Subject::Outbound(new),
                ..ask
            },
            egress,
        })
    });
    kept.collect()
}

/// Returns those of the connections for which the new spec's own ones say nothing: an entry that is new there, or takes
/// more than before, decides on them, or no entry of their interfaces does and the entry does not work by others.
/// `judged` are the connections of the new spec.
///
/// If the new spec moves an entry to another place among the others, that is meant.
pub fn in_question<'f>(
    trial: &PreparedTrial<'f>,
    kept: Vec<Kept<'f>>,
    judged: &[Judged<'f>],
) -> InQuestion<'f> {
    let works = judged.iter().filter(|one| one.verdict == Verdict::AsWanted);
    let works: BTreeSet<*const ()> = works.map(|one| one.ask.of.key()).collect();
    let moved = Family::ALL.map(|family| {
        let held = trial.trying.loaded.iter().flat_map(|set| &set.outbound);
        let held = held.filter(|entry| entry.family == family).cloned();
        let held: Vec<Outbound> = held.collect();
        moved(&held, of_family(trial, family))
    });
    let is_moved = |entry: &Outbound| {
        let name = entry.name.as_str();
        moved.iter().any(|moved| moved.contains_key(name))
    };
    let mut found = InQuestion::default();
    for one in kept {
        let Subject::Outbound(entry) = one.ask.of else {
            continue;
        };
        match decider(trial, &one) {
            Some(decider) if std::ptr::eq(decider, entry) => continue,
            Some(decider) if is_moved(decider) || is_moved(entry) => continue,
            Some(decider) => {
                found.in_front.insert(&entry.name, &decider.name);
            }
            None if works.contains(&one.ask.of.key()) => continue,
            None => {}
        }
        found.asks.push(one.ask);
    }
    found
}

/// Returns the entry of the new spec that decides on a connection: the first on its path that selects it.
fn decider<'f>(trial: &PreparedTrial<'f>, kept: &Kept<'f>) -> Option<&'f Outbound> {
    let Kept { ask, egress } = kept;
    let (question, port) = (&ask.question, Port::new(ask.question.to.port())?);
    of_family(trial, ask.of.family()).iter().find(|entry| {
        entry.egress == **egress
            && entry.ingress.contains(ask.by)
            && entry.selects(question.protocol, question.client, question.to.ip(), port)
    })
}

/// Returns whether the change cuts off a connection of a loaded entry, if it passes without the change: it does not come
/// through, or an entry with `snat: none` takes it from one that rewrites its source.
#[must_use]
pub fn is_cut(judged: &Judged<'_>) -> bool {
    match judged.verdict {
        Verdict::Dead(_) | Verdict::Elsewhere { .. } => true,
        Verdict::Source { seen, .. } => {
            seen == judged.ask.client.address && judged.ask.of.snat() != Snat::Client
        }
        _ => false,
    }
}

fn of_family<'f>(trial: &PreparedTrial<'f>, family: Family) -> &'f [Outbound] {
    let mut sets = trial.trying.sets.iter();
    let set = sets.find(|(of, _)| *of == family);
    set.map_or(&[], |(_, set)| set.outbound.as_slice())
}

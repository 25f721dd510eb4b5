//! The connections that a change cuts off, told apart from those that are dead without it as well.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use super::trial::{PreparedTrial, Tried, is_answered, takers};
use crate::twin::battery::reached;
use crate::twin::judge::verdict;
use crate::twin::sniff::{Sighting, Sniffer};
use crate::twin::talk::{Question, Talker};
use crate::twin::verdict::{Judged, Verdict};
use crate::twin::{Twin, TwinError};

/// How often a connection is tried for each target, if chance leads to one of several.
const CHANCES: usize = 8;

/// Divides connections that do not reach their target into those that the change cuts off and those that are dead
/// without it as well: opens each in a twin without the change.
pub fn compare<'f>(
    trial: &PreparedTrial<'f>,
    bad: Vec<Judged<'f>>,
    old: &Twin,
    new: &Twin,
    tried: &mut Tried<'f>,
) -> Result<(Vec<Judged<'f>>, Vec<Judged<'f>>), TwinError> {
    let (mut lost, mut dead) = (Vec::new(), Vec::new());
    let mut talker = old.talker()?;
    let mut new_talker = new.talker()?;
    let sniffer = Sniffer::open(old.worlds()).map_err(TwinError::Socket)?;
    for one in bad {
        if Instant::now() >= trial.trying.deadline {
            tried.not_asked += 1;
            continue;
        }
        let ask = &one.ask;
        let own: BTreeSet<SocketAddr> = takers(trial, &ask.question)
            .flat_map(|(forward, port)| {
                let destinations = forward.target.destinations.iter();
                destinations.map(move |at| reached(forward, at, port))
            })
            .collect();
        // Chance leads to one of several targets, so one try tells only about a part of the clients.
        let targets = own.len().max(ask.question.listeners.len());
        let is_chance = targets > 1 || old.has_chance();
        let times = match ask.of.limits() {
            // The twin without the change counts as well.
            Some(_) => ask.times,
            None if is_chance => targets * CHANCES,
            None => 1,
        };
        let mut listeners: BTreeSet<SocketAddr> = ask.question.listeners.iter().copied().collect();
        listeners.extend(own);
        listeners.insert(ask.question.to);
        let mut question = listening(&ask.question, &listeners);
        let _ = sniffer.seen();
        if !is_answered(&mut talker, &question) {
            listeners.extend(sent_to(old, &question, &sniffer.seen()));
            question = listening(&question, &listeners);
        }
        let passed = (0..times)
            .filter(|_| is_answered(&mut talker, &question))
            .count();
        // A part of the clients passed. The change cuts them off if none passes with it.
        let is_part = passed > 0 && passed < times && ask.of.limits().is_none();
        let passes_still = |talker: &mut Talker<'_>| {
            (0..times).any(|_| {
                let outcome = talker.ask(&ask.question);
                let verdict = outcome.map(|outcome| verdict(new, ask, &outcome));
                !matches!(verdict, Ok(Verdict::Dead(_) | Verdict::Elsewhere { .. }))
            })
        };
        if passed == times || is_part && !passes_still(&mut new_talker) {
            lost.push(one);
        } else {
            dead.push(one);
        }
    }
    Ok((lost, dead))
}

/// Returns the same connection with listeners at other addresses.
fn listening(question: &Question, listeners: &BTreeSet<SocketAddr>) -> Question {
    let is_v4 = question.to.is_ipv4();
    let listeners = listeners.iter().filter(|at| at.is_ipv4() == is_v4);
    Question {
        listeners: listeners.copied().collect(),
        ..question.clone()
    }
}

/// Returns the addresses to which rules of others sent a client's packets.
fn sent_to(twin: &Twin, question: &Question, sightings: &[Sighting]) -> BTreeSet<SocketAddr> {
    let own = twin.machine().addresses();
    let is_end = |at: &SocketAddr| at.ip() == question.client || own.contains(&at.ip());
    let ends = sightings.iter().map(|one| one.destination);
    ends.filter(|at| at.port() != 0 && !is_end(at)).collect()
}

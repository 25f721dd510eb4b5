//! The answers of the twin.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::forwards::Forward;
use crate::net::Family;
use crate::twin::battery::{Ask, Subject, Wanted};
use crate::twin::doubt::Doubt;
use crate::twin::verdict::{Judged, Verdict};

/// The verdicts of the twin, and the limits of their certainty.
#[derive(Debug, Default)]
pub struct Answers<'f> {
    pub judged: Vec<Judged<'f>>,
    /// The rules whose state the twin does not have, in words.
    pub watched: Vec<String>,
    /// Things of the machine that the twin does not have, in words.
    pub left_out: Vec<String>,
    /// The left out things on which a verdict may depend.
    pub doubts: Vec<Doubt>,
    /// How many networks of clients were not tried, to save time.
    pub untried_networks: usize,
    /// The families in which no route leads back to clients beyond the machine's own links.
    pub without_internet: BTreeSet<Family>,
    /// The targets that the machine itself does not reach in the twin, and why.
    pub kept_in: BTreeMap<(String, IpAddr), String>,
}

impl Answers<'_> {
    /// Says why the machine itself does not reach a target, if the twin has tried that.
    #[must_use]
    pub fn kept_in(&self, forward: &Forward, target: IpAddr) -> Option<String> {
        let key = (forward.name.to_string(), target);
        self.kept_in.get(&key).cloned()
    }

    pub(super) fn doubt(&self, ask: &Ask<'_>) -> Option<&Doubt> {
        self.doubts.iter().find(|doubt| doubt.holds(ask))
    }
}

/// Returns the forwards whose connections were tried in the twin and all did as the spec says.
#[must_use]
pub fn passing(answers: &Result<Answers<'_>, String>) -> BTreeSet<*const Forward> {
    let Ok(answers) = answers else {
        return BTreeSet::new();
    };
    let pass = |all: &[&Judged<'_>]| {
        let is_asked = all.iter().any(|one| one.ask.wanted == Wanted::Through);
        is_asked && all.iter().all(|one| one.verdict == Verdict::AsWanted)
    };
    let passing = by_subject(answers).into_values().filter(|all| pass(all));
    let forwards = passing.filter_map(|all| match all.first()?.ask.of {
        Subject::Forward(forward) => Some(std::ptr::from_ref(forward)),
        Subject::Outbound(_) => None,
    });
    forwards.collect()
}

/// The verdicts by [`Subject::key`].
pub type BySubject<'a, 'f> = BTreeMap<*const (), Vec<&'a Judged<'f>>>;

pub fn by_subject<'a, 'f>(answers: &'a Answers<'f>) -> BySubject<'a, 'f> {
    let mut by_subject: BySubject<'a, 'f> = BTreeMap::new();
    for judged in &answers.judged {
        by_subject
            .entry(judged.ask.of.key())
            .or_default()
            .push(judged);
    }
    by_subject
}

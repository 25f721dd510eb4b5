//! The suggested tests so far, and everything that decides on the next one.

use super::attempt::{About, Attempt, TestEnd};
use super::hosts::Hosts;
use super::judge::Judge;
use super::room::Room;
use super::routes::Routes;
use crate::forwards::forward::Snat;
use crate::forwards::packet_test::{PacketTest, Reaches};
use crate::forwards::set::ForwardSet;

#[derive(Debug)]
pub struct Suggestion<'s> {
    pub judge: Judge<'s>,
    pub routes: &'s Routes<'s>,
    pub hosts: Hosts<'s>,
    room: Room<'s>,
    tests: Vec<PacketTest>,
    /// The connections of the forward or entry that is looked at.
    attempts: Vec<Attempt<'s>>,
}

impl<'s> Suggestion<'s> {
    pub fn new(set: &'s ForwardSet, routes: &'s Routes<'s>) -> Self {
        Self {
            judge: Judge::new(set, routes),
            routes,
            hosts: Hosts::new(routes),
            room: Room::default(),
            tests: Vec::new(),
            attempts: Vec::new(),
        }
    }

    pub fn into_tests(self) -> Vec<PacketTest> {
        self.tests
    }

    /// Begins with the next forward or entry.
    pub fn begin(&mut self) {
        self.attempts.clear();
    }

    /// Adds a connection that reaches a host. Leaves it out if the spec refuses it, or might.
    pub fn passes(&mut self, about: About<'s>, attempt: Attempt<'s>, words: &str) {
        if self.attempts.contains(&attempt) {
            return;
        }
        if let Some(TestEnd::Reaches { hosts, snat }) = self.judge.end_of(&attempt)
            && self.room.take(about, &attempt)
        {
            self.add(about, attempt, words, Reaches::OneOf(hosts), Some(snat));
        }
    }

    /// Adds a connection that reaches nothing. Leaves it out if the spec lets it pass, or might.
    pub fn ends(&mut self, about: About<'s>, attempt: Attempt<'s>, words: &str) {
        if !self.attempts.contains(&attempt)
            && self.judge.end_of(&attempt) == Some(TestEnd::Nothing)
        {
            self.add(about, attempt, words, Reaches::Nothing, None);
        }
    }

    fn add(
        &mut self,
        about: About<'s>,
        attempt: Attempt<'s>,
        words: &str,
        reaches: Reaches,
        snat: Option<Snat>,
    ) {
        let Attempt {
            from,
            ingress,
            to,
            protocol,
        } = attempt;
        // On a machine with one interface, everything comes in there.
        let is_only = self.routes.interfaces.len() == 1;
        self.tests.push(PacketTest {
            name: format!("{}: {words}", about.name).parse().ok(),
            from,
            to,
            protocol,
            ingress: (!is_only).then(|| ingress.clone()),
            reaches,
            snat,
            place: None,
        });
        self.attempts.push(attempt);
    }
}

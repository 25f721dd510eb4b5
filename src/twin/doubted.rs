//! The doubts about one connection.

use super::Twin;
use super::connection::Connection;
use super::connection_end::{ConnectionEnd, Reached};
use super::known_path::KnownPath;
use super::talk::From;

impl Twin {
    /// Returns the things that the twin lacks and that may give a connection another end on the machine, in words.
    #[must_use]
    pub fn doubts_about(&self, connection: &Connection, end: Option<&Reached>) -> Vec<String> {
        let name = |world: usize| self.worlds()[world].interface.as_str();
        let path = KnownPath {
            client: connection.client,
            to: connection.to,
            ingress: match connection.from {
                From::World(number) => Some(name(number)),
                From::Machine => None,
            },
            reached: end.map(|reached| (reached.clone(), name(reached.world))),
        };
        let doubts = self.doubts().into_iter();
        let mut words: Vec<String> = doubts
            .filter(|doubt| doubt.concerns(&path))
            .map(|doubt| doubt.to_string())
            .collect();
        words.extend(self.machine.choices(&path));
        words
    }

    /// Returns the doubts about a connection with this end, in one line; `None` without a doubt.
    pub(super) fn doubted(&self, connection: &Connection, end: &ConnectionEnd) -> Option<String> {
        let doubts = self.doubts_about(connection, end.reached());
        (!doubts.is_empty()).then(|| doubts.join("; "))
    }
}

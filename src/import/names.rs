//! Names for imported entries.

use std::collections::{BTreeMap, BTreeSet};

use crate::forwards::{Description, Listen, Name};
use crate::net::Protocol;

/// The names that are taken.
#[derive(Debug, Default)]
pub struct EntryNames {
    taken: BTreeSet<Name>,
    /// The first number that may be free behind each wanted name.
    next: BTreeMap<Box<str>, usize>,
}

impl EntryNames {
    /// Keeps a name from being given.
    pub fn take(&mut self, name: &Name) {
        self.taken.insert(name.clone());
    }

    /// Returns a name that is not taken: `wanted`, or `wanted-2` and so on.
    fn free(&mut self, wanted: &str) -> Name {
        // Room for a number of some digits.
        let wanted = &wanted[..wanted.len().min(Name::MAX_BYTES - 8)];
        let next = self.next.entry(wanted.into()).or_insert(1);
        let (number, name) = (*next..)
            .map(|number| match number {
                1 => (number, wanted.to_owned()),
                _ => (number, format!("{wanted}-{number}")),
            })
            .find_map(|(number, name)| {
                let name = name.parse::<Name>().ok();
                let name = name.filter(|name| !self.taken.contains(name))?;
                Some((number, name))
            })
            .expect("some number is free");
        *next = number + 1;
        self.taken.insert(name.clone());
        name
    }

    /// Returns the name of an entry: that of the comment, or else of its protocol and port.
    pub fn of_forward(
        &mut self,
        comment: Option<&str>,
        protocols: &[Protocol],
        listen: &Listen,
    ) -> Name {
        match comment.and_then(|comment| comment.parse::<Name>().ok()) {
            Some(name) => self.free(name.as_str()),
            None => {
                let protocol = match protocols {
                    [one] => one.as_str(),
                    _ => "port",
                };
                self.free(&format!("{protocol}-{}", listen.ports))
            }
        }
    }

    /// Returns the name of an outbound entry.
    pub fn of_entry(&mut self, comment: Option<&str>) -> Name {
        match comment.and_then(|comment| comment.parse::<Name>().ok()) {
            Some(name) => self.free(name.as_str()),
            None => self.free("outbound"),
        }
    }
}

/// Returns a comment as a description, unless it is the name already.
pub fn description(comment: Option<&str>) -> Option<Description> {
    let comment = comment?;
    if comment.parse::<Name>().is_ok() {
        return None;
    }
    comment.parse().ok()
}

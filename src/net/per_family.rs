//! What there is once for each address family: for IPv4 always, for IPv6 where it is touched.
//!
//! The two have tables and programs of their own, but a change of both is one change.

use std::fmt::Write as _;

use crate::counters::Counters;
use crate::diff::{self, Changes};
use crate::net::Family;
use crate::plan::plan;
use crate::ruleset::Ruleset;
use crate::spec::ForwardSet;

/// The families that a command touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    V4,
    Both,
}

impl Families {
    #[must_use]
    pub fn with_v6(v6: bool) -> Self {
        if v6 { Families::Both } else { Families::V4 }
    }

    #[must_use]
    pub fn as_slice(self) -> &'static [Family] {
        match self {
            Families::V4 => &[Family::V4],
            Families::Both => &Family::ALL,
        }
    }
}

/// A value for each family that is touched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerFamily<T> {
    pub v4: T,
    pub v6: Option<T>,
}

impl<T> PerFamily<T> {
    pub fn new(families: Families, mut make: impl FnMut(Family) -> T) -> Self {
        Self {
            v4: make(Family::V4),
            v6: (families == Families::Both).then(|| make(Family::V6)),
        }
    }

    /// The same, ending with the first that fails.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn try_new<E>(
        families: Families,
        mut make: impl FnMut(Family) -> Result<T, E>,
    ) -> Result<Self, E> {
        let v4 = make(Family::V4)?;
        let v6 = match families {
            Families::V4 => None,
            Families::Both => Some(make(Family::V6)?),
        };
        Ok(Self { v4, v6 })
    }

    #[must_use]
    pub fn families(&self) -> Families {
        Families::with_v6(self.v6.is_some())
    }

    #[must_use]
    pub fn get(&self, family: Family) -> Option<&T> {
        match family {
            Family::V4 => Some(&self.v4),
            Family::V6 => self.v6.as_ref(),
        }
    }

    /// IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = (Family, &T)> {
        let v6 = self.v6.iter().map(|value| (Family::V6, value));
        std::iter::once((Family::V4, &self.v4)).chain(v6)
    }

    /// IPv4's first.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.iter().map(|(_, value)| value)
    }

    pub fn map<'a, U>(&'a self, mut to: impl FnMut(Family, &'a T) -> U) -> PerFamily<U> {
        PerFamily {
            v4: to(Family::V4, &self.v4),
            v6: self.v6.as_ref().map(|value| to(Family::V6, value)),
        }
    }

    /// The same, ending with the first that fails.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn try_map<'a, U, E>(
        &'a self,
        mut to: impl FnMut(Family, &'a T) -> Result<U, E>,
    ) -> Result<PerFamily<U>, E> {
        Ok(PerFamily {
            v4: to(Family::V4, &self.v4)?,
            v6: match &self.v6 {
                Some(value) => Some(to(Family::V6, value)?),
                None => None,
            },
        })
    }

    /// Both values of each family that both have.
    #[must_use]
    pub fn zip<U>(self, other: PerFamily<U>) -> PerFamily<(T, U)> {
        PerFamily {
            v4: (self.v4, other.v4),
            v6: self.v6.zip(other.v6),
        }
    }

    #[must_use]
    pub fn as_ref(&self) -> PerFamily<&T> {
        self.map(|_, value| value)
    }
}

/// What a spec plans. IPv6 without a forward in it is to hold nothing of nvactl's, not even empty
/// chains or a policy: a spec that has only IPv4 says nothing of it.
#[must_use]
pub fn planned(set: &ForwardSet, families: Families) -> PerFamily<Ruleset> {
    PerFamily::new(families, |family| {
        if family == Family::V6 && !set.has(family) {
            Ruleset::default()
        } else {
            plan(set, family)
        }
    })
}

/// What leads from `have` to `want`, which says only what nvactl owns.
#[must_use]
pub fn changes<'r>(
    have: &PerFamily<&'r Ruleset>,
    want: &'r PerFamily<Ruleset>,
) -> PerFamily<Changes<'r>> {
    let both = have.as_ref().zip(want.as_ref());
    both.map(|_, (have, want)| diff::changes(have, want))
}

impl PerFamily<Changes<'_>> {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().all(|(_, changes)| changes.is_empty())
    }

    /// How many rules come, and how many go.
    #[must_use]
    pub fn rule_counts(&self) -> (usize, usize) {
        let counts = self.iter().map(|(_, changes)| changes.rule_counts());
        counts.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }

    /// The lines that go and come, as [`Changes::report`]; those of IPv6 under a line that says so.
    #[must_use]
    pub fn report(&self) -> String {
        let mut out = String::new();
        for (family, changes) in self.iter() {
            if family == Family::V6 && !changes.is_empty() {
                let _ = writeln!(out, "  {family}");
            }
            out.push_str(&changes.report());
        }
        out
    }

    /// What the rules that come begin with, as [`Changes::carried`].
    #[must_use]
    pub fn carried(&self, counters: &PerFamily<&Counters>) -> PerFamily<Counters> {
        let both = self.as_ref().zip(counters.as_ref());
        both.map(|_, (changes, counters)| changes.carried(counters))
    }

    /// Each as a script for that family's iptables-restore; empty where nothing changes.
    #[must_use]
    pub fn scripts(&self, counts: &PerFamily<&Counters>) -> PerFamily<String> {
        let both = self.as_ref().zip(counts.as_ref());
        both.map(|_, (changes, counts)| changes.script(counts))
    }
}

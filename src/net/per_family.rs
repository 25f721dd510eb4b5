//! One value for each address family: always one for IPv4, and one for IPv6 if a command works on it.
//!
//! Each family has its own tables and programs, but a change of both families is one change.

use super::family::Family;

/// The families that a command works on.
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

/// A value for each family that a command works on.
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

    /// Makes a value for each family. Ends with the first error.
    ///
    /// # Errors
    /// Any error of `make`.
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

    /// Iterates over the families, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = (Family, &T)> {
        let v6 = self.v6.iter().map(|value| (Family::V6, value));
        std::iter::once((Family::V4, &self.v4)).chain(v6)
    }

    /// Iterates over the values, that of IPv4 first.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.iter().map(|(_, value)| value)
    }

    pub fn map<'a, U>(&'a self, mut to: impl FnMut(Family, &'a T) -> U) -> PerFamily<U> {
        PerFamily {
            v4: to(Family::V4, &self.v4),
            v6: self.v6.as_ref().map(|value| to(Family::V6, value)),
        }
    }

    /// Converts each value. Ends with the first error.
    ///
    /// # Errors
    /// Any error of `to`.
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

    /// Pairs the values of each family that both sides have.
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

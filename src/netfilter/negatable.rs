//! A value that a rule asks for, or rules out.

/// The value of an option that iptables takes with `!` before it as well.
///
/// Each option has its own: `-m tcp --dport 80 ! --sport 53` asks for one value and rules out another.
/// Whoever reads a value has to say which of the two it means, so no negation is read as its opposite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Negatable<T> {
    /// `--dport 80`
    Is(T),
    /// `! --dport 80`
    Not(T),
}

impl<T> Negatable<T> {
    #[must_use]
    pub fn new(is_negated: bool, value: T) -> Self {
        if is_negated {
            Negatable::Not(value)
        } else {
            Negatable::Is(value)
        }
    }

    /// Returns the value that a packet must have; `None` if it must not have it.
    #[must_use]
    pub fn wanted(&self) -> Option<&T> {
        match self {
            Negatable::Is(value) => Some(value),
            Negatable::Not(_) => None,
        }
    }

    /// Returns whether the condition holds, given whether a packet has such a value.
    #[must_use]
    pub fn holds(&self, has: impl FnOnce(&T) -> bool) -> bool {
        match self {
            Negatable::Is(value) => has(value),
            Negatable::Not(value) => !has(value),
        }
    }

    /// Converts the value.
    #[must_use]
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Negatable<U> {
        match self {
            Negatable::Is(value) => Negatable::Is(convert(value)),
            Negatable::Not(value) => Negatable::Not(convert(value)),
        }
    }

    #[must_use]
    pub fn as_ref(&self) -> Negatable<&T> {
        match self {
            Negatable::Is(value) => Negatable::Is(value),
            Negatable::Not(value) => Negatable::Not(value),
        }
    }
}

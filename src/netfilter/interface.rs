//! The interfaces that a rule names: one, or all whose names begin alike.

use std::fmt;
use std::str::FromStr;

use crate::net::{Interface, InterfaceError};

/// The bytes that the kernel keeps of a name. The `+` of a prefix takes one of them
/// (`xtables_parse_interface` in libxtables/xtables.c).
const LONGEST: usize = 15;

/// One interface, `eth0`, or all whose names begin with a prefix, `eth+`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfacePattern {
    name: Interface,
    is_prefix: bool,
}

impl InterfacePattern {
    /// Returns the interface, if the pattern names exactly one.
    #[must_use]
    pub fn exact(&self) -> Option<&Interface> {
        (!self.is_prefix).then_some(&self.name)
    }

    /// Returns whether the pattern covers an interface. `eth+` covers `eth`, too.
    #[must_use]
    pub fn covers(&self, interface: &Interface) -> bool {
        if self.is_prefix {
            interface.as_str().starts_with(self.name.as_str())
        } else {
            *interface == self.name
        }
    }
}

impl From<Interface> for InterfacePattern {
    fn from(name: Interface) -> Self {
        Self {
            name,
            is_prefix: false,
        }
    }
}

impl FromStr for InterfacePattern {
    type Err = InterfaceError;

    fn from_str(text: &str) -> Result<Self, InterfaceError> {
        let Some(prefix) = text.strip_suffix('+') else {
            return text.parse().map(Interface::into);
        };
        let name: Interface = prefix.parse()?;
        if text.len() > LONGEST {
            return Err(InterfaceError::TooLong(text.to_owned()));
        }
        Ok(Self {
            name,
            is_prefix: true,
        })
    }
}

impl fmt::Display for InterfacePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.as_str())?;
        f.write_str(if self.is_prefix { "+" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> InterfacePattern {
        text.parse().expect("it is a pattern")
    }

    #[test]
    fn a_pattern_knows_whether_it_names_one_interface() {
        for (text, covered, others) in [
            ("eth0", &["eth0"][..], &["eth01", "eth"][..]),
            ("eth+", &["eth", "eth0", "eth0.100"], &["et", "weth0"]),
            ("br-+", &["br-1a2b"], &["br", "docker0"]),
        ] {
            let pattern = pattern(text);
            assert_eq!(pattern.to_string(), text);
            assert_eq!(pattern.exact().is_some(), !text.ends_with('+'));
            let covers = |name: &&str| pattern.covers(&name.parse().expect("a name"));
            assert!(covered.iter().all(covers), "{text}");
            assert!(!others.iter().any(covers), "{text}");
        }
    }

    #[test]
    fn a_pattern_is_as_long_as_a_name_at_most() {
        assert_eq!(pattern("fourteen-bytes+").to_string(), "fourteen-bytes+");
        for text in ["fifteen-bytes-x+", "sixteen-bytes-xx", "+", "a+b", "++"] {
            assert!(text.parse::<InterfacePattern>().is_err(), "{text}");
        }
    }
}

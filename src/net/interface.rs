//! The names of network interfaces.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The name of a network interface: 1 to 15 of `[A-Za-z0-9_.-]` (IFNAMSIZ is 16 with the NUL).
///
/// The kernel allows more names. iptables reads a trailing `+` as a wildcard and a leading `-` as an
/// option, and saves a space unquoted, so that the line does not load again. The kernel itself
/// refuses `.` and `..` (`dev_valid_name` in net/core/dev.c).
///
/// The bytes are padded with NULs, as in the kernel. Every rule has one or two interfaces, and this
/// form needs no allocation.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Interface([u8; Self::SIZE]);

impl Interface {
    const SIZE: usize = 16;

    /// The first network card of most virtual machines, by the names that the kernel itself gives.
    pub const ETH0: Self = Self(*b"eth0\0\0\0\0\0\0\0\0\0\0\0\0");

    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|b| *b == 0).unwrap_or(Self::SIZE);
        // `from_str` allows only ASCII.
        str::from_utf8(&self.0[..end]).unwrap_or_default()
    }
}

impl fmt::Debug for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Interface").field(&self.as_str()).finish()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InterfaceError {
    #[error("an interface name cannot be empty")]
    Empty,
    #[error("`{0}` is longer than the kernel's 15 bytes for an interface name")]
    TooLong(String),
    #[error("`{name}` is not an interface name: {found:?} is not one of A-Z a-z 0-9 _ . -")]
    BadCharacter { name: String, found: char },
    #[error("`{0}` starts with `-`, which iptables reads as an option")]
    LeadingDash(String),
    #[error("`{0}` is a folder's name, not an interface's: the kernel refuses it")]
    Dots(String),
}

impl FromStr for Interface {
    type Err = InterfaceError;

    fn from_str(text: &str) -> Result<Self, InterfaceError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if text.is_empty() {
            Err(InterfaceError::Empty)
        } else if let Some(found) = text.chars().find(|c| !allowed(*c)) {
            Err(InterfaceError::BadCharacter {
                name: text.to_owned(),
                found,
            })
        } else if text.len() >= Self::SIZE {
            Err(InterfaceError::TooLong(text.to_owned()))
        } else if text.starts_with('-') {
            Err(InterfaceError::LeadingDash(text.to_owned()))
        } else if matches!(text, "." | "..") {
            Err(InterfaceError::Dots(text.to_owned()))
        } else {
            let mut name = [0; Self::SIZE];
            name[..text.len()].copy_from_slice(text.as_bytes());
            Ok(Self(name))
        }
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_the_kernel_and_iptables_read_alike_is_an_interface() {
        for name in ["eth0", "ens5.100", "br-1a_b", "a", "fifteen-bytes-x", "..."] {
            assert_eq!(name.parse::<Interface>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn any_other_name_is_refused_with_the_reason() {
        for (name, reason) in [
            ("", "cannot be empty"),
            ("sixteen-bytes-xx", "15 bytes"),
            ("eth+", "'+' is not one of"),
            ("eth 0", "' ' is not one of"),
            ("eth0\n-j", "'\\n' is not one of"),
            ("-i", "reads as an option"),
            ("ethernet-ä", "'ä' is not one of"),
            ("..", "folder's name"),
        ] {
            let message = name.parse::<Interface>().unwrap_err().to_string();
            assert!(message.contains(reason), "{name:?}: {message}");
        }
    }
}

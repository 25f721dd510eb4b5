//! The version of the running kernel.

use std::fmt;
use std::fs;
use std::str::FromStr;

/// The version of a Linux kernel: the two numbers that decide about its features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kernel {
    pub major: u32,
    pub minor: u32,
}

/// Returns the version of the running kernel, if it can be read.
#[must_use]
pub fn running() -> Option<Kernel> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    release.parse().ok()
}

/// The error for a release that does not begin with two numbers.
#[derive(Debug, PartialEq, Eq)]
pub struct NoVersion;

impl FromStr for Kernel {
    type Err = NoVersion;

    /// Reads the output of `uname -r`: `6.8.0-45-generic`.
    fn from_str(release: &str) -> Result<Self, NoVersion> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        let mut number = || numbers.next()?.parse().ok();
        let (major, minor) = number().zip(number()).ok_or(NoVersion)?;
        Ok(Self { major, minor })
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_compared_by_its_numbers() {
        let read = |release: &str| release.parse::<Kernel>();
        let needed = Kernel { major: 5, minor: 5 };
        for (release, is_enough) in [
            ("5.5.0", true),
            ("5.5", true),
            ("5.10.0-28-amd64", true),
            ("6.18.44-fc\n", true),
            ("10.0-rc1", true),
            ("5.4.0-150-generic", false),
            ("4.18.0-553.el8_10.x86_64", false),
            ("3.10.0", false),
        ] {
            assert_eq!(
                read(release).map(|kernel| kernel >= needed),
                Ok(is_enough),
                "{release}"
            );
        }
        for release in ["", "5", "linux", "v5.5", "99999999999.1"] {
            assert_eq!(read(release), Err(NoVersion), "{release}");
        }
    }
}

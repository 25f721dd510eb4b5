//! Numbers of forwards and outbound entries, in words.

use crate::net::words::counted;

/// How many forwards and outbound entries a sentence is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    pub forwards: usize,
    pub entries: usize,
}

impl Numbers {
    #[must_use]
    pub fn all(self) -> usize {
        self.forwards + self.entries
    }

    /// Returns the numbers in words: `3 forwards and 1 outbound entry`.
    #[must_use]
    pub fn words(self) -> String {
        let forwards = counted(self.forwards, "forward");
        let entries = match self.entries {
            1 => "1 outbound entry".to_owned(),
            many => format!("{many} outbound entries"),
        };
        match (self.forwards, self.entries) {
            (_, 0) => forwards,
            (0, _) => entries,
            _ => format!("{forwards} and {entries}"),
        }
    }

    /// Returns a number of these with a noun for all: `4 forwards and outbound entries`.
    #[must_use]
    pub fn some(self, n: usize) -> String {
        let one = match (self.forwards, self.entries) {
            (_, 0) => "forward",
            (0, _) => "outbound entry",
            _ => "forward or outbound entry",
        };
        match n {
            1 => format!("1 {one}"),
            _ => format!("{n} {}", self.noun()),
        }
    }

    /// Returns a sentence's subject that denies all of them: `no forward and no outbound entry`. `kind` is a word before
    /// each noun with its space, such as `IPv6 `.
    #[must_use]
    pub fn no(self, kind: &str) -> String {
        match (self.forwards, self.entries) {
            (_, 0) => format!("no {kind}forward"),
            (0, _) => format!("no {kind}outbound entry"),
            _ => format!("no {kind}forward and no {kind}outbound entry"),
        }
    }

    /// Returns the word for several of them.
    #[must_use]
    pub fn noun(self) -> &'static str {
        match (self.forwards, self.entries) {
            (_, 0) => "forwards",
            (0, _) => "outbound entries",
            _ => "forwards and outbound entries",
        }
    }
}

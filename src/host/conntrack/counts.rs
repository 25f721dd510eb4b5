//! Reads what conntrack has counted: packets without a connection, and connections that it could not keep.

use std::fs;

use serde::Serialize;

use super::{LIMIT, list};

/// Conntrack's counts in this network namespace since boot. One is `None` if the kernel does not report it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ConntrackCounts {
    /// INVALID packets. They include packets outside of their connection's window (`nf_conntrack_in` in
    /// `net/netfilter/nf_conntrack_core.c`).
    pub invalid: Option<u64>,
    /// New connections that could not be added to the table, because another one has the same addresses and ports
    /// (`nf_ct_resolve_clash`, same file). Some kernels also count clashes that lose no packet.
    pub insert_failed: Option<u64>,
    /// Packets that were dropped because conntrack had no place for their connection: the table was full, or a
    /// connection could not be added.
    pub drop: Option<u64>,
    /// Connections that the kernel ended to make room in a full table. They were not `[ASSURED]` (`early_drop`, same
    /// file).
    pub early_drop: Option<u64>,
}

impl ConntrackCounts {
    fn new(count: impl Fn(&str) -> Option<u64>) -> Self {
        Self {
            invalid: count("invalid"),
            insert_failed: count("insert_failed"),
            drop: count("drop"),
            early_drop: count("early_drop"),
        }
    }
}

/// Reads the counts. None is known if conntrack tracks nothing yet.
#[must_use]
pub fn counts() -> ConntrackCounts {
    // Kernels without CONFIG_NF_CONNTRACK_PROCFS have no such file.
    if let Ok(text) = fs::read_to_string("/proc/net/stat/nf_conntrack") {
        return ConntrackCounts::new(|name| of_file(&text, name));
    }
    let text = list(&["-S"], LIMIT).unwrap_or_default();
    ConntrackCounts::new(|name| of_program(&text, name))
}

/// Reads a line of column names, then a line of hexadecimal numbers for each CPU.
fn of_file(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    let mut names = lines.next()?.split_ascii_whitespace();
    let column = names.position(|one| one == name)?;
    let of_cpu = |line: &str| {
        let number = line.split_ascii_whitespace().nth(column)?;
        u64::from_str_radix(number, 16).ok()
    };
    lines.map(of_cpu).sum()
}

/// Reads `name=number` words, one line for each CPU.
fn of_program(text: &str, name: &str) -> Option<u64> {
    let words = text.split_ascii_whitespace();
    let numbers = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let mut numbers = numbers.map(|number| number.parse::<u64>().ok()).peekable();
    numbers.peek()?;
    numbers.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts are from Linux 6.18 and conntrack 1.4.7.
    #[test]
    fn the_counts_of_all_cpus_are_added() {
        let text = "entries  clashres found new invalid ignore insert_failed drop early_drop\n\
                    00000002  00000000 00000000 00000000 0000000b 00000000 00000001 00000002 000000ff\n\
                    00000002  00000000 00000000 00000000 00000010 00000000 00000000 00000003 00000001\n";
        let counts = ConntrackCounts {
            invalid: Some(27),
            insert_failed: Some(1),
            drop: Some(5),
            early_drop: Some(256),
        };
        assert_eq!(ConntrackCounts::new(|name| of_file(text, name)), counts);
        let text = "cpu=0   \tfound=0 invalid=11 insert=0 insert_failed=1 drop=2 early_drop=255\n\
                    cpu=1   \tfound=3 invalid=16 insert=0 insert_failed=0 drop=3 early_drop=1\n";
        assert_eq!(ConntrackCounts::new(|name| of_program(text, name)), counts);
    }

    #[test]
    fn a_count_that_is_not_reported_is_not_known() {
        for text in ["entries found\n00000002 00000000\n", ""] {
            assert_eq!(of_file(text, "invalid"), None, "{text}");
        }
        // A line that was cut off.
        assert_eq!(of_file("entries invalid\n00000002\n", "invalid"), None);
        assert_eq!(of_program("", "invalid"), None);
        assert_eq!(of_program("cpu=0 early_drop=1", "drop"), None);
    }
}

//! The lines of sysctl files that concern IPv4 forwarding.

use std::path::{Path, PathBuf};

/// One line that sets IPv4 forwarding for all interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// As it is written there.
    pub key: String,
    pub on: bool,
}

/// The lines of one file that set IPv4 forwarding, in order. `conf.all.forwarding` is the same
/// switch as `ip_forward` under another name (net/ipv4/devinet.c), and both may be written with
/// slashes (sysctl.d(5)).
#[must_use]
pub fn assignments(file: &Path, text: &str) -> Vec<Assignment> {
    text.lines()
        .enumerate()
        .filter_map(|(n, line)| {
            let (key, value) = line.split_once('=')?;
            // A leading `-` says that a failure to set it does not matter.
            let key = key.trim().trim_start_matches('-').trim();
            let name = key.replace('/', ".");
            let concerns = matches!(
                name.as_str(),
                "net.ipv4.ip_forward" | "net.ipv4.conf.all.forwarding"
            );
            concerns.then(|| Assignment {
                file: file.to_owned(),
                line: n + 1,
                key: key.to_owned(),
                on: value.trim() != "0",
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_set_forwarding_count_however_they_are_spelled() {
        let text = "\
# net.ipv4.ip_forward=1
; net.ipv4.ip_forward=1
net.ipv4.ip_forward=1
 net/ipv4/ip_forward = 0
-net.ipv4.conf.all.forwarding= 1
net.ipv4.ip_forward_use_pmtu = 1
net.ipv6.conf.all.forwarding = 1
";
        let found: Vec<(usize, bool)> = assignments(Path::new("x.conf"), text)
            .iter()
            .map(|assignment| (assignment.line, assignment.on))
            .collect();
        assert_eq!(found, [(3, true), (4, false), (5, true)]);
    }
}

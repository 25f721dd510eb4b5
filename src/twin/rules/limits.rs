//! The packets that the limits of a spec dropped.

use super::programs::{FilterError, iptables};
use super::{PacketFilter, own, saved};

/// The options of a rule that takes the packets beyond a limit.
const ABOVE: [&str; 2] = ["--hashlimit-above ", "--connlimit-above "];

impl PacketFilter {
    /// Returns how many packets the limits in nvactl's chains have counted in the calling thread's namespace; `None` if
    /// there are no such limits.
    ///
    /// # Errors
    /// If iptables is missing or fails.
    pub fn beyond_limits(&self) -> Result<Option<u64>, FilterError> {
        let mut found = None;
        for text in &self.texts {
            let (backend, family) = (text.backend, text.family);
            let output = iptables(backend, family, &["-t", "filter", "-v", "-S"])?;
            if !output.status.success() {
                let program = backend.program(family, "iptables");
                return Err(FilterError::failed(&program, &output.stderr));
            }
            let text = String::from_utf8_lossy(&output.stdout);
            found = found.into_iter().chain(counted(&text)).reduce(|a, b| a + b);
        }
        Ok(found)
    }
}

/// Reads `iptables -v -S`: `-A NVACTL-… -m hashlimit --hashlimit-above … -c PACKETS BYTES -j DROP`.
fn counted(text: &str) -> Option<u64> {
    let rules = text
        .lines()
        .filter(|line| own::is_nvactls(saved::chain(line)));
    let limits = rules.filter(|line| ABOVE.iter().any(|option| line.contains(option)));
    let packets = limits.map(|line| {
        let (_, after) = line.rsplit_once(" -c ")?;
        after.split(' ').next()?.parse::<u64>().ok()
    });
    packets.map(Option::unwrap_or_default).reduce(|a, b| a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packets_beyond_all_limits_of_nvactl_are_counted() {
        let limit = |chain: &str, option: &str, packets: u64| {
            format!(
                "-A {chain} -p tcp -m x {option} 5 -m comment --comment a -c {packets} 60 -j DROP\n"
            )
        };
        let none = limit("NVACTL-ADMIT-1", "--dport", 7) + &limit("FORWARD", ABOVE[0], 5);
        assert_eq!(counted(&none), None);
        let some = limit("NVACTL-ADMIT-1", ABOVE[0], 0) + &none;
        assert_eq!(counted(&some), Some(0));
        let more = limit("NVACTL-ADMIT-1", ABOVE[0], 2) + &limit("NVACTL-EXIT-2", ABOVE[1], 3);
        assert_eq!(counted(&(more + &some)), Some(5));
    }
}

//! The kernel's switches that nvactl sets, and the lines of sysctl files that set them.

use std::path::{Path, PathBuf};

use crate::net::{Family, Interface};

/// A switch of the kernel that nvactl can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// Forwarding of a family's packets.
    Forwarding(Family),
    /// TCP packets outside of their connection's window belong to the connection, instead of being INVALID.
    Liberal,
}

impl Switch {
    pub const ALL: [Switch; 3] = [
        Switch::Forwarding(Family::V4),
        Switch::Forwarding(Family::V6),
        Switch::Liberal,
    ];

    /// Returns the switch's name for sysctl(8).
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Switch::Forwarding(family) => switch(family),
            Switch::Liberal => "net.netfilter.nf_conntrack_tcp_be_liberal",
        }
    }
}

/// One line of a sysctl file that sets a switch, for all interfaces or for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// The key as the file spells it.
    pub key: String,
    /// The interface that the line is about. `None` if it is about all.
    pub interface: Option<String>,
    pub on: bool,
}

/// The lines that set a switch at boot, in the order in which they are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SwitchAtBoot {
    pub read: Vec<Assignment>,
    /// Lines that only `sysctl --system` reads, not systemd-sysctl.
    pub unread: Vec<Assignment>,
    /// Files that this user may not read.
    pub unreadable: Vec<PathBuf>,
}

impl SwitchAtBoot {
    /// Returns the lines about all interfaces, in the order in which they are read.
    #[must_use]
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &Assignment> {
        self.read.iter().filter(|line| line.interface.is_none())
    }

    /// Returns the line that decides for one interface: the last line about it or about all interfaces.
    #[must_use]
    pub fn winner_for(&self, interface: &Interface) -> Option<&Assignment> {
        let of = |line: &&Assignment| {
            let named = line.interface.as_deref();
            named.is_none_or(|name| name == interface.as_str())
        };
        self.read.iter().rfind(of)
    }

    /// Returns the line about all interfaces that is read last, and so decides.
    #[must_use]
    pub fn winner(&self) -> Option<&Assignment> {
        self.all().next_back()
    }

    /// Returns the line that decides for these interfaces: a line that turns one of them off, if there is one.
    #[must_use]
    pub fn decider<'i>(
        &self,
        interfaces: impl IntoIterator<Item = &'i Interface>,
    ) -> Option<&Assignment> {
        let each = interfaces.into_iter();
        let winners = each.filter_map(|interface| self.winner_for(interface));
        winners.min_by_key(|winner| winner.on)
    }

    /// Returns the line that decides if `sysctl --system` is run later, if its value differs.
    #[must_use]
    pub fn other_winner(&self) -> Option<&Assignment> {
        let on = self.winner().is_some_and(|winner| winner.on);
        let mut unread = self.unread.iter();
        let other = unread.rfind(|line| line.interface.is_none());
        other.filter(|other| other.on != on)
    }
}

/// Returns the name of the switch that turns a family's forwarding on.
#[must_use]
pub fn switch(family: Family) -> &'static str {
    match family {
        Family::V4 => "net.ipv4.ip_forward",
        Family::V6 => "net.ipv6.conf.all.forwarding",
    }
}

/// Returns the lines of one file that set a switch, in order. A key may be a pattern, and may have slashes for
/// dots (sysctl.d(5)). The kernel refuses a value that is not a number.
///
/// IPv4's `conf.all.forwarding` is another name of `ip_forward`, and each interface has its own switch
/// (net/ipv4/devinet.c). For IPv6 only the common switch decides what is forwarded (`ip6_forward` in
/// `net/ipv6/ip6_output.c`). An interface's own IPv6 switch decides only whether the machine acts as a router
/// towards the hosts on it.
#[must_use]
pub fn assignments(switch: Switch, file: &Path, text: &str) -> Vec<Assignment> {
    let conf = match switch {
        Switch::Forwarding(Family::V4) => Some("net.ipv4.conf."),
        Switch::Forwarding(Family::V6) => Some("net.ipv6.conf."),
        Switch::Liberal => None,
    };
    text.lines()
        .enumerate()
        .filter_map(|(n, line)| {
            let (key, value) = line.split_once('=')?;
            // A leading `-` means that a failure to set the key does not matter.
            let key = key.trim().trim_start_matches('-').trim();
            let name = key.replace('/', ".");
            let of = conf
                .and_then(|conf| name.strip_prefix(conf))
                .and_then(|name| name.strip_suffix(".forwarding"));
            let of_all = name == switch.key() || matches!(of, Some("all" | "*"));
            let one = of.filter(|name| !matches!(*name, "all" | "*" | "default"));
            let v4 = switch == Switch::Forwarding(Family::V4);
            let concerns = of_all || (one.is_some() && v4);
            let number = value.split_ascii_whitespace().next()?;
            let number: i64 = number.parse().ok()?;
            concerns.then(|| Assignment {
                file: file.to_owned(),
                line: n + 1,
                key: key.to_owned(),
                interface: one.map(str::to_owned),
                on: number != 0,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_set_a_switch_count_in_every_spelling() {
        let text = "\
# net.ipv4.ip_forward=1
; net.ipv4.ip_forward=1
net.ipv4.ip_forward=1
 net/ipv4/ip_forward = 0
-net.ipv4.conf.all.forwarding= 1
net.ipv4.ip_forward_use_pmtu = 1
net.ipv4.conf.*.forwarding = 0 # off
net.ipv4.ip_forward = yes
net.ipv6.conf.all.forwarding = 1
net.ipv6.conf.eth0.forwarding = 0
net/ipv6/conf/*/forwarding = 0
-net.netfilter.nf_conntrack_tcp_be_liberal = 1
";
        let found = |switch| -> Vec<(usize, bool)> {
            let found = assignments(switch, Path::new("x.conf"), text);
            found.iter().map(|line| (line.line, line.on)).collect()
        };
        assert_eq!(
            found(Switch::Forwarding(Family::V4)),
            [(3, true), (4, false), (5, true), (7, false)]
        );
        let v6 = found(Switch::Forwarding(Family::V6));
        assert_eq!(v6, [(9, true), (11, false)]);
        assert_eq!(found(Switch::Liberal), [(12, true)]);
    }

    #[test]
    fn a_line_about_one_interface_decides_for_that_interface() {
        let text = "\
net.ipv4.ip_forward=1
net.ipv4.conf.eth0.forwarding=0
net/ipv4/conf/eth1.5/forwarding=0
net.ipv4.conf.default.forwarding=0
";
        let boot = SwitchAtBoot {
            read: assignments(Switch::Forwarding(Family::V4), Path::new("x.conf"), text),
            ..SwitchAtBoot::default()
        };
        assert_eq!(boot.winner().map(|line| line.line), Some(1));
        for (name, line) in [("eth0", 2), ("eth1.5", 3), ("eth2", 1)] {
            let name = name.parse().expect("it is a name");
            assert_eq!(boot.winner_for(&name).map(|line| line.line), Some(line));
        }
        let names = ["eth2", "eth0"].map(|name| name.parse().expect("it is a name"));
        assert_eq!(boot.decider(&names).map(|line| line.line), Some(2));
        assert_eq!(boot.decider(&names[..1]).map(|line| line.line), Some(1));
    }

    #[test]
    fn the_last_line_that_the_boot_reads_decides_and_other_lines_are_kept_apart() {
        let line = |file: &str, on: bool| {
            let text = format!("net.ipv4.ip_forward={}", u8::from(on));
            assignments(Switch::Forwarding(Family::V4), Path::new(file), &text)
        };
        let mut boot = SwitchAtBoot::default();
        assert_eq!(boot.winner(), None);
        boot.unread = line("sysctl.conf", false);
        assert_eq!((boot.winner(), boot.other_winner()), (None, None));
        boot.unread = line("sysctl.conf", true);
        assert_eq!(boot.winner(), None);
        assert_eq!(boot.other_winner(), boot.unread.last());
        boot.read = [line("10-a.conf", false), line("20-b.conf", true)].concat();
        assert_eq!(boot.winner(), boot.read.last());
        assert_eq!(boot.other_winner(), None);
        boot.unread = line("sysctl.conf", false);
        assert_eq!(boot.winner(), boot.read.last());
        assert_eq!(boot.other_winner(), boot.unread.last());
    }
}

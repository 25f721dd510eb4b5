//! Prints the status as metrics in the Prometheus text format 0.0.4, for the textfile collector of `node_exporter`.
//! The names stay.

use std::fmt::Write as _;

use super::{ForwardState, MachineStatus, Row, StatusReport};
use crate::health::rules_file::RulesFile;
use crate::net::Family;
use crate::netfilter::names::{Policy, TableName};

/// A metric of the whole machine.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: Option<u64>,
}

/// A metric of each forward.
struct PerForward {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&Row) -> Option<u64>,
}

const PER_FORWARD: [PerForward; 6] = [
    PerForward {
        name: "nvactl_forward_new_connections_total",
        kind: "counter",
        help: "First packets of connections that a forward has translated since its rules were loaded.",
        value: |row| Some(row.new.packets),
    },
    PerForward {
        name: "nvactl_forward_new_connections_bytes_total",
        kind: "counter",
        help: "Bytes of those first packets.",
        value: |row| Some(row.new.bytes),
    },
    PerForward {
        name: "nvactl_forward_refused_total",
        kind: "counter",
        help: "First packets that a forward's lists and limits have refused.",
        value: |row| Some(row.refused.packets),
    },
    PerForward {
        name: "nvactl_forward_connections",
        kind: "gauge",
        help: "Connections of a forward that the kernel tracks now.",
        value: |row| row.connections.map(number),
    },
    PerForward {
        name: "nvactl_forward_live_packets",
        kind: "gauge",
        help: "Packets so far of the connections that the kernel tracks now, both directions together.",
        value: |row| Some(row.traffic?.packets),
    },
    PerForward {
        name: "nvactl_forward_live_bytes",
        kind: "gauge",
        help: "Bytes of those packets.",
        value: |row| Some(row.traffic?.bytes),
    },
];

impl StatusReport {
    /// Returns all metrics, each with its HELP and TYPE line.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut out = String::new();
        for metric in self.machine().into_iter().chain(self.ipv6()) {
            let Metric {
                name,
                kind,
                help,
                value,
            } = metric;
            if let Some(value) = value {
                let _ = writeln!(
                    out,
                    "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
                );
            }
        }
        self.write_before_jumps(&mut out);
        let name = "nvactl_forward_state";
        let help = "1 for the forward's state, 0 for the others.";
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
        for row in &self.forwards {
            for state in ForwardState::ALL {
                let (forward, protocol) = (&row.name, row.protocol);
                let (word, value) = (state.word(), u64::from(row.state == state));
                let _ = writeln!(
                    out,
                    "{name}{{forward=\"{forward}\",protocol=\"{protocol}\",state=\"{word}\"}} {value}"
                );
            }
        }
        for metric in PER_FORWARD {
            let PerForward {
                name,
                kind,
                help,
                value,
            } = metric;
            let rows = self.forwards.iter();
            let mut samples = rows
                .filter_map(|row| Some((labels(row), value(row)?)))
                .peekable();
            // If no forward has a value, the metric is left out.
            if samples.peek().is_some() {
                let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            }
            for (labels, value) in samples {
                let _ = writeln!(out, "{name}{{{labels}}} {value}");
            }
        }
        out
    }

    /// Writes a sample for each table that has jumps, so that a count falls to 0 instead of ending.
    fn write_before_jumps(&self, out: &mut String) {
        let name = "nvactl_foreign_rules_before_jump";
        let help = "Other programs' rules before nvactl's jumps in a table.";
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
        let v6 = self.ipv6.as_ref().map(|_| Family::V6);
        for family in [Some(Family::V4), v6].into_iter().flatten() {
            for table in TableName::WRITTEN {
                let table = table.as_str();
                let chains = self.before_jumps.iter();
                let chains = chains.filter(|one| one.family == family && one.table == table);
                let count: usize = chains.map(|one| one.count).sum();
                let family = family.as_str();
                let _ = writeln!(
                    out,
                    "{name}{{family=\"{family}\",table=\"{table}\"}} {count}"
                );
            }
        }
    }

    fn machine(&self) -> Vec<Metric> {
        let metric = |name, kind, help, value| Metric {
            name,
            kind,
            help,
            value: Some(value),
        };
        let gauge = |name, help, value: u64| metric(name, "gauge", help, value);
        let counter = |name, help, value: u64| metric(name, "counter", help, value);
        let switch = |name, help, on: bool| metric(name, "gauge", help, u64::from(on));
        let tracked = self.conntrack;
        vec![
            switch(
                "nvactl_in_sync",
                "Whether the live rules are what the spec says.",
                self.in_sync,
            ),
            switch(
                "nvactl_ip_forward",
                "Whether the kernel forwards IPv4.",
                self.machine.ip_forward,
            ),
            switch(
                "nvactl_forward_policy_drop",
                "Whether the FORWARD policy is DROP.",
                self.machine.forward_policy == Policy::Drop.as_str(),
            ),
            switch(
                "nvactl_confirmation_pending",
                "Whether a change waits for its confirmation.",
                self.pending.is_some(),
            ),
            switch(
                "nvactl_boot_rules_same",
                "Whether the next boot loads the rules that are loaded now.",
                self.machine.at_boot.rules == RulesFile::Same,
            ),
            switch(
                "nvactl_boot_ip_forward",
                "Whether forwarding is on after a boot.",
                self.machine.at_boot.turns_forwarding_on(),
            ),
            Metric {
                value: tracked.map(|tracked| tracked.entries),
                ..gauge(
                    "nvactl_conntrack_entries",
                    "Connections that the kernel tracks.",
                    0,
                )
            },
            Metric {
                value: tracked.map(|tracked| tracked.limit),
                ..gauge(
                    "nvactl_conntrack_limit",
                    "Connections that the kernel can track.",
                    0,
                )
            },
            Metric {
                value: tracked.and_then(|tracked| tracked.invalid),
                ..counter(
                    "nvactl_conntrack_invalid_total",
                    "Packets that belonged to no connection.",
                    0,
                )
            },
            counter(
                "nvactl_established_packets_total",
                "Packets of known connections, of all forwards together.",
                self.established.packets,
            ),
            counter(
                "nvactl_established_bytes_total",
                "Bytes of known connections, of all forwards together.",
                self.established.bytes,
            ),
            gauge(
                "nvactl_drifted_lines",
                "Lines of nvactl's chains that somebody has added or removed.",
                number(self.drift.len()),
            ),
        ]
    }

    /// Returns the metrics of IPv6, without a value if nvactl does not touch IPv6.
    fn ipv6(&self) -> Vec<Metric> {
        let of_v6 = |name, help, of: fn(&MachineStatus) -> bool| Metric {
            name,
            kind: "gauge",
            help,
            value: self.ipv6.as_ref().map(|machine| u64::from(of(machine))),
        };
        vec![
            of_v6(
                "nvactl_ipv6_forward",
                "Whether the kernel forwards IPv6.",
                |ipv6| ipv6.ip_forward,
            ),
            of_v6(
                "nvactl_ipv6_forward_policy_drop",
                "Whether the FORWARD policy of IPv6 is DROP.",
                |ipv6| ipv6.forward_policy == Policy::Drop.as_str(),
            ),
            of_v6(
                "nvactl_boot_ipv6_rules_same",
                "Whether the next boot loads the IPv6 rules that are loaded now.",
                |ipv6| ipv6.at_boot.rules == RulesFile::Same,
            ),
            of_v6(
                "nvactl_boot_ipv6_forward",
                "Whether IPv6 forwarding is on after a boot.",
                |ipv6| ipv6.at_boot.turns_forwarding_on(),
            ),
        ]
    }
}

/// Returns a row's labels. No value needs an escape, because names and addresses have no such bytes.
fn labels(row: &Row) -> String {
    let Row {
        name,
        protocol,
        listen,
        target,
        ..
    } = row;
    format!("forward=\"{name}\",protocol=\"{protocol}\",listen=\"{listen}\",target=\"{target}\"")
}

fn number(n: usize) -> u64 {
    n as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::health::next_boot::NextBoot;
    use crate::health::status::{BeforeJump, MachineStatus, Tracked};
    use crate::host::persistence::RulesAtBoot;
    use crate::netfilter::counters::Count;

    fn row(name: &str, state: ForwardState) -> Row {
        Row {
            name: name.to_owned(),
            description: None,
            protocol: "tcp",
            listen: "10.3.0.4:80".to_owned(),
            target: "10.224.0.118:80".to_owned(),
            state,
            refused: Count::default(),
            new: Count {
                packets: 7,
                bytes: 420,
            },
            connections: Some(3),
            traffic: None,
        }
    }

    fn report(forwards: Vec<Row>) -> StatusReport {
        StatusReport {
            description: None,
            in_sync: true,
            machine: MachineStatus {
                backend: "nft".to_owned(),
                forward_policy: "DROP",
                ip_forward: true,
                at_boot: NextBoot {
                    place: "rules.v4",
                    rules: RulesFile::Same,
                    refused: None,
                    by: RulesAtBoot::Unit,
                    forwards: None,
                    forwards_unread: None,
                },
            },
            ipv6: None,
            pending: None,
            conntrack: Some(Tracked {
                entries: 1,
                limit: 2,
                invalid: Some(3),
                be_liberal: Some(false),
            }),
            established: Count::default(),
            firewall: Vec::new(),
            forwards,
            outbound: Vec::new(),
            drift: Vec::new(),
            before_jumps: [("PREROUTING", 2), ("POSTROUTING", 3)]
                .map(|(chain, count)| BeforeJump {
                    family: Family::V4,
                    table: "nat",
                    chain: chain.to_owned(),
                    count,
                    rules: Vec::new(),
                    stop: None,
                })
                .into(),
        }
    }

    /// Checks the same as `promtool check metrics`: the format, and the names that the Prometheus project recommends.
    #[test]
    fn the_text_is_what_prometheus_asks_for() {
        let with_traffic = |traffic| Row {
            traffic: Some(traffic),
            ..row("web", ForwardState::InSync)
        };
        let status = report(vec![
            with_traffic(Count {
                packets: 9,
                bytes: 2000,
            }),
            row("dns.v2", ForwardState::Drifted),
        ]);
        let text = status.prometheus();
        let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
        let mut lines = text.lines();
        let (mut current, mut samples) = ("", Vec::new());
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').expect("it says what it is");
                assert!(words.ends_with('.'), "{line}");
                let kind = lines.next().and_then(|line| line.strip_prefix("# TYPE "));
                let (of, kind) = kind
                    .and_then(|kind| kind.split_once(' '))
                    .expect("TYPE follows");
                assert_eq!(of, name);
                assert!(kinds.insert(name, kind).is_none(), "{name} twice");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
                let parts: Vec<&str> = name.split('_').collect();
                assert_eq!(parts[0], "nvactl");
                for part in parts {
                    assert!(
                        part.bytes()
                            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()),
                        "{name}"
                    );
                    let wrong = [
                        "counter", "gauge", "count", "sum", "bucket", "kb", "ms", "info",
                    ];
                    assert!(!wrong.contains(&part), "{name}");
                }
                current = name;
                continue;
            }
            let (sample, value) = line.rsplit_once(' ').expect("a value follows");
            value.parse::<u64>().expect("it is a number");
            assert_eq!(
                sample.split('{').next(),
                Some(current),
                "samples stand together"
            );
            assert!(!samples.contains(&sample), "{sample} twice");
            samples.push(sample);
        }
        assert_eq!(kinds.len(), 20);
        let live = |line: &&str| line.starts_with("nvactl_forward_live_");
        assert_eq!(text.lines().filter(live).count(), 2);
        for line in [
            "nvactl_forward_state{forward=\"dns.v2\",protocol=\"tcp\",state=\"drifted\"} 1",
            "nvactl_forward_state{forward=\"dns.v2\",protocol=\"tcp\",state=\"in_sync\"} 0",
            "nvactl_foreign_rules_before_jump{family=\"v4\",table=\"filter\"} 0",
            "nvactl_foreign_rules_before_jump{family=\"v4\",table=\"nat\"} 5",
            "nvactl_boot_ip_forward 0",
            "nvactl_conntrack_limit 2",
            "nvactl_conntrack_invalid_total 3",
            "nvactl_forward_live_packets{forward=\"web\",protocol=\"tcp\",listen=\"10.3.0.4:80\",target=\"10.224.0.118:80\"} 9",
            "nvactl_forward_live_bytes{forward=\"web\",protocol=\"tcp\",listen=\"10.3.0.4:80\",target=\"10.224.0.118:80\"} 2000",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}");
        }
    }
}

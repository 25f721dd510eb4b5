//! Prints the status as metrics in the Prometheus text format 0.0.4, for the textfile collector of `node_exporter`.
//! The names stay.

mod rows;

use std::fmt::Write as _;

use rows::{
    PER_FORWARD, PER_OUTBOUND, PER_SOURCE, labels, number, outbound_labels, write_each, write_state,
};

use super::{MachineStatus, RepairCount, Row, StatusReport};
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

impl Metric {
    /// Formats the metric with its HELP and TYPE line; nothing if it has no value.
    fn text(&self) -> String {
        let Metric {
            name,
            kind,
            help,
            value,
        } = self;
        value.map_or_else(String::new, |value| {
            format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n")
        })
    }
}

fn up(value: u64) -> Metric {
    Metric {
        name: "nvactl_up",
        kind: "gauge",
        help: "Whether the other metrics could be read.",
        value: Some(value),
    }
}

/// Returns the metrics of repairs, without a value if they are not known.
fn repairs(count: Option<RepairCount>) -> [Metric; 2] {
    [
        Metric {
            name: "nvactl_repairs_total",
            kind: "counter",
            help: "How often the saved rules were loaded again, because nvactl's rules were gone.",
            value: count.map(|count| count.total),
        },
        Metric {
            name: "nvactl_repair_braked",
            kind: "gauge",
            help: "Whether nvactl's rules are gone and are not loaded again, because that happened too often.",
            value: count.map(|count| u64::from(count.braked)),
        },
    ]
}

/// Returns the metrics when the status cannot be read.
#[must_use]
pub fn down(count: Option<RepairCount>) -> String {
    let [total, braked] = repairs(count);
    [up(0), total, braked].iter().map(Metric::text).collect()
}

impl StatusReport {
    /// Returns all metrics, each with its HELP and TYPE line.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut out = up(1).text();
        let of_machine = [self.machine(), self.conntrack(), self.ipv6()];
        let of_machine = of_machine.iter().flatten();
        let repairs = repairs(self.repairs);
        for metric in of_machine.chain(&repairs) {
            out.push_str(&metric.text());
        }
        self.write_before_jumps(&mut out);
        write_each(
            &mut out,
            &PER_SOURCE,
            self.snat.as_deref().unwrap_or_default(),
            |one| format!("address=\"{}\"", one.address),
        );
        let name = "nvactl_forward_state";
        let help = "1 for the forward's state, 0 for the others.";
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
        for row in &self.forwards {
            let Row {
                name: forward,
                protocol,
                ..
            } = row;
            let labels = format!("forward=\"{forward}\",protocol=\"{protocol}\"");
            write_state(&mut out, name, &labels, row.state);
        }
        write_each(&mut out, &PER_FORWARD, &self.forwards, labels);
        self.write_outbound(&mut out);
        out
    }

    /// Writes the metrics of outbound entries. If the spec has none and none is loaded, there are none.
    fn write_outbound(&self, out: &mut String) {
        if self.outbound.is_empty() {
            return;
        }
        let name = "nvactl_outbound_state";
        let help = "1 for the outbound entry's state, 0 for the others.";
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
        for row in &self.outbound {
            write_state(out, name, &outbound_labels(row), row.state);
        }
        write_each(out, &PER_OUTBOUND, &self.outbound, outbound_labels);
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
            counter(
                "nvactl_established_packets_total",
                "Packets of all known connections that this machine forwards.",
                self.established.packets,
            ),
            counter(
                "nvactl_established_bytes_total",
                "Bytes of all known connections that this machine forwards.",
                self.established.bytes,
            ),
            gauge(
                "nvactl_drifted_lines",
                "Lines of nvactl's chains that somebody has added or removed.",
                number(self.drift.len()),
            ),
        ]
    }

    /// Returns the metrics of the connection table, without a value if that is not known.
    fn conntrack(&self) -> Vec<Metric> {
        let gauge = |name, help, value| Metric {
            name,
            kind: "gauge",
            help,
            value,
        };
        let counter = |name, help, value| Metric {
            kind: "counter",
            ..gauge(name, help, value)
        };
        let tracked = self.conntrack;
        let counts = tracked.map(|tracked| tracked.counts).unwrap_or_default();
        vec![
            gauge(
                "nvactl_conntrack_entries",
                "Connections that the kernel tracks.",
                tracked.map(|tracked| tracked.entries),
            ),
            gauge(
                "nvactl_conntrack_limit",
                "Connections that the kernel can track.",
                tracked.map(|tracked| tracked.limit),
            ),
            counter(
                "nvactl_conntrack_invalid_total",
                "Packets that belonged to no connection.",
                counts.invalid,
            ),
            counter(
                "nvactl_conntrack_insert_failed_total",
                "New connections whose addresses and ports another connection had.",
                counts.insert_failed,
            ),
            counter(
                "nvactl_conntrack_early_drop_total",
                "Connections that the kernel ended because the table was full.",
                counts.early_drop,
            ),
            counter(
                "nvactl_conntrack_drop_total",
                "Packets dropped because conntrack did not add their connection.",
                counts.drop,
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::health::next_boot::NextBoot;
    use crate::health::snat_ports::SnatPorts;
    use crate::health::status::{BeforeJump, ForwardState, OutboundRow, Tracked};
    use crate::host::conntrack::ConntrackCounts;
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

    fn outbound_row(family: Family) -> OutboundRow {
        OutboundRow {
            name: "pods-out".to_owned(),
            description: None,
            family,
            protocol: "tcp, udp".to_owned(),
            from: "10.224.0.0/16".to_owned(),
            to: "internet".to_owned(),
            state: ForwardState::InSync,
            new: Count {
                packets: 8,
                bytes: 480,
            },
            refused: Count {
                packets: 2,
                bytes: 120,
            },
            connections: Some(5),
            traffic: None,
        }
    }

    fn machine() -> MachineStatus {
        MachineStatus {
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
        }
    }

    fn status() -> StatusReport {
        let with_traffic = |traffic| Row {
            traffic: Some(traffic),
            ..row("web", ForwardState::InSync)
        };
        StatusReport {
            description: None,
            in_sync: true,
            machine: machine(),
            ipv6: None,
            pending: None,
            repairs: Some(RepairCount {
                total: 14,
                braked: false,
            }),
            conntrack: Some(Tracked {
                entries: 1,
                limit: 2,
                counts: ConntrackCounts {
                    invalid: Some(3),
                    insert_failed: Some(4),
                    drop: Some(5),
                    early_drop: Some(6),
                },
                be_liberal: Some(false),
            }),
            snat: Some(vec![SnatPorts {
                address: "10.3.0.4".parse().expect("it is an address"),
                connections: 12,
                ports_used: 7,
                ports_finished: 3,
                protocol: "tcp",
                destination: "192.0.2.80:443".to_owned(),
            }]),
            established: Count::default(),
            firewall: Vec::new(),
            forwards: vec![
                with_traffic(Count {
                    packets: 9,
                    bytes: 2000,
                }),
                row("dns.v2", ForwardState::Drifted),
            ],
            outbound: vec![
                OutboundRow {
                    traffic: Some(Count {
                        packets: 11,
                        bytes: 3000,
                    }),
                    ..outbound_row(Family::V4)
                },
                outbound_row(Family::V6),
            ],
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
        let text = status().prometheus();
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
        assert_eq!(kinds.len(), 36);
        let live = |line: &&str| line.contains("_live_") && !line.starts_with('#');
        assert_eq!(text.lines().filter(live).count(), 4);
        for line in [
            "nvactl_forward_state{forward=\"dns.v2\",protocol=\"tcp\",state=\"drifted\"} 1",
            "nvactl_forward_state{forward=\"dns.v2\",protocol=\"tcp\",state=\"in_sync\"} 0",
            "nvactl_foreign_rules_before_jump{family=\"v4\",table=\"filter\"} 0",
            "nvactl_foreign_rules_before_jump{family=\"v4\",table=\"nat\"} 5",
            "nvactl_boot_ip_forward 0",
            "nvactl_conntrack_limit 2",
            "nvactl_conntrack_invalid_total 3",
            "nvactl_conntrack_insert_failed_total 4",
            "nvactl_conntrack_drop_total 5",
            "nvactl_conntrack_early_drop_total 6",
            "nvactl_snat_ports_used{address=\"10.3.0.4\"} 7",
            "nvactl_snat_ports_finished{address=\"10.3.0.4\"} 3",
            "nvactl_snat_connections{address=\"10.3.0.4\"} 12",
            "nvactl_outbound_state{name=\"pods-out\",family=\"v6\",state=\"in_sync\"} 1",
            "nvactl_outbound_new_connections_total{name=\"pods-out\",family=\"v4\"} 8",
            "nvactl_outbound_refused_total{name=\"pods-out\",family=\"v4\"} 2",
            "nvactl_outbound_connections{name=\"pods-out\",family=\"v6\"} 5",
            "nvactl_outbound_live_packets{name=\"pods-out\",family=\"v4\"} 11",
            "nvactl_outbound_live_bytes{name=\"pods-out\",family=\"v4\"} 3000",
            "nvactl_forward_live_packets{forward=\"web\",protocol=\"tcp\",listen=\"10.3.0.4:80\",target=\"10.224.0.118:80\"} 9",
            "nvactl_forward_live_bytes{forward=\"web\",protocol=\"tcp\",listen=\"10.3.0.4:80\",target=\"10.224.0.118:80\"} 2000",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}");
        }
    }

    #[test]
    fn a_status_that_cannot_be_read_has_metrics_of_its_own() {
        let names = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.map(str::to_owned).collect()
        };
        let count = RepairCount {
            total: 2,
            braked: true,
        };
        assert_eq!(
            names(&down(Some(count))),
            [
                "nvactl_up 0",
                "nvactl_repairs_total 2",
                "nvactl_repair_braked 1"
            ]
        );
        assert_eq!(names(&down(None)), ["nvactl_up 0"]);
        let text = status().prometheus();
        assert!(text.contains("\nnvactl_up 1\n"), "{text}");
        assert!(text.contains("\nnvactl_repairs_total 14\n"), "{text}");
    }

    #[test]
    fn metrics_of_what_a_spec_does_not_have_are_left_out() {
        let status = StatusReport {
            outbound: Vec::new(),
            snat: None,
            conntrack: None,
            ..status()
        };
        let text = status.prometheus();
        for name in ["nvactl_outbound_", "nvactl_snat_", "nvactl_conntrack_"] {
            assert!(!text.contains(name), "{text}");
        }
    }

    /// A name with a mistake would be an alert that never comes.
    #[test]
    fn the_example_s_alerts_name_metrics_that_there_are() {
        let rules = include_str!("../../../../examples/prometheus/nvactl.rules.yml");
        let rules: serde_yaml::Value = serde_yaml::from_str(rules).expect("it is YAML");
        let both = StatusReport {
            ipv6: Some(machine()),
            ..status()
        };
        let text = both.prometheus();
        let known: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        let mut named = BTreeMap::new();
        for rule in rules["groups"][0]["rules"].as_sequence().expect("a list") {
            let words = |value: &serde_yaml::Value| value.as_str().unwrap_or_default().to_owned();
            let (alert, expr) = (words(&rule["alert"]), words(&rule["expr"]));
            for part in [
                &alert,
                &expr,
                &words(&rule["labels"]["severity"]),
                &words(&rule["annotations"]["summary"]),
            ] {
                assert!(!part.is_empty(), "{rule:?}");
            }
            let of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            for name in expr.split(|c| !of_name(c)) {
                if name.starts_with("nvactl_") {
                    assert!(known.contains(&name), "{alert} asks for {name}");
                    // The only functions of a counter here are those of its growth.
                    let grows = expr.contains(&format!("increase({name}["));
                    assert_eq!(name.ends_with("_total"), grows, "{alert}: {expr}");
                    named.insert(name.to_owned(), alert.clone());
                }
            }
        }
        assert!(named.len() >= 10, "{named:?}");
        for name in ["ip_forward", "boot_rules_same", "boot_ip_forward"] {
            let v6 = name
                .replace("ip_", "ipv6_")
                .replace("boot_rules", "boot_ipv6_rules");
            for name in [name, &v6] {
                assert!(
                    named.contains_key(&format!("nvactl_{name}")),
                    "no alert for {name}"
                );
            }
        }
    }
}

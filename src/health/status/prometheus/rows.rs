//! The metrics of each forward, outbound entry and source address: their names, help and labels.

use std::fmt::Write as _;

use crate::health::snat_ports::SnatPorts;
use crate::health::status::{ForwardState, OutboundRow, Row};

/// A metric of each forward, outbound entry or source address.
pub struct PerRow<R> {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&R) -> Option<u64>,
}

pub const PER_FORWARD: [PerRow<Row>; 6] = [
    PerRow {
        name: "nvactl_forward_new_connections_total",
        kind: "counter",
        help: "First packets of connections that a forward has translated since its rules were loaded.",
        value: |row| Some(row.new.packets),
    },
    PerRow {
        name: "nvactl_forward_new_connections_bytes_total",
        kind: "counter",
        help: "Bytes of those first packets.",
        value: |row| Some(row.new.bytes),
    },
    PerRow {
        name: "nvactl_forward_refused_total",
        kind: "counter",
        help: "First packets that a forward's lists and limits have refused.",
        value: |row| Some(row.refused.packets),
    },
    PerRow {
        name: "nvactl_forward_connections",
        kind: "gauge",
        help: "Connections of a forward that the kernel tracks now.",
        value: |row| row.connections.map(number),
    },
    PerRow {
        name: "nvactl_forward_live_packets",
        kind: "gauge",
        help: "Packets so far of the connections that the kernel tracks now, both directions together.",
        value: |row| Some(row.traffic?.packets),
    },
    PerRow {
        name: "nvactl_forward_live_bytes",
        kind: "gauge",
        help: "Bytes of those packets.",
        value: |row| Some(row.traffic?.bytes),
    },
];

pub const PER_OUTBOUND: [PerRow<OutboundRow>; 6] = [
    PerRow {
        name: "nvactl_outbound_new_connections_total",
        kind: "counter",
        help: "First packets of connections that an outbound entry has let out since its rules were loaded.",
        value: |row| Some(row.new.packets),
    },
    PerRow {
        name: "nvactl_outbound_new_connections_bytes_total",
        kind: "counter",
        help: "Bytes of those first packets.",
        value: |row| Some(row.new.bytes),
    },
    PerRow {
        name: "nvactl_outbound_refused_total",
        kind: "counter",
        help: "First packets that an outbound entry's drops and limits have refused.",
        value: |row| Some(row.refused.packets),
    },
    PerRow {
        name: "nvactl_outbound_connections",
        kind: "gauge",
        help: "TCP and UDP connections of an outbound entry that the kernel tracks now.",
        value: |row| row.connections.map(number),
    },
    PerRow {
        name: "nvactl_outbound_live_packets",
        kind: "gauge",
        help: "Packets so far of these connections, both directions together.",
        value: |row| Some(row.traffic?.packets),
    },
    PerRow {
        name: "nvactl_outbound_live_bytes",
        kind: "gauge",
        help: "Bytes of those packets.",
        value: |row| Some(row.traffic?.bytes),
    },
];

pub const PER_SOURCE: [PerRow<SnatPorts>; 3] = [
    PerRow {
        name: "nvactl_snat_ports_used",
        kind: "gauge",
        help: "Source ports of an SNAT address in use to the one destination that has the most.",
        value: |snat| Some(number(snat.ports_used)),
    },
    PerRow {
        name: "nvactl_snat_ports_finished",
        kind: "gauge",
        help: "How many of these ports are those of finished connections.",
        value: |snat| Some(number(snat.ports_finished)),
    },
    PerRow {
        name: "nvactl_snat_connections",
        kind: "gauge",
        help: "Connections from an SNAT address that the kernel tracks now.",
        value: |snat| Some(number(snat.connections)),
    },
];

/// Writes each metric with a sample for each row that has a value. If none has, the metric is left out.
pub fn write_each<R>(
    out: &mut String,
    metrics: &[PerRow<R>],
    rows: &[R],
    labels: impl Fn(&R) -> String,
) {
    for metric in metrics {
        let PerRow {
            name,
            kind,
            help,
            value,
        } = metric;
        let samples = rows.iter().filter_map(|row| Some((row, value(row)?)));
        let mut samples = samples.peekable();
        if samples.peek().is_some() {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        }
        for (row, value) in samples {
            let _ = writeln!(out, "{name}{{{}}} {value}", labels(row));
        }
    }
}

/// Writes 1 for the state, and 0 for the others.
pub fn write_state(out: &mut String, name: &str, labels: &str, state: ForwardState) {
    for one in ForwardState::ALL {
        let (word, value) = (one.word(), u64::from(one == state));
        let _ = writeln!(out, "{name}{{{labels},state=\"{word}\"}} {value}");
    }
}

pub fn outbound_labels(row: &OutboundRow) -> String {
    format!("name=\"{}\",family=\"{}\"", row.name, row.family.as_str())
}

/// Returns a row's labels. No value needs an escape, because names and addresses have no such bytes.
pub fn labels(row: &Row) -> String {
    let Row {
        name,
        protocol,
        listen,
        target,
        ..
    } = row;
    format!("forward=\"{name}\",protocol=\"{protocol}\",listen=\"{listen}\",target=\"{target}\"")
}

pub fn number(n: usize) -> u64 {
    n as u64
}

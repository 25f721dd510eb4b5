//! The state of each forward: whether its rules are loaded as the spec says, and its counters. `doctor` decides the
//! effect of other programs' rules on packets, not this module.

mod cut_off;
mod jumps;
pub mod prometheus;

use std::collections::{BTreeMap, BTreeSet};

use cut_off::CutOff;
pub use jumps::{BeforeJump, before_jumps};
use serde::Serialize;

use crate::diff::drift::{
    Comparison, Drift, DriftKind, FieldChange, ForwardLine, LineKind, ORDER, PlacedRule, gone,
    outbound_rules, rules_by_key,
};
use crate::forwards::{self, ForwardSet, Listeners, listeners_of, reached_of};
use crate::health::counts;
use crate::health::next_boot::NextBoot;
use crate::health::snat_ports::SnatPorts;
use crate::health::takers::Takers;
use crate::host::conntrack::ConntrackCounts;
use crate::host::network::Links;
use crate::net::Family;
use crate::netfilter::conntrack::Flow;
use crate::netfilter::counters::{Count, Counters};
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::ruleset::Ruleset;
use crate::plan::unplan::{ForwardKey, plan_as, replanned};
use crate::plan::{Hook, accept_known};

/// The report of `nvactl status`; docs/json.md documents the fields.
#[derive(Debug, PartialEq, Serialize)]
pub struct StatusReport {
    /// The spec's own words about itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether the live rules are as the spec says. A rule of others counts only if it stops every packet before
    /// nvactl's jump.
    pub in_sync: bool,
    /// The machine's IPv4.
    #[serde(flatten)]
    pub machine: MachineStatus,
    /// The machine's IPv6, if nvactl touches IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<MachineStatus>,
    /// A change that waits for its confirmation, in words.
    pub pending: Option<String>,
    /// The repairs of rules that other programs took away; `None` if their number cannot be read.
    pub repairs: Option<RepairCount>,
    pub conntrack: Option<Tracked>,
    /// The ports in use of each source address; `None` if conntrack entries cannot be listed.
    pub snat: Option<Vec<SnatPorts>>,
    /// The packets of the rule for known connections: of all that the machine forwards, those of others included.
    pub established: Count,
    pub forwards: Vec<Row>,
    /// Left out if the spec has no outbound entry and none is loaded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outbound: Vec<OutboundRow>,
    /// Differences from the spec that concern all forwards, such as the FORWARD policy.
    pub firewall: Vec<FieldChange>,
    pub drift: Vec<Drift>,
    pub before_jumps: Vec<BeforeJump>,
}

/// The repairs of rules that other programs took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RepairCount {
    /// How often saved rules were loaded again.
    pub total: u64,
    /// Whether rules are gone and stay so, because there were too many repairs.
    pub braked: bool,
}

/// The machine's settings for one family.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct MachineStatus {
    pub backend: String,
    pub forward_policy: &'static str,
    /// Whether the kernel forwards packets of the family.
    pub ip_forward: bool,
    pub at_boot: NextBoot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tracked {
    pub entries: u64,
    pub limit: u64,
    #[serde(flatten)]
    pub counts: ConntrackCounts,
    /// Whether the kernel accepts TCP packets outside their connection's window, so that they are not INVALID.
    pub be_liberal: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ForwardState {
    InSync,
    Missing,
    Drifted,
    /// The forward is loaded, but not in the spec.
    Surplus,
}

impl ForwardState {
    pub const ALL: [ForwardState; 4] = [
        ForwardState::InSync,
        ForwardState::Missing,
        ForwardState::Drifted,
        ForwardState::Surplus,
    ];

    /// Returns the state's name in JSON and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            ForwardState::InSync => "in_sync",
            ForwardState::Missing => "missing",
            ForwardState::Drifted => "drifted",
            ForwardState::Surplus => "surplus",
        }
    }
}

/// One forward.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub protocol: &'static str,
    pub listen: String,
    pub target: String,
    pub state: ForwardState,
    /// First packets of connections, since the forward's rules were loaded.
    pub new: Count,
    /// First packets that the forward's lists and limits have refused since then.
    pub refused: Count,
    /// Connections that the kernel tracks now, if that is known.
    pub connections: Option<usize>,
    /// The packets of these connections so far, both directions together, if the kernel counts those of each.
    #[serde(skip)]
    pub traffic: Option<Count>,
}

/// The connections of a forward or outbound entry.
#[derive(Debug, Clone, Copy)]
struct Alive {
    count: usize,
    traffic: Option<Count>,
}

impl Default for Alive {
    fn default() -> Self {
        Self {
            count: 0,
            traffic: Some(Count::default()),
        }
    }
}

impl Alive {
    fn add(&mut self, flow: &Flow) {
        self.count += 1;
        self.traffic = self.traffic.zip(flow.traffic).map(|(mut sum, traffic)| {
            sum.add(traffic);
            sum
        });
    }
}

/// One outbound entry of one family.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct OutboundRow {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub family: Family,
    pub protocol: String,
    pub from: String,
    pub to: String,
    pub state: ForwardState,
    /// First packets of connections that have left, since the entry's rules were loaded.
    pub new: Count,
    /// First packets that the entry's drops and limits have refused since then.
    pub refused: Count,
    /// Connections by tcp and udp that the kernel tracks now, if that is known.
    pub connections: Option<usize>,
    /// The packets of these connections so far, both directions together, if the kernel counts those of each.
    #[serde(skip)]
    pub traffic: Option<Count>,
}

/// The live rules, counters and connections.
#[derive(Debug)]
pub struct LiveRules<'l> {
    pub ruleset: &'l Ruleset,
    pub counters: &'l Counters,
    /// `None` if conntrack entries cannot be listed.
    pub flows: Option<&'l [Flow]>,
    pub links: &'l Links,
}

/// Returns a row for each forward and protocol of the spec, then a row for each loaded forward that is not in the spec.
/// `comparison` compares the live rules with the spec.
#[must_use]
pub fn rows(
    live: &LiveRules<'_>,
    set: &ForwardSet,
    family: Family,
    comparison: &Comparison,
) -> Vec<Row> {
    let planned = plan_as(live.ruleset, set, family);
    let (want, have) = (rules_by_key(&planned), rules_by_key(live.ruleset));
    let new = counts::new_connections(live.counters, live.ruleset);
    let count = |key| new.get(&key).copied().unwrap_or_default();
    let refused = counts::refused(live.counters, live.ruleset);
    let refused = |key| refused.get(&key).copied().unwrap_or_default();
    let listeners = Listeners::new(set);
    let mut connections: BTreeMap<ForwardKey<'_>, Alive> = BTreeMap::new();
    let alive = live.flows.unwrap_or_default().iter();
    for flow in alive.filter(|flow| !flow.finished) {
        if let Some(forward) = listeners.leader(flow) {
            let key = (forward.name.as_str(), forward.protocol);
            connections.entry(key).or_default().add(flow);
        }
    }
    let replanned = replanned(live.ruleset, family);
    let gone = gone(live.ruleset, &replanned);
    let replies_gone = gone.iter().any(|place| *place.rule == accept_known());
    let cut_off = CutOff::new(live.ruleset, &planned, &replanned, &gone);
    let changed = changed_chains(live.ruleset, &planned);
    let mut rows = Vec::new();
    for row in forwards::rows(&set.forwards).filter(|row| row[0].family() == family) {
        let forward = &row[0];
        let name = forward.name.as_str();
        let key = (name, forward.protocol);
        let state = match (have.get(&key), want.get(&key)) {
            (None, _) => ForwardState::Missing,
            (have, want) if have != want || replies_gone => ForwardState::Drifted,
            (Some(have), _) if cut_off.has(key, have) => ForwardState::Drifted,
            (have, _) if leads_to_any(have, &planned, &changed) => ForwardState::Drifted,
            _ => ForwardState::InSync,
        };
        let alive = live
            .flows
            .map(|_| connections.get(&key).copied().unwrap_or_default());
        rows.push(Row {
            name: name.to_owned(),
            description: forward.description.as_ref().map(ToString::to_string),
            protocol: forward.protocol.as_str(),
            listen: listeners_of(row),
            target: reached_of(row),
            state,
            new: count(key),
            refused: refused(key),
            connections: alive.map(|alive| alive.count),
            traffic: alive.and_then(|alive| alive.traffic),
        });
    }
    for removed in comparison.removed.iter().filter(|one| one.kind.is_none()) {
        let Some(key) = removed.key() else { continue };
        rows.push(Row {
            state: ForwardState::Surplus,
            new: count(key),
            refused: refused(key),
            connections: None,
            traffic: None,
            name: removed.name.clone(),
            description: None,
            protocol: key.1.as_str(),
            listen: removed.listen.clone(),
            target: removed.target.clone(),
        });
    }
    rows
}

/// Returns a row for each outbound entry of the spec, then a row for each loaded entry that is not in the spec.
#[must_use]
pub fn outbound_rows(
    live: &LiveRules<'_>,
    set: &ForwardSet,
    family: Family,
    comparison: &Comparison,
) -> Vec<OutboundRow> {
    let planned = plan_as(live.ruleset, set, family);
    let (want, have) = (outbound_rules(&planned), outbound_rules(live.ruleset));
    let counts = counts::outbound(live.counters, live.ruleset);
    let count = |name: &str| counts.get(name).copied().unwrap_or_default();
    let replanned = replanned(live.ruleset, family);
    let gone = gone(live.ruleset, &replanned);
    let replies_gone = gone.iter().any(|place| *place.rule == accept_known());
    let cut_off = CutOff::new(live.ruleset, &planned, &replanned, &gone);
    let changed = changed_chains(live.ruleset, &planned);
    let mut connections: BTreeMap<&str, Alive> = BTreeMap::new();
    let alive = live.flows.unwrap_or_default().iter();
    let takers = Takers::new(set, live.links);
    for flow in alive.filter(|flow| !flow.finished) {
        if let Some(entry) = takers.entry_of(flow) {
            let of_entry = connections.entry(entry.name.as_str()).or_default();
            of_entry.add(flow);
        }
    }
    let mut rows = Vec::new();
    for entry in set.outbound_of(family) {
        let name = entry.name.as_str();
        let state = match (have.get(name), want.get(name)) {
            (None, _) => ForwardState::Missing,
            (have, want) if have != want || replies_gone => ForwardState::Drifted,
            (Some(have), _) if cut_off.has_any(have) => ForwardState::Drifted,
            (have, _) if leads_to_any(have, &planned, &changed) => ForwardState::Drifted,
            _ => ForwardState::InSync,
        };
        let words = ForwardLine::from(entry);
        let alive = live
            .flows
            .map(|_| connections.get(name).copied().unwrap_or_default());
        rows.push(OutboundRow {
            family,
            protocol: words.protocol,
            from: words.listen,
            to: words.target,
            description: words.description,
            state,
            new: count(name).new,
            refused: count(name).refused,
            connections: alive.map(|alive| alive.count),
            traffic: alive.and_then(|alive| alive.traffic),
            name: words.name,
        });
    }
    let removed = comparison.removed.iter();
    for line in removed.filter(|line| line.kind == Some(LineKind::Outbound)) {
        rows.push(OutboundRow {
            name: line.name.clone(),
            description: None,
            family,
            protocol: line.protocol.clone(),
            from: line.listen.clone(),
            to: line.target.clone(),
            state: ForwardState::Surplus,
            new: count(&line.name).new,
            refused: count(&line.name).refused,
            connections: None,
            traffic: None,
        });
    }
    rows
}

/// Returns the chains of lists and logs that somebody has changed.
fn changed_chains<'p>(
    live: &Ruleset,
    planned: &'p Ruleset,
) -> BTreeSet<(TableName, &'p ChainName)> {
    let own = planned.chains().filter(|(_, name, _)| name.is_own());
    let changed = own.filter(|(table, name, chain)| {
        Hook::of(name).is_none() && live.chain(*table, name) != Some(chain)
    });
    changed.map(|(table, name, _)| (table, name)).collect()
}

/// Whether a forward's rules lead to one of these chains, directly or by other chains.
fn leads_to_any(
    places: Option<&Vec<PlacedRule<'_>>>,
    planned: &Ruleset,
    chains: &BTreeSet<(TableName, &ChainName)>,
) -> bool {
    if chains.is_empty() {
        return false;
    }
    let places = places.into_iter().flatten();
    let mut next: Vec<(TableName, &ChainName)> = places
        .filter_map(|place| Some((place.table, place.rule.leads_to()?)))
        .collect();
    let mut seen = BTreeSet::new();
    while let Some((table, name)) = next.pop() {
        if chains.contains(&(table, name)) {
            return true;
        }
        if seen.insert((table, name)) {
            let rules = planned.chain(table, name).into_iter();
            let rules = rules.flat_map(|chain| &chain.rules);
            next.extend(rules.filter_map(|rule| Some((table, rule.leads_to()?))));
        }
    }
    false
}

/// Returns whether all is in sync; the differences that concern all forwards; and the lines that somebody added to
/// nvactl's chains or removed, or that keep packets from nvactl's jumps.
#[must_use]
pub fn drift(
    comparison: Comparison,
    rows: &[Row],
    outbound: &[OutboundRow],
    before_jumps: &[BeforeJump],
) -> (bool, Vec<FieldChange>, Vec<Drift>) {
    let states = rows.iter().map(|row| row.state);
    let mut states = states.chain(outbound.iter().map(|row| row.state));
    let rows = states.all(|state| state == ForwardState::InSync);
    let mut drift = comparison.drift;
    // A rule with conditions before a jump is no drift, because packets still reach the jump.
    drift.retain(|drift| drift.what != DriftKind::InFront);
    drift.extend(before_jumps.iter().filter_map(|one| one.stop.clone()));
    let mut firewall = comparison.firewall;
    let moved = comparison.changed.iter().flat_map(|entry| {
        let order = entry.changes.iter().filter(|change| change.field == ORDER);
        order.map(|change| FieldChange {
            field: ORDER,
            from: format!("{} {}", entry.name, change.from),
            to: format!("{} {}", entry.name, change.to),
        })
    });
    let moved: Vec<FieldChange> = moved.collect();
    if comparison.reordered && moved.is_empty() {
        firewall.push(FieldChange {
            field: ORDER,
            from: "another".to_owned(),
            to: "the spec's".to_owned(),
        });
    }
    firewall.extend(moved);
    (
        rows && drift.is_empty() && firewall.is_empty(),
        firewall,
        drift,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diff::drift::compare_family;
    use crate::host::network::Link;
    use crate::netfilter::text::parse::parse;
    use crate::plan::plan;
    use crate::yaml;

    const JUMP: &str = "-A FORWARD -j NVACTL-FORWARD\n";
    const NAT: &str = "-A PREROUTING -j NVACTL-PREROUTING\n";
    const KNOWN: &str = "-A NVACTL-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n";

    fn set() -> ForwardSet {
        yaml::read(
            b"firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
  - {name: dns, listen: 53, protocol: udp, target: {pod: 10.224.0.118:5353}}",
        )
        .expect("it is valid")
    }

    /// Returns the states of the two forwards, whether all is in sync, and the drift, for the planned rules with
    /// `from` replaced by `to`.
    fn judged(from: &str, to: &str) -> ([ForwardState; 2], bool, Vec<String>) {
        let set = set();
        let planned = plan(&set, Family::V4).with_builtin_chains().to_string();
        assert!(planned.contains(from), "{from}: {planned}");
        let ruleset = parse(&planned.replacen(from, to, 1)).expect("it is readable");
        let live = LiveRules {
            ruleset: &ruleset,
            counters: &Counters::default(),
            flows: None,
            links: &Links::default(),
        };
        let comparison = compare_family(&ruleset, &set, Family::V4);
        let rows = rows(&live, &set, Family::V4, &comparison);
        let before = before_jumps(&ruleset, Family::V4);
        let (in_sync, _, drift) = drift(comparison, &rows, &[], &before);
        let states = [0, 1].map(|n| rows[n].state);
        let lines = drift
            .iter()
            .map(|one| format!("{:?} {}", one.what, one.line));
        (states, in_sync, lines.collect())
    }

    /// The lists of an entry are chains of each table that it uses.
    #[test]
    fn a_changed_list_of_an_outbound_entry_is_drift_in_each_table() {
        let set = yaml::read(
            b"firewall: {interface: eth0, mss: 1360}
outbound:
  - {name: out, allow_from: [10.224.0.0/16, 10.9.0.0/16], allow_to: [192.0.2.0/24, 203.0.113.0/24], protocol: tcp}",
        )
        .expect("it is valid");
        let planned = plan(&set, Family::V4).with_builtin_chains();
        for table in TableName::WRITTEN {
            let mut live = planned.clone();
            let mut chains = live.tables.get_mut(&table).expect("it is used").iter_mut();
            let list = chains.find(|(name, _)| name.as_str().starts_with("NVACTL-TO-"));
            let (_, list) = list.expect("it is there");
            list.rules.pop();
            let rules = LiveRules {
                ruleset: &live,
                counters: &Counters::default(),
                flows: None,
                links: &Links::default(),
            };
            let comparison = compare_family(&live, &set, Family::V4);
            let rows = outbound_rows(&rules, &set, Family::V4, &comparison);
            assert_eq!(rows[0].state, ForwardState::Drifted, "{table}");
        }
    }

    #[test]
    fn a_jump_that_packets_do_not_reach_is_drift() {
        use ForwardState::{Drifted, InSync};
        for (from, to, states, drift) in [
            (JUMP, JUMP.to_owned(), InSync, None),
            (
                JUMP,
                String::new(),
                Drifted,
                Some("TakenOut -A FORWARD -j NVACTL-FORWARD"),
            ),
            // The forwards work, but the jump is not what nvactl loads.
            (
                JUMP,
                JUMP.repeat(2),
                InSync,
                Some("PutIn -A FORWARD -j NVACTL-FORWARD"),
            ),
            (
                JUMP,
                format!("-A FORWARD -j DROP\n{JUMP}"),
                Drifted,
                Some("InFront -A FORWARD -j DROP"),
            ),
            (
                NAT,
                format!("-A PREROUTING -j ACCEPT\n{NAT}"),
                Drifted,
                Some("InFront -A PREROUTING -j ACCEPT"),
            ),
            // Packets still reach the jump.
            (
                JUMP,
                format!("-A FORWARD -p tcp -j DROP\n-A FORWARD -p udp -j DROP\n{JUMP}"),
                InSync,
                None,
            ),
            (
                NAT,
                format!("-A PREROUTING -i eth0 -j ACCEPT\n{NAT}"),
                InSync,
                None,
            ),
        ] {
            let drift: Vec<String> = drift.into_iter().map(str::to_owned).collect();
            let (found, in_sync, lines) = judged(from, &to);
            assert_eq!((found, in_sync), ([states; 2], drift.is_empty()), "{to}");
            assert_eq!(lines, drift, "{to}");
        }
    }

    fn links() -> Links {
        let link = |name: &str, address: &str| Link {
            name: name.to_owned(),
            addresses: vec![address.parse().expect("an address")],
            ..Link::default()
        };
        Links(vec![link("eth0", "10.3.0.4"), link("eth1", "10.2.0.4")])
    }

    /// Returns the rows of two entries, for the planned rules with `from` replaced by `to`.
    fn outbound_of(from: &str, to: &str, flows: &[Flow]) -> Vec<OutboundRow> {
        let set = yaml::read(
            b"firewall: {interface: eth0}
outbound:
  - {name: a, allow_from: [10.1.0.0/16, 10.3.0.0/16], allow_to: [192.0.2.0/24, 203.0.113.0/24]}
  - {name: b, allow_from: [10.2.0.0/16], allow_to: [internet, 10.0.0.0/8], snat: none}",
        )
        .expect("it is valid");
        let planned = plan(&set, Family::V4).with_builtin_chains().to_string();
        assert!(planned.contains(from), "{from}: {planned}");
        let at = planned.find(from).unwrap_or_default();
        let table = planned[..at].matches("COMMIT").count();
        assert_eq!(table, usize::from(!from.is_empty()), "{from} is in nat");
        let ruleset = parse(&planned.replacen(from, to, 1)).expect("it is readable");
        let live = LiveRules {
            ruleset: &ruleset,
            counters: &Counters::default(),
            flows: Some(flows),
            links: &links(),
        };
        let comparison = compare_family(&ruleset, &set, Family::V4);
        outbound_rows(&live, &set, Family::V4, &comparison)
    }

    #[test]
    fn an_entry_is_drifted_if_its_list_in_nat_is_changed() {
        use ForwardState::{Drifted, InSync};
        let set = yaml::read(
            b"firewall: {interface: eth0}
outbound: [{name: a, allow_from: [10.1.0.0/16, 10.3.0.0/16], allow_to: [192.0.2.0/24, 203.0.113.0/24]}]",
        )
        .expect("it is valid");
        let planned = plan(&set, Family::V4);
        let nat = planned.tables.get(&TableName::Nat).expect("it has rules");
        let mut lists = nat
            .keys()
            .filter(|name| name.as_str().starts_with("NVACTL-TO-"));
        let list = lists.next().expect("a list").as_str();
        let line = format!("-A {list} -d 203.0.113.0/24");
        for (from, to, state) in [
            ("", "", InSync),
            (&line, &line.replace("203.0.113.", "203.0.114."), Drifted),
        ] {
            let rows = outbound_of(from, to, &[]);
            assert_eq!([rows[0].state, rows[1].state], [state, InSync], "{from}");
        }
    }

    #[test]
    fn a_connection_of_the_machine_itself_is_not_an_entry_s() {
        let flow = |source: &str, to: &str, reply: &str| {
            let line = format!(
                "tcp 6 431999 ESTABLISHED src={source} dst={to} sport=5000 dport=443 \
                 src={to} dst={reply} sport=443 dport=5000 [ASSURED]"
            );
            Flow::parse(&line).expect("it is a flow")
        };
        let server = "192.0.2.80";
        for (source, to, reply, live) in [
            ("10.1.0.7", server, "10.3.0.4", [1, 0]),
            ("10.1.0.7", server, "10.1.0.7", [0, 0]),
            ("10.2.0.7", server, "10.2.0.7", [0, 1]),
            // From the machine, and to it.
            ("10.2.0.4", server, "10.2.0.4", [0, 0]),
            ("10.2.0.7", "10.2.0.4", "10.2.0.7", [0, 0]),
            ("10.2.0.7", "10.3.0.4", "10.2.0.7", [0, 0]),
            // Another interface's address.
            ("10.1.0.7", server, "10.2.0.4", [0, 0]),
        ] {
            let rows = outbound_of("", "", &[flow(source, to, reply)]);
            let found = [0, 1].map(|n| rows[n].connections.unwrap_or_default());
            assert_eq!(found, live, "{source} {to} {reply}");
        }
    }

    #[test]
    fn a_forward_is_drifted_behind_a_rule_that_stops_every_packet_in_nvactl_s_chain() {
        use ForwardState::{Drifted, InSync};
        let web = "-A NVACTL-PREROUTING -i eth0 -p tcp";
        let dns = "-A NVACTL-PREROUTING -i eth0 -p udp";
        for (from, to, states) in [
            (KNOWN, "-A NVACTL-FORWARD -j DROP\n", [Drifted; 2]),
            (
                KNOWN,
                "-A NVACTL-FORWARD -s 192.0.2.1/32 -j DROP\n",
                [InSync; 2],
            ),
            (web, "-A NVACTL-PREROUTING -j RETURN\n", [Drifted; 2]),
            (dns, "-A NVACTL-PREROUTING -j RETURN\n", [InSync, Drifted]),
        ] {
            let (found, in_sync, lines) = judged(from, &format!("{to}{from}"));
            assert_eq!((found, in_sync), (states, false), "{to}{from}");
            assert_eq!(lines, [format!("PutIn {}", to.trim_end())]);
        }
    }
}

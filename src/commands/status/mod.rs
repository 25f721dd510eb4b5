//! `nvactl status`: the state of each forward, and of the machine around it.

mod repair;
mod textfile;

use std::fmt::Write as _;

use super::console::Console;
use super::disabled::{disabled, disabled_words};
use super::error::{Error, Result, fail};
use super::exit::Exit;
use super::families::{prefix, warn_of_unread_v6};
use super::host::{HostAccess, READ_WAIT};
use super::spec::load_applied_spec;
use super::table::table;
use crate::cli::{StatusArgs as Args, StatusFormat};
use crate::diff::drift::{Drift, DriftKind, FieldChange, compare_family, merged};
use crate::forwards::Name;
use crate::health::counts;
use crate::health::rules_file::RulesFile;
use crate::health::snat_ports::snat_ports;
use crate::health::status::{
    BeforeJump, ForwardState, LiveRules, MachineStatus, OutboundRow, RepairCount, Row,
    StatusReport, Tracked, before_jumps, drift, outbound_rows, rows,
};
use crate::host::iptables::{self, Iptables};
use crate::host::survey;
use crate::host::sysctl::settings::Switch;
use crate::host::{self, conntrack, network, sysctl};
use crate::net::Family;
use crate::net::per_family::{Families, PerFamily};
use crate::net::printable;
use crate::netfilter::conntrack::Flow;
use crate::netfilter::counters::Count;
use crate::ops::confirm::told_of;
use crate::ops::next_boot::{look, unit_fault};
use crate::ops::{families, name_interrupted};
use crate::plan::MARKED;

/// Repairs the rules, reports the status, and writes the metrics, as far as each was asked for. A step that fails does
/// not stop the steps behind it.
pub fn run(args: &Args, on: HostAccess<'_>, console: &mut Console) -> Result<Exit> {
    if args.repair || args.textfile.is_some() {
        host::require_root("status")?;
    }
    let repaired = if args.repair {
        repair::run(on, console)
    } else {
        Ok(Exit::Done)
    };
    let reported = if args.textfile.is_some() {
        // The file has what they say, and a journal would have them each minute.
        console.without_messages(|console| report(args, on, console))
    } else {
        report(args, on, console)
    };
    let written = args.textfile.as_deref().map_or(Ok(()), |file| {
        textfile::write(file, reported.as_ref().ok(), on, console)
    });
    let checked = reported.map(|status| {
        if args.check && !status.in_sync {
            if args.textfile.is_some() {
                console.warn("the loaded rules are not those of the spec; to see the difference: sudo nvactl diff");
            }
            Exit::Differs
        } else {
            Exit::Done
        }
    });
    worst([repaired, checked, written.map(|()| Exit::Done)], console)
}

/// Returns the result with the highest exit code, and prints the errors of the others.
fn worst(results: [Result<Exit>; 3], console: &mut Console) -> Result<Exit> {
    let code = |result: &Result<Exit>| match result {
        Ok(exit) => exit.code(),
        Err(error) => error.exit_code(),
    };
    let mut worst = Ok(Exit::Done);
    for mut result in results {
        if code(&result) > code(&worst) {
            std::mem::swap(&mut result, &mut worst);
        }
        if let Err(error) = result {
            fail(&error.of_command("status"), console);
        }
    }
    worst
}

/// Reads the status and prints it.
fn report(args: &Args, on: HostAccess<'_>, console: &mut Console) -> Result<StatusReport> {
    let (source, set) = load_applied_spec(args.spec.spec.as_deref(), on, console)?;
    host::require_root("status")?;
    let iptables = on.iptables(READ_WAIT);
    let state = on.known_state()?;
    let families = families(Some(&set), state.as_ref());
    let listing = iptables.start_listing(families)?;
    let (counted, unread) = listing.finish_readable(set.has(Family::V6))?;
    if let Some(unread) = unread {
        warn_of_unread_v6(&unread, console);
    }
    let families = counted.families();
    let rules = counted.map(|_, live| &live.ruleset);
    if let Some(state) = &state
        && let Some(remark) = name_interrupted(state, &rules)?
    {
        console.remark(&remark);
    }
    let flows = counted_flows(families, console);
    for warning in survey::survey(&iptables, families, MARKED.mask)?.warnings {
        console.warn(warning);
    }
    for (_, live) in counted.iter() {
        console.warn_of_rules(&live.warnings(&iptables));
    }
    if let Some((words, fix)) = unit_fault(state.as_ref()) {
        console.warn(format_args!("{words}; to fix it: {fix}"));
    }
    let links = network::links();
    let (mut comparisons, mut forwards, mut before) = (Vec::new(), Vec::new(), Vec::new());
    let mut outbound = Vec::new();
    let mut established = Count::default();
    for (family, live) in counted.iter() {
        let iptables::Live {
            ruleset, counters, ..
        } = live;
        let live = LiveRules {
            ruleset,
            counters,
            flows: flows
                .as_ref()
                .and_then(|flows| flows.get(family))
                .map(Vec::as_slice),
            links: &links,
        };
        let comparison = compare_family(ruleset, &set, family);
        forwards.extend(rows(&live, &set, family, &comparison));
        outbound.extend(outbound_rows(&live, &set, family, &comparison));
        before.extend(before_jumps(ruleset, family));
        comparisons.push(comparison);
        established.add(counts::established(counters));
    }
    let (in_sync, firewall, drift) = drift(merged(comparisons), &forwards, &outbound, &before);
    let around = rules.try_map(|family, ruleset| {
        Ok::<_, Error>(MachineStatus {
            backend: backend(&iptables, family),
            forward_policy: ruleset.forward_policy().as_str(),
            ip_forward: sysctl::forwards(family)?,
            at_boot: look(state.as_ref(), &iptables, family, ruleset, &set),
        })
    })?;
    let status = StatusReport {
        description: set.description.as_ref().map(ToString::to_string),
        in_sync,
        machine: around.v4,
        ipv6: around.v6,
        pending: told_of(state.as_ref())?,
        // Rules that are back need no repair.
        repairs: repair::count(state.as_ref()).map(|count| RepairCount {
            braked: count.braked && !in_sync,
            ..count
        }),
        conntrack: network::tracked().map(|(entries, limit)| Tracked {
            entries,
            limit,
            counts: conntrack::counts(),
            be_liberal: sysctl::value(Switch::Liberal).ok(),
        }),
        snat: flows.as_ref().map(|flows| {
            let of_each = flows.values().map(|flows| snat_ports(flows, &set, &links));
            of_each.flatten().collect()
        }),
        established,
        forwards,
        outbound,
        firewall,
        drift,
        before_jumps: before,
    };
    match args.format {
        StatusFormat::Text => {
            let [apply, doctor] = ["apply", "doctor"].map(|what| on.command(what, &source));
            console.print(&text(&status, &disabled(&source), &apply, &doctor));
        }
        StatusFormat::Json => console.say_json(&status)?,
        StatusFormat::Prometheus => console.print_exact(&status.prometheus()),
    }
    Ok(status)
}

/// Reads the connections of the families. `None` with a warning if they cannot be listed.
fn counted_flows(families: Families, console: &mut Console) -> Option<PerFamily<Vec<Flow>>> {
    match PerFamily::try_new(families, conntrack::flows) {
        Ok(flows) => Some(flows),
        Err(error) => {
            console.warn(format_args!("connections are not counted: {error}"));
            None
        }
    }
}

fn backend(iptables: &Iptables, family: Family) -> String {
    let found = survey::find(iptables, family).unwrap_or(iptables.backend);
    found.to_string()
}

fn text(status: &StatusReport, disabled: &[Name], apply: &str, doctor: &str) -> String {
    let mut out = String::new();
    let mut line = |name: &str, words: String| {
        let _ = writeln!(out, "{name:<12}{words}");
    };
    if let Some(description) = &status.description {
        line("description", printable::line(description).to_string());
    }
    for (machine, ip_forward) in [
        (Some(&status.machine), "ip_forward"),
        (status.ipv6.as_ref(), "forwarding"),
    ] {
        let Some(machine) = machine else { continue };
        let (of, boot) = (
            if ip_forward == "ip_forward" {
                ""
            } else {
                "IPv6: "
            },
            &machine.at_boot,
        );
        line("backend", format!("{of}{}", machine.backend));
        line("FORWARD", format!("{of}policy {}", machine.forward_policy));
        let later = match (&boot.forwards, &boot.forwards_unread) {
            (Some((on, by)), _) => format!("at boot {}, by {by}", u8::from(*on)),
            (None, Some(line)) => format!("at boot 0: systemd-sysctl does not read {line}"),
            (None, None) => "at boot 0: no file sets it".to_owned(),
        };
        let now = u8::from(machine.ip_forward);
        line(ip_forward, format!("{of}{now}; {later}"));
        let why = boot.refused.as_deref().map(printable::line);
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        let rules = match boot.rules {
            RulesFile::Same => "holds the loaded rules",
            RulesFile::Different => "differs from the loaded rules",
            RulesFile::Missing => "does not exist",
            RulesFile::Unreadable => "cannot be read",
            RulesFile::Refused => "does not load",
        };
        let place = boot.place;
        line(
            "at boot",
            format!("{place} {rules}{why}; {}", boot.loaded()),
        );
    }
    if let Some(tracked) = status.conntrack {
        line("conntrack", conntrack_words(tracked));
    }
    let snat = status.snat.iter().flatten();
    if let Some(fullest) = snat.max_by_key(|one| one.ports_used) {
        line("snat", fullest.to_string());
    }
    let through = status.established;
    line(
        "established",
        format!("{} packets, {} bytes", through.packets, through.bytes),
    );
    if let Some(pending) = &status.pending {
        line("pending", pending.clone());
    }
    if let Some(words) = status.repairs.and_then(repairs_words) {
        line("repairs", words);
    }
    if !status.forwards.is_empty() || status.outbound.is_empty() {
        let rows = status.forwards.iter();
        let described = rows.clone().any(|row| row.description.is_some());
        out.push('\n');
        out.push_str(&table(
            &headers(["NAME", "LISTEN", "TARGET"], described),
            rows.map(row),
        ));
    }
    if !status.outbound.is_empty() {
        let rows = status.outbound.iter();
        let described = rows.clone().any(|row| row.description.is_some());
        out.push('\n');
        out.push_str(&table(
            &headers(["OUTBOUND", "FROM", "TO"], described),
            rows.map(outbound_row),
        ));
    }
    if let Some(words) = disabled_words(disabled) {
        let _ = writeln!(out, "{words}");
    }
    if !status.firewall.is_empty() {
        out.push_str("\ndifferent from the spec:\n");
    }
    for change in &status.firewall {
        let FieldChange { field, from, to } = change;
        let _ = writeln!(out, "  {field}: {from}, the spec says {to}");
    }
    out.push_str(&drift_text(&status.drift, apply));
    if !status.before_jumps.is_empty() {
        out.push('\n');
    }
    for chain in &status.before_jumps {
        out.push_str(&before_jump(chain, doctor));
    }
    out
}

/// Describes the repairs so far; nothing if there was none.
fn repairs_words(repairs: RepairCount) -> Option<String> {
    let RepairCount { total, braked } = repairs;
    let words = match (total, braked) {
        (0, false) => return None,
        (_, false) => format!("{total}"),
        (_, true) => {
            format!("{total}; rules are gone and stay so, after too many repairs within an hour")
        }
    };
    Some(words)
}

/// Describes the connection table. The fix stands last, so that it can be pasted.
fn conntrack_words(tracked: Tracked) -> String {
    let mut words = format!("{} of {} entries", tracked.entries, tracked.limit);
    let counts = tracked.counts;
    if let Some(ended @ 1..) = counts.early_drop {
        let _ = write!(
            words,
            "; ended since boot because the table was full: {ended}"
        );
    }
    if let Some(clashes @ 1..) = counts.insert_failed {
        let _ = write!(words, "; not added since boot (insert_failed): {clashes}");
    }
    if let Some(invalid @ 1..) = counts.invalid {
        let _ = write!(words, "; INVALID packets since boot: {invalid}");
        if tracked.be_liberal == Some(false) {
            words.push_str(
                "; if live connections are reset: sudo nvactl sysctl enable --liberal --persist",
            );
        }
    }
    words
}

/// Returns the headers of a table: its own, and those of all. Descriptions are the last column, since their words may be
/// long; blanks at the end of a line are left out.
fn headers([name, from, to]: [&'static str; 3], described: bool) -> [&'static str; 9] {
    let last = if described { "DESCRIPTION" } else { "" };
    [
        name, from, to, "STATE", "NEW", "BYTES", "REFUSED", "LIVE", last,
    ]
}

/// Describes how nvactl's chains and jumps differ from the plan; nothing if they do not.
fn drift_text(drift: &[Drift], apply: &str) -> String {
    if drift.is_empty() {
        return String::new();
    }
    let mut out = "\nlines added or missing:\n".to_owned();
    for one in drift {
        let what = match one.what {
            DriftKind::TakenOut => "removed".to_owned(),
            DriftKind::PutIn => "added".to_owned(),
            DriftKind::InFront => match one.stop {
                Some(stop) => format!("{} every packet before nvactl's jump", stop.verb()),
                None => "before nvactl's jump".to_owned(),
            },
        };
        let _ = writeln!(
            out,
            "  {what}, {}{}: {}",
            prefix(one.family),
            one.table,
            printable::line(&one.line)
        );
    }
    let _ = writeln!(out, "  to fix it: {apply}");
    out
}

fn before_jump(before: &BeforeJump, doctor: &str) -> String {
    let BeforeJump {
        family,
        table,
        chain,
        count,
        ..
    } = before;
    let rules = match count {
        1 => "another program's rule is".to_owned(),
        _ => format!("{count} of other programs' rules are"),
    };
    let prefix = prefix(*family);
    format!(
        "{rules} before nvactl's jump in {prefix}{table} {chain}; to see the effect on packets: {doctor}\n"
    )
}

fn state_word(state: ForwardState) -> &'static str {
    match state {
        ForwardState::InSync => "in sync",
        ForwardState::Surplus => "not in the spec",
        state => state.word(),
    }
}

fn outbound_row(row: &OutboundRow) -> Vec<String> {
    vec![
        printable::line(&row.name).to_string(),
        format!("{} {}", row.protocol, row.from),
        row.to.clone(),
        state_word(row.state).to_owned(),
        row.new.packets.to_string(),
        row.new.bytes.to_string(),
        row.refused.packets.to_string(),
        row.connections
            .map_or("-".to_owned(), |count| count.to_string()),
        printable::line(row.description.as_deref().unwrap_or_default()).to_string(),
    ]
}

fn row(row: &Row) -> Vec<String> {
    let state = state_word(row.state);
    vec![
        printable::line(&row.name).to_string(),
        format!("{} {}", row.protocol, row.listen),
        row.target.clone(),
        state.to_owned(),
        row.new.packets.to_string(),
        row.new.bytes.to_string(),
        row.refused.packets.to_string(),
        row.connections
            .map_or("-".to_owned(), |count| count.to_string()),
        printable::line(row.description.as_deref().unwrap_or_default()).to_string(),
    ]
}

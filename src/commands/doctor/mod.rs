//! `nvactl doctor`: gathers facts about the machine, and names the first hop that fails.

mod ask_twin;
mod gather;
mod metrics;
mod text;

use std::time::{Duration, Instant};

use ask_twin::ask_twin;
use gather::FamilyInput;
use metrics::metrics;
use text::text;

use super::console::Console;
use super::disabled::{disabled, disabled_words};
use super::error::Result;
use super::exit::Exit;
use super::failure::CommandRefusal;
use super::host::{HostAccess, READ_WAIT};
use super::spec::{check_name, load_applied_spec};
use crate::cli::{Doctor as Args, DoctorFormat};
use crate::forwards::{Forward, ForwardSet, Name, Numbers};
use crate::health::doctor::{self, Check, Report, Status, Works};
use crate::host::sysctl::settings::Switch;
use crate::host::{self, azure, conntrack, network, sysctl};
use crate::net::Family;

pub fn run(args: &Args, on: HostAccess<'_>, console: &mut Console) -> Result<Exit> {
    let (source, set) = load_applied_spec(args.spec.spec.as_deref(), on, console)?;
    let disabled = disabled(&source);
    let only = args.forward.as_deref();
    if let Some(name) = only {
        if disabled.iter().any(|one| one.as_str() == name) {
            let name = name.to_owned();
            return Err(CommandRefusal::Disabled { name }.into());
        }
        check_name(&set, name, &source.name)?;
    }
    let is_asked = |name: &Name| only.is_none_or(|only| only == name.as_str());
    host::require_root("doctor")?;
    if let (None, Some(words)) = (only, disabled_words(&disabled)) {
        console.note(words);
    }
    let deadline = Instant::now() + Duration::from_secs_f64(args.deadline);
    // The rest of the time is for the copy of the machine.
    let probes_until = Instant::now() + Duration::from_secs_f64(args.deadline / 2.0);
    let iptables = on.iptables(READ_WAIT);
    let state = on.known_state()?;
    // Each family with forwards or entries is examined alone.
    let walked = Family::ALL.into_iter().filter(|family| {
        let mut forwards = set.forwards.iter();
        let of_forwards = forwards.any(|one| one.family() == *family && is_asked(&one.name));
        let has_asked = of_forwards || set.outbound_of(*family).any(|one| is_asked(&one.name));
        has_asked || only.is_none() && *family == Family::V4 && set.forwards.is_empty()
    });
    let counts = conntrack::counts();
    let sets: Vec<(Family, ForwardSet)> = walked.map(|family| (family, set.of(family))).collect();
    let mut examined = Vec::new();
    for (family, set) in &sets {
        let forwards = set.forwards.iter();
        let asked: Vec<&Forward> = forwards.filter(|one| is_asked(&one.name)).collect();
        let entries = match only {
            None => set.outbound.as_slice(),
            // An entry has one row in a family.
            Some(_) => {
                let mut entries = set.outbound.iter();
                let entry = entries.find(|one| is_asked(&one.name));
                entry.map_or(&[][..], std::slice::from_ref)
            }
        };
        examined.push(
            FamilyInput {
                family: *family,
                set,
                asked,
                entries,
                iptables: &iptables,
                state: state.as_ref(),
                apply: on.command("apply", &source),
                persist: on.command("persist", &source),
                doctor: on.command("doctor", &source),
                folder: on.folder(),
            }
            .gather(args.timeout, probes_until)?,
        );
    }
    let answers = if args.no_twin {
        Err("--no-twin".to_owned())
    } else {
        ask_twin(&examined, deadline)
    };
    let is_bare = !examined.iter().any(|one| one.live.holds_own());
    let (mut checks, mut works) = (Vec::new(), Works::default());
    for gathered in examined {
        let (found, works_here) = gathered.examine(&answers, is_bare)?;
        works.forwards.extend(works_here.forwards);
        works.entries.extend(works_here.entries);
        for check in found {
            // A fact of both families, such as an interface that is down, is printed once.
            let is_same = |known: &&mut Check| check.forward.is_none() && check.is_as(known);
            match checks.iter_mut().find(is_same) {
                Some(known) => known.family = None,
                None => checks.push(check),
            }
        }
    }
    checks.extend(of_machine(counts, on));
    checks.sort_by_key(|check| (check.code, check.status != Status::Fail));
    let asked = only.map_or(set.numbers(), |name| numbers_of(&set, name));
    let report = Report { checks };
    match args.format {
        DoctorFormat::Text => {
            let untried = doctor::untried(&answers, asked);
            console.print(&text(&report.checks, asked, untried.as_ref()));
        }
        DoctorFormat::Json => console.say_json(&report)?,
        DoctorFormat::Prometheus => match &answers {
            Ok(_) => console.print(&metrics(&works)),
            Err(why) => console.warn(format_args!("no connection was tried in a copy: {why}")),
        },
    }
    let failed = report
        .checks
        .iter()
        .any(|check| check.status == Status::Fail);
    Ok(if failed { Exit::Differs } else { Exit::Done })
}

/// Returns the numbers of a run about one forward or outbound entry, by its name.
fn numbers_of(set: &ForwardSet, name: &str) -> Numbers {
    let is_forward = set.forwards.iter().any(|one| one.name.as_str() == name);
    Numbers {
        forwards: usize::from(is_forward),
        entries: usize::from(!is_forward),
    }
}

/// Returns the checks of the connection table and of the machine as a whole. `before` are the counts from before the
/// connections that doctor opens.
fn of_machine(before: conntrack::ConntrackCounts, on: HostAccess<'_>) -> Vec<Check> {
    let liberal = sysctl::value(Switch::Liberal).is_ok_and(|on| on);
    let (now, tracked) = (conntrack::counts(), network::tracked());
    let invalid = doctor::invalid(before.invalid, now.invalid, liberal, &on.folder());
    let mut checks = Vec::from_iter(invalid);
    checks.extend(doctor::lost(before, now, tracked));
    if azure::is_here() {
        checks.extend(doctor::azure_connections(tracked));
    }
    checks
}

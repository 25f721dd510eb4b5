//! `nvactl doctor`: gathers what the machine tells, and names the first hop that fails.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::Result;

use super::{Console, Exit, Host, READ_WAIT, confirm, connections, find_forward, load_spec};
use crate::cli::{Doctor as Args, DoctorFormat};
use crate::doctor::{self, Boot, Case, Check, Client, Facts, Report, Status, questions};
use crate::flow::Flow;
use crate::host::persistence::{self, AtBoot};
use crate::host::probe::{Probing, probe};
use crate::host::{self, conntrack, network, survey, sysctl};
use crate::listeners::Listeners;
use crate::net::{Family, Interface};
use crate::network::Links;
use crate::per_family::PerFamily;
use crate::probe::{Endpoint, Expect, targets};
use crate::ruleset::Ruleset;
use crate::spec::{Forward, ForwardSet, Snat};

/// How many targets are tried at once.
const JOBS: usize = 256;
/// An address of the Internet that nobody has (RFC 5737): the way to it is the way to clients.
const SOMEBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// How many checks of one kind are shown one by one.
const MOST_SHOWN: usize = 10;

pub fn run(args: &Args, on: Host<'_>, console: &mut Console) -> Result<Exit> {
    let (source, set) = load_spec(args.spec.spec.as_deref(), console)?;
    let asked: Vec<&Forward> = match &args.forward {
        None => set.forwards.iter().collect(),
        Some(name) => vec![find_forward(&set, name, &source.name)?],
    };
    host::require_root("doctor")?;
    let iptables = on.iptables(READ_WAIT);
    let (live, counters) = iptables.read_counted(Family::V4)?;
    let backend = survey::find(&iptables, Family::V4)?;
    let links = network::links();
    let flows = conntrack::flows(Family::V4).ok();
    let state = on.known_state()?;

    let endpoints: Vec<Endpoint<'_>> = match asked.as_slice() {
        [one] => targets(std::slice::from_ref(*one)),
        _ => targets(&set.forwards),
    };
    let endpoints = some_of_each(&endpoints);
    let from = |endpoint: &Endpoint<'_>| own_source(endpoint, &links);
    let how = Probing {
        jobs: JOBS,
        timeout: Duration::from_secs_f64(args.timeout),
        count: 1,
        expect: Expect::Tcp,
    };
    let to = |endpoint: &Endpoint<'_>| {
        let to = endpoint.to.or(endpoint.forward.target.destinations.first());
        to.map_or(SOMEBODY, |to| to.address)
    };
    let probed = probe(&endpoints, to, from, how);
    // Asked after the targets were tried, so that the neighbours have been looked for.
    let client = client(flows.as_deref(), &set);
    let own = |ingress: &Interface| links.addresses(ingress).first().copied();
    let routes = network::routes(Family::V4, &questions(&asked, client, own));
    let sides = set.interfaces();
    let forwards_from = |side| Some((side, sysctl::forwards_from(side)?));
    let reverse_path = |side| Some((side, network::reverse_path(side)?));
    let other = survey::beside(&iptables, Family::V4, backend)
        .map(|(other, rules)| (other, rules.map_err(|error| error.to_string())));
    let facts = Facts {
        backend,
        live: &live,
        counters: &counters,
        other,
        native: survey::native_chains(Family::V4),
        ip_forward: sysctl::forwards(Family::V4)?,
        forwards_from: sides.iter().copied().filter_map(forwards_from).collect(),
        reverse_path: sides.iter().copied().filter_map(reverse_path).collect(),
        client,
        tracked: network::tracked(),
        once: connections::once_led(
            state.as_ref(),
            &PerFamily {
                v4: &live,
                v6: None,
            },
        )?,
        flows,
        links,
        routes,
        probed: &probed,
        pending: confirm::told_of(state.as_ref())?,
        boot: boot(&live, &sides),
    };
    let case = Case {
        facts: &facts,
        set: &set,
        family: Family::V4,
        asked,
        apply: on.command("apply", &source),
        persist: on.command("persist", &source),
        iptables: iptables.backend.program(Family::V4, "iptables"),
    };
    let report = Report {
        checks: doctor::examine(&case),
    };
    match args.format {
        DoctorFormat::Text => console.print(&text(&report.checks, case.asked.len())),
        DoctorFormat::Json => console.say(serde_json::to_string_pretty(&report)?),
    }
    let failed = report
        .checks
        .iter()
        .any(|check| check.status == Status::Fail);
    Ok(if failed { Exit::Differs } else { Exit::Done })
}

/// Of a long range so many ports are tried: the first, the last, and some between.
const MOST_PORTS: usize = 64;

fn some_of_each<'s>(endpoints: &[Endpoint<'s>]) -> Vec<Endpoint<'s>> {
    let of_one =
        |a: &Endpoint<'s>, b: &Endpoint<'s>| std::ptr::eq(a.forward, b.forward) && a.to == b.to;
    let mut some = Vec::new();
    for all in endpoints.chunk_by(of_one) {
        let steps = all.len().min(MOST_PORTS);
        let last = all.len() - 1;
        some.extend((0..steps).map(|n| all[n * last / (steps - 1).max(1)]));
    }
    some
}

/// The address that a target sees as its peer, where it is this machine's.
fn own_source(endpoint: &Endpoint<'_>, links: &Links) -> Option<IpAddr> {
    match endpoint.forward.snat {
        Snat::Addresses(range) => Some(range.first()).filter(|own| links.owner(*own).is_some()),
        Snat::Masquerade | Snat::Client => None,
    }
}

/// One who is connected now, else somebody of the Internet.
fn client(flows: Option<&[Flow]>, set: &ForwardSet) -> Client {
    let listeners = Listeners::new(set);
    let mut flows = flows.unwrap_or_default().iter();
    let led = flows.find(|flow| flow.leader(&listeners).is_some());
    Client {
        address: led.map_or(SOMEBODY, |flow| flow.source),
        real: led.is_some(),
    }
}

fn boot(live: &Ruleset, sides: &[&Interface]) -> Boot {
    let sysctl = sysctl::at_boot(Family::V4);
    let winner = sysctl.decider(sides.iter().copied());
    Boot {
        rules_file: persistence::rules_file(Family::V4),
        rules: persistence::compared(Family::V4, live),
        not_loaded: match persistence::at_boot(Family::V4) {
            AtBoot::Loaded => None,
            AtBoot::NotInstalled => Some((
                "iptables-persistent is not installed",
                "sudo apt-get install iptables-persistent",
            )),
            AtBoot::NotEnabled => Some((
                "netfilter-persistent is not enabled",
                "sudo systemctl enable netfilter-persistent",
            )),
        },
        ip_forward: winner.map(|winner| {
            let by = format!("{}:{}", winner.file.display(), winner.line);
            (winner.on, by)
        }),
        managers: survey::managers(),
    }
}

/// A line for each hop: what is the same for many forwards is said once.
fn text(checks: &[Check], asked: usize) -> String {
    let mut out = String::new();
    for hop in checks.chunk_by(|a, b| a.code == b.code) {
        let (good, rest): (Vec<&Check>, Vec<&Check>) =
            hop.iter().partition(|check| check.status == Status::Ok);
        // All that is well at one hop is one line, unless it is said of the machine.
        match good.as_slice() {
            [] => {}
            many if many.len() > 2 && many.iter().all(|check| check.forward.is_some()) => {
                line(&mut out, many[0], &format!("{} forwards", many.len()));
            }
            few => {
                for check in few {
                    line(&mut out, check, &said(check));
                }
            }
        }
        for check in rest.iter().take(MOST_SHOWN) {
            line(&mut out, check, &said(check));
            if let Some(fix) = &check.fix {
                let _ = writeln!(out, "{:<28} mend: {fix}", "");
            }
        }
        if rest.len() > MOST_SHOWN {
            let more = rest.len() - MOST_SHOWN;
            let _ = writeln!(out, "{:<28} and {more} more of this kind", "");
        }
    }
    let last = match doctor::first(checks) {
        None => {
            let forwards = super::counted(asked, "forward");
            format!("nothing is wrong with {forwards}\n")
        }
        Some(check) if check.status == Status::Fail => {
            format!(
                "the first hop that fails: {}: {}\n",
                check.code.code(),
                said(check)
            )
        }
        Some(check) => format!(
            "nothing fails; look at {} first: {}\n",
            check.code.code(),
            said(check)
        ),
    };
    out + "\n" + &last
}

fn line(out: &mut String, check: &Check, words: &str) {
    let _ = writeln!(
        out,
        "{:<7} {:<20} {words}",
        check.status.word(),
        check.code.code()
    );
}

fn said(check: &Check) -> String {
    match &check.forward {
        Some(forward) => format!("{forward}: {}", check.reason),
        None => check.reason.clone(),
    }
}

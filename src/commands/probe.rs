//! `nvactl probe`: connects to every target, or through the firewall to every listener.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde_json::json;

use super::console::Console;
use super::error::{Error, Result};
use super::exit::Exit;
use super::spec::load_spec;
use super::table::table;
use crate::cli::{Probe, ProbeFormat};
use crate::forwards::{Forward, Snat};
use crate::health::probe::{Endpoint, Latency, Probed, grouped, listeners, probe, targets};
use crate::host::network;
use crate::host::probe::{ProbeOutcome, Probing, resolve};
use crate::net::words::{counted, names};
use crate::net::{Family, Host};

pub fn run(args: &Probe, console: &mut Console) -> Result<Exit> {
    let (_, set) = load_spec(args.spec.spec.as_deref(), console)?;
    let how = Probing {
        jobs: args.jobs.get(),
        timeout: Duration::from_secs_f64(args.timeout),
        count: args.count.get(),
        expect: args.expect,
        until: None,
    };
    let via = args.via.as_ref().map(|name| {
        resolve(name).map_err(|source| Error::Resolve {
            name: name.clone(),
            source,
        })
    });
    let via = via.transpose()?;
    if set.forwards.is_empty() && args.format == ProbeFormat::Text {
        console.say("the spec has no forwards, so there is no port to try");
        return Ok(Exit::Done);
    }
    let endpoints = match via {
        Some(address) => {
            let reached = |forward: &&Forward| is_reached(forward, address);
            let (reached, others): (Vec<_>, Vec<_>) = set.forwards.iter().partition(reached);
            if !others.is_empty() {
                let mut others: Vec<&str> = others.iter().map(|one| one.name.as_str()).collect();
                others.dedup();
                console.note(format_args!(
                    "not tried at {address}, which is of the other address family: {}",
                    names(others)
                ));
            }
            listeners(&reached)
        }
        None => targets(&set.forwards.iter().collect::<Vec<_>>()),
    };
    let probed = match (&args.via, via) {
        (Some(name), Some(address)) => {
            if network::links().owner(address).is_some() {
                console.note(format_args!(
                    "{name} is this machine's own address, and its own packets pass no forward: \
                     run the probe on another machine"
                ));
            }
            probe(&endpoints, |_| address, |_| None, how)
        }
        _ => {
            let links = network::links();
            let snat = |endpoint: &Endpoint<'_>| match endpoint.forward.snat {
                Snat::Addresses(range) => Some(range.first()),
                Snat::Masquerade | Snat::Client => None,
            };
            let is_own = |address: &IpAddr| links.owner(*address).is_some();
            let mut foreign = endpoints.iter().filter_map(snat);
            if let Some(address) = foreign.find(|address| !is_own(address)) {
                console.note(format_args!(
                    "{address} is not an address of this machine, so another source is used: \
                     the targets may answer the firewall differently"
                ));
            }
            // The source that the targets will see, if it is an address of this machine.
            let from = |endpoint: &Endpoint<'_>| snat(endpoint).filter(is_own);
            let to = |endpoint: &Endpoint<'_>| target(endpoint).unwrap_or(UNSPECIFIED);
            probe(&endpoints, to, from, how)
        }
    };
    let bad = probed.iter().filter(|probed| !probed.is_good()).count();
    match args.format {
        ProbeFormat::Text => {
            console.print(&text(&probed, args.via.as_deref()));
            console.say(sum(&probed));
            if via.is_none() {
                console.note(
                    "the targets were asked from this machine, and forwarding was not tested\n\
                     to test forwarding, on a client: nvactl probe SPEC --via ADDRESS",
                );
            }
        }
        ProbeFormat::Json => {
            let list: Vec<_> = probed.iter().map(|one| object(one, args)).collect();
            console.say_json(&json!({ "probes": list }))?;
        }
    }
    let untried = endpoints.len() - probed.len();
    if untried > 0 {
        console.warn(format_args!(
            "interrupted: {} not tried",
            counted(untried, "port")
        ));
    }
    Ok(if bad == 0 && untried == 0 {
        Exit::Done
    } else {
        Exit::Differs
    })
}

/// Whether a forward may receive packets for an address. Only the family can be compared, since the VM's
/// public address may be translated on the way.
fn is_reached(forward: &Forward, address: IpAddr) -> bool {
    forward.family() == Family::of(address)
}

const UNSPECIFIED: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Returns the address of the endpoint's target.
fn target(endpoint: &Endpoint<'_>) -> Option<IpAddr> {
    endpoint.to.map(|to| to.address)
}

fn address(probed: &Probed<'_>, via: Option<&str>) -> String {
    let own = || target(&probed.endpoint).map(|address| Host(address).to_string());
    via.map_or_else(|| own().unwrap_or_default(), str::to_owned)
}

fn text(probed: &[Probed<'_>], via: Option<&str>) -> String {
    let rows = grouped(probed).into_iter().map(|group| {
        let (first, last) = (&group[0], &group[group.len() - 1]);
        let forward = first.endpoint.forward;
        let mut ports = first.endpoint.port.to_string();
        if group.len() > 1 {
            ports = format!("{ports}-{}", last.endpoint.port);
        }
        let missed: usize = group.iter().map(lost).sum();
        let tries: usize = group.iter().map(|one| one.tries.len()).sum();
        let mut outcome = first
            .outcome()
            .map(ProbeOutcome::to_string)
            .unwrap_or_default();
        if missed > 0 && missed < tries {
            outcome = format!("{outcome}, {missed} of {tries} tries");
        }
        vec![
            forward.name.to_string(),
            format!("{} {}:{ports}", forward.protocol, address(first, via)),
            outcome,
            spread(group),
        ]
    });
    table(&["FORWARD", "ENDPOINT", "RESULT", "LATENCY"], rows)
}

/// Counts the ports by their results.
fn sum(probed: &[Probed<'_>]) -> String {
    let bad = probed.iter().filter(|one| !one.is_good()).count();
    let is_silent = |one: &&Probed<'_>| one.is_good() && one.latency().is_none();
    let silent = probed.iter().filter(is_silent).count();
    let open = probed.len() - bad - silent;
    let tried = counted(probed.len(), "port");
    let counts = [(open, "open"), (silent, "unanswered"), (bad, "failed")];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    match counts.clone().collect::<Vec<_>>().as_slice() {
        [] => format!("{tried} tried"),
        [(_, word)] if probed.len() > 1 => format!("{tried} tried, all {word}"),
        [(_, word)] => format!("{tried} tried: {word}"),
        _ => {
            let words: Vec<String> = counts
                .map(|(count, word)| format!("{count} {word}"))
                .collect();
            format!("{tried} tried: {}", words.join(", "))
        }
    }
}

fn lost(probed: &Probed<'_>) -> usize {
    let bad = probed.tries.iter().filter(|outcome| !outcome.is_good());
    bad.count()
}

fn spread(group: &[Probed<'_>]) -> String {
    let latencies: Vec<Latency> = group.iter().filter_map(Probed::latency).collect();
    let min = latencies.iter().map(|one| one.min).reduce(f64::min);
    let max = latencies.iter().map(|one| one.max).reduce(f64::max);
    match min.zip(max) {
        None => "-".to_owned(),
        Some((min, max)) if format!("{min:.1}") == format!("{max:.1}") => format!("{min:.1} ms"),
        Some((min, max)) => format!("{min:.1}-{max:.1} ms"),
    }
}

fn object(probed: &Probed<'_>, args: &Probe) -> serde_json::Value {
    let forward = probed.endpoint.forward;
    let outcome = probed.outcome();
    json!({
        "forward": forward.name.as_str(),
        "protocol": forward.protocol.as_str(),
        "address": address(probed, args.via.as_deref()),
        "port": probed.endpoint.port.number(),
        "result": outcome.map(ProbeOutcome::word),
        "reason": outcome.map(ProbeOutcome::to_string),
        "tries": probed.tries.len(),
        "lost": lost(probed),
        "latency_ms": probed.latency(),
    })
}

//! Queries to the routes and neighbours of the calling thread's namespace, for the reasons that no counter shows.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use super::kernel::KernelReason;
use super::trace::Stage;
use crate::host::child;
use crate::host::network::Route;
use crate::net::{Family, Protocol};

/// `ip` answers in milliseconds.
const LIMIT: Duration = Duration::from_secs(10);

/// The parts of a packet that decide about its route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteQuery {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// The interface by which the packet came in; `None` for a packet of the machine itself.
    pub ingress: Option<String>,
    pub mark: u32,
    /// The protocol and the destination port: `ip rule` may select by them.
    pub port: Option<(Protocol, u16)>,
}

/// Asks the kernel for the route of a packet and its next hop.
///
/// # Errors
/// The reason for which the kernel would discard the packet.
pub fn ask_route(question: &RouteQuery) -> Result<Route, KernelReason> {
    let RouteQuery {
        source,
        destination,
        ingress,
        mark,
        port,
    } = question;
    let mut words = vec![
        destination.to_string(),
        "from".to_owned(),
        source.to_string(),
    ];
    if let Some(ingress) = ingress {
        words.extend(["iif".to_owned(), ingress.clone()]);
    }
    if *mark != 0 {
        words.extend(["mark".to_owned(), mark.to_string()]);
    }
    if let Some((protocol, port)) = port {
        let words_of_port = ["ipproto", protocol.as_str(), "dport"].map(str::to_owned);
        words.extend(words_of_port);
        words.push(port.to_string());
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let family = Family::of(*destination);
    match ip(family, &[&["route", "get"], &words[..]].concat()) {
        IpAnswer::Json(answer) => {
            route(&answer[0], *destination).ok_or(KernelReason::Unknown(Stage::Prerouting))
        }
        IpAnswer::Refused(words) => Err(reason(&words, question)),
        IpAnswer::None => Err(KernelReason::Unknown(Stage::Prerouting)),
    }
}

/// Asks for the next hop of a packet that leaves by an interface; `None` without such a route.
#[must_use]
pub fn ask_route_by(question: &RouteQuery, interface: &str) -> Option<Route> {
    let destination = question.destination.to_string();
    let words = ["route", "get", &destination, "oif", interface];
    let mark = question.mark.to_string();
    let mark = ["mark", &mark];
    let mark = if question.mark == 0 { &[][..] } else { &mark };
    match ip(Family::of(question.destination), &[&words, mark].concat()) {
        IpAnswer::Json(answer) => route(&answer[0], question.destination),
        IpAnswer::Refused(_) | IpAnswer::None => None,
    }
}

fn route(answer: &Value, destination: IpAddr) -> Option<Route> {
    let gateway = answer["gateway"]
        .as_str()
        .or(answer["via"]["host"].as_str());
    let gateway: Option<IpAddr> = gateway.and_then(|gateway| gateway.parse().ok());
    let interface = answer["dev"].as_str()?.to_owned();
    Some(Route {
        neighbour: neighbour(gateway.unwrap_or(destination), &interface),
        gateway,
        interface,
    })
}

/// Returns the state of a neighbour (ip-neighbour(8)).
fn neighbour(address: IpAddr, interface: &str) -> Option<String> {
    let (words, family) = (address.to_string(), Family::of(address));
    let answer = ip(family, &["neigh", "show", "to", &words, "dev", interface]);
    let IpAnswer::Json(listed) = answer else {
        return None;
    };
    Some(listed[0]["state"][0].as_str()?.to_owned())
}

/// Returns the reason if the next hop of a packet does not answer.
#[must_use]
pub fn dead_neighbour(route: &Route, destination: IpAddr) -> Option<KernelReason> {
    let state = route.neighbour.as_deref()?;
    matches!(state, "FAILED" | "INCOMPLETE").then(|| KernelReason::NoNeighbour {
        address: route.gateway.unwrap_or(destination),
        interface: route.interface.clone(),
    })
}

/// Reads the reason in the kernel's error message (Linux 6.18, held by the lab's
/// `a_reason_of_the_kernel_is_named`).
fn reason(words: &str, question: &RouteQuery) -> KernelReason {
    if words.contains("Permission denied") {
        return KernelReason::Prohibited;
    }
    if words.contains("Network is unreachable") {
        return KernelReason::NoRoute;
    }
    if words.contains("No route to host") {
        // IPv4 answers like this to an unreachable route, and also if forwarding is off.
        return match question.ingress.as_deref().map(forwards) {
            Some(false) if question.destination.is_ipv4() => KernelReason::NotForwarded,
            _ => KernelReason::Unreachable,
        };
    }
    if words.contains("Invalid argument") {
        return invalid(question);
    }
    KernelReason::Unknown(Stage::Prerouting)
}

/// Tells apart the three reasons for EINVAL.
fn invalid(question: &RouteQuery) -> KernelReason {
    let RouteQuery {
        source,
        destination,
        ingress,
        ..
    } = question;
    let family = Family::of(*source);
    let back = ip(family, &["route", "get", &source.to_string()]);
    let back = match &back {
        IpAnswer::Json(answer) => Some(&answer[0]),
        _ => None,
    };
    let is_own = back.is_some_and(|back| {
        matches!(
            back["type"].as_str(),
            Some("local" | "broadcast" | "multicast")
        )
    });
    let never = |address: &IpAddr| {
        address.is_loopback() || address.is_unspecified() || address.is_multicast()
    };
    if is_own || never(source) || never(destination) {
        return KernelReason::Martian;
    }
    let elsewhere = |ingress: &String| match reverse_path(ingress) {
        0 => false,
        1 => back.is_none_or(|back| back["dev"].as_str() != Some(ingress)),
        _ => back.is_none(),
    };
    match ingress {
        Some(ingress) if family == Family::V4 && elsewhere(ingress) => KernelReason::ReversePath,
        _ => KernelReason::Blackhole,
    }
}

fn forwards(interface: &str) -> bool {
    switch(interface, "forwarding") != Some(0)
}

fn reverse_path(interface: &str) -> u8 {
    let own = switch(interface, "rp_filter").unwrap_or_default();
    own.max(switch("all", "rp_filter").unwrap_or_default())
}

/// Reads an IPv4 switch of an interface in the calling thread's namespace.
fn switch(interface: &str, name: &str) -> Option<u8> {
    let path = format!("/proc/sys/net/ipv4/conf/{interface}/{name}");
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

enum IpAnswer {
    Json(Value),
    Refused(String),
    /// `ip` is missing or does not end.
    None,
}

fn ip(family: Family, words: &[&str]) -> IpAnswer {
    let option = match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    };
    let args = [&[option, "-json"], words].concat();
    let Ok(output) = child::read("ip", &args, b"", LIMIT) else {
        return IpAnswer::None;
    };
    if !output.status.success() {
        return IpAnswer::Refused(output.stderr);
    }
    // Some releases print nothing for an empty list.
    IpAnswer::Json(serde_json::from_slice(&output.stdout).unwrap_or_default())
}

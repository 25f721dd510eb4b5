//! The machine's interfaces, routes and neighbours, by iproute2's `ip -json`.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::Value;

use super::child;
use crate::net::Interface;
use crate::network::{Link, Links, ReversePath, Route};

/// Each of these questions is answered in milliseconds.
const LIMIT: Duration = Duration::from_secs(10);

/// The machine's interfaces; none where `ip` is not installed.
#[must_use]
pub fn links() -> Links {
    let listed = ip(&["-4", "address"]).unwrap_or_default();
    let links = listed.as_array().into_iter().flatten();
    Links(links.filter_map(link).collect())
}

fn link(value: &Value) -> Option<Link> {
    let has = |flag: &str| {
        let mut flags = value["flags"].as_array().into_iter().flatten();
        flags.any(|one| one == flag)
    };
    let addresses = value["addr_info"].as_array().into_iter().flatten();
    Some(Link {
        name: value["ifname"].as_str()?.to_owned(),
        up: has("UP") && has("LOWER_UP"),
        addresses: addresses
            .filter_map(|address| address["local"].as_str()?.parse().ok())
            .collect(),
    })
}

/// Where a packet of the machine's own would go, and what is known of the next hop there.
///
/// # Errors
/// In iproute2's words when there is no way.
pub fn route(to: Ipv4Addr) -> Result<Route, String> {
    let found = ip(&["-4", "route", "get", &to.to_string()])?;
    let interface = found[0]["dev"].as_str().unwrap_or_default().to_owned();
    let gateway = found[0]["gateway"].as_str();
    let gateway = gateway.and_then(|gateway| gateway.parse().ok());
    let hop: Ipv4Addr = gateway.unwrap_or(to);
    let listed = ip(&[
        "-4",
        "neigh",
        "show",
        "to",
        &hop.to_string(),
        "dev",
        &interface,
    ]);
    let state = listed.ok().and_then(|neighbours| {
        let state = neighbours[0]["state"][0].as_str()?;
        Some(state.to_owned())
    });
    Ok(Route {
        interface,
        gateway,
        neighbour: state,
    })
}

/// How strictly an interface asks for the way back; `None` if it does not exist.
#[must_use]
pub fn reverse_path(interface: &Interface) -> Option<ReversePath> {
    let read = |name: &str| -> Option<u8> {
        let text = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"));
        text.ok()?.trim().parse().ok()
    };
    Some(ReversePath::of(read("all")?, read(interface.as_str())?))
}

/// How many connections the kernel tracks in this namespace, and how many it can; `None` where it
/// tracks none yet.
#[must_use]
pub fn tracked() -> Option<(u64, u64)> {
    let read = |name: &str| -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/sys/net/netfilter/{name}"));
        text.ok()?.trim().parse().ok()
    };
    Some((read("nf_conntrack_count")?, read("nf_conntrack_max")?))
}

fn ip(args: &[&str]) -> Result<Value, String> {
    let args = [&["-json"], args].concat();
    let output = child::run("ip", &args, b"", LIMIT).map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(output.stderr);
    }
    // Where there is nothing to list, older versions print nothing at all.
    Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
}

//! Reads the machine's interfaces, routes and neighbours with iproute2's `ip -json`.

mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use crate::host::child;
use crate::net::{Family, Interface};
pub use values::{Link, Links, Packet, ReplyPacket, ReversePath, Route, somebody};

/// The time limit of a query. Each takes milliseconds.
const LIMIT: Duration = Duration::from_secs(10);

/// Reads the machine's interfaces. Returns none if `ip` is not installed.
#[must_use]
pub fn links() -> Links {
    // `-4` or `-6` would leave out interfaces without an address of that family.
    let listed = ip(&["-details", "address"]).unwrap_or_default();
    let links = listed.as_array().into_iter().flatten();
    Links(links.filter_map(link).collect())
}

fn link(value: &Value) -> Option<Link> {
    let has = |flag: &str| {
        let mut flags = value["flags"].as_array().into_iter().flatten();
        flags.any(|one| one == flag)
    };
    let addresses = value["addr_info"].as_array().into_iter().flatten();
    // A link-local address cannot be reached from elsewhere.
    let addresses = addresses.filter(|address| {
        address["family"] == "inet" || (address["family"] == "inet6" && address["scope"] != "link")
    });
    let secondary = addresses
        .clone()
        .filter(|address| address["family"] == "inet" && address["secondary"] == true);
    let read = |address: &Value| address["local"].as_str()?.parse().ok();
    Some(Link {
        name: value["ifname"].as_str()?.to_owned(),
        up: has("UP") && has("LOWER_UP"),
        enabled: has("UP"),
        bridge: value["master"]
            .as_str()
            .filter(|_| value["linkinfo"]["info_slave_kind"] == "bridge")
            .map(str::to_owned),
        addresses: addresses.filter_map(read).collect(),
        secondary: secondary.filter_map(read).collect(),
    })
}

/// Asks the kernel for the routes of packets, and reads the neighbour state of each next hop. If there is no
/// route, the error is iproute2's message. For a packet that arrives, the kernel also applies policy rules and
/// `rp_filter`, as to a real one.
#[must_use]
pub fn routes<'n>(
    family: Family,
    asked: &BTreeSet<Packet<'n>>,
) -> BTreeMap<Packet<'n>, Result<Route, String>> {
    let listed = ip(&[option(family), "neigh"]).unwrap_or_default();
    let neighbours: BTreeMap<(IpAddr, &str), &str> = listed
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| {
            let address = one["dst"].as_str()?.parse().ok()?;
            Some(((address, one["dev"].as_str()?), one["state"][0].as_str()?))
        })
        .collect();
    asked_routes(asked, &neighbours)
}

/// Asks the kernel for the routes of packets of both families, in one call. If there is no route, the error is
/// iproute2's message. Does not look up next hops.
#[must_use]
pub fn plain_routes<'n>(
    asked: &BTreeSet<Packet<'n>>,
) -> BTreeMap<Packet<'n>, Result<Route, String>> {
    asked_routes(asked, &BTreeMap::new())
}

/// Asks for the egress interface of each packet that has a route.
#[must_use]
pub fn interfaces<'n>(asked: &BTreeSet<Packet<'n>>) -> BTreeMap<Packet<'n>, String> {
    let routes = plain_routes(asked).into_iter();
    let known = routes.filter_map(|(packet, route)| Some((packet, route.ok()?.interface)));
    known.collect()
}

fn asked_routes<'n>(
    asked: &BTreeSet<Packet<'n>>,
    neighbours: &BTreeMap<(IpAddr, &str), &str>,
) -> BTreeMap<Packet<'n>, Result<Route, String>> {
    let questions: Vec<String> = asked.iter().map(question).collect();
    let answers = answers(&questions);
    let routes = asked.iter().zip(answers).map(|(packet, answer)| {
        let found = answer.map(|answer| route(&answer, packet.to, neighbours));
        (*packet, found)
    });
    routes.collect()
}

/// Asks the kernel for the egress interfaces of replies. Leaves out replies without a route.
#[must_use]
pub fn answer_routes(asked: &BTreeSet<ReplyPacket>) -> BTreeMap<ReplyPacket, String> {
    let question = |answer: &ReplyPacket| format!("route get {} from {}", answer.to, answer.from);
    let questions: Vec<String> = asked.iter().map(question).collect();
    let answers = answers(&questions);
    let known = asked.iter().zip(answers).filter_map(|(answer, found)| {
        let interface = found.ok()?["dev"].as_str()?.to_owned();
        Some((*answer, interface))
    });
    known.collect()
}

/// Returns the answer to each `route get`, or iproute2's message if there is no route. Runs no program if there
/// is no question.
fn answers(questions: &[String]) -> Vec<Result<Value, String>> {
    if questions.is_empty() {
        return Vec::new();
    }
    // Without `-force`, ip would stop at the first question that has no route.
    let args = ["-json", "-force", "-batch", "-"];
    let text = questions.join("\n") + "\n";
    let (answers, words) = match child::read("ip", &args, text.as_bytes(), LIMIT) {
        Ok(output) => (output.stdout, output.stderr),
        Err(error) => (Vec::new(), error.to_string()),
    };
    // The kernel's message comes before `Command failed -:N`, which names the question without a route.
    let mut refused: BTreeMap<usize, &str> = BTreeMap::new();
    let mut last = words.lines().next().unwrap_or("no answer");
    for line in words.lines() {
        match line.strip_prefix("Command failed -:") {
            Some(number) => {
                let number = number.trim().parse().ok();
                refused.extend(number.map(|number: usize| (number, last)));
            }
            None => last = line,
        }
    }
    // The output is a sequence of JSON lists, one for each question that has a route.
    let answers = serde_json::Deserializer::from_slice(&answers).into_iter::<Value>();
    let mut answers = answers.map_while(Result::ok);
    let each = (1..=questions.len()).map(|number| match refused.get(&number) {
        Some(words) => Err((*words).to_owned()),
        None => match answers.next() {
            Some(mut answer) => Ok(answer.get_mut(0).map(Value::take).unwrap_or_default()),
            None => Err(last.to_owned()),
        },
    });
    each.collect()
}

fn question(packet: &Packet<'_>) -> String {
    match packet.came {
        Some((from, by)) => format!("route get {} from {from} iif {by}", packet.to),
        None => format!("route get {}", packet.to),
    }
}

fn route(answer: &Value, to: IpAddr, neighbours: &BTreeMap<(IpAddr, &str), &str>) -> Route {
    let interface = answer["dev"].as_str().unwrap_or_default();
    let gateway = answer["gateway"].as_str();
    let gateway: Option<IpAddr> = gateway.and_then(|gateway| gateway.parse().ok());
    let state = neighbours.get(&(gateway.unwrap_or(to), interface));
    Route {
        interface: interface.to_owned(),
        gateway,
        neighbour: state.map(|&state| state.to_owned()),
    }
}

/// Returns iproute2's option for a family.
fn option(family: Family) -> &'static str {
    match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    }
}

/// Returns the interfaces whose IPv6 default route comes from a router advertisement.
#[must_use]
pub fn advertised() -> Vec<Interface> {
    let listed = ip(&["-6", "route", "show", "default"]).unwrap_or_default();
    let routes = listed.as_array().into_iter().flatten();
    let by_router = routes.filter(|route| route["protocol"] == "ra");
    let mut names: Vec<Interface> = by_router
        .filter_map(|route| route["dev"].as_str()?.parse().ok())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Reads the reverse-path filter of an interface. Returns `None` if the interface does not exist.
#[must_use]
pub fn reverse_path(interface: &Interface) -> Option<ReversePath> {
    let read = |name: &str| -> Option<u8> {
        let text = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"));
        text.ok()?.trim().parse().ok()
    };
    Some(ReversePath::of(read("all")?, read(interface.as_str())?))
}

/// Reads the number of conntrack entries of this namespace, and the most that the kernel allows. Returns `None`
/// if the kernel tracks no connections yet.
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
    let output = child::read("ip", &args, b"", LIMIT).map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(output.stderr);
    }
    // Older versions print nothing at all if there is nothing to list.
    Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
}

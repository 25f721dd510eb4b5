//! The machine itself: interfaces, addresses, switches, the table of connections.

use super::{Case, Check, Hop};
use crate::net::Interface;
use crate::network::ReversePath;

pub fn check(case: &Case<'_>, checks: &mut Vec<Check>) {
    for interface in sides(case) {
        checks.push(exists(case, interface));
    }
    listen_addresses(case, checks);
    checks.push(ip_forward(case));
    for interface in sides(case) {
        checks.extend(forwarding(case, interface));
    }
    checks.push(reverse_path(case));
    checks.push(table(case));
}

/// The interfaces of the spec, each once.
fn sides<'c>(case: &Case<'c>) -> Vec<&'c Interface> {
    let firewall = &case.set.firewall;
    let mut sides = vec![&firewall.ingress, &firewall.egress];
    sides.dedup();
    sides
}

fn exists(case: &Case<'_>, name: &Interface) -> Check {
    let links = &case.facts.links;
    let Some(link) = links.get(name) else {
        let there: Vec<&str> = links.0.iter().map(|link| link.name.as_str()).collect();
        let fix = "write its name into the spec's `firewall`, then sudo nvactl apply";
        let there = there.join(", ");
        return Hop::Interface
            .fail(format!(
                "this machine has no interface {name}; it has {there}"
            ))
            .fix(fix);
    };
    if !link.up {
        return Hop::Interface
            .fail(format!("{name} is down"))
            .fix(format!("sudo ip link set {name} up"));
    }
    let addresses = link.addresses.iter().map(ToString::to_string);
    match addresses.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => Hop::Interface
            .fail(format!("{name} has no IPv4 address"))
            .fix(format!("sudo ip address add ADDRESS/LENGTH dev {name}")),
        addresses => Hop::Interface.ok(format!("{name} is up, with {addresses}")),
    }
}

fn listen_addresses(case: &Case<'_>, checks: &mut Vec<Check>) {
    for forward in &case.asked {
        let Some(address) = forward.listen.address else {
            continue;
        };
        let check = match case.facts.links.owner(address) {
            Some(link) => Hop::ListenAddress.ok(format!("{address} is {}'s", link.name)),
            None => Hop::ListenAddress
                .warn(format!(
                    "{address} is no address of this machine: packets for it come here only if the \
                     network routes them so, as with Azure's floating IP"
                ))
                .fix("if it should be this machine's: correct `listen`, or sudo ip address add"),
        };
        checks.push(check.of(forward));
    }
}

fn ip_forward(case: &Case<'_>) -> Check {
    if case.facts.ip_forward {
        return Hop::IpForward.ok("net.ipv4.ip_forward is 1");
    }
    Hop::IpForward
        .fail("net.ipv4.ip_forward is 0: the kernel forwards nothing")
        .fix("sudo nvactl sysctl enable --persist")
}

/// The common switch sets all of them, so they tell nothing while that is off.
fn forwarding(case: &Case<'_>, interface: &Interface) -> Option<Check> {
    if !case.facts.ip_forward {
        return None;
    }
    let on = case.facts.forwards_from.get(interface)?;
    let switch = format!("net.ipv4.conf.{interface}.forwarding");
    // sysctl(8) takes a dot in a name as a slash.
    let name = interface.as_str().replace('.', "/");
    Some(match on {
        true => Hop::InterfaceForwarding.ok(format!("{switch} is 1")),
        false => Hop::InterfaceForwarding
            .fail(format!(
                "{switch} is 0: packets that come in by {interface} are not forwarded"
            ))
            .fix(format!("sudo sysctl -w net.ipv4.conf.{name}.forwarding=1")),
    })
}

/// Where two interfaces are used: packets come in by the one and, were they answered directly,
/// would leave by the other.
fn reverse_path(case: &Case<'_>) -> Check {
    let ingress = &case.set.firewall.ingress;
    let (client, way) = &case.facts.way_back;
    let strict = case.facts.reverse_path.get(ingress) == Some(&ReversePath::Strict);
    match way {
        Ok(route) if strict && route.interface != ingress.as_str() => {
            // sysctl(8) takes a dot in a name as a slash.
            let name = ingress.as_str().replace('.', "/");
            let out = &route.interface;
            Hop::RpFilter
                .fail(format!(
                    "rp_filter is strict on {ingress}, and the way back to clients such as {client} \
                     leaves by {out}: the kernel drops what they send"
                ))
                .fix(format!(
                    "sudo sysctl -w net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.{name}.rp_filter=2, \
                     or route clients back by {ingress}"
                ))
        }
        Ok(route) => Hop::RpFilter.ok(format!(
            "replies to clients such as {client} leave by {}",
            route.interface
        )),
        // Clients may all be of networks that have a way of their own.
        Err(words) => Hop::RpFilter
            .warn(format!(
                "there is no way back to clients such as {client}: {words}"
            ))
            .fix("sudo ip route add default via ROUTER"),
    }
}

fn table(case: &Case<'_>) -> Check {
    let Some((entries, limit)) = case.facts.tracked else {
        return Hop::ConntrackTable
            .unknown("the kernel does not tell how many connections it tracks");
    };
    let words = format!("{entries} of {limit} connections are tracked");
    let fix = format!(
        "sudo sysctl -w net.netfilter.nf_conntrack_max={}",
        limit.max(1) * 2
    );
    // From 95 in a hundred on, the kernel ends connections early to make room, or drops new ones.
    match entries.saturating_mul(100) / limit.max(1) {
        0..80 => Hop::ConntrackTable.ok(words),
        80..95 => Hop::ConntrackTable
            .warn(format!("{words}: soon there is no room for new ones"))
            .fix(fix),
        _ => Hop::ConntrackTable
            .fail(format!("{words}: there is no room for new ones"))
            .fix(fix),
    }
}

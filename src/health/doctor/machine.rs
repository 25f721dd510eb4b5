//! Checks the machine itself: interfaces, addresses, the kernel's switches, the conntrack table.

use std::net::IpAddr;

use super::{Case, Check, Fix, Hop, boot};
use crate::forwards::Forward;
use crate::host::network::Links;
use crate::host::sysctl;
use crate::host::sysctl::settings::{Switch, switch};
use crate::net::{Family, Interface};

pub fn check(case: &Case<'_>, checks: &mut Vec<Check>) {
    for interface in sides(case) {
        checks.push(exists(
            &case.facts.links,
            case.family,
            interface,
            &case.apply,
        ));
    }
    listen_addresses(case, checks);
    checks.push(ip_forward(case));
    for interface in sides(case) {
        checks.extend(forwarding(case, interface));
    }
    checks.push(table(case));
}

/// Returns the interfaces of the spec, each once.
fn sides<'c>(case: &Case<'c>) -> Vec<&'c Interface> {
    case.set.interfaces()
}

fn exists(links: &Links, family: Family, name: &Interface, apply: &str) -> Check {
    if links.0.is_empty() {
        return Hop::Interface
            .unknown("cannot list this machine's interfaces: the program `ip` is missing or fails")
            .fix("sudo apt-get install iproute2");
    }
    let Some(link) = links.get(name) else {
        let there: Vec<&str> = links.0.iter().map(|link| link.name.as_str()).collect();
        let fix = format!("correct `interface` in the spec, then: {apply}");
        let there = there.join(", ");
        return Hop::Interface
            .fail(format!(
                "this machine has no interface {name}, so no packet passes through it; it has {there}"
            ))
            .fix(fix);
    };
    if let Some(bridge) = &link.bridge {
        return Hop::Interface
            .fail(format!(
                "{name} is a port of the bridge {bridge}: packets arrive on {bridge}, and no rule for {name} \
                 matches them"
            ))
            .fix(format!(
                "write {bridge} instead of {name} as `interface` in the spec, then: {apply}"
            ));
    }
    if !link.enabled {
        return Hop::Interface
            .fail(format!("{name} is down: no packet passes through it"))
            .fix(format!("sudo ip link set {name} up"));
    }
    if !link.up {
        return Hop::Interface
            .fail(format!(
                "{name} is up but has no carrier: its cable or virtual network is not connected"
            ))
            .fix(Fix::to_look(format!("ip -details link show {name}")));
    }
    let addresses = link.addresses.iter().map(ToString::to_string);
    match addresses.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => Hop::Interface
            .fail(format!(
                "{name} has no {family} address: neither clients nor targets reach this machine there"
            ))
            .fix(format!("sudo ip address add ADDRESS/LENGTH dev {name}")),
        addresses => Hop::Interface.ok(format!("{name} is up, with {addresses}")),
    }
}

fn listen_addresses(case: &Case<'_>, checks: &mut Vec<Check>) {
    let mut told = None;
    for forward in &case.asked {
        let Some(address) = forward.listen.address else {
            continue;
        };
        // The listeners of a forward at one address are neighbours.
        let this = Some((&forward.name, forward.protocol, address));
        if told == this {
            continue;
        }
        told = this;
        let check = match case.facts.links.owner(address) {
            None if case.facts.links.0.is_empty() => {
                Hop::ListenAddress.unknown("cannot list this machine's addresses")
            }
            Some(link) => Hop::ListenAddress.ok(format!("{address} is an address of {}", link.name)),
            None => Hop::ListenAddress
                .warn(format!(
                    "{address} is not an address of this machine: packets for it arrive only if the \
                     network routes them here, as with Azure's floating IP"
                ))
                .fix(Fix::only_if(
                    "if the network does not route it here",
                    added(address, forward),
                )),
        };
        checks.push(check.of(forward));
    }
}

/// Returns the fix that gives a listen address to the machine.
fn added(address: IpAddr, forward: &Forward) -> String {
    let mut ingresses = forward.ingress.iter();
    let ingress = ingresses.next().map_or("INTERFACE", Interface::as_str);
    format!("correct `listen` in the spec, or: sudo ip address add {address} dev {ingress}")
}

fn ip_forward(case: &Case<'_>) -> Check {
    if case.facts.ip_forward {
        return Hop::IpForward.ok(format!("{} is 1", switch(case.family)));
    }
    // The rules come before the switch. Else the machine routes for everybody for a while.
    let enable = case.completed(boot::enable(case.family));
    let rules = case.facts.live.holds_own();
    Hop::IpForward
        .fail(format!(
            "{} is 0: the kernel forwards no packet",
            switch(case.family)
        ))
        .fix(if rules {
            enable
        } else {
            format!("{} && {enable}", case.apply)
        })
}

/// Checks an interface's own switch. The common switch sets all of them, so they say nothing while it is 0.
fn forwarding(case: &Case<'_>, interface: &Interface) -> Option<Check> {
    if !case.facts.ip_forward {
        return None;
    }
    let on = case.facts.forwards_from.get(interface)?;
    let switch = format!("net.ipv4.conf.{interface}.forwarding");
    let name = sysctl::part_of_key(interface.as_str());
    Some(match on {
        true => Hop::InterfaceForwarding.ok(format!("{switch} is 1")),
        false => Hop::InterfaceForwarding
            .fail(format!(
                "{switch} is 0: packets that arrive on {interface} are not forwarded"
            ))
            .fix(format!("sudo sysctl -w net.ipv4.conf.{name}.forwarding=1")),
    })
}

fn table(case: &Case<'_>) -> Check {
    let Some((entries, limit)) = case.facts.tracked else {
        return Hop::ConntrackTable
            .unknown("the kernel does not report how many connections it tracks");
    };
    let words = format!("{entries} of {limit} conntrack entries are in use");
    let fix = larger_table(limit);
    // When the table is full, the kernel ends unanswered connections, or drops new ones.
    match entries.saturating_mul(100) / limit.max(1) {
        0..90 => Hop::ConntrackTable.ok(words),
        90..100 => Hop::ConntrackTable
            .warn(format!("{words}: new connections will be dropped soon"))
            .fix(fix),
        _ => Hop::ConntrackTable
            .fail(format!("{words}: the kernel drops new connections"))
            .fix(fix),
    }
}

/// Returns the command that doubles the connection table.
pub(super) fn larger_table(limit: u64) -> String {
    let doubled = limit.max(1).saturating_mul(2);
    format!("sudo sysctl -w net.netfilter.nf_conntrack_max={doubled}")
}

/// Judges the packets that conntrack called INVALID, by its counts from before and after the checks. `folder` is
/// the option that names the state folder.
#[must_use]
pub fn invalid(
    before: Option<u64>,
    now: Option<u64>,
    liberal: bool,
    folder: &str,
) -> Option<Check> {
    let total = now?;
    if liberal {
        return None;
    }
    let switch = Switch::Liberal.key();
    Some(match total.saturating_sub(before.unwrap_or(total)) {
        0 if total == 0 => Hop::ConntrackInvalid.ok("no packet has been INVALID since boot"),
        0 => Hop::ConntrackInvalid.ok(format!(
            "INVALID packets: {total} since boot, none while this ran; if live connections are \
             reset, set {switch}=1"
        )),
        more => Hop::ConntrackInvalid
            .warn(format!(
                "INVALID packets: {more} while this ran, {total} since boot: the kernel does not translate a \
                 packet outside its connection's window, and this machine's own reset then ends the \
                 connection; {switch}=1 prevents that"
            ))
            .fix(format!(
                "sudo nvactl sysctl enable --liberal --persist{folder}"
            )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::network::Link;

    #[test]
    fn an_interface_by_which_no_packet_comes_is_named_with_its_fault() {
        let link = Link {
            name: "eth0".to_owned(),
            up: true,
            enabled: true,
            bridge: None,
            addresses: vec!["10.3.0.4".parse().expect("an address")],
            secondary: Vec::new(),
        };
        let bridged = Link {
            bridge: Some("br0".to_owned()),
            ..link.clone()
        };
        let dark = Link {
            up: false,
            ..link.clone()
        };
        let off = Link {
            enabled: false,
            ..dark.clone()
        };
        let bare = Link {
            addresses: Vec::new(),
            ..link.clone()
        };
        for (links, said) in [
            (vec![link], "ok: eth0 is up, with 10.3.0.4"),
            (
                vec![bridged],
                "fail: eth0 is a port of the bridge br0: packets arrive on br0, and no rule for eth0 matches them",
            ),
            (
                vec![dark],
                "fail: eth0 is up but has no carrier: its cable or virtual network is not connected",
            ),
            (vec![off], "fail: eth0 is down: no packet passes through it"),
            (
                vec![bare],
                "fail: eth0 has no IPv4 address: neither clients nor targets reach this machine there",
            ),
            (
                Vec::new(),
                "unknown: cannot list this machine's interfaces: the program `ip` is missing or fails",
            ),
        ] {
            let name: Interface = "eth0".parse().expect("a name");
            let check = exists(&Links(links), Family::V4, &name, "sudo nvactl apply");
            assert_eq!(format!("{}: {}", check.status.word(), check.reason), said);
        }
    }
}

//! Bridges. The copy of a bridge has one port, to a world that has all hosts behind the bridge.

use super::machine::{Machine, MachineLink};
use crate::net::Family;

/// Returns the ports of a bridge that carry packets.
pub fn ports<'m>(machine: &'m Machine, bridge: &str) -> impl Iterator<Item = &'m MachineLink> {
    let links = machine.links.iter();
    links.filter(move |link| link.master.as_deref() == Some(bridge) && link.carrier)
}

/// Returns the port that the copy of a bridge has.
#[must_use]
pub fn port<'m>(machine: &'m Machine, bridge: &str) -> Option<&'m MachineLink> {
    ports(machine, bridge).next()
}

/// Returns whether packets from one port to another pass the rules of iptables (`bridge-nf-call-iptables` in
/// Documentation/networking/ip-sysctl.rst).
#[must_use]
pub fn passes_rules(machine: &Machine, family: Family) -> bool {
    let name = match family {
        Family::V4 => "bridge/bridge-nf-call-iptables",
        Family::V6 => "bridge/bridge-nf-call-ip6tables",
    };
    machine.switches.get(name) == Some("1")
}

/// Returns the commands of `ip` that join a port to the copy of a bridge. With `bridge-nf-call-iptables`, a packet that a
/// rule redirects to another host behind the bridge goes from port to port, so the one port of the copy also sends what
/// it received. It sends no questions of the world's back, because the world answers all of them.
#[must_use]
pub fn join(machine: &Machine, port: &str, bridge: &str) -> String {
    let has_several = ports(machine, bridge).nth(1).is_some();
    let mut passes = Family::ALL
        .into_iter()
        .map(|family| passes_rules(machine, family));
    let hairpin = if has_several && passes.any(|one| one) {
        format!(
            "link set dev {port} type bridge_slave hairpin on bcast_flood off mcast_flood off\n"
        )
    } else {
        String::new()
    };
    format!("link set dev {port} master {bridge}\n{hairpin}link set dev {port} up\n")
}

//! The network between the machine, its clients and its targets, which only Azure can answer for.

use std::collections::{BTreeMap, BTreeSet};

use super::route::Astray;
use super::{Case, Check, Fix, Hop, Status, target};
use crate::forwards::Forward;
use crate::health::counts;
use crate::host::network::{Links, ReplyPacket};
use crate::net::{AZURE_HOST, Interface};

/// Returns the routes that [`probes`] needs: of the replies to the load balancer's health probes of each ingress
/// interface.
#[must_use]
pub fn questions(asked: &[&Forward], links: &Links) -> BTreeSet<ReplyPacket> {
    let ingresses = asked.iter().flat_map(|forward| &forward.ingress);
    ingresses.filter_map(|one| reply(one, links)).collect()
}

fn reply(ingress: &Interface, links: &Links) -> Option<ReplyPacket> {
    let mut own = links.addresses(ingress).iter();
    Some(ReplyPacket {
        from: *own.find(|own| own.is_ipv4())?,
        to: AZURE_HOST,
    })
}

/// Judges the interfaces by which replies to the load balancer's health probes leave. The load balancer accepts a
/// reply only from the interface that it has probed.
#[must_use]
pub fn probes(
    asked: &[&Forward],
    links: &Links,
    routes: &BTreeMap<ReplyPacket, String>,
) -> Vec<Check> {
    let ingresses = asked.iter().flat_map(|forward| &forward.ingress);
    let ingresses: BTreeSet<&Interface> = ingresses.collect();
    let astray = ingresses.into_iter().filter_map(|ingress| {
        let answer = reply(ingress, links)?;
        let by = routes.get(&answer).filter(|by| *by != ingress.as_str())?;
        let words = format!(
            "replies from {} to Azure's load balancer ({AZURE_HOST}) leave through {by}, not through {ingress}: its health \
             probes of {ingress} fail, and it sends no connections there",
            answer.from
        );
        let look = format!("ip route get {AZURE_HOST} from {}", answer.from);
        Some(Hop::Route.warn(words).fix(Fix::to_look(look)))
    });
    astray.collect()
}

/// Adds Azure's points only if no check of the machine explains why a forward does not work: its target does not
/// answer, or it has had no connection.
pub fn check(case: &Case<'_>, astray: &Astray, checks: &mut Vec<Check>) {
    if !case.facts.is_azure {
        return;
    }
    let facts = case.facts;
    checks.extend(probes(&case.asked, &facts.links, &facts.answer_routes));
    let failed = |check: &&Check| check.status == Status::Fail;
    let is_of_target = |check: &Check| matches!(check.code, Hop::Target | Hop::Reply);
    let mut failures = checks.iter().filter(failed);
    // Packets have reached a target that refuses them.
    if failures.any(|check| !is_of_target(check)) || target::refuses(case, astray) {
        return;
    }
    let silent = checks.iter().find(failed);
    let new = counts::new_connections(case.facts.counters, case.facts.live);
    let unused = case.asked.iter().find(|forward| {
        new.get(&(forward.name.as_str(), forward.protocol))
            .is_none_or(|count| count.packets == 0)
    });
    let (forward, why) = match (silent, unused) {
        (Some(check), _) => (check.forward.clone(), "the target does not answer"),
        (None, Some(forward)) => (
            Some(forward.name.to_string()),
            "the forward has had no connection since it was loaded",
        ),
        (None, None) => return,
    };
    for (hop, what, command) in POINTS {
        let check = hop
            .unknown(format!("{why}: {what}"))
            .fix(Fix::to_look(command));
        checks.push(Check {
            forward: forward.clone(),
            ..check
        });
    }
}

const POINTS: [(Hop, &str, &str); 4] = [
    (
        Hop::AzureNsg,
        "does the network security group allow clients to reach the listen port, and this machine to reach the target?",
        "az network nic list-effective-nsg --resource-group GROUP --name NIC",
    ),
    (
        Hop::AzureRoute,
        "do the route tables lead clients to this machine, and the target's replies back to it?",
        "az network nic show-effective-route-table --resource-group GROUP --name NIC --output table",
    ),
    (
        Hop::AzureNic,
        "is IP forwarding on for the NIC? It must be if packets for other addresses come to this machine",
        "az network nic show --resource-group GROUP --name NIC --query enableIPForwarding",
    ),
    (
        Hop::AzurePeering,
        "is the peering of the virtual networks connected, and does it allow forwarded traffic?",
        "az network vnet peering list --resource-group GROUP --vnet-name NETWORK --query '[].{name:name,state:peeringState,forwarded:allowForwardedTraffic}' --output table",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::network::Link;
    use crate::yaml;

    #[test]
    fn a_reply_to_a_probe_that_leaves_by_another_interface_is_a_warning() {
        let text = "firewall: {interface: {ingress: [eth0, eth1], egress: eth1}, snat: 10.4.0.4}\n\
                    forwards: [{name: web, listen: 80, target: {pod: 10.224.0.118:80}}]";
        let set = yaml::read(text.as_bytes()).expect("it is valid");
        let asked: Vec<&Forward> = set.forwards.iter().collect();
        let link = |name: &str, address: &str| Link {
            name: name.to_owned(),
            addresses: vec![address.parse().expect("an address")],
            ..Link::default()
        };
        let links = Links(vec![link("eth0", "10.3.0.4"), link("eth1", "10.4.0.4")]);
        let questions = questions(&asked, &links);
        assert_eq!(questions.len(), 2);
        let by = |interface: &str| {
            let all = questions.iter();
            all.map(|one| (*one, interface.to_owned())).collect()
        };
        let found = probes(&asked, &links, &by("eth0"));
        let [check] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!(check.status, Status::Warn);
        assert_eq!(
            check.reason,
            "replies from 10.4.0.4 to Azure's load balancer (168.63.129.16) leave through eth0, not through eth1: its health \
             probes of eth1 fail, and it sends no connections there"
        );
        assert_eq!(probes(&asked, &links, &BTreeMap::new()), []);
    }
}

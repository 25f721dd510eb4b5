//! What lies between the machine and its clients and targets, and can only be asked of Azure.

use std::collections::{BTreeMap, BTreeSet};

use super::{Case, Check, Hop, Status};
use crate::forwards::Forward;
use crate::health::counts;
use crate::host::network::{Answer, Links};
use crate::net::{AZURE_HOST, Interface};

/// Returns the questions that [`probes`] asks of the kernel's routing: the replies to the load balancer's
/// probes of each interface where clients come in.
#[must_use]
pub fn questions(asked: &[&Forward], links: &Links) -> BTreeSet<Answer> {
    let ingresses = asked.iter().flat_map(|forward| &forward.ingress);
    ingresses.filter_map(|one| reply(one, links)).collect()
}

fn reply(ingress: &Interface, links: &Links) -> Option<Answer> {
    let mut own = links.addresses(ingress).iter();
    Some(Answer {
        from: *own.find(|own| own.is_ipv4())?,
        to: AZURE_HOST,
    })
}

/// Judges the interfaces by which replies to the load balancer's probes leave. It takes an answer only by the
/// interface that it has asked.
#[must_use]
pub fn probes(asked: &[&Forward], links: &Links, routes: &BTreeMap<Answer, String>) -> Vec<Check> {
    let ingresses = asked.iter().flat_map(|forward| &forward.ingress);
    let ingresses: BTreeSet<&Interface> = ingresses.collect();
    let astray = ingresses.into_iter().filter_map(|ingress| {
        let answer = reply(ingress, links)?;
        let by = routes.get(&answer).filter(|by| *by != ingress.as_str())?;
        let words = format!(
            "replies from {} to Azure's load balancer ({AZURE_HOST}) leave by {by}: a load balancer that \
             probes {ingress} gets no answer there and sends no connections",
            answer.from
        );
        let look = format!("to look: ip route get {AZURE_HOST} from {}", answer.from);
        Some(Hop::Route.warn(words).fix(look))
    });
    astray.collect()
}

/// Listed only where nothing on the machine explains why a forward does not work: a target that
/// does not answer, or a forward to which nothing has come.
pub fn check(case: &Case<'_>, checks: &mut Vec<Check>) {
    if !case.facts.is_azure {
        return;
    }
    let facts = case.facts;
    checks.extend(probes(&case.asked, &facts.links, &facts.answer_routes));
    let failed = |check: &&Check| check.status == Status::Fail;
    // One that refuses has been reached.
    let is_silent = |check: &&Check| {
        matches!(check.code, Hop::Target | Hop::Reply) && !check.reason.contains("refuses")
    };
    if checks.iter().filter(failed).any(|check| !is_silent(&check)) {
        return;
    }
    let silent = checks.iter().filter(failed).find(is_silent);
    let new = counts::new_connections(case.facts.counters, case.facts.live);
    let unused = case.asked.iter().find(|forward| {
        new.get(&(forward.name.as_str(), forward.protocol))
            .is_none_or(|count| count.packets == 0)
    });
    let (forward, why) = match (silent, unused) {
        (Some(check), _) => (check.forward.clone(), "the target does not answer"),
        (None, Some(forward)) => (
            Some(forward.name.to_string()),
            "nothing has come to it since it was loaded",
        ),
        (None, None) => return,
    };
    for (hop, what, command) in POINTS {
        let check = hop.unknown(format!("{why}: {what}")).fix(command);
        checks.push(Check {
            forward: forward.clone(),
            ..check
        });
    }
}

const POINTS: [(Hop, &str, &str); 4] = [
    (
        Hop::AzureNsg,
        "does the network security group let clients in to the listen port, and this machine out to the target?",
        "az network nic list-effective-nsg --resource-group GROUP --name NIC",
    ),
    (
        Hop::AzureRoute,
        "do the routes lead clients here, and replies of the target back?",
        "az network nic show-effective-route-table --resource-group GROUP --name NIC --output table",
    ),
    (
        Hop::AzureNic,
        "is IP forwarding on for the NIC, where packets for other addresses are to come here?",
        "az network nic show --resource-group GROUP --name NIC --query enableIPForwarding",
    ),
    (
        Hop::AzurePeering,
        "is the peering of the networks connected, and does it allow forwarded traffic?",
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
        let set = yaml::read(text.as_bytes()).expect("it is sound");
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
            "replies from 10.4.0.4 to Azure's load balancer (168.63.129.16) leave by eth0: a load balancer that \
             probes eth1 gets no answer there and sends no connections"
        );
        assert_eq!(probes(&asked, &links, &BTreeMap::new()), []);
    }
}

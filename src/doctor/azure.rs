//! What lies between the machine and its clients and targets, and can only be asked of Azure.

use super::{Case, Check, Hop, Status};

/// Listed only where nothing on the machine explains why a forward does not work: a target that
/// does not answer, or a forward to which nothing has come.
pub fn check(case: &Case<'_>, checks: &mut Vec<Check>) {
    if !case.facts.is_azure {
        return;
    }
    let failed = |check: &&Check| check.status == Status::Fail;
    // One that refuses has been reached.
    let is_silent = |check: &&Check| {
        matches!(check.code, Hop::Target | Hop::Reply) && !check.reason.contains("refuses")
    };
    if checks.iter().filter(failed).any(|check| !is_silent(&check)) {
        return;
    }
    let silent = checks.iter().filter(failed).find(is_silent);
    let new = case.facts.counters.new_connections(case.facts.live);
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

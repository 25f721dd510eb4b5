//! Checks how much room there is: source ports of SNAT, connections that the table could not keep, and the limit of
//! Azure.

use super::machine::larger_table;
use super::{Case, Check, Fix, Hop};
use crate::health::snat_ports::{SNAT_PORTS, SnatPorts, snat_ports};
use crate::host::conntrack::ConntrackCounts;

/// From this many ports in use on, new connections may fail. Clients keep their own ports, 32768 to 60999 for example, so
/// used ports lie together. The kernel tries 128, 64, 32 and 16 ports in a row, each from a random one
/// (`NF_NAT_MAX_ATTEMPTS` in `net/netfilter/nf_nat_core.c`), and all of them may be used. Measured on Linux 6.18 with the
/// ports of one client in use: of 3,000 new connections of another client, 45 failed at 28,232 ports in use and 70 at
/// 47,178. At 58,154, 3,828 of 6,400 failed.
const SCARCE: usize = 28_000;
/// From this many ports in use on, most new connections failed in that measurement.
const NEARLY_FULL: usize = SNAT_PORTS * 9 / 10;
/// From this many ports of unfinished connections on, nearly no port is free.
const FULL: usize = 64_000;

/// Checks the source ports of each address that SNAT gives to connections. Nothing is reported if there is no such
/// connection, or conntrack entries cannot be listed, which the check `reply` reports.
pub fn source_ports(case: &Case<'_>, checks: &mut Vec<Check>) {
    let flows = case.facts.flows.as_deref().unwrap_or_default();
    let used = snat_ports(flows, case.set, &case.facts.links);
    let is_scarce = |snat: &&SnatPorts| snat.ports_used >= SCARCE;
    let mut found: Vec<Check> = used
        .iter()
        .filter(is_scarce)
        .map(|snat| full_source(snat, &case.apply))
        .collect();
    if found.is_empty() {
        let most = used.iter().max_by_key(|snat| snat.ports_used);
        found.extend(most.map(|snat| Hop::SnatPorts.ok(snat.to_string())));
    }
    checks.extend(found);
}

fn full_source(snat: &SnatPorts, apply: &str) -> Check {
    let check = if snat.ports_busy() >= FULL {
        Hop::SnatPorts.fail(format!(
            "{snat}: the kernel no longer finds a free port for each new connection there, and drops those without one"
        ))
    } else if snat.ports_used >= FULL {
        // Linux 6.18 gives the ports of connections in TIME_WAIT and CLOSE to new ones (`nf_nat_may_kill` in
        // `net/netfilter/nf_nat_core.c`). Older kernels do not have that function.
        Hop::SnatPorts.warn(format!(
            "{snat}: a new kernel gives the ports of finished connections to new ones there, but an older kernel drops \
             new connections without a free port"
        ))
    } else if snat.ports_used >= NEARLY_FULL {
        Hop::SnatPorts.warn(format!(
            "{snat}: many new connections there may fail, since the kernel tries only some ports for each; in a \
             measurement 60 % failed with 58,154 ports in use"
        ))
    } else {
        Hop::SnatPorts.warn(format!(
            "{snat}: some new connections there may fail, since the kernel tries only some ports for each; in a \
             measurement 1.5 % failed with 28,232 ports in use"
        ))
    };
    check.fix(format!(
        "set `snat` in the spec to a range that has more of this machine's addresses, then: {apply}"
    ))
}

/// Judges the connections that conntrack could not keep, by its counts from before and after the checks.
#[must_use]
pub fn lost(
    before: ConntrackCounts,
    now: ConntrackCounts,
    tracked: Option<(u64, u64)>,
) -> Vec<Check> {
    let (Some(ended), Some(clashes)) = (now.early_drop, now.insert_failed) else {
        return Vec::new();
    };
    let new = |now: u64, before: Option<u64>| now.saturating_sub(before.unwrap_or(now));
    let (new_ended, new_clashes) = (
        new(ended, before.early_drop),
        new(clashes, before.insert_failed),
    );
    let mut checks = Vec::new();
    if new_ended > 0 {
        let full = Hop::ConntrackLosses.warn(format!(
            "the connection table was full: to make room, the kernel ended {new_ended} connections while this ran, \
             {ended} since boot (early_drop)"
        ));
        checks.push(match tracked {
            Some((_, limit)) => full.fix(larger_table(limit)),
            None => full,
        });
    }
    if new_clashes > 0 {
        let not_added = Hop::ConntrackLosses.warn(format!(
            "{new_clashes} new connections were not added to the table while this ran, {clashes} since boot \
             (insert_failed), because another connection had their addresses and ports, and most lost a packet: SNAT \
             found no free port, or a client sent two datagrams at once from a new socket, as DNS resolvers do"
        ));
        checks.push(not_added.fix(Fix::to_look("sudo nvactl status")));
    }
    if checks.is_empty() {
        checks.push(Hop::ConntrackLosses.ok(match (ended, clashes) {
            (0, 0) => "no new connection has been lost since boot".to_owned(),
            _ => format!(
                "none while this ran; since boot {ended} connections were ended because the table was full \
                 (early_drop), and {clashes} were not added because another one had their addresses and ports \
                 (insert_failed)"
            ),
        }));
    }
    checks
}

/// The number of connections from which on the limit of Azure is near.
const MANY_FOR_AZURE: u64 = 200_000;

/// Checks a virtual machine of Azure for more connections than Azure may carry. Azure counts flows by its own rules, so
/// conntrack's number is only near Azure's. The limit is in
/// <https://learn.microsoft.com/azure/virtual-network/virtual-machine-network-throughput>, under network flow limits.
#[must_use]
pub fn azure_connections(tracked: Option<(u64, u64)>) -> Option<Check> {
    let (entries, _) = tracked?;
    let words = format!(
        "{entries} connections are tracked: Azure's documentation (Virtual machine network bandwidth) names 250,000 \
         active connections as the most of a VM that forwards, and further ones are dropped outside of this machine; \
         small sizes may slow down earlier"
    );
    let look = "az monitor metrics list --resource-group GROUP --resource VM \
                --resource-type Microsoft.Compute/virtualMachines --metrics 'Inbound Flows' 'Outbound Flows' \
                --output table";
    (entries >= MANY_FOR_AZURE).then(|| Hop::AzureConnections.warn(words).fix(Fix::to_look(look)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(checks: &[Check]) -> Vec<String> {
        let line = |check: &Check| format!("{}: {}", check.status.word(), check.reason);
        checks.iter().map(line).collect()
    }

    #[test]
    fn a_source_is_scarce_from_28_000_connections_to_one_destination_on() {
        for (ports_used, ports_finished, begin, end) in [
            (
                28_000,
                0,
                "warn: 28000 of 64512 source ports of 10.3.0.4 are in use to tcp 192.0.2.80:443: some new ",
                "1.5 % failed with 28,232 ports in use",
            ),
            (58_059, 0, "warn: 58059 of ", "with 28,232 ports in use"),
            (
                58_060,
                0,
                "warn: 58060 of ",
                "60 % failed with 58,154 ports in use",
            ),
            (63_999, 0, "warn: 63999 of ", "with 58,154 ports in use"),
            (64_000, 0, "fail: 64000 of ", "and drops those without one"),
            (
                64_400,
                400,
                "fail: 64400 of ",
                "and drops those without one",
            ),
            (
                64_400,
                401,
                "warn: 64400 of 64512 source ports of 10.3.0.4 are in use to tcp 192.0.2.80:443, 401 of them by finished \
                 connections: ",
                "an older kernel drops new connections without a free port",
            ),
        ] {
            let snat = SnatPorts {
                address: "10.3.0.4".parse().expect("it is an address"),
                connections: 70_000,
                ports_used,
                ports_finished,
                protocol: "tcp",
                destination: "192.0.2.80:443".to_owned(),
            };
            assert!(ports_used >= SCARCE);
            let check = full_source(&snat, "sudo nvactl apply");
            let words = said(&[check])[0].clone();
            assert!(words.starts_with(begin) && words.ends_with(end), "{words}");
        }
    }

    #[test]
    fn only_losses_while_doctor_runs_are_a_warning() {
        let counts = |early_drop, insert_failed| ConntrackCounts {
            early_drop: Some(early_drop),
            insert_failed: Some(insert_failed),
            ..ConntrackCounts::default()
        };
        let lost = |before, now| said(&lost(before, now, Some((9, 10))));
        assert_eq!(
            lost(counts(0, 0), counts(0, 0)),
            ["ok: no new connection has been lost since boot"]
        );
        let told = lost(counts(4, 5), counts(4, 5));
        assert_eq!(told.len(), 1);
        assert!(
            told[0].starts_with("ok: none while this ran; since boot 4 connections were ended")
                && told[0].contains("and 5 were not added"),
            "{told:?}"
        );
        let told = lost(counts(4, 5), counts(6, 8));
        assert!(
            told[0].starts_with("warn: the connection table was full: ")
                && told[0].contains("ended 2 connections while this ran, 6 since boot"),
            "{told:?}"
        );
        assert!(
            told[1].starts_with("warn: 3 new connections were not added")
                && told[1].contains("while this ran, 8 since boot"),
            "{told:?}"
        );
        // Counts that were not known before are none that rose.
        let told = lost(ConntrackCounts::default(), counts(6, 8));
        assert!(told[0].starts_with("ok: "), "{told:?}");
        assert_eq!(lost(counts(0, 0), ConntrackCounts::default()), [""; 0]);
    }

    #[test]
    fn a_full_table_has_a_fix_that_doubles_it() {
        let now = ConntrackCounts {
            early_drop: Some(1),
            insert_failed: Some(0),
            ..ConntrackCounts::default()
        };
        let before = ConntrackCounts {
            early_drop: Some(0),
            ..now
        };
        let checks = lost(before, now, Some((1000, 1000)));
        let fix = checks[0].fix.as_ref().expect("it has a fix");
        assert!(fix.is("sudo sysctl -w net.netfilter.nf_conntrack_max=2000"));
    }

    #[test]
    fn the_limit_of_azure_is_near_at_200_000_connections() {
        assert_eq!(azure_connections(None), None);
        assert_eq!(azure_connections(Some((199_999, 1_000_000))), None);
        let check = azure_connections(Some((200_000, 1_000_000))).expect("it is near");
        let words = &said(&[check])[0];
        assert!(
            words.starts_with("warn: 200000 connections are tracked: Azure's documentation"),
            "{words}"
        );
    }
}

//! Checks of outbound entries: their source and their route. `rules` checks their rules.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Case, Check, Fix, Hop, route};
use crate::forwards::{ForwardSet, Outbound, Snat};
use crate::health::reach::{internet, outside, range_ends, sender};
use crate::host::network::Packet;

/// Returns the routes to ask the kernel for: of each entry's packets, and of the machine's own.
#[must_use]
pub fn questions(set: &ForwardSet) -> BTreeSet<Packet<'_>> {
    let mut questions = BTreeSet::new();
    for entry in &set.outbound {
        let to = outside(entry);
        questions.insert(Packet { to, came: None });
        questions.extend(entry.ingress.iter().map(|ingress| Packet {
            to,
            came: Some((sender(entry), ingress)),
        }));
    }
    questions
}

/// Checks the source and the route of each entry.
pub fn check(case: &Case<'_>, checks: &mut Vec<Check>) {
    for entry in case.entries {
        let found = source(case, entry).into_iter().chain(way(case, entry));
        checks.extend(found.map(|check| of(check, entry)));
    }
}

fn of(check: Check, entry: &Outbound) -> Check {
    Check {
        forward: Some(entry.name.to_string()),
        ..check
    }
}

/// Checks the addresses that servers see.
fn source(case: &Case<'_>, entry: &Outbound) -> Vec<Check> {
    let egress = &entry.egress;
    match entry.snat {
        Snat::Masquerade => Vec::new(),
        Snat::Client => vec![
            Hop::SnatAddress
                .unknown(
                    "servers see the sources themselves (`snat: none`): their routes must lead back through this machine",
                )
                .fix(Fix::to_look_at("on a server", "ip route get SOURCE")),
        ],
        Snat::Addresses(_) => {
            let ends = range_ends(entry.snat).map(|address| match case.facts.links.owner(address) {
                _ if case.facts.links.0.is_empty() => {
                    Hop::SnatAddress.unknown("cannot list this machine's addresses")
                }
                Some(link) if link.name == egress.as_str() => {
                    Hop::SnatAddress.ok(format!("{address} is an address of {egress}"))
                }
                Some(link) => Hop::SnatAddress.warn(format!(
                    "{address} is an address of {}, while packets leave by {egress}: replies arrive only if the \
                     network routes them here",
                    link.name
                )),
                None => Hop::SnatAddress
                    .fail(format!(
                        "{address} is not an address of this machine: replies do not come back"
                    ))
                    .fix(format!(
                        "set `snat` of `{}` in the spec to an address of {egress} or to `masquerade`, then: {}",
                        entry.name, case.apply
                    )),
            });
            ends.collect()
        }
    }
}

/// Checks whether the kernel sends the entry's packets by the spec's egress.
fn way(case: &Case<'_>, entry: &Outbound) -> Option<Check> {
    let (to, egress) = (outside(entry), &entry.egress);
    let asked = |came| case.facts.routes.get(&Packet { to, came });
    let mut of_sender = entry
        .ingress
        .iter()
        .filter_map(|ingress| asked(Some((sender(entry), ingress))));
    // The kernel has no route for a packet that arrives while forwarding is off.
    let answer = of_sender.find(|answer| answer.is_ok()).or(asked(None))?;
    let there = named(entry, to);
    match answer {
        Ok(route) if route.interface == egress.as_str() => {
            Some(Hop::Route.ok(format!("packets to {there} leave by {egress}")))
        }
        Ok(route) => Some(
            Hop::Route
                .fail(format!(
                    "packets to {there} leave by {}, while the spec's egress is {egress}: the entry's rules do not \
                     match them",
                    route.interface
                ))
                .fix(
                    route_out(entry, to)
                        .with_router_on(egress)
                        .or(correct_interface(entry, &case.apply)),
                ),
        ),
        Err(_) if route::is_down(case, egress) => None,
        Err(words) => Some(
            Hop::Route
                .fail(format!("this machine has no route to {there}: {words}"))
                .fix(Fix::to_look(format!("{} route show", route::ip(case.family)))),
        ),
    }
}

/// Returns the fix that leads packets to an address out by the entry's egress.
fn route_out(entry: &Outbound, to: IpAddr) -> Fix {
    let (ip, egress) = (route::ip(entry.family), &entry.egress);
    if to == internet(entry.family) {
        Fix::only_if(
            "if the default route is wrong, which all other packets of this machine follow, ssh among them",
            format!("sudo {ip} route replace default via ROUTER dev {egress}"),
        )
    } else {
        Fix::only_if(
            "if the route is wrong or missing",
            format!("sudo {ip} route replace {to} via ROUTER dev {egress}"),
        )
    }
}

/// Returns the edit for an entry whose packets or replies leave by another interface than the spec says.
pub fn correct_interface(entry: &Outbound, apply: &str) -> Fix {
    let name = &entry.name;
    Fix::only_if(
        "if the spec is wrong",
        format!("correct `interface` of `{name}` in the spec, then: {apply}"),
    )
}

fn named(entry: &Outbound, to: IpAddr) -> String {
    if to == internet(entry.family) {
        "the Internet".to_owned()
    } else {
        to.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::doctor::facts::BootFacts;
    use crate::health::doctor::{Answers, Facts, RoutedClient, Status, examine};
    use crate::health::next_boot::NextBoot;
    use crate::health::rules_file::RulesFile;
    use crate::host::network::{Links, Route};
    use crate::host::persistence::RulesAtBoot;
    use crate::net::Family;
    use crate::netfilter::backend::Backend;
    use crate::netfilter::counters::Counters;
    use crate::netfilter::names::{ChainName, TableName};
    use crate::netfilter::ruleset::Ruleset;
    use crate::plan::unplan::plan_as;
    use crate::twin::battery::{Ask, Subject, Wanted};
    use crate::twin::clients::{ClientKind, SampleClient};
    use crate::twin::talk::{From, Question};
    use crate::twin::verdict::{Judged, Verdict};
    use crate::yaml;

    const V4: &str = "{name: out, allow_from: [10.224.0.0/16], protocol: tcp, ports: [443]}";

    fn set(outbound: &str) -> ForwardSet {
        let text = format!("firewall: {{interface: eth0, mss: 1360}}\noutbound: [{outbound}]");
        yaml::read(text.as_bytes()).expect("it is valid")
    }

    /// Returns doctor's checks of a machine that runs the rules of a set, after `change`. It has a route to servers if
    /// its connections were tried.
    fn examined(
        set: &ForwardSet,
        change: impl Fn(&mut Ruleset),
        answers: &Result<Answers<'_>, String>,
    ) -> Vec<Check> {
        let family = set.outbound[0].family;
        let mut live = plan_as(&Ruleset::default(), set, family);
        change(&mut live);
        let route = match answers {
            Ok(_) => Ok(route_by("eth0")),
            Err(_) => Err("Network is unreachable".to_owned()),
        };
        examined_with(set, &live, &route, answers)
    }

    fn route_by(interface: &str) -> Route {
        Route {
            interface: interface.to_owned(),
            gateway: None,
            neighbour: None,
        }
    }

    /// Returns doctor's checks of a machine that runs some rules and has one route to servers.
    fn examined_with(
        set: &ForwardSet,
        live: &Ruleset,
        route: &Result<Route, String>,
        answers: &Result<Answers<'_>, String>,
    ) -> Vec<Check> {
        let family = set.outbound[0].family;
        let facts = Facts {
            backend: Backend::Nft,
            live,
            is_bare: false,
            counters: &Counters::default(),
            other: None,
            mark_rules: Vec::new(),
            links: Links::default(),
            ip_forward: true,
            forwards_from: std::collections::BTreeMap::new(),
            client: RoutedClient {
                address: [81, 2, 69, 142].into(),
                real: false,
            },
            tracked: None,
            flows: Some(Vec::new()),
            once: Vec::new(),
            routes: questions(set)
                .into_iter()
                .map(|packet| (packet, route.clone()))
                .collect(),
            answer_routes: std::collections::BTreeMap::new(),
            probed: &[],
            answers,
            is_azure: false,
            pending: None,
            boot: BootFacts {
                next: NextBoot {
                    place: "/etc/iptables/rules.v4",
                    rules: RulesFile::Missing,
                    refused: None,
                    by: RulesAtBoot::Unit,
                    forwards: None,
                    forwards_unread: None,
                },
                unit: None,
                managers: Vec::new(),
            },
        };
        examine(&Case {
            facts: &facts,
            set,
            family,
            asked: set.forwards.iter().collect(),
            entries: &set.outbound,
            apply: "sudo nvactl apply".to_owned(),
            persist: "sudo nvactl persist".to_owned(),
            doctor: "sudo nvactl doctor".to_owned(),
            folder: String::new(),
            iptables: "iptables".to_owned(),
        })
    }

    fn no_answers() -> Result<Answers<'static>, String> {
        Err("--no-twin".to_owned())
    }

    fn of_code(checks: &[Check], hop: Hop) -> Vec<String> {
        let is_jump = |check: &Check| check.reason.starts_with("iptables mangle: ");
        let lines = checks
            .iter()
            .filter(|check| check.code == hop && !is_jump(check));
        lines
            .map(|check| format!("{}: {}", check.status.word(), check.reason))
            .collect()
    }

    /// Removes the last rule of a chain that begins with these words.
    fn without(table: TableName, chain: &str) -> impl Fn(&mut Ruleset) {
        move |live| {
            let chains = live.tables.get_mut(&table).expect("the table is there");
            let is_it = |name: &ChainName| name.as_str().starts_with(chain);
            let (_, chain) = chains
                .iter_mut()
                .find(|(name, chain)| is_it(name) && !chain.rules.is_empty())
                .expect("the chain is there");
            chain.rules.pop();
        }
    }

    /// Removes the rules of the filter table that have these words.
    fn lacking(words: &str) -> impl Fn(&mut Ruleset) {
        move |live| {
            let chains = live.tables.get_mut(&TableName::Filter).expect("a table");
            let mut removed = 0;
            for chain in chains.values_mut() {
                let all = chain.rules.len();
                chain.rules.retain(|rule| !rule.to_string().contains(words));
                removed += all - chain.rules.len();
            }
            assert_eq!(removed, 1, "{words}");
        }
    }

    /// None of the tried connections goes to the networks of the missing lines, or comes from there.
    #[test]
    fn a_missing_line_of_a_list_fails_for_its_forward_or_entry() {
        let deny = "deny_from: [10.224.9.0/24, 10.224.10.0/24]";
        let denied = V4.replace('}', &format!(", {deny}}}"));
        let again = denied.replace("name: out", "name: again");
        let web = format!(
            "\nforwards: [{{name: web, listen: 80, target: {{pod: '10.224.0.118:80'}}, {deny}}}]"
        );
        let internet = "-d 192.168.0.0/16 -j RETURN";
        let source = "-s 10.224.9.0/24 -j DROP";
        for (entries, forwards, line, hop, of, shared) in [
            (
                V4.to_owned(),
                "",
                internet,
                Hop::ForwardRule,
                Some("out"),
                "",
            ),
            (
                denied.clone(),
                "",
                source,
                Hop::ForwardRule,
                Some("out"),
                "",
            ),
            (
                V4.to_owned(),
                &web,
                source,
                Hop::ForwardRule,
                Some("web"),
                "",
            ),
            (
                format!("{denied}, {again}"),
                "",
                source,
                Hop::OwnChains,
                None,
                " (of `again`, `out`)",
            ),
        ] {
            let text = format!(
                "firewall: {{interface: eth0, snat: 10.3.0.4}}\noutbound: [{entries}]{forwards}"
            );
            let set = yaml::read(text.as_bytes()).expect("it is valid");
            let answers = Ok(Answers {
                judged: vec![judged(&set, Verdict::AsWanted)],
                ..Answers::default()
            });
            let checks = examined(&set, lacking(line), &answers);
            let failed: Vec<_> = checks
                .iter()
                .filter(|check| check.status == Status::Fail && check.reason.contains("-A NVACTL"))
                .map(|check| (check.code, check.forward.as_deref()))
                .collect();
            assert_eq!(failed, [(hop, of)], "{line} {checks:?}");
            let told = of_code(&checks, hop).concat();
            let end = format!(" {line}` is not loaded{shared}");
            assert!(told.contains(&end), "{told}");
            let own = of_code(&checks, Hop::OwnChains).concat();
            assert!(
                own.ends_with("ok: nobody has added a line to nvactl's chains"),
                "{own}"
            );
        }
    }

    #[test]
    fn the_rules_of_an_entry_are_counted_by_hop() {
        let set = set(V4);
        let whole = examined(&set, |_| {}, &no_answers());
        assert_eq!(
            of_code(&whole, Hop::ForwardRule),
            [
                "ok: all 5 rules are loaded; since then 0 connections went out, and drops and limits refused 0 packets"
            ]
        );
        for (table, chain, hop, reason) in [
            (
                TableName::Mangle,
                "NVACTL-MSS",
                Hop::MssRule,
                "1 of its 4 MSS rules is not loaded",
            ),
            (
                TableName::Nat,
                "NVACTL-POSTROUTING",
                Hop::SnatRule,
                "1 of its 2 SNAT rules is not loaded",
            ),
            (
                TableName::Filter,
                "NVACTL-FORWARD",
                Hop::ForwardRule,
                "1 of its 5 filter rules is not loaded",
            ),
        ] {
            let checks = examined(&set, without(table, chain), &no_answers());
            let rules = [Hop::MssRule, Hop::SnatRule, Hop::ForwardRule];
            for one in rules {
                let told = of_code(&checks, one);
                let is_bad = told.iter().any(|line| line.starts_with("fail"));
                assert_eq!(is_bad, one == hop, "{told:?}");
            }
            assert_eq!(of_code(&checks, hop), [format!("fail: {reason}")]);
        }
    }

    /// Returns a connection of the first entry, with its end.
    fn judged(set: &ForwardSet, verdict: Verdict) -> Judged<'_> {
        let entry = &set.outbound[0];
        let client: IpAddr = [10, 224, 0, 7].into();
        let to = "81.2.69.142:443".parse().expect("an address and a port");
        let ask = Ask {
            of: Subject::Outbound(entry),
            client: SampleClient {
                address: client,
                kind: ClientKind::Somebody,
            },
            by: &entry.ingress[0],
            wanted: Wanted::Through,
            question: Question {
                protocol: crate::net::Protocol::Tcp,
                client,
                from: From::World(0),
                to,
                listeners: vec![to],
                request: 1,
                answer: 1,
            },
            times: 1,
            is_brief: true,
            is_spare: false,
            named: None,
        };
        Judged { ask, verdict }
    }

    /// The entry's connections pass without the limit, and a wrong source is reported all the same.
    #[test]
    fn a_missing_limit_is_a_warning_and_hides_no_wrong_source() {
        let set = set(V4);
        let client: IpAddr = [10, 224, 0, 7].into();
        let of = |verdict| {
            let answers = Ok(Answers {
                judged: vec![judged(&set, verdict)],
                ..Answers::default()
            });
            examined(&set, without(TableName::Mangle, "NVACTL-MSS"), &answers)
        };
        let checks = of(Verdict::AsWanted);
        assert_eq!(
            of_code(&checks, Hop::MssRule),
            ["warn: 1 of its 4 MSS rules is not loaded"]
        );
        let checks = of(Verdict::Source {
            seen: client,
            blame: crate::twin::verdict::Blame::default(),
        });
        let told = of_code(&checks, Hop::SnatRule);
        let seen = "fail: the server sees the source 10.224.0.7, while the spec says masquerade";
        assert!(told.iter().any(|line| line == seen), "{told:?}");
    }

    #[test]
    fn a_spec_without_forwards_is_told_about_outbound_entries() {
        let v6 = "{name: out, allow_from: ['fd00:224::/64']}";
        for (entry, words) in [
            (V4, "no outbound entry works"),
            (v6, "no IPv6 outbound entry works"),
        ] {
            let set = set(entry);
            let checks = examined(&set, |live| live.tables.clear(), &no_answers());
            let codes = [Hop::Jump, Hop::Persistence, Hop::SysctlAtBoot];
            for told in codes.map(|hop| of_code(&checks, hop).concat()) {
                let words = if told.contains("IPv4 rules") {
                    words.replace("no ", "no IPv4 ")
                } else {
                    words.to_owned()
                };
                assert!(told.contains(&words), "{told}");
            }
        }
    }

    /// The route may be wrong, or the spec.
    #[test]
    fn packets_that_leave_by_another_interface_have_two_fixes() {
        let edit = "; if the spec is wrong: correct `interface` of `out` in the spec, then: sudo nvactl apply";
        for (entry, route) in [
            (V4, "sudo ip route replace default via ROUTER dev eth0"),
            (
                "{name: out, allow_from: ['fd00:224::/64']}",
                "sudo ip -6 route replace default via ROUTER dev eth0",
            ),
            (
                "{name: out, allow_from: [10.224.0.0/16], allow_to: [10.50.0.1]}",
                "sudo ip route replace 10.50.0.1 via ROUTER dev eth0",
            ),
        ] {
            let set = set(entry);
            let live = plan_as(&Ruleset::default(), &set, set.outbound[0].family);
            let checks = examined_with(&set, &live, &Ok(route_by("eth1")), &no_answers());
            let mut routes = checks.iter().filter(|check| check.code == Hop::Route);
            let fix = routes.next().and_then(|check| check.fix.as_ref());
            let shown = fix.map(ToString::to_string).unwrap_or_default();
            assert!(shown.ends_with(&format!("{route}{edit}")), "{shown}");
        }
    }

    #[test]
    fn the_command_that_shows_routes_is_that_of_the_family() {
        for (entry, command) in [
            (V4, "ip route show"),
            (
                "{name: out, allow_from: ['fd00:224::/64']}",
                "ip -6 route show",
            ),
        ] {
            let set = set(entry);
            let checks = examined(&set, |_| {}, &no_answers());
            let mut route = checks.iter().filter(|check| {
                check.code == Hop::Route && check.forward.is_some() && check.status == Status::Fail
            });
            let fix = route.next().and_then(|check| check.fix.as_ref());
            let shown = fix.map(ToString::to_string);
            assert_eq!(
                shown.as_deref(),
                Some(format!("to look: {command}").as_str())
            );
            let family = set.outbound[0].family;
            assert_eq!(route::ip(family) == "ip -6", family == Family::V6);
        }
    }
}

//! The result of a trial, and its remarks.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::failed::{dead, lost, strayed};
use super::other_flows::other_flows;
use super::overtaken::{Overtaken, opened};
use crate::health::test_result::TestResult;
use crate::net::Family;
use crate::net::words::{counted, quoted};
use crate::netfilter::backend::Backend;
use crate::ops::remark::Remarks;
use crate::twin::change::Tried;

/// Connections that are not tried by then are reported.
pub const LIMIT: Duration = Duration::from_mins(2);

/// The result of a trial.
#[derive(Debug)]
pub enum PacketTrial {
    /// The change cuts off no forward and no outbound entry that works now.
    Passed(Vec<Overtaken>),
    /// iptables-restore refuses the change in the copy.
    NotLoaded,
    /// The change would cut off forwards or outbound entries that work now, a line each.
    Cuts(Vec<String>),
    /// These tests of the spec do not pass with the change.
    TestsFail(Vec<TestResult>),
    /// No copy could be made, with the reason.
    Impossible(String),
}

pub fn told(
    tried: &Tried<'_>,
    backend: Backend,
    foreign_snat: impl FnOnce() -> BTreeSet<IpAddr>,
    remarks: &mut Remarks,
) -> PacketTrial {
    if !tried.lost.is_empty() {
        return PacketTrial::Cuts(lost(tried, backend, &foreign_snat()));
    }
    if !tried.failed_tests.is_empty() {
        let numbered = tried.failed_tests.iter().enumerate();
        let result = |(number, one)| TestResult::of(one, tried.traces.get(&number));
        return PacketTrial::TestsFail(numbered.map(result).collect());
    }
    dead(&tried.dead, remarks);
    let all = Family::ALL.into_iter();
    let overtaken = all.filter_map(|family| opened(&tried.opened, family));
    let overtaken = overtaken.collect();
    other_flows(tried, remarks);
    if !tried.unsure.is_empty() {
        let names: BTreeSet<&str> = tried.unsure.iter().map(|one| one.name().as_str()).collect();
        remarks.warn(format_args!(
            "connections of {} may or may not pass after this change: a rule of another program decides by \
             chance, by its counter, or by asking a program",
            quoted(names)
        ));
    }
    strayed(&tried.strayed, remarks);
    if let Some(why) = tried.failed.first() {
        remarks.warn(format_args!(
            "{} of this spec could not be opened in a copy of this machine: {why}",
            counted(tried.failed.len(), "connection")
        ));
    }
    if tried.not_asked > 0 {
        remarks.warn(format_args!(
            "{} of this spec could not be tried in {} seconds; to try them after the change: \
             sudo nvactl doctor --deadline 600",
            counted(tried.not_asked, "connection"),
            LIMIT.as_secs()
        ));
    }
    if tried.untried_networks > 0 {
        remarks.note(format_args!(
            "clients of {} that routes or rules name were not tried",
            counted(tried.untried_networks, "more network")
        ));
    }
    PacketTrial::Passed(overtaken)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use ipnet::IpNet;

    use super::*;
    use crate::forwards::ForwardSet;
    use crate::netfilter::conntrack::Flow;
    use crate::netfilter::names::{ChainName, TableName};
    use crate::twin::battery::{Ask, Subject, Wanted};
    use crate::twin::cause::{
        By, DecidingRule, Direction, Fate, Holder, KernelReason, Stage, Taken,
    };
    use crate::twin::change::{Opened, Others};
    use crate::twin::clients::{ClientKind, SampleClient};
    use crate::twin::talk::{From, Question};
    use crate::twin::verdict::{Death, Judged, Verdict};
    use crate::yaml;

    const SPEC: &str = "firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
  - {name: dns, listen: 53, protocol: udp, target: {pod: 10.224.0.99:5353}}
";

    fn ask(set: &ForwardSet, n: usize, client: ClientKind) -> Ask<'_> {
        let forward = &set.forwards[n];
        let address = "198.51.100.10".parse().expect("an address");
        Ask {
            of: Subject::Forward(forward),
            client: SampleClient {
                address,
                kind: client,
            },
            by: &forward.ingress[0],
            wanted: Wanted::Through,
            question: Question {
                protocol: forward.protocol,
                client: address,
                from: From::World(0),
                to: SocketAddr::new([10, 3, 0, 4].into(), forward.listen.ports.first().number()),
                listeners: Vec::new(),
                request: 1,
                answer: 1,
            },
            times: 1,
            is_brief: true,
            is_spare: false,
            named: None,
        }
    }

    fn rule(text: &str) -> DecidingRule {
        DecidingRule {
            stage: Stage::Forward,
            holder: Holder::Iptables {
                backend: Backend::Nft,
                family: Family::V4,
                table: TableName::Filter,
                chain: ChainName::Forward,
            },
            handle: Some(7),
            place: Some(1),
            live_place: Some(1),
            text: text.to_owned(),
            owner: None,
        }
    }

    fn dead(ask: Ask<'_>, by: By) -> Judged<'_> {
        let verdict = Verdict::Dead(Death {
            causes: vec![Taken {
                by,
                direction: Direction::Request,
                fate: Fate::Dropped,
            }],
            ..Death::default()
        });
        Judged { ask, verdict }
    }

    fn said(tried: &Tried<'_>) -> (PacketTrial, Vec<String>) {
        let mut remarks = Remarks::default();
        let mut trial = told(tried, Backend::Nft, BTreeSet::new, &mut remarks);
        if let PacketTrial::Passed(overtaken) = &mut trial {
            for overtaken in overtaken {
                remarks.warn(&overtaken.planned);
                remarks.warn(&overtaken.done);
            }
        }
        (trial, remarks.warnings().map(str::to_owned).collect())
    }

    #[test]
    fn each_forward_that_would_be_cut_off_is_named_once() {
        let set = yaml::read(SPEC.as_bytes()).expect("it is valid");
        let by = || By::Rule(rule("-A FORWARD -j DROP"));
        let lost = [0, 0, 1].map(|n| dead(ask(&set, n, ClientKind::Somebody), by()));
        let tried = Tried {
            lost: lost.into(),
            ..Tried::default()
        };
        let (PacketTrial::Cuts(lines), warnings) = said(&tried) else {
            panic!("it is refused");
        };
        assert_eq!(warnings, [""; 0]);
        assert_eq!(
            lines,
            [("web", "49182"), ("dns", "53")].map(|(name, port)| format!(
                "`{name}`: connections to 10.3.0.4:{port} reach a target with the rules loaded now, but not with \
                 the new rules: iptables-nft rule `-A FORWARD -j DROP` in filter drops the packets (tried in a copy of this \
                 machine, as the made-up client 198.51.100.10)"
            ))
        );
    }

    #[test]
    fn a_forward_that_fails_already_is_a_warning_unless_another_message_names_the_cause() {
        let set = yaml::read(SPEC.as_bytes()).expect("it is valid");
        let of = |by: fn() -> By| {
            let dead = [0, 1].map(|n| dead(ask(&set, n, ClientKind::Seen), by()));
            said(&Tried {
                dead: dead.into(),
                ..Tried::default()
            })
        };
        let (trial, warnings) = of(|| By::Rule(rule("-A FORWARD -j DROP")));
        assert!(matches!(trial, PacketTrial::Passed(_)));
        assert_eq!(
            warnings,
            [
                "connections of `web`, `dns` fail with and without this change: \
                 iptables-nft rule `-A FORWARD -j DROP` in filter drops the packets"
            ]
        );
        for by in [
            || By::Kernel(KernelReason::NotForwarded),
            || By::Kernel(KernelReason::NoRoute),
            || By::NoRule,
        ] {
            assert_eq!(of(by).1, [""; 0]);
        }
    }

    #[test]
    fn rules_behind_the_jump_are_named_with_the_edit_that_refuses_the_same() {
        let set = yaml::read(SPEC.as_bytes()).expect("it is valid");
        let banned: IpNet = "198.51.100.0/24".parse().expect("a network");
        let one = |n, kind, text| Opened {
            ask: ask(&set, n, kind),
            rule: rule(text),
        };
        let (ban, block) = (
            "-A FORWARD -s 198.51.100.0/24 -j DROP",
            "-A FORWARD -p udp -j DROP",
        );
        let told = |opened: Vec<Opened<'_>>| {
            said(&Tried {
                opened,
                ..Tried::default()
            })
            .1
        };
        assert_eq!(
            told(vec![one(0, ClientKind::Named(banned), ban)]),
            [
                "nvactl's jump will come before 1 rule that refuses packets of forwards, so those packets will be accepted:\
              \n  -A FORWARD -s 198.51.100.0/24 -j DROP (`web`)\
              \nhint: to refuse these clients, write in the spec, for a forward or in `defaults`: deny_from: [198.51.100.0/24]",
                "nvactl's jump is now before 1 rule that used to refuse packets of forwards; these packets are accepted now:\
              \n  -A FORWARD -s 198.51.100.0/24 -j DROP (`web`)\
              \nhint: to refuse these clients, write in the spec, for a forward or in `defaults`: deny_from: [198.51.100.0/24]"
            ]
        );
        assert_eq!(
            told(vec![one(1, ClientKind::Somebody, block)])[..1],
            [
                "nvactl's jump will come before 1 rule that refuses packets of forwards, so those packets will be accepted:\
              \n  -A FORWARD -p udp -j DROP (`dns`)\
              \nhint: to refuse all packets of a forward, write in the spec: enabled: false"
            ]
        );
        let both = told(vec![
            one(0, ClientKind::Named(banned), ban),
            one(1, ClientKind::Named(banned), ban),
            one(1, ClientKind::Somebody, block),
        ]);
        assert!(
            both[0].contains("(`web`, `dns`)")
                && both[0].contains("[198.51.100.0/24]\nhint: to refuse all"),
            "{both:?}"
        );
    }

    #[test]
    fn other_connections_are_counted_and_shown() {
        let flow = |source: &str| Flow {
            protocol: crate::net::Protocol::Tcp,
            source: source.parse().expect("an address"),
            destination: [10, 9, 0, 7].into(),
            destination_port: crate::net::Port::new(22).expect("a port"),
            reply_source: [10, 9, 0, 7].into(),
            reply_port: crate::net::Port::new(22).expect("a port"),
            reply_destination: source.parse().expect("an address"),
            replied: true,
            finished: false,
            traffic: None,
        };
        let flows = ["192.0.2.1", "192.0.2.2"].map(flow);
        let others = Others {
            cut: flows.iter().map(|flow| (flow, None)).collect(),
            opened: vec![&flows[0]],
            left_out: 3,
            ..Others::default()
        };
        let (_, warnings) = said(&Tried {
            others,
            not_asked: 2,
            ..Tried::default()
        });
        assert_eq!(
            warnings,
            [
                "2 connections that are forwarded now would be refused if they were opened again: tcp 192.0.2.1 → \
                 10.9.0.7:22, tcp 192.0.2.2 → 10.9.0.7:22",
                "1 connection outside the forwards and outbound entries that could not be opened until now can be opened after this change: \
                 tcp 192.0.2.1 → 10.9.0.7:22",
                "2 connections of this spec could not be tried in 120 seconds; to try them after \
                 the change: sudo nvactl doctor --deadline 600",
            ]
        );
    }
}

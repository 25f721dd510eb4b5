//! Twins of machines that are made up, from a spec or from the text of iptables-save.

use std::net::SocketAddr;

use nvactl::net::{Family, Protocol};
use nvactl::netfilter::backend::Backend as Programs;
use nvactl::netfilter::text::parse::parse;
use nvactl::twin::connection_end::{ConnectionEnd, Reached};
use nvactl::twin::made_up::MadeUp;
use nvactl::twin::rules::PacketFilter;
use nvactl::twin::talk::{From, Question};
use nvactl::twin::{Twin, netns};

use crate::asked::{cases, set_of, tried};
use crate::lab::Backend;
use crate::long;
use crate::random_specs::random_specs;
use crate::twin::answered;

pub fn programs(backend: Backend) -> Programs {
    match backend {
        Backend::Nft => Programs::Nft,
        Backend::Legacy => Programs::Legacy,
    }
}

lab_test!(every_case_works_on_a_made_up_machine);
fn every_case_works_on_a_made_up_machine(backend: Backend) {
    let (mut connections, mut wrong) = (0, Vec::new());
    for (n, case) in cases().iter().enumerate() {
        let Some(set) = set_of(case).filter(|_| long::is_turn(n, backend)) else {
            continue;
        };
        let tried = tried(&set, programs(backend));
        connections += tried.connections;
        let name = case
            .file_name()
            .expect("it has a name")
            .display()
            .to_string();
        wrong.extend(tried.wrong.into_iter().map(|one| format!("{name}: {one}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(connections > 200, "{connections}");
}

lab_test!(either machines_made_up_from_random_specs_answer_their_batteries);
fn machines_made_up_from_random_specs_answer_their_batteries(backend: Backend) {
    let (mut connections, mut ambiguous, mut wrong) = (0, 0, Vec::new());
    for (text, set) in random_specs(long::count(15, 300)) {
        let tried = tried(&set, programs(backend));
        connections += tried.connections;
        ambiguous += tried.ambiguous;
        if !tried.wrong.is_empty() {
            wrong.push(format!("{text}\n{}", tried.wrong.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(connections > 100, "{connections}");
    assert!(ambiguous * 10 < connections, "{ambiguous} of {connections}");
}

/// The end of a connection: the interface of the world that answered, the target, and the source that it saw.
type End = (String, SocketAddr, String);

/// Asks the twin of a machine that is made up from iptables-save text. Each connection is a client, the address that it
/// asks for, and the target at which somebody listens.
fn ends(text: &str, backend: Backend, asked: &[(&str, &str, &str)]) -> Vec<Option<End>> {
    let rules = [(Family::V4, parse(text).expect("it is iptables-save text"))];
    let texts = [(Family::V4, text.as_bytes())];
    let filter = PacketFilter::of_texts(programs(backend), texts).expect("it is whole");
    let work = || {
        let made_up = MadeUp::of_rules(&rules, &[]);
        let twin = Twin::make(made_up.machine, &filter, None).expect("it can be made");
        assert_eq!(twin.left_out(), Vec::<String>::new());
        let mut talker = twin.talker().expect("sockets can be opened");
        let each = asked.iter().map(|(client, to, target)| {
            let question = Question {
                protocol: Protocol::Tcp,
                client: client.parse().expect("an address"),
                from: From::World(0),
                to: to.parse().expect("an address and a port"),
                listeners: vec![target.parse().expect("an address and a port")],
                request: 64,
                answer: 64,
            };
            match answered(&mut talker, &question) {
                ConnectionEnd::Delivered(Reached {
                    world,
                    source,
                    target,
                }) => {
                    let interface = twin.worlds()[world].interface.clone();
                    Some((interface, target, source.ip().to_string()))
                }
                _ => None,
            }
        });
        each.collect()
    };
    netns::aside(work).expect("there is a thread")
}

fn end(interface: &str, target: &str, source: &str) -> End {
    let target = target.parse().expect("an address and a port");
    (interface.to_owned(), target, source.to_owned())
}

/// The commands of the article, as iptables-save prints their rules.
const THROUGH_AN_ILB: &str = "*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -i eth0 -p tcp -m tcp --dport 49181 -j DNAT --to-destination 10.224.0.222
-A POSTROUTING -d 10.224.0.222/32 -o eth0 -p tcp -m tcp --dport 49181 -j SNAT --to-source 10.3.0.4
COMMIT
*filter
:FORWARD DROP [0:0]
-A FORWARD -p tcp -m tcp --dport 49181 --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW -j ACCEPT
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
";

lab_test!(the_article_s_first_scenario_is_delivered);
fn the_article_s_first_scenario_is_delivered(backend: Backend) {
    let target = "10.224.0.222:49181";
    let asked = [
        ("198.51.100.7", "10.3.0.4:49181", target),
        ("198.51.100.7", "10.3.0.4:49182", target),
        // No rule names the listener's address, so that of another host is redirected too.
        ("198.51.100.7", "10.9.9.9:49181", target),
    ];
    let delivered = Some(end("eth0", target, "10.3.0.4"));
    assert_eq!(
        ends(THROUGH_AN_ILB, backend, &asked),
        [delivered.clone(), None, delivered]
    );
}

lab_test!(the_article_s_second_scenario_lets_a_packet_pass_that_is_routed_at_the_pod);
fn the_article_s_second_scenario_lets_a_packet_pass_that_is_routed_at_the_pod(backend: Backend) {
    let text = "# Generated by iptables-save v1.8.9 on Fri Feb  2 10:00:00 2024
*nat
:PREROUTING ACCEPT [12:720]
[3:180] -A PREROUTING -i eth0 -p tcp -m tcp --dport 49181 -j DNAT --to-destination 10.224.0.118:80
[3:180] -A POSTROUTING -d 10.224.0.118/32 -o eth0 -p tcp -m tcp --dport 80 -j SNAT --to-source 10.3.0.4
COMMIT
*filter
:FORWARD DROP [0:0]
[3:180] -A FORWARD -p tcp -m tcp --dport 80 --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW -j ACCEPT
[9:540] -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
# Completed on Fri Feb  2 10:00:00 2024
";
    let pod = "10.224.0.118:80";
    let asked = [
        ("198.51.100.7", "10.3.0.4:49181", pod),
        ("198.51.100.7", pod, pod),
        ("198.51.100.7", "10.3.0.4:80", pod),
    ];
    let delivered = Some(end("eth0", pod, "10.3.0.4"));
    assert_eq!(
        ends(text, backend, &asked),
        [delivered.clone(), delivered, None]
    );
}

lab_test!(either rules_without_addresses_work_on_a_made_up_machine);
fn rules_without_addresses_work_on_a_made_up_machine(backend: Backend) {
    let one = THROUGH_AN_ILB.replace("SNAT --to-source 10.3.0.4", "MASQUERADE");
    let two = one.replace("-o eth0", "-o eth1");
    let target = "10.224.0.222:49181";
    for (text, interface, source) in [(one, "eth0", "198.18.0.4"), (two, "eth1", "198.18.1.4")] {
        let asked = [("198.51.100.7", "198.18.0.4:49181", target)];
        let delivered = Some(end(interface, target, source));
        assert_eq!(ends(&text, backend, &asked), [delivered], "{text}");
    }
}

//! Checks the sentences for verdicts. The lab checks what only the kernel can show.

use super::*;
use crate::forwards::ForwardSet;
use crate::netfilter::backend::Backend;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::target::Mss;
use crate::twin::battery::Ask;
use crate::twin::cause::{
    By, DecidingRule, Direction, Holder, KernelReason, NftChain, Stage, Taken,
};
use crate::twin::clients::SampleClient;
use crate::twin::explain::KeptIn;
use crate::twin::talk::{From, Question};
use crate::twin::verdict::{Blame, Death, Examination};
use crate::twin::verdict::{Cure, SwitchValue};
use crate::yaml;

const SPEC: &str = "
firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
";

fn set() -> ForwardSet {
    yaml::read(SPEC.as_bytes()).expect("it is valid")
}

const SCENE: Scene<'_> = Scene {
    family: Family::V4,
    backend: Backend::Nft,
    ip_forward: true,
    apply: "sudo nvactl apply",
    doctor: "sudo nvactl doctor",
    put_in: None,
};

/// Returns the findings about the first forward.
fn of_first(
    scene: &Scene<'_>,
    answers: &Answers<'_>,
    set: &ForwardSet,
    judged: &[&Judged<'_>],
) -> Vec<Check> {
    let first = &set.forwards[0];
    let key = Subject::Forward(first).key();
    let by_subject = BySubject::from([(key, judged.to_vec())]);
    of_row(scene, answers, &[first], &by_subject)
}

/// A connection to the first forward.
fn ask<'f>(set: &'f ForwardSet, client: &str, wanted: Wanted) -> Ask<'f> {
    let forward = &set.forwards[0];
    let address = client.parse().expect("an address");
    let to = "10.3.0.4:49182".parse().expect("an address and a port");
    Ask {
        of: Subject::Forward(forward),
        client: SampleClient {
            address,
            kind: ClientKind::Somebody,
        },
        by: &forward.ingress[0],
        wanted,
        question: Question {
            protocol: forward.protocol,
            client: address,
            from: From::World(0),
            to,
            listeners: vec!["10.224.0.118:80".parse().expect("an address and a port")],
            request: 1,
            answer: 1,
        },
        times: 1,
        is_brief: true,
        is_spare: false,
        named: None,
    }
}

/// A rule of iptables, by the chain and the text that it has there.
fn of_iptables(backend: Backend, chain: &str, text: &str) -> DecidingRule {
    DecidingRule {
        stage: Stage::Forward,
        holder: Holder::Iptables {
            backend,
            family: Family::V4,
            table: TableName::Filter,
            chain: ChainName::from(chain),
        },
        handle: None,
        place: (!text.starts_with("-P")).then_some(1),
        live_place: (!text.starts_with("-P")).then_some(1),
        text: text.to_owned(),
        owner: crate::netfilter::programs::owner_of("filter", chain),
    }
}

fn of_nft(table: &str, text: &str, handle: Option<u64>) -> DecidingRule {
    let chain = NftChain {
        family: "inet",
        table: table.to_owned(),
        name: "c".to_owned(),
    };
    DecidingRule {
        stage: Stage::Forward,
        owner: crate::netfilter::programs::owner_of(table, "c"),
        holder: Holder::Nft(chain),
        handle,
        place: None,
        live_place: None,
        text: text.to_owned(),
    }
}

fn taken(by: By) -> Taken {
    Taken {
        by,
        direction: Direction::Request,
        fate: Fate::Dropped,
    }
}

/// A death with one cause and a cure.
fn cured(by: By, cure: Cure) -> Verdict {
    Verdict::Dead(Death {
        causes: vec![taken(by)],
        cures: vec![cure],
        is_cured: true,
        examination: Examination::Done,
        ..Death::default()
    })
}

fn without(decided: DecidingRule) -> Verdict {
    let by = By::Rule(decided);
    cured(by.clone(), Cure::Without(by))
}

fn dead_by(reason: KernelReason) -> Verdict {
    Verdict::Dead(Death {
        causes: vec![taken(By::Kernel(reason))],
        examination: Examination::Done,
        ..Death::default()
    })
}

fn switch(name: &str, value: &'static str) -> SwitchValue {
    SwitchValue {
        name: name.to_owned(),
        value,
    }
}

/// Returns the checks about one verdict, each in one line.
fn lines(answers: &Answers<'_>, wanted: Wanted, verdict: Verdict) -> Vec<String> {
    let set = set();
    let judged = Judged {
        ask: ask(&set, "81.2.69.142", wanted),
        verdict,
    };
    let checks = of_first(&SCENE, answers, &set, &[&judged]);
    checks.iter().map(line).collect()
}

fn line(check: &Check) -> String {
    let mut line = format!(
        "{} {}: {}",
        check.status.word(),
        check.code.code(),
        check.reason
    );
    if let Some(fix) = &check.fix {
        let tried = if check.tried { " (tried)" } else { "" };
        line = format!("{line} | fix{tried}: {fix}");
    }
    line
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn each_verdict_has_its_sentence_and_fix() {
    let drop = "-A FORWARD -p tcp -m tcp --dport 80 -j DROP";
    let answers = Answers {
        watched: vec!["iptables-nft -t filter FORWARD: `-A FORWARD -m limit -j DROP`: it depends on what `limit` has counted so far".to_owned()],
        ..Answers::default()
    };
    let blame = |by: DecidingRule, cure: Option<Cure>| Blame {
        by: Some(By::Rule(by)),
        cure,
        is_examined: true,
    };
    let rule = || of_iptables(Backend::Nft, "FORWARD", drop);
    let gone = || Some(Cure::Without(By::Rule(rule())));
    let at = "10.88.0.20:3001".parse().expect("an address and a port");
    let seen = "10.4.0.77".parse().expect("an address");
    let neighbour = KernelReason::NoNeighbour {
        address: "10.4.0.99".parse().expect("an address"),
        interface: "eth1".to_owned(),
    };
    let stuck = |examination| {
        Verdict::Dead(Death {
            is_stuck: true,
            examination,
            ..Death::default()
        })
    };
    let two = Verdict::Dead(Death {
        causes: vec![
            taken(By::Rule(rule())),
            taken(By::Rule(of_iptables(Backend::Legacy, "FORWARD", drop))),
        ],
        cures: vec![
            Cure::Apply,
            Cure::Without(By::Rule(of_iptables(Backend::Legacy, "FORWARD", drop))),
        ],
        is_cured: true,
        examination: Examination::Done,
        ..Death::default()
    });
    let no_source = Verdict::Dead(Death {
        causes: vec![Taken {
            fate: Fate::SourceTranslated {
                to: "81.2.69.142".parse().expect("an address"),
            },
            ..taken(By::NoRule)
        }],
        cures: vec![Cure::Apply],
        is_cured: true,
        examination: Examination::Done,
        ..Death::default()
    });
    let behind = Verdict::Dead(Death {
        causes: vec![taken(By::Policy(of_iptables(
            Backend::Nft,
            "FORWARD",
            "-P FORWARD DROP",
        )))],
        behind: Some("eth0".to_owned()),
        examination: Examination::Done,
        ..Death::default()
    });
    let legacy_policy = of_iptables(Backend::Legacy, "FORWARD", "-P FORWARD DROP");
    for (verdict, said) in [
        (
            Verdict::AsWanted,
            &[
                "ok packets: the rules handle 1 connection as specified, tried in a copy of this machine with test servers in place of the targets",
            ][..],
        ),
        (
            Verdict::NotAsked,
            &[
                "unknown packets: not tried: the time limit was reached first | fix: sudo nvactl doctor --deadline 120",
            ],
        ),
        (
            Verdict::Failed("Too many open files".to_owned()),
            &[
                "unknown packets: not tried: the connection could not be opened in a copy of this machine: Too many open files",
            ],
        ),
        (
            Verdict::Fickle(None),
            &["unknown packets: the same connection passes at one time and fails at another"],
        ),
        (
            Verdict::Fickle(Some(By::Rule(rule()))),
            &[
                "unknown packets: the same connection passes at one time and fails at another: when it fails, iptables-nft rule `-A FORWARD -p tcp -m tcp --dport 80 -j DROP` in filter stops the packets",
            ],
        ),
        (
            Verdict::Unknown(vec![0]),
            &[
                "unknown packets: the packets reach a rule that a copy of this machine cannot evaluate: iptables-nft -t filter FORWARD: `-A FORWARD -m limit -j DROP`: it depends on what `limit` has counted so far",
            ],
        ),
        (
            Verdict::Behind("eth0".to_owned()),
            &[
                "fail route: packets to 10.224.0.118:80 leave through eth0, while the spec's egress is eth1: a packet mark or a rule of `ip rule` routes them there, or `egress` is wrong | fix: to look: ip rule; ip route get 10.224.0.118 from 81.2.69.142 iif eth0",
            ],
        ),
        (
            Verdict::Strayed("eth1".to_owned()),
            &[
                "warn rp-filter: replies to clients that arrive on eth0 leave through eth1, and the network may drop them: the machine needs a route to those clients through eth0, or a separate routing table for connections that arrive on eth0 | fix: to look: ip route get CLIENT from 10.224.0.118 iif eth1",
            ],
        ),
        (
            Verdict::Source {
                seen,
                blame: blame(rule(), gone()),
            },
            &[
                "fail foreign-rule: the target sees the source 10.4.0.77, while the spec says 10.4.0.4: iptables-nft rule `-A FORWARD -p tcp -m tcp --dport 80 -j DROP` in filter decides this | fix (tried): if the rule should not apply to these packets: sudo iptables-nft -t filter -D FORWARD -p tcp -m tcp --dport 80 -j DROP",
            ],
        ),
        // A cure that was not tried is no fix.
        (
            Verdict::Source {
                seen,
                blame: Blame::default(),
            },
            &["fail snat-rule: the target sees the source 10.4.0.77, while the spec says 10.4.0.4"],
        ),
        (
            Verdict::Elsewhere {
                at,
                blame: blame(of_nft("q", "dnat to 10.88.0.20:3001", Some(4)), None),
            },
            &[
                "fail native-nft: the packets go to 10.88.0.20:3001 instead of the target: nft rule `dnat to 10.88.0.20:3001` in chain inet q c decides this",
            ],
        ),
        (
            without(rule()),
            &[
                "fail foreign-rule: iptables-nft rule `-A FORWARD -p tcp -m tcp --dport 80 -j DROP` in filter drops the packets | fix (tried): if the rule should not apply to these packets: sudo iptables-nft -t filter -D FORWARD -p tcp -m tcp --dport 80 -j DROP",
            ],
        ),
        // The setting itself was not tried: its program does not run in the twin.
        (
            without(of_iptables(
                Backend::Nft,
                "ufw-user-forward",
                "-A ufw-user-forward -j DROP",
            )),
            &[
                "fail foreign-rule: ufw's iptables-nft rule `-A ufw-user-forward -j DROP` in filter drops the packets | fix: if the rule should not apply to these packets: connections pass without the rule (tried); let ufw route to the target: sudo ufw route allow in on eth0 out on eth1 to 10.224.0.118 port 80",
            ],
        ),
        (
            without(of_iptables(
                Backend::Nft,
                "KUBE-FORWARD",
                "-A KUBE-FORWARD -j DROP",
            )),
            &[
                "fail foreign-rule: kube-proxy's iptables-nft rule `-A KUBE-FORWARD -j DROP` in filter drops the packets | fix: if the rule should not apply to these packets: connections pass without the rule (tried); find the Service without a ready endpoint, which kube-proxy refuses: kubectl get endpointslices -A",
            ],
        ),
        (
            cured(
                By::Policy(of_nft("my q", "policy drop", None)),
                Cure::Without(By::Policy(of_nft("my q", "policy drop", None))),
            ),
            &[
                "fail native-nft: the policy of the nft chain inet my q c drops the packets | fix (tried): if the policy should not apply to these packets: sudo nft 'chain inet my q c { policy accept; }'",
            ],
        ),
        (
            cured(
                By::Policy(legacy_policy.clone()),
                Cure::Without(By::Policy(legacy_policy)),
            ),
            &[
                "fail other-backend: the iptables-legacy policy of FORWARD in filter drops the packets | fix (tried): if the policy should not apply to these packets: sudo iptables-legacy -t filter -P FORWARD ACCEPT",
            ],
        ),
        (
            two,
            &[
                "fail foreign-rule: iptables-nft rule `-A FORWARD -p tcp -m tcp --dport 80 -j DROP` in filter drops the packets | fix (tried): if the rule should not apply to these packets: sudo nvactl apply",
                "fail other-backend: iptables-legacy rule `-A FORWARD -p tcp -m tcp --dport 80 -j DROP` in filter drops the packets | fix (tried): if the rule should not apply to these packets: sudo iptables-legacy -t filter -D FORWARD -p tcp -m tcp --dport 80 -j DROP",
            ],
        ),
        (
            cured(
                By::Kernel(KernelReason::ReversePath),
                Cure::Switches(vec![
                    switch("ipv4/conf/eth0.5/rp_filter", "2"),
                    switch("ipv4/conf/eth1/rp_filter", "2"),
                ]),
            ),
            &[
                "fail rp-filter: a packet fails the reverse path check (`rp_filter`): the route back to its source uses another interface | fix (tried): if the kernel setting may change: sudo sysctl -w net.ipv4.conf.eth0/5.rp_filter=2 net.ipv4.conf.eth1.rp_filter=2",
            ],
        ),
        (
            dead_by(neighbour),
            &[
                "fail neighbour: a packet stays in the queue for 10.4.0.99, which does not answer on eth1 | fix: to look, whether 10.4.0.99 is up and on the network of eth1: sudo ip neigh show dev eth1",
            ],
        ),
        // The program's own setting comes first.
        (
            cured(
                By::Rule(of_iptables(
                    Backend::Nft,
                    "f2b-web",
                    "-A f2b-web -s 81.2.69.142/32 -j DROP",
                )),
                Cure::Apply,
            ),
            &[
                "fail foreign-rule: fail2ban's iptables-nft rule `-A f2b-web -s 81.2.69.142/32 -j DROP` in filter drops the packets | fix: if the rule should not apply to these packets: lift fail2ban's ban (`sudo fail2ban-client set web unbanip 81.2.69.142`), or put nvactl's jump before all such rules (tried: works): sudo nvactl apply",
            ],
        ),
        (
            Verdict::Dead(Death {
                causes: vec![Taken {
                    fate: Fate::Unresolved,
                    ..taken(By::Rule(of_iptables(
                        Backend::Nft,
                        "INPUT",
                        "-A INPUT -p ipv6-icmp -j DROP",
                    )))
                }],
                examination: Examination::Done,
                ..Death::default()
            }),
            &[
                "fail foreign-rule: iptables-nft rule `-A INPUT -p ipv6-icmp -j DROP` in filter drops neighbour discovery (ICMPv6), and no packets pass without it | fix: accept ICMPv6 before that rule (not tried): sudo iptables-nft -t filter -I INPUT -p ipv6-icmp -j ACCEPT",
            ],
        ),
        // The chain has the rule twice.
        (
            Verdict::Dead(Death {
                causes: vec![taken(By::Rule(rule())), taken(By::Rule(rule()))],
                cures: vec![Cure::Without(By::Rule(rule())); 2],
                is_cured: true,
                examination: Examination::Done,
                ..Death::default()
            }),
            &[
                "fail foreign-rule: iptables-nft rule `-A FORWARD -p tcp -m tcp --dport 80 -j DROP` in filter drops the packets | fix (tried): if the rule should not apply to these packets: sudo iptables-nft -t filter -D FORWARD -p tcp -m tcp --dport 80 -j DROP && sudo iptables-nft -t filter -D FORWARD -p tcp -m tcp --dport 80 -j DROP",
            ],
        ),
        (
            cured(By::NoRule, Cure::Apply),
            &[
                "fail dnat-rule: no rule translates packets to 10.3.0.4:49182 | fix (tried): sudo nvactl apply",
            ],
        ),
        (
            behind,
            &[
                "fail route: packets to 10.224.0.118:80 leave through eth0, while the spec's egress is eth1: a packet mark or a rule of `ip rule` routes them there, or `egress` is wrong | fix: to look: ip rule; ip route get 10.224.0.118 from 81.2.69.142 iif eth0",
            ],
        ),
        (
            no_source,
            &[
                "fail snat-rule: no rule gives the packets the source of the spec, 10.4.0.4 | fix (tried): sudo nvactl apply",
            ],
        ),
        (
            dead_by(KernelReason::Prohibited),
            &[
                "fail route: a packet meets a prohibit route or rule | fix: to look: sudo ip rule; sudo ip route show table all",
            ],
        ),
        (
            dead_by(KernelReason::NeedsFragmentation),
            &["fail mtu: a packet is larger than the MTU of the route and must not be fragmented"],
        ),
        (
            cured(
                By::Kernel(KernelReason::NeedsFragmentation),
                Cure::SegmentLimit(Mss::Bytes(1260), Family::V4),
            ),
            &[
                "fail mtu: a packet is larger than the MTU of the route and must not be fragmented | fix (tried): set `mss: 1260` in `firewall` of the spec, then: sudo nvactl apply",
            ],
        ),
        (
            dead_by(KernelReason::NotForwarded),
            &[
                "fail interface-forwarding: a packet is not forwarded: forwarding is off for the machine or for the interface",
            ],
        ),
        (
            dead_by(KernelReason::NotSeen),
            &["fail packets: a packet does not arrive at any interface of the machine"],
        ),
        (
            stuck(Examination::Done),
            &[
                "fail packets: the connection opens, but its data does not come through, and the kernel does not report why",
            ],
        ),
        (
            stuck(Examination::Pending),
            &[
                "fail packets: the connection opens, but its data does not come through; the cause is not known: the time limit was reached first | fix: sudo nvactl doctor --deadline 120",
            ],
        ),
        (
            stuck(Examination::Failed("`nft` is not installed".to_owned())),
            &[
                "fail packets: the connection opens, but its data does not come through; the cause is not known: `nft` is not installed",
            ],
        ),
    ] {
        assert_eq!(lines(&answers, Wanted::Through, verdict), said);
    }
    let accept = of_iptables(Backend::Nft, "FORWARD", "-A FORWARD -j ACCEPT");
    let let_in = Verdict::LetIn(blame(accept, Some(Cure::Apply)));
    assert_eq!(
        lines(&answers, Wanted::KeptOut, let_in),
        [
            "fail foreign-rule: clients of the Internet, 81.2.69.142 for example, come through, although `allow_from` does not list them: iptables-nft rule `-A FORWARD -j ACCEPT` in filter accepts them | fix (tried): sudo nvactl apply"
        ]
    );
}

#[test]
fn a_client_that_a_line_in_nvactls_chains_lets_in_is_named_with_the_line() {
    let text = SPEC.replace("name: web,", "name: web, deny_from: [198.51.100.0/24],");
    let set = yaml::read(text.as_bytes()).expect("it is valid");
    let mut judged = Judged {
        ask: ask(&set, "198.51.100.7", Wanted::KeptOut),
        verdict: Verdict::LetIn(Blame::default()),
    };
    let net = "198.51.100.0/24".parse().expect("a network");
    judged.ask.client.kind = ClientKind::Listed(net);
    let scene = Scene {
        put_in: Some("iptables filter: `-A NVACTL-FORWARD -j ACCEPT`"),
        ..SCENE
    };
    let said = of_first(&scene, &Answers::default(), &set, &[&judged]);
    let said: Vec<String> = said.iter().map(line).collect();
    assert_eq!(
        said,
        [
            "fail own-chains: clients of 198.51.100.0/24 come through, although `deny_from` lists them: somebody added a line to nvactl's chains in iptables filter: `-A NVACTL-FORWARD -j ACCEPT` | fix: sudo nvactl apply"
        ]
    );
}

/// A ban of one network is one warning, though a client of it is connected now; a client that the spec lists, or
/// anybody else, makes it a fail.
#[test]
fn a_ban_of_others_is_one_warning() {
    let set = set();
    let drop = "-A FORWARD -s 10.3.0.0/24 -j DROP";
    let dead = || without(of_iptables(Backend::Nft, "FORWARD", drop));
    let one = |client: &str, kind, verdict| {
        let mut ask = ask(&set, client, Wanted::Through);
        ask.client.kind = kind;
        Judged { ask, verdict }
    };
    let net = "10.3.0.0/24".parse().expect("a network");
    for (kind, address, status) in [
        (ClientKind::Seen, "10.3.0.1", Status::Warn),
        (ClientKind::Seen, "10.9.0.1", Status::Fail),
        (ClientKind::Listed(net), "10.3.0.2", Status::Fail),
        (ClientKind::Somebody, "81.2.69.143", Status::Fail),
    ] {
        let judged = [
            one("81.2.69.142", ClientKind::Somebody, Verdict::AsWanted),
            one(address, kind.clone(), dead()),
            one("10.3.0.1", ClientKind::Named(net), dead()),
        ];
        let judged: Vec<&Judged<'_>> = judged.iter().collect();
        let said = of_first(&SCENE, &Answers::default(), &set, &judged);
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(said[0].status, status, "{kind:?}");
    }
}

/// Calico, for one, has blackhole routes for networks of its own: that concerns whoever is connected from there.
#[test]
fn a_route_that_forbids_a_network_of_nobody_is_a_warning() {
    let set = set();
    let one = |client: &str, kind, verdict| {
        let mut ask = ask(&set, client, Wanted::Through);
        ask.client.kind = kind;
        Judged { ask, verdict }
    };
    let net = "10.3.0.0/24".parse().expect("a network");
    for (reason, seen, status) in [
        (KernelReason::Blackhole, None, Status::Warn),
        (KernelReason::Prohibited, None, Status::Warn),
        (KernelReason::Unreachable, None, Status::Warn),
        (KernelReason::ReversePath, None, Status::Fail),
        (KernelReason::Blackhole, Some("10.3.0.1"), Status::Fail),
    ] {
        let mut judged = vec![
            one("81.2.69.142", ClientKind::Somebody, Verdict::AsWanted),
            one("10.3.0.7", ClientKind::Named(net), dead_by(reason.clone())),
        ];
        if let Some(seen) = seen {
            judged.push(one(seen, ClientKind::Seen, dead_by(reason.clone())));
        }
        let judged: Vec<&Judged<'_>> = judged.iter().collect();
        let said = of_first(&SCENE, &Answers::default(), &set, &judged);
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(said[0].status, status, "{reason:?} {seen:?}");
    }
}

#[test]
fn an_accept_in_a_chain_of_another_program_does_not_last() {
    let decided = of_nft("firewalld", "policy drop", None);
    let accept = |table: &str| Cure::AcceptInChain {
        family: "inet".to_owned(),
        table: table.to_owned(),
        chain: "c".to_owned(),
        rule: "ct status dnat accept".to_owned(),
    };
    for (table, fix) in [
        (
            "q",
            "fix (tried): if the chain should accept all redirected traffic, of any program, until the next boot: sudo nft insert rule inet q c ct status dnat accept",
        ),
        (
            "flannel-ipv4",
            "fix (tried): if the chain should accept all redirected traffic, of any program, until the next boot: change Flannel's settings, because Flannel adds its rules again; until then: sudo nft insert rule inet flannel-ipv4 c ct status dnat accept",
        ),
        (
            "firewalld",
            "fix: if the chain should accept these packets: connections pass with an accept before the rule (tried); let a firewalld policy",
        ),
    ] {
        let verdict = cured(By::Policy(decided.clone()), accept(table));
        let said = lines(&Answers::default(), Wanted::Through, verdict);
        assert!(said[0].contains(fix), "{said:?}");
    }
}

/// Another client that passes shows that a finding is about some of them.
#[test]
fn a_finding_about_some_clients_names_them() {
    let set = set();
    let one = |client: &str, verdict| Judged {
        ask: ask(&set, client, Wanted::Through),
        verdict,
    };
    let judged = [
        one("81.2.69.142", Verdict::AsWanted),
        one("198.51.100.7", dead_by(KernelReason::Prohibited)),
        one("198.51.100.8", dead_by(KernelReason::Prohibited)),
    ];
    let judged: Vec<&Judged<'_>> = judged.iter().collect();
    let said = of_first(&SCENE, &Answers::default(), &set, &judged);
    assert_eq!(said.len(), 1);
    assert_eq!(
        said[0].reason,
        "a packet meets a prohibit route or rule; affected: a client of the Internet, 198.51.100.7 for example, and 1 more group of clients"
    );
    assert_eq!(said[0].forward.as_deref(), Some("web"));
}

/// A verdict that may depend on something the copy lacks is not certain, nor is a forward's metric.
#[test]
fn a_doubt_takes_the_certainty_away() {
    let machine = crate::twin::machine::Machine {
        filtered: vec!["eth1".to_owned()],
        ..Default::default()
    };
    let answers = Answers {
        doubts: crate::twin::doubt::doubts(&machine, &[]),
        ..Answers::default()
    };
    let lacks = "in a copy of this machine, but the copy lacks: a filter of tc on eth1, which sees packets beside all rules";
    assert_eq!(
        lines(&answers, Wanted::Through, Verdict::AsWanted),
        [format!("unknown packets: connections pass {lacks}")]
    );
    assert_eq!(
        lines(
            &answers,
            Wanted::Through,
            dead_by(KernelReason::NeedsFragmentation)
        ),
        [format!(
            "unknown mtu: a packet is larger than the MTU of the route and must not be fragmented, {lacks}"
        )]
    );
}

#[test]
fn a_forward_works_only_where_that_is_known() {
    let check = |status| Hop::Packets.found(status, "");
    for (statuses, works) in [
        (&[Status::Ok][..], Some(true)),
        (&[Status::Warn, Status::Ok], Some(true)),
        (&[Status::Unknown, Status::Ok], None),
        (&[Status::Unknown, Status::Fail], Some(false)),
    ] {
        let checks: Vec<Check> = statuses.iter().map(|status| check(*status)).collect();
        assert_eq!(standing(&checks), works);
    }
}

#[test]
fn a_fault_in_rules_as_written_is_a_warning_where_no_packet_misses_them() {
    let set = set();
    let mut judged = Judged {
        ask: ask(&set, "81.2.69.142", Wanted::Through),
        verdict: Verdict::AsWanted,
    };
    let fail = |name: Option<&str>| Check {
        forward: name.map(str::to_owned),
        ..Hop::Jump.fail("")
    };
    for (verdict, statuses) in [
        (
            Verdict::AsWanted,
            [Status::Warn, Status::Warn, Status::Fail],
        ),
        (Verdict::NotAsked, [Status::Fail; 3]),
    ] {
        judged.verdict = verdict;
        let mut checks = [fail(None), fail(Some("web")), fail(Some("dns"))];
        let mut by_subject = BySubject::new();
        by_subject.insert(judged.ask.of.key(), vec![&judged]);
        moderate(&by_subject, &mut checks);
        assert_eq!(checks.map(|check| check.status), statuses);
    }
}

#[test]
fn a_rule_that_stops_the_machine_s_own_packets_is_named_or_not_known() {
    let rule = of_iptables(Backend::Nft, "OUTPUT", "-A OUTPUT -j DROP");
    for (found, said) in [
        (
            KeptIn::By(Some(taken(By::Rule(rule)))),
            "iptables-nft rule `-A OUTPUT -j DROP` in filter stops this machine's own packets",
        ),
        (
            KeptIn::By(None),
            "this machine's own packets do not reach the target in a copy of the machine either, where every target answers",
        ),
        (
            KeptIn::Failed("no socket".to_owned()),
            "it is not known whether a rule stops this machine's own packets: no socket",
        ),
        (
            KeptIn::NotAsked,
            "it is not known whether a rule stops this machine's own packets: the time limit was reached first",
        ),
    ] {
        assert_eq!(keeps(Family::V4, &found), said);
    }
}

/// Each failing forward is reported once, by its rules.
#[test]
fn a_finding_that_follows_from_rules_that_are_not_loaded_is_left_out() {
    let set = set();
    let forward = &set.forwards[0];
    let dead = |hop: Hop| Check {
        tried: true,
        ..hop.fail("").fix("sudo nvactl apply").of(forward)
    };
    let told = |hop: Hop| hop.fail("").fix("sudo nvactl apply");
    for (told, found, left, tried) in [
        (told(Hop::DnatRule).of(forward), Hop::DnatRule, 0, true),
        (told(Hop::SnatRule).of(forward), Hop::ForwardRule, 0, true),
        (told(Hop::Jump), Hop::DnatRule, 0, true),
        (told(Hop::OwnChains), Hop::OwnChains, 0, true),
        (told(Hop::OwnChains), Hop::DnatRule, 1, false),
        (told(Hop::DnatRule).of(forward), Hop::ForeignRule, 1, false),
        (Hop::DnatRule.ok("").of(forward), Hop::DnatRule, 1, false),
    ] {
        let mut checks = [told];
        let found = vec![dead(found)];
        let rest = without_consequences(found, &forward.name, "sudo nvactl apply", &mut checks);
        assert_eq!((rest.len(), checks[0].tried), (left, tried), "{checks:?}");
    }
}

/// One name, one row: the listeners of a list are told together, and a finding names its listener unless it is one
/// about all of them.
#[test]
fn a_finding_about_one_listener_of_a_list_names_it() {
    let list = SPEC.replace("listen: 49182", "listen: [49182, 49183]");
    let set = yaml::read(list.as_bytes()).expect("it is valid");
    let row: Vec<&Forward> = set.forwards.iter().collect();
    let of = |n: usize, is_dead: bool| Judged {
        ask: Ask {
            of: Subject::Forward(row[n]),
            ..ask(&set, "81.2.69.142", Wanted::Through)
        },
        verdict: if is_dead {
            Verdict::Elsewhere {
                at: "10.224.0.9:80".parse().expect("an address and a port"),
                blame: Blame {
                    by: None,
                    cure: None,
                    is_examined: true,
                },
            }
        } else {
            Verdict::AsWanted
        },
    };
    for (dead, wanted) in [
        (
            [false, false],
            "the rules handle 2 connections as specified, tried in a copy of this machine with test servers in \
             place of the targets",
        ),
        (
            [false, true],
            "the packets go to 10.224.0.9:80 instead of the target (listener 49183)",
        ),
        (
            [true, true],
            "the packets go to 10.224.0.9:80 instead of the target",
        ),
    ] {
        let judged = [of(0, dead[0]), of(1, dead[1])];
        let by_subject: BySubject<'_, '_> = judged
            .iter()
            .map(|one| (one.ask.of.key(), vec![one]))
            .collect();
        let found = of_row(&SCENE, &Answers::default(), &row, &by_subject);
        let reasons: Vec<&str> = found.iter().map(|check| check.reason.as_str()).collect();
        assert_eq!(reasons, [wanted]);
    }
}

const OUTWARD: &str = "
firewall: {interface: {ingress: eth0, egress: eth1}}
outbound:
  - {name: pods-out, allow_from: [10.224.0.0/16], deny_from: [10.224.9.0/24], deny_to: [192.0.2.0/24]}
  - {name: pings, allow_from: [10.224.0.0/16], protocol: ping}
silence: [outbound-overlap]
";

/// Returns the findings about a connection of the first outbound entry.
fn of_outward(from: &str, to: &str, wanted: Wanted, verdict: Verdict) -> Vec<String> {
    let set = yaml::read(OUTWARD.as_bytes()).expect("it is valid");
    let entry = &set.outbound[0];
    let address = from.parse().expect("an address");
    let to = format!("{to}:443").parse().expect("an address and a port");
    let ask = Ask {
        of: Subject::Outbound(entry),
        client: SampleClient {
            address,
            kind: ClientKind::Listed(IpNet::from(address)),
        },
        by: &entry.ingress[0],
        wanted,
        question: Question {
            protocol: Protocol::Tcp,
            client: address,
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
    let judged = Judged { ask, verdict };
    let said = of_entry(&SCENE, &Answers::default(), entry, &[&judged]);
    assert!(
        said.iter()
            .all(|check| check.forward.as_deref() == Some("pods-out"))
    );
    let words = |check: &Check| {
        let Check { status, code, .. } = check;
        format!("{} {}: {}", status.word(), code.code(), check.reason)
    };
    said.iter().map(words).collect()
}

/// A destination that only the policy closes may be open for another program's purposes.
#[test]
fn a_connection_that_no_entry_lets_out_is_named_with_the_list_that_keeps_it() {
    for (from, to, said) in [
        (
            "10.4.0.7",
            "81.2.69.142",
            "warn packets: clients of 10.4.0.7/32 reach 81.2.69.142, although `allow_from` does not list them",
        ),
        (
            "10.224.9.7",
            "81.2.69.142",
            "fail packets: clients of 10.224.9.7/32 reach 81.2.69.142, although `deny_from` lists them",
        ),
        (
            "10.224.0.7",
            "192.0.2.7",
            "fail packets: clients of 10.224.0.7/32 reach 192.0.2.7, although `deny_to` lists it",
        ),
        (
            "10.224.0.7",
            "169.254.169.254",
            "fail packets: clients of 10.224.0.7/32 reach 169.254.169.254, although `allow_to` does not name it",
        ),
        (
            "10.224.0.7",
            "10.3.0.7",
            "warn packets: clients of 10.224.0.7/32 reach 10.3.0.7, although `allow_to` does not name it",
        ),
    ] {
        let verdict = Verdict::LetIn(Blame::default());
        assert_eq!(of_outward(from, to, Wanted::KeptOut, verdict), [said]);
    }
}

#[test]
fn a_fault_of_an_outbound_entry_names_the_server() {
    for (verdict, said) in [
        (
            Verdict::AsWanted,
            "ok packets: the rules handle 1 connection as specified, tried in a copy of this machine with test servers \
             in place of the targets",
        ),
        (
            Verdict::Source {
                seen: "10.4.0.9".parse().expect("an address"),
                blame: Blame::default(),
            },
            "fail snat-rule: the server sees the source 10.4.0.9, while the spec says masquerade",
        ),
        (
            dead_by(KernelReason::NoRoute),
            "fail route: a packet has no route to the server 81.2.69.142",
        ),
        (
            Verdict::Behind("eth1".to_owned()),
            "fail route: packets to 81.2.69.142:443 leave through eth1, while the spec's egress is eth0: a route, a packet mark \
             or a rule of `ip rule` leads there, or `interface` is wrong",
        ),
        (
            Verdict::Strayed("eth0".to_owned()),
            "fail route: replies to sources in 10.224.0.7/32, which arrive on eth1, leave through eth0, and the network may \
             drop them",
        ),
    ] {
        let found = of_outward("10.224.0.7", "81.2.69.142", Wanted::Through, verdict);
        assert_eq!(found, [said]);
    }
}

#[test]
fn an_entry_without_connections_is_not_a_failure() {
    let set = yaml::read(OUTWARD.as_bytes()).expect("it is valid");
    let status = |entry| of_entry(&SCENE, &Answers::default(), entry, &[])[0].status;
    assert_eq!(status(&set.outbound[0]), Status::Unknown);
    assert_eq!(status(&set.outbound[1]), Status::Unknown);
}

/// An entry of pings alone has its own finding.
#[test]
fn pings_beside_connections_are_reported_as_not_tried() {
    let set = yaml::read(OUTWARD.as_bytes()).expect("it is valid");
    let found = untried_pings(&set.outbound).as_ref().map(line);
    assert_eq!(
        found.as_deref(),
        Some(
            "unknown packets: pings are not tried in a copy of this machine: it is not known whether those of `pods-out` \
             pass"
        )
    );
    assert_eq!(untried_pings(&set.outbound[1..]), None);
}

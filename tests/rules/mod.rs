//! Rules of every form that has a type: as iptables-save prints them, and made at random.

use ipnet::IpNet;
use nvactl::net::{Family, Port, PortRange, Protocol};
use nvactl::netfilter::mark::{BitShift, Mark, MarkCopy};
use nvactl::netfilter::matches::{AddressType, Cluster, InSet, Match, PortsOf, Probability, Side};
use nvactl::netfilter::negatable::Negatable::{self, Is, Not};
use nvactl::netfilter::protocol::IcmpType;
use nvactl::netfilter::rule::Rule;
use nvactl::netfilter::target::Target;
use nvactl::netfilter::tcp_flags::{FlagSet, TcpFlags};
use nvactl::netfilter::tracking::{Conntrack, CtDirection, CtState, CtStates, CtStatus};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

/// The ipset that the rules name.
pub const SET: &str = "listed";

/// Rules for mangle's FORWARD of either family.
const OF_BOTH: [&str; 38] = [
    "-i br-+ -o docker0 -j ACCEPT",
    "! -i eth+ ! -o wg0 ! -p tcp -j DROP",
    "! -p esp -j ACCEPT",
    "-p sctp -j ACCEPT",
    "-p tcp -m tcp -j ACCEPT",
    "-p tcp -m tcp ! --sport 1:10 ! --dport 80 -j ACCEPT",
    "-p tcp -m tcp --tcp-flags SYN,RST SYN,RST -j ACCEPT",
    "-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW -j DROP",
    "-p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,ACK,URG NONE -j DROP",
    "-p udp -m udp ! --sport 67 --dport 68 -j ACCEPT",
    "-p tcp -m multiport ! --dports 80,443,8000:8080 -j ACCEPT",
    "-p udp -m multiport --sports 53,67:68 -j ACCEPT",
    "-p tcp -m multiport --ports 80,443 -j ACCEPT",
    "-m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP",
    "-m conntrack --ctstate INVALID,UNTRACKED -j DROP",
    "-m conntrack ! --ctstatus CONFIRMED -j DROP",
    "-m conntrack ! --ctstate DNAT ! --ctorigdstport 80 --ctstatus SEEN_REPLY --ctdir REPLY -j DROP",
    "-m state --state RELATED,ESTABLISHED -j ACCEPT",
    "-m state ! --state NEW -j DROP",
    "-m mark --mark 0x1 -j DROP",
    "-m mark ! --mark 0x10/0xff -j DROP",
    "-m connmark --mark 0x0 -j DROP",
    "-m connmark ! --mark 0x0/0x10 -j DROP",
    "-m addrtype ! --dst-type LOCAL -j DROP",
    "-m addrtype --src-type MULTICAST -j DROP",
    "-m statistic --mode random ! --probability 0.50000000000 -j DROP",
    "-m cluster ! --cluster-local-nodemask 0x00000001 --cluster-total-nodes 4 --cluster-hash-seed 0x00000007 -j DROP",
    "-p tcp -m tcp ! --tcp-flags SYN,RST SYN -j RETURN",
    "-p tcp -m tcp --sport 443 --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1360",
    "-p tcp -m tcp --tcp-flags SYN,RST SYN -m multiport --sports 80,443 -j TCPMSS --clamp-mss-to-pmtu",
    "-j MARK --set-xmark 0x1/0xffffffff",
    "-j MARK --set-xmark 0x0/0xffffff00",
    "-j CONNMARK --set-xmark 0x3/0x0",
    "-j CONNMARK --set-xmark 0x2000000/0x2000000 --left-shift-mark 3",
    "-j CONNMARK --set-xmark 0x80000000/0x80000000 --right-shift-mark 3",
    "-j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff",
    "-j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff --left-shift-mark 4",
    "-j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff --right-shift-mark 4",
];

const OF_V4: [&str; 9] = [
    "! -s 10.0.0.0/8 ! -d 10.1.0.0/16 -j DROP",
    "-p icmp -m icmp --icmp-type 8 -j ACCEPT",
    "-p icmp -m icmp ! --icmp-type 3/4 -j ACCEPT",
    "-p icmp -m icmp --icmp-type 3/0 -j ACCEPT",
    "-p icmp -m icmp --icmp-type any -j ACCEPT",
    "-m conntrack ! --ctorigdst 10.0.0.1 --ctdir ORIGINAL -j DROP",
    "-m set --match-set listed src -j DROP",
    "-m set ! --match-set listed dst,src -j DROP",
    "-m set --match-set listed src --return-nomatch ! --update-counters -j DROP",
];

const OF_V6: [&str; 8] = [
    "! -s fd00::/8 ! -d fd01::7/128 -j DROP",
    "-p ipv6-icmp -j ACCEPT",
    "-p ipv6-icmp -m icmp6 --icmpv6-type 128 -j ACCEPT",
    "-p ipv6-icmp -m icmp6 ! --icmpv6-type 1/4 -j ACCEPT",
    "! -p ipv6-icmp -j ACCEPT",
    "-m conntrack ! --ctorigdst fd00::/8 -j DROP",
    "-m conntrack ! --ctorigdst ::10.3.0.0/112 -j DROP",
    "-m conntrack --ctorigdst ::10.3.0.4 -j DROP",
];

/// Returns lines as iptables-save prints them (measured, nft and legacy 1.8.9): the lab compares them with the
/// kernel's.
pub fn lines(family: Family) -> Vec<&'static str> {
    let own: &[&str] = match family {
        Family::V4 => &OF_V4,
        Family::V6 => &OF_V6,
    };
    [&OF_BOTH, own].concat()
}

/// A rule that every kernel takes into mangle's FORWARD, with conditions in the order of iptables-save.
pub fn any_rule(family: Family) -> impl Strategy<Value = Rule> {
    let interface = || {
        let names = [
            "eth0",
            "eth+",
            "br-1a_b",
            "ens5.1+",
            "fifteen-bytes-x",
            "fourteen-bytes+",
        ];
        let pattern = |name: &str| name.parse().expect("a pattern");
        negatable(select(names.to_vec()).prop_map(pattern))
    };
    let addresses = (
        option::of(negatable(net(family)).prop_map(Match::Source)),
        option::of(negatable(net(family)).prop_map(Match::Destination)),
        option::of(interface().prop_map(Match::Ingress)),
        option::of(interface().prop_map(Match::Egress)),
    );
    let others = vec(modules(family), 0..3);
    (addresses, protocol(family), others, target()).prop_map(
        |((source, destination, ingress, egress), protocol, others, target)| {
            let first = [source, destination, ingress, egress].into_iter().flatten();
            Rule::new(first.chain(protocol).chain(others), target)
        },
    )
}

fn negatable<T: std::fmt::Debug>(
    value: impl Strategy<Value = T>,
) -> impl Strategy<Value = Negatable<T>> {
    (any::<bool>(), value).prop_map(|(is_negated, value)| Negatable::new(is_negated, value))
}

fn net(family: Family) -> BoxedStrategy<IpNet> {
    let of = |net: Result<IpNet, _>| net.expect("a length that the family has").trunc();
    match family {
        Family::V4 => (any::<[u8; 4]>(), 1..=32_u8)
            .prop_map(move |(address, len)| of(IpNet::new(address.into(), len)))
            .prop_filter("iptables leaves it out", |net| !net.addr().is_unspecified())
            .boxed(),
        Family::V6 => (any::<[u8; 16]>(), 1..=128_u8)
            .prop_map(move |(address, len)| of(IpNet::new(address.into(), len)))
            .prop_filter("iptables leaves it out", |net| !net.addr().is_unspecified())
            .boxed(),
    }
}

fn port_range() -> impl Strategy<Value = PortRange> {
    (1..=u16::MAX, 0..3_u16).prop_map(|(first, more)| {
        let port = |number| Port::new(number).expect("a port");
        let last = first.saturating_add(more);
        PortRange::new(port(first), port(last)).expect("it runs forwards")
    })
}

/// `-p`, and the conditions that need it.
fn protocol(family: Family) -> BoxedStrategy<Vec<Match>> {
    let of = |protocol: Protocol| Match::Protocol(Is(protocol.into()));
    let ports = || option::of(negatable(port_range()));
    let tcp = (ports(), ports(), option::of(negatable(flags()))).prop_map(
        move |(source, destination, flags)| {
            let module = Match::Tcp {
                source,
                destination,
                flags,
            };
            vec![of(Protocol::Tcp), module]
        },
    );
    let udp = (ports(), ports()).prop_map(move |(source, destination)| {
        let module = Match::Udp {
            source,
            destination,
        };
        vec![of(Protocol::Udp), module]
    });
    let which = select(vec![PortsOf::Source, PortsOf::Destination, PortsOf::Either]);
    let which_protocol = select(Protocol::ALL.to_vec());
    // A range takes two of the 15 places.
    let several = (which_protocol, which, negatable(vec(port_range(), 1..=7)));
    let several = several.prop_map(move |(protocol, which, ports)| {
        vec![of(protocol), Match::Multiport { of: which, ports }]
    });
    let types = negatable(prop_oneof![
        (0..=254_u8).prop_map(IcmpType::Type),
        (0..=254_u8, any::<u8>()).prop_map(|(kind, code)| IcmpType::Code(kind, code)),
    ]);
    let icmp = types.prop_map(move |kind| {
        let (name, module) = match family {
            Family::V4 => ("icmp", Match::Icmp(kind)),
            Family::V6 => ("ipv6-icmp", Match::Icmp6(kind)),
        };
        let protocol = name.parse().expect("a protocol");
        vec![Match::Protocol(Is(protocol)), module]
    });
    let names = ["tcp", "udp", "icmp", "ipv6-icmp", "esp", "sctp", "254"];
    let protocol = |name: &str| name.parse().expect("a protocol");
    let alone = negatable(select(names.to_vec()).prop_map(protocol));
    let alone = alone.prop_map(|protocol| vec![Match::Protocol(protocol)]);
    prop_oneof![Just(Vec::new()), alone, tcp, udp, several, icmp].boxed()
}

fn flags() -> impl Strategy<Value = TcpFlags> {
    let names = vec!["FIN", "SYN", "RST", "PSH", "ACK", "URG"];
    let read = |names: &[&str]| -> FlagSet {
        let text = if names.is_empty() {
            "NONE".to_owned()
        } else {
            names.join(",")
        };
        text.parse().expect("flags")
    };
    subsequence(names, 1..=6).prop_flat_map(move |examined| {
        let count = examined.len();
        subsequence(examined.clone(), 0..=count).prop_map(move |set| TcpFlags {
            examined: read(&examined),
            set: read(&set),
        })
    })
}

fn states(of: Vec<CtState>) -> impl Strategy<Value = CtStates> {
    let count = of.len();
    subsequence(of, 1..=count).prop_map(|states| {
        let first = CtStates::from(states[0]);
        states.iter().fold(first, |all, state| all.or(*state))
    })
}

fn mark() -> impl Strategy<Value = Mark> {
    let masks = prop_oneof![Just(u32::MAX), Just(0xff), any::<u32>()];
    (any::<u32>(), masks).prop_map(|(value, mask)| Mark {
        value: value & mask,
        mask,
    })
}

/// The conditions that need no protocol.
fn modules(family: Family) -> impl Strategy<Value = Match> {
    use CtState::{Dnat, Established, Invalid, New, Related, Snat, Untracked};
    let packets = vec![Invalid, New, Related, Established, Untracked];
    let all = [packets.clone(), vec![Snat, Dnat]].concat();
    let statuses = [
        CtStatus::Expected,
        CtStatus::SeenReply,
        CtStatus::Assured,
        CtStatus::Confirmed,
    ];
    let directions = [CtDirection::Original, CtDirection::Reply];
    let conntrack = (
        option::of(negatable(states(all))),
        option::of(negatable(net(family))),
        option::of(negatable(port_range())),
        option::of(negatable(select(statuses.to_vec()))),
        option::of(select(directions.to_vec())),
    );
    let conntrack = conntrack
        .prop_map(|(states, net, ports, status, direction)| Conntrack {
            states,
            original_destination: net,
            original_destination_port: ports,
            status,
            direction,
        })
        .prop_filter("iptables wants an option", |one| {
            *one != Conntrack::default()
        })
        .prop_map(Match::Conntrack);
    // IPv6 has no broadcast, which the kernel refuses.
    let last = match family {
        Family::V4 => AddressType::Broadcast,
        Family::V6 => AddressType::Multicast,
    };
    let kinds = [AddressType::Unicast, AddressType::Local, last];
    let sides = [Side::Source, Side::Destination];
    let address_type = (select(sides.to_vec()), negatable(select(kinds.to_vec())))
        .prop_map(|(of, kind)| Match::AddressType { of, kind });
    let cluster = (1..=32_u32, 0..=5_u32, any::<u32>()).prop_map(|(total, node, seed)| Cluster {
        total,
        node: node % total,
        seed,
    });
    let set = vec(select(sides.to_vec()), 1..=2).prop_map(|sides| {
        Box::new(InSet {
            spelled: SET.into(),
            sides: sides.into(),
            further: Box::default(),
        })
    });
    // The set is one of IPv4.
    let set = match family {
        Family::V4 => negatable(set).prop_map(Match::Set).boxed(),
        Family::V6 => mark().prop_map(|mark| Match::Mark(Is(mark))).boxed(),
    };
    let comments = ["web", "-j", "a \"b\" -s 10.0.0.1", "! -i eth0", "it's"];
    prop_oneof![
        3 => conntrack,
        1 => negatable(states(packets)).prop_map(Match::State),
        1 => negatable(mark()).prop_map(Match::Mark),
        1 => negatable(mark()).prop_map(Match::Connmark),
        1 => address_type,
        1 => negatable((1..50_u32).prop_map(Probability::one_of)).prop_map(Match::Probability),
        1 => negatable(cluster).prop_map(Match::Cluster),
        1 => set,
        1 => select(comments.to_vec()).prop_map(|text| Match::Comment(text.into())),
    ]
}

fn target() -> impl Strategy<Value = Target> {
    let bits = || (any::<u32>(), any::<u32>());
    let shift = || {
        prop_oneof![
            (1..32_u8).prop_map(BitShift::Left),
            (1..32_u8).prop_map(BitShift::Right),
        ]
    };
    let copy = (bits(), option::of(shift())).prop_map(|((packet_bits, connection_bits), shift)| {
        MarkCopy {
            packet_bits,
            connection_bits,
            shift,
        }
    });
    let copies = (any::<bool>(), copy).prop_map(|(saves, copy)| {
        if saves {
            Target::SaveMark(copy)
        } else {
            Target::RestoreMark(copy)
        }
    });
    let set = |(value, mask)| Mark { value, mask };
    prop_oneof![
        Just(Target::Accept),
        Just(Target::Drop),
        bits().prop_map(move |bits| Target::SetMark(set(bits))),
        bits().prop_map(move |bits| Target::SetConnmark(set(bits))),
        (bits(), shift()).prop_map(move |(bits, shift)| Target::SetShiftedConnmark {
            mark: set(bits),
            shift,
        }),
        copies,
    ]
}

/// Returns every condition that differs from this one by the negation of one of its values.
pub fn negations(condition: &Match) -> Vec<Match> {
    fn not<T: Clone>(value: &Negatable<T>) -> Negatable<T> {
        match value.clone() {
            Is(value) => Not(value),
            Not(value) => Is(value),
        }
    }
    fn each<T: Clone>(
        value: Option<&Negatable<T>>,
        with: impl Fn(Option<Negatable<T>>) -> Match,
    ) -> Option<Match> {
        value.map(|value| with(Some(not(value))))
    }
    match condition {
        Match::Source(net) => vec![Match::Source(not(net))],
        Match::Destination(net) => vec![Match::Destination(not(net))],
        Match::Ingress(by) => vec![Match::Ingress(not(by))],
        Match::Egress(by) => vec![Match::Egress(not(by))],
        Match::Protocol(protocol) => vec![Match::Protocol(not(protocol))],
        Match::Tcp {
            source,
            destination,
            flags,
        } => [
            each(source.as_ref(), |source| Match::Tcp {
                source,
                destination: *destination,
                flags: *flags,
            }),
            each(destination.as_ref(), |destination| Match::Tcp {
                source: *source,
                destination,
                flags: *flags,
            }),
            each(flags.as_ref(), |flags| Match::Tcp {
                source: *source,
                destination: *destination,
                flags,
            }),
        ]
        .into_iter()
        .flatten()
        .collect(),
        Match::Udp {
            source,
            destination,
        } => [
            each(source.as_ref(), |source| Match::Udp {
                source,
                destination: *destination,
            }),
            each(destination.as_ref(), |destination| Match::Udp {
                source: *source,
                destination,
            }),
        ]
        .into_iter()
        .flatten()
        .collect(),
        Match::Conntrack(one) => [
            each(one.states.as_ref(), |states| {
                Match::Conntrack(Conntrack { states, ..*one })
            }),
            each(one.original_destination.as_ref(), |original_destination| {
                Match::Conntrack(Conntrack {
                    original_destination,
                    ..*one
                })
            }),
            each(
                one.original_destination_port.as_ref(),
                |original_destination_port| {
                    Match::Conntrack(Conntrack {
                        original_destination_port,
                        ..*one
                    })
                },
            ),
            each(one.status.as_ref(), |status| {
                Match::Conntrack(Conntrack { status, ..*one })
            }),
        ]
        .into_iter()
        .flatten()
        .collect(),
        Match::AddressType { of, kind } => vec![Match::AddressType {
            of: *of,
            kind: not(kind),
        }],
        Match::Probability(share) => vec![Match::Probability(not(share))],
        Match::Cluster(cluster) => vec![Match::Cluster(not(cluster))],
        Match::Connmark(mark) => vec![Match::Connmark(not(mark))],
        // Limits and comments have no negation, and a plan has no other conditions.
        _ => Vec::new(),
    }
}

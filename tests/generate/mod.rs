//! Generates valid specs of every form for property tests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::array::uniform8;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::oracle::{
    AsList, Balance, BothSides, ByFamily, Firewall, Forward, How, Inherit, Interface, Limits, Log,
    Mss, Networks, OneOrMany, Options, Outbound, PacketTest, Port, Protocol, Snat, Spec, Target,
    TargetHosts, TestFamily, destination, destinations, everybody, first_host, named,
    outbound_without_names, ranges, text_of,
};

const INTERFACES: [&str; 4] = ["eth0", "eth1", "ens5.100", "br-1a_b"];
/// The names of networks. `fd00` is no address without a colon.
const NAMES: [&str; 4] = ["office", "fd00", "Bots_v2.1", "x-1"];
const LEVELS: [&str; 8] = [
    "emergency",
    "alert",
    "critical",
    "error",
    "warning",
    "notice",
    "info",
    "debug",
];

prop_compose! {
    pub fn any_spec()(
        forwards in vec(any::<bool>(), 0..12).prop_flat_map(|slots| {
            let used = slots.iter().zip(0u16..).filter(|(used, _)| **used);
            // A dozen of them would not fit on the stack.
            used.map(|(_, n)| forward(n).boxed()).collect::<Vec<_>>()
        }),
        interface in both_sides(),
        snat in snat(),
        mss in mss(),
        policy in option::of(select(vec!["drop", "keep"])),
        layout in option::of(select(vec!["flat", "tree", "auto"])),
        version in option::of(Just(1)),
        description in option::weighted(SELDOM, description()),
        defaults in option::of(options()),
        networks in option::of(networks()),
        siblings in vec(option::weighted(SELDOM, options()), 12),
        outbound in vec(outbound(), 0..4),
        tests in vec(packet_test(), 0..4),
    ) -> Spec {
        let siblings = forwards.iter().zip(siblings);
        let siblings = siblings.filter_map(|(forward, options)| Some(sibling(forward, options?)));
        let siblings: Vec<Forward> = siblings.collect();
        let forwards = [forwards, siblings].concat();
        made_valid(Spec {
            version,
            description,
            firewall: Firewall {
                interface,
                snat: Some(snat),
                mss,
                forward_policy: policy.map(str::to_owned),
                layout: layout.map(str::to_owned),
            },
            networks,
            defaults,
            silence: None,
            forwards,
            outbound: (0..).zip(outbound).map(|(n, entry)| Outbound {
                name: format!("out-{n}-{}", entry.name),
                ..entry
            }).collect(),
            tests,
        })
    }
}

fn mss() -> impl Strategy<Value = Option<Mss>> {
    let clamp = Just(Mss::Word("clamp".into()));
    option::of(prop_oneof![clamp, (536..=65_495_u16).prop_map(Mss::Bytes)])
}

/// Generates a spec and an edited version of it: some forwards are removed, added, moved or changed, and most
/// are equal.
pub fn two_specs() -> impl Strategy<Value = (Spec, Spec)> {
    // Two of them would not fit on the stack.
    let spec = || any_spec().boxed();
    (spec(), spec(), vec(0..7u8, 12), any::<bool>()).prop_map(|(a, b, fate, firewall)| {
        let mut after = a.clone();
        if firewall {
            after.firewall = b.firewall.clone();
            after.defaults.clone_from(&b.defaults);
        }
        after.forwards.clear();
        let mut others = b.forwards.iter().cycle();
        for (forward, fate) in a.forwards.iter().zip(fate) {
            let mut forward = forward.clone();
            match fate {
                0 => continue,
                1 => {
                    after.forwards.insert(0, forward);
                    continue;
                }
                2 => {
                    let ilb = if forward.target.is_v6() {
                        "[fd00:225::1]:1"
                    } else {
                        "10.225.0.1:1"
                    };
                    forward.target = Target {
                        ilb: Some(ilb.into()),
                        pod: None,
                    };
                }
                3 => {
                    if let Some(other) = others.next() {
                        forward.options = other.options.clone();
                    }
                }
                _ => {}
            }
            after.forwards.push(forward);
        }
        let free = |forward: &Forward| {
            let block = |f: &Forward| f.name.rsplit('-').next().map(str::to_owned);
            a.forwards
                .iter()
                .all(|other| block(other) != block(forward))
        };
        let new: Vec<Forward> = b.forwards.iter().filter(|one| free(one)).cloned().collect();
        // Entries with one name are versions of one entry.
        after.outbound.clone_from(&b.outbound);
        for (entry, old) in after.outbound.iter_mut().zip(&a.outbound) {
            entry.name.clone_from(&old.name);
            if firewall {
                *entry = old.clone();
            }
        }
        let middle = after.forwards.len() / 2;
        after.forwards.splice(middle..middle, new);
        (a, made_valid(after))
    })
}

/// Makes a spec valid with as few changes as possible, where options contradict each other.
fn made_valid(mut spec: Spec) -> Spec {
    let networks = spec.networks.clone().unwrap_or_default();
    let defined = |item: &String| !NAMES.contains(&item.as_str()) || networks.contains_key(item);
    let forwards = spec.forwards.iter_mut().map(|forward| &mut forward.options);
    for options in forwards.chain(&mut spec.defaults) {
        for list in [&mut options.allow_from, &mut options.deny_from] {
            list.iter_mut().for_each(|list| list.retain(defined));
        }
    }
    let defaults = spec.defaults.clone().unwrap_or_default();
    for forward in &mut spec.forwards {
        let v6 = forward.target.is_v6();
        let of_family = |snat: &Snat| snat.of(v6);
        // A forward's own `snat` must have a value for its family.
        let is_of_other = forward.options.snat.as_ref().map(of_family) == Some(None);
        let of_both = forward.options.or(&defaults);
        let inherited = of_both.snat.as_ref().and_then(of_family);
        let snat = inherited.or(spec.firewall.snat.of(v6));
        let snat = snat.filter(|_| !is_of_other);
        if snat.is_none() {
            forward.options.snat = Some(Snat::Any("masquerade".into()));
        }
        // With `snat: none`, replies to hosts behind the firewall would not pass through it.
        if snat.as_deref() == Some("none") && of_both.hairpin == Some(true) {
            forward.options.hairpin = Some(false);
        }
        if let Some(mut allowed) = of_both.allow_from
            && !named(&allowed, &networks)
                .iter()
                .any(|net| net.contains(':') == v6)
        {
            allowed.push(if v6 { "fd00:7::/32" } else { "10.7.0.0/16" }.into());
            forward.options.allow_from = Some(allowed);
        }
        let allowed = forward.options.or(&defaults).allow_from;
        let allowed = named(&allowed.unwrap_or_default(), &networks);
        if let Some(denied) = of_both.deny_from
            && let denied = named(&denied, &networks)
            && (ranges(&denied, v6) == everybody(v6) || denies_all(&denied, &allowed, v6))
        {
            forward.options.deny_from = Some(Vec::new());
        }
    }
    for entry in &mut spec.outbound {
        entry.allow_from.retain(defined);
        for list in [
            &mut entry.allow_to,
            &mut entry.deny_from,
            &mut entry.deny_to,
        ] {
            list.iter_mut().for_each(|list| list.retain(defined));
        }
        made_valid_outbound(entry, &networks, &spec.firewall);
    }
    for test in spec
        .tests
        .iter_mut()
        .filter(|test| NAMES.contains(&test.from.as_str()))
    {
        let nets = match networks.get(&test.from) {
            Some(Networks::List(nets)) => nets.as_slice(),
            _ => &[],
        };
        let has = |v6: bool| nets.iter().any(|net| net.contains(':') == v6);
        let tells = |v6| first_host(nets, v6).is_some();
        let is_valid = match test.is_v6() {
            Some(v6) => tells(v6),
            None => has(false) != has(true) && (tells(false) || tells(true)),
        };
        if !is_valid {
            let v6 = test.is_v6() == Some(true);
            test.from = if v6 { "2001:db8::7" } else { "198.51.100.7" }.into();
        }
    }
    spec
}

/// Generates a test whose addresses are of one family. Its client may have a name that is not defined.
pub fn packet_test() -> BoxedStrategy<PacketTest> {
    let protocol = select(vec![None, Some("tcp"), Some("udp"), Some("ping")]);
    (protocol, any::<bool>())
        .prop_flat_map(|(protocol, v6)| {
            let is_ping = protocol == Some("ping");
            let host = move || {
                let port = 1..=u16::MAX;
                (address(v6), port).prop_map(move |(address, port)| {
                    if is_ping {
                        address.trim_matches(['[', ']']).to_owned()
                    } else {
                        format!("{address}:{port}")
                    }
                })
            };
            let own = address(v6).prop_map(|address| address.trim_matches(['[', ']']).to_owned());
            let from = prop_oneof![2 => own, 1 => select(NAMES.map(str::to_owned).to_vec())];
            let port = prop_oneof![1..=u16::MAX].prop_map(Port::Number);
            let to = if is_ping {
                host().prop_map(Port::Text).boxed()
            } else {
                prop_oneof![port, host().prop_map(Port::Text)].boxed()
            };
            let several = proptest::collection::btree_set(host(), 1..4);
            let several = several.prop_map(|all| all.into_iter().collect::<Vec<_>>().join("|"));
            let snat = option::of(prop_oneof![source(v6), keyword()]);
            let reaches = prop_oneof![
                1 => Just(("nothing".to_owned(), None)),
                2 => (several, snat),
            ];
            let name = option::of(description());
            (name, from, to, option::of(interface()), reaches).prop_map(
                move |(name, from, to, ingress, (reaches, snat))| PacketTest {
                    name,
                    from,
                    to,
                    protocol: protocol.map(str::to_owned),
                    ingress,
                    reaches,
                    snat,
                },
            )
        })
        .boxed()
}

/// Returns whether a list denies every network of another one, which has some.
fn denies_all(denied: &[String], allowed: &[String], v6: bool) -> bool {
    let both = ranges(&[denied, allowed].concat(), v6);
    !ranges(allowed, v6).is_empty() && both == ranges(denied, v6)
}

/// Makes an outbound entry valid.
fn made_valid_outbound(
    entry: &mut Outbound,
    networks: &BTreeMap<String, Networks>,
    firewall: &Firewall,
) {
    for v6 in [false, true] {
        if ranges(&named(&entry.allow_from, networks), v6) == everybody(v6) {
            entry.allow_from = named(&entry.allow_from, networks);
            entry.allow_from.retain(|net| net.contains(':') != v6);
        }
    }
    if let Some(to) = &mut entry.allow_to {
        for v6 in [false, true] {
            if ranges(&without_internet(&named(to, networks)), v6) == everybody(v6) {
                *to = named(to, networks);
                to.retain(|net| net == "internet" || net.contains(':') != v6);
            }
        }
        if to.is_empty() {
            to.push("internet".into());
        }
    }
    let holds = |entry: &Outbound, v6| {
        let entry = outbound_without_names(entry, networks);
        let (internet, to) = destinations(&entry, v6);
        let from = ranges(&entry.allow_from, v6);
        !from.is_empty() && (internet || !ranges(&to, v6).is_empty())
    };
    if !holds(entry, false) && !holds(entry, true) {
        entry.allow_from.push("10.224.0.0/16".into());
        entry.allow_to = None;
    }
    let from = named(&entry.allow_from, networks);
    let to = entry.allow_to.clone().unwrap_or(vec!["internet".into()]);
    let to = if to.contains(&"internet".to_owned()) {
        Vec::new()
    } else {
        named(&to, networks)
    };
    for (denied, allowed) in [(&mut entry.deny_from, from), (&mut entry.deny_to, to)] {
        let all = |nets: &Vec<String>| {
            let nets = named(nets, networks);
            [false, true]
                .map(|v6| ranges(&nets, v6) == everybody(v6) || denies_all(&nets, &allowed, v6))
        };
        *denied = denied.take().filter(|nets| all(nets) == [false; 2]);
    }
    let missing = |snat: &Snat| [false, true].map(|v6| holds(entry, v6) && snat.of(v6).is_none());
    if entry
        .snat
        .as_ref()
        .is_some_and(|snat| missing(snat) != [false; 2])
    {
        entry.snat = None;
    }
    let several = firewall
        .interface
        .ingress()
        .is_some_and(|all| all.len() > 1);
    if several
        && entry
            .interface
            .as_ref()
            .and_then(BothSides::egress)
            .is_none()
    {
        entry.interface = Some(Interface::Both("eth1".into()));
    }
    let protocols = entry.protocol.as_ref().map(AsList::to_vec);
    if protocols.is_none_or(|all| all.contains(&"ping".to_owned())) {
        entry.ports = None;
    }
}

fn without_internet(to: &[String]) -> Vec<String> {
    to.iter()
        .filter(|net| *net != "internet")
        .cloned()
        .collect()
}

/// Generates an outbound entry, whose name is not unique.
fn outbound() -> BoxedStrategy<Outbound> {
    let special = select(vec![
        "internet",
        "10.0.0.0/8",
        "169.254.0.0/16",
        "169.254.169.254",
        "168.63.129.16/32",
    ]);
    let special = special.prop_map(str::to_owned);
    let to = (vec(special, 0..3), option::of(named_nets())).prop_map(|(mut to, nets)| {
        to.sort();
        to.dedup();
        to.extend(nets.unwrap_or_default());
        to
    });
    let protocol = select(vec![
        OneOrMany::One("tcp".to_owned()),
        OneOrMany::One("ping".to_owned()),
        OneOrMany::Many(vec!["udp".to_owned(), "tcp".to_owned()]),
        OneOrMany::Many(vec!["ping".to_owned(), "udp".to_owned()]),
    ]);
    let ports = vec((1..60_000u16, 0..3u16), 1..20).prop_map(|ports| {
        let each = ports.into_iter().map(|(first, more)| match more {
            0 => Port::Number(first),
            more => Port::Text(format!("{first}-{}", first + more)),
        });
        let mut all: Vec<Port> = Vec::new();
        for port in each {
            if !all.contains(&port) {
                all.push(port);
            }
        }
        all
    });
    (
        (
            "[a-z]{1,5}",
            option::weighted(SELDOM, description()),
            option::weighted(SELDOM, any::<bool>()),
            named_nets(),
        ),
        (
            option::of(to),
            option::weighted(SELDOM, named_nets()),
            option::weighted(SELDOM, named_nets()),
        ),
        (option::of(protocol), option::of(ports)),
        option::of(prop_oneof![both_sides(), some_sides()]),
        option::of(snat()),
        (
            option::weighted(SELDOM, limits()),
            option::weighted(SELDOM, log()),
        ),
    )
        .prop_map(
            |(
                (name, description, enabled, allow_from),
                (allow_to, deny_from, deny_to),
                (protocol, ports),
                interface,
                snat,
                (limits, log),
            )| {
                Outbound {
                    name,
                    description,
                    enabled,
                    silence: None,
                    allow_from,
                    allow_to,
                    deny_from,
                    deny_to,
                    protocol,
                    ports,
                    interface,
                    snat,
                    limits,
                    log,
                }
            },
        )
        .boxed()
}

prop_compose! {
    /// Generates a forward with ports from its own block of ten, so that listeners do not overlap.
    fn forward(n: u16)(v6 in any::<bool>(), first in 0..5u16, more in 0..5u16)(
        name in "[A-Za-z0-9][A-Za-z0-9_.-]{0,30}",
        description in option::weighted(SELDOM, description()),
        enabled in option::weighted(SELDOM, any::<bool>()),
        (listen, target) in prop_oneof![
            3 => (
                listen(v6, 1000 + n * 10 + first, more).prop_map(OneOrMany::One),
                target(v6, more, false),
            ),
            1 => (listens(v6, 1000 + n * 10).prop_map(OneOrMany::Many), target(v6, 0, true)),
        ].boxed(),
        options in options(),
    ) -> Forward {
        // The number makes the name unique.
        let name = format!("{name}-{n}");
        Forward { name, description, enabled, listen, target, options, silence: None }
    }
}

/// Returns a second forward to the same target by the same port, on an address that no other forward uses.
fn sibling(forward: &Forward, options: Options) -> Forward {
    let v6 = forward.target.is_v6();
    let on = if v6 { "[fd00:3::6]" } else { "10.3.0.6" };
    let moved = |listen: &Port| {
        let text = text_of(listen);
        format!("{on}:{}", text.rsplit(':').next().unwrap_or_default())
    };
    let listen = match &forward.listen {
        OneOrMany::One(one) => OneOrMany::One(Port::Text(moved(one))),
        OneOrMany::Many(list) => {
            let different: BTreeSet<String> = list.iter().map(moved).collect();
            OneOrMany::Many(different.into_iter().map(Port::Text).collect())
        }
    };
    Forward {
        name: format!("sibling-{}", forward.name),
        listen,
        options,
        ..forward.clone()
    }
}

fn listen(v6: bool, first: u16, more: u16) -> impl Strategy<Value = Port> {
    let ports = match more {
        0 => first.to_string(),
        more => format!("{first}-{}", first + more),
    };
    let number = ports
        .parse()
        .map_or(Port::Text(ports.clone()), Port::Number);
    let on = if v6 { "[fd00:3::5]" } else { "10.3.0.5" };
    prop_oneof![
        1 => Just(Port::Text(format!("{on}:{ports}"))),
        1 => Just(Port::Text(ports)),
        2 => Just(number),
    ]
}

/// Generates a list of listeners within ten ports. Their ports differ, or their addresses.
fn listens(v6: bool, first: u16) -> impl Strategy<Value = Vec<Port>> {
    let pieces = vec((0..2u16, 0..2u16, any::<bool>()), 1..4);
    let pieces = pieces.prop_flat_map(move |pieces| {
        let mut next = first;
        let each = pieces.into_iter().map(|(gap, more, twice)| {
            let at = next + gap;
            next = at + more + 1;
            listen(v6, at, more).prop_map(move |one| {
                let text = text_of(&one);
                let other = if v6 { "[fd00:3::7]" } else { "10.3.0.7" };
                match text.rsplit_once(':').filter(|_| twice) {
                    Some((_, ports)) => vec![Port::Text(format!("{other}:{ports}")), one],
                    None => vec![one],
                }
            })
        });
        each.collect::<Vec<_>>()
    });
    pieces.prop_map(|pieces| pieces.concat()).prop_shuffle()
}

/// Generates a target for a listener with `more` ports after the first, or for a list of listeners.
fn target(v6: bool, more: u16, is_list: bool) -> impl Strategy<Value = Target> {
    let ilb = (address(v6), option::of(ports(more))).prop_map(|(address, ports)| Target {
        ilb: Some(format!("{address}{}", ports.unwrap_or_default())),
        pod: None,
    });
    let pod = move || {
        // Only a list of listeners may keep its ports at a pod.
        let kept = any::<bool>().prop_map(move |kept| kept && is_list);
        let pod = (address(v6), ports(more), kept);
        pod.prop_map(|(address, ports, kept)| if kept { address } else { address + &ports })
    };
    let one = pod().prop_map(OneOrMany::One);
    let several = prop_oneof![9 => 1..5usize, 1 => 30..=32usize];
    let several = several.prop_flat_map(move |count| vec(pod(), count));
    let several = several.prop_map(|pods| {
        let mut different: Vec<String> = Vec::new();
        for pod in pods {
            let same = |one: &String| destination(one) == destination(&pod);
            if !different.iter().any(same) {
                different.push(pod);
            }
        }
        OneOrMany::Many(different)
    });
    let pods = prop_oneof![one, several];
    prop_oneof![
        ilb,
        pods.prop_map(|pods| Target {
            ilb: None,
            pod: Some(pods)
        })
    ]
}

/// Generates an address from a few networks, so that a list may have one address with different ports.
fn address(v6: bool) -> BoxedStrategy<String> {
    if v6 {
        let net = select(vec![0x64, 0x2001, 0xfd00]);
        let address = (net, [word(), word(), word()])
            .prop_map(|(net, [a, b, c])| Ipv6Addr::new(net, 0xdb8, a, 0, 0, b, 0, c));
        address.prop_map(|address| format!("[{address}]")).boxed()
    } else {
        (0..3u8, any::<u8>())
            .prop_map(|(net, host)| Ipv4Addr::new(10, 224, net, host).to_string())
            .boxed()
    }
}

/// Generates a word of an IPv6 address. Many are zero, so that runs of zeros occur in all positions.
fn word() -> impl Strategy<Value = u16> {
    prop_oneof![6 => Just(0), 1 => Just(1), 1 => Just(0xffff), 3 => any::<u16>()]
}

/// Generates words with characters that mean something in YAML, iptables or markdown.
fn description() -> impl Strategy<Value = String> {
    "[a-zA-Z]([ -~äß→東]{0,30}[!-~ä東])?"
}

/// Generates one port for all listen ports, or one for each.
fn ports(more: u16) -> impl Strategy<Value = String> {
    let to = prop_oneof![Just(7000), 1..=60000u16];
    (to, any::<bool>()).prop_map(move |(to, range)| {
        if range {
            format!(":{to}-{}", to + more)
        } else {
            format!(":{to}")
        }
    })
}

/// The probability that a forward sets an option.
const SELDOM: f64 = 0.3;

/// Boxed, since a spec has many of them, which would not fit on the stack.
fn options() -> BoxedStrategy<Options> {
    (
        option::weighted(SELDOM, protocols()),
        option::weighted(SELDOM, select(vec![Balance::Random, Balance::Client])),
        option::weighted(SELDOM, prop_oneof![both_sides(), some_sides()]),
        option::weighted(SELDOM, snat()),
        option::weighted(SELDOM, named_nets()),
        option::weighted(SELDOM, named_nets()),
        option::weighted(SELDOM, limits()),
        option::weighted(SELDOM, log()),
        option::weighted(SELDOM, any::<bool>()),
    )
        .prop_map(
            |(protocol, balance, interface, snat, allow_from, deny_from, limits, log, hairpin)| {
                Options {
                    protocol,
                    balance,
                    interface,
                    snat,
                    allow_from,
                    deny_from,
                    limits,
                    log,
                    hairpin,
                }
            },
        )
        .boxed()
}

fn protocols() -> impl Strategy<Value = OneOrMany<Protocol>> {
    use Protocol::{Tcp, Udp};
    select(vec![
        OneOrMany::One(Tcp),
        OneOrMany::One(Udp),
        OneOrMany::Many(vec![Udp]),
        OneOrMany::Many(vec![Tcp, Udp]),
        OneOrMany::Many(vec![Udp, Tcp]),
    ])
}

fn both_sides() -> impl Strategy<Value = Interface> {
    prop_oneof![
        interface().prop_map(Interface::Both),
        (ingress(), interface()).prop_map(|(ingress, egress)| Interface::Sides {
            ingress: Some(ingress),
            egress: Some(egress),
        }),
    ]
}

fn some_sides() -> impl Strategy<Value = Interface> {
    (option::of(ingress()), option::of(interface()))
        .prop_map(|(ingress, egress)| Interface::Sides { ingress, egress })
}

fn interface() -> impl Strategy<Value = String> {
    select(INTERFACES.map(str::to_owned).to_vec())
}

fn ingress() -> impl Strategy<Value = OneOrMany<String>> {
    let list = subsequence(INTERFACES.map(str::to_owned).to_vec(), 1..=3).prop_shuffle();
    prop_oneof![
        interface().prop_map(OneOrMany::One),
        list.prop_map(OneOrMany::Many)
    ]
}

fn snat() -> impl Strategy<Value = Snat> {
    let of = |v6: bool| option::of(prop_oneof![source(v6), keyword()]);
    prop_oneof![
        prop_oneof![source(false), source(true), keyword()].prop_map(Snat::Any),
        (of(false), of(true)).prop_map(|(v4, v6)| Snat::ByFamily { v4, v6 }),
    ]
}

fn keyword() -> impl Strategy<Value = String> {
    select(vec!["masquerade".to_owned(), "none".to_owned()])
}

fn source(v6: bool) -> impl Strategy<Value = String> {
    let net = if v6 { "fd00:3::" } else { "10.3.0." };
    (1..5u8, 0..3u8).prop_map(move |(first, more)| match more {
        0 => format!("{net}{first}"),
        more => format!("{net}{first}-{net}{}", first + more),
    })
}

fn networks() -> impl Strategy<Value = BTreeMap<String, Networks>> {
    let name = select(NAMES.map(str::to_owned).to_vec());
    btree_map(name, nets().prop_map(Networks::List), 0..=NAMES.len())
}

/// Generates a list with some names of networks, which the spec may not define.
fn named_nets() -> impl Strategy<Value = Vec<String>> {
    let names = subsequence(NAMES.map(str::to_owned).to_vec(), 0..=2);
    let own = prop_oneof![3 => nets(), 1 => Just(Vec::new())];
    (own, option::weighted(SELDOM, names))
        .prop_map(|(nets, names)| [names.unwrap_or_default(), nets].concat())
}

/// Generates mostly short lists, and sometimes one that is longer than a chain.
fn nets() -> impl Strategy<Value = Vec<String>> {
    // In a long list, a wide network would contain most of the others.
    prop_oneof![19 => vec(net(0), 1..6), 1 => vec(net(20), 150..200)]
}

fn net(shortest: u8) -> impl Strategy<Value = String> {
    let v4 = (
        any::<u32>(),
        prop_oneof![2 => shortest..=32u8, 1 => Just(24), 1 => Just(32)],
    )
        .prop_map(|(bits, prefix)| (IpAddr::from(Ipv4Addr::from(bits)), prefix));
    let v6 = (
        uniform8(word()),
        prop_oneof![2 => 4 * shortest..=128u8, 1 => Just(64), 2 => Just(128)],
    )
        .prop_map(|(words, prefix)| (IpAddr::from(Ipv6Addr::from(words)), prefix));
    (prop_oneof![v4, v6], any::<bool>()).prop_map(|((address, prefix), bare)| {
        let net = IpNet::new_assert(address, prefix).trunc();
        if bare && net.prefix_len() == net.max_prefix_len() {
            net.addr().to_string()
        } else {
            net.to_string()
        }
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    // The kernel rounds most rates above a thousand.
    let rate = prop_oneof![Just(1), 1..=1000u32, select(vec![1250, 2000, 5000, 10_000])];
    let rate = (rate, option::of(prop_oneof![1..=100u32, Just(10_000)]));
    (
        option::of(rate),
        option::of(select(vec!["total".to_owned(), "client".to_owned()])),
        option::of(prop_oneof![1..=1000u32, Just(10_000_000)]),
        option::of(any::<bool>()),
    )
        .prop_map(|(rate, per, max_connections, reject)| Limits {
            new_per_second: rate.map(|(times, _)| times),
            burst: rate.and_then(|(_, burst)| burst),
            per,
            max_connections,
            reject,
        })
        // A spec must not set `burst`, `per` or `reject` without a limit.
        .prop_map(
            |limits| match (limits.new_per_second, limits.max_connections) {
                (None, None) => Limits::default(),
                _ => limits,
            },
        )
}

fn log() -> impl Strategy<Value = Log> {
    let connections = vec!["accepted", "refused", "all"];
    let how = (
        option::of("[ -~]{1,19}"),
        option::of(select(LEVELS.to_vec())),
        option::of(prop_oneof![1..=600u32, 1..=10u32]),
        option::of(select(connections)),
    );
    prop_oneof![
        any::<bool>().prop_map(Log::Usual),
        how.prop_map(|(prefix, level, per_minute, connections)| {
            Log::How(How {
                prefix,
                level: level.map(str::to_owned),
                per_minute,
                connections: connections.map(str::to_owned),
            })
        }),
    ]
}

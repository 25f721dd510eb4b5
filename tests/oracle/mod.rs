//! The spec as the types of its form, read and written by another YAML library. Tests compare nvactl's own reader
//! with it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nvactl::forwards::{self, ForwardSet, Nets};
use nvactl::netfilter::target;
pub use nvactl::yaml::form::{
    BalanceForm as Balance, FirewallForm as Firewall, ForwardForm as Forward,
    InterfaceForm as Interface, LimitsForm as Limits, LogDetailsForm as How, LogForm as Log,
    MssForm as Mss, NetworksForm as Networks, OneOrMany, OptionsForm as Options,
    OutboundForm as Outbound, PortForm as Port, ProtocolForm as Protocol, SnatForm as Snat,
    SpecForm as Spec, TargetForm as Target, TestForm as PacketTest,
};

/// A list, or a single value, as a list.
pub trait AsList<T> {
    fn to_vec(&self) -> Vec<T>;
}

impl<T: Clone> AsList<T> for OneOrMany<T> {
    fn to_vec(&self) -> Vec<T> {
        match self {
            OneOrMany::One(one) => vec![one.clone()],
            OneOrMany::Many(list) => list.clone(),
        }
    }
}

/// Options that a forward takes from `defaults`.
pub trait Inherit {
    /// Returns the options with those of `defaults` for the ones that are not set.
    fn or(&self, defaults: &Options) -> Options;
}

/// The interfaces of both sides.
pub trait BothSides {
    fn ingress(&self) -> Option<Vec<String>>;
    fn egress(&self) -> Option<String>;
}

/// A value for each family.
pub trait ByFamily {
    /// Returns the value for IPv6 if `v6` is set, else the value for IPv4.
    fn of(&self, v6: bool) -> Option<String>;
}

/// The hosts of a target.
pub trait TargetHosts {
    fn destinations(&self) -> Vec<String>;
    fn is_v6(&self) -> bool;
}

/// The family of a test.
pub trait TestFamily {
    /// Returns the family, if an address other than the client's tells.
    fn is_v6(&self) -> Option<bool>;
}

impl Inherit for Options {
    fn or(&self, defaults: &Options) -> Options {
        fn either<T: Clone>(own: Option<&T>, default: Option<&T>) -> Option<T> {
            own.or(default).cloned()
        }
        Options {
            protocol: either(self.protocol.as_ref(), defaults.protocol.as_ref()),
            balance: self.balance.or(defaults.balance),
            interface: either(self.interface.as_ref(), defaults.interface.as_ref()),
            snat: either(self.snat.as_ref(), defaults.snat.as_ref()),
            allow_from: either(self.allow_from.as_ref(), defaults.allow_from.as_ref()),
            deny_from: either(self.deny_from.as_ref(), defaults.deny_from.as_ref()),
            limits: either(self.limits.as_ref(), defaults.limits.as_ref()),
            log: either(self.log.as_ref(), defaults.log.as_ref()),
            hairpin: self.hairpin.or(defaults.hairpin),
        }
    }
}

impl BothSides for Interface {
    fn ingress(&self) -> Option<Vec<String>> {
        match self {
            Interface::Both(name) => Some(vec![name.clone()]),
            Interface::Sides { ingress, .. } => ingress.as_ref().map(AsList::to_vec),
        }
    }

    fn egress(&self) -> Option<String> {
        match self {
            Interface::Both(name) => Some(name.clone()),
            Interface::Sides { egress, .. } => egress.clone(),
        }
    }
}

impl ByFamily for Snat {
    fn of(&self, v6: bool) -> Option<String> {
        match self {
            Snat::Any(text) => {
                let word = matches!(text.as_str(), "masquerade" | "none");
                (word || text.contains(':') == v6).then(|| text.clone())
            }
            Snat::ByFamily { v4, v6: six } => if v6 { six } else { v4 }.clone(),
        }
    }
}

impl ByFamily for Option<Snat> {
    fn of(&self, v6: bool) -> Option<String> {
        self.as_ref()?.of(v6)
    }
}

impl TargetHosts for Target {
    fn destinations(&self) -> Vec<String> {
        let pods = self.pod.as_ref().map(AsList::to_vec);
        self.ilb
            .iter()
            .cloned()
            .chain(pods.unwrap_or_default())
            .collect()
    }

    fn is_v6(&self) -> bool {
        self.destinations()[0].starts_with('[')
    }
}

/// Returns the addresses of the networks of one family as sorted ranges that do not touch. So two lists of the
/// same addresses are equal.
pub fn ranges(nets: &[String], v6: bool) -> Vec<String> {
    let mut ranges: Vec<(u128, u128)> = nets.iter().filter_map(|net| range(net, v6)).collect();
    ranges.sort_unstable();
    let mut apart: Vec<(u128, u128)> = Vec::new();
    for (first, last) in ranges {
        match apart.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => apart.push((first, last)),
        }
    }
    apart
        .iter()
        .map(|(first, last)| format!("{first:x}-{last:x}"))
        .collect()
}

pub fn everybody(v6: bool) -> Vec<String> {
    ranges(&["0.0.0.0/0".into(), "::/0".into()], v6)
}

fn range(net: &str, v6: bool) -> Option<(u128, u128)> {
    let (address, bits) = match net.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u32>().expect("it is a prefix"))),
        None => (net, None),
    };
    let (first, all) = match address.parse().expect("it is an address") {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    let behind = all - bits.unwrap_or(all);
    let last = first
        | 1_u128
            .checked_shl(behind)
            .map_or(u128::MAX, |size| size - 1);
    ((all == 128) == v6).then_some((first, last))
}

/// Returns the spec in the form of [`of`]: every inherited and default value is written out.
pub fn normal(spec: Spec) -> Spec {
    let mut spec = without_names(spec);
    let defaults = spec.defaults.take().unwrap_or_default();
    let enabled = spec
        .forwards
        .iter()
        .filter(|forward| forward.enabled != Some(false));
    let forwards = enabled.flat_map(|forward| resolved(forward, &defaults, &spec.firewall));
    let entries = spec.outbound.iter();
    let entries = entries.filter(|entry| entry.enabled != Some(false));
    let outbound = entries.flat_map(|entry| {
        let each = [false, true].into_iter();
        each.filter_map(|v6| outward(entry, v6, &spec.firewall))
    });
    let outbound = outbound.collect();
    let tests = spec.tests.iter().map(|test| PacketTest {
        to: Port::Text(text_of(&test.to)),
        protocol: Some(test.protocol.clone().unwrap_or("tcp".into())),
        ..test.clone()
    });
    let tests = tests.collect();
    let firewall = &spec.firewall;
    Spec {
        version: None,
        silence: None,
        networks: None,
        description: spec.description,
        defaults: None,
        forwards: forwards.collect(),
        outbound,
        tests,
        firewall: Firewall {
            interface: Interface::Sides {
                ingress: firewall.interface.ingress().map(OneOrMany::Many),
                egress: firewall.interface.egress(),
            },
            snat: Some(Snat::ByFamily {
                v4: firewall.snat.of(false),
                v6: firewall.snat.of(true),
            }),
            mss: firewall.mss.clone(),
            forward_policy: Some(firewall.forward_policy.clone().unwrap_or("drop".into())),
            layout: Some(firewall.layout.clone().unwrap_or("auto".into())),
        },
    }
}

/// Returns the spec with each name in a list replaced by its networks.
pub fn without_names(mut spec: Spec) -> Spec {
    let networks = spec.networks.take().unwrap_or_default();
    let forwards = spec.forwards.iter_mut().map(|forward| &mut forward.options);
    for options in forwards.chain(&mut spec.defaults) {
        let lists = [&mut options.allow_from, &mut options.deny_from];
        for list in lists.into_iter().flatten() {
            *list = named(list, &networks);
        }
    }
    for entry in &mut spec.outbound {
        *entry = outbound_without_names(entry, &networks);
    }
    for test in &mut spec.tests {
        if let Some(Networks::List(nets)) = networks.get(&test.from) {
            let v6 = test.is_v6();
            let mut firsts = [false, true].into_iter();
            let first = firsts.find_map(|of| {
                let is_meant = v6.is_none_or(|v6| v6 == of);
                first_host(nets, of).filter(|_| is_meant)
            });
            test.from = first.expect("it has a host of the family");
        }
    }
    spec
}

/// Returns the first host of the first network of a family; `None` without such a network, or if no host has the
/// address.
pub fn first_host(nets: &[String], v6: bool) -> Option<String> {
    let mut of_family = nets.iter().filter(|net| net.contains(':') == v6);
    let net = of_family.next()?;
    let all = if v6 { 128_u32 } else { 32 };
    let (address, length) = match net.split_once('/') {
        Some((address, length)) => (address, length.parse().expect("it is a number")),
        None => (net.as_str(), all),
    };
    let more = u8::from(length + 1 < all);
    match address.parse().expect("it is an address") {
        IpAddr::V4(v4) => {
            let [first, ..] = v4.octets();
            let host = Ipv4Addr::from(u32::from(v4) + u32::from(more));
            (first > 0 && first < 224 && first != 127).then(|| host.to_string())
        }
        IpAddr::V6(v6) => {
            let [first, ..] = v6.segments();
            let host = Ipv6Addr::from(u128::from(v6) + u128::from(more));
            (first > 0 && first < 0xff00).then(|| host.to_string())
        }
    }
}

impl TestFamily for PacketTest {
    fn is_v6(&self) -> Option<bool> {
        let to = text_of(&self.to);
        let mut told = [Some(to.as_str()), Some(&self.reaches), self.snat.as_deref()]
            .into_iter()
            .flatten();
        let first = told.find(|text| text.contains(['.', ':']))?;
        let host = first.split('|').next()?;
        Some(host.matches(':').count() > 1)
    }
}

/// Returns an outbound entry with each name in a list replaced by its networks.
pub fn outbound_without_names(entry: &Outbound, networks: &BTreeMap<String, Networks>) -> Outbound {
    let named = |list: &Vec<String>| named(list, networks);
    Outbound {
        allow_from: named(&entry.allow_from),
        allow_to: entry.allow_to.as_ref().map(named),
        deny_from: entry.deny_from.as_ref().map(named),
        deny_to: entry.deny_to.as_ref().map(named),
        ..entry.clone()
    }
}

/// Returns a list with each name replaced by its networks.
pub fn named(list: &[String], networks: &BTreeMap<String, Networks>) -> Vec<String> {
    let nets = list.iter().flat_map(|net| match networks.get(net) {
        Some(Networks::List(nets)) => nets.clone(),
        Some(Networks::File { file }) => panic!("{file} is not read here"),
        None => vec![net.clone()],
    });
    nets.collect()
}

/// Returns a forward for each protocol and listener, with all options written out.
fn resolved(forward: &Forward, defaults: &Options, firewall: &Firewall) -> Vec<Forward> {
    let options = forward.options.or(defaults);
    let v6 = forward.target.is_v6();
    let own = options.interface.as_ref();
    let inherited = "the firewall has both";
    let egress = own.and_then(BothSides::egress);
    let egress = egress.or(firewall.interface.egress()).expect(inherited);
    let ingress = own.and_then(BothSides::ingress);
    let mut ingress = ingress.or(firewall.interface.ingress()).expect(inherited);
    let hairpin = options.hairpin.unwrap_or(false);
    // The egress interface is not an ingress of clients: `hairpin` admits the hosts there.
    if hairpin && ingress.len() > 1 {
        ingress.retain(|name| *name != egress);
    }
    let allowed = options.allow_from.map(|nets| ranges(&nets, v6));
    let denied = options.deny_from.map(|nets| ranges(&nets, v6));
    let allow_from = allowed.filter(|allowed| *allowed != everybody(v6));
    let deny_from = denied.filter(|denied| !denied.is_empty());
    let limits = options.limits.and_then(in_full);
    let refuses = allow_from.is_some() || deny_from.is_some() || limits.is_some();
    let log = options
        .log
        .and_then(|log| said(log, &forward.name, refuses));
    let target = Target {
        ilb: forward.target.ilb.as_ref().map(|one| destination(one)),
        pod: forward.target.pod.as_ref().map(|pods| {
            OneOrMany::Many(pods.to_vec().iter().map(|one| destination(one)).collect())
        }),
    };
    let several = target.destinations().len() > 1;
    let mut protocols = options
        .protocol
        .map_or(vec![Protocol::Tcp], |some| some.to_vec());
    protocols.sort_unstable();
    let mut listeners: Vec<String> = forward.listen.to_vec().iter().map(text_of).collect();
    listeners.sort_by_key(|text| placed(text));
    let one = |(protocol, listen): (Protocol, &String)| Forward {
        name: forward.name.clone(),
        description: forward.description.clone(),
        enabled: None,
        silence: None,
        listen: OneOrMany::One(Port::Text(listen.clone())),
        target: target.clone(),
        options: Options {
            protocol: Some(OneOrMany::One(protocol)),
            balance: Some(
                options
                    .balance
                    .filter(|_| several)
                    .unwrap_or(Balance::Random),
            ),
            interface: Some(Interface::Sides {
                ingress: Some(OneOrMany::Many(ingress.clone())),
                egress: Some(egress.clone()),
            }),
            snat: options
                .snat
                .as_ref()
                .and_then(|snat| snat.of(v6))
                .or(firewall.snat.of(v6))
                .map(Snat::Any),
            allow_from: allow_from.clone(),
            deny_from: deny_from.clone(),
            limits: limits.clone(),
            log: log.clone(),
            hairpin: Some(hairpin),
        },
    };
    let each = protocols.into_iter();
    let each = each.flat_map(|protocol| listeners.iter().map(move |listen| (protocol, listen)));
    each.map(one).collect()
}

pub fn text_of(listen: &Port) -> String {
    match listen {
        Port::Number(number) => number.to_string(),
        Port::Text(text) => text.clone(),
    }
}

/// Returns the address of a listener, none for all addresses, and its first port. Listeners are sorted by them.
fn placed(listen: &str) -> (Option<IpAddr>, u16) {
    let (address, ports) = match listen.rsplit_once(':') {
        Some((address, ports)) => (Some(address.trim_matches(['[', ']'])), ports),
        None => (None, listen),
    };
    let first = ports.split('-').next().and_then(|port| port.parse().ok());
    let address = address.map(|address| address.parse().expect("it is an address"));
    (address, first.expect("it is a port"))
}

/// Returns the destinations of a family: the word for the Internet, and the networks.
pub fn destinations(entry: &Outbound, v6: bool) -> (bool, Vec<String>) {
    let internet = "internet".to_owned();
    let all = entry.allow_to.clone().unwrap_or(vec![internet.clone()]);
    let has_internet = all.contains(&internet);
    let mut nets: Vec<String> = all.into_iter().filter(|net| *net != internet).collect();
    if has_internet && v6 {
        nets.push("2000::/3".into());
    }
    (has_internet && !v6, nets)
}

/// Returns an entry of one family, with all options written out; `None` if it has no networks of the family.
fn outward(entry: &Outbound, v6: bool, firewall: &Firewall) -> Option<Outbound> {
    let listed = |nets: &Option<Vec<String>>| ranges(nets.as_deref().unwrap_or_default(), v6);
    let allow_from = ranges(&entry.allow_from, v6);
    let (internet, to) = destinations(entry, v6);
    let mut allow_to = ranges(&to, v6);
    if allow_from.is_empty() || allow_to.is_empty() && !internet {
        return None;
    }
    let guarded = ["169.254.169.254", "168.63.129.16"].into_iter().any(|one| {
        let (address, exact) = (one.to_owned(), format!("{one}/32"));
        let within = ranges(&[to.clone(), vec![address.clone()]].concat(), v6) == allow_to;
        !v6 && (internet || within) && !to.contains(&address) && !to.contains(&exact)
    });
    if internet {
        allow_to.insert(0, "internet".into());
    }
    let (deny_from, deny_to) = (listed(&entry.deny_from), listed(&entry.deny_to));
    let limits = entry.limits.clone().and_then(in_full);
    let refuses = guarded || !deny_from.is_empty() || !deny_to.is_empty() || limits.is_some();
    let all = ["ping", "tcp", "udp"].map(str::to_owned);
    let mut protocols = entry.protocol.as_ref().map_or(all.to_vec(), AsList::to_vec);
    protocols.sort_unstable();
    let own = entry.interface.as_ref();
    let ingress = own.and_then(BothSides::ingress);
    let egress = own.and_then(BothSides::egress);
    let outer = firewall.interface.ingress().expect("the firewall has one");
    Some(Outbound {
        name: format!("{} {}", entry.name, if v6 { "v6" } else { "v4" }),
        description: entry.description.clone(),
        enabled: None,
        silence: None,
        allow_from,
        allow_to: Some(allow_to),
        deny_from: Some(deny_from),
        deny_to: Some(deny_to),
        protocol: Some(OneOrMany::Many(protocols)),
        ports: Some(numbers(entry.ports.as_deref().unwrap_or_default())),
        interface: Some(Interface::Sides {
            ingress: Some(OneOrMany::Many(ingress.unwrap_or_else(|| {
                vec![firewall.interface.egress().expect("it has one")]
            }))),
            egress: egress.or_else(|| outer.first().cloned()),
        }),
        snat: Some(Snat::Any(match &entry.snat {
            Some(snat) => snat.of(v6).expect("it has a value for the family"),
            None => "masquerade".into(),
        })),
        log: entry
            .log
            .clone()
            .and_then(|log| said(log, &entry.name, refuses)),
        limits,
    })
}

/// Returns each port of a list as a number of its own.
fn numbers(ports: &[Port]) -> Vec<Port> {
    let mut numbers = std::collections::BTreeSet::new();
    for port in ports {
        let text = match port {
            Port::Number(number) => number.to_string(),
            Port::Text(text) => text.clone(),
        };
        let (first, last) = text.split_once('-').unwrap_or((&text, &text));
        let read = |text: &str| text.parse::<u16>().expect("it is a port");
        numbers.extend(read(first)..=read(last));
    }
    numbers.into_iter().map(Port::Number).collect()
}

/// Returns a destination with a range of one port written as that port.
pub fn destination(text: &str) -> String {
    match text.split_once('-') {
        Some((rest, last)) if rest.ends_with(&format!(":{last}")) => rest.to_owned(),
        _ => text.to_owned(),
    }
}

fn in_full(limits: Limits) -> Option<Limits> {
    limits.new_per_second.or(limits.max_connections)?;
    Some(Limits {
        burst: limits.burst.or(limits.new_per_second),
        per: Some(limits.per.unwrap_or("total".into())),
        reject: Some(limits.reject.unwrap_or(false)),
        ..limits
    })
}

fn said(log: Log, name: &str, refuses: bool) -> Option<Log> {
    let how = match log {
        Log::Usual(false) => return None,
        Log::Usual(true) => How::default(),
        Log::How(how) => how,
    };
    let connections = how.connections.unwrap_or("all".into());
    let connections = match (connections.as_str(), refuses) {
        ("refused", false) => return None,
        ("all", false) => "accepted".into(),
        _ => connections,
    };
    Some(Log::How(How {
        prefix: Some(how.prefix.unwrap_or(name.chars().take(19).collect())),
        level: Some(how.level.unwrap_or("warning".into())),
        per_minute: Some(how.per_minute.unwrap_or(60)),
        connections: Some(connections),
    }))
}

/// Converts the result of nvactl's own reader.
pub fn of(set: &ForwardSet) -> Spec {
    let firewall = &set.firewall;
    Spec {
        version: None,
        silence: None,
        description: set.description.as_ref().map(ToString::to_string),
        firewall: Firewall {
            interface: interface(&firewall.ingress, &firewall.egress),
            snat: Some(Snat::ByFamily {
                v4: firewall.snat.v4.map(|snat| snat.to_string()),
                v6: firewall.snat.v6.map(|snat| snat.to_string()),
            }),
            mss: firewall.mss.map(|mss| match mss {
                target::Mss::Clamp => Mss::Word(mss.to_string()),
                target::Mss::Bytes(bytes) => Mss::Bytes(bytes),
            }),
            forward_policy: Some(match firewall.forward_policy {
                forwards::ForwardPolicy::Drop => "drop".into(),
                forwards::ForwardPolicy::Keep => "keep".into(),
            }),
            layout: Some(match firewall.layout {
                None => "auto".into(),
                Some(forwards::Layout::Flat) => "flat".into(),
                Some(forwards::Layout::Tree) => "tree".into(),
            }),
        },
        networks: None,
        defaults: None,
        forwards: set.forwards.iter().map(forward).collect(),
        outbound: set.outbound.iter().map(outbound).collect(),
        tests: set.tests.iter().map(packet_test).collect(),
    }
}

fn packet_test(test: &forwards::PacketTest) -> PacketTest {
    PacketTest {
        name: test.name.as_ref().map(ToString::to_string),
        from: test.from.to_string(),
        to: Port::Text(test.to.to_string()),
        protocol: Some(test.protocol.to_string()),
        ingress: test.ingress.as_ref().map(ToString::to_string),
        reaches: test.reaches.to_string(),
        snat: test.snat.map(|snat| snat.to_string()),
    }
}

fn outbound(entry: &forwards::Outbound) -> Outbound {
    let v6 = entry.family == nvactl::net::Family::V6;
    let held = |nets: &Nets| {
        let nets: Vec<String> = nets.as_slice().iter().map(ToString::to_string).collect();
        ranges(&nets, v6)
    };
    let internet = entry.allow_to.internet.then(|| "internet".to_owned());
    let to = internet.into_iter().chain(held(&entry.allow_to.nets));
    let mut protocols: Vec<String> = entry.protocols.iter().map(ToString::to_string).collect();
    protocols.sort_unstable();
    let ports = entry
        .ports
        .iter()
        .map(|ports| Port::Text(ports.to_string()));
    Outbound {
        name: format!("{} {}", entry.name, entry.family.as_str()),
        description: entry.description.as_ref().map(ToString::to_string),
        enabled: None,
        silence: None,
        allow_from: held(&entry.allow_from),
        allow_to: Some(to.collect()),
        deny_from: Some(held(&entry.deny_from)),
        deny_to: Some(held(&entry.deny_to)),
        protocol: Some(OneOrMany::Many(protocols)),
        ports: Some(numbers(&ports.collect::<Vec<_>>())),
        interface: Some(interface(&entry.ingress, &entry.egress)),
        snat: Some(Snat::Any(entry.snat.to_string())),
        limits: entry.limits.map(limits),
        log: entry.log.as_ref().map(log),
    }
}

fn interface(ingress: &[nvactl::net::Interface], egress: &nvactl::net::Interface) -> Interface {
    Interface::Sides {
        ingress: Some(OneOrMany::Many(
            ingress.iter().map(ToString::to_string).collect(),
        )),
        egress: Some(egress.to_string()),
    }
}

fn forward(forward: &forwards::Forward) -> Forward {
    let target = &forward.target;
    let each = target.destinations.iter().map(ToString::to_string);
    let target = match target.kind {
        forwards::TargetKind::Ilb => Target {
            ilb: Some(each.collect()),
            pod: None,
        },
        forwards::TargetKind::Pod => Target {
            ilb: None,
            pod: Some(OneOrMany::Many(each.collect())),
        },
    };
    let v6 = target.is_v6();
    let held = |nets: &Nets| {
        let nets: Vec<String> = nets.as_slice().iter().map(ToString::to_string).collect();
        ranges(&nets, v6)
    };
    let sources = &forward.sources;
    Forward {
        name: forward.name.to_string(),
        description: forward.description.as_ref().map(ToString::to_string),
        enabled: None,
        silence: None,
        listen: OneOrMany::One(Port::Text(forward.listen.to_string())),
        target,
        options: Options {
            protocol: Some(OneOrMany::One(match forward.protocol {
                nvactl::net::Protocol::Tcp => Protocol::Tcp,
                nvactl::net::Protocol::Udp => Protocol::Udp,
            })),
            balance: Some(match forward.target.balance {
                forwards::Balance::Random => Balance::Random,
                forwards::Balance::Client => Balance::Client,
            }),
            interface: Some(interface(&forward.ingress, &forward.egress)),
            snat: Some(Snat::Any(forward.snat.to_string())),
            allow_from: sources.allow.as_ref().map(held),
            deny_from: Some(held(&sources.deny)).filter(|denied| !denied.is_empty()),
            limits: forward.limits.map(limits),
            log: forward.log.as_ref().map(log),
            hairpin: Some(forward.hairpin),
        },
    }
}

fn limits(limits: forwards::Limits) -> Limits {
    let rate = limits.rate;
    Limits {
        new_per_second: rate.map(|rate| rate.new_per_second.times()),
        burst: rate.map(|rate| rate.burst),
        per: Some(match limits.per {
            forwards::Per::Total => "total".into(),
            forwards::Per::Client => "client".into(),
        }),
        max_connections: limits.max_connections,
        reject: Some(limits.reject),
    }
}

fn log(log: &forwards::Log) -> Log {
    Log::How(How {
        prefix: Some(log.prefix.to_string()),
        level: Some(forwards::Log::LEVELS[usize::from(log.level)].into()),
        per_minute: Some(log.per_minute),
        connections: Some(match log.connections {
            forwards::Logged::Accepted => "accepted".into(),
            forwards::Logged::Refused => "refused".into(),
            forwards::Logged::All => "all".into(),
        }),
    })
}

//! The specs whose rules are changed. Their plans have every kind of rule that `nvactl` prints, which a test holds.

use std::fmt::Write as _;

use super::changes::Part;

pub const LISTS_AND_RANGES: &str = "firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: 443, target: {ilb: 10.224.0.222}, allow_from: [198.51.100.0/24], deny_from: [198.51.100.64/26]}
  - {name: range, listen: 8000-8010, target: {pod: '10.224.0.118:9000-9010'}}
  - {name: list, listen: [81, 83], target: {pod: 10.224.0.118}}
  - {name: dns, listen: 53, protocol: udp, target: {pod: '10.224.0.9:53'}}";

pub const ONE_ADDRESS: &str = "firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4}
forwards:
  - {name: api, listen: '203.0.113.10:443', target: {pod: '10.224.0.118:8443'}, snat: masquerade, hairpin: true}
  - {name: kept, listen: 22022, target: {pod: '10.224.0.119:22'}, snat: none}
  - {name: v6, listen: '[2001:db8::10]:443', target: {pod: '[fd00:10::8]:443'}, snat: 'fd00:11::4'}
silence: [client-kept]";

pub const ENTRIES: &str = "firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4}
outbound:
  - {name: dns, allow_from: [10.224.0.0/16], allow_to: [10.0.0.53/32], protocol: [tcp, udp], ports: [53], snat: none}
  - {name: out, allow_from: [10.224.0.0/16], deny_from: [10.224.9.0/24], deny_to: [192.0.2.0/24], protocol: tcp, ports: [443, 8000-8010]}
  - {name: ping, allow_from: [10.225.0.0/16], protocol: ping, snat: 10.3.0.5}
  - {name: six, allow_from: ['2001:db8:1::/64'], snat: masquerade}";

pub const ONE_INTERFACE: &str = "firewall: {interface: eth0, snat: 10.3.0.4}
outbound:
  - {name: out, allow_from: [10.224.0.0/16]}";

pub const LIMITS_AND_LOG: &str = "firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4}
forwards:
  - {name: limited, listen: 445, log: true, limits: {new_per_second: 100, max_connections: 50, per: client, reject: true}, target: {pod: '10.224.0.121:445'}}";

pub const MSS: &str =
    "firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4, mss: 1300}
forwards:
  - {name: web, listen: 443, target: {pod: '10.224.0.118:8443'}}";

pub const FORWARDS_AND_ENTRIES: &str = "firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: one, listen: '203.0.113.10:443', target: {pod: '10.224.0.118:443'}}
  - {name: two, listen: '203.0.113.11:443', target: {pod: '10.224.0.119:443'}}
  - {name: any, listen: 8443, target: {pod: '10.224.0.120:8443'}}
outbound:
  - {name: out, allow_from: [10.225.0.0/16], allow_to: [internet, 10.224.0.0/24], protocol: tcp, snat: 10.3.0.9}
  - {name: kept, allow_from: [10.226.0.0/16], allow_to: [internet, 10.224.0.0/24], protocol: tcp, snat: none}
silence: [client-kept]";

pub const SEVERAL_TARGETS: &str = "firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: shared, listen: 443, target: {pod: ['10.224.0.118:8443', '10.224.0.119:8443', '10.224.0.120:9443']}}
  - {name: sticky, listen: 80, balance: client, target: {pod: ['10.224.0.118:8080', '10.224.0.119:8080', '10.224.0.120:8080']}}";

pub const RANGES_OF_SOURCES: &str = "firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4-10.4.0.6}
forwards:
  - {name: web, listen: 443, target: {pod: '10.224.0.118:8443'}}
outbound:
  - {name: out, allow_from: [10.224.0.0/16, 10.228.0.0/16], allow_to: [10.50.0.0/16, 10.60.0.0/16], protocol: tcp, ports: [443, 8000]}
  - {name: ping, allow_from: [10.226.0.0/16, 10.230.0.0/16], allow_to: [10.70.0.0/16], protocol: ping, snat: none}";

pub const ENTRANCES: &str = "firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4}
forwards:
  - {name: internet, listen: 8080, target: {pod: '10.224.0.118:80'}}
  - {name: partner, listen: '10.4.0.9:8080', interface: {ingress: eth2}, target: {pod: '10.224.0.118:80'}, snat: 10.4.0.9}";

pub const LIMITS: &str = "firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: total, listen: 443, target: {ilb: 10.224.0.222}, limits: {new_per_second: 50, burst: 100, max_connections: 1}}
  - {name: client, listen: 444, protocol: udp, target: {ilb: 10.224.0.222}, limits: {new_per_second: 5, per: client, reject: true}}";

pub const LIMITED_ENTRY: &str = "firewall: {interface: eth0, snat: 10.3.0.4}
outbound:
  - {name: out, allow_from: [10.225.0.0/16], allow_to: [10.50.0.7/32], protocol: ping, limits: {new_per_second: 5, max_connections: 10, per: client, reject: true}, log: true}";

pub const LOGS: &str = "firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4}
forwards:
  - {name: denies, listen: 443, target: {pod: '10.224.0.118:443'}, deny_from: [198.51.100.64/26], log: {level: info, per_minute: 3}}
  - {name: allows, listen: 444, target: {pod: '10.224.0.118:444'}, allow_from: [198.51.100.0/24], log: {connections: refused}}
outbound:
  - {name: out, allow_from: [10.224.0.0/16], deny_from: [10.224.9.0/24], deny_to: [192.0.2.0/24], protocol: tcp, log: true}";

pub const TREE: &str = "firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4, layout: tree}
forwards:
  - {name: web, listen: 443, target: {pod: '10.224.0.118:8443'}}
  - {name: dns, listen: 53, protocol: udp, target: {pod: '10.224.0.9:53'}}
  - {name: api, listen: '203.0.113.10:443', target: {pod: '10.224.0.119:443'}}
  - {name: some, listen: 8080, target: {pod: '10.224.0.120:80'}, allow_from: [198.51.100.0/24]}
  - {name: own, listen: '203.0.113.11:446', target: {pod: '10.224.0.121:446'}, snat: 10.4.0.9, hairpin: true, deny_from: [198.51.100.64/26]}";

/// Returns a spec whose tree branches by ports. There are listeners at both ends of each branch.
pub fn tree_of_ports() -> String {
    let further = |first: u16| (0..31).map(move |n| first + 2 * n);
    let ports = [1].into_iter().chain(further(101)).chain([4095, 4096]);
    let ports = ports.chain(further(5001)).chain([8191]);
    let ports: Vec<String> = ports.map(|port| port.to_string()).collect();
    tree(&ports)
}

/// Returns a spec whose tree branches by addresses: by a network with many of them, and one with a single one.
pub fn tree_of_addresses() -> String {
    let many = (16..32).flat_map(|host| (0..5).map(move |n| (host, 2000 + 2 * n)));
    let all = many.chain([(40, 2000)]);
    let all: Vec<String> = all
        .map(|(host, port)| format!("'203.0.113.{host}:{port}'"))
        .collect();
    tree(&all)
}

/// Returns a spec with lists that are too long for one chain.
pub fn long_lists() -> String {
    let list = |first: u8| {
        let nets = (0..66).map(|n| format!("{first}.{}.0.0/24", 3 * n));
        nets.collect::<Vec<_>>().join(", ")
    };
    let (denied, allowed) = (list(20), list(21));
    let (senders, refused, servers) = (list(22), list(23), list(24));
    format!(
        "firewall: {{interface: eth0, snat: 10.3.0.4}}
forwards:
  - {{name: denies, listen: 443, target: {{ilb: 10.224.0.222}}, deny_from: [{denied}]}}
  - {{name: allows, listen: 446, target: {{ilb: 10.224.0.222}}, allow_from: [{allowed}]}}
outbound:
  - {{name: out, allow_from: [{senders}], deny_to: [{refused}], protocol: tcp, ports: [443]}}
  - {{name: to, allow_from: [10.9.0.0/16], allow_to: [{servers}], protocol: tcp, ports: [444]}}"
    )
}

/// Returns a spec with a forward that the rules for marked packets do not take.
fn tree(listeners: &[String]) -> String {
    let mut text = "firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4, layout: tree}\nforwards:\n"
        .to_owned();
    let listeners = listeners.join(", ");
    let _ = writeln!(
        text,
        "  - {{name: many, listen: [{listeners}], target: {{pod: '10.224.0.118:80'}}, snat: 10.4.0.9}}"
    );
    text
}

/// Returns all of them, each with the part of its plan that is changed.
pub fn all() -> Vec<(String, Part)> {
    let written = [
        LISTS_AND_RANGES,
        ONE_ADDRESS,
        ENTRIES,
        ONE_INTERFACE,
        LIMITS_AND_LOG,
        MSS,
        FORWARDS_AND_ENTRIES,
        SEVERAL_TARGETS,
        RANGES_OF_SOURCES,
        ENTRANCES,
        LOGS,
        TREE,
    ];
    let whole = written.map(|spec| (spec.to_owned(), Part::All));
    let limits = [LIMITS, LIMITED_ENTRY].map(|spec| (spec.to_owned(), Part::Limits));
    let long = [tree_of_ports(), tree_of_addresses(), long_lists()];
    let long = long.map(|spec| (spec, Part::Branches));
    whole.into_iter().chain(limits).chain(long).collect()
}

//! The rules of each layout, as the program takes them that loads them.
//!
//! Each forward has a port of its own, which is its target's as well: none is a copy of another.

use std::fmt::{self, Write as _};

use nvactl::net::Family;
use nvactl::plan::plan;
use nvactl::yaml;

/// The first forward's port; the others follow.
pub const FIRST: u16 = 10_000;
pub const TARGET: &str = "10.4.0.1";
/// The firewall's address where it reaches the target.
pub const SNAT: &str = "10.4.0.4";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Nft,
    Legacy,
}

impl Backend {
    pub const ALL: [Self; 2] = [Self::Nft, Self::Legacy];

    pub fn program(self) -> &'static str {
        match self {
            Self::Nft => "xtables-nft-multi",
            Self::Legacy => "xtables-legacy-multi",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// The rules that nvactl replaces, in their order.
    Article,
    Flat,
    Tree,
    /// What nvactl chooses where a spec says nothing.
    Auto,
    /// A map in nft's own language, which iptables has no words for: the limit.
    Map,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Article => "the article's rules",
            Self::Flat => "nvactl, flat",
            Self::Tree => "nvactl, tree",
            Self::Auto => "nvactl",
            Self::Map => "nft map",
        })
    }
}

pub fn rules(layout: Layout, forwards: u16) -> String {
    let ports = FIRST..FIRST + forwards;
    match layout {
        Layout::Article => article(ports),
        Layout::Flat => planned("  layout: flat\n", ports),
        Layout::Tree => planned("  layout: tree\n", ports),
        Layout::Auto => planned("", ports),
        Layout::Map => map(ports),
    }
}

type Ports = std::ops::Range<u16>;

fn planned(layout: &str, ports: Ports) -> String {
    let mut text = format!(
        "firewall:\n  interface: {{ingress: eth0, egress: eth1}}\n  snat: {SNAT}\n{layout}\
         defaults: {{protocol: udp}}\nforwards:\n"
    );
    for port in ports {
        let _ = writeln!(
            text,
            "  - {{name: forward-{port}, listen: {port}, target: {{ilb: {TARGET}:{port}}}}}"
        );
    }
    let set = yaml::read(text.as_bytes()).unwrap_or_else(|problems| panic!("{problems:?}"));
    plan(&set, Family::V4).with_builtin_chains().to_string()
}

/// ESTABLISHED is accepted last, behind the rules of all forwards.
fn article(ports: Ports) -> String {
    let mut filter = "*filter\n:FORWARD DROP [0:0]\n".to_owned();
    let mut nat = "*nat\n".to_owned();
    for port in ports {
        let _ = writeln!(
            filter,
            "-A FORWARD -p udp --dport {port} -m conntrack --ctstate NEW -j ACCEPT"
        );
        let _ = writeln!(
            nat,
            "-A PREROUTING -i eth0 -p udp --dport {port} -j DNAT --to-destination {TARGET}:{port}\n\
             -A POSTROUTING -o eth1 -p udp --dport {port} -d {TARGET} -j SNAT --to-source {SNAT}"
        );
    }
    filter += "-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\nCOMMIT\n";
    filter + &nat + "COMMIT\n"
}

fn map(ports: Ports) -> String {
    let elements: Vec<String> = ports
        .map(|port| format!("{port} : {TARGET} . {port}"))
        .collect();
    format!(
        "table ip forwards {{
  map targets {{
    type inet_service : ipv4_addr . inet_service
    elements = {{ {} }}
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat
    iifname eth0 dnat ip to udp dport map @targets
  }}
  chain forward {{
    type filter hook forward priority filter
    policy drop
    ct state established,related accept
    ct status dnat accept
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat
    oifname eth1 ct status dnat snat to {SNAT}
  }}
}}\n",
        elements.join(", ")
    )
}

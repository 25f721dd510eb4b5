//! Routes and policy rules as iproute2 lists them (measured, iproute2 6.1). A twin compares the lists of its own
//! namespace with these, so each value is as the kernel returns it.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::links::OnLink;
use super::outline::{End, Service};
use crate::net::{Family, Interface};

/// A routing table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoutingTable {
    Main,
    Numbered(u32),
}

impl RoutingTable {
    fn listed(self) -> String {
        match self {
            RoutingTable::Main => "main".to_owned(),
            RoutingTable::Numbered(number) => number.to_string(),
        }
    }
}

/// Returns the route to the network of a link.
#[must_use]
pub fn to_link(link: &OnLink<'_>, table: RoutingTable) -> Value {
    let own = link.own;
    match own {
        IpNet::V4(_) => json!({
            "type": "unicast", "dst": written(own.trunc()), "dev": link.interface.as_str(),
            "table": table.listed(), "protocol": "kernel", "scope": "link",
            "prefsrc": address(own.addr()), "flags": [],
        }),
        IpNet::V6(_) => json!({
            "type": "unicast", "dst": written(own.trunc()), "dev": link.interface.as_str(),
            "table": table.listed(), "protocol": "kernel", "scope": "global", "metric": 256,
            "flags": [], "pref": "medium",
        }),
    }
}

/// Returns the route to the link-local addresses of an interface.
#[must_use]
pub fn to_link_local(interface: &Interface) -> Value {
    json!({
        "type": "unicast", "dst": "fe80::/64", "dev": interface.as_str(), "table": "main",
        "protocol": "kernel", "scope": "global", "metric": 256, "flags": [], "pref": "medium",
    })
}

/// Returns the route to a network by the router of a link.
#[must_use]
pub fn by_router(net: IpNet, link: &OnLink<'_>, table: RoutingTable) -> Value {
    let flags: &[&str] = if link.has_router() { &[] } else { &["onlink"] };
    let mut route = json!({
        "type": "unicast", "dst": written(net), "gateway": address(link.router),
        "dev": link.interface.as_str(), "table": table.listed(), "protocol": "static",
        "scope": "global", "flags": flags,
    });
    if let (IpNet::V6(_), Some(route)) = (net, route.as_object_mut()) {
        route.insert("metric".to_owned(), json!(1024));
        route.insert("pref".to_owned(), json!("medium"));
    }
    route
}

/// The conditions of a policy rule.
#[derive(Debug, Clone, Copy)]
pub struct Selector<'s> {
    pub came: &'s Interface,
    pub from: Option<IpNet>,
    pub to: Option<IpNet>,
    pub service: Option<Service>,
}

impl<'s> Selector<'s> {
    /// Returns the selector of all packets that come in by an interface.
    #[must_use]
    pub fn of(came: &'s Interface) -> Self {
        Self {
            came,
            from: None,
            to: None,
            service: None,
        }
    }

    /// Returns the policy rule that looks packets up in a table.
    #[must_use]
    pub fn rule(&self, priority: u32, table: RoutingTable) -> Value {
        let mut rule = Map::new();
        let mut set = |key: &str, value: Value| rule.insert(key.to_owned(), value);
        set("priority", json!(priority));
        set("iif", json!(self.came.as_str()));
        set("table", json!(table.listed()));
        set("src", json!("all"));
        for (net, key, length) in [(self.from, "src", "srclen"), (self.to, "dst", "dstlen")] {
            let Some(net) = net.filter(|net| net.prefix_len() > 0) else {
                continue;
            };
            set(key, json!(address(net.addr())));
            if net.prefix_len() < net.max_prefix_len() {
                set(length, json!(net.prefix_len()));
            }
        }
        if let Some(Service {
            protocol,
            ports,
            end,
        }) = self.service
        {
            set("ipproto", json!(protocol.as_str()));
            let key = match end {
                End::Source => "sport",
                End::Destination => "dport",
            };
            if ports.is_single() {
                set(key, json!(ports.first().number()));
            } else {
                set(&format!("{key}_start"), json!(ports.first().number()));
                set(&format!("{key}_end"), json!(ports.last().number()));
            }
        }
        Value::Object(rule)
    }

    /// Returns the policy rule that looks packets up in a table and passes over its routes with prefixes of this length
    /// or shorter ones.
    #[must_use]
    pub fn narrow_rule(&self, priority: u32, table: RoutingTable, length: u8) -> Value {
        let mut rule = self.rule(priority, table);
        if let Some(rule) = rule.as_object_mut() {
            rule.insert("suppress_prefixlen".to_owned(), json!(length));
        }
        rule
    }
}

/// Returns the policy rule that looks all packets up in a table.
#[must_use]
pub fn rule_for_all(priority: u32, table: RoutingTable) -> Value {
    json!({"priority": priority, "src": "all", "table": table.listed()})
}

/// Returns the policy rules that every machine has.
#[must_use]
pub fn standard_rules(family: Family) -> Vec<Value> {
    let rule =
        |priority: u32, table: &str| json!({"priority": priority, "src": "all", "table": table});
    let mut rules = vec![rule(0, "local"), rule(32_766, "main")];
    if family == Family::V4 {
        rules.push(rule(32_767, "default"));
    }
    rules
}

/// Returns a network as iproute2 lists it.
fn written(net: IpNet) -> String {
    if net.prefix_len() == 0 {
        "default".to_owned()
    } else if net.prefix_len() == net.max_prefix_len() {
        address(net.addr())
    } else {
        format!("{}/{}", address(net.addr()), net.prefix_len())
    }
}

/// Returns an address as `inet_ntop(3)` of glibc writes it: an IPv6 address that begins with 96 zero bits ends like one
/// of IPv4.
fn address(address: IpAddr) -> String {
    match address {
        IpAddr::V6(v6) if v6.segments()[..6] == [0; 6] && v6.segments()[6] != 0 => {
            let bits = u32::try_from(v6.to_bits()).unwrap_or_default();
            format!("::{}", Ipv4Addr::from_bits(bits))
        }
        _ => address.to_string(),
    }
}

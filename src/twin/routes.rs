//! Routes and policy rules, from iproute2's JSON back to its command line.
//!
//! Only keys that are known are written. A route or rule with another key is not copied: half of it
//! would be another route.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::{Map, Value};

use crate::net::Family;

/// Returns the words after `ip route append` that make a listed route.
///
/// # Errors
/// The first key that is not known.
pub fn route(route: &Value) -> Result<String, String> {
    let route = route.as_object().ok_or("a list")?;
    let mut words = Vec::new();
    if let Some(kind) = text(route, "type").filter(|kind| *kind != "unicast") {
        words.push(kind.to_owned());
    }
    words.push(text(route, "dst").ok_or("dst")?.to_owned());
    // A next hop object that discards packets is listed with the loopback interface.
    if !discards(route) {
        hop(route, &mut words)?;
    }
    for (key, value) in route {
        let word = match key.as_str() {
            // Written elsewhere. A hop that the kernel shows by its number stands beside that; the rest is no
            // part of a route.
            "type" | "dst" | "gateway" | "via" | "dev" | "weight" | "nexthops" | "nhid"
            | "nh_info" | "expires" | "age" | "cache" | "used" | "error" => continue,
            "flags" => {
                if has_flag(value, "onlink") {
                    words.push("onlink".to_owned());
                }
                continue;
            }
            "table" => "table",
            "protocol" => "proto",
            "scope" => "scope",
            "prefsrc" => "src",
            "metric" => "metric",
            "from" => "from",
            "tos" => "tos",
            "pref" => "pref",
            "metrics" => {
                metrics(value, &mut words)?;
                continue;
            }
            "flow" => {
                words.extend(["realm".to_owned(), realms(value).ok_or("flow")?]);
                continue;
            }
            other => return Err(other.to_owned()),
        };
        words.push(word.to_owned());
        words.push(scalar(value).ok_or_else(|| key.clone())?);
    }
    // They end the command.
    for one in route
        .get("nexthops")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let one = one.as_object().ok_or("nexthops")?;
        words.push("nexthop".to_owned());
        hop(one, &mut words)?;
        if let Some(flow) = one.get("flow") {
            words.extend(["realm".to_owned(), realms(flow).ok_or("flow")?]);
        }
        if let Some(weight) = one.get("weight").and_then(Value::as_u64) {
            words.extend(["weight".to_owned(), weight.to_string()]);
        }
        if one
            .get("flags")
            .is_some_and(|flags| has_flag(flags, "onlink"))
        {
            words.push("onlink".to_owned());
        }
    }
    Ok(words.join(" "))
}

/// Returns the network that a listed route leads to.
#[must_use]
pub fn destination(route: &Value, family: Family) -> Option<IpNet> {
    let listed = route["dst"].as_str()?;
    if listed == "default" {
        return Some(match family {
            Family::V4 => IpNet::V4(Ipv4Net::default()),
            Family::V6 => IpNet::V6(Ipv6Net::default()),
        });
    }
    let address = || listed.parse::<IpAddr>().ok().map(IpNet::from);
    listed.parse().ok().or_else(address)
}

/// Returns whether the kernel makes a route by itself with an address or an interface that is up.
#[must_use]
pub fn is_automatic(route: &Value) -> bool {
    let by_kernel = route["protocol"] == "kernel";
    by_kernel && (route["table"] == "local" || route["type"] == "multicast")
}

/// Returns whether a route has no next hop. Routes with one need a direct route to it first.
#[must_use]
pub fn is_direct(route: &Value) -> bool {
    route["gateway"].is_null() && route["via"].is_null() && route["nexthops"].is_null()
}

fn hop(hop: &Map<String, Value>, words: &mut Vec<String>) -> Result<(), String> {
    if let Some(gateway) = text(hop, "gateway") {
        words.extend(["via".to_owned(), gateway.to_owned()]);
    }
    if let Some(via) = hop.get("via") {
        let (family, host) = (via["family"].as_str(), via["host"].as_str());
        let (family, host) = family.zip(host).ok_or("via")?;
        words.extend(["via", family, host].map(str::to_owned));
    }
    if let Some(dev) = text(hop, "dev") {
        words.extend(["dev".to_owned(), dev.to_owned()]);
    }
    Ok(())
}

/// Returns whether a route of this type has no next hop.
fn discards(route: &Map<String, Value>) -> bool {
    let kind = text(route, "type");
    kind.is_some_and(|kind| ["blackhole", "unreachable", "prohibit", "throw"].contains(&kind))
}

/// Returns the realms of a route: that of the source, if there is one, and that of the destination.
fn realms(flow: &Value) -> Option<String> {
    let to = scalar(&flow["to"])?;
    match scalar(&flow["from"]) {
        Some(from) => Some(format!("{from}/{to}")),
        None => Some(to),
    }
}

fn metrics(value: &Value, words: &mut Vec<String>) -> Result<(), String> {
    let each = value.as_array().into_iter().flatten();
    for (key, value) in each.filter_map(Value::as_object).flatten() {
        let known = [
            "mtu", "advmss", "hoplimit", "initcwnd", "initrwnd", "rto_min", "quickack", "window",
        ];
        if !known.contains(&key.as_str()) {
            return Err(key.clone());
        }
        words.push(key.clone());
        words.push(scalar(value).ok_or_else(|| key.clone())?);
    }
    Ok(())
}

/// Returns the words after `ip rule add` that make a listed rule.
///
/// # Errors
/// The first key that is not known.
pub fn rule(rule: &Value) -> Result<String, String> {
    let rule = rule.as_object().ok_or("a list")?;
    let mut words = Vec::new();
    if rule.contains_key("not") {
        words.push("not".to_owned());
    }
    let with_length = |address: &str, length: &str| {
        let text = text(rule, address)?;
        let length = rule.get(length).and_then(Value::as_u64);
        Some(length.map_or(text.to_owned(), |length| format!("{text}/{length}")))
    };
    let range = |start: &str, end: &str| {
        let number = |key: &str| rule.get(key).and_then(Value::as_u64);
        let (start, end) = (number(start)?, number(end)?);
        Some(format!("{start}-{end}"))
    };
    for (key, value) in rule {
        let (word, value) = match key.as_str() {
            // Other keys say these, or they say nothing about packets.
            "not" | "srclen" | "dstlen" | "fwmask" | "dport_end" | "sport_end" | "uid_end"
            | "flow_from" | "nop" | "iif_detached" | "oif_detached" => continue,
            "src" => ("from", with_length("src", "srclen")),
            "dst" => ("to", with_length("dst", "dstlen")),
            "fwmark" => {
                let bits = text(rule, "fwmask");
                let mark = text(rule, "fwmark");
                let both =
                    |mark: &str| bits.map_or(mark.to_owned(), |bits| format!("{mark}/{bits}"));
                ("fwmark", mark.map(both))
            }
            "dport_start" => ("dport", range("dport_start", "dport_end")),
            "sport_start" => ("sport", range("sport_start", "sport_end")),
            "uid_start" => ("uidrange", range("uid_start", "uid_end")),
            "flow_to" => {
                let to = scalar(value);
                let from = rule.get("flow_from").and_then(scalar);
                let both = |to: String| from.map_or(to.clone(), |from| format!("{from}/{to}"));
                ("realms", to.map(both))
            }
            "priority" => ("priority", scalar(value)),
            "suppress_prefixlen" => ("suppress_prefixlength", scalar(value)),
            "suppress_ifgroup" => ("suppress_ifgroup", scalar(value)),
            "table" => ("lookup", scalar(value)),
            "dport" | "sport" | "iif" | "oif" | "tos" | "ipproto" | "goto" | "realms" => {
                (key.as_str(), scalar(value))
            }
            "protocol" => ("protocol", scalar(value)),
            "l3mdev" => {
                words.push("l3mdev".to_owned());
                continue;
            }
            "action" => {
                words.push(text(rule, "action").ok_or("action")?.to_owned());
                continue;
            }
            other => return Err(other.to_owned()),
        };
        words.push(word.to_owned());
        words.push(value.ok_or_else(|| key.clone())?);
    }
    Ok(words.join(" "))
}

fn text<'v>(object: &'v Map<String, Value>, key: &str) -> Option<&'v str> {
    object.get(key)?.as_str()
}

fn has_flag(flags: &Value, name: &str) -> bool {
    let mut flags = flags.as_array().into_iter().flatten();
    flags.any(|flag| flag == name)
}

/// Returns one word. iproute2 prints numbers as numbers or as text, by its version.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.contains(char::is_whitespace) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_listed_route_becomes_the_words_that_make_it() {
        for (listed, words) in [
            (
                json!({"type":"unicast","dst":"default","gateway":"10.3.0.1","dev":"eth0","table":"main","protocol":"boot","scope":"global","metric":50,"flags":["onlink"]}),
                "default via 10.3.0.1 dev eth0 onlink metric 50 proto boot scope global table main",
            ),
            (
                json!({"type":"unreachable","dst":"10.5.0.0/16","table":"main","flags":[]}),
                "unreachable 10.5.0.0/16 table main",
            ),
            (
                json!({"dst":"10.6.0.0/16","via":{"family":"inet6","host":"fe80::1"},"dev":"eth0","flags":[],"metrics":[{"mtu":1300}]}),
                "10.6.0.0/16 via inet6 fe80::1 dev eth0 mtu 1300",
            ),
            (
                json!({"dst":"10.7.0.0/16","nhid":7,"gateway":"10.3.0.3","dev":"eth0","nh_info":{"id":7},"flags":[]}),
                "10.7.0.0/16 via 10.3.0.3 dev eth0",
            ),
            (
                json!({"dst":"10.8.0.0/16","table":"main","flags":[],"nexthops":[{"gateway":"10.3.0.7","dev":"eth0","weight":2,"flags":[]},{"gateway":"10.3.0.8","dev":"eth0","weight":1,"flags":[]}]}),
                "10.8.0.0/16 table main nexthop via 10.3.0.7 dev eth0 weight 2 nexthop via 10.3.0.8 dev eth0 weight 1",
            ),
            (
                json!({"type":"unicast","dst":"10.9.0.0/16","gateway":"10.1.0.9","dev":"eth0","flags":[],"flow":{"from":"3","to":"5"}}),
                "10.9.0.0/16 via 10.1.0.9 dev eth0 realm 3/5",
            ),
            (
                json!({"dst":"10.9.0.0/16","flags":[],"nexthops":[{"gateway":"10.1.0.8","flow":{"to":"3"},"dev":"eth0","weight":1,"flags":[]}]}),
                "10.9.0.0/16 nexthop via 10.1.0.8 dev eth0 realm 3 weight 1",
            ),
            (
                json!({"type":"blackhole","dst":"10.11.0.0/16","nhid":5,"dev":"lo","table":"main","flags":[],"nh_info":{"id":5,"blackhole":null}}),
                "blackhole 10.11.0.0/16 table main",
            ),
        ] {
            assert_eq!(route(&listed).as_deref(), Ok(words));
        }
        let encapsulated = json!({"dst":"10.0.0.0/8","encap":"mpls","dev":"eth0","flags":[]});
        assert_eq!(route(&encapsulated), Err("encap".to_owned()));
    }

    #[test]
    fn a_listed_rule_becomes_the_words_that_make_it() {
        for (listed, words) in [
            (
                json!({"priority":32764,"not":null,"src":"10.0.0.0","srclen":8,"iif":"eth0","dport_start":80,"dport_end":90,"table":"200"}),
                "not dport 80-90 iif eth0 priority 32764 from 10.0.0.0/8 lookup 200",
            ),
            (
                json!({"priority":32763,"src":"all","dst":"1.2.3.4","action":"prohibit"}),
                "prohibit to 1.2.3.4 priority 32763 from all",
            ),
            (
                json!({"priority":32765,"src":"all","fwmark":"0x1","fwmask":"0xff","table":"100"}),
                "fwmark 0x1/0xff priority 32765 from all lookup 100",
            ),
            (
                json!({"priority":32765,"src":"fd00::","srclen":8,"table":"main","suppress_prefixlen":0}),
                "priority 32765 from fd00::/8 suppress_prefixlength 0 lookup main",
            ),
            (
                json!({"priority":32762,"src":"all","l3mdev":null}),
                "l3mdev priority 32762 from all",
            ),
            (
                json!({"priority":77,"src":"10.7.0.0","srclen":16,"table":"main","flow_from":"3","flow_to":"5"}),
                "realms 3/5 priority 77 from 10.7.0.0/16 lookup main",
            ),
        ] {
            assert_eq!(rule(&listed).as_deref(), Ok(words));
        }
        let unknown = json!({"priority":1,"src":"all","tun_id":"7","table":"main"});
        assert_eq!(rule(&unknown), Err("tun_id".to_owned()));
    }
}

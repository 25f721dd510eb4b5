//! Base chains of nft's own that see forwarded packets: iptables does not show them, and a drop in
//! any of them is final.

use serde_json::Value;

use crate::net::{Port, PortRange, Protocol};
use crate::packet::{Packet, all};

/// A chain at the forward hook, as `nft -j` lists it (libnftables-json(5)).
#[derive(Debug, Clone, PartialEq)]
pub struct NativeChain {
    pub family: String,
    pub table: String,
    pub name: String,
    pub drops_by_policy: bool,
    /// The expressions of each rule.
    pub rules: Vec<Vec<Value>>,
}

/// What a chain does to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Passes,
    /// As far as it can be told, it may be dropped.
    MayBeDropped,
    Dropped,
}

impl NativeChain {
    /// As nft names it in a command.
    #[must_use]
    pub fn named(&self) -> String {
        format!("{} {} {}", self.family, self.table, self.name)
    }

    /// Whether it drops anything at all.
    #[must_use]
    pub fn drops(&self) -> bool {
        let drop = |rule: &Vec<Value>| rule.iter().any(|one| verdict(one) == Some(Verdict::Drop));
        self.drops_by_policy || self.rules.iter().any(drop)
    }

    /// What becomes of a forward's first packet. Conditions that are not read here may hold or not,
    /// and a jump may lead to a drop.
    #[must_use]
    pub fn fate(&self, packet: &Packet<'_>) -> Fate {
        if self.family == "ip6" {
            return Fate::Passes;
        }
        let mut maybe = false;
        for rule in &self.rules {
            let holds = all(rule.iter().map(|one| asks(one, packet)));
            let verdict = rule.iter().find_map(verdict_on);
            match (holds, verdict) {
                (Some(false), _) | (_, None) => {}
                (Some(true), Some(Verdict::Accept)) if !maybe => return Fate::Passes,
                (Some(true), Some(Verdict::Drop)) if !maybe => return Fate::Dropped,
                (Some(true), Some(Verdict::Accept)) => return Fate::MayBeDropped,
                // What may have been accepted before is not dropped for certain.
                _ => maybe = true,
            }
        }
        match (self.drops_by_policy, maybe) {
            (true, false) => Fate::Dropped,
            (true, true) => Fate::MayBeDropped,
            (false, true) if self.drops() => Fate::MayBeDropped,
            // Jumps lead to chains that are not looked into.
            (false, true) if self.rules.iter().flatten().any(is_jump) => Fate::MayBeDropped,
            (false, _) => Fate::Passes,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Accept,
    Drop,
    /// A jump, or what is not known here.
    Elsewhere,
}

fn verdict(expression: &Value) -> Option<Verdict> {
    let (name, _) = expression.as_object()?.iter().next()?;
    match name.as_str() {
        "accept" => Some(Verdict::Accept),
        "drop" | "reject" => Some(Verdict::Drop),
        "jump" | "goto" | "vmap" | "queue" | "return" => Some(Verdict::Elsewhere),
        _ => None,
    }
}

/// The same, where a map decides by the state: a first packet is new.
fn verdict_on(expression: &Value) -> Option<Verdict> {
    let Some(map) = expression.get("vmap") else {
        return verdict(expression);
    };
    match map["key"]["ct"]["key"].as_str() {
        Some("state") => {
            let mut pairs = members(&map["data"]);
            let new = pairs.find(|pair| pair[0] == "new")?;
            verdict_on(&new[1])
        }
        _ => Some(Verdict::Elsewhere),
    }
}

/// What an expression asks of a packet: nothing, for what only counts or changes it. Whether a limit
/// lets it through cannot be told, nor what is not known here.
fn asks(expression: &Value, packet: &Packet<'_>) -> Option<bool> {
    const PASSING: [&str; 6] = ["counter", "log", "mangle", "notrack", "flow", "tcp option"];
    if let Some(asked) = expression.get("match") {
        return condition(asked, packet);
    }
    let passing = PASSING.iter().any(|name| expression.get(name).is_some());
    (passing || verdict(expression).is_some()).then_some(true)
}

fn is_jump(expression: &Value) -> bool {
    ["jump", "goto", "vmap"]
        .iter()
        .any(|name| expression.get(name).is_some())
}

fn condition(asked: &Value, packet: &Packet<'_>) -> Option<bool> {
    let (left, right) = (&asked["left"], &asked["right"]);
    let holds = if let Some(payload) = left.get("payload") {
        let words = (payload["protocol"].as_str()?, payload["field"].as_str()?);
        match words {
            ("tcp", "dport") => of_protocol(packet, Protocol::Tcp, right),
            ("udp", "dport") => of_protocol(packet, Protocol::Udp, right),
            ("th", "dport") => ports(right, packet),
            ("ip", "protocol") => Some(right == packet.protocol.as_str()),
            ("ip", "daddr") => address(right, packet),
            _ => None,
        }
    } else if let Some(meta) = left.get("meta") {
        let is = |name: Option<&crate::net::Interface>| {
            let (name, asked) = (name?, right.as_str()?);
            (!asked.contains('*')).then(|| name.as_str() == asked)
        };
        match meta["key"].as_str()? {
            "iifname" | "iif" => is(packet.ingress),
            "oifname" | "oif" => is(packet.egress),
            "l4proto" => Some(right == packet.protocol.as_str()),
            "nfproto" => Some(right == "ipv4"),
            _ => None,
        }
    } else if let Some(ct) = left.get("ct") {
        let asks = |word: &str| *right == word || members(right).any(|one| one == word);
        match ct["key"].as_str()? {
            "state" => Some(asks("new")),
            "status" => (asks("dnat") && packet.translated_from.is_some()).then_some(true),
            _ => None,
        }
    } else {
        None
    };
    match asked["op"].as_str()? {
        "==" | "in" => holds,
        "!=" => holds.map(|holds| !holds),
        _ => None,
    }
}

fn of_protocol(packet: &Packet<'_>, protocol: Protocol, right: &Value) -> Option<bool> {
    if packet.protocol == protocol {
        ports(right, packet)
    } else {
        Some(false)
    }
}

/// The members of a set, or of a list of flags.
fn members(right: &Value) -> impl Iterator<Item = &Value> {
    let set = right.get("set").unwrap_or(right);
    set.as_array().into_iter().flatten()
}

fn ports(right: &Value, packet: &Packet<'_>) -> Option<bool> {
    let port = |value: &Value| Port::new(u16::try_from(value.as_u64()?).ok()?);
    let range = |value: &Value| match value.get("range") {
        Some(range) => PortRange::new(port(&range[0])?, port(&range[1])?).ok(),
        None => port(value).map(PortRange::from),
    };
    let ranges = match right.get("set") {
        Some(_) => members(right).map(range).collect::<Option<Vec<_>>>()?,
        None => vec![range(right)?],
    };
    packet.holds(&crate::rule::Match::DestinationPorts(ranges))
}

fn address(right: &Value, packet: &Packet<'_>) -> Option<bool> {
    let net = match right.get("prefix") {
        Some(prefix) => format!("{}/{}", prefix["addr"].as_str()?, prefix["len"]),
        None => format!("{}/32", right.as_str()?),
    };
    packet.holds(&crate::rule::Match::Destination(net.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Interface;
    use serde_json::json;

    #[test]
    fn a_forward_s_packet_is_followed_as_far_as_the_chain_is_understood() {
        let (eth0, to): (Interface, _) = ("eth0".parse().expect("a name"), "10.224.0.118");
        let (to, listen) = ([to.parse().expect("an address")], []);
        let packet = Packet {
            protocol: Protocol::Tcp,
            source: None,
            destinations: &to,
            ports: "80".parse().expect("a port"),
            ingress: Some(&eth0),
            egress: Some(&eth0),
            local: Some(false),
            translated_from: Some((&listen, "49182".parse().expect("a port"))),
        };
        let port = |right: Value| json!({"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": right}});
        let status =
            json!({"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}});
        let state = json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}});
        let mark = json!({"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 1}});
        let docker = json!({"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "docker0"}});
        let near = json!({"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right": {"prefix": {"addr": "10.224.0.0", "len": 16}}}});
        let (accept, drop) = (json!({"accept": null}), json!({"drop": null}));
        let jump = json!({"jump": {"target": "x"}});
        let limit = json!({"limit": {"rate": 10, "per": "second"}});
        let known = json!({"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["established", {"accept": null}], ["invalid", {"drop": null}]]}}});
        let new = json!({"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["new", {"drop": null}]]}}});
        let counter = json!({"counter": {"packets": 0, "bytes": 0}});
        for (policy, rules, fate) in [
            (true, vec![], Fate::Dropped),
            (false, vec![], Fate::Passes),
            (false, vec![vec![drop.clone()]], Fate::Dropped),
            (
                false,
                vec![vec![port(json!(80)), drop.clone()]],
                Fate::Dropped,
            ),
            (
                false,
                vec![vec![
                    port(json!({"set": [22, {"range": [70, 90]}]})),
                    drop.clone(),
                ]],
                Fate::Dropped,
            ),
            (
                false,
                vec![vec![port(json!(443)), drop.clone()]],
                Fate::Passes,
            ),
            (false, vec![vec![near, drop.clone()]], Fate::Dropped),
            (false, vec![vec![docker, drop.clone()]], Fate::Passes),
            (
                false,
                vec![vec![mark.clone(), drop.clone()]],
                Fate::MayBeDropped,
            ),
            (true, vec![vec![state, accept.clone()]], Fate::Dropped),
            (true, vec![vec![status, accept.clone()]], Fate::Passes),
            (true, vec![vec![mark, accept.clone()]], Fate::MayBeDropped),
            (false, vec![vec![jump]], Fate::MayBeDropped),
            (true, vec![vec![limit, accept.clone()]], Fate::MayBeDropped),
            (false, vec![vec![known.clone()]], Fate::Passes),
            (
                true,
                vec![vec![known], vec![counter.clone(), accept]],
                Fate::Passes,
            ),
            (false, vec![vec![new]], Fate::Dropped),
            (false, vec![vec![counter]], Fate::Passes),
        ] {
            let chain = NativeChain {
                family: "inet".into(),
                table: "t".into(),
                name: "c".into(),
                drops_by_policy: policy,
                rules: rules.clone(),
            };
            assert_eq!(chain.fate(&packet), fate, "{policy} {rules:?}");
        }
    }
}

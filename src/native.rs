//! Base chains of nft's own that see forwarded packets: iptables does not show them, and a drop in
//! any of them is final.

use ipnet::IpNet;
use serde_json::Value;

use crate::net::{Interface, Port, PortRange, Protocol};
use crate::packet::{Packet, Tracked, all, any, covers};
use crate::plan::MARKED;
use crate::rule::Match;

/// A base chain that forwarded packets come through, as `nft -j` lists it (libnftables-json(5)).
#[derive(Debug, Clone, PartialEq)]
pub struct NativeChain {
    pub family: String,
    pub table: String,
    pub name: String,
    pub hook: Hook,
    pub drops_by_policy: bool,
    /// Whether any chain of its table drops: a jump may lead there.
    pub table_drops: bool,
    /// Whether any chain of its table may set nvactl's bit of a connection's mark.
    pub table_marks: bool,
    /// The expressions of each rule.
    pub rules: Vec<Vec<Value>>,
}

/// Where a chain sees packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before they are translated; `ingress` is one such.
    Prerouting,
    /// At prerouting too, but behind nat.
    Translated,
    Forward,
    Postrouting,
    /// Only what is for the machine itself.
    Input,
    /// Only what the machine itself sends.
    Output,
}

/// Where iptables translates destinations (`NF_IP_PRI_NAT_DST` in `linux/netfilter_ipv4.h`).
const NAT_DST: i64 = -100;

impl Hook {
    /// As `nft -j` names it, and the chain's priority.
    #[must_use]
    pub fn of(name: &str, priority: i64) -> Option<Self> {
        match name {
            "ingress" => Some(Hook::Prerouting),
            "prerouting" if priority <= NAT_DST => Some(Hook::Prerouting),
            "prerouting" => Some(Hook::Translated),
            "forward" => Some(Hook::Forward),
            "postrouting" => Some(Hook::Postrouting),
            "input" => Some(Hook::Input),
            "output" => Some(Hook::Output),
            _ => None,
        }
    }
}

/// Whether a rule drops something.
#[must_use]
pub fn rule_drops(rule: &[Value]) -> bool {
    rule.iter().any(|one| verdict(one) == Some(Verdict::Drop))
}

/// Whether a rule may set nvactl's bit of a connection's mark.
#[must_use]
pub fn rule_marks(rule: &[Value]) -> bool {
    let set = rule.iter().filter_map(|one| one.get("mangle"));
    let mut of_connection = set.filter(|set| is_ct_mark(&set["key"]));
    of_connection.any(|set| may_have_bit(&set["value"]))
}

fn is_ct_mark(value: &Value) -> bool {
    value["ct"]["key"] == "mark"
}

/// The connection's own mark has the bit only where it had it before. What is not read here may have it.
fn may_have_bit(value: &Value) -> bool {
    let operands = |word: &str| value.get(word).and_then(Value::as_array);
    if let Some(bits) = value.as_u64() {
        bits & u64::from(MARKED.mask) != 0
    } else if let Some(both) = operands("&") {
        both.iter().all(may_have_bit)
    } else if let Some(either) = operands("|").or_else(|| operands("^")) {
        either.iter().any(may_have_bit)
    } else {
        !is_ct_mark(value)
    }
}

/// What a chain does to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
        self.drops_by_policy || self.rules.iter().any(|rule| rule_drops(rule))
    }

    /// Whether it may set nvactl's bit of a connection's mark, behind nvactl's rules that take it off.
    #[must_use]
    pub fn marks(&self) -> bool {
        let leads_on = |rule: &Vec<Value>| {
            let mut verdicts = rule.iter().map(verdict);
            verdicts.any(|verdict| verdict == Some(Verdict::Elsewhere))
        };
        matches!(
            self.hook,
            Hook::Translated | Hook::Forward | Hook::Postrouting
        ) && self
            .rules
            .iter()
            .any(|rule| rule_marks(rule) || (self.table_marks && leads_on(rule)))
    }

    /// What becomes of a forward's first packet. Conditions that are not read here may hold or not,
    /// and a jump may lead to a drop.
    #[must_use]
    pub fn fate(&self, packet: &Packet<'_>) -> Fate {
        let (mut may_drop, mut may_accept) = (false, false);
        for rule in &self.rules {
            let holds = all(rule.iter().map(|one| asks(one, packet)));
            let verdict = rule.iter().find_map(|one| verdict_on(one, packet));
            match (holds, verdict) {
                (Some(false), _) | (_, None) => {}
                (Some(true), Some(Verdict::Accept)) if !may_drop => return Fate::Passes,
                (Some(true), Some(Verdict::Accept)) => return Fate::MayBeDropped,
                (Some(true), Some(Verdict::Drop)) if !may_accept => return Fate::Dropped,
                (_, Some(Verdict::Drop)) => may_drop = true,
                (_, Some(Verdict::Accept)) => may_accept = true,
                // Where a jump leads is not looked into, but whether anything is dropped there.
                (_, Some(Verdict::Elsewhere)) => {
                    may_drop |= self.table_drops;
                    may_accept = true;
                }
            }
        }
        match (self.drops_by_policy, may_drop, may_accept) {
            (true, _, false) => Fate::Dropped,
            (false, false, _) => Fate::Passes,
            _ => Fate::MayBeDropped,
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

/// The same, where a map decides by the state.
fn verdict_on(expression: &Value, packet: &Packet<'_>) -> Option<Verdict> {
    let Some(map) = expression.get("vmap") else {
        return verdict(expression);
    };
    match map["key"]["ct"]["key"].as_str() {
        Some("state") => {
            let mut pairs = members(&map["data"]);
            let own = pairs.find(|pair| pair[0] == state(packet))?;
            verdict(&own[1])
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

fn state(packet: &Packet<'_>) -> &'static str {
    match packet.tracked {
        Tracked::NotYet => "untracked",
        Tracked::New => "new",
        Tracked::Established => "established",
    }
}

fn condition(asked: &Value, packet: &Packet<'_>) -> Option<bool> {
    let (left, right) = (&asked["left"], &asked["right"]);
    let negated = match asked["op"].as_str()? {
        "==" | "in" => false,
        "!=" => true,
        _ => return None,
    };
    let answer = |holds: Option<bool>| holds.map(|holds| holds != negated);
    if let Some(payload) = left.get("payload") {
        let words = (payload["protocol"].as_str()?, payload["field"].as_str()?);
        // Another protocol's field is not there: the rule does not match, negated or not.
        let of = |protocol| {
            if packet.protocol == protocol {
                answer(ports(right, packet))
            } else {
                Some(false)
            }
        };
        return match words {
            ("tcp", "dport") => of(Protocol::Tcp),
            ("udp", "dport") => of(Protocol::Udp),
            ("th", "dport") => answer(ports(right, packet)),
            ("tcp", "sport") if packet.protocol == Protocol::Tcp => answer(sources(right, packet)),
            ("udp", "sport") if packet.protocol == Protocol::Udp => answer(sources(right, packet)),
            ("ip", "protocol") => answer(is(right, packet.protocol.as_str())),
            ("ip", "daddr") => answer(addresses(right, |net| {
                packet.holds(&Match::Destination(net))
            })),
            ("ip", "saddr") => answer(addresses(right, |net| packet.holds(&Match::Source(net)))),
            // Of another protocol.
            ("tcp" | "udp", "sport") | ("ip6" | "icmp" | "icmpv6", _) => Some(false),
            _ => None,
        };
    }
    if let Some(meta) = left.get("meta") {
        let name = |interface: Option<&Interface>| is(right, interface?.as_str());
        return answer(match meta["key"].as_str()? {
            "iifname" | "iif" => name(packet.ingress),
            "oifname" | "oif" => name(packet.egress),
            "l4proto" => is(right, packet.protocol.as_str()),
            "nfproto" => is(right, "ipv4"),
            _ => None,
        });
    }
    let ct = left.get("ct")?;
    let asks = |word: &str| *right == word || members(right).any(|one| one == word);
    answer(match ct["key"].as_str()? {
        "state" => Some(asks(state(packet))),
        "status" => (asks("dnat") && packet.translated_from.is_some()).then_some(true),
        _ => None,
    })
}

/// Whether a value is this word, or a set that has it. A named set, or a pattern, cannot be told.
fn is(right: &Value, word: &str) -> Option<bool> {
    if right.get("set").is_some() {
        return any(members(right).map(|one| is(one, word)));
    }
    let text = right.as_str()?;
    let plain = !text.starts_with('@') && !text.contains('*');
    plain.then(|| text == word)
}

/// The members of a set, or of a list of flags.
fn members(right: &Value) -> impl Iterator<Item = &Value> {
    let set = right.get("set").unwrap_or(right);
    set.as_array().into_iter().flatten()
}

/// Whether an address is a net's, or one of a set of nets.
fn addresses(right: &Value, within: impl Fn(IpNet) -> Option<bool> + Copy) -> Option<bool> {
    if right.get("set").is_some() {
        return any(members(right).map(|one| addresses(one, within)));
    }
    let net = match right.get("prefix") {
        Some(prefix) => format!("{}/{}", prefix["addr"].as_str()?, prefix["len"]),
        None => format!("{}/32", right.as_str()?),
    };
    within(net.parse().ok()?)
}

/// The ports that a value names; `None` where it is no number, range or set of those.
fn ranges(right: &Value) -> Option<Vec<PortRange>> {
    let port = |value: &Value| Port::new(u16::try_from(value.as_u64()?).ok()?);
    let range = |value: &Value| match value.get("range") {
        Some(range) => PortRange::new(port(&range[0])?, port(&range[1])?).ok(),
        None => port(value).map(PortRange::from),
    };
    match right.get("set") {
        Some(_) => members(right).map(range).collect(),
        None => Some(vec![range(right)?]),
    }
}

fn ports(right: &Value, packet: &Packet<'_>) -> Option<bool> {
    packet.holds(&Match::DestinationPorts(ranges(right)?))
}

fn sources(right: &Value, packet: &Packet<'_>) -> Option<bool> {
    let own = packet.source_ports?;
    any(ranges(right)?.into_iter().map(|asked| covers(asked, own)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[expect(clippy::too_many_lines, reason = "it is a table")]
    #[test]
    fn a_forward_s_packet_is_followed_as_far_as_the_chain_is_understood() {
        let (eth0, to): (Interface, _) = ("eth0".parse().expect("a name"), "10.224.0.118");
        let (to, listen) = ([to.parse().expect("an address")], []);
        let packet = Packet {
            protocol: Protocol::Tcp,
            source: None,
            destinations: &to,
            ports: "80".parse().expect("a port"),
            source_ports: None,
            ingress: Some(&eth0),
            egress: Some(&eth0),
            local: Some(false),
            translated_from: Some((&listen, "49182".parse().expect("a port"))),
            tracked: Tracked::New,
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
        let within = |right: Value| json!({"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": right}});
        let protocol = |right: Value, op: &str| json!({"match": {"op": op, "left": {"meta": {"key": "l4proto"}}, "right": right}});
        let udp = json!({"match": {"op": "!=", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 53}});
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
            (
                true,
                vec![vec![status.clone(), accept.clone()]],
                Fate::Passes,
            ),
            (true, vec![vec![mark, accept.clone()]], Fate::MayBeDropped),
            (false, vec![vec![jump]], Fate::MayBeDropped),
            (
                true,
                vec![
                    vec![within(json!("198.51.100.0")), accept.clone()],
                    vec![status.clone(), accept.clone()],
                ],
                Fate::Passes,
            ),
            (
                false,
                vec![vec![
                    protocol(json!({"set": ["tcp", "udp"]}), "=="),
                    drop.clone(),
                ]],
                Fate::Dropped,
            ),
            (
                false,
                vec![vec![protocol(json!("@these"), "=="), drop.clone()]],
                Fate::MayBeDropped,
            ),
            (
                false,
                vec![vec![protocol(json!("tcp"), "!="), drop.clone()]],
                Fate::Passes,
            ),
            (false, vec![vec![udp, drop.clone()]], Fate::Passes),
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
                hook: Hook::Forward,
                table_drops: true,
                table_marks: false,
                drops_by_policy: policy,
                rules: rules.clone(),
            };
            assert_eq!(chain.fate(&packet), fate, "{policy} {rules:?}");
        }
    }

    /// Each as nft 1.0.6 lists it.
    #[test]
    fn what_may_set_the_bit_of_a_connections_mark_is_seen() {
        const BIT: u32 = 0x1000_0000;
        let ct = json!({"ct": {"key": "mark"}});
        let own = json!({"meta": {"key": "mark"}});
        let to = |key: &Value, value: Value| json!({"mangle": {"key": key, "value": value}});
        let jump = json!({"jump": {"target": "more"}});
        for (marks, rule) in [
            (true, to(&ct, json!(BIT | 1))),
            (true, to(&ct, json!({"|": [ct, BIT]}))),
            (true, to(&ct, json!({"^": [ct, BIT]}))),
            (true, to(&ct, own.clone())),
            (true, to(&ct, json!({"|": [{"&": [own, BIT]}, 1]}))),
            (false, to(&ct, json!(1))),
            (false, to(&ct, json!({"&": [own, 0xff]}))),
            (false, to(&ct, json!({"|": [{"&": [ct, !BIT]}, 1]}))),
            (false, to(&own, json!(BIT))),
            (false, to(&own, ct.clone())),
            (true, jump),
        ] {
            let leads_on = rule.get("jump").is_some();
            let chain = |hook| NativeChain {
                family: "inet".into(),
                table: "t".into(),
                name: "c".into(),
                hook,
                table_drops: false,
                table_marks: leads_on,
                drops_by_policy: false,
                rules: vec![vec![rule.clone()]],
            };
            assert_eq!(chain(Hook::Forward).marks(), marks, "{rule}");
            assert!(!chain(Hook::Prerouting).marks(), "{rule}");
        }
    }
}

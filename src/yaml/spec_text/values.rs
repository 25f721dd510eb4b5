//! The values that forwards and outbound entries have in common.

use serde_yaml::{Mapping, Value};

use crate::forwards::{Limits, Log, Logged, Name, Per, Snat};
use crate::net::{Interface, PortRange};

/// Returns a mapping with the keys that have a value, in their order.
pub fn mapping<'k>(keys: impl IntoIterator<Item = (&'k str, Option<Value>)>) -> Value {
    let keys = keys.into_iter();
    let keys = keys.filter_map(|(key, value)| Some((Value::from(key), value?)));
    Value::Mapping(keys.collect::<Mapping>())
}

/// Returns a single value without brackets, and several as a list.
pub fn one_or_list(values: impl IntoIterator<Item = Value>) -> Value {
    let mut values: Vec<Value> = values.into_iter().collect();
    if values.len() == 1 {
        values.remove(0)
    } else {
        Value::Sequence(values)
    }
}

pub fn text(value: &(impl ToString + ?Sized)) -> Value {
    Value::from(value.to_string())
}

/// Returns ports; one port is a number.
pub fn ports(ports: PortRange) -> Value {
    if ports.is_single() {
        Value::from(ports.first().number())
    } else {
        text(&ports)
    }
}

/// Returns the interfaces of both sides.
pub fn interfaces(ingress: &[Interface], egress: &Interface) -> Value {
    if let [one] = ingress
        && one == egress
    {
        return text(one);
    }
    let ingress = one_or_list(ingress.iter().map(text));
    mapping([("ingress", Some(ingress)), ("egress", Some(text(egress)))])
}

/// Returns the `snat` of both families, `None` if neither has one.
pub fn snats(v4: Option<Snat>, v6: Option<Snat>) -> Option<Value> {
    match (v4, v6) {
        (None, None) => None,
        (Some(Snat::Addresses(only)), None) | (None, Some(Snat::Addresses(only))) => {
            Some(text(&only))
        }
        (Some(one), Some(other)) if one == other => Some(text(&one)),
        _ => Some(mapping([
            ("v4", v4.as_ref().map(text)),
            ("v6", v6.as_ref().map(text)),
        ])),
    }
}

pub fn limits(limits: &Limits) -> Value {
    let Limits {
        rate,
        max_connections,
        per,
        reject,
    } = limits;
    let burst = rate.filter(|rate| rate.burst != rate.new_per_second.times());
    mapping([
        (
            "new_per_second",
            rate.map(|rate| Value::from(rate.new_per_second.times())),
        ),
        ("burst", burst.map(|rate| Value::from(rate.burst))),
        ("max_connections", max_connections.map(Value::from)),
        ("per", (*per == Per::Client).then(|| text("client"))),
        ("reject", reject.then_some(Value::from(true))),
    ])
}

/// Returns the log of an entry; `name` is the entry's.
pub fn log(log: &Log, name: &Name) -> Value {
    let Log {
        prefix,
        level,
        per_minute,
        connections,
    } = log;
    let usual = usual_prefix(name);
    let level_name = Log::LEVELS.get(usize::from(*level));
    let connections = match connections {
        Logged::Accepted => Some("accepted"),
        Logged::Refused => Some("refused"),
        Logged::All => None,
    };
    let keys = [
        ("prefix", (**prefix != *usual).then(|| text(prefix))),
        (
            "level",
            level_name
                .filter(|name| **name != "warning")
                .map(|name| text(*name)),
        ),
        (
            "per_minute",
            (*per_minute != 60).then(|| Value::from(*per_minute)),
        ),
        ("connections", connections.map(text)),
    ];
    if keys.iter().all(|(_, value)| value.is_none()) {
        Value::from(true)
    } else {
        mapping(keys)
    }
}

/// Returns the prefix of a log that sets none. A name is ASCII.
fn usual_prefix(name: &Name) -> &str {
    let name = name.as_str();
    &name[..name.len().min(Log::LONGEST_PREFIX)]
}

//! Lists of networks.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde_yaml::{Mapping, Value};

use super::values::text;
use crate::forwards::{Forward, ForwardSet, Nets};
use crate::net::Family;

/// Returns a list of networks; a host has no prefix.
pub fn list(nets: &[IpNet]) -> Value {
    Value::Sequence(nets.iter().map(|net| text(&shown(*net))).collect())
}

fn shown(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

/// The names of networks that allow nobody. A list without an item is refused, so a name stands for a list that has no
/// network of the forward's family.
#[derive(Debug)]
pub struct Nobody(BTreeSet<Family>);

impl Nobody {
    pub fn of(set: &ForwardSet) -> Self {
        let forwards = set.forwards.iter();
        let closed = forwards.filter(|one| one.sources.allow.as_ref().is_some_and(Nets::is_empty));
        Self(closed.map(Forward::family).collect())
    }

    /// Returns the key `networks`, if a forward needs it.
    pub fn networks(&self) -> Option<Value> {
        let names = self.0.iter().map(|family| {
            // Nobody has these addresses (RFC 5737, RFC 3849).
            let other = match family {
                Family::V4 => "2001:db8::/32",
                Family::V6 => "192.0.2.0/24",
            };
            (text(name(*family)), Value::Sequence(vec![text(other)]))
        });
        let names: Mapping = names.collect();
        (!names.is_empty()).then_some(Value::Mapping(names))
    }
}

/// Returns the list of a forward's allowed networks.
pub fn allowed(nets: &Nets, family: Family) -> Value {
    if nets.is_empty() {
        Value::Sequence(vec![text(name(family))])
    } else {
        list(nets.as_slice())
    }
}

fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "nobody-ipv4",
        Family::V6 => "nobody-ipv6",
    }
}

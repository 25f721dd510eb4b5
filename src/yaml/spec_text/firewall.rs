//! The key `firewall`.

use serde_yaml::Value;

use super::values::{interfaces, mapping, snats, text};
use crate::forwards::{Firewall, ForwardPolicy, ForwardSet, Layout};
use crate::netfilter::target::Mss;

pub fn value(set: &ForwardSet) -> Value {
    let Firewall {
        ingress,
        egress,
        snat,
        mss,
        forward_policy,
        layout,
    } = &set.firewall;
    let mss = mss.map(|mss| match mss {
        Mss::Clamp => text(&mss),
        Mss::Bytes(bytes) => Value::from(bytes),
    });
    let needs_snat = !set.forwards.is_empty() || set.outbound.is_empty();
    let snat = snats(snat.v4, snat.v6).or(needs_snat.then(|| mapping([])));
    mapping([
        ("interface", Some(interfaces(ingress, egress))),
        ("snat", snat),
        ("mss", mss),
        (
            "forward_policy",
            (*forward_policy == ForwardPolicy::Keep).then(|| text("keep")),
        ),
        ("layout", layout.map(|layout| text(Layout::as_str(layout)))),
    ])
}

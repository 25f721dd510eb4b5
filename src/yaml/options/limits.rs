//! The key `limits`.

use crate::forwards::{Limits, Per, Rate};
use crate::netfilter::limit::PerSecond;
use crate::yaml::bounds::MOST_CONNECTIONS;
use crate::yaml::fields::{Fields, number, one_of_words, yes_or_no};
use crate::yaml::load::Node;
use crate::yaml::problem::{Problem, ProblemKind};

/// Reads the limits. A mapping without a rate and a number of connections sets none, which overrides the
/// defaults.
pub fn limits(node: &Node<'_>, problems: &mut Vec<Problem>) -> Option<Limits> {
    let known = &[
        "new_per_second",
        "burst",
        "per",
        "max_connections",
        "reject",
    ];
    let fields = Fields::of(node, "limits", "`limits`", known, problems)?;
    let most = PerSecond::MOST;
    let rate = fields.parsed("new_per_second", "a number", problems, |text| {
        PerSecond::new(number(text, most)?).map_err(|nearest| ProblemKind::RoundedRate {
            text: text.to_owned(),
            nearest,
        })
    });
    let burst = fields.parsed("burst", "a number", problems, |text| number(text, most));
    let max_connections = fields.parsed("max_connections", "a number", problems, |text| {
        number(text, MOST_CONNECTIONS)
    });
    let per = fields.parsed("per", "`total` or `client`", problems, |text| {
        one_of_words(text, &["total", "client"]).map(|word| match word {
            "client" => Per::Client,
            _ => Per::Total,
        })
    });
    let reject = fields
        .get("reject")
        .and_then(|node| yes_or_no(node, "reject", problems));
    let has = |key: &str| fields.get(key).is_some();
    // `burst` belongs to a rate, `per` and `reject` to a rate or a number of connections.
    if has("burst") || ((has("per") || has("reject")) && !has("max_connections")) {
        fields.required("new_per_second", problems);
    }
    if rate.is_none() && max_connections.is_none() {
        return None;
    }
    Some(Limits {
        rate: rate.map(|rate| Rate {
            new_per_second: rate.value,
            burst: burst.map_or(rate.value.times(), |burst| burst.value),
        }),
        max_connections: max_connections.map(|most| most.value),
        per: per.map_or(Per::Total, |per| per.value),
        reject: reject.is_some_and(|reject| reject.value),
    })
}

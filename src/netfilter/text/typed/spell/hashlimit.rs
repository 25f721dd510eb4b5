//! Spells `-m hashlimit`.

use super::words::{added, bare};
use crate::netfilter::text::typed::command::{Given, Loaded};
use crate::netfilter::text::typed::error::TypedProblem;
use crate::netfilter::text::typed::values::rates::TypedRate;

/// The options of one address or port, in the order in which iptables-save lists them.
const MODES: [&str; 4] = ["srcip", "srcport", "dstip", "dstport"];

/// Spells the options. A rate in bytes keeps its words.
pub(super) fn options(loaded: &Loaded) -> Result<Vec<Given>, TypedProblem> {
    let missing = |option: &str| TypedProblem::OptionMissing {
        name: "hashlimit".to_owned(),
        option: format!("--{option}"),
    };
    let bad = |option: &str, value: &str, expected| TypedProblem::BadValue {
        option: format!("--{option}"),
        value: value.to_owned(),
        expected,
    };
    let is_rate = |given: &&Given| matches!(given.name, "hashlimit-upto" | "hashlimit-above");
    let rate = loaded.given.iter().find(is_rate);
    let rate = rate.ok_or_else(|| missing("hashlimit-upto"))?;
    if loaded.given("hashlimit-name").is_none() {
        return Err(missing("hashlimit-name"));
    }
    let typed = rate.values.first().map(String::as_str).unwrap_or_default();
    let mut given: Vec<Given> = loaded.given.clone();
    for one in &mut given {
        one.values = one.values.iter().map(|value| bare(value)).collect();
        if one.name == "hashlimit-mode" {
            let typed = one.values.join(",");
            let modes: Vec<&str> = typed.split(',').collect();
            if !modes.iter().all(|mode| MODES.contains(mode)) {
                return Err(bad(
                    one.name,
                    &typed,
                    "a list of srcip, srcport, dstip and dstport",
                ));
            }
            let in_order = MODES.into_iter().filter(|mode| modes.contains(mode));
            one.values = vec![in_order.collect::<Vec<_>>().join(",")];
        }
    }
    // `512kb/s` is a rate in bytes.
    if typed.contains('b') || loaded.given("hashlimit-rate-match").is_some() {
        return Ok(given);
    }
    let bad_rate = || bad(rate.name, typed, "a rate such as 5/second");
    let read = TypedRate::read(typed).ok_or_else(bad_rate)?;
    let (spelled, printed_secs) = read.of_hashlimit().ok_or_else(bad_rate)?;
    let is_above = (rate.name == "hashlimit-above") != rate.is_negated;
    given.retain(|one| !is_rate(&one));
    let name = if is_above {
        "hashlimit-above"
    } else {
        "hashlimit-upto"
    };
    given.extend(added(loaded.extension, name, Some(&spelled)));
    if loaded.given("hashlimit-burst").is_none() {
        given.extend(added(loaded.extension, "hashlimit-burst", Some("5")));
    }
    // The table forgets an entry after the unit of the typed rate, and iptables-save leaves out the unit of the printed one.
    let expire = match loaded.value("hashlimit-htable-expire") {
        Some(typed) => typed.to_owned(),
        None => format!("{}000", read.unit_secs),
    };
    given.retain(|one| one.name != "hashlimit-htable-expire");
    if expire != format!("{printed_secs}000") {
        given.extend(added(
            loaded.extension,
            "hashlimit-htable-expire",
            Some(&expire),
        ));
    }
    Ok(given)
}

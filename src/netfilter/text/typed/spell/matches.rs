//! Spells the options of a match.

use super::lists;
use super::words::{added, bare, clipped, in_order};
use super::{hashlimit, needs};
use crate::net::Family;
use crate::netfilter::limit::Limit;
use crate::netfilter::matches::Probability;
use crate::netfilter::text::typed::command::{Given, Loaded};
use crate::netfilter::text::typed::error::{OrProblem, TypedProblem};
use crate::netfilter::text::typed::extensions::Extension;
use crate::netfilter::text::typed::values::addresses::{Net, iprange};
use crate::netfilter::text::typed::values::ports::Ports;
use crate::netfilter::text::typed::values::rates::TypedRate;
use crate::netfilter::text::typed::values::{icmp, marks, number};
use crate::netfilter::token::Quoted;

/// Spells a match: `-m`, its name and its options.
pub(super) fn words(loaded: &Loaded, family: Family) -> OrProblem<Vec<String>> {
    let name = loaded.extension.name;
    needs::check_options(loaded)?;
    let given = match name {
        "hashlimit" => hashlimit::options(loaded)?,
        "limit" => limit(loaded)?,
        _ => {
            let spelled = loaded.given.iter().map(|given| option(name, given, family));
            let spelled: OrProblem<Vec<_>> = spelled.collect();
            with_defaults(
                loaded.extension,
                spelled?.into_iter().flatten().collect(),
                family,
            )
        }
    };
    if name == "conntrack" && given.is_empty() {
        return Err(TypedProblem::OptionMissing {
            name: name.to_owned(),
            option: "--ctstate".to_owned(),
        });
    }
    let mut words = vec!["-m".to_owned(), name.to_owned()];
    words.extend(in_order(loaded.extension, given));
    Ok(words)
}

fn bad(given: &Given, expected: &'static str) -> TypedProblem {
    TypedProblem::BadValue {
        option: format!("--{}", given.name),
        value: given.values.join(" "),
        expected,
    }
}

/// Spells an option; `None` if it asks for nothing.
fn option(module: &str, given: &Given, family: Family) -> OrProblem<Option<Given>> {
    let with = |values: Vec<String>| {
        Ok(Some(Given {
            values,
            ..given.clone()
        }))
    };
    let Some(value) = given.values.first().map(String::as_str) else {
        return Ok(Some(opening(given)));
    };
    let one = |spelled: Option<String>, expected| match spelled {
        Some(spelled) => with(vec![spelled]),
        None => Err(bad(given, expected)),
    };
    match (module, given.name) {
        ("tcp" | "udp" | "sctp" | "dccp", "sport" | "dport") => {
            let ports = Ports::read(value, ':').ok_or_else(|| bad(given, A_PORT))?;
            if ports.are_all() && !given.is_negated {
                return Ok(None);
            }
            with(vec![ports.spelled(':')])
        }
        ("conntrack", "ctorigsrcport" | "ctorigdstport" | "ctreplsrcport" | "ctrepldstport") => {
            let ports = Ports::read(value, ':');
            one(ports.map(|ports| ports.spelled(':')), A_PORT)
        }
        ("multiport", _) => one(
            lists::multiport(value),
            "a list of at most 15 ports, a range counted twice",
        ),
        ("tcp", "tcp-flags") => {
            let [examined, set] = given.values.as_slice() else {
                return Err(bad(given, FLAGS));
            };
            let flags = [examined, set].map(|words| lists::flags(words));
            match flags {
                [Some(examined), Some(set)] => with(vec![examined, set]),
                _ => Err(bad(given, FLAGS)),
            }
        }
        ("icmp", _) => one(icmp::spelled(value, Family::V4), "a type of ICMP"),
        ("icmp6", _) => one(icmp::spelled(value, Family::V6), "a type of ICMPv6"),
        ("conntrack", "ctstate") => one(lists::states(value), "a list of states"),
        // `-m state` knows no translated connections.
        ("state", _) => one(
            lists::states(value).filter(|spelled| !spelled.contains("NAT")),
            "a list of states",
        ),
        ("conntrack", "ctstatus") => one(
            lists::statuses(value),
            "a list of NONE, EXPECTED, SEEN_REPLY, ASSURED, CONFIRMED",
        ),
        ("conntrack", "ctproto") => one(lists::protocol_number(value), "a protocol"),
        ("conntrack", "ctdir") => one(
            lists::one_of(&["ORIGINAL", "REPLY"], value).filter(|word| word.len() == value.len()),
            "ORIGINAL or REPLY",
        ),
        ("conntrack", "ctorigsrc" | "ctorigdst" | "ctreplsrc" | "ctrepldst") => {
            let spelled = match Net::read(value, family, &format!("--{}", given.name))? {
                Net::All if family == Family::V6 => "::/0".to_owned(),
                Net::All => "0.0.0.0/0".to_owned(),
                Net::Of(net) if net.prefix_len() == net.max_prefix_len() => net.addr().to_string(),
                // Host bits stay, other than those of `-s`.
                Net::Of(net) => net.to_string(),
                Net::Masked(address, mask) => format!("{address}/{mask}"),
            };
            with(vec![spelled])
        }
        ("mark" | "connmark", _) => one(marks::asked(value), "a mark"),
        ("addrtype", _) => one(lists::address_types(value), "a list of address types"),
        ("statistic", "mode") => one(
            lists::one_of(&["random", "nth"], value).filter(|word| word == value),
            "random or nth",
        ),
        ("statistic", "probability") => one(
            Probability::read(value).map(|share| share.to_string()),
            "a number from 0 to 1",
        ),
        ("iprange", _) => one(iprange(value, family), "a range of addresses"),
        ("mac", _) => one(lists::mac(value), "a MAC address"),
        ("length", _) => one(
            Ports::read(value, ':').map(|range| range.spelled(':')),
            "a length or a range of lengths",
        ),
        ("comment", _) => with(vec![Quoted(clipped(value, LONGEST_COMMENT)).to_string()]),
        ("string", "string" | "hex-string") | ("u32", "u32") | ("bpf", "bytecode") => {
            with(vec![always_quoted(value)])
        }
        ("helper", _) | ("cgroup", "path") => with(vec![Quoted(value).to_string()]),
        ("connlimit", "connlimit-above" | "connlimit-upto" | "connlimit-mask")
        | ("recent", "seconds" | "hitcount")
        | ("statistic", "every" | "packet") => {
            one(number(value).map(|number| number.to_string()), "a number")
        }
        _ => with(given.values.iter().map(|value| bare(value)).collect()),
    }
}

const A_PORT: &str = "a port or a range of ports";
const FLAGS: &str = "two lists of TCP flags";
const LONGEST_COMMENT: usize = 255;

/// Spells `--syn` by its flags. Other options without a value are spelled as they are.
fn opening(given: &Given) -> Given {
    let mut spelled = given.clone();
    if given.name == "syn" {
        spelled.name = "tcp-flags";
        spelled.values = vec!["FIN,SYN,RST,ACK".to_owned(), "SYN".to_owned()];
    }
    spelled
}

/// Adds the options that iptables-save prints even if nobody typed them.
fn with_defaults(extension: Extension, mut given: Vec<Given>, family: Family) -> Vec<Given> {
    let has = |given: &[Given], name| given.iter().any(|one| one.name == name);
    let add = |given: &mut Vec<Given>, name, value| given.extend(added(extension, name, value));
    match extension.name {
        "connlimit" => {
            for one in &mut given {
                let opposite = match (one.name, one.is_negated) {
                    ("connlimit-above", true) => "connlimit-upto",
                    ("connlimit-upto", true) => "connlimit-above",
                    _ => continue,
                };
                (one.name, one.is_negated) = (opposite, false);
            }
            if !has(&given, "connlimit-mask") {
                let mask = match family {
                    Family::V4 => "32",
                    Family::V6 => "128",
                };
                add(&mut given, "connlimit-mask", Some(mask));
            }
            if !has(&given, "connlimit-daddr") && !has(&given, "connlimit-saddr") {
                add(&mut given, "connlimit-saddr", None);
            }
        }
        "recent" => {
            if !has(&given, "name") {
                add(&mut given, "name", Some("DEFAULT"));
            }
            if !has(&given, "mask") {
                let mask = match family {
                    Family::V4 => "255.255.255.255",
                    Family::V6 => "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                };
                add(&mut given, "mask", Some(mask));
            }
            if !has(&given, "rdest") && !has(&given, "rsource") {
                add(&mut given, "rsource", None);
            }
        }
        _ => {}
    }
    given
}

/// Spells `-m limit`, whose default is 3 an hour (`XT_LIMIT_AVG` in `extensions/libxt_limit.c`).
fn limit(loaded: &Loaded) -> OrProblem<Vec<Given>> {
    let rate = loaded.value("limit").unwrap_or("3/hour");
    let bad = |option: &str, value: &str, expected| TypedProblem::BadValue {
        option: format!("--{option}"),
        value: value.to_owned(),
        expected,
    };
    let burst = loaded.value("limit-burst");
    let read = TypedRate::read(rate).and_then(|read| Limit::read(&read.spelled(), None));
    read.ok_or_else(|| bad("limit", rate, "a rate such as 5/second"))?;
    let is_burst = |burst: &&str| {
        burst
            .parse()
            .is_ok_and(|burst: u32| (1..=10_000).contains(&burst))
    };
    if let Some(burst) = burst.filter(|burst| !is_burst(burst)) {
        return Err(bad("limit-burst", burst, "a number from 1 to 10000"));
    }
    let spelled = TypedRate::read(rate).and_then(|rate| Limit::read(&rate.spelled(), burst));
    let spelled = spelled.map(|limit| limit.to_string()).unwrap_or_default();
    let mut words = spelled.split(' ');
    let mut given = Vec::new();
    while let (Some(option), value) = (words.next(), words.next()) {
        let name = option.trim_start_matches('-');
        given.extend(added(loaded.extension, name, value));
    }
    Ok(given)
}

fn always_quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted + "\""
}

//! Spells the options of a match.

use super::{bare, hashlimit};
use crate::net::Family;
use crate::netfilter::limit::Limit;
use crate::netfilter::matches::Probability;
use crate::netfilter::text::typed::command::{Given, Loaded};
use crate::netfilter::text::typed::error::TypedProblem;
use crate::netfilter::text::typed::extensions::Extension;
use crate::netfilter::text::typed::values::addresses::{Net, iprange};
use crate::netfilter::text::typed::values::ports::Ports;
use crate::netfilter::text::typed::values::rates::Rate;
use crate::netfilter::text::typed::values::{icmp, marks, number, protocols};
use crate::netfilter::token::Quoted;
use crate::netfilter::tracking::{CtState, CtStatus};

type Result<T> = std::result::Result<T, TypedProblem>;

/// Matches that are nothing without one of these options.
const NEEDED: [(&str, &[&str]); 22] = [
    ("addrtype", &["src-type", "dst-type"]),
    ("cluster", &["cluster-total-nodes"]),
    ("comment", &["comment"]),
    ("connlimit", &["connlimit-above", "connlimit-upto"]),
    ("connmark", &["mark"]),
    ("helper", &["helper"]),
    ("icmp", &["icmp-type"]),
    ("icmp6", &["icmpv6-type"]),
    ("iprange", &["src-range", "dst-range"]),
    ("length", &["length"]),
    ("mac", &["mac-source"]),
    ("mark", &["mark"]),
    ("multiport", &["dports", "sports", "ports"]),
    ("owner", &["uid-owner", "gid-owner", "socket-exists"]),
    ("pkttype", &["pkt-type"]),
    ("recent", &["set", "rcheck", "update", "remove"]),
    ("set", &["match-set"]),
    ("state", &["state"]),
    ("statistic", &["mode"]),
    ("string", &["string", "hex-string"]),
    ("string", &["algo"]),
    ("ttl", &["ttl-eq", "ttl-lt", "ttl-gt"]),
];

/// Options of a match that exclude each other.
const EXCLUSIVE: [(&str, &[&str]); 5] = [
    ("connlimit", &["connlimit-above", "connlimit-upto"]),
    ("connlimit", &["connlimit-saddr", "connlimit-daddr"]),
    ("hashlimit", &["hashlimit-above", "hashlimit-upto"]),
    ("multiport", &["dports", "sports", "ports"]),
    ("recent", &["set", "rcheck", "update", "remove"]),
];

/// Checks that a match has the options that it needs, and none that exclude each other.
fn check_options(loaded: &Loaded) -> Result<()> {
    let name = loaded.extension.name;
    let missing = |option: &str| TypedProblem::OptionMissing {
        name: name.to_owned(),
        option: format!("--{option}"),
    };
    let given = |option: &&&str| loaded.given(option).is_some();
    for (_, options) in NEEDED.iter().filter(|(of, _)| *of == name) {
        if !options.iter().any(|option| given(&option)) {
            return Err(missing(options[0]));
        }
    }
    for (_, options) in EXCLUSIVE.iter().filter(|(of, _)| *of == name) {
        let mut there = options.iter().filter(given);
        if let (Some(one), Some(other)) = (there.next(), there.next()) {
            let spelled = |option: &str| format!("--{option}");
            return Err(TypedProblem::Exclusive(spelled(one), spelled(other)));
        }
    }
    match loaded.value("mode") {
        Some("random") if name == "statistic" && loaded.given("probability").is_none() => {
            Err(missing("probability"))
        }
        Some("nth") if name == "statistic" => check_nth(loaded),
        _ => Ok(()),
    }
}

/// Checks `--every` and `--packet`.
fn check_nth(loaded: &Loaded) -> Result<()> {
    let read = |option: &str| {
        let typed = loaded
            .value(option)
            .ok_or_else(|| TypedProblem::OptionMissing {
                name: loaded.extension.name.to_owned(),
                option: format!("--{option}"),
            })?;
        number(typed).ok_or_else(|| TypedProblem::BadValue {
            option: format!("--{option}"),
            value: typed.to_owned(),
            expected: "a number",
        })
    };
    let (every, packet) = (read("every")?, read("packet")?);
    if packet < every {
        return Ok(());
    }
    Err(TypedProblem::BadValue {
        option: "--packet".to_owned(),
        value: packet.to_string(),
        expected: "a number from 0 up to, without, that of `--every`",
    })
}

/// Spells a match: `-m`, its name and its options.
pub(super) fn words(loaded: &Loaded, family: Family) -> Result<Vec<String>> {
    let name = loaded.extension.name;
    check_options(loaded)?;
    let given = match name {
        "hashlimit" => hashlimit::options(loaded)?,
        "limit" => limit(loaded)?,
        _ => {
            let spelled = loaded.given.iter().map(|given| option(name, given, family));
            let spelled: Result<Vec<_>> = spelled.collect();
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

/// Spells options in the order of iptables-save.
pub(super) fn in_order(extension: Extension, mut given: Vec<Given>) -> Vec<String> {
    // `-m policy` describes one element after another.
    if extension.name != "policy" {
        given.sort_by_key(|given| given.at);
    }
    let mut words = Vec::new();
    for Given {
        name,
        is_negated,
        values,
        ..
    } in given
    {
        words.extend(is_negated.then(|| "!".to_owned()));
        words.push(format!("--{name}"));
        words.extend(values);
    }
    words
}

/// Makes an option that was not typed.
pub(super) fn added(extension: Extension, name: &str, value: Option<&str>) -> Option<Given> {
    let option = extension.option(name)?;
    Some(Given {
        name: option.name(),
        at: option.at,
        is_negated: false,
        values: value.into_iter().map(str::to_owned).collect(),
    })
}

fn bad(given: &Given, expected: &'static str) -> TypedProblem {
    TypedProblem::BadValue {
        option: format!("--{}", given.name),
        value: given.values.join(" "),
        expected,
    }
}

/// Spells an option; `None` if it asks for nothing.
fn option(module: &str, given: &Given, family: Family) -> Result<Option<Given>> {
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
            multiport(value),
            "a list of at most 15 ports, a range counted twice",
        ),
        ("tcp", "tcp-flags") => {
            let [examined, set] = given.values.as_slice() else {
                return Err(bad(given, FLAGS));
            };
            let flags = [examined, set].map(|words| flags(words));
            match flags {
                [Some(examined), Some(set)] => with(vec![examined, set]),
                _ => Err(bad(given, FLAGS)),
            }
        }
        ("icmp", _) => one(icmp::spelled(value, Family::V4), "a type of ICMP"),
        ("icmp6", _) => one(icmp::spelled(value, Family::V6), "a type of ICMPv6"),
        ("conntrack", "ctstate") => one(states(value), "a list of states"),
        // `-m state` knows no translated connections.
        ("state", _) => one(
            states(value).filter(|spelled| !spelled.contains("NAT")),
            "a list of states",
        ),
        ("conntrack", "ctstatus") => one(
            statuses(value),
            "a list of NONE, EXPECTED, SEEN_REPLY, ASSURED, CONFIRMED",
        ),
        ("conntrack", "ctproto") => one(protocol_number(value), "a protocol"),
        ("conntrack", "ctdir") => one(
            one_of(&["ORIGINAL", "REPLY"], value).filter(|word| word.len() == value.len()),
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
        ("addrtype", _) => one(address_types(value), "a list of address types"),
        ("statistic", "mode") => one(
            one_of(&["random", "nth"], value).filter(|word| word == value),
            "random or nth",
        ),
        ("statistic", "probability") => one(
            Probability::read(value).map(|share| share.to_string()),
            "a number from 0 to 1",
        ),
        ("iprange", _) => one(iprange(value, family), "a range of addresses"),
        ("mac", _) => one(mac(value), "a MAC address"),
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

/// Spells `-m limit`, whose default is 3 an hour (`XT_LIMIT_AVG` in extensions/libxt_limit.c).
fn limit(loaded: &Loaded) -> Result<Vec<Given>> {
    let rate = loaded.value("limit").unwrap_or("3/hour");
    let bad = |option: &str, value: &str, expected| TypedProblem::BadValue {
        option: format!("--{option}"),
        value: value.to_owned(),
        expected,
    };
    let burst = loaded.value("limit-burst");
    let read = Rate::read(rate).and_then(|read| Limit::read(&read.spelled(), None));
    read.ok_or_else(|| bad("limit", rate, "a rate such as 5/second"))?;
    let is_burst = |burst: &&str| {
        burst
            .parse()
            .is_ok_and(|burst: u32| (1..=10_000).contains(&burst))
    };
    if let Some(burst) = burst.filter(|burst| !is_burst(burst)) {
        return Err(bad("limit-burst", burst, "a number from 1 to 10000"));
    }
    let spelled = Rate::read(rate).and_then(|rate| Limit::read(&rate.spelled(), burst));
    let spelled = spelled.map(|limit| limit.to_string()).unwrap_or_default();
    let mut words = spelled.split(' ');
    let mut given = Vec::new();
    while let (Some(option), value) = (words.next(), words.next()) {
        let name = option.trim_start_matches('-');
        given.extend(added(loaded.extension, name, value));
    }
    Ok(given)
}

fn multiport(typed: &str) -> Option<String> {
    let ports: Vec<Ports> = typed
        .split(',')
        .map(|ports| Ports::read(ports, ':'))
        .collect::<Option<_>>()?;
    let slots: usize = ports
        .iter()
        .map(|ports| if ports.is_one() { 1 } else { 2 })
        .sum();
    let spelled: Vec<String> = ports.iter().map(|ports| ports.spelled(':')).collect();
    (slots <= 15).then(|| spelled.join(","))
}

/// In the order of their bits.
const FLAG_NAMES: [&str; 6] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG"];

/// Spells a list of TCP flags, `ALL` or `NONE`.
fn flags(typed: &str) -> Option<String> {
    let mut asked = [false; FLAG_NAMES.len()];
    for word in typed.split(',') {
        let word = word.to_ascii_uppercase();
        match word.as_str() {
            "ALL" => asked = [true; FLAG_NAMES.len()],
            "NONE" => {}
            word => asked[FLAG_NAMES.iter().position(|name| *name == word)?] = true,
        }
    }
    let names = FLAG_NAMES.iter().zip(asked).filter(|(_, asked)| *asked);
    let names: Vec<&str> = names.map(|(name, _)| *name).collect();
    Some(if names.is_empty() {
        "NONE".to_owned()
    } else {
        names.join(",")
    })
}

/// Returns the name that a word, in any case, is or begins.
fn one_of(names: &[&'static str], word: &str) -> Option<String> {
    let begins = |name: &&&str| {
        let start = name.get(..word.len());
        !word.is_empty() && start.is_some_and(|start| start.eq_ignore_ascii_case(word))
    };
    names.iter().find(begins).map(|name| (*name).to_owned())
}

/// Spells a list in the order of the names.
fn listed(names: &[&'static str], typed: &str) -> Option<String> {
    let words: Vec<String> = typed
        .split(',')
        .map(|word| one_of(names, word))
        .collect::<Option<_>>()?;
    let in_order = names
        .iter()
        .filter(|name| words.iter().any(|word| word == *name));
    Some(in_order.copied().collect::<Vec<&str>>().join(","))
}

fn states(typed: &str) -> Option<String> {
    listed(&CtState::ALL.map(|(_, name)| name), typed)
}

fn statuses(typed: &str) -> Option<String> {
    let spelled = listed(&CtStatus::ALL.map(|(_, name)| name), typed)?;
    // NONE has no bit, so that it is printed alone.
    Some(match spelled.strip_prefix("NONE,") {
        Some(others) => others.to_owned(),
        None => spelled,
    })
}

/// In the order of their numbers (`rtn_names` in extensions/libxt_addrtype.c).
const ADDRESS_TYPES: [&str; 12] = [
    "UNSPEC",
    "UNICAST",
    "LOCAL",
    "BROADCAST",
    "ANYCAST",
    "MULTICAST",
    "BLACKHOLE",
    "UNREACHABLE",
    "PROHIBIT",
    "THROW",
    "NAT",
    "XRESOLVE",
];

fn address_types(typed: &str) -> Option<String> {
    listed(&ADDRESS_TYPES, typed)
}

fn protocol_number(typed: &str) -> Option<String> {
    protocols::number(typed).map(|number| number.to_string())
}

fn mac(typed: &str) -> Option<String> {
    let bytes: Vec<u8> = typed
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect::<Option<_>>()?;
    let spelled: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    (bytes.len() == 6).then(|| spelled.join(":"))
}

/// Returns what the kernel keeps of a text.
pub(super) fn clipped(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest)]
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

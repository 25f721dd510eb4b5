//! The options that a match needs, and those that exclude each other.

use crate::netfilter::text::typed::command::Loaded;
use crate::netfilter::text::typed::error::{OrProblem, TypedProblem};
use crate::netfilter::text::typed::values::number;

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
pub fn check_options(loaded: &Loaded) -> OrProblem<()> {
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
fn check_nth(loaded: &Loaded) -> OrProblem<()> {
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

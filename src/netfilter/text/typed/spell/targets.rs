//! Spells the options of a target.

use super::words::{added, bare, clipped, in_order};
use crate::net::Family;
use crate::netfilter::target::DEFAULT_LEVEL;
use crate::netfilter::text::typed::command::{Given, Loaded};
use crate::netfilter::text::typed::error::{OrProblem, TypedProblem};
use crate::netfilter::text::typed::values::addresses::{nat_ports, nat_to};
use crate::netfilter::text::typed::values::{marks, number};
use crate::netfilter::token::Quoted;

/// Targets that are nothing without one of these options.
const NEEDED: [(&str, &[&str]); 10] = [
    ("CLASSIFY", &["set-class"]),
    (
        "CONNMARK",
        &[
            "set-xmark",
            "set-mark",
            "and-mark",
            "or-mark",
            "xor-mark",
            "save-mark",
            "restore-mark",
        ],
    ),
    ("DNAT", &["to-destination"]),
    (
        "MARK",
        &["set-xmark", "set-mark", "and-mark", "or-mark", "xor-mark"],
    ),
    ("NETMAP", &["to"]),
    ("SET", &["add-set", "del-set", "map-set"]),
    ("SNAT", &["to-source"]),
    ("TCPMSS", &["set-mss", "clamp-mss-to-pmtu"]),
    ("TEE", &["gateway"]),
    ("TPROXY", &["on-port"]),
];

/// Spells the words behind the name of a target.
pub(super) fn options(loaded: &Loaded, family: Family) -> OrProblem<Vec<String>> {
    let name = loaded.extension.name;
    let needed = NEEDED.iter().find(|(of, _)| *of == name);
    if let Some((_, options)) = needed
        && !options.iter().any(|option| loaded.given(option).is_some())
    {
        return Err(TypedProblem::TargetOptionMissing {
            name: name.to_owned(),
            option: format!("--{}", options[0]),
        });
    }
    let given = match name {
        "REJECT" => reject(loaded, family)?,
        "MARK" => mark(loaded)?,
        "CONNMARK" => connmark(loaded)?,
        _ => {
            let spelled = loaded.given.iter().map(|given| option(name, given, family));
            let spelled: OrProblem<Vec<_>> = spelled.collect();
            spelled?.into_iter().flatten().collect()
        }
    };
    Ok(in_order(loaded.extension, given))
}

fn bad(given: &Given, expected: &'static str) -> TypedProblem {
    TypedProblem::BadValue {
        option: format!("--{}", given.name),
        value: given.values.join(" "),
        expected,
    }
}

/// Spells an option; `None` if it is the default, which iptables-save leaves out.
fn option(target: &str, given: &Given, family: Family) -> OrProblem<Option<Given>> {
    let Some(value) = given.values.first().map(String::as_str) else {
        return Ok(Some(given.clone()));
    };
    let one = |spelled: Option<String>, expected| match spelled {
        Some(spelled) => Ok(Some(Given {
            values: vec![spelled],
            ..given.clone()
        })),
        None => Err(bad(given, expected)),
    };
    match (target, given.name) {
        ("DNAT" | "SNAT", _) => one(
            nat_to(value, family).map(|to| to.spelled),
            "an address, a range of addresses, or one with ports",
        ),
        ("REDIRECT" | "MASQUERADE", _) => one(nat_ports(value), "a port or a range of ports"),
        ("LOG", "log-prefix") => one(
            Some(Quoted(clipped(value, LONGEST_PREFIX)).to_string()).filter(|_| !value.is_empty()),
            "a text",
        ),
        ("LOG", "log-level") => match level(value) {
            Some(DEFAULT_LEVEL) => Ok(None),
            level => one(level.map(|level| level.to_string()), "a level of syslog"),
        },
        ("NFLOG", "nflog-prefix") | ("ULOG", "ulog-prefix") => {
            one(Some(Quoted(value).to_string()), "a text")
        }
        ("TCPMSS", _) => one(
            number(value)
                .and_then(|bytes| u16::try_from(bytes).ok())
                .map(|bytes| bytes.to_string()),
            "a number of bytes",
        ),
        _ => Ok(Some(Given {
            values: given.values.iter().map(|value| bare(value)).collect(),
            ..given.clone()
        })),
    }
}

const LONGEST_PREFIX: usize = 29;

/// The names of syslog's levels (`xtopt_parse_sysloglvl` in libxtables).
const LEVELS: [(&str, u8); 9] = [
    ("emerg", 0),
    ("panic", 0),
    ("alert", 1),
    ("crit", 2),
    ("error", 3),
    ("warning", 4),
    ("notice", 5),
    ("info", 6),
    ("debug", 7),
];

fn level(typed: &str) -> Option<u8> {
    if let Some(number) = number(typed) {
        return u8::try_from(number).ok().filter(|level| *level < 8);
    }
    let mut levels = LEVELS.iter();
    let named = levels.find(|(name, _)| name.eq_ignore_ascii_case(typed));
    named.map(|(_, level)| *level)
}

/// The answers of REJECT, each with its short name (`reject_table` in `extensions/libipt_REJECT.c` and
/// `libip6t_REJECT.c`). A name may be abbreviated.
const REJECT_V4: [(&str, &str); 8] = [
    ("icmp-net-unreachable", "net-unreach"),
    ("icmp-host-unreachable", "host-unreach"),
    ("icmp-proto-unreachable", "proto-unreach"),
    ("icmp-port-unreachable", "port-unreach"),
    ("icmp-net-prohibited", "net-prohib"),
    ("icmp-host-prohibited", "host-prohib"),
    ("tcp-reset", "tcp-rst"),
    ("icmp-admin-prohibited", "admin-prohib"),
];

const REJECT_V6: [(&str, &str); 7] = [
    ("icmp6-no-route", "no-route"),
    ("icmp6-adm-prohibited", "adm-prohibited"),
    ("icmp6-addr-unreachable", "addr-unreach"),
    ("icmp6-port-unreachable", "port-unreach"),
    ("tcp-reset", "tcp-reset"),
    ("icmp6-policy-fail", "policy-fail"),
    ("icmp6-reject-route", "reject-route"),
];

fn reject(loaded: &Loaded, family: Family) -> OrProblem<Vec<Given>> {
    let (answers, default): (&[_], _) = match family {
        Family::V4 => (&REJECT_V4, "icmp-port-unreachable"),
        Family::V6 => (&REJECT_V6, "icmp6-port-unreachable"),
    };
    let spelled = match loaded.given("reject-with") {
        None => default,
        Some(given) => {
            let typed = given.values.join(" ").to_ascii_lowercase();
            let mut answers = answers.iter();
            let meant = |(name, short): &&(&str, &str)| {
                !typed.is_empty() && (name.starts_with(&typed) || short.starts_with(&typed))
            };
            let (name, _) = answers
                .find(meant)
                .ok_or_else(|| bad(given, "an answer of REJECT"))?;
            *name
        }
    };
    Ok(added(loaded.extension, "reject-with", Some(spelled))
        .into_iter()
        .collect())
}

fn mark(loaded: &Loaded) -> OrProblem<Vec<Given>> {
    let mut given = loaded.given.iter();
    let one = given.next().filter(|_| loaded.given.len() == 1);
    let one = one.ok_or_else(|| TypedProblem::Twice("--set-mark".to_owned()))?;
    set_xmark(loaded, one).map(|given| given.into_iter().collect())
}

fn set_xmark(loaded: &Loaded, given: &Given) -> OrProblem<Option<Given>> {
    let value = given.values.first().map(String::as_str).unwrap_or_default();
    let spelled = marks::set_xmark(given.name, value).ok_or_else(|| bad(given, "a mark"))?;
    Ok(added(loaded.extension, "set-xmark", Some(&spelled)))
}

fn connmark(loaded: &Loaded) -> OrProblem<Vec<Given>> {
    let extension = loaded.extension;
    let copies = ["save-mark", "restore-mark"];
    let is_copy = copies.iter().any(|name| loaded.given(name).is_some());
    let mut spelled = Vec::new();
    let mut masks = [u32::MAX; 2];
    for given in &loaded.given {
        let value = given.values.first().map(String::as_str).unwrap_or_default();
        match given.name {
            "save-mark" | "restore-mark" => spelled.push(given.clone()),
            "nfmask" | "ctmask" | "mask" if is_copy => {
                let mask = number(value).ok_or_else(|| bad(given, "a mask"))?;
                match given.name {
                    "nfmask" => masks[0] = mask,
                    "ctmask" => masks[1] = mask,
                    _ => masks = [mask; 2],
                }
            }
            "left-shift-mark" | "right-shift-mark" => spelled.push(Given {
                values: vec![
                    number(value)
                        .ok_or_else(|| bad(given, "a number of bits"))?
                        .to_string(),
                ],
                ..given.clone()
            }),
            _ => spelled.extend(set_xmark(loaded, given)?),
        }
    }
    if is_copy {
        for (name, mask) in ["nfmask", "ctmask"].into_iter().zip(masks) {
            spelled.extend(added(extension, name, Some(&format!("{mask:#x}"))));
        }
    }
    Ok(spelled)
}

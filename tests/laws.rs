//! What holds for every spec, shown on generated ones.

mod invariants;
mod oracle;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use nvactl::diff;
use nvactl::net::Family;
use nvactl::parse::parse;
use nvactl::plan::plan;
use nvactl::ruleset::Ruleset;
use nvactl::spec::{self, ForwardSet};
use nvactl::splice::splice;
use oracle::{Defaults, Firewall, Forward, Interface, Port, Protocol, Spec, Target};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Ports from a block of ten for each forward, so that listeners do not meet.
fn forward(n: u16) -> impl Strategy<Value = Forward> {
    let base = 1000 + n * 10;
    (
        "[A-Za-z0-9][A-Za-z0-9_.-]{0,20}",
        (option::of(any::<bool>()), option::of(any::<bool>())),
        (0..5u16, 0..5u16, 0..4u8, any::<bool>()),
        (1..=250u8, 1..=250u8),
        0..4u8,
        1..=60000u16,
    )
        .prop_map(
            move |(name, (protocol, enabled), (first, more, address, quoted), host, kind, to)| {
                let ports = if more == 0 {
                    (base + first).to_string()
                } else {
                    format!("{}-{}", base + first, base + first + more)
                };
                let listen = match (address, quoted) {
                    (0, _) => Port::Text(format!("10.3.0.5:{ports}")),
                    (_, true) => Port::Text(ports),
                    (..) => ports.parse().map_or(Port::Text(ports), Port::Number),
                };
                let address = Ipv4Addr::new(10, 224, host.0, host.1);
                let target = match kind {
                    0 => Target {
                        ilb: Some(address.to_string()),
                        pod: None,
                    },
                    1 => Target {
                        ilb: Some(format!("{address}:{to}")),
                        pod: None,
                    },
                    2 => Target {
                        ilb: None,
                        pod: Some(format!("{address}:{to}")),
                    },
                    _ => Target {
                        ilb: None,
                        pod: Some(format!("{address}:{to}-{}", to + more)),
                    },
                };
                Forward {
                    // Unique, whatever was generated.
                    name: format!("{name}-{n}"),
                    enabled,
                    listen,
                    protocol: protocol.map(self::protocol),
                    target,
                }
            },
        )
}

prop_compose! {
    fn any_spec()(
        forwards in vec(any::<bool>(), 0..12).prop_flat_map(|slots| {
            let used = slots.iter().zip(0u16..).filter(|(used, _)| **used);
            used.map(|(_, n)| forward(n)).collect::<Vec<_>>()
        }),
        two in any::<bool>(),
        masquerade in any::<bool>(),
        policy in option::of(prop_oneof![Just("drop"), Just("keep")]),
        version in option::of(Just(1)),
        defaults in option::of(option::of(any::<bool>())),
    ) -> Spec {
        let interface = if two {
            Interface::Two { ingress: "eth0".into(), egress: "ens5.100".into() }
        } else {
            Interface::One("eth0".into())
        };
        Spec {
            version,
            firewall: Firewall {
                interface,
                snat: if masquerade { "masquerade".into() } else { "10.3.0.4".into() },
                forward_policy: policy.map(str::to_owned),
            },
            defaults: defaults.map(|udp| Defaults { protocol: udp.map(protocol) }),
            forwards,
        }
    }
}

fn protocol(udp: bool) -> Protocol {
    if udp { Protocol::Udp } else { Protocol::Tcp }
}

/// Two specs as an editor leaves them: forwards gone, come, moved and changed, most as they were.
fn two_specs() -> impl Strategy<Value = (Spec, Spec)> {
    (any_spec(), any_spec(), vec(0..6u8, 12), any::<bool>()).prop_map(|(a, b, fate, firewall)| {
        let mut after = a.clone();
        if firewall {
            after.firewall = b.firewall;
        }
        after.forwards.clear();
        for (forward, fate) in a.forwards.iter().zip(fate) {
            match fate {
                0 => {}
                1 => after.forwards.insert(0, forward.clone()),
                2 => {
                    let mut changed = forward.clone();
                    changed.target = Target {
                        ilb: Some("10.225.0.1:1".into()),
                        pod: None,
                    };
                    after.forwards.push(changed);
                }
                _ => after.forwards.push(forward.clone()),
            }
        }
        let free = |forward: &Forward| {
            let block = |f: &Forward| f.name.rsplit('-').next().map(str::to_owned);
            a.forwards
                .iter()
                .all(|other| block(other) != block(forward))
        };
        let new: Vec<Forward> = b.forwards.into_iter().filter(free).collect();
        after
            .forwards
            .splice(after.forwards.len() / 2..after.forwards.len() / 2, new);
        (a, after)
    })
}

fn read(spec: &Spec) -> ForwardSet {
    let text = serde_yaml::to_string(spec).expect("it can be written");
    spec::read(text.as_bytes()).unwrap_or_else(|problems| panic!("{text}\n{problems:?}"))
}

/// Rules of other hands, some of them between nvactl's.
fn foreign() -> Ruleset {
    parse(
        "*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:DOCKER-USER - [0:0]\n\
         -A FORWARD -j DOCKER-USER\n-A FORWARD ! -i eth0 -m physdev --physdev-is-bridged -j LOG --log-prefix \"in: \"\n\
         -A DOCKER-USER -j RETURN\nCOMMIT\n\
         *nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE\nCOMMIT\n",
    )
    .expect("it is readable")
}

proptest! {
    #[test]
    fn the_two_readers_agree(spec in any_spec()) {
        let text = serde_yaml::to_string(&spec).expect("it can be written");
        let read_back: Spec = serde_yaml::from_str(&text).expect("the other reader reads it");
        prop_assert_eq!(&read_back, &spec);
        prop_assert_eq!(oracle::of(&read(&spec)), oracle::normal(spec));
    }

    #[test]
    fn what_is_printed_reads_back_the_same(spec in any_spec()) {
        let rules = plan(&read(&spec), Family::V4).with_builtin_chains();
        prop_assert_eq!(parse(&rules.to_string()).expect("it is readable"), rules);
    }

    #[test]
    fn nothing_separates_a_ruleset_from_itself(spec in any_spec()) {
        let want = plan(&read(&spec), Family::V4);
        prop_assert!(diff::changes(&want, &want).is_empty());
        prop_assert_eq!(diff::changes(&want, &want).script(), "");
    }

    /// The script leads from any spec to any other, beside foreign rules, and touches none of them.
    #[test]
    fn the_script_leads_to_what_is_wanted((before, after) in two_specs()) {
        let mut host = Restore::new(&foreign());
        let (before, after) = (plan(&read(&before), Family::V4), plan(&read(&after), Family::V4));
        for want in [&before, &after, &Ruleset::default()] {
            let have = host.ruleset();
            host.load(&diff::changes(&have, want).script());
            let left = diff::changes(&host.ruleset(), want).report();
            prop_assert_eq!(left, "");
            prop_assert_eq!(host.foreign(), Restore::new(&foreign()).foreign());
        }
    }

    /// Undoing, too, is a change: back to what nvactl owned before.
    #[test]
    fn the_way_back_ends_where_it_began((before, after) in two_specs()) {
        let (before, after) = (plan(&read(&before), Family::V4), plan(&read(&after), Family::V4));
        let mut host = Restore::new(&foreign());
        host.load(&diff::changes(&host.ruleset(), &before).script());
        let start = host.ruleset();
        host.load(&diff::changes(&start, &after).script());
        host.load(&diff::changes(&host.ruleset(), &diff::own(&start)).script());
        prop_assert_eq!(host.ruleset(), start);
    }

    #[test]
    fn a_spliced_file_holds_both_whatever_it_held_before(before in any_spec(), after in any_spec()) {
        let own = |spec: &Spec| diff::own(&plan(&read(spec), Family::V4).with_builtin_chains());
        let once = splice(&foreign().to_string(), &own(&before)).expect("it is readable");
        let twice = splice(&once, &own(&after)).expect("it is readable");
        let direct = splice(&foreign().to_string(), &own(&after)).expect("it is readable");
        prop_assert_eq!(&twice, &direct);
        let ruleset = parse(&twice).expect("it is readable");
        prop_assert_eq!(diff::changes(&ruleset, &own(&after)).report(), "");
    }

    /// Whatever bytes come, the answer is a spec or at least one problem inside of the text.
    #[test]
    fn any_bytes_keep_the_laws(text in vec(any::<u8>(), 0..300)) {
        invariants::of_spec(&text);
        invariants::of_rules(&String::from_utf8_lossy(&text));
    }

    #[test]
    fn any_sound_spec_keeps_the_laws(spec in any_spec()) {
        let text = serde_yaml::to_string(&spec).expect("it can be written");
        invariants::of_spec(text.as_bytes());
        invariants::of_rules(&plan(&read(&spec), Family::V4).with_builtin_chains().to_string());
    }

    /// A sound spec with a few bytes exchanged is broken in the ways that people break specs.
    #[test]
    fn any_slip_keeps_the_laws(
        spec in any_spec(),
        slips in vec((any::<prop::sample::Index>(), "[ -~\n\tä]{0,2}"), 1..4),
    ) {
        let mut text = serde_yaml::to_string(&spec).expect("it can be written");
        for (place, slip) in slips {
            let at = text.floor_char_boundary(place.index(text.len()));
            let end = text.ceil_char_boundary(at + 1);
            text.replace_range(at..end, &slip);
        }
        invariants::of_spec(text.as_bytes());
    }

    #[test]
    fn any_words_of_a_spec_keep_the_laws(
        words in vec(prop_oneof![
            Just("firewall:"), Just("forwards:"), Just("name:"), Just("listen:"), Just("target:"),
            Just("pod:"), Just("ilb:"), Just("interface:"), Just("snat:"), Just(" "), Just("\n"),
            Just("\n  "), Just("- "), Just("{"), Just("}"), Just("["), Just("]"), Just(","),
            Just("10.0.0.1:80"), Just("80"), Just("&a"), Just("*a"), Just("!!x"), Just("ä"), Just("\t"),
            Just("'"), Just("\""), Just("|"), Just("?"), Just(": "), Just("#"), Just("---\n"),
        ], 0..60)
    ) {
        invariants::of_spec(words.concat().as_bytes());
    }

    #[test]
    fn any_words_of_rules_keep_the_laws(
        lines in vec(vec(prop_oneof![
            Just("-A"), Just("FORWARD"), Just("INPUT"), Just("NVACTL-FORWARD"), Just("NVACTL-PREROUTING"),
            Just("PREROUTING"), Just("MINE"), Just("-j"), Just("-g"), Just("-m"), Just("-p"), Just("tcp"), Just("!"),
            Just("--dport"), Just("80"), Just("80:90"), Just("-s"), Just("10.0.0.1/32"), Just("-i"), Just("eth0"),
            Just("comment"), Just("--comment"), Just("web"), Just("\"a b\""), Just("conntrack"),
            Just("--ctstate"), Just("NEW"), Just("DNAT"), Just("--to-destination"), Just("ACCEPT"),
        ], 0..9), 0..9)
    ) {
        let lines: Vec<String> = lines.iter().map(|words| words.join(" ")).collect();
        for table in ["filter", "nat"] {
            let rules = lines.iter().filter(|line| line.starts_with("-A ") && line.len() > 4);
            let rules: Vec<&str> = rules.map(String::as_str).collect();
            let text = format!("*{table}\n:MINE - [0:0]\n{}\nCOMMIT\n", rules.join("\n"));
            invariants::of_rules(&text);
        }
    }

    /// A rule of other hands prints as it was read, word for word.
    #[test]
    fn an_unknown_rule_is_kept_word_for_word(
        words in vec("(-[a-z]|--[a-z-]{2,8}|!|[a-z0-9./,:]{1,9}|\"[a-z \\\\\\\\]{0,6}\")", 0..10)
    ) {
        let rule = words.join(" ");
        let text = format!("*filter\n-A INPUT {rule}").trim_end().to_owned() + "\nCOMMIT\n";
        if let Ok(ruleset) = parse(&text) {
            let printed = ruleset.to_string();
            prop_assert_eq!(parse(&printed).expect("it is readable"), ruleset);
        }
    }
}

/// iptables-restore `--noflush`, as far as nvactl's scripts use it: chains are lists of lines.
struct Restore {
    tables: BTreeMap<String, BTreeMap<String, (String, Vec<String>)>>,
}

impl Restore {
    fn new(ruleset: &Ruleset) -> Self {
        let mut restore = Self {
            tables: BTreeMap::new(),
        };
        restore.load(&ruleset.to_string());
        restore
    }

    fn load(&mut self, script: &str) {
        let mut table = String::new();
        for line in script.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name.to_owned();
                continue;
            }
            let chains = self.tables.entry(table.clone()).or_default();
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["COMMIT"] => {}
                [chain, policy, _] if chain.starts_with(':') => {
                    let chain = chains.entry(chain[1..].to_owned()).or_default();
                    chain.0 = (*policy).to_owned();
                    if *policy == "-" {
                        chain.1.clear();
                    }
                }
                ["-A", chain, ..] => {
                    let rules = &mut chains.entry((*chain).to_owned()).or_default().1;
                    rules.push(words[2..].join(" "));
                }
                ["-I", chain, at, ..] => {
                    let rules = &mut chains.entry((*chain).to_owned()).or_default().1;
                    rules.insert(at.parse::<usize>().unwrap() - 1, words[3..].join(" "));
                }
                ["-D", chain, at] if at.parse::<usize>().is_ok() => {
                    chains
                        .get_mut(*chain)
                        .unwrap()
                        .1
                        .remove(at.parse::<usize>().unwrap() - 1);
                }
                ["-D", chain, ..] => {
                    let rules = &mut chains.get_mut(*chain).unwrap().1;
                    let spelled = words[2..].join(" ");
                    let at = rules
                        .iter()
                        .position(|rule| *rule == spelled)
                        .expect("it is there");
                    rules.remove(at);
                }
                ["-F", chain] => chains.get_mut(*chain).unwrap().1.clear(),
                ["-X", chain] => {
                    let leads_here = |rule: &String| rule.ends_with(&format!("-j {chain}"));
                    assert!(
                        !chains
                            .values()
                            .any(|(_, rules)| rules.iter().any(leads_here))
                    );
                    assert!(chains.remove(*chain).unwrap().1.is_empty());
                }
                _ => panic!("not a line that nvactl writes: {line}"),
            }
        }
    }

    fn ruleset(&self) -> Ruleset {
        let mut text = String::new();
        for (table, chains) in &self.tables {
            text += &format!("*{table}\n");
            for (name, (policy, _)) in chains {
                let policy = match policy.as_str() {
                    "" => "ACCEPT",
                    policy => policy,
                };
                text += &format!(":{name} {policy} [0:0]\n");
            }
            for (name, (_, rules)) in chains {
                rules
                    .iter()
                    .for_each(|rule| text += &format!("-A {name} {rule}\n"));
            }
            text += "COMMIT\n";
        }
        parse(&text).expect("it is readable")
    }

    /// Every line that is not nvactl's.
    fn foreign(&self) -> String {
        let text = self.ruleset().to_string();
        let lines = text
            .lines()
            .filter(|line| !line.contains("NVACTL-") && !line.starts_with(":FORWARD"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

//! Properties of all specs, tested with generated specs.

mod generate;
mod invariants;
mod matcher;
mod oracle;
mod rules;
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use generate::{any_spec, two_specs};
use nvactl::diff;
use nvactl::diff::drift::{compare, compare_specs};
use nvactl::forwards::{ForwardSet, Layout, PacketTest, Reaches, suggested};
use nvactl::import::{Account, KnownRoutes, RuleFate, import};
use nvactl::net::{Family, Interface};
use nvactl::netfilter::counters::Counters;
use nvactl::netfilter::matches::Match;
use nvactl::netfilter::names::{ChainName, TableName};
use nvactl::netfilter::ruleset::Ruleset;
use nvactl::netfilter::target::Target;
use nvactl::netfilter::text::parse::parse;
use nvactl::netfilter::text::typed::read_typed;
use nvactl::netfilter::token::Token;
use nvactl::ops::splice::without_own;
use nvactl::plan::plan;
use nvactl::plan::unplan::unplan;
use nvactl::yaml::{self, Comments, NetworkFile, spec_text};
use oracle::{Networks, Spec};
use proptest::collection::vec;
use proptest::prelude::*;

fn read(spec: &Spec) -> ForwardSet {
    let text = serde_yaml::to_string(spec).expect("it can be written");
    yaml::read(text.as_bytes()).unwrap_or_else(|problems| panic!("{text}\n{problems:?}"))
}

/// Returns foreign rules, in the same built-in chains as nvactl's jumps.
fn foreign() -> Ruleset {
    parse(
        "*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:DOCKER-USER - [0:0]\n\
         -A FORWARD -j DOCKER-USER\n-A FORWARD ! -i eth0 -m physdev --physdev-is-bridged -j LOG --log-prefix \"in: \"\n\
         -A DOCKER-USER -j RETURN\nCOMMIT\n\
         *nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE\nCOMMIT\n\
         *mangle\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n\
         -A FORWARD -o wg0 -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu\nCOMMIT\n",
    )
    .expect("it is readable")
}

/// An option that the second reader does not know would be in no generated spec.
#[test]
fn the_second_reader_knows_every_option() {
    let path = "tests/cases/defaults-of-every-option/spec.yaml";
    let text = std::fs::read_to_string(path).expect("the case is there");
    let spec: Spec = serde_yaml::from_str(&text).expect("it is a spec");
    let read: serde_yaml::Value = serde_yaml::from_str(&text).expect("it is YAML");
    assert_eq!(serde_yaml::to_value(spec).expect("it is a value"), read);
}

proptest! {
    #[test]
    fn nvactl_and_serde_read_a_spec_alike(spec in any_spec()) {
        let text = serde_yaml::to_string(&spec).expect("it can be written");
        let read_back: Spec = serde_yaml::from_str(&text).expect("the other reader reads it");
        prop_assert_eq!(&read_back, &spec);
        prop_assert_eq!(oracle::of(&read(&spec)), oracle::normal(spec));
    }

    #[test]
    fn a_spec_that_is_written_reads_back(spec in any_spec()) {
        let without_places = |mut set: ForwardSet| {
            set.tests.iter_mut().for_each(|test| test.place = None);
            set
        };
        let set = without_places(read(&spec));
        let text = spec_text(&set, &Comments::default());
        let again = yaml::read(text.as_bytes()).map_err(|problems| TestCaseError::fail(format!("{text}\n{problems:?}")))?;
        prop_assert_eq!(without_places(again), set, "{}", text);
    }

    #[test]
    fn importing_the_plan_gives_the_same_plan(spec in any_spec()) {
        let set = read(&spec);
        // nvactl loads no rules of a family that a spec does not have.
        // A tree keeps the chain of the firewall's `snat` even without a forward. Nobody can tell whose it is then.
        let is_told = |family: &Family| set.has_forwards(*family) || set.firewall.layout != Some(Layout::Tree);
        let planned = Family::ALL.into_iter().filter(|family| set.has(*family) && is_told(family));
        let planned: Vec<_> = planned.map(|family| (family, plan(&set, family))).collect();
        let draft = import(&planned, &KnownRoutes::default());
        let taken = |one: &Account| matches!(one.fate, RuleFate::Taken { .. });
        prop_assert!(draft.accounts.iter().all(taken));
        let text = spec_text(&draft.set, &Comments::default());
        let again = yaml::read(text.as_bytes()).map_err(|problems| TestCaseError::fail(format!("{text}\n{problems:?}")))?;
        for (family, rules) in &planned {
            prop_assert_eq!(plan(&again, *family).to_string(), rules.to_string(), "{}", text);
        }
    }

    /// The forwards are the same whether networks stand in a list, have a name, or lie in a file.
    #[test]
    fn a_name_and_a_file_are_as_good_as_a_list(spec in any_spec(), crlf in any::<bool>()) {
        let set = read(&spec);
        prop_assert_eq!(&read(&oracle::without_names(spec.clone())), &set);
        let mut with_files = spec;
        let mut texts = BTreeMap::new();
        for (name, networks) in with_files.networks.iter_mut().flatten() {
            let file = format!("{name}.txt");
            if let Networks::List(nets) = networks {
                let end = if crlf { "\r\n" } else { "\n" };
                texts.insert(file.clone(), format!("# {name}{end}{}", nets.join(end)));
            }
            *networks = Networks::File { file };
        }
        let text = serde_yaml::to_string(&with_files).expect("it can be written");
        let paths = yaml::network_paths(&[text.as_bytes()]);
        prop_assert!(paths.iter().eq(texts.keys()));
        let files: Vec<NetworkFile> = texts
            .iter()
            .map(|(path, text)| NetworkFile { path, content: Ok(text.as_bytes()) })
            .collect();
        let reading = yaml::examine_with(&[text.as_bytes()], &files);
        prop_assert_eq!(reading.sound(), Ok(set));
    }

    /// A file of tests may name the networks of the spec.
    #[test]
    fn written_tests_read_back_the_same(spec in any_spec()) {
        let (set, mut other) = (read(&spec), spec);
        let text = yaml::tests_text(&set.tests);
        let interfaces: Vec<&Interface> = set.tests.iter().filter_map(|test| test.ingress.as_ref()).collect();
        let file =
            yaml::TestFile { text: text.as_bytes(), networks: &[], spec: &[], spec_networks: &[], interfaces: &interfaces };
        let reading = yaml::examine_tests(&file);
        prop_assert_eq!(&reading.problems, &[]);
        prop_assert_eq!(reading.tests.as_ref(), Some(&set.tests));
        // Every reader of YAML takes the values for the same.
        let tests: BTreeMap<String, Vec<oracle::PacketTest>> = serde_yaml::from_str(&text).expect("it is YAML");
        let mut written = other.clone();
        written.tests = tests["tests"].clone();
        prop_assert_eq!(read(&written).tests, set.tests.clone());
        // The names of networks are those of the spec.
        let tests = serde_yaml::to_string(&BTreeMap::from([("tests", std::mem::take(&mut other.tests))]));
        let (text, spec) = (tests.expect("it can be written"), serde_yaml::to_string(&other).expect("it can be written"));
        let file = yaml::TestFile { text: text.as_bytes(), networks: &[], spec: &[spec.as_bytes()], spec_networks: &[], interfaces: &[] };
        prop_assert_eq!(yaml::examine_tests(&file).tests, Some(set.tests));
    }

    /// An address is behind one interface in all of them, since a twin has one route for it.
    #[test]
    fn suggested_tests_are_valid_and_agree(spec in any_spec()) {
        let set = read(&spec);
        let tests = suggested(&set);
        let text = yaml::tests_text(&tests);
        let interfaces = set.interfaces();
        let file =
            yaml::TestFile { text: text.as_bytes(), networks: &[], spec: &[], spec_networks: &[], interfaces: &interfaces };
        let reading = yaml::examine_tests(&file);
        // A suggested test comes in by an interface of the spec.
        prop_assert_eq!(&reading.problems, &[]);
        prop_assert_eq!(reading.tests.as_ref(), Some(&tests), "{}", text);
        let mut behind = BTreeMap::new();
        for test in &tests {
            prop_assert!(test.name.is_some(), "{}", test);
            let first = behind.entry(test.from).or_insert(&test.ingress);
            prop_assert_eq!(*first, &test.ingress, "{}", test);
        }
        let one_nic = set.interfaces().len() == 1;
        prop_assert!(tests.iter().all(|test| test.ingress.is_none() == one_nic));
        // A listener that others do not share, to a target that they do not reach.
        let has_targets = |test: &&PacketTest| test.reaches != Reaches::Nothing;
        let is_plain = one_nic && set.outbound.is_empty();
        let names: BTreeSet<_> = set.forwards.iter().map(|forward| &forward.name).collect();
        if let (true, [forward], [name]) = (is_plain, &set.forwards[..], &names.iter().collect::<Vec<_>>()[..]) {
            let some = tests.iter().filter(has_targets).count();
            prop_assert!(some > 0 || forward.limits.is_some() || forward.sources.allow.is_some(), "{}", name);
        }
    }

    /// Neither the rules nor a comparison depend on tests.
    #[test]
    fn tests_change_no_rule(spec in any_spec()) {
        let with = read(&spec);
        let without = read(&Spec { tests: Vec::new(), ..spec });
        for family in Family::ALL {
            prop_assert_eq!(plan(&with, family), plan(&without, family));
            prop_assert!(compare_specs(&with, &without, family).same);
        }
    }

    #[test]
    fn printed_rules_read_back_the_same(spec in any_spec()) {
        let set = read(&spec);
        for family in Family::ALL {
            let rules = plan(&set, family).with_builtin_chains();
            prop_assert_eq!(parse(&rules.to_string()).expect("it is readable"), rules);
        }
    }

    #[test]
    fn a_rule_with_negations_marks_types_of_icmp_and_wildcards_reads_back_the_same(
        of_v4 in rules::any_rule(Family::V4), of_v6 in rules::any_rule(Family::V6),
    ) {
        for rule in [of_v4, of_v6] {
            let text = format!("*mangle\n:FORWARD ACCEPT [0:0]\n-A FORWARD {rule}\nCOMMIT\n");
            let read = parse(&text).expect("it is readable");
            let chain = read.chain(TableName::Mangle, &ChainName::Forward).expect("it is there");
            prop_assert_eq!(&chain.rules, &[rule]);
            prop_assert_eq!(read.to_string(), text);
        }
    }

    /// Text that is spelled as iptables-save spells it is no different for having been typed.
    #[test]
    fn canonical_text_reads_as_typed_rules_too(
        spec in any_spec(), of_v4 in rules::any_rule(Family::V4), of_v6 in rules::any_rule(Family::V6),
    ) {
        let set = read(&spec);
        let mut both = String::new();
        let mut expected = Vec::new();
        for (family, rule) in Family::ALL.into_iter().zip([of_v4, of_v6]) {
            let mut rules = plan(&set, family).with_builtin_chains();
            rules.chain_mut(TableName::Mangle, ChainName::Forward).rules.push(rule);
            both += match family {
                Family::V4 => "# Generated by iptables-save v1.8.9 (nf_tables)\n",
                Family::V6 => "# Generated by ip6tables-save v1.8.9 (nf_tables)\n",
            };
            both += &rules.to_string();
            expected.push((family, rules));
        }
        let typed = read_typed(&both).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(typed.rules, expected);
    }

    /// A negated condition says as little about a forward as one that nvactl cannot read at all.
    #[test]
    fn a_negated_copy_of_a_rule_is_not_read_as_that_rule(spec in any_spec(), at in any::<prop::sample::Index>()) {
        let set = read(&spec);
        for family in Family::ALL {
            let planned = plan(&set, family);
            let own = planned.chains().filter(|(_, name, _)| name.is_own());
            let places: Vec<(TableName, ChainName, usize, usize)> = own
                .flat_map(|(table, name, chain)| {
                    let rules = chain.rules.iter().enumerate();
                    rules.flat_map(move |(at, rule)| {
                        (0..rule.matches.len()).map(move |nth| (table, name.clone(), at, nth))
                    })
                })
                .collect();
            if places.is_empty() {
                continue;
            }
            let (table, name, at, nth) = at.get(&places);
            let with = |condition: Match| {
                let mut tampered = planned.clone();
                tampered.chain_mut(*table, name.clone()).rules[*at].matches[*nth] = condition;
                tampered
            };
            let rule = &planned.chain(*table, name).expect("it is there").rules[*at];
            for negated in rules::negations(&rule.matches[*nth]) {
                let words = negated.to_string();
                let unread = Match::Other(words.split(' ').map(Token::from).collect());
                let (negated, unread) = (with(negated), with(unread));
                prop_assert_eq!(&parse(&negated.to_string()).expect("it is readable"), &negated);
                prop_assert_eq!(unplan(&negated), unplan(&unread), "{}", words);
                prop_assert!(!diff::changes(&negated, &planned).is_empty(), "{}", words);
                prop_assert!(!compare(&negated.with_builtin_chains(), &set, family).same, "{}", words);
            }
        }
    }

    #[test]
    fn a_packet_matches_the_same_rules_in_a_tree_and_in_one_chain(spec in any_spec()) {
        let set = read(&spec);
        for family in Family::ALL {
            tree::assert_same_rules_match(&set, family);
        }
    }

    #[test]
    fn a_description_is_in_no_rule(spec in any_spec()) {
        let mut bare = spec.clone();
        bare.description = None;
        bare.forwards.iter_mut().for_each(|forward| forward.description = None);
        bare.outbound.iter_mut().for_each(|entry| entry.description = None);
        let (set, bare) = (read(&spec), read(&bare));
        for family in Family::ALL {
            let planned = plan(&set, family);
            prop_assert_eq!(&planned, &plan(&bare, family));
            prop_assert!(compare(&planned.with_builtin_chains(), &set, family).same);
        }
    }

    #[test]
    fn a_ruleset_has_no_changes_to_itself(spec in any_spec()) {
        let set = read(&spec);
        for family in Family::ALL {
            let want = plan(&set, family);
            prop_assert!(diff::changes(&want, &want).is_empty());
            prop_assert_eq!(diff::changes(&want, &want).script(&Counters::default()), "");
        }
    }

    /// This holds for any two specs beside foreign rules, and the script changes no foreign rule.
    #[test]
    fn the_script_changes_one_plan_into_another((before, after) in two_specs()) {
        let (before, after) = (read(&before), read(&after));
        for family in Family::ALL {
            let mut host = Restore::new(&foreign());
            let (before, after) = (plan(&before, family), plan(&after, family));
            for want in [&before, &after, &Ruleset::default()] {
                let have = host.ruleset();
                host.load(&diff::changes(&have, want).script(&Counters::default()));
                let left = diff::changes(&host.ruleset(), want).report();
                prop_assert_eq!(left, "");
                prop_assert_eq!(host.foreign(), Restore::new(&foreign()).foreign());
            }
        }
    }

    /// An undo is a change back to the rules that nvactl owned before.
    #[test]
    fn an_undo_restores_the_ruleset((before, after) in two_specs()) {
        let (before, after) = (read(&before), read(&after));
        for family in Family::ALL {
            let (before, after) = (plan(&before, family), plan(&after, family));
            let mut host = Restore::new(&foreign());
            host.load(&diff::changes(&host.ruleset(), &before).script(&Counters::default()));
            let start = host.ruleset();
            host.load(&diff::changes(&start, &after).script(&Counters::default()));
            host.load(&diff::changes(&host.ruleset(), &diff::own(&start)).script(&Counters::default()));
            prop_assert_eq!(host.ruleset(), start);
        }
    }

    #[test]
    fn removing_nvactl_s_lines_from_a_rules_file_restores_it(spec in any_spec()) {
        for family in Family::ALL {
            let before = foreign();
            let mut host = Restore::new(&before);
            host.load(&diff::changes(&before, &plan(&read(&spec), family)).script(&Counters::default()));
            let split = without_own(host.ruleset().to_string().as_bytes()).expect("it is readable");
            let left = parse(&String::from_utf8_lossy(&split.others)).expect("it is readable");
            let mut after = left.clone();
            // `without_own` does not restore the policy.
            after.chain_mut(TableName::Filter, ChainName::Forward).policy =
                before.chain(TableName::Filter, &ChainName::Forward).and_then(|chain| chain.policy);
            prop_assert_eq!(after, before);
            prop_assert_eq!(left.forward_policy(), host.ruleset().forward_policy());
        }
    }

    /// Any bytes are read as a spec, or as at least one problem with a position in the text.
    #[test]
    fn any_bytes_keep_the_invariants(text in vec(any::<u8>(), 0..300)) {
        invariants::of_spec(&text);
        invariants::of_network_file(&text);
        invariants::of_rules(&String::from_utf8_lossy(&text));
    }

    #[test]
    fn any_lines_of_networks_keep_the_invariants(
        words in vec(prop_oneof![
            Just("10.0.0.0/8"), Just("10.0.0.1/8"), Just("fd00::/8"), Just("#"), Just(" "), Just("\n"), Just("\r\n"),
            Just("\r"), Just("\t"), Just("office"), Just("\u{feff}"), Just("ä"), Just("\u{1b}"), Just("010.0.0.1"),
        ], 0..30)
    ) {
        invariants::of_network_file(words.concat().as_bytes());
    }

    #[test]
    fn any_valid_spec_keeps_the_invariants(spec in any_spec()) {
        let text = serde_yaml::to_string(&spec).expect("it can be written");
        invariants::of_spec(text.as_bytes());
        for family in Family::ALL {
            invariants::of_rules(&plan(&read(&spec), family).with_builtin_chains().to_string());
        }
    }

    /// A valid spec with a few changed bytes is like a spec with a typing mistake.
    #[test]
    fn any_slip_keeps_the_invariants(
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
    fn any_words_of_a_spec_keep_the_invariants(
        words in vec(prop_oneof![
            Just("firewall:"), Just("forwards:"), Just("name:"), Just("listen:"), Just("target:"),
            Just("pod:"), Just("ilb:"), Just("interface:"), Just("snat:"), Just(" "), Just("\n"),
            Just("\n  "), Just("- "), Just("{"), Just("}"), Just("["), Just("]"), Just(","),
            Just("10.0.0.1:80"), Just("80"), Just("&a"), Just("*a"), Just("!!x"), Just("ä"), Just("\t"),
            Just("protocol:"), Just("balance:"), Just("allow_from:"), Just("deny_from:"), Just("limits:"),
            Just("new_per_second:"), Just("burst:"), Just("per:"), Just("max_connections:"), Just("reject:"),
            Just("log:"), Just("prefix:"), Just("level:"), Just("per_minute:"), Just("connections:"),
            Just("outbound:"), Just("allow_to:"), Just("deny_to:"), Just("ports:"), Just("internet"), Just("ping"),
            Just("hairpin:"), Just("defaults:"), Just("networks:"), Just("file:"), Just("office"), Just("office:"), Just("ingress:"), Just("egress:"), Just("v4:"), Just("v6:"),
            Just("enabled:"), Just("description:"), Just("mss:"), Just("clamp"), Just("1360"), Just("true"), Just("client"), Just("none"), Just("masquerade"), Just("[fd00::1]:80"),
            Just("10.0.0.0/8"), Just("::/0"), Just("10.3.0.4-10.3.0.7"),
            Just("'"), Just("\""), Just("|"), Just("?"), Just(": "), Just("#"), Just("---\n"),
        ], 0..60)
    ) {
        invariants::of_spec(words.concat().as_bytes());
    }

    #[test]
    fn any_words_of_rules_keep_the_invariants(
        lines in vec(vec(prop_oneof![
            Just("-A"), Just("FORWARD"), Just("INPUT"), Just("NVACTL-FORWARD"), Just("NVACTL-PREROUTING"),
            Just("PREROUTING"), Just("MINE"), Just("-j"), Just("-g"), Just("-m"), Just("-p"), Just("tcp"), Just("!"),
            Just("--dport"), Just("80"), Just("80:90"), Just("-s"), Just("10.0.0.1/32"), Just("-i"), Just("eth0"),
            Just("comment"), Just("--comment"), Just("web"), Just("\"a b\""), Just("conntrack"),
            Just("--ctstate"), Just("NEW"), Just("DNAT"), Just("--to-destination"), Just("ACCEPT"),
            Just("NVACTL-FROM-a"), Just("NVACTL-TO-a"), Just("NVACTL-EXIT-a"), Just("NVACTL-NOTTO-a"), Just("-m multiport --dports 1,2"),
            Just("NVACTL-OUTPUT"), Just("NVACTL-ALLOW-a"), Just("NVACTL-DENY-a"), Just("NVACTL-LOG-a"),
            Just("-m hashlimit --hashlimit-above 5/sec --hashlimit-burst 5 --hashlimit-name a"),
            Just("-m connlimit --connlimit-above 5 --connlimit-mask 32 --connlimit-saddr"),
            Just("-m limit --limit 1/sec"), Just("-m statistic --mode random --probability 0.50000000000"),
            Just("-j LOG --log-prefix"), Just("\"a accepted \""), Just("-j RETURN"), Just("-j MASQUERADE"),
            Just("NVACTL-MSS"), Just("-j TCPMSS --set-mss 1360"), Just("-j TCPMSS --clamp-mss-to-pmtu"), Just("-j SNAT --to-source"), Just("10.3.0.4-10.3.0.7"), Just("-j REJECT --reject-with tcp-reset"),
            Just("-j DNAT --to-destination [fd00::1]:80"), Just("fd00::/8"), Just("a\rb"), Just("a\u{c}b"),
            Just("! -s"), Just("! -i"), Just("eth+"), Just("! -p"), Just("icmp"), Just("! --dport"), Just("! --ctstate"),
            Just("-m icmp --icmp-type"), Just("3/4"), Just("-m mark ! --mark"), Just("0x1/0xff"), Just("-m connmark --mark 0x0"),
            Just("-m set ! --match-set a src"), Just("-j MARK --set-xmark"), Just("-j CONNMARK --save-mark"),
            Just("\r"), Just("\"a\nb\""), Just("\"a\n"), Just("x\"y"), Just("\\"), Just("-A FORWARD -i"),
        ], 0..9), 0..9)
    ) {
        let lines: Vec<String> = lines.iter().map(|words| words.join(" ")).collect();
        for table in ["filter", "mangle", "nat"] {
            let rules = lines.iter().filter(|line| line.starts_with("-A ") && line.len() > 4);
            let rules: Vec<&str> = rules.map(String::as_str).collect();
            let text = format!(
                "*{table}\n:MINE - [0:0]\n:a\rb - [0:0]\n:a\u{c}b - [0:0]\n:NVACTL-DENY-a - [0:0]\n{}\nCOMMIT\n",
                rules.join("\n")
            );
            invariants::of_rules(&text);
        }
    }

    #[test]
    fn an_unknown_rule_prints_as_it_was_read(
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

#[test]
fn every_form_that_iptables_save_prints_has_a_type_and_prints_the_same() {
    for family in Family::ALL {
        for line in rules::lines(family) {
            let text = format!("*mangle\n:FORWARD ACCEPT [0:0]\n-A FORWARD {line}\nCOMMIT\n");
            let read = parse(&text).expect("it is readable");
            assert_eq!(read.to_string(), text);
            let chain = read.chain(TableName::Mangle, &ChainName::Forward);
            let rule = &chain.expect("it is there").rules[0];
            let is_read = |one: &Match| !matches!(one, Match::Other(_));
            assert!(rule.matches.iter().all(is_read), "{rule:?}");
            assert!(!matches!(rule.target, Some(Target::Other(_))), "{rule:?}");
        }
    }
}

/// In each hook the listeners for one address come first, and a list may have both kinds.
#[test]
fn a_list_with_and_without_an_address_is_read_back_in_its_place() {
    let all = [
        "a, listen: 80",
        "b, listen: [81, '10.3.0.4:82']",
        "c, listen: '10.3.0.4:83'",
        "d, listen: [84, 85, '10.3.0.5:80'], protocol: [tcp, udp]",
        "e, listen: '10.3.0.4:86'",
        "f, listen: 87",
    ];
    for layout in ["flat", "tree"] {
        for first in 0..all.len() {
            let turned = all.iter().cycle().skip(first).take(all.len());
            let forwards =
                turned.map(|one| format!("- {{name: {one}, target: {{ilb: 10.224.0.222}}}}\n"));
            let spec = format!(
                "firewall: {{interface: eth0, snat: 10.3.0.4, layout: {layout}}}\nforwards:\n{}",
                forwards.collect::<String>()
            );
            invariants::of_spec(spec.as_bytes());
        }
    }
}

/// A fuzzer found these names of undeclared chains.
#[test]
fn odd_names_of_chains_keep_the_invariants() {
    for name in [
        "a\rb", "a\u{c}b", "\r", "a\u{c}", "a\u{b}b", "a\u{85}b", "a\"b", "\\",
    ] {
        for table in ["filter", "nat"] {
            invariants::of_rules(&format!(
                "*{table}\n-A {name} -j RETURN\n-A {name}\nCOMMIT\n"
            ));
        }
    }
}

/// A model of `iptables-restore --noflush`, as far as nvactl's scripts use it: chains are lists of lines.
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
                    let leads_here = |rule: &String| {
                        rule.ends_with(&format!("-j {chain}"))
                            || rule.ends_with(&format!("-g {chain}"))
                    };
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

    /// Returns every line that is not nvactl's.
    fn foreign(&self) -> String {
        let text = self.ruleset().to_string();
        let lines = text
            .lines()
            .filter(|line| !line.contains("NVACTL-") && !line.starts_with(":FORWARD"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

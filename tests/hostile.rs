//! Hostile specs get a clear answer in bounded time and memory, and cause no panic.

use std::collections::BTreeSet;

use nvactl::import::{Draft, KnownRoutes, RuleFate, import};
use nvactl::net::Family;
use nvactl::net::printable::is_hidden;
use nvactl::netfilter::text::parse::parse;
use nvactl::netfilter::text::typed::{TypedError, read_typed};
use nvactl::yaml::places::Places;
use nvactl::yaml::{self, MAX_PROBLEMS, MAX_VALUES, NetworkFile};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

fn codes(text: &str) -> Vec<&'static str> {
    let problems = yaml::read(text.as_bytes()).expect_err("it is no spec");
    problems
        .iter()
        .map(|problem| problem.kind.code().as_str())
        .collect()
}

#[test]
fn reading_stops_at_the_limit_of_values() {
    let values = "a,".repeat(MAX_VALUES);
    let text = format!("forwards: [{values}]");
    let problems = yaml::read(text.as_bytes()).expect_err("it is no spec");
    let page = yaml::page::pages(
        &Places::new([("spec.yaml", text.as_bytes())]),
        &problems,
        &yaml::page::renderer(false),
    );
    // The page does not show the line, which has four million characters.
    assert_eq!(
        page,
        "error[too-many-values]: the spec has more than 2000000 values\n--> spec.yaml:1:4000002\n = hint: join forwards of neighbouring ports into one with a range, as `listen: 5000-5010`\n\n"
    );
}

#[test]
fn the_limit_of_values_holds_for_all_files_together() {
    let values = "a,".repeat(MAX_VALUES / 2);
    let text = format!("forwards: [{values}]");
    let reading = yaml::examine_all(&[text.as_bytes(), text.as_bytes(), b"firewall: {}"]);
    let problems = reading.sound().expect_err("it is no spec");
    let last = problems.last().expect("there is a problem");
    assert_eq!(last.kind, yaml::ProblemKind::TooManyValues);
    assert!(last.span.start > text.len());
}

/// A name puts many networks into a list by one word. Lists with names count towards the limit of values, and
/// equal lists count once.
#[test]
fn lists_with_names_count_towards_the_limit_of_values() {
    let spec = |list: &dyn Fn(usize) -> String| {
        let forward = |n: usize| {
            let list = list(n);
            format!(
                "  - {{name: f{n}, listen: {}, target: {{ilb: 10.0.0.1}}, deny_from: [{list}]}}\n",
                1000 + n
            )
        };
        let forwards: String = (0..30).map(forward).collect();
        format!(
            "firewall: {{interface: eth0, snat: 10.3.0.4}}\nnetworks: {{bots: {{file: bots.txt}}}}\nforwards:\n{forwards}"
        )
    };
    let net = |n: usize| format!("10.{}.{}.{}\n", n >> 16, (n >> 8) & 255, n & 255);
    let bots: String = (0..100_000).map(|n| net(2 * n)).collect();
    let file = [NetworkFile {
        path: "bots.txt",
        content: Ok(bots.as_bytes()),
    }];
    let codes = |text: &str, file: &[NetworkFile]| -> BTreeSet<&'static str> {
        let reading = yaml::examine_with(&[text.as_bytes()], file);
        let errors = reading.sound().err().into_iter().flatten();
        errors.map(|problem| problem.kind.code().as_str()).collect()
    };
    let none = BTreeSet::new();
    let own = spec(&|n| format!("bots, 192.0.2.{n}"));
    assert_eq!(codes(&own, &file), BTreeSet::from(["too-many-values"]));
    assert_eq!(codes(&spec(&|_| "bots, 192.0.2.1".to_owned()), &file), none);
    assert_eq!(codes(&spec(&|_| "bots".to_owned()), &file), none);

    let text = "10.0.0.1\n".repeat(MAX_VALUES);
    let long = [NetworkFile {
        path: "bots.txt",
        content: Ok(text.as_bytes()),
    }];
    assert_eq!(
        codes(&spec(&|_| "bots".to_owned()), &long),
        BTreeSet::from(["too-many-values"])
    );
}

/// The nearest of very many names is not searched for every one of very many typing errors.
#[test]
fn many_unknown_names_are_reported_quickly() {
    let names: String = (0..50_000)
        .map(|n| format!("  name-{n}: [10.0.0.1]\n"))
        .collect();
    let list: String = (0..2000).map(|n| format!("nome-{n},")).collect();
    let text = format!(
        "firewall: {{interface: eth0, snat: 10.3.0.4}}\nnetworks:\n{names}defaults: {{deny_from: [{list}]}}\nforwards: []\n"
    );
    let unknown = codes(&text)
        .into_iter()
        .filter(|code| *code == "unknown-network");
    assert_eq!(unknown.count(), 2000);
}

#[test]
fn reading_stops_at_the_limit_of_problems() {
    let text = format!(
        "firewall: {{interface: eth0, snat: 10.3.0.4}}\nforwards: [{}]",
        "a,".repeat(100_000)
    );
    assert_eq!(codes(&text).len(), MAX_PROBLEMS);
    let keys = "key: 1\n".repeat(100_000);
    assert_eq!(codes(&keys).len(), MAX_PROBLEMS);
}

#[test]
fn a_key_that_is_no_longer_read_is_not_missing() {
    for nets in [MAX_PROBLEMS - 1, MAX_PROBLEMS] {
        let text = format!(
            "firewall: {{interface: eth0, snat: 10.3.0.4}}\nforwards:\n  - name: web\n    listen: 80\n    \
             target: {{pod: 10.224.0.1:80}}\n    deny_from: [{}]",
            "x,".repeat(nets)
        );
        assert_eq!(codes(&text), vec!["unknown-network"; nets]);
    }
}

/// Each text is refused quickly, with little memory.
#[test]
fn hostile_texts_get_a_clear_answer() {
    let nested =
        |open: &str, close: &str| format!("a: {}{}", open.repeat(10_000), close.repeat(10_000));
    let bomb: String = (1..30)
        .map(|n| format!("a{n}: &a{n} [*a{m}, *a{m}]\n", m = n - 1))
        .collect();
    for (text, code) in [
        (nested("[", "]"), "syntax"),
        (nested("{a: ", "}"), "syntax"),
        (nested("- ", ""), "syntax"),
        (
            (0..10_000).map(|n| " ".repeat(n) + "a:\n").collect(),
            "syntax",
        ),
        (format!("a0: &a0 [x]\n{bomb}"), "unknown-key"),
        ("a: \0b".to_owned(), "control-character"),
        ("a: \u{7}b".to_owned(), "control-character"),
        ("%YAML 9.9\n---\na: b".to_owned(), "syntax"),
        ("!!python/object/apply:os.system [reboot]".to_owned(), "tag"),
        ("'".repeat(1_000_001), "syntax"),
        ("a".repeat(5_000_000), "wrong-type"),
        (format!("? {}\n: b", "k".repeat(1_000_000)), "unknown-key"),
        ("\u{feff}".to_owned(), "empty"),
        ("# only a comment".repeat(100_000), "empty"),
        ("---\n".repeat(100_000), "empty"),
        ("a: 1\n---\n".repeat(100_000), "several-documents"),
    ] {
        let found = codes(&text);
        let shown: String = text.chars().take(40).collect();
        assert!(found.contains(&code), "{shown}: {found:?}");
        let problems = yaml::read(text.as_bytes()).unwrap_err();
        let pages = yaml::page::pages(
            &Places::new([("x", text.as_bytes())]),
            &problems,
            &yaml::page::renderer(true),
        );
        assert!(pages.len() < 100_000, "{shown}: {} bytes", pages.len());
    }
}

#[test]
fn values_that_other_programs_would_read_differently_are_refused() {
    let with = |name: &str, listen: &str, target: &str, interface: &str| {
        format!(
            "firewall: {{interface: {interface}, snat: 10.3.0.4}}\nforwards:\n  - name: {name}\n    listen: {listen}\n    target: {{pod: {target}}}\n"
        )
    };
    assert!(yaml::read(with("web", "80", "10.0.0.1:80", "eth0").as_bytes()).is_ok());
    for port in [
        "0120", "0o120", "0x50", "80.0", "8e1", "1:20", "+80", "-80", "8_0", "80,81", "'80 '",
        "' 80'", "٨٠", ".80", "0b1", "80-", "-", "80--81", "80-81-82", "[]", "[[80]]", "~", "''",
        "http", "80/tcp", "'80\\n'", "1.2.3.4:",
    ] {
        let text = with("web", port, "10.0.0.1:80", "eth0");
        assert!(yaml::read(text.as_bytes()).is_err(), "port {port}");
    }
    for target in [
        "010.0.0.1:80",
        "10.0.0.01:80",
        "10.0.1:80",
        "167772161:80",
        "0xA000001:80",
        "10.0.0.1/32:80",
        "10.0.0.256:80",
        "'10.0.0.1 :80'",
        "localhost:80",
        "'[::1]:80'",
        "10.0.0.1:80:81",
        "'10.0.0.1:80 -j ACCEPT'",
        "'!10.0.0.1:80'",
    ] {
        let text = with("web", "80", target, "eth0");
        assert!(yaml::read(text.as_bytes()).is_err(), "target {target}");
    }
    for name in [
        r#""a\nb""#,
        r#""a\0b""#,
        r#""a\"b""#,
        "'a b'",
        "'--comment'",
        "-j",
        "'-'",
        "_a",
        "a/b",
        "a`b",
        "'a$(b)'",
        "ä",
        "''",
        "'a;b'",
        "'.'",
    ] {
        let text = with(name, "80", "10.0.0.1:80", "eth0");
        assert!(yaml::read(text.as_bytes()).is_err(), "name {name}");
    }
    for interface in [
        "'eth0 -j'",
        "-i",
        "'!'",
        "eth+",
        "a-name-of-16-byt",
        "'..'",
        "eth/0",
        "'eth0\\n'",
        "'%d'",
        "'*'",
        "eth0:1",
    ] {
        let text = with("web", "80", "10.0.0.1:80", interface);
        assert!(
            yaml::read(text.as_bytes()).is_err(),
            "interface {interface}"
        );
    }
}

#[test]
fn a_file_or_device_is_read_only_up_to_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.yaml");
    std::fs::File::create(&path)
        .unwrap()
        .set_len(100 << 20)
        .unwrap();
    let check = |path: &std::path::Path| {
        let run = assert_cmd::Command::cargo_bin("nvactl")
            .unwrap()
            .arg("check")
            .arg(path)
            .output()
            .unwrap();
        (run.status.code(), String::from_utf8(run.stderr).unwrap())
    };
    let (code, words) = check(&path);
    assert_eq!(code, Some(2));
    assert!(words.contains("is larger than 32 MiB"), "{words}");
    let (code, words) = check("/dev/zero".as_ref());
    assert_eq!(code, Some(2));
    assert!(words.contains("is larger than 32 MiB"), "{words}");
    // The limit holds for all files of a folder together.
    let (code, words) = check(folder.path());
    assert_eq!(code, Some(2));
    assert!(words.contains("is larger than 32 MiB"), "{words}");
    for name in ["large.yaml", "larger.yaml"] {
        let file = std::fs::File::create(folder.path().join(name)).unwrap();
        file.set_len(17 << 20).unwrap();
    }
    let (code, words) = check(folder.path());
    assert_eq!(code, Some(2));
    assert!(words.contains("is larger than 32 MiB"), "{words}");
}

/// Words of iptables commands and of iptables-save text, and what a shell or a hostile hand puts between them.
const WORDS: [&str; 134] = [
    "iptables",
    "ip6tables",
    "sudo",
    "-t",
    "nat",
    "mangle",
    "raw",
    "filter",
    "-A",
    "-I",
    "-D",
    "-R",
    "-N",
    "-X",
    "-F",
    "-P",
    "-E",
    "-Z",
    "-L",
    "-C",
    "FORWARD",
    "PREROUTING",
    "POSTROUTING",
    "INPUT",
    "X",
    "DOCKER-USER",
    "1",
    "2",
    "0",
    "-s",
    "-d",
    "-i",
    "-o",
    "-p",
    "-f",
    "-m",
    "-j",
    "-g",
    "!",
    "-w",
    "-c",
    "-4",
    "-6",
    "--",
    "-",
    "",
    "''",
    "\"\"",
    "ACCEPT",
    "DROP",
    "RETURN",
    "REJECT",
    "LOG",
    "DNAT",
    "SNAT",
    "MASQUERADE",
    "REDIRECT",
    "MARK",
    "CONNMARK",
    "TCPMSS",
    "SET",
    "NFLOG",
    "tcp",
    "udp",
    "icmp",
    "ipv6-icmp",
    "all",
    "255",
    "256",
    "10.0.0.1",
    "10.0.0.0/8",
    "10.0.0.1,10.0.0.2",
    "10/8",
    "fd00::1",
    "fd00::/8",
    "::/0",
    "0/0",
    "1.2.3.4.5",
    "999999999999",
    "0x",
    "08",
    "eth0",
    "eth+",
    "+",
    "--dport",
    "--sport",
    "--syn",
    "--tcp-flags",
    "SYN,ACK",
    "ALL",
    "80",
    "80:90",
    ":",
    "90:80",
    "http",
    "80,443",
    "multiport",
    "--dports",
    "conntrack",
    "--ctstate",
    "NEW",
    "ESTABLISHED,RELATED",
    "state",
    "--state",
    "limit",
    "--limit",
    "5/second",
    "/",
    "5/",
    "hashlimit",
    "--hashlimit-above",
    "--hashlimit-name",
    "recent",
    "--set",
    "set",
    "--match-set",
    "connlimit",
    "--connlimit-above",
    "statistic",
    "--mode",
    "nth",
    "--every",
    "comment",
    "--comment",
    "'a b'",
    "\"c\\\"d\"",
    "--to",
    "10.0.0.2:80",
    "[fd00::2]:80",
    "--log-prefix",
    "--reject-with",
    "--set-mark",
    "1/0xff",
    "\u{1b}[2J\u{202e}",
];

/// Beginnings and ends of lines that make sense, and some that make none.
const LINES: [&str; 22] = [
    "iptables -A FORWARD ",
    "iptables -t nat -A PREROUTING ",
    "iptables -I FORWARD ",
    "ip6tables -A FORWARD ",
    "iptables -N X\n",
    "*filter\n",
    "*nat\n",
    "*mangle\n",
    "COMMIT\n",
    ":FORWARD DROP [0:0]\n",
    ":X - [0:0]\n",
    "-A FORWARD ",
    "-A PREROUTING ",
    "-I FORWARD ",
    "[1:2] -A FORWARD ",
    "# Generated by ip6tables-save v1.8.9\n",
    "# ",
    "\n",
    "; ",
    "\\\n",
    "$X ",
    "\u{feff}",
];

proptest! {
    /// An error names a line of the text and shows no control characters. Rules that are read print, and read back.
    #[test]
    fn typed_rules_of_random_words_are_read_or_refused(
        lines in vec((select(&LINES[..]), vec(select(&WORDS[..]), 0..9)), 0..12), saved in any::<bool>(),
    ) {
        let mut text = String::from(if saved { "*filter\n" } else { "" });
        for (begin, words) in &lines {
            text += begin;
            text += &words.join(" ");
            text += "\n";
        }
        text += if saved { "COMMIT\n" } else { "" };
        match read_typed(&text) {
            Ok(read) => {
                for (family, ruleset) in read.rules {
                    let printed = ruleset.to_string();
                    let again = parse(&printed);
                    prop_assert_eq!(again.as_ref(), Ok(&ruleset), "{}: {}\n{}", family, text, printed);
                }
            }
            Err(error) => {
                prop_assert!((1..=text.lines().count()).contains(&error.line), "{}: {}", text, error);
                let shown = error.to_string();
                prop_assert!(!shown.replace('\n', "").contains(is_hidden), "{:?}", shown);
            }
        }
    }

    #[test]
    fn typed_rules_of_any_text_are_read_or_refused(text in "(\\PC|[\\n\\\\\"'!$-]){0,80}") {
        for begin in ["", "iptables ", "*filter\n-A FORWARD ", "iptables -A FORWARD -m comment --comment "] {
            let _ = read_typed(&format!("{begin}{text}"));
        }
    }
}

/// Parts of rules that iptables knows. Some of them do not go together.
const PARTS: [&str; 40] = [
    "-s 10.0.0.5/24",
    "! -d 10.1.0.0/16",
    "-s 10.0.0.1,10.0.0.2",
    "-d fd00::1",
    "-i eth0",
    "-o 'e x'",
    "! -i eth+",
    "-p tcp",
    "-p udp",
    "-p 6 --syn",
    "-p tcp --dport 80",
    "-p udp --sport :1024",
    "-p icmp --icmp-type ping",
    "! -p tcp",
    "-p tcp -m multiport --dports 80,443,8000:8080",
    "-m conntrack --ctstate NEW",
    "-m state ! --state ESTABLISHED,RELATED",
    "-m limit --limit 3/m",
    "-m hashlimit --hashlimit 5/s --hashlimit-name x",
    "-m recent --set",
    "-m mark --mark 1/3",
    "-m comment --comment 'a \"b\" c'",
    "-m comment --comment \"$(x)\"",
    "-m string --string 'a b' --algo bm",
    "-m set --match-set listed src",
    "-m time --timestart 08:00",
    "-m addrtype --dst-type local",
    "-f",
    "-c 1 2",
    "-w",
    "-j ACCEPT",
    "-j DROP",
    "-j LOG --log-prefix 'a b: '",
    "-j REJECT",
    "-j X",
    "-g X",
    "-j DOCKER-USER",
    "-j NFLOG --nflog-group 3",
    "-j MARK --set-mark 1",
    "-j CONNMARK --save-mark",
];

const BEGINS: [&str; 4] = [
    "iptables -A FORWARD ",
    "iptables -I FORWARD ",
    "ip6tables -A X ",
    "iptables -t mangle -A PREROUTING ",
];

/// Rules that are read print as iptables-save text, which reads back in both ways.
#[test]
fn typed_rules_of_known_parts_print_and_read_back() {
    let line = (select(&BEGINS[..]), vec(select(&PARTS[..]), 0..5));
    let mut runner = TestRunner::deterministic();
    let mut rules = 0;
    for _ in 0..5000 {
        let (begin, parts) = line.new_tree(&mut runner).expect("it makes one").current();
        let text = format!(
            "iptables -N X\nip6tables -N X\n{begin}{}\n",
            parts.join(" ")
        );
        for (family, ruleset) in read_typed(&text).map(|read| read.rules).unwrap_or_default() {
            let printed = ruleset.to_string();
            assert_eq!(parse(&printed).as_ref(), Ok(&ruleset), "{text}\n{printed}");
            let header = match family {
                Family::V4 => "# Generated by iptables-save",
                Family::V6 => "# Generated by ip6tables-save",
            };
            let again = read_typed(&format!("{header}\n{printed}"));
            let again = again.unwrap_or_else(|error| panic!("{text}\n{printed}\n{error}"));
            rules += ruleset.rule_count();
            assert_eq!(again.rules, [(family, ruleset)], "{text}\n{printed}");
        }
    }
    assert!(rules > 1000, "only {rules} rules were read");
}

/// Each is answered quickly, with little memory.
#[test]
fn hostile_typed_rules_get_a_clear_answer() {
    let list = "10.0.0.1,".repeat(10_000) + "10.0.0.1";
    let refused = |text: &str| -> TypedError { read_typed(text).expect_err("it is refused") };
    let lists = format!("iptables -A FORWARD -s {list} -d {list} -j DROP");
    assert!(
        refused(&lists)
            .to_string()
            .contains("make more than 65536 rules")
    );
    assert!(
        refused(&"*filter\nCOMMIT\n".repeat(100_000))
            .to_string()
            .contains("already")
    );
    assert!(
        refused(&format!("iptables {}", "'".repeat(1_000_001)))
            .to_string()
            .contains("not closed")
    );
    let chains: String = (0..20_000)
        .map(|n| format!("iptables -N c{n}\niptables -A FORWARD -j c{n}\n"))
        .collect();
    let read = read_typed(&chains).expect("they are rules");
    assert_eq!(read.rules[0].1.rule_count(), 20_000);
    let long = "iptables -A FORWARD ".to_owned() + &"-m tcp ".repeat(100_000);
    assert!(refused(&long).to_string().len() < 1000);
}

/// Returns the draft of a forward to 10.1.0.5, whose FORWARD chain has rules before its accept.
fn imported(chains: &str, rules: &str) -> Draft {
    let text = format!(
        "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d 10.0.0.4 -i eth0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.1.0.5:80\nCOMMIT\n\
         *filter\n:FORWARD DROP [0:0]\n{chains}{rules}-A FORWARD -d 10.1.0.5 -p tcp -m tcp --dport 80 -j ACCEPT\nCOMMIT\n"
    );
    let rules = parse(&text).expect("they are readable");
    import(&[(Family::V4, rules)], &KnownRoutes::default())
}

/// Exceptions that carry the ones before them would double with each.
#[test]
fn many_sources_that_return_are_the_clients_of_an_import() {
    for target in ["-j RETURN", "-g ELSE"] {
        let sources = (0..1000).map(|n| format!("198.51.{}.{}", n / 100, n % 100 * 2));
        let sources: Vec<String> = sources.collect();
        let returns = sources.iter();
        let returns = returns.map(|from| format!("-A LIST -s {from} {target}\n"));
        let returns: String = returns.collect();
        let draft = imported(
            ":LIST - [0:0]\n:ELSE - [0:0]\n",
            &format!("-A FORWARD -j LIST\n{returns}-A LIST -j DROP\n"),
        );
        let [forward] = draft.set.forwards.as_slice() else {
            panic!("{target}: {:?}", draft.accounts);
        };
        let allowed = forward.sources.allow.as_ref().expect("a list");
        let allowed: Vec<String> = allowed.as_slice().iter().map(ToString::to_string).collect();
        let each: Vec<String> = sources.iter().map(|from| format!("{from}/32")).collect();
        assert_eq!(
            (allowed, forward.sources.deny.as_slice()),
            (each, &[][..]),
            "{target}"
        );
    }
}

/// Fourteen chains of three jumps each are 1.6 million ways. Rules that are not followed to the end may refuse what an entry
/// would accept, so none is made.
#[test]
fn jumps_that_multiply_make_no_entries() {
    for target in ["-j", "-s 192.0.2.7 -g", "-s 192.0.2.7 -j RETURN\n-A C0 -j"] {
        let chains: String = (0..15).map(|n| format!(":C{n} - [0:0]\n")).collect();
        let jumps = (0..14).flat_map(|n| {
            let target = target.replace("C0", &format!("C{n}"));
            (0..3).map(move |_| format!("-A C{n} {target} C{}\n", n + 1))
        });
        let jumps: String = jumps.collect();
        let draft = imported(
            &chains,
            &format!("-A FORWARD -j C0\n{jumps}-A C14 -j DROP\n"),
        );
        assert!(draft.set.forwards.is_empty(), "{target}: {:?}", draft.set);
        let redirect = draft.accounts.iter();
        let mut redirect = redirect.filter(|one| one.place.chain.as_str() == "PREROUTING");
        let fate = redirect.next().map(|one| &one.fate);
        let Some(RuleFate::NotSaid(why)) = fate else {
            panic!("{target}: {fate:?}");
        };
        assert!(why.contains("nvactl follows no more"), "{target}: {why}");
    }
}

/// The machine's own connections may need rules of forwards, and those that so many jumps lead to are not known.
#[test]
fn jumps_that_multiply_for_the_machine_make_no_entries() {
    let chains: String = (0..15).map(|n| format!(":C{n} - [0:0]\n")).collect();
    let jumps = (0..14).flat_map(|n| (0..3).map(move |_| format!("-A C{n} -j C{}\n", n + 1)));
    let jumps: String = jumps.collect();
    let text = format!(
        "*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{chains}\
         -A PREROUTING -d 10.0.0.4 -i eth0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.1.0.5:80\n\
         -A OUTPUT -j C0\n{jumps}-A C14 -p tcp -m tcp --dport 81 -j DNAT --to-destination 10.1.0.5:80\nCOMMIT\n\
         *filter\n:FORWARD DROP [0:0]\n-A FORWARD -d 10.1.0.5 -p tcp -m tcp --dport 80 -j ACCEPT\nCOMMIT\n"
    );
    let rules = parse(&text).expect("they are readable");
    let draft = import(&[(Family::V4, rules)], &KnownRoutes::default());
    assert!(draft.set.forwards.is_empty(), "{:?}", draft.set);
    let fate = draft.accounts.iter().find_map(|one| {
        let is_redirect = one.place.chain.as_str() == "PREROUTING";
        is_redirect.then_some(&one.fate)
    });
    let Some(RuleFate::NotSaid(why)) = fate else {
        panic!("{fate:?}");
    };
    assert!(why.contains("nvactl follows no more"), "{why}");
}

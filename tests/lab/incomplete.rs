//! A copy that lacks something: `nvactl test` and `nvactl trace` say so, and no test passes by it.

use crate::fake::fake;
use crate::lab::{Backend, Lab, Said, host_with};
use crate::namespace::Host;
use crate::nvactl;

const SPEC: &str = "
firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4}
forwards:
  - {name: web, listen: 443, target: {pod: 10.224.0.118:8443}}
tests:
  - {name: web is reached, from: 198.51.100.7, to: 443, reaches: '10.224.0.118:8443'}
  - {name: ssh is closed, from: 198.51.100.7, to: 22, reaches: nothing}
";

/// Iptables-save text that another program made.
const SAVED: &str =
    "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -i eth0 -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n";

fn test(host: &Host, spec: &str) -> Said {
    nvactl(host, &["test", "-"], spec)
}

fn trace(host: &Host, text: &str) -> Said {
    let args = [
        "trace",
        "-",
        "--from",
        "198.51.100.7",
        "--to",
        "10.224.0.9:22",
    ];
    nvactl(host, &args, text)
}

lab_test!(either no_test_passes_without_iptables);
fn no_test_passes_without_iptables(backend: Backend) {
    let host = host_with(backend);
    assert_eq!(test(&host, SPEC).code, 0);
    host.shell(
        "mkdir /run/sbin; cp -a /usr/sbin/. /run/sbin; rm -f /run/sbin/*tables* /run/bin/*
         mount --bind /run/sbin /usr/sbin",
    );
    for said in [test(&host, SPEC), trace(&host, SPEC), trace(&host, SAVED)] {
        assert_eq!((said.code, said.stdout.as_str()), (2, ""), "{said:?}");
        assert!(
            said.stderr.contains("tables-restore` is not installed"),
            "{said:?}"
        );
        let hint = "hint: to install it: sudo apt-get install iptables\n";
        assert!(said.stderr.contains(hint), "{said:?}");
    }
}

lab_test!(either no_test_passes_without_a_rule_of_the_spec);
fn no_test_passes_without_a_rule_of_the_spec(backend: Backend) {
    let host = host_with(backend);
    // As a kernel does that lacks a module.
    fake(
        &host,
        "iptables-restore",
        "text=$(cat)
         case $text in *'--dport 22 '*|*PREROUTING*)
           echo 'Warning: Extension tcp revision 0 not supported, missing kernel module?' >&2
           exit 2
         esac
         printf '%s\\n' \"$text\" | real \"$@\"",
    );
    for said in [test(&host, SPEC), trace(&host, SPEC)] {
        assert_eq!((said.code, said.stdout.as_str()), (2, ""), "{said:?}");
        for words in ["-t nat", "missing kernel module?", "hint: "] {
            assert!(said.stderr.contains(words), "{words}: {said:?}");
        }
    }
    // A rule of somebody else is named, and the end is not known.
    let said = trace(&host, SAVED);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("-A FORWARD -i eth0"), "{said:?}");
}

lab_test!(either a_test_with_an_interface_changes_no_other_test);
fn a_test_with_an_interface_changes_no_other_test(backend: Backend) {
    let host = host_with(backend);
    let with_more = SPEC.replace(
        "22, reaches: nothing}\n",
        "22, reaches: nothing}
  - {name: nor from inside, from: 198.51.100.7, to: 443, in: eth1, reaches: nothing}
  - {name: nor from elsewhere, from: 198.51.100.7, to: 443, in: eth2, reaches: nothing}
",
    );
    assert_ne!(with_more, SPEC);
    let said = test(&host, &with_more);
    assert_eq!(said.code, 0, "{said:?}");
    // The order of the report is that of the spec.
    let names = [
        "web is reached",
        "ssh is closed",
        "nor from inside",
        "nor from elsewhere",
    ];
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert!(lines.len() > names.len(), "{said:?}");
    for (line, name) in lines.iter().zip(names) {
        assert!(line.contains(name), "{said:?}");
    }
    let open = with_more.replace(
        "listen: 443, ",
        "listen: 443, interface: {ingress: [eth0, eth1]}, ",
    );
    let said = test(&host, &open);
    assert!(
        said.stdout.contains("failed      nor from inside"),
        "{said:?}"
    );
    assert!(
        said.stdout.contains("4 tests, 3 passed, 1 failed"),
        "{said:?}"
    );
}

/// A firewall with two interfaces on which the spec is loaded.
fn loaded(backend: Backend) -> Lab {
    let lab = Lab::two_nics(backend);
    lab.apply(SPEC);
    assert_eq!(live(&lab), ["passed", "passed"]);
    lab
}

fn run_live(lab: &Lab) -> Said {
    lab.nvactl_with(&["test", "-", "--live"], SPEC)
}

/// Returns the outcomes of the tests on the machine.
fn live(lab: &Lab) -> Vec<String> {
    let said = run_live(lab);
    let tests = said
        .stdout
        .lines()
        .filter(|line| line.contains(": tcp from"));
    let outcomes = tests.map(|line| line.split("  ").next().unwrap_or_default().to_owned());
    outcomes.collect()
}

lab_test!(either a_route_with_a_realm_and_one_that_discards_are_copied);
fn a_route_with_a_realm_and_one_that_discards_are_copied(backend: Backend) {
    let lab = loaded(backend);
    lab.firewall
        .run("ip route replace 10.224.0.0/16 via 10.4.0.1 realm 3/5");
    let said = run_live(&lab);
    assert!(said.stdout.contains("2 tests, 2 passed"), "{said:?}");
    assert!(!said.stderr.contains("not complete"), "{said:?}");
    lab.firewall.run("ip nexthop add id 5 blackhole");
    lab.firewall.run("ip route add 10.224.0.118/32 nhid 5");
    assert_eq!(live(&lab), ["failed", "passed"]);
}

lab_test!(either a_thing_that_the_copy_lacks_makes_a_test_unknown_if_its_packets_may_meet_it);
fn a_thing_that_the_copy_lacks_makes_a_test_unknown_if_its_packets_may_meet_it(backend: Backend) {
    let lab = loaded(backend);
    let trace = |code: i32, words: &str| {
        let args = ["trace", "live", "--from", "198.51.100.7", "--to", "443"];
        let said = lab.nvactl(&args);
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.stderr.contains(words), "{said:?}");
    };
    for (make, remove, outcomes, words) in [
        (
            "ip xfrm policy add src 10.0.0.0/8 dst 10.224.0.0/16 dir out action block",
            "ip xfrm policy flush",
            ["unknown", "passed"],
            "IPsec policy",
        ),
        (
            "ip xfrm policy add src 10.9.0.0/16 dst 10.224.0.0/16 dir out action block",
            "ip xfrm policy flush",
            ["passed", "passed"],
            "",
        ),
        // The copy has another route to the target.
        (
            "ip route add 10.224.0.118/32 via 10.4.0.1 congctl reno",
            "ip route del 10.224.0.118/32",
            ["unknown", "unknown"],
            "congestion",
        ),
        (
            "iptables -I FORWARD -p tcp -m string --string attack --algo bm -j DROP",
            "iptables -D FORWARD 1",
            ["unknown", "passed"],
            "`string` asks for the bytes that a client sends",
        ),
    ] {
        lab.firewall.run(make);
        assert_eq!(live(&lab), outcomes, "{make}");
        trace(i32::from(outcomes[0] == "unknown"), words);
        lab.firewall.run(remove);
    }
}

lab_test!(either chains_whose_order_is_not_known_make_a_test_unknown);
fn chains_whose_order_is_not_known_make_a_test_unknown(backend: Backend) {
    let lab = loaded(backend);
    let other = |port: u16| {
        format!(
            "nft 'table ip other {{
               chain pre {{
                 type nat hook prerouting priority dstnat
                 tcp dport {port} dnat to 10.224.0.99:8443
               }}
             }}'"
        )
    };
    lab.firewall.shell(&other(443));
    let said = run_live(&lab);
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(live(&lab), ["unknown", "passed"]);
    for words in ["-t nat PREROUTING", "nft ip other pre"] {
        assert!(said.stdout.contains(words), "{said:?}");
    }
    let args = ["trace", "live", "--from", "198.51.100.7", "--to", "443"];
    let said = lab.nvactl(&args);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("nft ip other pre"), "{said:?}");
    // It translates other packets.
    lab.firewall.run("nft delete table ip other");
    lab.firewall.shell(&other(444));
    assert_eq!(live(&lab), ["passed", "passed"]);
}

lab_test!(either a_choice_among_next_hops_makes_a_test_unknown);
fn a_choice_among_next_hops_makes_a_test_unknown(backend: Backend) {
    let lab = loaded(backend);
    lab.firewall.run(
        "ip route replace 10.224.0.0/16 nexthop via 10.3.0.1 dev eth0 nexthop via 10.4.0.1 dev eth1",
    );
    let args = ["trace", "live", "--from", "198.51.100.7", "--to", "443"];
    let choice = "the choice among the 2 next hops of the route to 10.224.0.0/16";
    // The kernel chooses the same one by the addresses alone.
    let said = lab.nvactl(&args);
    assert!(said.stdout.contains(" (one of 2 next hops)\n"), "{said:?}");
    assert!(!said.stderr.contains(choice), "{said:?}");
    lab.firewall
        .shell("echo 1 > /proc/sys/net/ipv4/fib_multipath_hash_policy");
    let said = lab.nvactl(&args);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains(choice), "{said:?}");
    assert_eq!(live(&lab)[0], "unknown");
}

lab_test!(either a_target_that_a_test_does_not_list_fails_it);
fn a_target_that_a_test_does_not_list_fails_it(backend: Backend) {
    let host = host_with(backend);
    let several = SPEC.replace(
        "10.224.0.118:8443}}",
        "['10.224.0.118:8443', '10.224.0.119:8443']}}",
    );
    let limited = several.replace(
        "]}}",
        ", '10.224.0.120:8443', '10.224.0.121:8443']}, limits: {new_per_second: 1, burst: 1}}",
    );
    // It would pass every second time with one connection.
    for spec in [&several, &several, &several, &limited, &limited] {
        let said = test(&host, spec);
        assert_eq!(said.code, 1, "{said:?}");
        let other = ["it reached 10.224.0.119:8443", "it reached 10.224.0.12"];
        assert!(
            other.iter().any(|words| said.stdout.contains(words)),
            "{said:?}"
        );
    }
    let all = "'10.224.0.118:8443|10.224.0.119:8443|10.224.0.120:8443'";
    let without_one = limited.replace("reaches: '10.224.0.118:8443'", &format!("reaches: {all}"));
    assert_ne!(without_one, limited);
    for _ in 0..3 {
        let said = test(&host, &without_one);
        assert!(
            said.stdout.contains("it reached 10.224.0.121:8443"),
            "{said:?}"
        );
    }
}

lab_test!(either a_failing_test_is_reported_without_a_change);
fn a_failing_test_is_reported_without_a_change(backend: Backend) {
    let lab = loaded(backend);
    let said = lab.nvactl_with(&["apply", "-"], SPEC);
    assert_eq!(said.code, 0, "{said:?}");
    let failing = SPEC.replace("to: 22, reaches: nothing", "to: 443, reaches: nothing");
    let said = lab.nvactl_with(&["apply", "-"], &failing);
    assert_eq!(said.code, 2, "{said:?}");
    for words in ["nothing has changed", "failed      ssh is closed"] {
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
    // Nothing changes, so no other connection is tried.
    lab.firewall
        .run("iptables -t raw -I PREROUTING -p tcp --dport 443 -j DROP");
    let alone: String = SPEC
        .lines()
        .filter(|line| !line.contains("web is reached"))
        .fold(String::new(), |text, line| text + line + "\n");
    let said = lab.nvactl_with(&["apply", "-"], &alone);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!said.stderr.contains("fail with and without"), "{said:?}");
}

lab_test!(either a_private_address_that_nothing_names_is_noted);
fn a_private_address_that_nothing_names_is_noted(backend: Backend) {
    let host = host_with(backend);
    let note = "`<stdin>` does not name 10.3.0.4, so the interface that leads to it is a guess";
    let spec = SPEC.replace("to: 22", "to: '10.3.0.4:22'");
    for (spec, is_noted) in [(SPEC, false), (spec.as_str(), true)] {
        let said = test(&host, spec);
        assert_eq!(said.stderr.contains(note), is_noted, "{said:?}");
    }
    let args = [
        "trace",
        "-",
        "--from",
        "198.51.100.7",
        "--to",
        "10.3.0.4:22",
    ];
    let said = nvactl(&host, &args, SPEC);
    assert!(said.stderr.contains(note), "{said:?}");
}

lab_test!(either a_reply_without_translation_depends_on_the_target);
fn a_reply_without_translation_depends_on_the_target(backend: Backend) {
    let host = host_with(backend);
    let args = ["trace", "-", "--from", "198.51.100.7", "--to", "443"];
    let words =
        "(only if 10.224.0.118 routes it through this machine: it sees the client's own address)\n";
    for (snat, is_noted) in [("snat: 10.4.0.4", false), ("snat: none", true)] {
        let said = nvactl(&host, &args, &SPEC.replace("snat: 10.4.0.4", snat));
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(said.stdout.contains(words), is_noted, "{said:?}");
    }
}

lab_test!(either a_trace_of_commands_is_refused_with_the_text_that_it_needs);
fn a_trace_of_commands_is_refused_with_the_text_that_it_needs(backend: Backend) {
    let host = host_with(backend);
    let said = trace(&host, "# rules\nsudo iptables -A FORWARD -j ACCEPT\n");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stderr.contains("`<stdin>` holds commands of iptables"),
        "{said:?}"
    );
    assert!(
        said.stderr
            .contains("hint: give the text that iptables-save prints once the commands have run\n"),
        "{said:?}"
    );
}

lab_test!(either the_paths_that_are_left_out_are_counted);
fn the_paths_that_are_left_out_are_counted(backend: Backend) {
    let host = host_with(backend);
    // Those with `in` have a copy of their own.
    let test = |n: u8| {
        let side = if n.is_multiple_of(2) {
            "in: eth0, "
        } else {
            ""
        };
        format!("  - {{from: 198.51.100.{n}, {side}to: 443, reaches: nothing}}\n")
    };
    let more: String = (1..13).map(test).collect();
    let said = self::test(&host, &format!("{SPEC}{more}"));
    let note = "the paths of 2 more failed tests are left out";
    assert!(said.stderr.contains(note), "{said:?}");
}

lab_test!(either a_client_behind_no_interface_may_be_given_one);
fn a_client_behind_no_interface_may_be_given_one(backend: Backend) {
    let lab = loaded(backend);
    lab.firewall.run("ip route add blackhole 192.0.2.0/24");
    let spec = SPEC.replace("from: 198.51.100.7, to: 22", "from: 192.0.2.9, to: 22");
    let said = lab.nvactl_with(&["test", "-", "--live"], &spec);
    let words = "no interface leads to the client 192.0.2.9; name the one by which it comes in, such as `in: eth0`";
    assert!(said.stdout.contains(words), "{said:?}");
}

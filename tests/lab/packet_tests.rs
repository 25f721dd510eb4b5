//! The tests of a spec: `nvactl test` asks a kernel, and `apply` loads nothing with which one fails.

use std::time::Instant;

use nvactl::forwards::PacketTest;
use nvactl::twin::machine::Machine;
use nvactl::twin::packet_tests::{TestOutcome, run_tests};
use nvactl::twin::rules::PacketFilter;
use nvactl::twin::{Twin, netns};
use nvactl::yaml;
use serde_json::Value;

use crate::lab::{Backend, FIREWALL, Lab, Said, save};
use crate::traffic::{answer, serve_tcp};

const NVACTL: &str = env!("CARGO_BIN_EXE_nvactl");

const SPEC: &str = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
tests:
  - {name: web is reached, from: 198.51.100.7, to: 49182, reaches: '10.224.0.118:80', snat: 10.3.0.4}
  - {name: ssh is not forwarded, from: 198.51.100.7, to: 22, reaches: nothing}
";

fn working(backend: Backend) -> Lab {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 80);
    lab.apply(SPEC);
    assert_eq!(lab.tcp(FIREWALL, 49182), answer("pod", FIREWALL));
    lab
}

fn test(lab: &Lab, spec: &str, more: &[&str]) -> Said {
    lab.nvactl_with(&[&["test", "-"], more].concat(), spec)
}

lab_test!(a_test_passes_or_shows_where_its_packets_went);
fn a_test_passes_or_shows_where_its_packets_went(backend: Backend) {
    let lab = working(backend);
    for more in [&[][..], &["--live"]] {
        let said = test(&lab, SPEC, more);
        assert_eq!(said.code, 0, "{more:?}: {said:?}");
        for words in [
            "passed      web is reached: tcp from 198.51.100.7 to port 49182 reaches 10.224.0.118:80",
            "2 tests, 2 passed",
        ] {
            assert!(said.stdout.contains(words), "{words}: {said:?}");
        }
    }
    // The spec does not know of a rule of another program. The machine does.
    lab.firewall
        .run("iptables -I FORWARD -d 10.224.0.118 -j DROP");
    assert_eq!(test(&lab, SPEC, &[]).code, 0);
    let said = test(&lab, SPEC, &["--live"]);
    assert_eq!(said.code, 1, "{said:?}");
    for words in [
        "failed      web is reached",
        "<stdin>:6: it reached nothing",
        "-A FORWARD -d 10.224.0.118/32 -j DROP",
        "2 tests, 1 passed, 1 failed",
    ] {
        assert!(said.stdout.contains(words), "{words}: {said:?}");
    }
}

/// Returns the lines of the first failed test of a report, without the ports of clients.
fn path_of_failed(report: &str) -> Vec<String> {
    let lines = report.lines().map(str::trim_start);
    let mut lines = lines.skip_while(|line| !line.starts_with("failed "));
    let first = lines.next();
    let is_of_test = |line: &&str| {
        !["passed ", "<stdin>: ", "hint: "]
            .iter()
            .any(|end| line.starts_with(end))
    };
    let lines = first.into_iter().chain(lines.take_while(is_of_test));
    let is_port = |word: &&str| word.contains(":4000");
    let words = |line: &str| -> Vec<String> {
        line.split(' ')
            .map(|word| if is_port(&word) { "PORT" } else { word }.to_owned())
            .collect()
    };
    lines.map(|line| words(line).join(" ")).collect()
}

lab_test!(either apply_loads_nothing_with_which_a_test_fails);
fn apply_loads_nothing_with_which_a_test_fails(backend: Backend) {
    let lab = working(backend);
    let before = save(&lab.firewall);
    let moved = SPEC.replace("pod: 10.224.0.118:80", "pod: 10.224.0.118:81");
    let opened = SPEC.replace(
        "forwards:\n",
        "forwards:\n  - {name: shell, listen: 22, target: {pod: 10.224.0.118:22}, silence: [takes-ssh]}\n",
    );
    for (spec, words) in [
        (&moved, "<stdin>:6: it reached 10.224.0.118:81 behind eth0"),
        (
            &opened,
            "<stdin>:8: it reached 10.224.0.118:22 behind eth0, with the source 10.3.0.4",
        ),
    ] {
        let path = path_of_failed(&test(&lab, spec, &[]).stdout);
        assert!(path.concat().contains("DNAT to 10.224.0.118"), "{path:?}");
        let said = lab.nvactl_with(&["apply", "-", "--format", "json"], spec);
        assert_eq!(said.code, 2, "{said:?}");
        let json: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
        let failed = &json["failed_tests"][0];
        let told = [&json["changed"], &failed["outcome"], &failed["line"]];
        let line = if spec == &moved { 6 } else { 8 };
        assert_eq!(told, [&false.into(), &"failed".into(), &Value::from(line)]);
        let trace = failed["trace"].as_str().expect("it has a path");
        assert!(trace.contains("DNAT to 10.224.0.118"), "{json}");
        for more in [&["--dry-run"][..], &[], &["--confirm", "60"]] {
            let said = lab.nvactl_with(&[&["apply", "-"], more].concat(), spec);
            assert_eq!(said.code, 2, "{more:?}: {said:?}");
            assert_eq!(path_of_failed(&said.stderr), path);
            for words in [
                words,
                "tests of the spec do not pass",
                "it reached 10.224.0.118",
                "--no-trial",
            ] {
                assert!(said.stderr.contains(words), "{words}: {said:?}");
            }
        }
        assert_eq!(save(&lab.firewall), before);
    }
    let said = lab.nvactl_with(&["apply", "-", "--no-trial"], &opened);
    assert_eq!(said.code, 0, "{said:?}");
    assert_ne!(save(&lab.firewall), before);
}

lab_test!(either apply_refuses_tests_that_it_cannot_run);
fn apply_refuses_tests_that_it_cannot_run(backend: Backend) {
    let lab = Lab::one_nic(backend);
    let before = save(&lab.firewall);
    let words = ["--bounding-set=-sys_admin", NVACTL, "apply", "-"];
    let said = Said::from(lab.firewall.feed("setpriv", &words, SPEC));
    assert_eq!(said.code, 2, "{said:?}");
    for words in [
        "the tests of the spec could not be run",
        "CAP_SYS_ADMIN",
        "--no-trial",
    ] {
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
    assert_eq!(save(&lab.firewall), before);
    let without = SPEC.split("tests:").next().expect("it is there");
    let said = Said::from(lab.firewall.feed("setpriv", &words, without));
    assert_eq!(said.code, 0, "without tests: {said:?}");
}

lab_test!(a_copy_whose_switches_are_read_only_is_an_error);
/// As in a container: the copy would not forward, and every connection would seem to be lost.
fn a_copy_whose_switches_are_read_only_is_an_error(backend: Backend) {
    let lab = working(backend);
    let before = save(&lab.firewall);
    let read_only = "mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys";
    let writable = "mount -o remount,bind,rw /proc/sys";
    let run = |mounts: &str, command: &str, spec: &str| {
        let script = format!("{mounts}; exec {NVACTL} {command}");
        let words = ["--mount", "sh", "-c", &script];
        Said::from(lab.firewall.feed("unshare", &words, spec))
    };
    let why =
        "the settings in /proc/sys/net cannot be written here: /proc/sys is mounted read-only";
    for command in [
        "test -",
        "test - --live",
        "trace - --from 198.51.100.7 --to 49182",
    ] {
        let said = run(read_only, command, SPEC);
        assert_eq!(
            (said.code, said.stdout.as_str()),
            (2, ""),
            "{command}: {said:?}"
        );
        let hint = format!("hint: to make them writable, as root: {writable}\n");
        assert!(said.stderr.contains(why), "{command}: {said:?}");
        assert!(said.stderr.contains(&hint), "{command}: {said:?}");
        let said = run(&format!("{read_only}; {writable}"), command, SPEC);
        assert_eq!(said.code, 0, "{command}: {said:?}");
    }
    let other = SPEC.replace("listen: 49182", "listen: [49182, 49183]");
    let said = run(read_only, "apply -", &other);
    assert_eq!(said.code, 2, "{said:?}");
    for words in ["the tests of the spec could not be run", why, "--no-trial"] {
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
    assert_eq!(save(&lab.firewall), before);
}

const LIMITED: &str = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: 80, target: {pod: [10.224.0.118:80, 10.224.0.119:80]}, limits: {new_per_second: 1, burst: 1}}
tests:
  - {from: 198.51.100.7, to: 80, reaches: '10.224.0.118:80|10.224.0.119:80'}
  - {from: 198.51.100.8, to: 80, reaches: '10.224.0.118:80|10.224.0.119:80'}
  - {from: 198.51.100.9, to: 80, reaches: '10.224.0.118:80|10.224.0.119:80'}
";

/// The limit would refuse this connection after another one.
const FALSE: &str = "  - {name: closed, from: 203.0.113.9, to: 80, reaches: nothing}\n";

lab_test!(either a_limit_counts_no_connection_of_another_test);
fn a_limit_counts_no_connection_of_another_test(backend: Backend) {
    let lab = Lab::one_nic(backend);
    let said = test(&lab, LIMITED, &[]);
    assert_eq!(said.code, 0, "{said:?}");
    let with_false = LIMITED.to_owned() + FALSE;
    let wrong = "closed: tcp from 203.0.113.9 to port 80 reaches nothing";
    let said = test(&lab, &with_false, &[]);
    assert_eq!(said.code, 1, "{said:?}");
    let failed = format!("failed      {wrong}");
    assert!(said.stdout.contains(&failed), "{said:?}");
    assert!(said.stdout.contains("3 passed, 1 failed"), "{said:?}");
    // The connections that `apply` opens before count no less.
    let said = lab.nvactl_with(&["apply", "-"], &with_false);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains(wrong), "{said:?}");
    lab.apply(LIMITED);
    let said = test(&lab, &with_false, &["--live"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stdout.contains("3 passed, 1 failed"), "{said:?}");
}

lab_test!(either a_test_that_is_not_opened_in_time_has_not_passed);
fn a_test_that_is_not_opened_in_time_has_not_passed(backend: Backend) {
    let lab = Lab::one_nic(backend);
    let set = yaml::read(LIMITED.as_bytes()).expect("the spec is valid");
    let outcomes = lab.firewall.enter(move || {
        let done = netns::aside(move || {
            let machine = Machine::read().expect("it is listed");
            let filter = PacketFilter::read().expect("it is listed");
            let mut twin = Twin::make(machine, &filter, None).expect("it can be made");
            let tests: Vec<&PacketTest> = set.tests.iter().collect();
            let tested = run_tests(&mut twin, &tests, &[&set], Instant::now());
            let tested = tested.expect("they run").into_iter();
            tested.map(|one| one.outcome).collect::<Vec<_>>()
        });
        done.expect("there is a thread")
    });
    let late = TestOutcome::NotOpened("the time limit was reached first".to_owned());
    assert_eq!(outcomes, [late.clone(), late.clone(), late]);
}

lab_test!(either a_rule_that_a_copy_cannot_show_makes_only_the_tests_that_meet_it_unknown);
/// The client whom the live machine has seen recently is not copied.
fn a_rule_that_a_copy_cannot_show_makes_only_the_tests_that_meet_it_unknown(backend: Backend) {
    let lab = working(backend);
    lab.firewall
        .run("iptables -I FORWARD -s 198.51.100.0/24 -m recent --name seen --rcheck -j DROP");
    let mut spec = SPEC.split("tests:").next().expect("it is there").to_owned();
    spec += "tests:\n";
    for n in 1..=40 {
        spec += &format!(
            "  - {{from: 198.51.100.{n}, to: 49182, reaches: '10.224.0.118:80'}}
  - {{from: 203.0.113.{n}, to: 49182, reaches: '10.224.0.118:80'}}
  - {{from: 203.0.113.{n}, to: 22, reaches: nothing}}
"
        );
    }
    let said = test(&lab, &spec, &["--live", "--format", "json"]);
    assert_eq!(said.code, 1, "{said:?}");
    let json: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    let tests = json["tests"].as_array().expect("it is a list");
    assert_eq!(tests.len(), 120);
    for (n, test) in tests.iter().enumerate() {
        let is_met = n % 3 == 0;
        let outcome = if is_met { "unknown" } else { "passed" };
        assert_eq!(test["outcome"], outcome, "{test}");
        let found = test["found"].as_str().unwrap_or_default();
        assert_eq!(found.contains("--name seen"), is_met, "{test}");
    }
}

lab_test!(either a_limit_does_not_fail_a_test_of_several_hosts);
/// Such a test opens connections until each host was reached, more than the limit admits.
fn a_limit_does_not_fail_a_test_of_several_hosts(backend: Backend) {
    let lab = Lab::one_nic(backend);
    let spec = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: 80, target: {pod: ['10.224.0.118:80', '10.224.0.119:80']}, limits: {new_per_second: 1, burst: 1}}
tests:
  - {from: 198.51.100.7, to: 80, reaches: '10.224.0.118:80|10.224.0.119:80'}
";
    let said = test(&lab, spec, &[]);
    assert_eq!(said.code, 0, "{said:?}");
    // The entry does not admit the client, so no connection arrives whatever the limit is.
    let denied = spec.replace("limits:", "deny_from: [198.51.100.7], limits:");
    let said = test(&lab, &denied, &[]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stdout.contains("it reached nothing"), "{said:?}");
}

lab_test!(either the_path_of_a_failed_test_ends_as_the_test_found);
/// The target is chosen by chance, so the connection is followed until it reaches the one that the test rules out.
fn the_path_of_a_failed_test_ends_as_the_test_found(backend: Backend) {
    let lab = Lab::one_nic(backend);
    let spec = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: 80, target: {pod: [10.224.0.118:80, 10.224.0.119:80, 10.224.0.120:81]}}
tests:
  - {from: 198.51.100.7, to: 80, reaches: '10.224.0.118:80|10.224.0.119:80'}
";
    let said = test(&lab, spec, &[]);
    assert_eq!(said.code, 1, "{said:?}");
    for words in [
        "<stdin>:6: it reached 10.224.0.120:81 behind eth0",
        "delivered: 10.224.0.120:81 behind eth0 sees 10.3.0.4",
    ] {
        assert!(said.stdout.contains(words), "{words}: {said:?}");
    }
    // The reader of a failed test sees on which machine it failed.
    let note = "note: the machine is made up from `<stdin>`:\n  eth0 has 10.3.0.4/24";
    assert!(said.stderr.contains(note), "{said:?}");
    let passed = spec.replace("119:80'}", "119:80|10.224.0.120:81'}");
    let said = test(&lab, &passed, &[]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said:?}");
}

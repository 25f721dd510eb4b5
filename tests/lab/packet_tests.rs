//! The tests of a spec: `nvactl test` asks a kernel, and `apply` loads nothing with which one fails.

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
        (&moved, "<stdin>:6: web is reached: tcp from 198.51.100.7"),
        (
            &opened,
            "<stdin>:8: ssh is not forwarded: tcp from 198.51.100.7",
        ),
    ] {
        for more in [&["--dry-run"][..], &[], &["--confirm", "60"]] {
            let said = lab.nvactl_with(&[&["apply", "-"], more].concat(), spec);
            assert_eq!(said.code, 2, "{more:?}: {said:?}");
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

lab_test!(either a_limit_counts_no_connection_of_another_test);
/// Each failed test is tried alone before it is reported.
fn a_limit_counts_no_connection_of_another_test(backend: Backend) {
    let lab = Lab::one_nic(backend);
    let spec = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: 80, target: {pod: 10.224.0.118:80}, limits: {new_per_second: 1, burst: 1}}
tests:
  - {from: 198.51.100.7, to: 80, reaches: '10.224.0.118:80'}
  - {from: 198.51.100.8, to: 80, reaches: '10.224.0.118:80'}
  - {from: 198.51.100.9, to: 80, reaches: '10.224.0.118:80'}
";
    let said = test(&lab, spec, &[]);
    assert_eq!(said.code, 0, "{said:?}");
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
}

lab_test!(the_failing_test_of_readme_is_true);
fn the_failing_test_of_readme_is_true(backend: Backend) {
    let page = include_str!("../../README.md");
    let (_, rest) = page
        .split_once("They are in no rule:\n\n```yaml\n")
        .expect("it is there");
    let (spec, rest) = rest.split_once("```\n").expect("it ends");
    let (_, rest) = rest.split_once("```text\n").expect("it is there");
    let (output, _) = rest.split_once("```\n").expect("it ends");
    let spec = spec.replace("10.224.0.118:80}", "10.224.0.118:81}");
    let spec = format!("firewall: {{interface: eth0, snat: 10.3.0.4}}\n{spec}");
    let lab = Lab::one_nic(backend);
    let command = format!("cd /run && cat > forward.yaml && {NVACTL} test forward.yaml");
    let said = Said::from(lab.firewall.feed("sh", &["-c", &command], &spec));
    assert_eq!((said.code, said.stdout.as_str()), (1, output), "{said:?}");
}

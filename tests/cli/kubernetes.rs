//! `import --kubernetes` and `check --kubernetes`.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{folder, nvactl, said};

/// The objects of a case.
const OBJECTS: &str = include_str!("../cases/problem-not-exposed/objects.json");
/// The spec of that case.
const SPEC: &str = include_str!("../cases/problem-not-exposed/spec.yaml");

/// Services beside those of the case: without a forward, and one that wants a port that is taken.
fn services() -> String {
    let more = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.3.0.0/24"], "ports": [{"name": "http", "port": 80}, {"port": 49180}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "10.224.0.231"}]}}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "new", "namespace": "shop"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}, "status": {"loadBalancer": {}}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kubernetes", "namespace": "default"},
        "spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "ports": [{"port": 443}]}, "status": {"loadBalancer": {}}},"#;
    OBJECTS.replacen("\"items\": [", &format!("\"items\": [{more}"), 1)
}

fn import(args: &[&str]) -> String {
    let folder = folder();
    fs::write(folder.path().join("services.json"), services()).unwrap();
    let import = ["import", "--kubernetes", "services.json"];
    said(nvactl(folder.path()).args(import).args(args))
}

#[test]
fn each_port_of_an_internal_load_balancer_becomes_a_forward() {
    insta::assert_snapshot!(import(&[]));
}

#[test]
fn json_has_the_account_of_each_service() {
    insta::assert_snapshot!(import(&["--format", "json"]));
}

#[test]
fn only_selected_services_become_forwards() {
    insta::assert_snapshot!(import(&[
        "--select",
        "shop/new",
        "--select",
        "default/tmp-shell",
        "--select",
        "default/kubernetes"
    ]));
}

#[test]
fn a_selected_service_that_is_not_there_is_an_error() {
    insta::assert_snapshot!(import(&[
        "--select",
        "shop/web",
        "--select",
        "shop/tmp-shell"
    ]));
    insta::assert_snapshot!(import(&["--select", "shop/wbe"]));
    insta::assert_snapshot!(import(&["--select", "nothing/like-it"]));
    insta::assert_snapshot!(import(&["--select", "web"]));
}

#[test]
fn the_spec_goes_to_a_file_that_does_not_exist_yet() {
    let folder = folder();
    let import = || {
        let args = ["import", "--kubernetes", "-", "-o", "spec.yaml"];
        said(nvactl(folder.path()).args(args).write_stdin(services()))
    };
    insta::assert_snapshot!(import());
    let spec = fs::read_to_string(folder.path().join("spec.yaml")).unwrap();
    assert_eq!(
        said(nvactl(folder.path()).args(["check", "spec.yaml"])),
        "exit 0\n"
    );
    let refused = import();
    assert!(refused.starts_with("exit 2\n"), "{refused}");
    assert!(refused.contains("`spec.yaml` exists already"), "{refused}");
    let kept = fs::read_to_string(folder.path().join("spec.yaml")).unwrap();
    assert_eq!(kept, spec);
}

#[test]
fn objects_in_place_of_rules_have_a_hint() {
    let folder = folder();
    fs::write(folder.path().join("my services.json"), services()).unwrap();
    let run = said(nvactl(folder.path()).args(["import", "my services.json"]));
    assert_eq!(
        run,
        "exit 2\n--- stderr\nerror: `my services.json` has JSON, and no rules of iptables\n\
         hint: for Services of a cluster: nvactl import --kubernetes 'my services.json'\n"
    );
    let run = said(
        nvactl(folder.path())
            .args(["import", "-"])
            .write_stdin("{ iptables -F; }\n"),
    );
    assert!(!run.contains("JSON"), "{run}");
}

/// kubectl takes seconds before it prints, and a proof takes as long.
#[test]
fn a_file_that_appears_while_the_command_runs_is_not_replaced() {
    let folder = folder();
    let mut import = Command::new(env!("CARGO_BIN_EXE_nvactl"))
        .current_dir(folder.path())
        .args(["import", "--kubernetes", "-", "-o", "spec.yaml"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = import.stdin.take().unwrap();
    // More than a pipe holds: the command reads, so it has looked for the file.
    stdin.write_all(&vec![b' '; 1 << 20]).unwrap();
    fs::write(folder.path().join("spec.yaml"), "precious").unwrap();
    stdin.write_all(services().as_bytes()).unwrap();
    drop(stdin);
    let output = import.wait_with_output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert_eq!(
        errors,
        "error: `spec.yaml` exists already, and is not replaced\nhint: name a file that does not exist, or remove this one\n"
    );
    let kept = fs::read_to_string(folder.path().join("spec.yaml")).unwrap();
    assert_eq!(kept, "precious");
    let left = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 1, "no file that is not complete stays");
}

#[test]
fn a_link_that_leads_nowhere_is_a_file_that_exists() {
    let folder = folder();
    symlink("elsewhere.yaml", folder.path().join("spec.yaml")).unwrap();
    let run = said(
        nvactl(folder.path())
            .args(["import", "--kubernetes", "-", "-o", "spec.yaml"])
            .write_stdin(services()),
    );
    assert!(
        run.starts_with("exit 2\n--- stderr\nerror: `spec.yaml` exists already"),
        "{run}"
    );
    assert!(!folder.path().join("elsewhere.yaml").exists());
}

#[test]
fn a_dash_is_standard_output() {
    let folder = folder();
    let run = |output: &[&str]| {
        said(
            nvactl(folder.path())
                .args(["import", "--kubernetes", "-"])
                .args(output)
                .write_stdin(services()),
        )
    };
    assert_eq!(run(&["-o", "-"]), run(&[]));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_spec_is_its_own_services_until_they_change() {
    let folder = folder();
    fs::write(folder.path().join("services.json"), services()).unwrap();
    let run = |args: &[&str]| said(nvactl(folder.path()).args(args));
    run(&["import", "--kubernetes", "services.json", "-o", "spec.yaml"]);
    let check = [
        "check",
        "spec.yaml",
        "--kubernetes",
        "services.json",
        "--deny",
        "all",
    ];
    assert_eq!(run(&check), "exit 0\n");
    let changed = services()
        .replace("\"port\": 53,", "\"port\": 5353,")
        .replace("10.224.0.231", "10.224.0.240");
    fs::write(folder.path().join("services.json"), changed).unwrap();
    let run = run(&check);
    assert!(run.starts_with("exit 1\n"), "{run}");
    for (code, count) in [("not-exposed", 2), ("not-in-cluster", 2)] {
        assert_eq!(
            run.matches(&format!("warning[{code}]")).count(),
            count,
            "{run}"
        );
    }
}

fn check(args: &[&str], objects: &str) -> String {
    let folder = folder();
    fs::write(folder.path().join("fw.yaml"), SPEC).unwrap();
    let check = ["check", "fw.yaml", "--kubernetes", "-"];
    said(
        nvactl(folder.path())
            .args(check)
            .args(args)
            .write_stdin(objects),
    )
}

#[test]
fn a_target_that_the_objects_do_not_have_is_a_warning_at_its_place() {
    insta::assert_snapshot!(check(&[], OBJECTS));
    let denied = check(&["--deny", "not-exposed"], OBJECTS);
    assert!(denied.starts_with("exit 1\n"), "{denied}");
    let other = check(&["--deny", "not-in-cluster"], OBJECTS);
    assert!(other.starts_with("exit 0\n"), "{other}");
    let json = check(&["--format", "json"], OBJECTS);
    let (_, json) = json.split_once("--- stdout\n").expect("it prints JSON");
    let report: Value = serde_json::from_str(json).expect("it is JSON");
    let first = &report["problems"][0];
    assert_eq!(first["code"], "not-exposed");
    assert_eq!((&first["line"], &first["column"]), (&6.into(), &12.into()));
    let github = check(&["--format", "github"], OBJECTS);
    assert!(
        github.contains("::warning file=fw.yaml,line=6,col=12"),
        "{github}"
    );
}

/// A hint for one item of a list has no key, and does not make two equal items.
#[test]
fn the_edit_of_a_list_is_that_of_an_item() {
    let objects = OBJECTS.replace("\"protocol\": \"UDP\"", "\"protocol\": \"TCP\"");
    for (targets, hints) in [
        (
            "[\"10.224.0.222:1\", \"10.9.0.1:2\"]",
            &["write `10.224.0.222:49180`"][..],
        ),
        ("[\"10.224.0.222:1\"]", &["write `pod: 10.224.0.222:49180`"]),
        (
            "[\"10.224.0.222:1\", \"10.224.0.222:49180\"]",
            &["remove it from the list, which has `10.224.0.222:49180` already"],
        ),
        (
            "[\"[fd00:224::230]:1\", \"[fd00:224::231]:1\"]",
            &["write `\"[fd00:224::230]:53\"`"],
        ),
    ] {
        let folder = folder();
        let spec = format!(
            "firewall: {{interface: eth0, snat: masquerade}}\nforwards: [{{name: web, listen: 80, \
             target: {{pod: {targets}}}, silence: [not-in-cluster]}}]\n"
        );
        fs::write(folder.path().join("fw.yaml"), spec).unwrap();
        let check = ["check", "fw.yaml", "--kubernetes", "-"];
        let run = said(
            nvactl(folder.path())
                .args(check)
                .write_stdin(objects.as_str()),
        );
        let found: Vec<&str> = run
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("= hint: "))
            .collect();
        assert_eq!(found, hints, "{run}");
    }
}

/// `kubectl get services` without a namespace prints those of one.
#[test]
fn a_file_of_one_namespace_says_so() {
    let only = OBJECTS.replace("\"infra\"", "\"default\"");
    let spec_of = SPEC.replace("10.224.0.222", "10.224.0.99");
    let check = |objects: &str| {
        let folder = folder();
        fs::write(folder.path().join("objects.json"), objects).unwrap();
        let check = ["check", "-", "--kubernetes", "objects.json"];
        said(
            nvactl(folder.path())
                .args(check)
                .write_stdin(spec_of.as_str()),
        )
    };
    let hint = "the file has only the namespace `default`, so write a file with all of them: \
                kubectl get services,endpoints,pods --all-namespaces -o json; if the target is not in the cluster";
    let run = check(&only);
    assert!(run.contains(hint), "{run}");
    let run = check(OBJECTS);
    assert!(!run.contains("namespace `"), "{run}");
    assert!(
        run.contains("hint: write the address that the target has now"),
        "{run}"
    );
}

#[test]
fn objects_that_cannot_be_read_are_an_error() {
    for (objects, expected) in [
        (
            "",
            "cannot read the objects in `<stdin>`: the text is empty\n",
        ),
        (
            "apiVersion: v1\n",
            "cannot read the objects in `<stdin>`: line 1, column 1: this is not JSON (expected value)\n",
        ),
        (
            &OBJECTS.replacen("49180", "491800", 1),
            "cannot read the objects in `<stdin>`: line 9, column 96: a port is a number from 1 to 65535\n",
        ),
    ] {
        let run = check(&[], objects);
        let hint = "hint: to write the file: kubectl get services --all-namespaces -o json > services.json\n";
        assert_eq!(run, format!("exit 2\n--- stderr\nerror: {expected}{hint}"));
    }
    let run = said(
        nvactl(folder().path())
            .args(["check", "-", "--kubernetes", "-"])
            .write_stdin(SPEC),
    );
    insta::assert_snapshot!(run);
    let run = said(nvactl(folder().path()).args(["import", "--kubernetes", "."]));
    insta::assert_snapshot!(run);
}

#[test]
fn options_that_make_no_sense_together_are_refused() {
    for args in [
        &["import", "live", "--kubernetes", "x"][..],
        &["import", "--kubernetes", "x", "--strict"],
        &["import", "--kubernetes", "x", "--no-proof"],
        &["import", "--select", "a/b"],
    ] {
        let run = said(nvactl(folder().path()).args(args));
        assert!(run.starts_with("exit 2\n--- stderr\nerror: the "), "{run}");
    }
}

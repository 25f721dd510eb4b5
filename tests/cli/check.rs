//! `nvactl check`.

use std::fs;

use crate::{BROKEN, SOUND, folder, nvactl, said};

#[test]
fn a_sound_spec_is_met_with_silence() {
    let folder = folder();
    let run = said(
        nvactl(folder.path())
            .args(["check", "-"])
            .write_stdin(SOUND),
    );
    assert_eq!(run, "exit 0\n");
}

#[test]
fn a_problem_is_a_page() {
    let folder = folder();
    fs::write(folder.path().join("fw.yaml"), BROKEN).unwrap();
    insta::assert_snapshot!(said(nvactl(folder.path()).args(["check", "fw.yaml"])));
}

#[test]
fn every_problem_of_a_file_is_reported_in_one_run() {
    let folder = folder();
    let spec = "\
version: 3
firewall:
  interface: eth+
  snat: masqerade
  forward_policy: reject
forwards:
  - name: no good
    listen: 0x50
    target: {pod: 10.224.0.118}
  - name: web
    listen: 49181
    protocol: icmp
    target: {ilb: 169.254.169.254:80}
  - name: web
    lisen: 49180-49190
    target: {ilb: 10.0.0.1:80}
";
    let run = said(nvactl(folder.path()).args(["check", "-"]).write_stdin(spec));
    let places: Vec<&str> = run
        .lines()
        .filter_map(|line| line.trim().strip_prefix("--> "))
        .collect();
    assert_eq!(
        places,
        [
            "<stdin>:1:10",
            "<stdin>:3:14",
            "<stdin>:4:9",
            "<stdin>:5:19",
            "<stdin>:7:11",
            "<stdin>:8:13",
            "<stdin>:9:19",
            "<stdin>:12:15",
            "<stdin>:13:19",
            "<stdin>:14:11",
            "<stdin>:15:5",
        ]
    );
    assert!(run.starts_with("exit 2\n"), "{run}");
    assert!(run.ends_with("error: `<stdin>` has 11 problems\n"), "{run}");
}

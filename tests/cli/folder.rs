//! A folder as the spec.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use tempfile::TempDir;

use crate::{SOUND, nvactl, said};

const FIREWALL: &str = "firewall: {interface: eth0, snat: 10.3.0.4}\n";

const WEB: &str = "\
forwards:
  - name: web
    listen: 49182
    target: {pod: 10.224.0.118:80}
";

/// A folder that holds `forward.d`, with these files in it.
fn forward_d(files: &[(&str, &str)]) -> TempDir {
    let folder = crate::folder();
    fs::create_dir(folder.path().join("forward.d")).unwrap();
    for (name, text) in files {
        fs::write(folder.path().join("forward.d").join(name), text).unwrap();
    }
    folder
}

fn run(folder: &Path, args: &[&str]) -> String {
    said(nvactl(folder).args(args))
}

fn check(files: &[(&str, &str)], options: &[&str]) -> String {
    let folder = forward_d(files);
    said(
        nvactl(folder.path())
            .args(["check", "forward.d"])
            .args(options),
    )
}

#[test]
fn it_is_rendered_as_its_files_would_be_in_one() {
    let folder = forward_d(&[("firewall.yaml", FIREWALL), ("web.yaml", WEB)]);
    fs::write(folder.path().join("one.yaml"), SOUND).unwrap();
    assert_eq!(run(folder.path(), &["check", "forward.d"]), "exit 0\n");
    let rendered = run(folder.path(), &["render", "forward.d"]);
    assert!(rendered.contains("--comment web -j DNAT"), "{rendered}");
    assert_eq!(rendered, run(folder.path(), &["render", "one.yaml"]));
    // As another spec to compare with, too.
    assert_eq!(
        run(
            folder.path(),
            &["diff", "one.yaml", "--against", "forward.d"]
        ),
        "exit 0\n--- stdout\none.yaml: the same as forward.d\n"
    );
    let variable = said(
        nvactl(folder.path())
            .arg("render")
            .env("NVACTL_SPEC", "forward.d/"),
    );
    assert_eq!(variable, rendered);
}

/// What is no `*.yaml`, is hidden or is a folder itself is not for nvactl.
#[test]
fn other_names_are_not_read() {
    let folder = forward_d(&[
        ("web.yaml", &format!("{FIREWALL}{WEB}")),
        (".web.yaml.swp", "}"),
        (".hidden.yaml", "}"),
        ("web.yaml~", "}"),
        ("web.yml", "}"),
        ("README", "}"),
    ]);
    fs::create_dir(folder.path().join("forward.d/old.yaml")).unwrap();
    fs::write(folder.path().join("forward.d/old.yaml/a.yaml"), "}").unwrap();
    assert_eq!(run(folder.path(), &["check", "forward.d"]), "exit 0\n");
}

/// Rules stand in the order of the files' names, byte by byte: `B` goes before `a`, `10` before `9`.
#[test]
fn the_names_of_the_files_decide_the_order_of_the_rules() {
    let forward = |name: &str, port: u16| {
        format!("forwards: [{{name: {name}, listen: {port}, target: {{pod: 10.224.0.118:80}}}}]\n")
    };
    let folder = forward_d(&[
        ("a.yaml", &forward("of-a", 1001)),
        ("9.yaml", &forward("of-9", 1002)),
        ("B.yaml", &forward("of-B", 1003)),
        ("10.yaml", &forward("of-10", 1004)),
        ("firewall.yaml", FIREWALL),
    ]);
    let rendered = run(folder.path(), &["render", "forward.d"]);
    let names: Vec<&str> = rendered
        .lines()
        .filter(|line| line.contains("-j DNAT"))
        .filter_map(|line| line.split("--comment ").nth(1)?.split(' ').next())
        .collect();
    assert_eq!(names, ["of-10", "of-9", "of-B", "of-a"]);
}

/// `defaults` and `silence` hold for every file, wherever they stand, and each file may have its
/// version.
#[test]
fn what_one_file_says_of_the_whole_holds_for_all() {
    let folder = forward_d(&[
        (
            "a.yaml",
            "version: 1\nforwards: [{name: games, listen: 20000-30000, target: {pod: 10.224.0.118:80}}]\n",
        ),
        ("b.yaml", &format!("silence: [wide-range]\n{FIREWALL}")),
        ("c.yaml", "version: 1\ndefaults: {protocol: udp}\n"),
    ]);
    let rendered = run(folder.path(), &["render", "forward.d"]);
    assert!(!rendered.contains("stderr"), "{rendered}");
    assert!(
        rendered.contains("-p udp -m udp --dport 20000:30000"),
        "{rendered}"
    );
    let path = folder.path().join("forward.d/c.yaml");
    fs::write(path, "version: 2\n").unwrap();
    let run = run(folder.path(), &["check", "forward.d"]);
    assert!(run.contains("--> forward.d/c.yaml:1:10"), "{run}");
}

#[test]
fn a_problem_is_shown_in_the_file_that_has_it() {
    let broken = WEB.replace("49182", "70000");
    insta::assert_snapshot!(check(&[("a.yaml", FIREWALL), ("b.yaml", &broken)], &[]));
}

#[test]
fn a_problem_of_two_files_shows_both() {
    let files = [
        ("a.yaml", FIREWALL),
        ("b.yaml", WEB),
        ("c.yaml", &format!("\n# the same again\n{WEB}")),
    ];
    insta::assert_snapshot!(check(&files, &[]));
    insta::assert_snapshot!(check(&files, &["--format", "json"]));
    insta::assert_snapshot!(check(&files, &["--format", "github"]));
}

#[test]
fn what_holds_for_the_whole_stands_in_one_file() {
    let defaults = "defaults: {protocol: udp}\n";
    let run = check(
        &[
            ("a.yaml", &format!("{FIREWALL}{defaults}")),
            ("b.yaml", &format!("{WEB}{defaults}")),
            ("c.yaml", FIREWALL),
        ],
        &[],
    );
    insta::assert_snapshot!(run);
}

#[test]
fn what_no_file_has_is_missing() {
    let run = check(
        &[("a.yaml", "version: 1\n"), ("b.yaml", "version: 1\n")],
        &[],
    );
    insta::assert_snapshot!(run);
    assert_eq!(
        check(&[("a.yaml", FIREWALL), ("b.yaml", "forwards: []\n")], &[]),
        "exit 0\n"
    );
}

#[test]
fn a_file_without_keys_is_an_error() {
    let files = [
        ("a.yaml", FIREWALL),
        ("b.yaml", "# nothing\n"),
        ("c.yaml", WEB),
    ];
    insta::assert_snapshot!(check(&files, &[]));
}

/// What a file that cannot be read may say is not complained of: neither that it is missing, nor
/// that ports overlap which may be of two protocols. What can be read is read.
#[test]
fn a_file_that_is_no_yaml_hides_no_problem_and_makes_none() {
    let run = check(
        &[
            ("a.yaml", "firewall: {interface: eth0\n"),
            ("b.yaml", WEB),
            (
                "c.yaml",
                &WEB.replace("web", "dns")
                    .replace("target", "protocol: tcp\n    target"),
            ),
            (
                "d.yaml",
                "forwards: [{name: web, listen: 0x50, target: {pod: 10.0.0.1:80}}]\n",
            ),
        ],
        &[],
    );
    let problems: Vec<&str> = run
        .lines()
        .filter(|line| line.starts_with("error[") || line.contains("--> "))
        .map(str::trim)
        .collect();
    assert_eq!(
        problems,
        [
            "error[syntax]: not YAML: unclosed bracket '{'",
            "--> forward.d/a.yaml:1:11",
            "error[duplicate-name]: another forward already has the name `web`",
            "--> forward.d/d.yaml:1:19",
            "error[invalid-port]: `0x50` is not a port: a port is a decimal number from 1 to 65535",
            "--> forward.d/d.yaml:1:32",
        ]
    );
}

#[test]
fn a_folder_without_a_spec_is_an_error() {
    insta::assert_snapshot!(check(&[("web.yml", WEB), (".web.yaml", WEB)], &[]));
}

/// One that is passed over would take its forwards with it.
#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let folder = forward_d(&[("a.yaml", &format!("{FIREWALL}{WEB}"))]);
    symlink("gone", folder.path().join("forward.d/b.yaml")).unwrap();
    let gone = run(folder.path(), &["check", "forward.d"]);
    assert_eq!(
        gone,
        "exit 2\n--- stderr\nerror: cannot read the spec `forward.d/b.yaml`: No such file or directory\n"
    );
    fs::write(folder.path().join("forward.d/gone"), "}").unwrap();
    let linked = run(folder.path(), &["check", "forward.d"]);
    assert!(linked.contains("--> forward.d/b.yaml:1:1"), "{linked}");
}

/// A folder that was not named but found holds no file that another user could change.
#[test]
fn apply_refuses_a_found_folder_with_a_file_that_others_may_write() {
    let folder = crate::folder();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let found = folder.path().join("forward.yaml");
    fs::create_dir(&found).unwrap();
    for (name, text) in [("a.yaml", FIREWALL), ("b.yaml", WEB)] {
        fs::write(found.join(name), text).unwrap();
        mode(&found.join(name), 0o644);
    }
    mode(folder.path(), 0o755);
    let apply = |spec: &[&str]| {
        said(
            nvactl(folder.path())
                .args(["apply", "--dry-run"])
                .args(spec)
                .env("PATH", "/nowhere"),
        )
    };
    for (path, is_folder, refused) in [
        (found.join("b.yaml"), false, "`forward.yaml/b.yaml`"),
        (found.clone(), true, "`forward.yaml`"),
        (folder.path().to_owned(), true, "`.`"),
    ] {
        let sound = if is_folder { 0o755 } else { 0o644 };
        mode(&path, sound | 0o020);
        let run = apply(&[]);
        assert!(run.starts_with("exit 2\n"), "{run}");
        let words = format!("users other than the owner can write to {refused}");
        assert!(run.contains(&words), "{run}");
        let named = apply(&["forward.yaml"]);
        assert!(!named.contains("may write"), "{named}");
        mode(&path, sound);
    }
    let run = apply(&[]);
    assert!(!run.contains("may write"), "{run}");
}

/// Whoever names a file of the folder says nothing to the terminal, or in another's name.
#[test]
fn no_name_of_a_file_reaches_the_terminal_as_it_is() {
    let folder = forward_d(&[("a.yaml", FIREWALL), ("b.yaml", WEB)]);
    let name = std::ffi::OsStr::from_bytes(b"c\n::error::\x1b[31m\xff.yaml");
    let path = folder.path().join("forward.d").join(name);
    fs::write(&path, WEB).unwrap();
    for format in ["text", "github", "json"] {
        let run = run(folder.path(), &["check", "forward.d", "--format", format]);
        assert!(!run.contains('\u{1b}'), "{run}");
        assert!(!run.contains("\n::error::"), "{run}");
        assert!(run.contains("duplicate-name"), "{run}");
    }
}

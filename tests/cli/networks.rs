//! Files of networks, which a spec names under `networks`.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;

use tempfile::TempDir;

use crate::{nvactl, said};

const SPEC: &str = "\
firewall: {interface: eth0, snat: 10.3.0.4}
networks:
  scanners: {file: lists/scanners.txt}
defaults: {deny_from: [scanners]}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
";

const SCANNERS: &str = "# last month\n192.0.2.0/24\n203.0.113.7\n";

/// Makes a folder with a spec and its file of networks, which only their owner can write to.
fn spec() -> TempDir {
    let folder = crate::folder();
    fs::create_dir(folder.path().join("lists")).unwrap();
    mode(&folder.path().join("lists"), 0o755);
    for (name, text) in [("fw.yaml", SPEC), ("lists/scanners.txt", SCANNERS)] {
        fs::write(folder.path().join(name), text).unwrap();
        mode(&folder.path().join(name), 0o644);
    }
    folder
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn run(folder: &Path, args: &[&str]) -> String {
    said(nvactl(folder).args(args))
}

/// Runs a command that changes the host. Without iptables it fails after the spec was read and trusted.
fn apply(folder: &Path) -> String {
    let mut command = nvactl(folder);
    said(
        command
            .args(["apply", "--dry-run", "fw.yaml"])
            .env("PATH", "/nowhere"),
    )
}

#[test]
fn a_file_has_the_rules_of_the_same_list_in_the_spec() {
    let folder = spec();
    let inline = SPEC.replace("{file: lists/scanners.txt}", "[203.0.113.7, 192.0.2.0/24]");
    fs::write(folder.path().join("inline.yaml"), inline).unwrap();
    let rules = run(folder.path(), &["render", "fw.yaml"]);
    assert!(rules.contains("-s 203.0.113.7/32 -j DROP"), "{rules}");
    assert_eq!(rules, run(folder.path(), &["render", "inline.yaml"]));
    assert_eq!(run(folder.path(), &["check", "fw.yaml"]), "exit 0\n");
    // The path counts from the spec's folder, wherever nvactl is started.
    let inside = folder.path().join("lists");
    assert_eq!(run(&inside, &["render", "../fw.yaml"]), rules);
    let same = run(
        folder.path(),
        &["diff", "inline.yaml", "--against", "fw.yaml"],
    );
    assert!(same.starts_with("exit 0\n"), "{same}");
}

#[test]
fn a_bad_line_is_shown_with_its_file_and_line() {
    let folder = spec();
    let bad = "192.0.2.0/24\r\n\r\n  192.0.2.256 # typing error\r\n";
    fs::write(folder.path().join("lists/scanners.txt"), bad).unwrap();
    insta::assert_snapshot!(run(folder.path(), &["check", "fw.yaml"]));
    let github = run(folder.path(), &["check", "fw.yaml", "--format", "github"]);
    let place = "::error file=lists/scanners.txt,line=3,col=3,endColumn=13,title=invalid-net::";
    assert!(github.contains(place), "{github}");
    let json = run(folder.path(), &["check", "fw.yaml", "--format", "json"]);
    for field in [
        r#""file": "lists/scanners.txt""#,
        r#""line": 3"#,
        r#""end_column": 14"#,
    ] {
        assert!(json.contains(field), "{json}");
    }
    for command in [
        &["render", "fw.yaml"][..],
        &["diff", "fw.yaml", "--against", "fw.yaml"],
    ] {
        let refused = run(folder.path(), command);
        assert!(refused.contains("--> lists/scanners.txt:3:3"), "{refused}");
    }
}

#[test]
fn a_file_that_cannot_be_used_is_a_problem_at_its_name() {
    let folder = spec();
    let outside = crate::folder();
    fs::write(outside.path().join("scanners.txt"), SCANNERS).unwrap();
    let link = folder.path().join("link.txt");
    symlink(outside.path().join("scanners.txt"), &link).unwrap();
    symlink(outside.path(), folder.path().join("out")).unwrap();
    symlink("lists", folder.path().join("in")).unwrap();
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    let absolute = folder.path().join("lists/scanners.txt");
    let away = "does not lie beside the spec or below it";
    let real = fs::canonicalize(outside.path().join("scanners.txt")).unwrap();
    let linked = format!("is behind a link that leads to `{}`", real.display());
    let linked = linked.as_str();
    for (path, words) in [
        ("lists/none.txt", "No such file or directory"),
        ("lists", "it is not a regular file"),
        ("pipe", "it is not a regular file"),
        ("lists/scanners.txt/x", "Not a directory"),
        ("../scanners.txt", away),
        ("lists/../lists/scanners.txt", away),
        (absolute.to_str().unwrap(), away),
        ("link.txt", linked),
        ("out/scanners.txt", linked),
    ] {
        let spec = SPEC.replace("lists/scanners.txt", path);
        fs::write(folder.path().join("fw.yaml"), spec).unwrap();
        let run = run(folder.path(), &["check", "fw.yaml"]);
        assert!(run.starts_with("exit 2\n"), "{path}: {run}");
        assert!(run.contains("error[network-file]"), "{path}: {run}");
        assert!(run.contains("--> fw.yaml:3:20"), "{path}: {run}");
        assert!(run.contains(words), "{path}: {run}");
    }
    // A link that stays in the folder is followed, as in a mounted ConfigMap.
    let spec = SPEC.replace("lists/scanners.txt", "./in/scanners.txt");
    fs::write(folder.path().join("fw.yaml"), spec).unwrap();
    assert_eq!(run(folder.path(), &["check", "fw.yaml"]), "exit 0\n");
}

#[test]
fn a_spec_from_standard_input_has_no_file() {
    let folder = spec();
    let mut check = nvactl(folder.path());
    insta::assert_snapshot!(said(check.args(["check", "-"]).write_stdin(SPEC)));
}

#[test]
fn apply_refuses_a_file_that_others_may_write() {
    let folder = spec();
    let file = folder.path().join("lists/scanners.txt");
    let within = folder.path().join("lists");
    let usual = apply(folder.path());
    assert!(!usual.contains("could decide"), "{usual}");
    let writable = "users other than the owner can write to";
    for (path, wrong, right) in [(&file, 0o666, 0o644), (&within, 0o777, 0o755)] {
        mode(path, wrong);
        let run = apply(folder.path());
        assert!(run.starts_with("exit 2\n"), "{run}");
        assert!(
            run.contains(&format!("{writable} `{}`", path.display())),
            "{run}"
        );
        assert!(run.contains("hint: sudo chmod go-w "), "{run}");
        mode(path, right);
    }
    assert_eq!(apply(folder.path()), usual);
    // Reading is no risk.
    mode(&file, 0o666);
    assert_eq!(run(folder.path(), &["check", "fw.yaml"]), "exit 0\n");
}

/// A user who can write to the folder of a link can lead it elsewhere.
#[test]
fn apply_refuses_a_link_in_a_folder_that_others_may_write() {
    let folder = spec();
    let public = folder.path().join("public");
    fs::create_dir(&public).unwrap();
    symlink("../lists/scanners.txt", public.join("scanners.txt")).unwrap();
    mode(&public, 0o755);
    let text = SPEC.replace("lists/scanners.txt", "public/scanners.txt");
    let spec = folder.path().join("fw.yaml");
    fs::write(&spec, text).unwrap();
    mode(&spec, 0o644);
    let usual = apply(folder.path());
    assert!(!usual.contains("could decide"), "{usual}");
    mode(&public, 0o777);
    let run = apply(folder.path());
    let words = format!("the owner can write to `{}`", public.display());
    assert!(run.contains(&words), "{run}");
    assert!(run.contains("hint: sudo chmod go-w "), "{run}");
}

#[test]
fn apply_refuses_a_file_that_somebody_else_owns() {
    if !rustix::process::geteuid().is_root() {
        return; // only root can give a file away
    }
    let folder = spec();
    let file = folder.path().join("lists/scanners.txt");
    chown(&file, Some(1234), None).unwrap();
    let run = apply(folder.path());
    let words = format!("another user owns `{}`", file.display());
    assert!(run.contains(&words), "{run}");
    assert!(run.contains("hint: sudo chown root "), "{run}");
}

#[test]
fn the_files_of_a_folder_share_their_names() {
    let folder = crate::folder();
    let spec = folder.path().join("forward.d");
    fs::create_dir(&spec).unwrap();
    let firewall =
        "firewall: {interface: eth0, snat: 10.3.0.4}\ndefaults: {deny_from: [scanners]}\n";
    let networks =
        "networks: {office: [198.51.100.0/24, 168.63.129.16], scanners: {file: scanners.txt}}\n";
    let web = "forwards:\n  - {name: web, listen: 80, target: {pod: 10.224.0.118:80}, allow_from: [office]}\n";
    for (name, text) in [
        ("a.yaml", firewall),
        ("b.yaml", web),
        ("c.yaml", networks),
        ("scanners.txt", SCANNERS),
    ] {
        fs::write(spec.join(name), text).unwrap();
    }
    assert_eq!(run(folder.path(), &["check", "forward.d"]), "exit 0\n");
    let again = "networks: {office: [192.0.2.0/24], bots: [192.0.2.0/24]}\n";
    fs::write(spec.join("d.yaml"), again).unwrap();
    fs::write(spec.join("scanners.txt"), "office\n").unwrap();
    insta::assert_snapshot!(run(folder.path(), &["check", "forward.d"]));
    // A file that cannot be read may have the names that are missing.
    fs::remove_file(spec.join("d.yaml")).unwrap();
    fs::write(spec.join("scanners.txt"), SCANNERS).unwrap();
    fs::write(spec.join("c.yaml"), format!("{networks}}}")).unwrap();
    let unread = run(folder.path(), &["check", "forward.d"]);
    assert!(!unread.contains("unknown-network"), "{unread}");
}

#[test]
fn the_limit_of_bytes_includes_the_files() {
    let folder = spec();
    let line = "# a long comment that is no network at all, and takes only space in the file\n";
    let text = line.repeat((32 << 20) / line.len() + 1);
    fs::write(folder.path().join("lists/scanners.txt"), text).unwrap();
    let run = run(folder.path(), &["check", "fw.yaml"]);
    let words = "cannot read `lists/scanners.txt`: the spec and its files are larger than 32 MiB";
    assert!(run.contains(words), "{run}");
}

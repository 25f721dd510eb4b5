//! Tests of `nvactl render`.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Command, Stdio};

use crate::{BOTH, BROKEN, SOUND, folder, nvactl, said};

#[test]
fn an_invalid_spec_prints_nothing_to_standard_output() {
    let folder = folder();
    let run = nvactl(folder.path())
        .args(["render", "-"])
        .write_stdin(BROKEN)
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(2));
    assert_eq!(run.stdout, b"");
}

#[test]
fn the_output_file_is_complete_and_has_mode_0640() {
    let folder = folder();
    let rules = folder.path().join("rules.v4");
    let run = said(
        nvactl(folder.path())
            .args(["render", "-", "-o", "rules.v4"])
            .write_stdin(SOUND),
    );
    assert_eq!(run, "exit 0\n");
    assert_eq!(
        fs::metadata(&rules).unwrap().permissions().mode() & 0o7777,
        0o640
    );
    let printed = nvactl(folder.path())
        .args(["render", "-"])
        .write_stdin(SOUND)
        .output()
        .unwrap();
    assert_eq!(fs::read(&rules).unwrap(), printed.stdout);

    // nvactl replaces its own earlier output, and leaves no other file beside it.
    let changed = SOUND.replace("49182", "49183");
    let run = said(
        nvactl(folder.path())
            .args(["render", "-", "-o", "rules.v4"])
            .write_stdin(changed),
    );
    assert_eq!(run, "exit 0\n");
    assert!(fs::read_to_string(&rules).unwrap().contains("49183"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_invalid_spec_leaves_the_output_file_unchanged() {
    let folder = folder();
    let rules = folder.path().join("rules.v4");
    fs::write(&rules, "*filter\nCOMMIT\n").unwrap();
    let run = nvactl(folder.path())
        .args(["render", "-", "-o", "rules.v4"])
        .write_stdin(BROKEN)
        .output();
    assert_eq!(run.unwrap().status.code(), Some(2));
    assert_eq!(fs::read_to_string(&rules).unwrap(), "*filter\nCOMMIT\n");
}

#[test]
fn a_file_with_foreign_rules_is_replaced_only_with_force() {
    for (theirs, line) in [
        (
            "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p icmp -j DROP\nCOMMIT\n",
            "-A INPUT -p icmp -j DROP",
        ),
        ("*filter\n:INPUT DROP [0:0]\nCOMMIT\n", ":INPUT DROP [0:0]"),
        ("*nat\n:DOCKER - [0:0]\nCOMMIT\n", ":DOCKER - [0:0]"),
        (
            "*raw\n-A OUTPUT -j CT --notrack\nCOMMIT\n",
            "-A OUTPUT -j CT --notrack",
        ),
        ("a shopping list\n", "a shopping list"),
    ] {
        let folder = folder();
        let rules = folder.path().join("rules.v4");
        fs::write(&rules, theirs).unwrap();
        let render = ["render", "-", "-o", "rules.v4"];
        let run = said(nvactl(folder.path()).args(render).write_stdin(SOUND));
        assert!(run.starts_with("exit 2\n"), "{run}");
        assert!(run.contains(line), "{run}");
        assert!(run.contains("--force"), "{run}");
        assert_eq!(fs::read_to_string(&rules).unwrap(), theirs);
        let run = said(
            nvactl(folder.path())
                .args(render)
                .arg("--force")
                .write_stdin(SOUND),
        );
        assert_eq!(run, "exit 0\n");
        assert!(fs::read_to_string(&rules).unwrap().contains("49182"));
    }
}

#[test]
fn a_link_is_kept_and_a_folder_or_pipe_is_refused() {
    let folder = folder();
    symlink("real.v4", folder.path().join("rules.v4")).unwrap();
    fs::write(folder.path().join("real.v4"), "").unwrap();
    let run = said(
        nvactl(folder.path())
            .args(["render", "-", "-o", "rules.v4"])
            .write_stdin(SOUND),
    );
    assert_eq!(run, "exit 0\n");
    assert!(
        fs::symlink_metadata(folder.path().join("rules.v4"))
            .unwrap()
            .is_symlink()
    );
    assert!(
        fs::read_to_string(folder.path().join("real.v4"))
            .unwrap()
            .contains("49182")
    );

    let made = Command::new("mkfifo")
        .arg(folder.path().join("pipe"))
        .status();
    assert!(made.unwrap().success());
    for place in [".", "pipe"] {
        let run = said(
            nvactl(folder.path())
                .args(["render", "-", "-o", place])
                .write_stdin(SOUND),
        );
        assert!(run.contains("is not a regular file"), "{place}: {run}");
    }
}

#[test]
fn a_missing_folder_is_named() {
    let folder = folder();
    let run = said(
        nvactl(folder.path())
            .args(["render", "-", "-o", "no/rules.v4"])
            .write_stdin(SOUND),
    );
    assert!(
        run.starts_with(
            "exit 2\n--- stderr\nerror: cannot write `no/rules.v4`: No such file or directory\n"
        ),
        "{run}"
    );
}

/// `nvactl render > rules.v4`: the shell has emptied the file before nvactl starts.
#[test]
fn a_redirection_works_and_a_failure_warns_of_the_emptied_file() {
    let folder = folder();
    let rules = folder.path().join("rules.v4");
    let render = |spec: &str| {
        fs::write(folder.path().join("forward.yaml"), spec).unwrap();
        let run = Command::new(env!("CARGO_BIN_EXE_nvactl"))
            .arg("render")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(File::create(&rules).unwrap())
            .output()
            .unwrap();
        String::from_utf8(run.stderr).unwrap()
    };
    assert_eq!(render(SOUND), "");
    assert!(fs::read_to_string(&rules).unwrap().ends_with("COMMIT\n"));
    let warning = render(BROKEN);
    assert!(warning.contains("do not load it"), "{warning}");
    assert_eq!(fs::read_to_string(&rules).unwrap(), "");
}

/// This is `nvactl render | head -1`.
#[test]
fn a_closed_standard_output_is_no_error() {
    let folder = folder();
    let mut spec = "firewall: {interface: eth0, snat: 10.3.0.4}\nforwards:\n".to_owned();
    for n in 1..=3000 {
        spec += &format!(
            "  - {{name: f{n}, listen: {}, target: {{pod: 10.0.0.1:80}}}}\n",
            1000 + n
        );
    }
    fs::write(folder.path().join("forward.yaml"), spec).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_nvactl"))
        .arg("render")
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(output.stderr, b"");
}

/// With `forward_policy: keep`, a DROP policy in the file is not nvactl's.
#[test]
fn a_file_with_a_foreign_drop_policy_is_not_replaced() {
    let folder = folder();
    let keep = SOUND.replace("snat: 10.3.0.4", "snat: 10.3.0.4\n  forward_policy: keep");
    for (spec, code) in [(SOUND, 0), (keep.as_str(), 2)] {
        fs::write(
            folder.path().join("rules.v4"),
            "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n",
        )
        .unwrap();
        let run = said(
            nvactl(folder.path())
                .args(["render", "-", "-o", "rules.v4"])
                .write_stdin(spec),
        );
        assert!(run.starts_with(&format!("exit {code}\n")), "{run}");
    }
}

#[test]
fn a_broken_link_is_kept_and_its_target_is_created() {
    let folder = folder();
    symlink("new.v4", folder.path().join("rules.v4")).unwrap();
    let run = said(
        nvactl(folder.path())
            .args(["render", "-", "-o", "rules.v4"])
            .write_stdin(SOUND),
    );
    assert_eq!(run, "exit 0\n");
    assert!(
        fs::symlink_metadata(folder.path().join("rules.v4"))
            .unwrap()
            .is_symlink()
    );
    assert!(
        fs::read_to_string(folder.path().join("new.v4"))
            .unwrap()
            .contains("49182")
    );
}

/// A file that cannot be read may hold foreign rules.
#[test]
fn an_unreadable_file_is_not_replaced() {
    let folder = folder();
    fs::write(
        folder.path().join("0"),
        "*filter\n-A INPUT -j DROP\nCOMMIT\n",
    )
    .unwrap();
    // The kernel follows 40 links.
    for n in 1..=41 {
        symlink(format!("{}", n - 1), folder.path().join(n.to_string())).unwrap();
    }
    let run = said(
        nvactl(folder.path())
            .args(["render", "-", "-o", "41"])
            .write_stdin(SOUND),
    );
    assert!(run.starts_with("exit 2\n"), "{run}");
    assert!(run.contains("Too many levels of symbolic links"), "{run}");
    for n in 1..=41 {
        let link = fs::symlink_metadata(folder.path().join(n.to_string())).unwrap();
        assert!(link.is_symlink(), "{n}");
    }
    let run = said(
        nvactl(folder.path())
            .args(["render", "-", "-o", "40"])
            .write_stdin(SOUND),
    );
    assert!(run.contains("-A INPUT -j DROP"), "{run}");
}

/// The shell empties the file even if the command line is wrong.
#[test]
fn a_wrong_option_also_warns_of_the_emptied_file() {
    let folder = folder();
    let run = Command::new(env!("CARGO_BIN_EXE_nvactl"))
        .args(["render", "--nosuch"])
        .current_dir(folder.path())
        .stdout(File::create(folder.path().join("rules.v4")).unwrap())
        .output()
        .unwrap();
    let warning = String::from_utf8(run.stderr).unwrap();
    assert!(
        warning.contains("do not load it") && warning.contains("--nosuch"),
        "{warning}"
    );
}

#[test]
fn each_family_is_rendered_separately() {
    let folder = folder();
    let render = |args: &[&str]| {
        let args = [&["render", "-"], args].concat();
        let output = nvactl(folder.path()).args(args).write_stdin(BOTH).output();
        let output = output.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    let (v4, quiet) = render(&["--family", "v4"]);
    assert!(v4.contains("comment web ") && !v4.contains("web6"), "{v4}");
    assert_eq!(quiet, "");
    // Without `--family`, a note names the other family.
    let (unsaid, note) = render(&[]);
    assert_eq!(unsaid, v4);
    assert_eq!(
        note,
        "note: these are the IPv4 rules; to print the IPv6 rules, add: --family v6\n"
    );
    let (v6, quiet) = render(&["--family", "v6"]);
    assert!(
        v6.contains("-j DNAT --to-destination [fd00:224::118]:80"),
        "{v6}"
    );
    assert!(!v6.contains("comment web "), "{v6}");
    assert_eq!(quiet, "");
    let (nothing, refused) = render(&["--family", "ipv6"]);
    assert_eq!(nothing, "");
    assert!(refused.contains("not one of v4, v6"), "{refused}");
}

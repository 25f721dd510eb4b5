//! The command line, without root and without iptables: status, standard output and standard error
//! together.

mod apply;
mod check;
mod diff;
mod explain;
mod folder;
mod help;
mod import;
mod networks;
mod printable;
mod render;
mod spec_source;
mod tests_of_a_spec;

use std::fmt::Write as _;
use std::path::Path;

use assert_cmd::Command;

/// nvactl in an empty folder of its own, knowing nothing of the caller's environment.
fn nvactl(folder: &Path) -> Command {
    let mut command = Command::cargo_bin("nvactl").expect("it is built");
    command
        .current_dir(folder)
        .env_remove("NVACTL_SPEC")
        .env("NO_COLOR", "1");
    command
}

/// What a run left behind, as one text to take a snapshot of.
fn said(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    let mut text = format!(
        "exit {}\n",
        output.status.code().expect("it ended by itself")
    );
    for (name, bytes) in [("stdout", output.stdout), ("stderr", output.stderr)] {
        let bytes = String::from_utf8(bytes).expect("it prints text");
        if !bytes.is_empty() {
            let _ = write!(text, "--- {name}\n{bytes}");
        }
    }
    text
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder can be made")
}

/// A forward of each family.
const BOTH: &str = r#"
firewall: {interface: eth0, snat: {v4: 10.3.0.4, v6: "fd00:3::4"}}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
  - {name: web6, listen: 49182, target: {pod: "[fd00:224::118]:80"}}
"#;

const SOUND: &str = "\
firewall:
  interface: eth0
  snat: 10.3.0.4
forwards:
  - name: web
    listen: 49182
    target:
      pod: 10.224.0.118:80
";

const BROKEN: &str = "\
firewall:
  interface: eth0
  snat: 10.3.0.4
forwards:
  - name: web
    listen: 70000
    target:
      pod: 10.224.0.118:80
";

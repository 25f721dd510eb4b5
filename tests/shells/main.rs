//! Completion in bash, zsh and fish themselves, and the manual page in `man`: a person types, and nvactl is asked.
//!
//! `typed.py` types into a shell. A shell that is not installed is left out, unless `NVACTL_LAB=required`.

#[path = "../pages/mod.rs"]
#[expect(dead_code, reason = "`tests/blocks.rs` asks for every block")]
mod pages;
#[path = "../required/mod.rs"]
mod required;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use assert_cmd::cargo::cargo_bin;
use clap::CommandFactory as _;
use nvactl::cli::Cli;
use pages::{block, page, root};
use required::is_required;

/// A folder with specs, in which a shell runs.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().expect("it can be made"));
        let spec = |names: &[&str]| {
            let entries = names.iter().enumerate().map(|(n, name)| {
                format!(
                    "  - {{name: {name}, listen: {}, target: {{pod: 10.0.0.1:80}}}}\n",
                    1000 + n
                )
            });
            format!(
                "firewall: {{interface: eth0, snat: 10.3.0.4}}\nforwards:\n{}\
                 outbound: [{{name: way-out, allow_from: [10.0.0.0/8]}}]\n",
                entries.collect::<String>()
            )
        };
        folder.write("forward.yaml", &spec(&["web", "web-2", "dns"]));
        folder.write("other spec.yaml", &spec(&["alpha", "beta.x"]));
        folder.write("teams/web.yaml", &spec(&["team"]));
        for rules in ["list.v4", "listing", "live rules.v4"] {
            folder.write(rules, "");
        }
        folder.write("notes.txt", "");
        folder.write("night.yaml", "");
        folder.write("broken.yaml", "forwards: [");
        folder.write(
            "evil.yaml",
            &spec(&[
                "good",
                "'$(touch made)'",
                "'`touch made`'",
                "'x;touch made'",
            ]),
        );
        for script in ["bash", "zsh", "fish"] {
            let output = Command::new(cargo_bin("nvactl"))
                .args(["completions", script])
                .output();
            let text = output.expect("it runs").stdout;
            folder.write(script, std::str::from_utf8(&text).expect("it is text"));
        }
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("it can be made");
        fs::write(path, text).expect("it can be written");
    }

    /// Runs a program in the folder, with `nvactl` on its PATH.
    fn run(&self, program: &str, args: &[&str], stdin: &str) -> Output {
        let bin = cargo_bin("nvactl");
        let bin = bin.parent().expect("it has one").display();
        let path = std::env::var("PATH").expect("there is one");
        let mut child = Command::new(program)
            .args(args)
            .current_dir(self.path())
            .env("PATH", format!("{bin}:{path}"))
            .env("HOME", self.path())
            .env("LC_ALL", "C.UTF-8")
            .env_remove("NVACTL_SPEC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let mut pipe = child.stdin.take().expect("it is a pipe");
        pipe.write_all(stdin.as_bytes()).expect("it reads");
        drop(pipe);
        child.wait_with_output().expect("it ends")
    }

    /// Types lines into a shell that has read `files`, and holds each result against the one that is wanted.
    fn types(&self, shell: &str, files: &[&str], lines: &[(&str, &str, &str)]) {
        let script = root().join("tests/shells/typed.py");
        let args = [&[script.to_str().expect("it is text"), shell], files].concat();
        let typed: String = lines
            .iter()
            .map(|(line, key, _)| format!("{line}\t{key}\n"))
            .collect();
        let output = self.run("python3", &args, &typed);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        let shown = String::from_utf8(output.stdout).expect("it is text");
        let shown: Vec<&str> = shown.lines().collect();
        assert_eq!(shown.len(), lines.len(), "{shown:?}");
        for ((line, _, wanted), shown) in lines.iter().zip(shown) {
            let mut words: Vec<&str> = shown.trim_end().split(' ').collect();
            let mut wanted: Vec<&str> = wanted.split(' ').collect();
            // The order of the words is the shell's.
            words.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(words, wanted, "{shell}: {line}: {shown}");
        }
        assert!(
            !self.path().join("made").exists(),
            "a name was run as a command"
        );
    }
}

/// Whether a program is there. A test that has to run fails without it.
fn is_there(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    assert!(found || !is_required(), "{program} is missing");
    found
}

/// The lines, the key, and the line as it stands then. Every shell writes these alike.
const LINES: [(&str, &str, &str); 14] = [
    ("nvactl expl", "one", "nvactl explain"),
    ("nvactl boot ena", "one", "nvactl boot enable"),
    ("nvactl explain --forw", "one", "nvactl explain --forward"),
    (
        "nvactl explain --forward ",
        "all",
        "nvactl explain --forward dns way-out web web-2",
    ),
    (
        "nvactl explain --forward way",
        "one",
        "nvactl explain --forward way-out",
    ),
    (
        "nvactl explain --forward=dn",
        "one",
        "nvactl explain --forward=dns",
    ),
    (
        "nvactl explain other\\ spec.yaml --forward al",
        "one",
        "nvactl explain other\\ spec.yaml --forward alpha",
    ),
    (
        "nvactl explain \"other spec.yaml\" --forward=be",
        "one",
        "nvactl explain \"other spec.yaml\" --forward=beta.x",
    ),
    (
        "nvactl explain ~/teams --forward te",
        "one",
        "nvactl explain ~/teams --forward team",
    ),
    (
        "nvactl explain - --forward w",
        "one",
        "nvactl explain - --forward w",
    ),
    (
        "nvactl explain broken.yaml --forward w",
        "one",
        "nvactl explain broken.yaml --forward w",
    ),
    (
        "nvactl explain evil.yaml --forward ",
        "one",
        "nvactl explain evil.yaml --forward",
    ),
    (
        "nvactl check --format=gi",
        "one",
        "nvactl check --format=github",
    ),
    ("nvactl nonsense --x ", "one", "nvactl nonsense --x"),
];

/// Paths, which each shell quotes in its own way.
const PATHS: [(&str, &str, &str); 8] = [
    ("nvactl check fo", "one", "nvactl check forward.yaml"),
    ("nvactl check n", "one", "nvactl check night.yaml"),
    ("nvactl check no", "one", "nvactl check notes.txt"),
    ("nvactl check oth", "one", "nvactl check other\\ spec.yaml"),
    ("nvactl import no", "one", "nvactl import notes.txt"),
    (
        "nvactl render --output=no",
        "one",
        "nvactl render --output=notes.txt",
    ),
    ("nvactl --state-dir=te", "one", "nvactl --state-dir=teams/"),
    ("nvactl check tea", "one", "nvactl check teams/"),
];

/// Values that may be a word or a file.
const WORDS_AND_FILES: [(&str, &str, &str); 5] = [
    (
        "nvactl import l",
        "all",
        "nvactl import list.v4 listing live live\\ rules.v4",
    ),
    (
        "nvactl diff --against l",
        "all",
        "nvactl diff --against list.v4 listing live live\\ rules.v4",
    ),
    (
        "nvactl trace l",
        "all",
        "nvactl trace list.v4 listing live live\\ rules.v4",
    ),
    ("nvactl import lis", "one", "nvactl import list"),
    (
        "nvactl import live\\ ",
        "one",
        "nvactl import live\\ rules.v4",
    ),
];

#[test]
fn bash_completes_without_the_package_bash_completion() {
    let folder = Folder::new();
    if is_there("bash") {
        folder.types("bash", &["./bash"], &LINES);
        folder.types("bash", &["./bash"], &PATHS);
        folder.types("bash", &["./bash"], &WORDS_AND_FILES);
    }
}

/// The package loads the script by its own, and completes the command behind `sudo`.
#[test]
fn bash_completes_with_the_package_bash_completion() {
    let package = "target/programs/bash-completion/usr/share/bash-completion/bash_completion";
    let package = root().join(package);
    assert!(
        package.exists() || !is_required(),
        "tests/prepare has not unpacked {package:?}"
    );
    let folder = Folder::new();
    if !is_there("bash") || !package.exists() {
        return;
    }
    let package = package.to_str().expect("it is text");
    folder.write(
        ".local/share/bash-completion/completions/nvactl",
        include_str!("../../packaging/completions/nvactl.bash"),
    );
    folder.types("bash", &[package], &LINES);
    folder.types("bash", &[package], &WORDS_AND_FILES);
    let sudo = [(
        "sudo nvactl explain --forward way",
        "one",
        "sudo nvactl explain --forward way-out",
    )];
    folder.types("bash", &[package], &sudo);
}

#[test]
fn zsh_completes() {
    let folder = Folder::new();
    if is_there("zsh") {
        folder.types("zsh", &["./zsh"], &LINES);
        folder.types("zsh", &["./zsh"], &PATHS);
        folder.types("zsh", &["./zsh"], &WORDS_AND_FILES);
    }
}

#[test]
fn fish_completes() {
    let folder = Folder::new();
    if !is_there("fish") {
        return;
    }
    let completed = |line: &str| -> Vec<String> {
        let script = format!("source ./fish; complete -C {}", quoted(line));
        let output = folder.run("fish", &["--no-config", "-c", &script], "");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{line}");
        let text = String::from_utf8(output.stdout).expect("it is text");
        let words = text.lines().filter_map(|line| line.split('\t').next());
        words.map(str::to_owned).collect()
    };
    for (line, _, wanted) in LINES.iter().chain(&PATHS) {
        let before = line.rsplit_once(' ').expect(line).0;
        let wanted = wanted.strip_prefix(before).expect(wanted).trim_start();
        let typed = line.rsplit_once(' ').expect(line).1;
        let mut wanted: Vec<&str> = if wanted == typed || wanted.is_empty() {
            Vec::new()
        } else if wanted.contains("\\ ") {
            // fish prints the word, and quotes it when it stands on the line.
            vec!["other spec.yaml"]
        } else {
            wanted.split(' ').collect()
        };
        let mut words = completed(line);
        words.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(words, wanted, "{line}");
    }
    for line in ["import l", "diff --against l", "trace l"] {
        let mut words = completed(&format!("nvactl {line}"));
        words.sort_unstable();
        // fish quotes the last one when it stands on the line.
        let wanted = ["list.v4", "listing", "live", "live rules.v4"];
        assert_eq!(words, wanted, "{line}");
    }
    assert!(
        !folder.path().join("made").exists(),
        "a name was run as a command"
    );
}

/// A word as fish reads it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A shell whose nvactl is gone, or is another program, completes nothing and says nothing.
#[test]
fn a_shell_without_nvactl_says_nothing() {
    let folder = Folder::new();
    let line = "nvactl explain --forward ";
    let bash = format!(
        "PATH=/nowhere; source ./bash; COMP_LINE='{line}' COMP_POINT={} COMP_WORDS=(nvactl explain --forward '') \
         COMP_CWORD=3; _nvactl; echo \"${{#COMPREPLY[@]}}\"",
        line.len()
    );
    let fish = format!("source ./fish; set PATH /nowhere; count (complete -C '{line}'); true");
    for (shell, args) in [
        ("bash", &["--norc", "-uc", &bash][..]),
        ("fish", &["--no-config", "-c", &fish]),
    ] {
        if is_there(shell) {
            let output = folder.run(shell, args, "");
            assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{shell}");
            assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n", "{shell}");
        }
    }
}

/// Nothing waits for a pipe, and nothing is read from standard input.
#[test]
fn a_pipe_is_not_read() {
    let folder = Folder::new();
    let made = Command::new("mkfifo")
        .arg(folder.path().join("pipe"))
        .status();
    assert!(made.expect("it runs").success());
    // `-` is standard input, even beside a file of that name.
    folder.write("-", "");
    for spec in ["-", "pipe", "/dev/stdin", "/dev/null", "missing.yaml"] {
        let words = [
            "complete",
            "4",
            "--",
            "nvactl",
            "explain",
            spec,
            "--forward",
            "",
        ];
        let args = [&["20", "nvactl"], &words[..]].concat();
        let output = folder.run(
            "timeout",
            &args,
            &fs::read_to_string(folder.path().join("forward.yaml")).unwrap(),
        );
        assert_eq!(output.status.code(), Some(0), "{spec}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "-\n", "{spec}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{spec}");
    }
}

/// The page's lines put each script where its shell reads it.
#[test]
fn the_page_says_how_to_install_the_scripts() {
    let folder = Folder::new();
    let text = page("docs/commands.md");
    let shown = format!("{}\ncomplete -p nvactl\n", block(&text, "shells: install"));
    let output = folder.run("bash", &["--norc", "-euc", &shown], "");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    for (shell, path) in [
        ("fish", ".config/fish/completions/nvactl.fish"),
        ("zsh", ".zfunc/_nvactl"),
    ] {
        let read = |path: &str| fs::read_to_string(folder.path().join(path)).expect(path);
        assert_eq!(read(path), read(shell), "{shell}");
    }
}

/// The examples of the help put each script where its shell reads it, in a home that has no such folder yet.
#[test]
fn the_help_says_how_to_install_the_scripts() {
    let folder = Folder::new();
    let help = folder.run("nvactl", &["completions", "--help"], "").stdout;
    let help = String::from_utf8(help).expect("it is text");
    let (_, examples) = help.split_once("Examples:\n").expect("it has examples");
    let output = folder.run("sh", &["-euc", examples], "");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    for (shell, path) in [
        ("bash", ".local/share/bash-completion/completions/nvactl"),
        ("zsh", ".zfunc/_nvactl"),
        ("fish", ".config/fish/completions/nvactl.fish"),
    ] {
        let read = |path: &str| fs::read_to_string(folder.path().join(path)).expect(path);
        assert_eq!(read(path), read(shell), "{shell}");
    }
}

/// Collects the commands below one that the help shows: `nvactl boot`, `nvactl boot enable`.
fn shown_commands(command: &clap::Command, line: &str, found: &mut Vec<String>) {
    let below = command.get_subcommands();
    for command in below.filter(|command| !command.is_hide_set()) {
        let line = format!("{line} {}", command.get_name());
        found.push(line.clone());
        shown_commands(command, &line, found);
    }
}

/// `man` shows the page and complains of nothing, and every command of the help is in it.
#[test]
fn man_shows_every_command() {
    let folder = Folder::new();
    let page = folder.run("nvactl", &["man"], "").stdout;
    folder.write("nvactl.8", std::str::from_utf8(&page).expect("it is text"));
    if !is_there("groff") || !is_there("man") {
        return;
    }
    let checked = folder.run("groff", &["-ww", "-man", "-Tutf8", "-z", "nvactl.8"], "");
    assert_eq!(String::from_utf8_lossy(&checked.stderr), "");
    let named = folder.run("lexgrog", &["nvactl.8"], "").stdout;
    let named = String::from_utf8_lossy(&named).into_owned();
    assert!(
        named.contains("nvactl - declarative port forwarding"),
        "{named}"
    );
    let shown = folder.run("man", &["--local-file", "--warnings", "nvactl.8"], "");
    assert_eq!(String::from_utf8_lossy(&shown.stderr), "");
    let text = String::from_utf8(shown.stdout).expect("it is text");
    for wanted in [
        "NAME",
        "SYNOPSIS",
        "COMMANDS",
        "GLOBAL OPTIONS",
        "EXIT STATUS",
        "ENVIRONMENT",
        "FILES",
        "SEE ALSO",
        "--state-dir",
        "/var/lib/nvactl",
        "NVACTL_SPEC",
        "sudo nvactl apply forward.yaml --dry-run",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let mut commands = Vec::new();
    shown_commands(&Cli::command(), "nvactl", &mut commands);
    assert!(commands.len() > 25, "{commands:?}");
    let headings: Vec<&str> = text.lines().map(str::trim_end).collect();
    for command in commands {
        let heading = format!("   {command}");
        assert!(headings.contains(&heading.as_str()), "{command}: {text}");
    }
    for hidden in ["watchdog", "nvactl complete ", "boot load", "nvactl help"] {
        assert!(!text.contains(&format!("   {hidden}")), "{hidden}");
    }
}

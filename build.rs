//! Passes the version that `nvactl --version` prints to the compiler as `NVACTL_VERSION`: `0.1.0 (abcdef012345 2026-11-30)`.
//!
//! The commit is `$NVACTL_COMMIT`, or that of a git checkout. A debug build names none by itself: it would have to
//! compile everything again after each commit. The state of the working tree is not told either, since cargo would have
//! to run this program for every changed file.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=NVACTL_COMMIT");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let version = env::var("CARGO_PKG_VERSION").expect("cargo sets it");
    let is_release = env::var_os("PROFILE").is_some_and(|profile| profile == "release");
    let commit = match env::var_os("NVACTL_COMMIT") {
        Some(given) => Some(given.to_string_lossy().into_owned()),
        None if is_release => checked_out(&root),
        None => None,
    };
    let version = match commit.map(|commit| in_brackets(&commit)) {
        Some(Ok(commit)) => format!("{version} {commit}"),
        Some(Err(reason)) => {
            println!("cargo:warning=the version names no commit: {reason}");
            version
        }
        None => version,
    };
    println!("cargo:rustc-env=NVACTL_VERSION={version}");
}

/// Returns the commit of a checkout and its date, and makes cargo run this program again when another one is checked
/// out. `None` outside of a checkout of its own: the sources of a crate may lie in the checkout of something else.
fn checked_out(root: &Path) -> Option<String> {
    // A linked worktree and a submodule have a file.
    if !root.join(".git").exists() {
        return None;
    }
    for path in watched(root) {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    // The date is in the zone of the committer: the same commit gives the same text everywhere.
    git(
        root,
        &[
            "log",
            "-1",
            "--no-show-signature",
            "--abbrev=12",
            "--format=%h %cs",
        ],
    )
}

/// Returns the files that change with the commit. Git notes each in the log of HEAD; without that log, the branch's own
/// file changes. A path that does not exist would make every build run this program.
fn watched(root: &Path) -> Vec<PathBuf> {
    let path = |name: &str| {
        let path = git(root, &["rev-parse", "--git-path", name])?;
        Some(root.join(path)).filter(|path| path.exists())
    };
    let branch = || git(root, &["symbolic-ref", "--quiet", "HEAD"]);
    let log = path("logs/HEAD");
    let instead = log.is_none().then(|| path(&branch()?)).flatten();
    [path("HEAD"), log, instead].into_iter().flatten().collect()
}

/// Runs git in a folder and returns its line; `None` if there is no git, or git refuses.
fn git(root: &Path, args: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    command.arg("-C").arg(root).args(args);
    // A hook of another repository may set them.
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(variable);
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
    let output = output.ok().filter(|output| output.status.success())?;
    let line = String::from_utf8(output.stdout).ok()?;
    let line = line.trim_end();
    (!line.is_empty()).then(|| line.to_owned())
}

/// Returns a commit in brackets, or the reason why it does not fit into them or into a line of cargo's.
fn in_brackets(commit: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '.' | '_' | '+');
    match commit.chars().find(|c| !allowed(*c)) {
        _ if commit.is_empty() => {
            Err("NVACTL_COMMIT is empty: set it to a commit, or unset it".to_owned())
        }
        Some(found) => Err(format!(
            "NVACTL_COMMIT has `{}`, which is not one of A-Z a-z 0-9 space - . _ +",
            found.escape_default()
        )),
        None => Ok(format!("({commit})")),
    }
}

//! `build.rs`: the commit that `nvactl --version` names, in checkouts of each kind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `build.rs` as a program, and a place for checkouts.
struct Built {
    folder: tempfile::TempDir,
}

/// The lines of a run for cargo.
#[derive(Debug)]
struct Lines {
    version: String,
    warnings: Vec<String>,
    watched: Vec<PathBuf>,
}

impl Built {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs");
        let compiled = Command::new("rustc")
            .args(["--edition", "2024", "-o"])
            .arg(folder.path().join("build"))
            .arg(source)
            .status();
        assert!(compiled.unwrap().success());
        Self { folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs it for a package in a folder, as cargo does.
    fn run(&self, folder: &str, profile: &str, commit: Option<&str>) -> Lines {
        let mut command = Command::new(self.at("build"));
        command
            .env("CARGO_MANIFEST_DIR", self.at(folder))
            .env("CARGO_PKG_VERSION", "1.2.3")
            .env("PROFILE", profile)
            .env("GIT_DIR", "/nowhere")
            .env_remove("NVACTL_COMMIT")
            .envs(commit.map(|commit| ("NVACTL_COMMIT", commit)));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let values = |key: &str| -> Vec<String> {
            let begin = format!("cargo:{key}=");
            let lines = text.lines().filter_map(|line| line.strip_prefix(&begin));
            lines.map(str::to_owned).collect()
        };
        assert_eq!(values("rerun-if-env-changed"), ["NVACTL_COMMIT"]);
        let version = values("rustc-env").concat();
        let watched = values("rerun-if-changed").into_iter().map(PathBuf::from);
        Lines {
            version: version.strip_prefix("NVACTL_VERSION=").unwrap().to_owned(),
            warnings: values("warning"),
            watched: watched
                .filter(|path| path != Path::new("build.rs"))
                .collect(),
        }
    }

    /// Runs git in a folder, and returns its line.
    fn git(&self, folder: &str, args: &[&str]) -> String {
        let output = Command::new("git")
            .arg("-C")
            .arg(self.at(folder))
            .args(["-c", "user.name=n", "-c", "user.email=e"])
            .args(args)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_COMMITTER_DATE", "2026-11-30T23:59:00 -0800")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    }

    fn commit(&self, folder: &str) -> String {
        self.git(
            folder,
            &["commit", "--quiet", "--allow-empty", "--message", "one"],
        );
        self.git(folder, &["rev-parse", "--short=12", "HEAD"])
    }
}

/// Sees that a commit changes a file that cargo watches, so that the next build names the commit.
fn is_noticed(built: &Built, folder: &str, kind: &str) {
    let texts = |lines: &Lines| -> Vec<String> {
        let read = |path: &PathBuf| {
            fs::read_to_string(path).unwrap_or_else(|_| panic!("{kind}: {}", path.display()))
        };
        lines.watched.iter().map(read).collect()
    };
    let commit = built.commit(folder);
    let lines = built.run(folder, "release", None);
    assert_eq!(
        lines.version,
        format!("1.2.3 ({commit} 2026-11-30)"),
        "{kind}"
    );
    // A file that is not there would run it at every build.
    let before = texts(&lines);
    built.commit(folder);
    assert_ne!(texts(&lines), before, "{kind}");
}

#[test]
fn a_release_names_its_commit_and_notices_the_next_one() {
    let built = Built::new();
    fs::create_dir(built.at("checkout")).unwrap();
    built.git("checkout", &["init", "--quiet"]);
    is_noticed(&built, "checkout", "a branch");
    built.git("checkout", &["pack-refs", "--all"]);
    is_noticed(&built, "checkout", "a packed branch");
    built.git("checkout", &["worktree", "add", "--quiet", "../linked"]);
    is_noticed(&built, "linked", "a linked worktree");
    built.git("checkout", &["checkout", "--quiet", "--detach"]);
    is_noticed(&built, "checkout", "no branch");
    built.git("checkout", &["checkout", "--quiet", "-b", "other"]);
    built.git("checkout", &["config", "core.logAllRefUpdates", "false"]);
    fs::remove_dir_all(built.at("checkout/.git/logs")).unwrap();
    is_noticed(&built, "checkout", "a repository without logs");
}

#[test]
fn no_commit_is_named_where_none_is_known() {
    let built = Built::new();
    fs::create_dir_all(built.at("checkout/vendor")).unwrap();
    built.git("checkout", &["init", "--quiet"]);
    let empty = built.run("checkout", "release", None);
    assert_eq!(empty.version, "1.2.3", "there is no commit yet");
    let commit = built.commit("checkout");
    // cargo unpacks and tries a crate in a folder of the checkout.
    let lines = built.run("checkout/vendor", "release", None);
    assert_eq!((lines.version.as_str(), lines.watched.len()), ("1.2.3", 0));
    // Each commit would compile everything again.
    let lines = built.run("checkout", "debug", None);
    assert_eq!((lines.version.as_str(), lines.watched.len()), ("1.2.3", 0));
    for profile in ["debug", "release"] {
        let lines = built.run("checkout", profile, Some(&commit));
        assert_eq!(lines.version, format!("1.2.3 ({commit})"));
        assert_eq!(lines.warnings, [""; 0]);
    }
    for (commit, reason) in [
        ("", "NVACTL_COMMIT is empty"),
        ("a\ncargo:rustc-link-arg=x", "NVACTL_COMMIT has `\\n`"),
        ("\u{1b}[2J", "NVACTL_COMMIT has `\\u{1b}`"),
        ("a)", "NVACTL_COMMIT has `)`"),
    ] {
        let lines = built.run("checkout", "release", Some(commit));
        assert_eq!(lines.version, "1.2.3", "{commit:?}");
        let [warning] = lines.warnings.as_slice() else {
            panic!("{commit:?}: {:?}", lines.warnings);
        };
        assert!(warning.contains(reason), "{warning}");
    }
}

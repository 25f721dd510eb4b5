//! A stranger's first commands: README's, `tests/run`, and those by which a release comes to a machine.

#[expect(dead_code, reason = "`tests/blocks.rs` asks for every block")]
mod pages;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pages::{block, page, pages, root};
use serde_yaml::Value;

/// Every workflow, those that are there to be copied included.
fn workflows() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for folder in ["examples/github", ".github/workflows"] {
        let files = fs::read_dir(root().join(folder)).expect("it can be listed");
        found.extend(files.map(|entry| entry.expect("it can be listed").path()));
    }
    assert!(found.len() > 4, "{found:?}");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("it is text");
        (path, text)
    };
    found.into_iter().map(read).collect()
}

/// A tag can be moved to other code, a commit cannot.
#[test]
fn every_action_is_pinned_by_its_commit() {
    for (path, text) in workflows() {
        let mut actions = 0;
        for (_, action) in text.lines().filter_map(|line| line.split_once("uses: ")) {
            let (_, commit) = action.split_once('@').expect("it has a version");
            let (commit, version) = commit.split_once(" # v").unwrap_or((commit, ""));
            let hexadecimal = commit.chars().all(|c| c.is_ascii_hexdigit());
            assert!(commit.len() == 40 && hexadecimal, "{path:?}: {action}");
            assert_ne!(version, "", "{path:?}: {action} does not say what it is");
            actions += 1;
        }
        assert!(actions > 0, "{path:?}");
    }
}

/// No crate has that name, so a stranger could register it.
#[test]
fn no_page_names_a_registry_for_nvactl() {
    let mut pages = workflows();
    let docs = fs::read_dir(root().join("docs")).expect("it can be listed");
    let docs = docs.map(|entry| entry.expect("it can be listed").path());
    for path in docs.chain(["README.md", ".github/CONTRIBUTING.md"].map(|path| root().join(path))) {
        let text = fs::read_to_string(&path).expect("it is text");
        pages.push((path, text));
    }
    for (path, text) in pages {
        let installs = text.lines().find(|line| {
            let (_, rest) = line.split_once("cargo install").unwrap_or(("", ""));
            rest.split_ascii_whitespace().any(|word| word == "nvactl")
        });
        assert_eq!(installs, None, "{path:?}");
    }
}

/// A token that a step does not need is one that it cannot lose.
#[test]
fn a_workflow_may_write_only_what_it_is_for() {
    for (path, text) in workflows() {
        let workflow: Value = serde_yaml::from_str(&text).expect("it is YAML");
        let mut writes = Vec::new();
        let jobs = workflow["jobs"].as_mapping().expect("it has jobs");
        assert!(workflow["permissions"].is_mapping(), "{path:?}");
        let own = jobs.iter().map(|(_, job)| &job["permissions"]);
        for permissions in [&workflow["permissions"]].into_iter().chain(own) {
            // A word such as `write-all` is no mapping.
            assert!(
                permissions.is_mapping() || permissions.is_null(),
                "{path:?}: {permissions:?}"
            );
            for (scope, access) in permissions.as_mapping().into_iter().flatten() {
                if access != "read" {
                    writes.push(scope.as_str().expect("it is a word"));
                }
            }
        }
        let name = path.file_name().expect("it has one").to_string_lossy();
        let needed: &[&str] = match name.as_ref() {
            "release.yml" => &["contents"],
            "forwards.yml" => &["pull-requests"],
            _ => &[],
        };
        assert_eq!(writes, needed, "{path:?}");
    }
}

#[test]
fn the_changelog_has_the_version() {
    let changelog = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let heading = format!("\n## [{}] - ", env!("CARGO_PKG_VERSION"));
    assert!(
        changelog.contains(&heading),
        "CHANGELOG.md has no {heading}"
    );
}

#[test]
fn the_package_says_which_version_it_is() {
    let changelog = fs::read_to_string(root().join("packaging/debian/changelog")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        changelog.starts_with(&format!("nvactl ({version}-1) ")),
        "packaging/debian/changelog has no entry for {version}"
    );
}

/// The crate has all files that README and `docs/` lead to, and cargo has nothing to say. There is no address that it could name.
#[test]
fn the_crate_is_packaged_without_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO"))
        .args([
            "package",
            "--no-verify",
            "--no-metadata",
            "--allow-dirty",
            "--locked",
            "--offline",
            "--quiet",
        ])
        .arg("--target-dir")
        .arg(folder.path())
        .current_dir(root())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    let crates = fs::read_dir(folder.path().join("package")).unwrap();
    let mut crates = crates.map(|entry| entry.unwrap().path());
    let packed = crates.find(|path| path.extension().is_some_and(|end| end == "crate"));
    let listed = Command::new("tar")
        .arg("-tzf")
        .arg(packed.unwrap())
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let files: Vec<&str> = listed
        .lines()
        .filter_map(|line| Some(line.split_once('/')?.1))
        .collect();
    for link in linked() {
        let found = files.iter().any(|file| Path::new(file).starts_with(&link));
        assert!(found, "the crate lacks {link:?}");
    }
}

/// The files to which README and `docs/` link, by their paths from the root.
fn linked() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (path, text) in pages() {
        let folder = path.parent().expect("a page is in a folder");
        // The other pages are for the repository.
        if folder != Path::new("docs") && path != Path::new("README.md") {
            continue;
        }
        let links = text.split("](").skip(1);
        let links = links.filter_map(|link| link.split([')', '#']).next());
        let files = links.filter(|link| !link.is_empty() && !link.contains("://"));
        found.extend(files.map(|file| match file.strip_prefix("../") {
            Some(file) => PathBuf::from(file),
            None => folder.join(file),
        }));
    }
    found
}

/// Both packages have the pages below one folder, and every file to which README and `docs/` link.
#[test]
fn the_links_of_the_pages_work_in_the_packages() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let links = linked();
    assert!(links.len() > 100, "{links:?}");
    for (package, form) in [
        (
            "deb",
            "  [\"SOURCE\", \"usr/share/doc/nvactl/FOLDER\", \"644\"],\n",
        ),
        (
            "generate-rpm",
            "  { source = \"SOURCE\", dest = \"/usr/share/doc/nvactl/FOLDER\", mode = \"644\", doc = true },\n",
        ),
    ] {
        let table = format!("\n[package.metadata.{package}]\n");
        let (_, table) = manifest.split_once(&table).expect(package);
        let table = table.split("\n[").next().expect(package);
        let installs = |source: &str, folder: &str| {
            table.contains(&form.replace("SOURCE", source).replace("FOLDER", folder))
        };
        for link in &links {
            let link = link.to_str().expect("it is UTF-8");
            let is_there = match link.split_once('/') {
                Some((folder @ (".github" | "docs"), _)) => {
                    installs(&format!("{folder}/*.md"), &format!("{folder}/"))
                }
                Some(("examples", _)) => installs("examples/**/*", "examples/"),
                Some(_) => false,
                None => installs(link, ""),
            };
            assert!(is_there, "{package} lacks {link}");
        }
    }
}

/// A release that the file system serves, and a machine on which `sudo` only says what it would do.
struct Release {
    folder: tempfile::TempDir,
    checksum: String,
}

impl Release {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut release = Self {
            folder,
            checksum: String::new(),
        };
        let (made, said) = release.run(
            "mkdir -p releases/download/v1.2.3 made/nvactl-1.2.3-x86_64-linux bin machine
             printf '#!/bin/sh\\necho as released\\n' > made/nvactl-1.2.3-x86_64-linux/nvactl
             chmod +x made/nvactl-1.2.3-x86_64-linux/nvactl
             printf '#!/bin/sh\\necho \"sudo: $*\"\\n' > bin/sudo
             printf '#!/bin/sh\\necho x86_64\\n' > bin/uname
             printf '#!/bin/sh\\necho amd64\\n' > bin/dpkg
             chmod +x bin/*
             cd releases/download/v1.2.3
             tar -C ../../../made -czf nvactl-1.2.3-x86_64-linux.tar.gz nvactl-1.2.3-x86_64-linux
             echo a package > nvactl_1.2.3-1_amd64.deb
             echo a package > nvactl-1.2.3-1.x86_64.rpm
             sha256sum * > SHA256SUMS
             cat SHA256SUMS",
            "",
        );
        assert!(made, "{said}");
        let line = said.lines().find(|line| line.ends_with(".tar.gz"));
        release.checksum = line.expect("it is listed")[..64].to_owned();
        release
    }

    /// Runs a script on the machine, as a runner of workflows does, and gives all that it says.
    fn run(&self, script: &str, checksum: &str) -> (bool, String) {
        let at = |name: &str| self.folder.path().join(name);
        let path = std::env::var("PATH").unwrap();
        let output = Command::new("bash")
            .args(["-e", "-o", "pipefail", "-c", script])
            .current_dir(self.folder.path())
            .env("PATH", format!("{}:{path}", at("bin").display()))
            .env("RUNNER_TEMP", at("machine"))
            .env("GITHUB_PATH", at("path"))
            .env("REPOSITORY", self.address())
            .env("VERSION", "1.2.3")
            .env("SHA256", checksum)
            .output()
            .unwrap();
        let said = [output.stderr, output.stdout].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    fn address(&self) -> String {
        format!("file://{}", self.folder.path().display())
    }
}

/// The step that installs nvactl takes what the release's checksum names, and nothing else.
#[test]
fn a_workflow_takes_only_the_release_that_it_names() {
    for (file, job) in [("forwards.yml", "review"), ("rollout.yml", "rollout")] {
        let path = root().join("examples/github").join(file);
        let workflow: Value = serde_yaml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let steps = workflow["jobs"][job]["steps"].as_sequence().unwrap();
        let install = steps.iter().find(|step| step["name"] == "Install").unwrap();
        let install = install["run"].as_str().unwrap();
        let release = Release::new();
        for another in ["", &"0".repeat(64)] {
            let (installed, said) = release.run(install, another);
            assert!(!installed, "{file}: {another:?} was taken: {said}");
            let program = release.folder.path().join("machine/nvactl");
            assert!(!program.exists(), "{file}: {another:?}");
        }
        let (installed, said) = release.run(install, &release.checksum);
        assert!(installed, "{file}: {said}");
        let (_, said) = release.run("$(cat path)/nvactl", "");
        assert_eq!(said, "as released\n", "{file}");
    }
}

/// README's own commands, with another address.
#[test]
fn readme_installs_what_the_checksums_name() {
    let readme = page("README.md");
    for (name, sent) in [
        (
            "release: package",
            "sudo: apt-get install ./nvactl_1.2.3-1_amd64.deb\n",
        ),
        (
            "release: rpm",
            "sudo: dnf install ./nvactl-1.2.3-1.x86_64.rpm\n",
        ),
        (
            "release: tarball",
            "sudo: install nvactl-1.2.3-x86_64-linux/nvactl /usr/local/bin/\n",
        ),
    ] {
        let release = Release::new();
        let block = block(&readme, name)
            .replace("https://github.com/OWNER/nvactl", &release.address())
            .replace("0.1.0", "1.2.3");
        let machine = format!("cd machine\n{block}");
        let (done, said) = release.run(&machine, "");
        assert!(done && said.ends_with(sent), "{name}: {said}");
        release.run("echo more >> \"$(ls releases/download/v1.2.3/*.deb)\"", "");
        release.run("echo more >> \"$(ls releases/download/v1.2.3/*.gz)\"", "");
        release.run("echo more >> \"$(ls releases/download/v1.2.3/*.rpm)\"", "");
        let (done, said) = release.run(&machine, "");
        assert!(!done && !said.contains("sudo:"), "{name}: {said}");
    }
}

/// The first block of README installs the missing programs, and its build, which takes minutes, shows
/// that it goes on. The first one of CONTRIBUTING runs every test.
#[test]
fn the_pages_begin_with_a_command_that_shows_what_it_does() {
    let first = |path: &str| {
        let page = fs::read_to_string(root().join(path)).unwrap();
        let (_, rest) = page.split_once("```sh\n").expect(path);
        rest.split_once("```").expect(path).0.to_owned()
    };
    assert_eq!(
        first("README.md"),
        "apt-get update && apt-get install -y --no-install-recommends cargo-web ca-certificates && cargo run -- render examples/pod.yaml\n"
    );
    assert_eq!(first(".github/CONTRIBUTING.md"), "tests/run\n");
}

/// A copy of `tests/run` on a machine with few programs.
fn tests_run(programs: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let bin = folder.path().join("bin");
    fs::create_dir_all(folder.path().join("tests")).unwrap();
    fs::create_dir(&bin).unwrap();
    for script in ["tests/run", "tests/prepare"] {
        fs::copy(root().join(script), folder.path().join(script)).unwrap();
    }
    for name in ["bash", "dirname", "sort", "env"] {
        let program = format!("/usr/bin/{name}");
        std::os::unix::fs::symlink(program, bin.join(name)).unwrap();
    }
    let ran = format!("echo ran cargo >> {}/ran", folder.path().display());
    for (name, script) in [&[("cargo", ran.as_str())], programs].concat() {
        let path = bin.join(name);
        fs::write(&path, format!("#!/usr/bin/bash\n{script}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(path, mode).unwrap();
    }
    let output = Command::new("/usr/bin/bash")
        .arg("tests/run")
        .current_dir(folder.path())
        .env("PATH", bin)
        .output()
        .unwrap();
    assert!(!folder.path().join("ran").exists(), "it has begun to build");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// A build takes minutes, and its tests would not run.
#[test]
fn the_tests_say_at_once_that_they_need_root() {
    let told = "tests/run: the lab needs root, so its tests run by sudo\n";
    let way_out = "tests/run: sudo gives no root here. As root: tests/run. Without root, all but the \
                   lab:\n  cargo test\n";
    let user = ("id", "echo 1000");
    for programs in [&[user][..], &[user, ("sudo", "exit 1")]] {
        let (code, stdout, stderr) = tests_run(programs);
        assert_eq!((code, stdout.as_str()), (Some(1), ""));
        assert_eq!(stderr, format!("{told}{way_out}"));
    }
}

#[test]
fn the_tests_say_what_is_missing_where_they_cannot_install_it() {
    let id = ("id", "echo 0");
    let failing = ("apt-get", "echo no network; exit 100");
    for programs in [&[id][..], &[id, failing]] {
        let (code, _, stderr) = tests_run(programs);
        assert_eq!(code, Some(1));
        let (_, missing) = stderr
            .split_once("these packages are missing and could not be installed")
            .expect(&stderr);
        for package in ["curl", "gcc", "git", "procps"] {
            let mut words = missing.split_ascii_whitespace();
            assert!(words.any(|word| word == package), "{stderr}");
        }
    }
}

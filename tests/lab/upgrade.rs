//! A machine on which an older release has loaded its rules and written its state: the new version
//! goes on from there.
//!
//! The fixtures are in `upgrade/RELEASE/BACKEND/SHAPE`; `upgrade/make.sh` makes those of a release and
//! says what is in them. Nothing in them is ever adapted to a newer version.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::damage::numbered;
use crate::firewall::{firewall, load};
use crate::lab::{Backend, Said, save, save_v6};
use crate::namespace::Host;
use crate::nvactl;
use crate::pages::root;
use crate::state::inode;
use crate::takeover::make_first;

const SPEC: &str = "/etc/nvactl/forward.yaml";

/// A release's rules and state of one shape.
struct Fixture {
    folder: PathBuf,
}

/// All fixtures of a backend, of the given shapes.
fn fixtures(backend: Backend, shapes: &[&str]) -> Vec<Fixture> {
    let here = root().join("tests/lab/upgrade");
    let releases = fs::read_dir(here).expect("it is there").flatten();
    let releases = releases.map(|release| release.path());
    let backend = match backend {
        Backend::Nft => "nft",
        Backend::Legacy => "legacy",
    };
    let folders = releases.map(|release| release.join(backend));
    let made: Vec<PathBuf> = folders.filter(|folder| folder.is_dir()).collect();
    assert!(!made.is_empty(), "no release has a fixture");
    let shape = |folder: &PathBuf| {
        let folder = folder.clone();
        let of = move |shape: &&str| Fixture {
            folder: folder.join(shape),
        };
        shapes.iter().map(of).collect::<Vec<_>>()
    };
    made.iter().flat_map(shape).collect()
}

const SETTLED: [&str; 3] = ["flat", "tree", "both"];

/// When the boot was that a fixture is planted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Boot {
    /// The same as when the state was written.
    Same,
    /// The same, and the time of what waits is up.
    Late,
    /// An earlier one.
    Earlier,
}

impl Fixture {
    fn text(&self, name: &str) -> String {
        let path = self.folder.join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The rules as they were saved, in the order in which the lab compares tables.
    fn rules(&self, name: &str) -> Vec<String> {
        let v4 = self.text(&format!("{name}.v4"));
        let v6 = self.text(&format!("{name}.v6"));
        used(&v4, &v6)
    }

    /// How many changes its history has.
    fn changes(&self) -> usize {
        let histories = fs::read_dir(self.folder.join("state/history")).expect("there is one");
        let entries = histories.flatten().map(|history| {
            let entries = fs::read_dir(history.path()).expect("it is a folder");
            entries.count()
        });
        entries.sum()
    }

    /// A host with the release's rules and state, `first` as the machine's first namespace.
    fn plant(&self, backend: Backend, boot: Boot, first: bool) -> Host {
        let host = firewall(backend);
        for name in ["eth1", "eth2"] {
            host.run(&format!(
                "ip link add {name} type veth peer name {name}-peer"
            ));
            host.run(&format!("ip link set {name} up"));
        }
        host.run("ip address add 10.4.0.4/24 dev eth1");
        if first {
            make_first(&host);
        }
        load(&host, &self.text("rules.v4"));
        let loaded = host.feed("ip6tables-restore", &[], &self.text("rules.v6"));
        assert!(loaded.status.success(), "{loaded:?}");
        write(&host, SPEC, &self.text("forward.yaml"));
        let state = self.folder.join("state");
        let was = old_inode(&state);
        let now = Now {
            inode: inode(&host),
            boot,
        };
        for file in files(&state) {
            let name = file.strip_prefix(&state).expect("it is in there");
            let name = name.to_str().expect("it is text").replace(&was, &now.inode);
            let text = fs::read_to_string(&file).expect("it is text");
            write(
                &host,
                &format!("/var/lib/nvactl/{name}"),
                &now.adapted(&text, &was),
            );
        }
        host.shell("chmod -R go= /var/lib/nvactl");
        host
    }
}

const ANOTHER_BOOT: &str = "00000000-0000-4000-8000-000000000000";

/// What a record says of the moment in which it was written.
struct Now {
    inode: String,
    boot: Boot,
}

impl Now {
    fn adapted(&self, text: &str, was: &str) -> String {
        let mut adapted = String::new();
        for line in text.split_inclusive('\n') {
            let (indent, key) = line.split_at(line.len() - line.trim_start().len());
            let _ = match self.boot {
                Boot::Earlier if key.starts_with("\"boot\": ") => {
                    writeln!(adapted, "{indent}\"boot\": \"{ANOTHER_BOOT}\",")
                }
                _ if key.starts_with("\"boot\": ") => {
                    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
                    let id = id.expect("the kernel has one");
                    writeln!(adapted, "{indent}\"boot\": \"{}\",", id.trim())
                }
                boot if key.starts_with("\"deadline\": ") => {
                    let late = boot == Boot::Late;
                    let deadline = if late { 1 } else { uptime() + 600 };
                    writeln!(adapted, "{indent}\"deadline\": {deadline},")
                }
                _ => write!(adapted, "{}", line.replace(was, &self.inode)),
            };
        }
        adapted
    }
}

/// Seconds since the boot.
fn uptime() -> u64 {
    let text = fs::read_to_string("/proc/uptime").expect("the kernel says it");
    let seconds = text.split('.').next().expect("there is a number");
    seconds.parse().expect("it is one")
}

/// The number of the network namespace that a state was written in.
fn old_inode(state: &Path) -> String {
    let histories = fs::read_dir(state.join("history")).expect("it has a history");
    let names = histories.flatten().map(|history| history.file_name());
    let names: Vec<String> = names.map(|name| name.to_string_lossy().into()).collect();
    let [name] = names.as_slice() else {
        panic!("it was written in one namespace: {names:?}");
    };
    name.clone()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("it is a folder").flatten();
    let below = entries.flat_map(|entry| {
        let path = entry.path();
        if path.is_dir() {
            files(&path)
        } else {
            vec![path]
        }
    });
    below.collect()
}

fn write(host: &Host, path: &str, text: &str) {
    let path = host.path(path);
    let folder = path.parent().expect("it is in a folder");
    fs::create_dir_all(folder).expect("it can be made");
    fs::write(path, text).expect("it can be written");
}

/// The lines that say something, in an order that does not depend on who was first: without unused
/// tables and chains.
fn used(v4: &str, v6: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for (family, text) in [("v4", v4), ("v6", v6)] {
        let mut table = "";
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if line.starts_with('*') {
                table = line;
            } else if !line.ends_with("ACCEPT [0:0]") && line != "COMMIT" {
                lines.push(format!("{family} {table} {line}"));
            }
        }
    }
    // Sorted by table alone: the order within one means something.
    lines.sort_by_key(|line| {
        let mut words = line.split(' ');
        (
            words.next().map(str::to_owned),
            words.next().map(str::to_owned),
        )
    });
    lines
}

fn loaded(host: &Host) -> Vec<String> {
    used(&save(host), &save_v6(host))
}

/// Asserts that two lists of rules are the same, and shows the lines of a difference only.
fn assert_same(now: &[String], was: &[String]) {
    let missing = |from: &[String], of: &[String]| -> Vec<String> {
        let lines = of.iter().filter(|line| !from.contains(line));
        lines.cloned().collect()
    };
    let (came, gone) = (missing(was, now), missing(now, was));
    assert!(
        now == was,
        "came: {came:#?}, gone: {gone:#?}, or the order changed"
    );
}

fn foreign(rules: &[String]) -> Vec<String> {
    let is_foreign = |line: &&String| !line.contains("NVACTL") && !line.contains(":FORWARD");
    rules.iter().filter(is_foreign).cloned().collect()
}

fn done(host: &Host, args: &[&str]) -> Said {
    let said = nvactl(host, args, "");
    assert_eq!(said.code, 0, "{args:?}: {said:?}");
    said
}

/// Plants each fixture, as the machine's first namespace and as another.
fn each(backend: Backend, shapes: &[&str], boot: Boot, test: impl Fn(&Fixture, &Host)) {
    for fixture in fixtures(backend, shapes) {
        for first in [false, true] {
            println!("{}, first namespace: {first}", fixture.folder.display());
            let host = fixture.plant(backend, boot, first);
            assert_same(&loaded(&host), &fixture.rules("rules"));
            test(&fixture, &host);
        }
    }
}

/// Asserts that the forwards are those of the spec, and that only rules differ that this version writes
/// otherwise: those that lead to a forward's lists and limits, and a range of sources.
fn assert_known(host: &Host) {
    let said = nvactl(host, &["diff", SPEC, "--format", "json"], "");
    let diff: serde_json::Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    for key in ["firewall", "added", "removed", "changed"] {
        assert_eq!(diff[key], serde_json::json!([]), "{key}: {diff:#}");
    }
    for drift in diff["drift"].as_array().expect("it is a list") {
        let line = drift["line"].as_str().expect("it is a line");
        let range = line
            .split_once("--to-source ")
            .is_some_and(|(_, to)| to.contains('-'));
        assert!(range || line.contains("NVACTL-ADMIT-"), "{line}");
    }
}

lab_test!(either the_forwards_of_an_older_release_are_known);
/// An apply brings its rules into sync, and changes no others.
fn the_forwards_of_an_older_release_are_known(backend: Backend) {
    each(backend, &SETTLED, Boot::Same, |fixture, host| {
        let said = done(host, &["status", SPEC]);
        let names = fixture.text("forward.yaml");
        let names = names.split("name: ").skip(1);
        let names: Vec<&str> = names
            .filter_map(|rest| rest.split([',', '\n']).next())
            .filter(|name| *name != "syslog")
            .collect();
        for name in names {
            assert!(said.stdout.contains(name), "{name}: {said:?}");
        }
        assert_known(host);
        done(host, &["apply", SPEC, "--no-trial"]);
        done(host, &["status", SPEC, "--check"]);
        let said = done(host, &["apply", SPEC, "--no-trial"]);
        assert!(said.stdout.contains("no changes"), "{said:?}");
        assert_same(&foreign(&loaded(host)), &foreign(&fixture.rules("rules")));
    });
}

lab_test!(either the_history_of_an_older_release_can_be_rolled_back);
/// Its history is listed, and leads back.
fn the_history_of_an_older_release_can_be_rolled_back(backend: Backend) {
    each(backend, &SETTLED, Boot::Same, |fixture, host| {
        let said = done(host, &["history"]);
        assert_eq!(numbered(&said.stdout), fixture.changes(), "{said:?}");
        assert!(said.stdout.contains(&format!("apply {SPEC}")), "{said:?}");
        let said = nvactl(host, &["rollback", "--dry-run"], "");
        assert_eq!(said.code, 1, "{said:?}");
        done(host, &["rollback"]);
        assert_same(&loaded(host), &fixture.rules("before"));
        // And forward again. This host lacks the spec's second interface, so a trial would refuse it.
        assert_eq!(nvactl(host, &["diff", SPEC], "").code, 1);
        done(host, &["apply", SPEC, "--no-trial"]);
        done(host, &["diff", SPEC]);
        assert_same(&foreign(&loaded(host)), &foreign(&fixture.rules("rules")));
        done(host, &["rollback"]);
        assert_same(&loaded(host), &fixture.rules("before"));
    });
}

lab_test!(either the_rules_of_an_older_release_can_be_removed);
/// Nothing of it stays, and nothing of others goes.
fn the_rules_of_an_older_release_can_be_removed(backend: Backend) {
    each(backend, &SETTLED, Boot::Same, |fixture, host| {
        done(host, &["remove"]);
        let left = loaded(host);
        assert!(!left.concat().contains("NVACTL"), "{left:?}");
        assert_same(&foreign(&left), &foreign(&fixture.rules("rules")));
        let said = done(host, &["remove"]);
        assert!(said.stdout.contains("no changes"), "{said:?}");
    });
}

lab_test!(either a_change_after_an_upgrade_is_made);
/// A change on top of it is a change like any other, and can be taken back or persisted.
fn a_change_after_an_upgrade_is_made(backend: Backend) {
    each(backend, &SETTLED, Boot::Same, |fixture, host| {
        let more = "  - {name: more, listen: 50001, target: {pod: 10.224.0.118:81}}\n";
        write(
            host,
            SPEC,
            &format!("{}{more}", fixture.text("forward.yaml")),
        );
        done(host, &["apply", SPEC, "--no-trial", "--confirm", "600"]);
        assert!(save(host).contains("--dport 50001"));
        done(host, &["confirm"]);
        done(host, &["status", SPEC, "--check"]);
        done(host, &["persist", SPEC]);
        done(host, &["rollback"]);
        assert_same(&loaded(host), &fixture.rules("rules"));
    });
}

fn waits(host: &Host) -> bool {
    let said = done(host, &["confirm", "--status"]);
    !said.stdout.contains("nothing is waiting")
}

lab_test!(either a_change_of_an_older_release_can_be_confirmed);
/// What waited for its confirmation while nvactl was replaced waits on.
fn a_change_of_an_older_release_can_be_confirmed(backend: Backend) {
    each(backend, &["waits"], Boot::Same, |fixture, host| {
        assert!(waits(host));
        assert_known(host);
        let said = done(host, &["status", SPEC]);
        let all = format!("{}{}", said.stdout, said.stderr);
        assert!(all.contains("confirm"), "it says nothing of it: {said:?}");
        for args in [
            &["apply", SPEC, "--no-trial"][..],
            &["remove"],
            &["rollback"],
        ] {
            let said = nvactl(host, args, "");
            assert_eq!(said.code, 2, "{args:?}: {said:?}");
        }
        done(host, &["confirm"]);
        assert!(!waits(host));
        assert_same(&loaded(host), &fixture.rules("rules"));
        done(host, &["rollback"]);
        assert_same(&loaded(host), &fixture.rules("before"));
        done(host, &["apply", SPEC, "--no-trial"]);
        done(host, &["status", SPEC, "--check"]);
    });
}

lab_test!(either a_change_of_an_older_release_can_be_cancelled);
/// It can be cancelled, in time or too late.
fn a_change_of_an_older_release_can_be_cancelled(backend: Backend) {
    for boot in [Boot::Same, Boot::Late] {
        each(backend, &["waits"], boot, |fixture, host| {
            assert!(waits(host), "{boot:?}");
            done(host, &["confirm", "--cancel"]);
            assert_same(&loaded(host), &fixture.rules("before"));
            assert!(!waits(host), "{boot:?}");
            let said = done(host, &["history"]);
            assert_eq!(numbered(&said.stdout), fixture.changes(), "{boot:?}");
            let newest = said.stdout.lines().next().unwrap_or_default();
            assert!(newest.contains("undone at"), "{boot:?}: {said:?}");
            done(host, &["apply", SPEC, "--no-trial"]);
        });
    }
}

lab_test!(either a_change_that_waited_before_the_boot_is_ignored);
/// A boot has ended the waiting.
fn a_change_that_waited_before_the_boot_is_ignored(backend: Backend) {
    each(backend, &["waits"], Boot::Earlier, |fixture, host| {
        assert!(!waits(host));
        assert_eq!(nvactl(host, &["confirm"], "").code, 2);
        assert_same(&loaded(host), &fixture.rules("rules"));
        done(host, &["apply", SPEC, "--no-trial"]);
        done(host, &["status", SPEC, "--check"]);
    });
}

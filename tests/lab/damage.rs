//! A full disk, a kill and a damaged record: none of them keeps the rules from being taken back, and
//! none leaves something behind that the next command believes.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::chance::Chance;
use crate::confirm::{apply_for, changed, comes_back, has_watchdog, waits, watchdogs};
use crate::fake::{fake, unfake};
use crate::firewall::{SPEC, apply, firewall};
use crate::lab::{Backend, Said, save};
use crate::long;
use crate::namespace::{Host, wait_for};
use crate::nvactl;
use crate::state::inode;

/// What a small disk has no more of.
#[derive(Debug, Clone, Copy)]
enum Full {
    Blocks,
    Inodes,
}

/// Gives the state folder a disk of its own that is soon full.
fn small_disk(host: &Host) {
    host.run("mount -t tmpfs -o size=256k,nr_inodes=100,mode=755 tmpfs /var/lib");
}

/// A disk that somebody else fills as soon as there is room, as a log that grows does.
struct Filler {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    folder: String,
}

impl Filler {
    fn start(host: &Host, full: Full) -> Self {
        let folder = format!("/proc/{}/root/var/lib", host.pid());
        let over = Arc::new(AtomicBool::new(false));
        let (stop, place) = (Arc::clone(&over), folder.clone());
        let mut made = 0;
        let mut take_all = move || match full {
            Full::Blocks => {
                let mut options = OpenOptions::new();
                let file = options
                    .create(true)
                    .append(true)
                    .open(format!("{place}/full"));
                let mut file = file.expect("there are inodes");
                while file.write_all(&[0; 4096]).is_ok() {}
            }
            Full::Inodes => {
                while std::fs::write(format!("{place}/full-{made}"), "").is_ok() {
                    made += 1;
                }
            }
        };
        take_all();
        let thread = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                take_all();
                thread::sleep(Duration::from_micros(50));
            }
        });
        Self {
            over,
            thread: Some(thread),
            folder,
        }
    }
}

impl Drop for Filler {
    /// Frees the disk.
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        let files = std::fs::read_dir(&self.folder).into_iter().flatten();
        for file in files.flatten() {
            if file.file_name().to_string_lossy().starts_with("full") {
                let _ = std::fs::remove_file(file.path());
            }
        }
        assert!(thread::panicking() || ended.is_some_and(|ended| ended.is_ok()));
    }
}

fn is_done_with_a_warning(said: &Said) {
    assert_eq!(said.code, 0, "{said:?}");
    let warnings = said.stderr.lines();
    let mut warnings = warnings.filter(|line| line.starts_with("warning: "));
    let full = |line: &str| line.contains("/var/lib/nvactl") || line.contains("No space left");
    assert!(warnings.any(full), "{said:?}");
}

lab_test!(a_full_disk_does_not_prevent_a_rollback);
/// `apply` is the only one that can wait for a better day.
fn a_full_disk_does_not_prevent_a_rollback(backend: Backend) {
    for full in [Full::Blocks, Full::Inodes] {
        let host = firewall(backend);
        small_disk(&host);
        apply(&host, SPEC);
        let first = save(&host);
        apply(&host, &changed());
        let second = save(&host);

        let filler = Filler::start(&host, full);
        let said = nvactl(
            &host,
            &["apply", "-", "--no-trial"],
            &SPEC.replace("49182", "49184"),
        );
        assert_eq!(said.code, 2, "{full:?}: {said:?}");
        assert_eq!(save(&host), second, "{full:?}");
        let said = nvactl(&host, &["rollback"], "");
        assert_eq!(said.code, 0, "{full:?}: {said:?}");
        assert_eq!(save(&host), first, "{full:?}");
        is_done_with_a_warning(&said);
        let said = nvactl(&host, &["remove"], "");
        assert_eq!(said.code, 0, "{full:?}: {said:?}");
        assert!(!save(&host).contains("NVACTL"), "{full:?}");
        is_done_with_a_warning(&said);

        drop(filler);
        apply(&host, SPEC);
        assert_eq!(save(&host), first);
    }
}

lab_test!(a_change_that_cannot_be_confirmed_is_not_asked_about);
/// The change is loaded, and its record says that it is not.
fn a_change_that_cannot_be_confirmed_is_not_asked_about(backend: Backend) {
    let host = firewall(backend);
    small_disk(&host);
    apply(&host, SPEC);
    let before = save(&host);
    fake(
        &host,
        "iptables-restore",
        "real \"$@\" || exit; cat /dev/zero > /var/lib/full 2> /dev/null; true",
    );
    let args = ["apply", "-", "--no-trial", "--confirm", "600"];
    let said = nvactl(&host, &args, &changed());
    unfake(&host, "iptables-restore");
    assert_eq!(said.code, 3, "{said:?}");
    assert!(
        said.stderr
            .contains("so it cannot be confirmed and will be undone: ")
            && !said.stderr.contains("open connections keep working"),
        "{said:?}"
    );
    assert!(
        said.stdout
            .contains(" cannot be confirmed, and is undone in ")
            && said
                .stdout
                .ends_with(" s\nto undo it now: sudo nvactl confirm --cancel\n"),
        "{said:?}"
    );
    host.run("rm /var/lib/full");
    assert_eq!(nvactl(&host, &["confirm", "--cancel"], "").code, 0);
    assert_eq!(save(&host), before);
}

lab_test!(a_full_disk_does_not_prevent_a_confirmation);
/// The answer reaches the watchdog all the same.
fn a_full_disk_does_not_prevent_a_confirmation(backend: Backend) {
    for full in [Full::Blocks, Full::Inodes] {
        let host = firewall(backend);
        small_disk(&host);
        apply(&host, SPEC);
        apply_for(&host, "4");
        let after = save(&host);
        let filler = Filler::start(&host, full);
        is_done_with_a_warning(&nvactl(&host, &["confirm"], ""));
        wait_for("the watchdog knows", || !has_watchdog(&host));
        assert_eq!(save(&host), after, "{full:?}: it was undone");
        assert!(nothing_waits(&host), "{full:?}");
        drop(filler);
        assert!(nothing_waits(&host), "{full:?}");
        apply(&host, SPEC);
    }
}

lab_test!(either a_full_disk_does_not_prevent_the_undo);
/// Neither the timeout nor `confirm --cancel` needs room.
fn a_full_disk_does_not_prevent_the_undo(backend: Backend) {
    for (full, cancels) in [
        (Full::Blocks, false),
        (Full::Blocks, true),
        (Full::Inodes, false),
        (Full::Inodes, true),
    ] {
        let host = firewall(backend);
        small_disk(&host);
        apply(&host, SPEC);
        let before = save(&host);
        apply_for(&host, if cancels { "600" } else { "2" });
        assert_ne!(save(&host), before);
        // Nothing is left to forget, which would make room.
        host.run("rm -r /var/lib/nvactl/history");
        let filler = Filler::start(&host, full);
        if cancels {
            let said = nvactl(&host, &["confirm", "--cancel"], "");
            assert_eq!(said.code, 0, "{full:?}: {said:?}");
        }
        comes_back(&host, &before);
        wait_for("the watchdog is done", || !has_watchdog(&host));
        assert!(nothing_waits(&host), "{full:?}");
        drop(filler);
        apply(&host, &changed());
    }
}

fn nothing_waits(host: &Host) -> bool {
    let said = nvactl(host, &["confirm", "--status"], "");
    said.code == 0 && said.stdout.contains("nothing is waiting")
}

/// The temporary files below the state folder.
fn temporary(host: &Host) -> String {
    host.run("find /var/lib/nvactl -name .nvactl-*")
}

/// How many entries a history lists: each begins with its number.
pub fn numbered(listed: &str) -> usize {
    let first_words = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    first_words
        .filter(|word| word.parse::<u64>().is_ok())
        .count()
}

fn entries(host: &Host) -> usize {
    let said = nvactl(host, &["history"], "");
    assert_eq!(said.code, 0, "{said:?}");
    numbered(&said.stdout)
}

lab_test!(leftovers_of_a_kill_are_cleaned_up);
/// Whichever command comes first: neither half-written files nor a change that never happened stay.
fn leftovers_of_a_kill_are_cleaned_up(backend: Backend) {
    for (args, entries_after) in [
        (&["apply", "-", "--no-trial"][..], 1),
        (&["remove"], 2),
        (&["rollback"], 1),
    ] {
        let host = firewall(backend);
        apply(&host, SPEC);
        let before = save(&host);
        fake(&host, "iptables-restore", "kill -9 $PPID; exit 1");
        let killed = host.feed(
            env!("CARGO_BIN_EXE_nvactl"),
            &["apply", "-", "--no-trial"],
            &changed(),
        );
        assert_eq!(killed.status.code(), None, "{killed:?}");
        unfake(&host, "iptables-restore");
        assert_eq!(save(&host), before, "it was killed too late");
        host.shell(
            "cd /var/lib/nvactl; echo half > .nvactl-Ab12Cd; : > history/.nvactl-aaaaaa
             for folder in history/*/; do echo half > $folder/.nvactl-Zz99zZ; done
             echo kept > notes.txt",
        );
        assert_ne!(temporary(&host), "");

        let said = nvactl(&host, args, SPEC);
        assert_eq!(said.code, 0, "{args:?}: {said:?}");
        assert_eq!(temporary(&host), "", "{args:?}");
        assert_eq!(host.run("cat /var/lib/nvactl/notes.txt"), "kept\n");
        match args {
            ["rollback"] => assert!(!save(&host).contains("NVACTL"), "{said:?}"),
            _ => assert_eq!(entries(&host), entries_after, "{args:?}"),
        }
    }
}

/// From when the state is recorded until the rules are loaded it takes about as long.
const WINDOW: u64 = 4_000;

lab_test!(sampled either no_kill_leaves_a_false_history_entry);
/// At whatever moment nvactl is killed, the next command leaves a history in which each step back
/// changes something.
fn no_kill_leaves_a_false_history_entry(backend: Backend) {
    let host = firewall(backend);
    let mut chance = Chance::new();
    apply(&host, SPEC);
    let spec = host.feed("sh", &["-c", "cat > /run/changed.yaml"], &changed());
    assert!(spec.status.success());
    let args = ["apply", "/run/changed.yaml", "--no-trial"];
    let history = format!(
        "/proc/{}/root/var/lib/nvactl/history/{}",
        host.pid(),
        inode(&host)
    );
    let recorded = || -> Vec<_> {
        let files = std::fs::read_dir(&history).expect("there is one").flatten();
        let mut names: Vec<_> = files.map(|file| file.file_name()).collect();
        names.sort_unstable();
        names
    };
    let before = save(&host);
    for round in 0..long::count(8, 25) {
        let known = recorded();
        let mut run = host
            .command(env!("CARGO_BIN_EXE_nvactl"))
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let begin = Instant::now();
        while recorded() == known && begin.elapsed() < Duration::from_secs(10) {}
        thread::sleep(Duration::from_micros(chance.below(WINDOW)));
        run.kill().expect("it can be killed");
        run.wait().expect("it ends");
        apply(&host, SPEC);
        assert_eq!(save(&host), before, "round {round}");
        assert_eq!(temporary(&host), "", "round {round}");
        let said = nvactl(&host, &["rollback", "--dry-run"], "");
        assert_eq!(said.code, 1, "round {round}: {said:?}");
    }
}

/// A record of a version that knows more, or of none: nobody can act on it.
const RECORDS: [(&str, &str); 5] = [
    ("empty", ": > $record"),
    ("garbage", "echo garbage > $record"),
    (
        "truncated",
        "head -c 700 $record > /run/half; cat /run/half > $record",
    ),
    (
        "newer",
        "echo '{\"version\": 99, \"id\": \"1-2\", \"changes\": [{\"table\": \"all\"}]}' > $record",
    ),
    (
        "newer, and else like today's",
        "sed -i '1s/{/{ \"version\": 99, \"until\": {\"hours\": 3},/' $record",
    ),
];

fn spoil_record(host: &Host, how: &str) {
    host.shell(&format!(
        "for record in /var/lib/nvactl/pending-*.json; do {how}; done"
    ));
}

lab_test!(either an_unreadable_record_can_be_discarded);
/// A record that cannot be read is discarded by the one who says so, and by nobody else.
fn an_unreadable_record_can_be_discarded(backend: Backend) {
    for (name, how) in RECORDS {
        let host = firewall(backend);
        apply(&host, SPEC);
        apply_for(&host, "600");
        host.run(&format!("kill -KILL {}", watchdogs(&host).join(" ")));
        wait_for("no watchdog is left", || !has_watchdog(&host));
        let loaded = save(&host);
        spoil_record(&host, how);
        for args in [
            &["apply", "-", "--no-trial"][..],
            &["remove"],
            &["rollback"],
            &["confirm"],
        ] {
            let said = nvactl(&host, args, SPEC);
            assert_eq!(said.code, 2, "{name}: {args:?}: {said:?}");
            assert!(
                said.stderr.contains("confirm --cancel"),
                "{name}: {args:?} shows no way out: {said:?}"
            );
            let fault = if name == "newer" {
                "` was written by a later version of nvactl; the change may still undo itself"
            } else {
                "` is damaged: "
            };
            assert!(said.stderr.contains(fault), "{name}: {args:?}: {said:?}");
            assert_eq!(save(&host), loaded, "{name}: {args:?}");
        }
        assert!(waits(&host), "{name}: it was discarded unasked");

        let said = nvactl(&host, &["confirm", "--cancel"], "");
        assert!([0, 3].contains(&said.code), "{name}: {said:?}");
        let words = format!("{}{}", said.stdout, said.stderr);
        assert!(
            words.contains("undo"),
            "{name}: it does not say what was not undone: {said:?}"
        );
        assert_eq!(save(&host), loaded, "{name}: nobody knows what to undo");
        assert!(!waits(&host), "{name}");
        assert!(nothing_waits(&host), "{name}");
        apply(&host, SPEC);
        assert_eq!(nvactl(&host, &["remove"], "").code, 0, "{name}");
    }
}

lab_test!(the_watchdog_of_a_discarded_record_does_not_undo_later_changes);
/// The watchdog of the discarded record knows what it would undo. It does not undo a later change.
fn the_watchdog_of_a_discarded_record_does_not_undo_later_changes(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    apply_for(&host, "3");
    spoil_record(&host, "echo garbage > $record");
    let said = nvactl(&host, &["confirm", "--cancel"], "");
    assert!([0, 3].contains(&said.code), "{said:?}");
    apply(&host, &SPEC.replace("49182", "49199"));
    let later = save(&host);
    wait_for("no watchdog is left", || !has_watchdog(&host));
    assert_eq!(save(&host), later);
    assert!(nothing_waits(&host));
}

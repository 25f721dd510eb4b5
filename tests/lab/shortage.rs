//! No more processes, threads or file descriptors: an error and nothing half done, never a panic.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::confirm::watchdogs;
use crate::firewall::{SPEC, apply, firewall};
use crate::lab::{Backend, Said, save};
use crate::namespace::{Host, wait_for};
use crate::nvactl;

const NVACTL: &str = env!("CARGO_BIN_EXE_nvactl");

/// A cgroup whose tasks can be limited, as `TasksMax=` of systemd and `pids_limit` of a container do.
/// `RLIMIT_NPROC` does not bind root (`copy_process`, kernel/fork.c).
pub struct Tasks(PathBuf);

impl Tasks {
    /// Makes one where root may; elsewhere says so, past the test harness's capture.
    pub fn new() -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/mounts").expect("it can be read");
        let made = mounts.lines().find_map(|mount| {
            let words: Vec<&str> = mount.split(' ').collect();
            let root = Path::new(words[1]);
            match words[2] {
                "cgroup" if words[3].split(',').any(|option| option == "pids") => {}
                // Where it is on already, that is all there is to do.
                "cgroup2" => drop(fs::write(root.join("cgroup.subtree_control"), "+pids")),
                _ => return None,
            }
            let nth = MADE.fetch_add(1, Ordering::Relaxed);
            let folder = root.join(format!("nvactl-test-{}-{nth}", std::process::id()));
            fs::create_dir(&folder).ok()?;
            let tasks = Self(folder);
            tasks.0.join("pids.max").exists().then_some(tasks)
        });
        if made.is_none() {
            let words = "SKIPPED a lab test: no cgroup can limit tasks here";
            writeln!(io::stderr(), "{words}").expect("stderr is open");
        }
        made
    }

    pub fn limit(&self, most: &str) {
        fs::write(self.0.join("pids.max"), most).expect("it can be limited");
    }

    fn add(&self, process: &str) {
        fs::write(self.0.join("cgroup.procs"), process).expect("it can be moved");
    }

    /// Runs nvactl in it.
    pub fn nvactl(&self, host: &Host, args: &[&str]) -> Said {
        let enter = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", self.0.display());
        let words = [&["-ec", &enter, "sh", NVACTL], args].concat();
        Said::from(host.feed("sh", &words, ""))
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        // A task that has just ended may still be counted.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

fn changed() -> String {
    SPEC.replace("49182", "49183").replace("games", "play")
}

/// Loads both specs in turn and gives what iptables-save says of each; SPEC is loaded afterwards.
fn states(host: &Host) -> [String; 2] {
    let written = host.feed("sh", &["-c", "cat > /run/spec.yaml"], &changed());
    assert!(written.status.success());
    apply(host, &changed());
    let new = save(host);
    apply(host, SPEC);
    [save(host), new]
}

/// Checks that the change was made and nothing was said against it, or that it was refused and nothing
/// has changed; loads the old rules again. Tells whether it was made.
fn is_whole(host: &Host, states: &[String; 2], said: &Said, what: &str) -> bool {
    assert!(!said.stderr.contains("panicked"), "{what}: {said:?}");
    let made = match said.code {
        0 => true,
        2 => false,
        _ => panic!("{what}: {said:?}"),
    };
    assert_eq!(save(host), states[usize::from(made)], "{what}: {said:?}");
    if made {
        apply(host, SPEC);
    }
    made
}

const APPLY: [&str; 3] = ["apply", "/run/spec.yaml", "--no-trial"];

lab_test!(either a_change_without_free_processes_is_complete_or_absent);
/// With each number of tasks, from nvactl's own process alone to as many as it likes.
fn a_change_without_free_processes_is_complete_or_absent(backend: Backend) {
    let Some(tasks) = Tasks::new() else { return };
    let host = firewall(backend);
    let states = states(&host);
    tasks.limit("1");
    let said = tasks.nvactl(&host, &APPLY);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("could not be started"), "{said:?}");
    let mut made = 0;
    for most in 1..=8 {
        tasks.limit(&most.to_string());
        let said = tasks.nvactl(&host, &APPLY);
        made += u32::from(is_whole(&host, &states, &said, &format!("{most} tasks")));
    }
    assert!((1..8).contains(&made), "{made} changes were made");
}

lab_test!(either a_change_without_free_file_descriptors_is_complete_or_absent);
fn a_change_without_free_file_descriptors_is_complete_or_absent(backend: Backend) {
    let host = firewall(backend);
    let states = states(&host);
    let (mut made, mut refused) = (0, 0);
    for most in 4..=32 {
        let script = format!("ulimit -n {most}; exec \"$@\"");
        let words = [&["-ec", &script, "sh", NVACTL][..], &APPLY].concat();
        let said = Said::from(host.feed("sh", &words, ""));
        // So few that its own libraries cannot be loaded.
        if said.code == 127 {
            continue;
        }
        let whole = is_whole(&host, &states, &said, &format!("{most} descriptors"));
        *(if whole { &mut made } else { &mut refused }) += 1;
    }
    assert!(made > 0 && refused > 0, "{made} made, {refused} refused");
}

lab_test!(either the_watchdog_needs_no_thread);
/// It has its own process and one child at a time, and no thread.
fn the_watchdog_needs_no_thread(backend: Backend) {
    let Some(tasks) = Tasks::new() else { return };
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    let said = nvactl(&host, &["apply", "-", "--confirm", "6"], &changed());
    assert_eq!(said.code, 0, "{said:?}");
    assert_ne!(save(&host), before);
    let watchdogs = watchdogs(&host);
    assert_eq!(watchdogs.len(), 1);
    tasks.add(&watchdogs[0]);
    tasks.limit("2");
    wait_for("the old rules are back", || save(&host) == before);
    wait_for("the watchdog is done", || {
        crate::confirm::watchdogs(&host).is_empty()
    });
}

lab_test!(either each_port_is_probed_without_free_threads);
/// Nothing answers here; each is tried all the same.
fn each_port_is_probed_without_free_threads(backend: Backend) {
    let Some(tasks) = Tasks::new() else { return };
    let host = firewall(backend);
    states(&host);
    tasks.limit("1");
    let args = ["probe", "/run/spec.yaml", "--timeout", "0.1"];
    let said = tasks.nvactl(&host, &args);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stdout.contains("13 ports tried"), "{said:?}");
    assert!(!said.stderr.contains("not tried"), "{said:?}");
}

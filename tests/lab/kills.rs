//! SIGKILL of nvactl's own process: what its children make of the change, and who may go on.

use std::fs::File;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::confirm::has_watchdog;
use crate::fake::{fake, unfake};
use crate::faults::many;
use crate::firewall::{SPEC, apply, firewall};
use crate::lab::{Backend, save};
use crate::long;
use crate::namespace::{Host, wait_for, wait_for_at_most};
use crate::nvactl;

const NVACTL: &str = env!("CARGO_BIN_EXE_nvactl");

/// A number that the environment may set, so that a run can be repeated or made longer.
fn number(variable: &str, default: u64) -> u64 {
    let set = std::env::var(variable).ok();
    set.map_or(default, |value| value.parse().expect(variable))
}

/// Random numbers that a seed repeats (splitmix64, Steele et al. 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A duration below `limit`.
    fn below(&mut self, limit: Duration) -> Duration {
        let nanoseconds = u64::try_from(limit.as_nanos()).expect("it is short");
        Duration::from_nanos(self.next() % nanoseconds.max(1))
    }
}

/// Writes `old.yaml` and `new.yaml`, of so many forwards each, that have no rule in common.
fn write_specs(host: &Host, forwards: u32) {
    let old = many(forwards);
    let new = old
        .replace("10.225.", "10.226.")
        .replace("listen: 1", "listen: 2");
    for (name, spec) in [("old", old), ("new", new)] {
        let script = format!("cat > /run/{name}.yaml");
        let written = host.feed("sh", &["-c", &script], &spec);
        assert!(written.status.success());
    }
}

/// Starts nvactl, which says nothing to anybody.
fn start(host: &Host, args: &[&str]) -> Child {
    host.command(NVACTL)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts")
}

fn kill(mut run: Child) {
    run.kill().expect("it can be killed");
    run.wait().expect("it ends");
}

/// Whether nobody holds nvactl's lock.
fn lock_is_free(host: &Host) -> bool {
    let path = format!("/proc/{}/root/var/lib/nvactl/lock", host.pid());
    let file = File::open(path).expect("nvactl has run before");
    file.try_lock().is_ok()
}

/// The tables filter and nat.
fn tables(saved: &str) -> [&str; 2] {
    ["*filter\n", "*nat\n"].map(|name| {
        let mut tables = saved.split_inclusive("COMMIT\n");
        tables
            .find(|table| table.starts_with(name))
            .expect("it is loaded")
    })
}

lab_test!(sampled either no_kill_ends_between_two_tables);
/// Killed at any moment, nvactl leaves both tables old or both new.
fn no_kill_ends_between_two_tables(backend: Backend) {
    let host = firewall(backend);
    write_specs(&host, 300);
    let apply = |name: &str| {
        let begin = Instant::now();
        let spec = format!("/run/{name}.yaml");
        let said = nvactl(&host, &["apply", &spec, "--no-trial"], "");
        assert_eq!(said.code, 0, "{said:?}");
        (save(&host), begin.elapsed())
    };
    let (old, one) = apply("old");
    let (new, other) = apply("new");
    let time = one.min(other);
    let states = [old, new];
    assert!(
        tables(&states[0])
            .iter()
            .zip(tables(&states[1]))
            .all(|(old, new)| **old != *new)
    );

    let clock = u64::from(std::process::id());
    let seed = number("NVACTL_KILL_SEED", clock);
    let kills = number("NVACTL_KILLS", long::count(15, 200));
    let mut random = Random(seed);
    let (mut now, mut orphans, mut changed, mut torn) = (1, 0, 0, Vec::new());
    for nth in 0..kills {
        let spec = format!("/run/{}.yaml", ["new", "old"][now]);
        let after = random.below(time);
        let run = start(&host, &["apply", &spec, "--no-trial"]);
        thread::sleep(after);
        kill(run);
        orphans += u32::from(!lock_is_free(&host));
        wait_for("whatever it had started has ended", || lock_is_free(&host));
        let saved = save(&host);
        let left = tables(&saved);
        match states.iter().position(|state| tables(state) == left) {
            Some(state) => {
                changed += u32::from(state != now);
                now = state;
            }
            None => {
                torn.push((nth, after));
                apply(["old", "new"][now]);
            }
        }
    }
    println!(
        "{backend:?}: seed {seed}, {kills} kills within {time:?}: {orphans} left a program that went \
         on, {changed} made the change, {} ended between two tables",
        torn.len()
    );
    assert_eq!(torn, [], "seed {seed}: these ended between two tables");
}

lab_test!(the_output_of_an_orphan_does_not_end_it);
/// A program that goes on alone may say what it likes, though nobody reads it.
fn the_output_of_an_orphan_does_not_end_it(backend: Backend) {
    let host = firewall(backend);
    write_specs(&host, 300);
    for name in ["old", "new"] {
        let spec = format!("/run/{name}.yaml");
        assert_eq!(nvactl(&host, &["apply", &spec, "--no-trial"], "").code, 0);
    }
    let new = save(&host);
    assert_eq!(
        nvactl(&host, &["apply", "/run/old.yaml", "--no-trial"], "").code,
        0
    );
    fake(
        &host,
        "iptables-restore",
        "touch /run/loading
         while [ ! -e /run/killed ]; do sleep 0.05; done
         echo said; echo warned >&2
         real \"$@\"; echo warned >&2",
    );
    let run = start(&host, &["apply", "/run/new.yaml", "--no-trial"]);
    wait_for("it is loading", || host.exists("/run/loading"));
    kill(run);
    host.run("touch /run/killed");
    wait_for("the program has ended", || lock_is_free(&host));
    assert_eq!(save(&host), new);
}

/// An iptables-restore that hangs at its first start and cannot be asked to end; it writes who it is.
const HANGS_ONCE: &str = "
    if mkdir /run/hung 2>/dev/null; then
      trap '' TERM
      echo $$ > /run/hung/process
      touch /run/hung/whole
      for n in $(seq 900); do sleep 0.1; done
    fi
    real \"$@\"";

lab_test!(a_program_that_outlived_nvactl_is_named);
/// Whoever waits in vain learns which program holds the lock, for nvactl itself is gone.
fn a_program_that_outlived_nvactl_is_named(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    write_specs(&host, 3);
    fake(&host, "iptables-restore", HANGS_ONCE);
    let run = start(&host, &["apply", "/run/new.yaml", "--no-trial"]);
    wait_for("it is loading", || host.exists("/run/hung/whole"));
    let [gone, process] = [run.id().to_string(), host.run("cat /run/hung/process")];
    let said = nvactl(&host, &["remove", "--lock-timeout", "1"], "");
    let named = format!("another nvactl (process {gone}, nvactl apply /run/new.yaml --no-trial)");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains(&named), "{said:?}");
    kill(run);
    let said = nvactl(&host, &["remove", "--lock-timeout", "1"], "");
    assert_eq!(said.code, 2, "{said:?}");
    let process = process.trim();
    let named = format!("`iptables-restore` (process {process})");
    assert!(said.stderr.contains(&named), "{said:?}");
    assert!(!said.stderr.contains(&gone), "{said:?}");
    // The hint can be pasted: sudo runs the program `kill`.
    let (_, hint) = said
        .stderr
        .split_once("hint: to kill it: sudo ")
        .expect("there is a hint");
    host.run(hint);
    wait_for("the program has ended", || lock_is_free(&host));
    apply(&host, SPEC);
}

lab_test!(either a_hung_orphan_does_not_prevent_the_undo);
/// The watchdog ends a program that hangs and whose nvactl is gone, and undoes the change.
fn a_hung_orphan_does_not_prevent_the_undo(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    write_specs(&host, 3);
    fake(&host, "iptables-restore", HANGS_ONCE);
    // The watchdog calls the backend by its own name.
    let own = match backend {
        Backend::Nft => "iptables-nft-restore",
        Backend::Legacy => "iptables-legacy-restore",
    };
    host.run(&format!("cp -P /run/real/iptables-restore /run/bin/{own}"));
    let args = ["apply", "/run/new.yaml", "--no-trial", "--confirm", "1"];
    let run = start(&host, &args);
    wait_for("it is loading", || host.exists("/run/hung/whole"));
    kill(run);
    let limit = Duration::from_secs(40);
    wait_for_at_most(limit, "the watchdog is done", || !has_watchdog(&host));
    unfake(&host, "iptables-restore");
    assert!(lock_is_free(&host));
    assert_eq!(save(&host), before);
    let said = nvactl(&host, &["confirm", "--status"], "");
    assert!(
        said.stdout
            .starts_with("nothing is waiting for a confirmation"),
        "{said:?}"
    );
}

lab_test!(either a_program_that_lists_ends_with_nvactl);
/// It prints more than a pipe holds, and would wait for ever if somebody but nvactl could read it.
fn a_program_that_lists_ends_with_nvactl(backend: Backend) {
    let host = crate::lab::host_with(backend);
    host.shell(
        "cat > /run/bin/ip <<'END'
#!/bin/sh
case \"$*\" in *route*)
  echo $$ > /run/listing
  exec yes
esac
exec /usr/sbin/ip \"$@\"
END
         chmod +x /run/bin/ip",
    );
    let words = [
        "trace",
        "live",
        "--from",
        "198.51.100.7",
        "--to",
        "10.224.0.118:80",
    ];
    let run = start(&host, &words);
    let listing = host.path("/run/listing");
    let pid = || std::fs::read_to_string(&listing).unwrap_or_default();
    wait_for("the listing", || pid().ends_with('\n'));
    let process = format!("/proc/{}", pid().trim());
    kill(run);
    let limit = Instant::now() + Duration::from_secs(10);
    while std::fs::exists(&process).unwrap_or(true) && Instant::now() < limit {
        thread::sleep(Duration::from_millis(1));
    }
    let is_left = std::fs::exists(&process).unwrap_or(true);
    if is_left {
        host.shell("kill -9 $(cat /run/listing)");
    }
    assert!(!is_left, "it waits for ever");
}

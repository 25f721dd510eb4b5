//! The watchdog and `confirm` meet at the lock: each change is decided once, and by one of them.

use std::fs::{self, File, OpenOptions};

use crate::confirm::{apply_for, changed, has_watchdog, waits, watchdogs};
use crate::firewall::{SPEC, apply, firewall};
use crate::lab::{Backend, save};
use crate::namespace::{Host, wait_for};
use crate::nvactl;
use crate::state::inode;

/// Takes nvactl's own lock on a host, from outside.
fn hold_lock(host: &Host) -> File {
    let path = format!("/proc/{}/root/var/lib/nvactl/lock", host.pid());
    let file = OpenOptions::new().write(true).open(path);
    let file = file.expect("a change has made the lock");
    file.lock().expect("nobody else changes anything");
    file
}

/// Whether a process has the lock's file open, as one has that waits for the lock.
fn has_opened_lock(process: &str) -> bool {
    let open = fs::read_dir(format!("/proc/{process}/fd"))
        .into_iter()
        .flatten();
    open.flatten().any(|open| {
        fs::read_link(open.path()).is_ok_and(|file| file.ends_with("var/lib/nvactl/lock"))
    })
}

/// Stops the watchdog of a change behind its deadline, while it waits for the lock, and returns its
/// process.
fn stopped_at_the_lock(host: &Host) -> String {
    apply_for(host, "1");
    let old = watchdogs(host);
    let [old] = old.as_slice() else {
        panic!("a change has one watchdog: {old:?}");
    };
    let lock = hold_lock(host);
    wait_for("its time is up", || has_opened_lock(old));
    host.run(&format!("kill -STOP {old}"));
    drop(lock);
    old.clone()
}

/// Lets it go on, and waits until it has ended.
fn go_on(host: &Host, process: &str) {
    host.run(&format!("kill -CONT {process}"));
    wait_for("the old watchdog has ended", || {
        !watchdogs(host).iter().any(|one| one == process)
    });
}

lab_test!(a_late_watchdog_does_not_undo_a_waiting_change);
/// Its change was confirmed while it waited for the lock, and the next one waits already.
fn a_late_watchdog_does_not_undo_a_waiting_change(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let old = stopped_at_the_lock(&host);
    let said = nvactl(&host, &["confirm"], "");
    assert_eq!(said.code, 0, "{said:?}");
    let confirmed = save(&host);
    let later = SPEC.replace("49182", "49199");
    let said = nvactl(
        &host,
        &["apply", "-", "--no-trial", "--confirm", "600"],
        &later,
    );
    assert_eq!(said.code, 0, "{said:?}");
    let loaded = save(&host);
    go_on(&host, &old);
    assert_eq!(save(&host), loaded);
    let said = nvactl(&host, &["confirm", "--status"], "");
    assert!(said.stdout.contains("unless you confirm it"), "{said:?}");
    // It undoes itself, and nothing more.
    assert_eq!(nvactl(&host, &["confirm", "--cancel"], "").code, 0);
    assert_eq!(save(&host), confirmed);
}

lab_test!(a_late_watchdog_does_not_undo_a_confirmed_change);
/// The next one has been confirmed as well.
fn a_late_watchdog_does_not_undo_a_confirmed_change(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let old = stopped_at_the_lock(&host);
    assert_eq!(nvactl(&host, &["confirm"], "").code, 0);
    let later = SPEC.replace("49182", "49199");
    let said = nvactl(
        &host,
        &["apply", "-", "--no-trial", "--confirm", "600"],
        &later,
    );
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(nvactl(&host, &["confirm"], "").code, 0);
    let loaded = save(&host);
    go_on(&host, &old);
    assert_eq!(save(&host), loaded);
    assert!(!waits(&host));
}

lab_test!(a_late_watchdog_undoes_its_own_change);
/// Nothing was decided: it is undone, however late.
fn a_late_watchdog_undoes_its_own_change(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    let before = save(&host);
    let old = stopped_at_the_lock(&host);
    assert_ne!(save(&host), before);
    go_on(&host, &old);
    assert_eq!(save(&host), before);
    assert!(!waits(&host));
}

lab_test!(either a_decision_outlives_the_command_that_made_it);
/// `confirm` was killed between the decision and the record: whoever reads the record next finishes
/// it.
fn a_decision_outlives_the_command_that_made_it(backend: Backend) {
    for decision in ["confirmed", "cancelled", "timed_out", "not_made"] {
        let readers: [&[&str]; 4] = [
            &["confirm", "--status"],
            &["apply", "-", "--no-trial"],
            &["remove"],
            &["rollback"],
        ];
        for args in readers {
            let host = firewall(backend);
            apply(&host, SPEC);
            apply_for(&host, "600");
            let inode = inode(&host);
            host.shell(&format!(
                "cd /var/lib/nvactl
                 id=$(sed -n 's/^ *\"id\": \"\\(.*\\)\",$/\\1/p' pending-{inode}.json)
                 cp pending-{inode}.json /run/record
                 printf '[\"%s\",\"{decision}\"]' $id > /run/decision
                 cat /run/decision > decision-{inode}.json"
            ));
            wait_for("the watchdog knows", || !has_watchdog(&host));
            // The watchdog may have finished it; the next one has to do it alone.
            host.shell(&format!(
                "cd /var/lib/nvactl; cp /run/record pending-{inode}.json
                 cp /run/decision decision-{inode}.json"
            ));
            let said = nvactl(&host, args, &changed().replace("49183", "49184"));
            assert_eq!(said.code, 0, "{decision}: {args:?}: {said:?}");
            let said = nvactl(&host, &["confirm", "--status"], "");
            assert!(
                said.code == 0 && said.stdout.contains("nothing is waiting"),
                "{decision}: {args:?}: {said:?}"
            );
            let looks = args == ["confirm", "--status"];
            assert!(looks || !waits(&host), "{decision}: {args:?}");
            // No answer is left to give.
            let said = nvactl(&host, &["confirm", "--cancel"], "");
            assert_eq!(said.code, 2, "{decision}: {args:?}: {said:?}");
            apply(&host, SPEC);
            assert!(!waits(&host), "{decision}: {args:?}");
        }
    }
}

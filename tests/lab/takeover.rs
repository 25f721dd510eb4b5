//! The state of the machine's first network namespace outlives kernels, which number namespaces each
//! in their own manner; the state of any other namespace is never acted on.
//!
//! nvactl knows the first namespace by a switch that only exists there. A host of the lab gets the
//! switch by a mount, so that changes can be made in it; the machine's own first namespace is only
//! read.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::confirm::{apply_for, changed, has_watchdog, waits};
use crate::damage::numbered;
use crate::firewall::{SPEC, apply, firewall, load};
use crate::ipv6::{BOTH, ONLY_V4};
use crate::lab::{Backend, Said, save, save_v6};
use crate::namespace::{Host, wait_for};
use crate::nvactl;
use crate::persistence::load_at_boot;
use crate::state::inode;

/// The name of the first namespace in the state folder.
const FIRST: &str = "first";
/// A switch of the kernel's that only the first network namespace has.
const SWITCH: &str = "/proc/sys/net/core/netdev_max_backlog";

/// Makes a host look like the machine's first network namespace.
pub fn make_first(host: &Host) {
    // Seen from a process of the host's own: the kernel shows each the switches of its namespace.
    let there = host.feed("test", &["-e", SWITCH], "");
    assert!(!there.status.success(), "no other namespace has it");
    host.run("mount -t tmpfs -o mode=755 tmpfs /proc/sys/net/core");
    host.shell(&format!("echo 1000 > {SWITCH}"));
}

/// Puts the state of one host into another's folder, as a disk has it from the kernel before, and
/// loads the same rules; `as_inode` is the number that it is kept under.
fn bring_state(from: &Host, to: &Host, as_inode: &str) {
    let (source, number) = (from.pid(), inode(from));
    to.shell(&format!(
        "mkdir -p /var/lib/nvactl; chmod 700 /var/lib/nvactl
         cp -a /proc/{source}/root/var/lib/nvactl/. /run/brought
         cd /run/brought
         find . -type f -exec sed -i s/{number}/{as_inode}/g {{}} +
         for name in $(find . -depth -name '*{number}*'); do
           new=$(echo $name | sed s/{number}/{as_inode}/g)
           [ $name = $new ] || mv $name $new
         done
         cp -a . /var/lib/nvactl; cd /; rm -r /run/brought"
    ));
}

/// Makes what waits there another boot's, as an older kernel leaves it.
fn age(host: &Host) {
    host.shell(
        "for record in /var/lib/nvactl/pending-*; do
           sed -i 's/\"boot\": \"[^\"]*\"/\"boot\": \"an earlier one\"/' $record
         done",
    );
}

fn bring_rules(from: &Host, to: &Host) {
    load(to, &from.run("iptables-save"));
    let v6 = to.feed("ip6tables-restore", &[], &from.run("ip6tables-save"));
    assert!(v6.status.success(), "{v6:?}");
}

/// The paths in the state folder.
fn names(host: &Host) -> String {
    host.shell("cd /var/lib/nvactl; find . | sort")
}

fn entries(said: &Said) -> usize {
    assert_eq!(said.code, 0, "{said:?}");
    numbered(&said.stdout)
}

/// Two changes and one that waits, made in a namespace whose number is not the one of `host`.
fn past(backend: Backend) -> Host {
    let past = firewall(backend);
    apply(&past, SPEC);
    apply(&past, BOTH);
    let changed = BOTH.replace("49182", "49183");
    let said = nvactl(
        &past,
        &["apply", "-", "--no-trial", "--confirm", "600"],
        &changed,
    );
    assert_eq!(said.code, 0, "{said:?}");
    past
}

/// Ends what waits there, after its state has been copied.
fn end(past: &Host) {
    assert_eq!(nvactl(past, &["confirm", "--cancel"], "").code, 0);
}

lab_test!(state_is_taken_over_only_in_the_first_namespace);
fn state_is_taken_over_only_in_the_first_namespace(backend: Backend) {
    let (past, host) = (past(backend), firewall(backend));
    let foreign = inode(&past);
    bring_state(&past, &host, &foreign);
    end(&past);
    let brought = names(&host);
    let said = nvactl(&host, &["history"], "");
    assert_eq!(entries(&said), 0, "{said:?}");
    assert_eq!(nvactl(&host, &["rollback"], "").code, 2);
    assert_eq!(nvactl(&host, &["confirm"], "").code, 2);
    apply(&host, ONLY_V4);
    let said = nvactl(&host, &["history"], "");
    assert_eq!(entries(&said), 1, "{said:?}");
    let now = names(&host);
    for name in brought.lines() {
        assert!(now.lines().any(|line| line == name), "{name} is gone");
    }
    assert!(!now.contains(FIRST), "{now}");
}

lab_test!(the_first_namespace_has_a_stable_name);
/// What one kernel has left the next one finds, whatever it calls the namespace.
fn the_first_namespace_has_a_stable_name(backend: Backend) {
    let (before, after) = (firewall(backend), firewall(backend));
    make_first(&before);
    make_first(&after);
    apply(&before, SPEC);
    apply(&before, BOTH);
    let here = inode(&before);
    assert!(!names(&before).contains(&here), "{}", names(&before));
    assert!(names(&before).contains(&format!("history/{FIRST}/")));

    bring_state(&before, &after, &here);
    bring_rules(&before, &after);
    let said = nvactl(&after, &["history"], "");
    assert_eq!(entries(&said), 2, "{said:?}");
    assert!(!said.stderr.contains("warning"), "{said:?}");
    assert_eq!(nvactl(&after, &["rollback"], "").code, 0);
    assert!(save(&after).contains("comment games"));
    assert!(!save_v6(&after).contains("NVACTL"));
}

lab_test!(state_of_this_boot_is_renamed);
/// State that this kernel has numbered is this namespace's own, and only gets another name.
fn state_of_this_boot_is_renamed(backend: Backend) {
    for args in [&["rollback"][..], &["apply", "-", "--no-trial"]] {
        let host = firewall(backend);
        apply(&host, SPEC);
        let first = save(&host);
        apply(&host, BOTH);
        let here = inode(&host);
        // Another namespace's is nobody's business, where there is one of its own.
        let other = "history/4026530001";
        host.shell(&format!(
            "cd /var/lib/nvactl; cp -a history/{here} {other}
             sed -i s/{here}/4026530001/ {other}/*"
        ));
        make_first(&host);
        let said = nvactl(&host, &["history"], "");
        assert_eq!(entries(&said), 2, "{said:?}");
        let said = nvactl(&host, args, SPEC);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(!said.stderr.contains(&here), "no warning: {said:?}");
        assert_eq!(save(&host), first);
        assert!(!save_v6(&host).contains("NVACTL"));
        let now = names(&host);
        assert!(now.contains(&format!("./history/{FIRST}")), "{now}");
        assert!(!now.contains(&here), "{args:?}: {now}");
        assert!(now.contains(&format!("./{other}/00000001.json")), "{now}");
    }
}

lab_test!(either a_change_that_waits_is_renamed_with_its_answer);
/// A change that waited while nvactl was replaced by a newer one is answered like any other.
fn a_change_that_waits_is_renamed_with_its_answer(backend: Backend) {
    for (answer, kept) in [
        (&["confirm"][..], true),
        (&["confirm", "--cancel"], false),
        (&["confirm", "--status"], false),
    ] {
        let host = firewall(backend);
        apply(&host, SPEC);
        let before = save(&host);
        // The watchdog knows the state by its old name.
        apply_for(&host, "3");
        make_first(&host);
        let said = nvactl(&host, &["confirm", "--status"], "");
        assert!(said.stdout.contains("unless you confirm it"), "{said:?}");
        assert_eq!(nvactl(&host, &["apply", "-", "--no-trial"], SPEC).code, 2);
        let said = nvactl(&host, answer, "");
        assert_eq!(said.code, 0, "{answer:?}: {said:?}");
        wait_for("the watchdog is done", || !has_watchdog(&host));
        assert_eq!(save(&host) != before, kept, "{answer:?}");
        let said = nvactl(&host, &["confirm", "--status"], "");
        assert!(said.stdout.contains("nothing is waiting"), "{said:?}");
        apply(&host, &changed());
        assert!(!waits(&host), "{answer:?}");
    }
}

lab_test!(the_one_state_of_an_older_kernel_is_taken_over);
/// After an upgrade of the kernel, exactly one namespace has left something.
fn the_one_state_of_an_older_kernel_is_taken_over(backend: Backend) {
    let (past, host) = (past(backend), firewall(backend));
    let foreign = inode(&past);
    make_first(&host);
    bring_state(&past, &host, &foreign);
    bring_rules(&past, &host);
    end(&past);
    host.shell(&format!(
        "cd /var/lib/nvactl; echo '[\"1-2\",\"confirmed\"]' > decision-{foreign}.json"
    ));
    let loaded = (save(&host), save_v6(&host));
    // One in which a change of this boot waits is another namespace that lives.
    let said = nvactl(&host, &["history"], "");
    assert_eq!(entries(&said), 0, "{said:?}");
    assert!(
        said.stdout.contains("another network namespace"),
        "{said:?}"
    );
    age(&host);
    let said = nvactl(&host, &["history"], "");
    assert_eq!(entries(&said), 3, "{said:?}");

    // What waited there waits no longer, and is not undone.
    let said = nvactl(&host, &["apply", "-", "--dry-run"], BOTH);
    assert!([0, 1].contains(&said.code), "{said:?}");
    assert_eq!((save(&host), save_v6(&host)), loaded);

    let said = nvactl(&host, &["remove"], "");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stderr.contains("warning") && said.stderr.contains(&foreign),
        "it does not name what it took over: {said:?}"
    );
    assert!(!save(&host).contains("NVACTL"));
    assert!(!save_v6(&host).contains("NVACTL"), "IPv6 is still open");
    let now = names(&host);
    assert!(now.contains(&format!("./history/{FIRST}")), "{now}");
    assert!(!now.contains(&foreign), "{now}");
    assert!(
        !now.contains("pending-") && !now.contains("decision-"),
        "{now}"
    );

    // Once.
    let said = nvactl(&host, &["rollback"], "");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!said.stderr.contains(&foreign), "{said:?}");
    assert!(save(&host).contains("NVACTL"));
}

lab_test!(several_states_are_not_taken_over);
/// With several nobody can know which one was the first.
fn several_states_are_not_taken_over(backend: Backend) {
    let (past, host) = (past(backend), firewall(backend));
    make_first(&host);
    let foreign = ["4026530001", "4026530002"];
    for number in foreign {
        bring_state(&past, &host, number);
    }
    bring_rules(&past, &host);
    end(&past);
    let brought = names(&host);
    let said = nvactl(&host, &["history"], "");
    assert_eq!(said.code, 0, "{said:?}");
    let all = format!("{}{}", said.stdout, said.stderr);
    assert!(all.contains("another"), "{said:?}");
    for number in foreign {
        assert!(all.contains(number), "{number} is not listed: {said:?}");
    }
    let said = nvactl(&host, &["rollback"], "");
    assert_eq!(said.code, 2, "{said:?}");
    // The rules are nvactl's own all the same.
    let said = nvactl(&host, &["remove"], "");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!save(&host).contains("NVACTL"));
    assert!(!save_v6(&host).contains("NVACTL"), "IPv6 is still open");
    let now = names(&host);
    for name in brought.lines() {
        assert!(now.lines().any(|line| line == name), "{name} is gone");
    }
}

lab_test!(loaded_ipv6_needs_no_record);
/// IPv6 rules are found where no record says that there are any.
fn loaded_ipv6_needs_no_record(backend: Backend) {
    let host = firewall(backend);
    apply(&host, BOTH);
    host.run("rm -r /var/lib/nvactl");
    let said = nvactl(&host, &["remove"], "");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!save(&host).contains("NVACTL"));
    assert!(!save_v6(&host).contains("NVACTL"), "IPv6 is still open");

    apply(&host, BOTH);
    host.run("rm -r /var/lib/nvactl");
    apply(&host, ONLY_V4);
    assert!(!save_v6(&host).contains("NVACTL"), "IPv6 is still open");
}

lab_test!(kept_ipv6_needs_no_record);
/// A rules file that brings IPv6 rules back at boot is found as well.
fn kept_ipv6_needs_no_record(backend: Backend) {
    let host = firewall(backend);
    load_at_boot(&host);
    apply(&host, BOTH);
    assert_eq!(nvactl(&host, &["persist"], "").code, 0);
    host.run("rm -r /var/lib/nvactl");
    host.shell(
        "ip6tables -F FORWARD; ip6tables -F NVACTL-FORWARD; ip6tables -X
         ip6tables -t nat -F; ip6tables -t nat -X",
    );
    let said = apply(&host, ONLY_V4);
    assert!(said.stderr.contains("/etc/iptables/rules.v6"), "{said:?}");
    assert_eq!(nvactl(&host, &["persist"], "").code, 0);
    let kept = host.run("cat /etc/iptables/rules.v6");
    assert!(!kept.contains("NVACTL"), "{kept}");
}

lab_test!(the_namespace_of_a_test_is_not_the_first);
/// The machine's own first namespace, where only reading is allowed; or whichever namespace the tests
/// run in.
fn the_namespace_of_a_test_is_not_the_first(backend: Backend) {
    let past = past(backend);
    let foreign = inode(&past);
    let folder = tempfile::tempdir().expect("a folder can be made");
    let copied = Command::new("cp")
        .args(["-a", &format!("/proc/{}/root/var/lib/nvactl/.", past.pid())])
        .arg(folder.path())
        .status();
    assert!(copied.expect("cp starts").success());
    end(&past);
    let pending = folder.path().join(format!("pending-{foreign}.json"));
    fs::remove_file(pending).expect("it waits");
    let history = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nvactl"));
        let said = command.arg("--state-dir").arg(folder.path()).arg("history");
        Said::from(said.output().expect("it starts"))
    };
    // In a container, that of its first process.
    let of = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    let is_first = Path::new(SWITCH).exists()
        || (of("1").is_some()
            && of("1") == of("self")
            && Path::new("/run/systemd/system").exists()
            && std::fs::read_to_string("/proc/1/comm").is_ok_and(|name| name == "systemd\n"));
    assert_eq!(entries(&history()), if is_first { 3 } else { 0 });

    // A second one: nobody knows which is meant.
    let other = folder.path().join("history/4026530002");
    let place = folder.path().join(format!("history/{foreign}"));
    let taken = folder.path().join(format!("history/{FIRST}"));
    let place = if place.exists() { place } else { taken };
    fs::create_dir(&other).expect("it can be made");
    for entry in fs::read_dir(&place).expect("it is there").flatten() {
        fs::copy(entry.path(), other.join(entry.file_name())).expect("it can be copied");
    }
    let said = history();
    match (is_first, place.ends_with(FIRST)) {
        // Taken over before, the other is a stranger.
        (true, true) => assert_eq!(entries(&said), 3, "{said:?}"),
        (true, false) => {
            assert_eq!(entries(&said), 0, "{said:?}");
            let all = format!("{}{}", said.stdout, said.stderr);
            assert!(all.contains("another") && all.contains(&foreign), "{all}");
        }
        (false, _) => assert_eq!(entries(&said), 0, "{said:?}"),
    }
}

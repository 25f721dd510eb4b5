//! The state folder is root's alone. A folder that others could have written is refused by every
//! command that changes something, and no planted link is followed.

use crate::confirm::{apply_for, changed};
use crate::firewall::{SPEC, apply, firewall};
use crate::lab::{Backend, Said, save};
use crate::namespace::Host;
use crate::nvactl;

/// A state folder at `place` that somebody else could change, or could have planted, and the path
/// that a message must name.
struct Open {
    place: &'static str,
    at_fault: &'static str,
    make: &'static str,
}

const OPEN: [Open; 8] = [
    Open {
        place: "/var/lib/nvactl",
        at_fault: "/var/lib/nvactl",
        make: "chmod 0777 /var/lib/nvactl",
    },
    Open {
        place: "/var/lib/nvactl",
        at_fault: "/var/lib/nvactl",
        make: "chgrp 1000 /var/lib/nvactl; chmod 0770 /var/lib/nvactl",
    },
    Open {
        place: "/var/lib/nvactl",
        at_fault: "/var/lib/nvactl",
        make: "chown 1000 /var/lib/nvactl",
    },
    Open {
        place: "/var/lib/nvactl",
        at_fault: "/var/lib/nvactl/history",
        make: "chmod 0755 /var/lib/nvactl; chmod 0777 /var/lib/nvactl/history",
    },
    Open {
        place: "/run/open/nvactl",
        at_fault: "/run/open",
        make: "mkdir /run/open; cp -a /var/lib/nvactl /run/open; chmod 0777 /run/open",
    },
    Open {
        place: "/run/theirs/deep/nvactl",
        at_fault: "/run/theirs",
        make: "mkdir -p /run/theirs/deep; cp -a /var/lib/nvactl /run/theirs/deep
               chown 1000 /run/theirs",
    },
    Open {
        place: "/run/sticky/nvactl",
        at_fault: "/run/sticky/nvactl",
        make: "mkdir -m 1777 /run/sticky; cp -a /var/lib/nvactl /run/sticky
               chown -R 1000 /run/sticky/nvactl",
    },
    // Its target is root's own, but who planted the link chose it.
    Open {
        place: "/run/links/nvactl",
        at_fault: "/run/links/nvactl",
        make: "mkdir -m 1777 /run/links; ln -s /var/lib/nvactl /run/links/nvactl
               chown -h 1000 /run/links/nvactl",
    },
];

/// Everything below the state folders, with owners, modes, sizes and contents.
fn states(host: &Host) -> String {
    host.shell(
        "find /var/lib /run/open /run/theirs /run/sticky /run/links \
              -printf '%p %y %U:%G %m %s %l\\n' 2>/dev/null | sort || true
         find /var/lib /run/open /run/theirs /run/sticky -type f \
              -exec sha256sum {} + 2>/dev/null | sort || true",
    )
}

fn is_refused(said: &Said, args: &[&str], open: &Open) {
    assert_eq!(said.code, 2, "{}: {args:?}: {said:?}", open.make);
    assert!(
        said.stderr.contains(open.at_fault),
        "{}: {args:?} does not name {}: {said:?}",
        open.make,
        open.at_fault
    );
}

lab_test!(either a_folder_that_others_can_write_is_refused);
fn a_folder_that_others_can_write_is_refused(backend: Backend) {
    for open in &OPEN {
        let host = firewall(backend);
        host.shell("echo 0 > /proc/sys/net/ipv4/ip_forward");
        apply(&host, SPEC);
        host.shell(open.make);
        let before = (save(&host), states(&host));
        for args in [
            &["apply", "-", "--no-trial"][..],
            &["apply", "-", "--no-trial", "--confirm", "1"],
            &["rollback"],
            &["remove"],
            &["persist"],
            &["sysctl", "enable", "--persist"],
        ] {
            let args = [&["--state-dir", open.place], args].concat();
            let said = nvactl(&host, &args, &changed());
            is_refused(&said, &args, open);
            let after = (save(&host), states(&host));
            assert_eq!(after, before, "{}: {args:?}", open.make);
        }
        assert!(!host.exists("/etc/iptables/rules.v4"));
        assert_eq!(host.run("cat /proc/sys/net/ipv4/ip_forward"), "0\n");
    }
}

lab_test!(either a_waiting_change_survives_a_folder_that_others_can_write);
/// Neither an answer nor a record is believed there.
fn a_waiting_change_survives_a_folder_that_others_can_write(backend: Backend) {
    for open in &OPEN {
        let host = firewall(backend);
        apply(&host, SPEC);
        apply_for(&host, "600");
        host.shell(&format!("cp -a /var/lib/nvactl /run/was; {}", open.make));
        let before = (save(&host), states(&host));
        for args in [&["confirm"][..], &["confirm", "--cancel"]] {
            let args = [&["--state-dir", open.place], args].concat();
            is_refused(&nvactl(&host, &args, ""), &args, open);
            let after = (save(&host), states(&host));
            assert_eq!(after, before, "{}: {args:?}", open.make);
        }
        // Closed again, it can be answered.
        host.shell("rm -r /var/lib/nvactl; mv /run/was /var/lib/nvactl");
        let said = nvactl(&host, &["confirm", "--cancel"], "");
        assert_eq!(said.code, 0, "{said:?}");
    }
}

lab_test!(either a_folder_of_root_in_a_sticky_folder_is_used);
/// Nobody but its owner can replace a folder in a sticky one, such as `/tmp`.
fn a_folder_of_root_in_a_sticky_folder_is_used(backend: Backend) {
    let host = firewall(backend);
    host.run("mkdir -m 1777 /run/sticky");
    let state = ["--state-dir", "/run/sticky/nvactl"];
    for (args, code) in [
        (&["apply", "-", "--no-trial"][..], 0),
        (&["rollback", "--dry-run"], 1),
        (&["remove"], 0),
    ] {
        let said = nvactl(&host, &[&state, args].concat(), SPEC);
        assert_eq!(said.code, code, "{args:?}: {said:?}");
    }
    assert_eq!(host.run("stat -c %a:%u /run/sticky/nvactl"), "700:0\n");
}

lab_test!(either a_planted_lock_link_does_not_change_its_target);
/// A link in the place of the lock leads nowhere: its target is neither written nor made.
fn a_planted_lock_link_does_not_change_its_target(backend: Backend) {
    for mode in ["0700", "0777"] {
        for target in ["/run/precious", "/run/missing"] {
            let host = firewall(backend);
            host.shell(&format!(
                "echo precious > /run/precious
                 mkdir -m {mode} /var/lib/nvactl; ln -s {target} /var/lib/nvactl/lock"
            ));
            for args in [
                &["apply", "-", "--no-trial"][..],
                &["remove"],
                &["rollback"],
            ] {
                let said = nvactl(&host, args, SPEC);
                let planted = host.run("cat /run/precious");
                assert_eq!(planted, "precious\n", "{mode} {args:?}: {said:?}");
                assert!(
                    !host.exists("/run/missing"),
                    "{mode} {target} {args:?}: {said:?}"
                );
            }
        }
    }
}

/// The network namespace of a host, as the kernel numbers it.
pub fn inode(host: &Host) -> String {
    let link = std::fs::read_link(format!("/proc/{}/ns/net", host.pid()));
    let link = link.expect("the holder is alive");
    let text = link.to_string_lossy();
    text.chars().filter(char::is_ascii_digit).collect()
}

//! `nvactl persist`: what is in the file, and what happens to the one that was there.

use crate::firewall::{SPEC, apply, firewall, load};
use crate::foreign::FOREIGN;
use crate::lab::{Backend, save};
use crate::namespace::Host;
use crate::nvactl;

const FILE: &str = "/etc/iptables/rules.v4";

fn persist(host: &Host, args: &[&str]) -> String {
    let said = nvactl(host, &[&["persist"], args].concat(), "");
    assert_eq!(said.code, 0, "{said:?}");
    said.stderr
}

fn rules_file(host: &Host) -> String {
    host.run(&format!("cat {FILE}"))
}

lab_test!(the_old_file_is_kept_and_the_new_one_belongs_to_root);
fn the_old_file_is_kept_and_the_new_one_belongs_to_root(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    persist(&host, &[]);
    let first = rules_file(&host);
    assert_eq!(host.run(&format!("stat -c %a:%U {FILE}")), "640:root\n");
    apply(&host, &SPEC.replace("49182", "49183"));
    persist(&host, &[]);
    assert!(rules_file(&host).contains("49183"));
    assert_eq!(host.run(&format!("cat {FILE}.bak")), first);
    // Nothing else is left behind.
    assert_eq!(host.run("ls -A /etc/iptables"), "rules.v4\nrules.v4.bak\n");

    host.run("mkdir /run/elsewhere");
    persist(&host, &["--output", "/run/elsewhere/rules"]);
    assert!(host.run("cat /run/elsewhere/rules").contains("49183"));
}

lab_test!(a_spec_that_is_not_live_is_refused);
fn a_spec_that_is_not_live_is_refused(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    persist(&host, &[]);
    let before = rules_file(&host);
    let other = SPEC.replace("49182", "49183");
    let said = nvactl(&host, &["persist", "-"], &other);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stderr.contains("the live rules differ from `<stdin>`"),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("--dport 49183"), "{}", said.stderr);
    for words in [
        "nothing was written (- loaded only, + spec only):\n",
        "hint: to save the loaded rules: sudo nvactl persist\n",
        "hint: to load the spec: sudo nvactl apply -\n",
    ] {
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
    assert_eq!(rules_file(&host), before);
    assert_eq!(nvactl(&host, &["persist", "-"], SPEC).code, 0);
}

lab_test!(a_file_that_would_not_load_never_replaces_one_that_does);
fn a_file_that_would_not_load_never_replaces_one_that_does(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    persist(&host, &[]);
    let before = rules_file(&host);
    host.shell(
        "rm /run/bin/iptables-save
         printf '#!/bin/sh\necho \"*filter\n-A FORWARD -m nonsense -j ACCEPT\nCOMMIT\"\n' > /run/bin/iptables-save
         chmod +x /run/bin/iptables-save",
    );
    let said = nvactl(&host, &["persist"], "");
    assert_eq!(said.code, 2, "{said:?}");
    assert_eq!(rules_file(&host), before);
}

lab_test!(rules_that_a_program_makes_at_each_start_are_named);
fn rules_that_a_program_makes_at_each_start_are_named(backend: Backend) {
    let host = firewall(backend);
    load(&host, FOREIGN[0].1);
    apply(&host, SPEC);
    let warnings = persist(&host, &[]);
    assert!(
        warnings.contains("Docker writes its rules again")
            && warnings.contains(
                "would be duplicates; to keep only nvactl's rules: sudo nvactl boot enable\n"
            ),
        "{warnings}"
    );
    assert!(rules_file(&host).contains("-A DOCKER "));

    load(&host, FOREIGN[2].1);
    apply(&host, SPEC);
    let warnings = persist(&host, &[]);
    assert!(
        warnings.contains("fail2ban writes its rules again"),
        "{warnings}"
    );
}

/// Has a host load its rules files at boot, seen through a folder of the test's own.
pub fn load_at_boot(host: &Host) {
    host.shell(
        "mkdir -p /run/share && mount --bind /run/share /usr/share
         mkdir -p /usr/share/netfilter-persistent/plugins.d /etc/systemd/system/multi-user.target.wants
         touch /usr/share/netfilter-persistent/plugins.d/15-ip4tables
         touch /usr/share/netfilter-persistent/plugins.d/25-ip6tables
         ln -s /lib/none /etc/systemd/system/multi-user.target.wants/netfilter-persistent.service",
    );
}

lab_test!(remove_reports_a_file_that_restores_the_rules);
fn remove_reports_a_file_that_restores_the_rules(backend: Backend) {
    let host = firewall(backend);
    load_at_boot(&host);
    apply(&host, SPEC);
    let said = nvactl(&host, &["remove"], "");
    assert!(!said.stderr.contains("rules.v4"), "{}", said.stderr);
    apply(&host, SPEC);
    persist(&host, &[]);
    let said = nvactl(&host, &["remove"], "");
    assert!(
        said.stderr.contains(
            "the next boot loads other rules from /etc/iptables/rules.v4; to save the rules loaded now: sudo nvactl persist"
        ),
        "{}",
        said.stderr
    );
    persist(&host, &[]);
    let said = nvactl(&host, &["remove"], "");
    assert!(!said.stderr.contains("rules.v4"), "{}", said.stderr);
    assert!(!save(&host).contains("NVACTL"));
}

lab_test!(persist_reports_whether_the_file_is_loaded_at_boot);
fn persist_reports_whether_the_file_is_loaded_at_boot(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    // A machine that has the package, seen through a folder of the test's own.
    host.shell("mkdir -p /run/share && mount --bind /run/share /usr/share");
    let warnings = persist(&host, &[]);
    assert!(
        warnings.contains("iptables-persistent is not installed"),
        "{warnings}"
    );
    host.shell(
        "mkdir -p /usr/share/netfilter-persistent/plugins.d /etc/systemd/system
         touch /usr/share/netfilter-persistent/plugins.d/15-ip4tables
         rm -rf /etc/systemd/system/*.wants",
    );
    let warnings = persist(&host, &[]);
    assert!(
        warnings.contains("netfilter-persistent is not enabled"),
        "{warnings}"
    );
    host.shell(
        "mkdir /etc/systemd/system/multi-user.target.wants
         ln -s /lib/none /etc/systemd/system/multi-user.target.wants/netfilter-persistent.service",
    );
    let said = nvactl(&host, &["persist"], "");
    assert!(
        said.stdout.contains("iptables-persistent loads it at boot"),
        "{said:?}"
    );
}

lab_test!(foreign_bytes_are_kept);
/// Comments may hold any bytes, and a rule cut at 255 of them may end inside of a character.
fn foreign_bytes_are_kept(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    host.shell(
        "iptables -A INPUT -s 192.0.2.1 -m comment --comment \"$(printf 'caf\\351')\" -j ACCEPT",
    );
    persist(&host, &[]);
    host.shell(&format!(
        "printf 'caf\\351' > /run/word; LC_ALL=C grep -qFf /run/word {FILE}"
    ));
}

lab_test!(empty_rules_are_not_persisted);
fn empty_rules_are_not_persisted(backend: Backend) {
    let host = firewall(backend);
    let said = nvactl(&host, &["persist"], "");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("no IPv4 rules are loaded"), "{said:?}");
    load(&host, FOREIGN[0].1);
    let warnings = persist(&host, &[]);
    assert!(
        warnings.contains("nvactl's rules are not loaded"),
        "{warnings}"
    );
}

lab_test!(flushed_rules_do_not_replace_the_file);
fn flushed_rules_do_not_replace_the_file(backend: Backend) {
    let host = firewall(backend);
    apply(&host, SPEC);
    persist(&host, &[]);
    let before = rules_file(&host);
    host.run("iptables -t nat -F");
    let said = nvactl(&host, &["persist"], "");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stderr.ends_with(
            " are missing; nothing was written\nhint: to load them again: sudo nvactl apply\n"
        ),
        "{said:?}"
    );
    assert_eq!(rules_file(&host), before);
    // A file of one's own may hold anything.
    persist(&host, &["--output", "/run/rules"]);
    apply(&host, SPEC);
    persist(&host, &[]);
}

lab_test!(the_same_rules_do_not_replace_the_backup);
/// The old file is worth keeping only until its rules are replaced by others.
fn the_same_rules_do_not_replace_the_backup(backend: Backend) {
    let host = firewall(backend);
    host.shell(&format!(
        "mkdir /etc/iptables; printf '# by hand\n*filter\nCOMMIT\n' > {FILE}"
    ));
    apply(&host, SPEC);
    persist(&host, &[]);
    persist(&host, &[]);
    assert_eq!(
        host.run(&format!("cat {FILE}.bak")),
        "# by hand\n*filter\nCOMMIT\n"
    );
}

lab_test!(the_file_of_the_distribution_is_written);
/// What Fedora's iptables-services and Azure Linux's iptables load at boot.
fn the_file_of_the_distribution_is_written(backend: Backend) {
    for (script, file) in [
        (
            "/usr/libexec/iptables/iptables.init",
            "/etc/sysconfig/iptables",
        ),
        (
            "/etc/systemd/scripts/iptables",
            "/etc/systemd/scripts/ip4save",
        ),
    ] {
        let host = firewall(backend);
        host.shell(&format!(
            "mkdir -p /run/libexec /usr/libexec && mount --bind /run/libexec /usr/libexec
             mkdir -p $(dirname {script}) && touch {script}"
        ));
        apply(&host, SPEC);
        let warnings = persist(&host, &[]);
        assert!(
            warnings.contains("iptables.service is not enabled")
                && warnings.contains("sudo systemctl enable iptables"),
            "{warnings}"
        );
        assert!(
            host.run(&format!("cat {file}")).contains("NVACTL"),
            "{file}"
        );
        assert!(!host.exists(FILE));
        host.shell(
            "mkdir -p /etc/systemd/system/multi-user.target.wants
             ln -s /lib/none /etc/systemd/system/multi-user.target.wants/iptables.service",
        );
        let said = nvactl(&host, &["status", "-"], SPEC);
        let line = format!("{file} holds the loaded rules; iptables.service loads it");
        assert!(said.stdout.contains(&line), "{said:?}");
    }
}

//! What else filters on the machine: named before a change, or a reason to refuse it.

use crate::fake::fake;
use crate::firewall::{SPEC, apply, firewall};
use crate::lab::{Backend, save};
use crate::nvactl;

impl Backend {
    pub fn name(self) -> &'static str {
        match self {
            Backend::Nft => "nft",
            Backend::Legacy => "legacy",
        }
    }

    pub fn other(self) -> Self {
        match self {
            Backend::Nft => Backend::Legacy,
            Backend::Legacy => Backend::Nft,
        }
    }
}

lab_test!(either rules_in_the_other_backend_are_reported);
fn rules_in_the_other_backend_are_reported(backend: Backend) {
    let host = firewall(backend);
    let other = backend.other().name();
    let said = apply(&host, SPEC);
    assert!(!said.stderr.contains("holds rules too"), "{said:?}");
    host.run(&format!("iptables-{other} -A FORWARD -s 192.0.2.1 -j DROP"));
    let said = apply(&host, SPEC);
    let words = format!("iptables-{other} holds rules too (1)");
    assert!(said.stderr.contains(&words), "{said:?}");
    // The one change that may cut off others still comes first.
    assert_eq!(nvactl(&host, &["remove"], "").code, 0);
    host.run("iptables -P FORWARD ACCEPT");
    let said = apply(&host, SPEC);
    assert!(
        said.stderr
            .starts_with("warning: the FORWARD policy changes from ACCEPT to DROP"),
        "{said:?}"
    );
}

lab_test!(either nvactl_s_rules_in_the_other_backend_refuse_a_change);
/// With its own rules in one and the plain names in the other, nvactl would have to guess.
fn nvactl_s_rules_in_the_other_backend_refuse_a_change(backend: Backend) {
    let host = firewall(backend);
    let other = backend.other().name();
    let said = nvactl(&host, &["--backend", other, "apply", "-"], SPEC);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        host.run(&format!("iptables-{other}-save"))
            .contains("NVACTL-FORWARD")
    );
    let before = save(&host);
    assert!(
        !before.contains("NVACTL"),
        "the other backend was asked for"
    );

    let said = nvactl(&host, &["apply", "-"], SPEC);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stderr
            .contains("nvactl cannot tell which of the two you mean"),
        "{said:?}"
    );
    assert!(
        said.stderr.contains(&format!("--backend {other}")),
        "{said:?}"
    );
    assert_eq!(save(&host), before);
    for args in [
        &["apply", "-", "--dry-run"][..],
        &["diff", "-"],
        &["persist", "-"],
    ] {
        let said = nvactl(&host, &[&["--backend", other], args].concat(), SPEC);
        assert_eq!(said.code, 0, "{args:?}: {said:?}");
    }
    // The confirmation that does not come undoes it where it was made.
    let said = nvactl(
        &host,
        &["--backend", other, "apply", "-", "--confirm", "600"],
        &SPEC.replace("49182", "49183"),
    );
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(nvactl(&host, &["confirm", "--cancel"], "").code, 0);
    assert!(
        host.run(&format!("iptables-{other}-save"))
            .contains("--dport 49182")
    );
    let said = nvactl(&host, &["--backend", other, "remove"], "");
    assert_eq!(said.code, 0, "{said:?}");
    // The plain name is the other backend.
    let command = format!("sudo iptables-{other} -P FORWARD ACCEPT\n");
    assert!(said.stdout.contains(&command), "{said:?}");
    assert!(
        !host
            .run(&format!("iptables-{other}-save"))
            .contains("NVACTL")
    );
}

lab_test!(either an_unknown_iptables_backend_is_not_guessed);
fn an_unknown_iptables_backend_is_not_guessed(backend: Backend) {
    let host = firewall(backend);
    fake(&host, "iptables", "echo 'iptables v1.9 (bpf)'");
    let said = nvactl(&host, &["apply", "-"], SPEC);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stderr.contains("its version is `iptables v1.9 (bpf)`"),
        "{said:?}"
    );
    let said = nvactl(&host, &["--backend", backend.name(), "apply", "-"], SPEC);
    assert_eq!(said.code, 0, "{said:?}");
}

lab_test!(either other_managers_of_the_firewall_are_reported);
fn other_managers_of_the_firewall_are_reported(backend: Backend) {
    let host = firewall(backend);
    host.shell("mkdir -p /etc/ufw; echo ENABLED=no > /etc/ufw/ufw.conf");
    let said = apply(&host, SPEC);
    assert!(!said.stderr.contains("manages this machine"), "{said:?}");
    host.shell("echo ENABLED=yes > /etc/ufw/ufw.conf; mkdir /run/firewalld");
    let said = apply(&host, SPEC);
    assert!(
        said.stderr.contains("ufw manages this machine")
            && said
                .stderr
                .contains("\n  to fix it: sudo nvactl boot enable\n"),
        "{said:?}"
    );
    assert!(
        said.stderr.contains("firewalld manages this machine"),
        "{said:?}"
    );
}

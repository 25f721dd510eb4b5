//! `nvactl diff` against the live rules.

use crate::firewall::{SPEC, apply, firewall, load};
use crate::foreign::FOREIGN;
use crate::ipv6::BOTH;
use crate::lab::{Backend, Said};
use crate::namespace::Host;
use crate::nvactl;

fn diff(host: &Host, spec: &str) -> Said {
    nvactl(host, &["diff", "-"], spec)
}

lab_test!(diff_shows_the_changes_that_apply_would_make);
fn diff_shows_the_changes_that_apply_would_make(backend: Backend) {
    let host = firewall(backend);
    load(&host, FOREIGN[0].1);
    let said = diff(&host, SPEC);
    assert_eq!(said.code, 1, "{said:?}");
    let added = said
        .stdout
        .lines()
        .filter(|line| line.starts_with("+ "))
        .count();
    assert_eq!(added, 3, "{said:?}");

    apply(&host, SPEC);
    let said = diff(&host, SPEC);
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (0, "<stdin>: the same as the live rules\n")
    );

    let other = SPEC.replace("49182", "49183").replace("games", "play");
    let said = diff(&host, &other);
    assert_eq!(said.code, 1, "{said:?}");
    let lines: Vec<&str> = said
        .stdout
        .lines()
        .map(|line| line.split_at(18).0.trim())
        .collect();
    assert_eq!(lines, ["+ play", "- games", "~ web"], "{said:?}");
    assert!(said.stdout.contains("listen 49182 → 49183"), "{said:?}");
    apply(&host, &other);
    assert_eq!(diff(&host, &other).code, 0);
}

lab_test!(either the_rules_of_another_machine_come_by_a_pipe);
/// Real text of both programs, one behind the other.
fn the_rules_of_another_machine_come_by_a_pipe(backend: Backend) {
    let (here, other) = (firewall(backend), firewall(backend));
    let written = here.feed("sh", &["-ec", "cat > /run/spec.yaml"], BOTH);
    assert!(written.status.success(), "{written:?}");
    let compare = || {
        let saved = other.shell("iptables-save && ip6tables-save");
        let args = ["diff", "/run/spec.yaml", "--against", "-"];
        nvactl(&here, &args, &saved)
    };
    other.run("iptables -A INPUT -p icmp -j ACCEPT");
    let said = compare();
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stdout.contains("+ web "), "{said:?}");

    apply(&other, BOTH);
    let said = compare();
    let same = "/run/spec.yaml: the same as <stdin>\n";
    assert_eq!((said.code, said.stdout.as_str()), (0, same), "{said:?}");
    assert_eq!(said.stderr, "");

    other.run("ip6tables -F NVACTL-FORWARD");
    let said = compare();
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.stdout.contains("missing, ip6tables filter: "),
        "{said:?}"
    );
}

lab_test!(drift_is_named);
/// What is done to nvactl's rules behind its back, line by line; what is done to others is not seen.
fn drift_is_named(backend: Backend) {
    let host = firewall(backend);
    for (spoil, line) in [
        (
            "iptables -I NVACTL-FORWARD 2 -s 192.0.2.1 -j ACCEPT",
            "added by others, filter: -A NVACTL-FORWARD -s 192.0.2.1/32 -j ACCEPT",
        ),
        (
            "iptables -D NVACTL-FORWARD 1",
            "missing, filter: -A NVACTL-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        ),
        (
            "iptables -t nat -D NVACTL-PREROUTING 2",
            "missing, nat: -A NVACTL-PREROUTING -i eth0 -p tcp -m tcp --dport 49182",
        ),
        (
            "iptables -t nat -D POSTROUTING -j NVACTL-POSTROUTING",
            "missing, nat: -A POSTROUTING -j NVACTL-POSTROUTING",
        ),
        (
            "iptables -I FORWARD 1 -s 192.0.2.9 -j DROP",
            "is before nvactl's jump, filter: -A FORWARD -s 192.0.2.9/32 -j DROP",
        ),
        (
            "iptables -N NVACTL-OLD",
            "added by others, filter: :NVACTL-OLD - [0:0]",
        ),
    ] {
        apply(&host, SPEC);
        assert_eq!(diff(&host, SPEC).code, 0, "before {spoil}");
        host.run(spoil);
        let said = diff(&host, SPEC);
        assert_eq!(said.code, 1, "{spoil}: {said:?}");
        let lines: Vec<&str> = said.stdout.lines().collect();
        assert_eq!(lines.len(), 1, "{spoil}: {said:?}");
        assert!(
            lines[0].starts_with("! ") && lines[0].contains(line),
            "{spoil}: {said:?}"
        );
    }
    apply(&host, SPEC);
    host.run("iptables -P FORWARD ACCEPT");
    let said = diff(&host, SPEC);
    assert_eq!(
        said.stdout,
        "~ (firewall)       FORWARD policy ACCEPT → DROP\n"
    );
    apply(&host, SPEC);
    host.run("iptables -A FORWARD -s 192.0.2.1 -j DROP");
    host.run("iptables -A INPUT -s 192.0.2.1 -j DROP");
    assert_eq!(diff(&host, SPEC).code, 0);
}

//! Others' rules that write the bit of a connection's mark by which a tree has its short cut.

use crate::lab::{Backend, FIREWALL, Lab};
use crate::traffic::{Outcome, answer, serve_tcp};

const SPEC: &str = "
firewall: {interface: eth0, snat: 10.3.0.4, layout: tree}
silence: [keeps-probes-out]
forwards:
  - {name: web, listen: 8080, target: {pod: 10.224.0.118:80}}
  - {name: closed, listen: 8081, target: {pod: 10.224.0.118:80}, deny_from: [198.51.100.10]}
";

lab_test!(either a_foreign_rule_that_writes_nvactl_s_mark_is_named);
fn a_foreign_rule_that_writes_nvactl_s_mark_is_named(backend: Backend) {
    const DANGER: &str = "CONNMARK --set-xmark 0x10000001/0xffffffff";
    const CURE: &str = "CONNMARK --set-xmark 0x1/0xefffffff";
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 80);
    lab.apply(SPEC);
    let denied = |rule: &str| {
        lab.firewall.run("iptables -t mangle -F FORWARD");
        lab.firewall
            .run(&format!("iptables -t mangle -A FORWARD -j {rule}"));
        assert_eq!(lab.tcp(FIREWALL, 8080), answer("pod", "10.3.0.4"));
        lab.tcp(FIREWALL, 8081)
    };
    let told = |layout: &str| {
        let spec = SPEC.replace("tree", layout);
        let apply = lab.nvactl_with(&["apply", "-", "--dry-run"], &spec);
        let doctor = lab.nvactl_with(&["doctor", "-"], &spec);
        let named = format!("-A FORWARD -j {DANGER}");
        (
            apply.stderr.contains(&named),
            doctor.stdout.contains(&named),
        )
    };
    assert_eq!(lab.tcp(FIREWALL, 8081), Outcome::Silence);
    assert_eq!(told("tree"), (false, false));

    for shifted in [
        "--set-xmark 0x2000000/0x2000000 --left-shift-mark 3",
        "--set-xmark 0x80000000/0x80000000 --right-shift-mark 3",
    ] {
        assert_eq!(
            denied(&format!("CONNMARK {shifted}")),
            answer("pod", "10.3.0.4")
        );
        let apply = lab.nvactl_with(&["apply", "-", "--dry-run"], SPEC);
        assert!(apply.stderr.contains(shifted), "{apply:?}");
        let doctor = lab.nvactl_with(&["doctor", "-"], SPEC);
        assert!(doctor.stdout.contains(shifted), "{doctor:?}");
    }
    assert_eq!(denied(DANGER), answer("pod", "10.3.0.4"));
    assert_eq!(told("tree"), (true, true));
    let said = lab.nvactl_with(&["apply", "-"], SPEC);
    assert!(said.stderr.contains(CURE), "{said:?}");
    let said = lab.nvactl_with(&["doctor", "-"], SPEC);
    assert!(said.stdout.contains("warn    foreign-rule"), "{said:?}");
    assert!(!said.stdout.contains("native-nft"), "{said:?}");
    assert!(said.stdout.contains("deny lists"), "{said:?}");
    assert!(said.stdout.contains(CURE), "{said:?}");

    // Either way out.
    assert_eq!(denied(CURE), Outcome::Silence);
    assert_eq!(told("tree"), (false, false));
    lab.apply(&SPEC.replace("tree", "flat"));
    assert_eq!(denied(DANGER), Outcome::Silence);
    assert_eq!(told("flat"), (false, false));
}

lab_test!(either programs_that_write_the_mark_without_iptables_are_named);
/// What iptables does not show writes it as well.
fn programs_that_write_the_mark_without_iptables_are_named(backend: Backend) {
    let other = format!("iptables-{}", backend.other().name());
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 80);
    lab.apply(SPEC);
    let rule = "FORWARD -p tcp -j CONNMARK --set-xmark 0x10000000/0xffffffff";
    let by_other = format!("another program's rule in {other} mangle sets bit 0x10000000");
    let chain = "nft add table inet shop; \
                 nft 'add chain inet shop passing { type filter hook forward priority -150; }'; \
                 nft add rule inet shop passing ct mark set 0x10000000";
    for (put, take, named, status) in [
        (
            format!("{other} -t mangle -A {rule}"),
            format!("{other} -t mangle -D {rule}"),
            by_other.as_str(),
            "warn    other-backend",
        ),
        (
            chain.to_owned(),
            "nft delete table inet shop".to_owned(),
            "in the nft chain inet shop passing sets bit 0x10000000",
            "warn    native-nft",
        ),
    ] {
        assert_eq!(lab.tcp(FIREWALL, 8081), Outcome::Silence);
        lab.firewall.shell(&put);
        assert_eq!(lab.tcp(FIREWALL, 8080), answer("pod", "10.3.0.4"));
        assert_eq!(lab.tcp(FIREWALL, 8081), answer("pod", "10.3.0.4"));
        let told = |layout: &str| {
            let spec = SPEC.replace("tree", layout);
            let said = lab.nvactl_with(&["apply", "-", "--dry-run"], &spec);
            said.stderr.contains(named)
        };
        assert!(told("tree"), "{named}");
        assert!(!told("flat"), "{named}");
        let doctor = lab.nvactl_with(&["doctor", "-"], SPEC);
        assert!(doctor.stdout.contains(named), "{doctor:?}");
        assert!(doctor.stdout.contains(status), "{doctor:?}");

        // The way back to a tree is told, too.
        lab.apply(&SPEC.replace("tree", "flat"));
        assert_eq!(lab.tcp(FIREWALL, 8081), Outcome::Silence);
        let back = lab.nvactl(&["rollback"]);
        assert!(back.stderr.contains(named), "{back:?}");
        lab.firewall.shell(&take);
    }
}

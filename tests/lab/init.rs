//! `nvactl init` on machines of every kind: `check` accepts what it writes, and iptables loads its examples.

use crate::firewall::{SPEC, apply, firewall, load};
use crate::foreign::FOREIGN;
use crate::lab::{Backend, FIREWALL, Lab, Said, host_with, save};
use crate::namespace::Host;
use crate::nvactl;
use crate::traffic::{answer, serve_tcp};

/// Runs `init`, and returns what it printed. `check` accepts the spec, and so it does without the `#` of the examples. A
/// FORWARD policy that is kept is warned of, as in every spec.
fn init(host: &Host) -> Said {
    let said = nvactl(host, &["init"], "");
    assert_eq!(said.code, 0, "{said:?}");
    for spec in [said.stdout.clone(), with_examples(&said.stdout)] {
        let checked = nvactl(host, &["check", "-"], &spec);
        assert_eq!(checked.code, 0, "{spec}");
        let warned: Vec<&str> = checked.stderr.matches("warning[").collect();
        let kept = checked.stderr.matches("warning[policy-kept]");
        assert_eq!(warned.len(), kept.count(), "{checked:?}");
        assert_eq!(
            warned.len(),
            spec.matches("forward_policy: keep\n").count(),
            "{spec}"
        );
    }
    said
}

/// Returns a spec without the `#` of its examples.
fn with_examples(spec: &str) -> String {
    assert!(spec.contains("\n#  - name: "), "{spec}");
    let lines = spec.lines().map(|line| {
        let is_spec = line.starts_with("#  ") || line == "#forwards:";
        let line = if is_spec { &line[1..] } else { line };
        format!("{line}\n")
    });
    lines.collect()
}

/// Fails unless the spec has these lines.
fn has(spec: &str, lines: &[&str]) {
    for line in lines {
        let found = spec
            .lines()
            .any(|one| one.trim_start_matches('#').trim() == *line);
        assert!(found, "{line}: {spec}");
    }
}

lab_test!(either a_first_spec_is_that_of_its_machine);
fn a_first_spec_is_that_of_its_machine(backend: Backend) {
    let host = firewall(backend);
    let before = save(&host);
    let said = init(&host);
    assert_eq!(said.stderr, "");
    has(
        &said.stdout,
        &[
            "interface: eth0",
            "snat: 10.3.0.4",
            "listen: 8080",
            "listen: 10.3.0.4:8443",
        ],
    );
    assert!(!said.stdout.contains("Azure"), "{said:?}");
    assert_eq!(save(&host), before, "no rule is changed");
    // iptables loads the examples.
    apply(&host, &with_examples(&said.stdout));

    host.shell(
        "mount -t tmpfs tmpfs /sys/class; mkdir -p /sys/class/dmi/id
         echo 7783-7084-3265-9085-8269-3286-77 > /sys/class/dmi/id/chassis_asset_tag",
    );
    let said = init(&host);
    assert!(
        said.stdout
            .contains("# This is a virtual machine of Azure: "),
        "{said:?}"
    );
}

lab_test!(either a_first_spec_of_two_nics_has_both);
fn a_first_spec_of_two_nics_has_both(backend: Backend) {
    let lab = Lab::dual_stack_two_nics(backend);
    let said = init(&lab.firewall);
    has(
        &said.stdout,
        &[
            "ingress: eth0",
            "egress: eth1",
            "v4: 10.4.0.4",
            "v6: fd00:4::4",
            "listen: 10.3.0.4:8443",
        ],
    );
    lab.firewall.run("ip link set eth1 down");
    let said = init(&lab.firewall);
    has(
        &said.stdout,
        &["interface: eth0", "v4: 10.3.0.4", "v6: fd00:3::4"],
    );
}

lab_test!(either a_first_spec_says_what_it_assumes);
fn a_first_spec_says_what_it_assumes(backend: Backend) {
    let host = host_with(backend);
    let said = init(&host);
    has(&said.stdout, &["interface: eth0", "snat: masquerade"]);
    assert!(
        said.stdout
            .contains("# No interface with an address was found"),
        "{said:?}"
    );

    // IPv6 alone, and no default route.
    host.ip(
        "-6",
        "link add ens5 type veth peer name ens5-peer
         address add fd00:3::4/64 dev ens5
         link set ens5 up
         link set ens5-peer up",
    );
    let said = init(&host);
    has(
        &said.stdout,
        &[
            "interface: ens5",
            "snat: fd00:3::4",
            "listen: '[fd00:3::4]:8443'",
        ],
    );
    assert!(
        said.stdout.contains("# This machine has no default route."),
        "{said:?}"
    );
    host.run("ip -6 route add default via fd00:3::1");
    let said = init(&host);
    has(
        &said.stdout,
        &["Clients come in by ens5, which has the default route."],
    );
    apply(&host, &with_examples(&said.stdout));
}

lab_test!(either no_port_that_is_taken_is_proposed);
fn no_port_that_is_taken_is_proposed(backend: Backend) {
    let host = firewall(backend);
    serve_tcp(&host, "own", 8080);
    host.run("iptables -t nat -A PREROUTING -p tcp -m multiport --dports 8440:8450 -j DNAT --to-destination 10.224.0.9");
    let said = init(&host);
    has(&said.stdout, &["listen: 8000", "listen: 10.3.0.4:9000"]);
    let taken =
        "# Ports of this machine's own programs, which a forward on them would take: tcp/8080\n";
    assert!(said.stdout.contains(taken), "{said:?}");
}

lab_test!(either rules_that_forward_already_are_named);
fn rules_that_forward_already_are_named(backend: Backend) {
    const ALREADY: &str = "rules of this machine forward already: ";
    const IMPORT: &str = "To write a spec from them: sudo nvactl import live -o imported.yaml\n";
    // Other programs write theirs themselves.
    for (name, rules) in FOREIGN {
        let host = firewall(backend);
        load(&host, rules);
        let said = init(&host);
        assert!(!said.stderr.contains(ALREADY), "{name}: {said:?}");
        // Docker publishes 8088 without a program that listens.
        assert!(!said.stdout.contains("8088"), "{name}: {said:?}");
    }
    let host = firewall(backend);
    host.shell(
        "iptables -t nat -A PREROUTING -i eth0 -p tcp --dport 8080 -j DNAT --to-destination 10.224.0.222:49180
         iptables -A FORWARD -p tcp --dport 49180 -m conntrack --ctstate NEW -j ACCEPT
         iptables -t nat -A POSTROUTING -o eth0 -p tcp --dport 49180 -d 10.224.0.222 -j SNAT --to-source 10.3.0.4",
    );
    let said = init(&host);
    let words = "Applying this spec leaves them alone, since it keeps the FORWARD policy.";
    assert_eq!(
        said.stderr,
        format!("note: {ALREADY}1 forward. {words} {IMPORT}")
    );
    assert!(
        said.stdout
            .contains(&format!("# Note: {ALREADY}1 forward. {words} {IMPORT}")),
        "{said:?}"
    );
    has(&said.stdout, &["forward_policy: keep"]);
    has(&said.stdout, &["listen: 8443"]);
    // The command works.
    let imported = nvactl(&host, &["import", "live", "--no-proof"], "");
    assert!(imported.stdout.contains("listen: 8080"), "{imported:?}");

    // nvactl's own.
    let host = firewall(backend);
    apply(&host, SPEC);
    let said = init(&host);
    let words = "Applying this spec removes those that are nvactl's.";
    assert_eq!(
        said.stderr,
        format!("note: {ALREADY}3 forwards. {words} {IMPORT}")
    );
    assert!(!said.stdout.contains("forward_policy"), "{said:?}");
}

lab_test!(either outbound_rules_are_those_that_an_import_finds);
/// The rules name no sources: the machine's routes tell which are behind the interface.
fn outbound_rules_are_those_that_an_import_finds(backend: Backend) {
    let lab = Lab::two_nics(backend);
    lab.firewall.shell(
        "iptables -P FORWARD DROP
         iptables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
         iptables -A FORWARD -i eth1 -o eth0 -j ACCEPT
         iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE",
    );
    let said = init(&lab.firewall);
    let imported = nvactl(&lab.firewall, &["import", "live", "--no-proof"], "");
    assert!(
        imported.stderr.ends_with("; 1 outbound entry\n"),
        "{imported:?}"
    );
    let note = "note: rules of this machine forward already: 1 outbound entry. ";
    assert!(said.stderr.starts_with(note), "{said:?}");
}

lab_test!(either a_first_spec_cuts_no_forward_that_is_there);
fn a_first_spec_cuts_no_forward_that_is_there(backend: Backend) {
    let lab = Lab::two_nics(backend);
    serve_tcp(&lab.pod, "pod", 80);
    lab.firewall.shell(
        "sysctl -qw net.ipv4.ip_forward=1
         iptables -t nat -A PREROUTING -i eth0 -p tcp --dport 8088 -j DNAT --to-destination 10.224.0.118:80
         iptables -t nat -A POSTROUTING -o eth1 -j MASQUERADE",
    );
    let reached = answer("pod", "10.4.0.4");
    assert_eq!(lab.tcp(FIREWALL, 8088), reached);
    for spec in [
        init(&lab.firewall).stdout,
        with_examples(&init(&lab.firewall).stdout),
    ] {
        lab.apply(&spec);
        assert_eq!(lab.tcp(FIREWALL, 8088), reached, "{spec}");
        assert_eq!(lab.nvactl(&["remove"]).code, 0);
        assert_eq!(lab.tcp(FIREWALL, 8088), reached, "{spec}");
    }
}

lab_test!(either a_first_spec_replaces_no_file);
fn a_first_spec_replaces_no_file(backend: Backend) {
    let host = firewall(backend);
    let run = || nvactl(&host, &["init", "-o", "/etc/forward.yaml"], "");
    let said = run();
    assert_eq!((said.code, said.stdout.as_str()), (0, ""), "{said:?}");
    let words = "note: /etc/forward.yaml has no forward yet; when it has one: nvactl check /etc/forward.yaml\n";
    assert_eq!(said.stderr, words);
    let written = host.run("cat /etc/forward.yaml");
    let said = run();
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stderr
            .starts_with("error: `/etc/forward.yaml` exists already"),
        "{said:?}"
    );
    assert_eq!(host.run("cat /etc/forward.yaml"), written);
    // `apply` refuses a spec that others may write.
    assert_eq!(host.run("stat -c %a /etc/forward.yaml").trim(), "644");
}

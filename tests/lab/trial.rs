//! The trial of an apply: its effect on packets, found before it is loaded.

use std::net::TcpStream;

use crate::fake::fake;
use crate::faults::many;
use crate::lab::{Backend, CLIENT, FIREWALL, Lab, OTHER, Said, save};
use crate::traffic::{Outcome, answer, serve_tcp};

const SPEC: &str = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
  - {name: shell, listen: 49183, target: {pod: 10.224.0.118:23}}
";

fn apply(lab: &Lab, spec: &str, more: &[&str]) -> Said {
    lab.nvactl_with(&[&["apply", "-"], more].concat(), spec)
}

/// A lab in which `web` works.
fn working(backend: Backend) -> Lab {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 80);
    serve_tcp(&lab.other, "other", 80);
    lab.apply(SPEC);
    assert_eq!(lab.tcp(FIREWALL, 49182), answer("pod", FIREWALL));
    lab
}

lab_test!(a_change_that_would_break_a_working_forward_is_refused);
/// A target that another's rule refuses is named before clients miss it.
fn a_change_that_would_break_a_working_forward_is_refused(backend: Backend) {
    let lab = working(backend);
    lab.firewall
        .run(&format!("iptables -t mangle -A FORWARD -d {OTHER} -j DROP"));
    let moved = SPEC.replace("10.224.0.118:80", &format!("{OTHER}:80"));
    let before = save(&lab.firewall);
    for more in [&["--dry-run"][..], &[], &["--confirm", "60"]] {
        let said = apply(&lab, &moved, more);
        assert_eq!(said.code, 2, "{more:?}: {said:?}");
        for words in [
            "would cut off connections that work now",
            "`web`: ",
            "10.3.0.4:49182",
            &format!("-A FORWARD -d {OTHER}/32 -j DROP"),
            "fix, if the rule should not apply to these packets (tried: works): sudo iptables",
            "--no-trial",
        ] {
            assert!(said.stderr.contains(words), "{words}: {said:?}");
        }
        assert!(!said.stderr.contains("`shell`"), "{said:?}");
    }
    assert_eq!(save(&lab.firewall), before);
    assert_eq!(lab.tcp(FIREWALL, 49182), answer("pod", FIREWALL));
    assert_eq!(lab.nvactl(&["confirm"]).code, 2, "nothing is waiting");

    // It was right.
    let said = apply(&lab, &moved, &["--no-trial"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(lab.tcp(FIREWALL, 49182), Outcome::Silence);
    // A forward that was dead before is a warning, which names the rule, and stops nothing.
    let renamed = moved.replace("shell", "console");
    let said = apply(&lab, &renamed, &[]);
    assert_eq!(said.code, 0, "{said:?}");
    let words = "connections of `web` fail with and without this change";
    assert!(said.stderr.contains(words), "{said:?}");
    assert!(
        said.stderr.contains(&format!("-d {OTHER}/32 -j DROP")),
        "{said:?}"
    );
}

lab_test!(a_foreign_snat_address_is_named_as_the_probable_cause);
fn a_foreign_snat_address_is_named_as_the_probable_cause(backend: Backend) {
    let lab = working(backend);
    let said = apply(&lab, &SPEC.replace("10.3.0.4", "10.3.0.9"), &[]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stderr
            .contains(": probably because 10.3.0.9 is no address of this machine (tried in a copy of this machine, as "),
        "{said:?}"
    );
}

lab_test!(an_nft_rule_that_obstructs_is_named_before_a_change);
/// nft's own chains take packets, too.
fn an_nft_rule_that_obstructs_is_named_before_a_change(backend: Backend) {
    let lab = working(backend);
    lab.firewall.shell(&format!(
        "nft add table inet guard
         nft 'add chain inet guard f {{ type filter hook forward priority 10; }}'
         nft add rule inet guard f ip daddr {OTHER} drop"
    ));
    let moved = SPEC.replace("10.224.0.118:80", &format!("{OTHER}:80"));
    let said = apply(&lab, &moved, &[]);
    assert_eq!(said.code, 2, "{said:?}");
    for words in ["inet guard f", &format!("ip daddr {OTHER} drop")] {
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
}

lab_test!(a_target_that_another_program_forwards_to_counts_as_working);
/// Clients have reached a target by a rule of whichever program.
fn a_target_that_another_program_forwards_to_counts_as_working(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.other, "other", 8080);
    assert_eq!(lab.nvactl(&["sysctl", "enable"]).code, 0);
    let rules = format!(
        "table ip own {{
            chain towards {{ type nat hook prerouting priority -90;
                iifname eth0 tcp dport 49182 dnat to {OTHER}:8080; }}
            chain back {{ type nat hook postrouting priority 110; masquerade; }}
            chain late {{ type filter hook forward priority 10; ip daddr 10.224.0.118 drop; }}
        }}"
    );
    let loaded = Said::from(lab.firewall.feed("nft", &["-f", "-"], &rules));
    assert_eq!(loaded.code, 0, "{loaded:?}");
    assert_eq!(lab.tcp(FIREWALL, 49182), answer("other", FIREWALL));
    let before = save(&lab.firewall);
    let said = apply(&lab, SPEC, &[]);
    assert_eq!(said.code, 2, "{said:?}");
    for words in [
        "`web`: ",
        "ip own late",
        "fix, if the chain should accept all redirected traffic, of any program, until the next boot (tried: works): sudo nft insert rule ip own late ",
    ] {
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
    assert_eq!(save(&lab.firewall), before);
}

/// Returns a lab whose forward has two targets, and the spec. A rule of others drops the packets to one.
fn with_a_dead_target(backend: Backend) -> (Lab, String) {
    let lab = Lab::one_nic(backend);
    let both = SPEC.replace(
        "10.224.0.118:80}",
        &format!("[\"10.224.0.118:80\", \"{OTHER}:80\"]}}"),
    );
    lab.apply(&both);
    lab.firewall
        .run(&format!("iptables -t mangle -A FORWARD -d {OTHER} -j DROP"));
    (lab, both)
}

lab_test!(either one_dead_target_of_several_does_not_refuse_a_change);
/// Half of its clients miss a target before the change and after it, so the change takes nothing.
fn one_dead_target_of_several_does_not_refuse_a_change(backend: Backend) {
    let (lab, both) = with_a_dead_target(backend);
    let more = both.replace("name: shell", "name: console");
    for _ in 0..4 {
        let said = apply(&lab, &more, &["--dry-run"]);
        assert_eq!(said.code, 1, "{said:?}");
        let words = "connections of `web` fail with and without this change";
        assert!(said.stderr.contains(words), "{said:?}");
    }
}

lab_test!(replies_that_leave_by_another_interface_are_a_warning);
/// The network may take them.
fn replies_that_leave_by_another_interface_are_a_warning(backend: Backend) {
    let lab = Lab::two_nics(backend);
    let spec = SPEC
        .replace("eth0", "{ingress: eth0, egress: eth1}")
        .replace("10.3.0.4", "10.4.0.4");
    lab.apply(&spec);
    lab.firewall.shell(&format!(
        "ip rule add from {OTHER} lookup 100; ip route add default via 10.4.0.1 table 100"
    ));
    let moved = spec.replace("10.224.0.118:80", &format!("{OTHER}:80"));
    let said = apply(&lab, &moved, &[]);
    assert_eq!(said.code, 0, "{said:?}");
    for words in [
        "replies of `web` leave by eth1, but their clients come in by eth0",
        "hint: to look: ip route get ",
    ] {
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
}

lab_test!(either a_removed_moved_or_narrowed_forward_does_not_refuse_a_change);
/// A connection that the spec itself refuses is meant.
fn a_removed_moved_or_narrowed_forward_does_not_refuse_a_change(backend: Backend) {
    let lab = working(backend);
    for spec in [
        SPEC.replace(":80}}", ":80}, allow_from: [203.0.113.0/24]}"),
        SPEC.replace("49182", "49184"),
        SPEC.replace(":80}}", ":80}, enabled: false}"),
    ] {
        let said = apply(&lab, &spec, &[]);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.stdout.contains("web"), "{said:?}");
        assert_ne!(lab.tcp(FIREWALL, 49182), answer("pod", FIREWALL));
        lab.apply(SPEC);
        assert_eq!(lab.tcp(FIREWALL, 49182), answer("pod", FIREWALL));
    }
}

lab_test!(either no_trial_refuses_a_rollback);
/// Whoever goes back is not asked whether the old state was good.
fn no_trial_refuses_a_rollback(backend: Backend) {
    let lab = working(backend);
    let moved = SPEC.replace("10.224.0.118:80", &format!("{OTHER}:80"));
    assert_eq!(apply(&lab, &moved, &[]).code, 0);
    assert_eq!(lab.tcp(FIREWALL, 49182), answer("other", FIREWALL));
    lab.firewall
        .run("iptables -t mangle -A FORWARD -d 10.224.0.118 -j DROP");
    let said = lab.nvactl(&["rollback"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(lab.tcp(FIREWALL, 49182), Outcome::Silence);
    assert_eq!(apply(&lab, &moved, &["--confirm", "60"]).code, 0);
    let said = lab.nvactl(&["confirm", "--cancel"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(lab.tcp(FIREWALL, 49182), Outcome::Silence);
    assert_eq!(lab.nvactl(&["remove"]).code, 0);
}

lab_test!(either the_trial_opens_the_same_connections_before_and_after);
/// Connections of no forward: cut by the policy, or let through by it.
fn the_trial_opens_the_same_connections_before_and_after(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.other, "other", 8080);
    lab.route_through_firewall(OTHER);
    assert_eq!(lab.nvactl(&["sysctl", "enable"]).code, 0);
    lab.firewall
        .run("iptables -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT");
    let held = lab
        .client
        .enter(|| TcpStream::connect((OTHER, 8080)).expect("there is a way"));
    let flow = format!("tcp {CLIENT} → {OTHER}:8080");
    let said = apply(&lab, SPEC, &["--dry-run"]);
    for words in [
        "1 connection that is forwarded now would be refused if it were opened again",
        &flow,
        "forward_policy: keep",
    ] {
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
    let kept = SPEC.replace("snat:", "forward_policy: keep, snat:");
    let said = apply(&lab, &kept, &["--dry-run"]);
    assert!(!said.stderr.contains(&flow), "{said:?}");

    // nvactl accepts what belongs to a connection, and so the replies that this rule drops.
    lab.firewall
        .run(&format!("iptables -I FORWARD -s {OTHER} -j DROP"));
    let said = apply(&lab, &kept, &["--dry-run"]);
    for words in [
        "1 connection outside the forwards and outbound entries that could not be opened until now",
        &flow,
    ] {
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
    lab.firewall
        .run(&format!("iptables -t mangle -I FORWARD -d {OTHER} -j DROP"));
    let said = apply(&lab, &kept, &["--dry-run"]);
    for words in [
        "could not be opened again, with or without this change",
        &flow,
    ] {
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
    drop(held);
}

lab_test!(the_rules_are_tried_alone_without_a_twin);
/// The change is made all the same, and its rules are tried alone.
fn the_rules_are_tried_alone_without_a_twin(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 80);
    hide_ip(&lab);
    let said = lab.nvactl_with(&["-v", "apply", "-"], SPEC);
    assert_eq!(said.code, 0, "{said:?}");
    let words =
        "warning: connections were not tried, because no copy of this machine could be made: ";
    for words in [words, r#"program="unshare" args=["--net","#] {
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
    let said = apply(&lab, &SPEC.replace("shell", "console"), &["--no-trial"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!said.stderr.contains(words), "{said:?}");
}

/// nvactl needs `ip` for a copy of the machine.
fn hide_ip(lab: &Lab) {
    lab.firewall
        .shell("printf '#!/bin/sh\\nexit 127\\n' > /run/bin/ip; chmod +x /run/bin/ip");
}

lab_test!(one_rule_of_each_shape_is_tried_without_a_twin);
/// Thousands of forwards have some ten rules that the kernel could refuse.
fn one_rule_of_each_shape_is_tried_without_a_twin(backend: Backend) {
    let lab = Lab::one_nic(backend);
    hide_ip(&lab);
    // The rules of each load, and one kind that the kernel refuses while a file says so: DNAT in POSTROUTING.
    fake(
        &lab.firewall,
        "iptables-restore",
        "[ ! -e /run/refuse ] || broken='s/-j SNAT --to-source/-j DNAT --to-destination/'
         sed \"$broken\" > /run/text.$$
         grep -c '^-[AI]' /run/text.$$ >> /run/rules
         real \"$@\" < /run/text.$$",
    );
    let rules = || -> Vec<u32> {
        let counts = lab.firewall.run("cat /run/rules");
        lab.firewall.run("rm /run/rules");
        counts
            .lines()
            .map(|n| n.parse().expect("a number"))
            .collect()
    };
    let said = apply(&lab, &many(400), &[]);
    assert_eq!(said.code, 0, "{said:?}");
    let [tried, loaded] = rules()[..] else {
        panic!("a trial and a load: {said:?}");
    };
    assert!(loaded >= 1_200 && tried * 4 < loaded, "{tried} of {loaded}");

    // Most rules stay where they are, and their number counts.
    let moved = many(400).replace("listen: 10200", "listen: 20200");
    let moved = moved.replace("10.225.0.7:80", "10.225.0.7:81");
    let before = save(&lab.firewall);
    lab.firewall.run("touch /run/refuse");
    let said = apply(&lab, &moved, &[]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("the kernel refuses"), "{said:?}");
    assert_eq!(save(&lab.firewall), before);
    lab.firewall.run("rm /run/refuse /run/rules");
    let said = apply(&lab, &moved, &[]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(rules().len(), 2);
}

lab_test!(either a_change_to_the_dead_one_of_two_targets_is_not_made);
/// Half of the clients reach a target before the change, and none reaches one after it.
fn a_change_to_the_dead_one_of_two_targets_is_not_made(backend: Backend) {
    let (lab, _) = with_a_dead_target(backend);
    let dead = SPEC.replace("10.224.0.118:80", &format!("{OTHER}:80"));
    for _ in 0..4 {
        let said = apply(&lab, &dead, &["--dry-run"]);
        assert_eq!(said.code, 2, "{said:?}");
        assert!(
            said.stderr
                .contains("would cut off connections that work now"),
            "{said:?}"
        );
    }
}

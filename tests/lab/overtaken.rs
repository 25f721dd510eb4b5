//! Bans and blocks of others in FORWARD, before which an apply puts nvactl's jump.

use crate::lab::{Backend, CLIENT, FIREWALL, FIREWALL_V6, Lab, Said};
use crate::traffic::{Outcome, answer, serve_tcp};

const SPEC: &str = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
  - {name: shell, listen: 49183, target: {pod: 10.224.0.118:23}}
";

/// As fail2ban makes it, after nvactl: its jump goes first in FORWARD.
const FAIL2BAN: &str = "
    iptables -N f2b-web
    iptables -A f2b-web -s 198.51.100.10 -j REJECT
    iptables -A f2b-web -j RETURN
    iptables -I FORWARD -p tcp -m multiport --dports 80,443 -j f2b-web";

const WORDS: &str = "nvactl's jump will come before";
const DONE: &str = "nvactl's jump is now before 1 rule that used to refuse packets of forwards; these packets are accepted now:";

fn apply(lab: &Lab, spec: &str, more: &[&str]) -> Said {
    lab.nvactl_with(&[&["apply", "-"], more].concat(), spec)
}

lab_test!(a_ban_behind_the_jump_is_named);
/// A banned client gets in behind the jump, so it is told before and while that happens, and once.
fn a_ban_behind_the_jump_is_named(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 80);
    lab.apply(SPEC);
    lab.firewall.shell(FAIL2BAN);
    // What refuses no first packet of a forward is not worth a word.
    lab.firewall.shell(
        "iptables -I FORWARD -o docker0 -j DROP
         iptables -I FORWARD -p tcp ! --syn -m conntrack --ctstate NEW -j DROP
         iptables -I FORWARD -p udp -j DROP",
    );
    assert_eq!(lab.tcp(FIREWALL, 49182), Outcome::Refused);

    let ban =
        "  -A f2b-web -s 198.51.100.10/32 -j REJECT --reject-with icmp-port-unreachable (`web`)";
    let edit = "deny_from: [198.51.100.10/32]";
    let said = apply(&lab, SPEC, &["--dry-run"]);
    assert_eq!(said.code, 1, "{said:?}");
    for words in ["1 rule that refuses", WORDS, ban, edit] {
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
    assert_eq!(
        lab.tcp(FIREWALL, 49182),
        Outcome::Refused,
        "a dry run changes nothing"
    );

    let said = apply(&lab, SPEC, &[]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!said.stderr.contains(WORDS), "{said:?}");
    for words in [DONE, ban, edit] {
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
    assert_eq!(
        lab.tcp(FIREWALL, 49182),
        answer("pod", FIREWALL),
        "so it was no idle word"
    );

    // It stands behind the jump already.
    let said = apply(&lab, SPEC, &[]);
    assert_eq!(
        (said.code, said.stderr.contains(DONE)),
        (0, false),
        "{said:?}"
    );

    // The edit that was given refuses the client again.
    let denied = SPEC.replace(":80}}", &format!(":80}}, {edit}}}"));
    let said = apply(&lab, &denied, &[]);
    assert_eq!(
        (said.code, said.stderr.contains(DONE)),
        (0, false),
        "{said:?}"
    );
    assert_eq!(lab.tcp(FIREWALL, 49182), Outcome::Silence);
}

lab_test!(a_ban_is_named_even_if_the_target_changes);
/// The rules that are loaded lead to another target than those to come.
fn a_ban_is_named_even_if_the_target_changes(backend: Backend) {
    let lab = Lab::one_nic(backend);
    lab.apply(SPEC);
    lab.firewall.shell(FAIL2BAN);
    let moved = SPEC.replace("10.224.0.118:80", "10.224.0.99:80");
    let said = apply(&lab, &moved, &["--dry-run"]);
    for words in [WORDS, "-A f2b-web -s 198.51.100.10/32 -j REJECT"] {
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
}

lab_test!(an_exemption_behind_the_jump_is_named);
/// A rule for translation keeps a client out as well.
fn an_exemption_behind_the_jump_is_named(backend: Backend) {
    let lab = Lab::one_nic(backend);
    lab.apply(SPEC);
    lab.firewall
        .run("iptables -t nat -I PREROUTING -s 198.51.100.0/24 -j ACCEPT");
    let said = apply(&lab, SPEC, &["--dry-run"]);
    for words in [WORDS, "-A PREROUTING -s 198.51.100.0/24 -j ACCEPT"] {
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
}

lab_test!(the_first_apply_names_an_ipset_and_a_blocked_network);
/// The first apply of all, with a set of clients and a block of a port.
fn the_first_apply_names_an_ipset_and_a_blocked_network(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 80);
    lab.firewall.shell(&format!(
        "ipset create crowdsec-blacklists hash:ip
         ipset add crowdsec-blacklists {CLIENT}
         iptables -I FORWARD -p tcp --dport 23 -j DROP
         iptables -I FORWARD -m set --match-set crowdsec-blacklists src -j DROP"
    ));
    let said = apply(&lab, SPEC, &["--dry-run"]);
    assert_eq!(said.code, 1, "{said:?}");
    for words in [
        "2 rules that refuse",
        "-A FORWARD -m set --match-set crowdsec-blacklists src -j DROP (`web`, `shell`)",
        "-A FORWARD -p tcp -m tcp --dport 23 -j DROP (`shell`)",
        "deny_from: [",
    ] {
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
    lab.apply(SPEC);
    assert_eq!(lab.tcp(FIREWALL, 49182), answer("pod", FIREWALL));
}

lab_test!(a_ban_is_named_in_ipv6);
/// Each family has a FORWARD chain of its own.
fn a_ban_is_named_in_ipv6(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    serve_tcp(&lab.pod, "pod", 80);
    lab.firewall
        .run("ip6tables -I FORWARD -s 2001:db8:51::10 -j DROP");
    let spec = r#"
firewall: {interface: eth0, snat: {v4: 10.3.0.4, v6: "fd00:3::4"}}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
  - {name: web6, listen: 49182, target: {pod: "[fd00:224::118]:80"}}
"#;
    for (args, lead) in [
        (&["--dry-run"][..], "1 ip6tables rule that refuses"),
        (&[], "1 ip6tables rule that used to refuse"),
    ] {
        let said = apply(&lab, spec, args);
        for words in [
            lead,
            "-A FORWARD -s 2001:db8:51::10/128 -j DROP (`web6`)",
            "deny_from: [\"2001:db8:51::10/128\"]",
        ] {
            assert!(said.stderr.contains(words), "{words}: {said:?}");
        }
    }
    assert_eq!(lab.nvactl(&["sysctl", "enable", "--ipv6"]).code, 0);
    assert_eq!(lab.tcp(FIREWALL_V6, 49182), answer("pod", FIREWALL_V6));
}

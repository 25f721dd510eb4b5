//! `nvactl import live`: the spec does with packets what the rules did.

use crate::guards::{ask_from, second_client};
use crate::lab::{Backend, CLIENT, FIREWALL, Lab, Said, save};
use crate::traffic::{answer, serve_tcp};

/// Clients whose packets the rules return before the redirection.
const RETURNED: &str = "198.51.100.20";
/// A client that FORWARD lets through no chain.
const REFUSED: &str = "198.51.100.30";

/// The article's second scenario for some clients.
const FOR_SOME: &str = "
set -e
iptables -P FORWARD DROP
iptables -N WEB
iptables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
iptables -A FORWARD -d 10.224.0.118 -p tcp --dport 80 -j WEB
iptables -A WEB -s 198.51.100.30 -j RETURN
iptables -A WEB -j ACCEPT
iptables -t nat -A PREROUTING -i eth0 -s 198.51.100.20 -p tcp --dport 8080 -j RETURN
iptables -t nat -A PREROUTING -i eth0 -p tcp --dport 8080 -j DNAT --to-destination 10.224.0.118:80
iptables -t nat -A POSTROUTING -s 10.224.0.0/16 -d 10.224.0.0/16 -j RETURN
iptables -t nat -A POSTROUTING -o eth0 -d 10.224.0.118 -p tcp --dport 80 -j SNAT --to-source 10.3.0.4
";

/// A lab with a server of the firewall itself beside the pod, and three clients.
fn lab(backend: Backend) -> Lab {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 80);
    serve_tcp(&lab.firewall, "firewall", 8080);
    for address in [RETURNED, REFUSED] {
        second_client(&lab, address);
    }
    lab.firewall.run("sysctl -qw net.ipv4.ip_forward=1");
    lab
}

fn import(lab: &Lab) -> Said {
    lab.nvactl(&["import", "live", "--strict", "-o", "/run/spec.yaml"])
}

lab_test!(either rules_that_return_packets_leave_their_clients_out);
fn rules_that_return_packets_leave_their_clients_out(backend: Backend) {
    let lab = lab(backend);
    let host = &lab.firewall;
    host.shell(FOR_SOME);
    let from = [CLIENT, RETURNED, REFUSED];
    let ask = || from.map(|from| ask_from(&lab, from, 8080));
    assert_eq!(ask(), ["pod 10.3.0.4", "firewall 198.51.100.20", "none"]);
    let said = import(&lab);
    assert_eq!(said.code, 0, "{said:?}");
    let remark = "clients that the rule leaves out reach the machine's own port";
    assert!(said.stdout.contains(remark), "{said:?}");
    // The copy has the plan in place of the rules: nobody reaches the pod past the forward.
    let direct = "\ntcp-8080: 10.224.0.118:80 asked directly: ";
    let (_, row) = said.stdout.split_once(direct).expect("it differs");
    let rows: Vec<&str> = row.lines().skip(1).take(3).map(str::trim).collect();
    assert_eq!(
        rows,
        [
            "before: reaches 10.224.0.118:80 with the source 10.3.0.4",
            "after:  reaches nothing",
            "reason: accepts-more"
        ],
        "{said:?}"
    );
    assert!(!said.stdout.contains("not shown by the copies"), "{said:?}");
    for options in [&["--adopt"][..], &[]] {
        let apply = ["apply", "/run/spec.yaml", "--no-trial"];
        let said = lab.nvactl(&[&apply, options].concat());
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(ask(), ["pod 10.3.0.4", "none", "none"], "{options:?}");
        assert_eq!(lab.nvactl(&["rollback"]).code, 0);
        assert_eq!(ask(), ["pod 10.3.0.4", "firewall 198.51.100.20", "none"]);
    }
}

lab_test!(either a_machine_that_does_not_forward_yet_is_compared_as_if_it_did);
fn a_machine_that_does_not_forward_yet_is_compared_as_if_it_did(backend: Backend) {
    let lab = lab(backend);
    lab.firewall.shell(FOR_SOME);
    lab.firewall.run("sysctl -qw net.ipv4.ip_forward=0");
    let said = import(&lab);
    assert_eq!(said.code, 0, "{said:?}");
    let direct = "\ntcp-8080: 10.224.0.118:80 asked directly: ";
    assert!(said.stdout.contains(direct), "{said:?}");
}

lab_test!(either a_redirection_of_which_others_take_a_part_is_not_imported);
/// nvactl's rules come first: a forward would take the packets that the rule before it takes.
fn a_redirection_of_which_others_take_a_part_is_not_imported(backend: Backend) {
    for (before, place, words) in [
        (
            "iptables -t nat -I PREROUTING -p tcp --dport 8080 -m mark --mark 1 -j RETURN",
            "nat PREROUTING rule 1",
            "`-m mark`",
        ),
        (
            "iptables -t nat -I PREROUTING -p tcp -s 198.51.100.20 --dport 8080 -j REDIRECT --to-ports 8081",
            "nat PREROUTING rule 1",
            "",
        ),
        (
            "iptables -t nat -I POSTROUTING -m policy --dir out --pol ipsec -j ACCEPT",
            "nat POSTROUTING rule 1",
            "`-m policy`",
        ),
    ] {
        let lab = lab(backend);
        let host = &lab.firewall;
        host.shell(FOR_SOME);
        assert_eq!(lab.tcp(FIREWALL, 8080), answer("pod", FIREWALL));
        host.run(before);
        let said = import(&lab);
        assert_eq!(said.code, 0, "{said:?}");
        let mut lines = said.stdout.lines();
        let redirection = lines
            .find(|line| line.starts_with("cannot be said") && line.contains("nat PREROUTING"));
        let redirection = redirection.unwrap_or_else(|| panic!("{before}: {said:?}"));
        assert!(redirection.contains(words), "{redirection}");
        assert!(redirection.contains(place), "{redirection}");
        let spec = host.run("cat /run/spec.yaml");
        assert!(!spec.contains("listen:"), "{spec}");
    }
}

/// The article's commands, and the specs that they become.
const ARTICLE: [(&str, &str); 2] = [
    (
        "iptables -A FORWARD -p tcp --syn --dport 49181 -m conntrack --ctstate NEW -j ACCEPT
iptables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
iptables -P FORWARD DROP
iptables -t nat -A PREROUTING -i eth0 -p tcp --dport 49181 -j DNAT --to-destination 10.224.0.222
iptables -t nat -A POSTROUTING -o eth0 -p tcp --dport 49181 -d 10.224.0.222 -j SNAT --to-source 10.3.0.4
",
        include_str!("../imports/article-through-an-ilb/spec.yaml"),
    ),
    (
        include_str!("../imports/article-straight-to-a-pod/rules"),
        include_str!("../imports/article-straight-to-a-pod/spec.yaml"),
    ),
];

/// Returns a spec without the name of the rules of which it came.
fn nameless(spec: &str) -> String {
    let lines = spec.lines().map(|line| {
        let is_name = line.starts_with("# Imported by nvactl from the rules of ");
        format!("{}\n", if is_name { "" } else { line })
    });
    lines.collect()
}

/// Returns the table of the proof: the differences, and the line with their numbers.
fn proof_table(report: &str) -> String {
    let paragraphs: Vec<&str> = report.split("\n\n").collect();
    let is_part =
        |text: &&&str| text.contains("\n  before: ") || text.contains("through both copies");
    let parts: Vec<&str> = paragraphs.iter().filter(is_part).copied().collect();
    parts.join("\n")
}

lab_test!(either the_article_is_the_same_as_commands_as_text_and_live);
fn the_article_is_the_same_as_commands_as_text_and_live(backend: Backend) {
    for (commands, expected) in ARTICLE {
        let lab = Lab::one_nic(backend);
        let host = &lab.firewall;
        host.shell(&format!("set -e\n{commands}"));
        let text = save(host);
        let import = |from: &str, stdin: &str| {
            let said = lab.nvactl_with(&["import", from, "--strict"], stdin);
            assert_eq!(said.code, 0, "{from}: {said:?}");
            (nameless(&said.stdout), proof_table(&said.stderr))
        };
        let (spec, table) = import("-", commands);
        assert_eq!(spec, nameless(expected));
        assert!(table.contains("\n  before: reaches 10.224.0."), "{table}");
        assert!(table.contains("\n  reason: accepts-more"), "{table}");
        assert!(table.contains("\n  reason: takes-transit\n"), "{table}");
        assert_eq!(import("-", &text), (spec.clone(), table.clone()), "{text}");
        assert_eq!(import("live", ""), (spec, table), "live");
    }
}

lab_test!(either a_connection_that_cannot_be_opened_is_not_proven);
fn a_connection_that_cannot_be_opened_is_not_proven(backend: Backend) {
    let lab = lab(backend);
    let host = &lab.firewall;
    host.shell(FOR_SOME);
    assert_eq!(import(&lab).code, 0);
    host.run("rm /run/spec.yaml");
    // No route leads to the clients.
    host.run("ip route del default");
    let said = import(&lab);
    assert_eq!(said.code, 1, "{said:?}");
    let reason = "\n  reason: no interface leads to the client 198.51.100.7\n";
    assert!(said.stdout.contains(reason), "{said:?}");
    assert!(said.stdout.contains(" not opened\n"), "{said:?}");
}

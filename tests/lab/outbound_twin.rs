//! Outbound entries in the copy of the machine: `nvactl doctor` and the trial of `nvactl apply`, beside real packets.

use serde_json::Value;

use crate::lab::{
    Backend, CLIENT, CLIENT_V6, FIREWALL, FIREWALL_EGRESS, FIREWALL_EGRESS_V6, FIREWALL_V6, Lab,
    POD_V6, Said, save,
};
use crate::long;
use crate::outbound::{outside, tcp};
use crate::traffic::{Outcome, answer, body_by_tcp, serve_tcp, socket};
use crate::twin_faults::{Check, checks};

/// The interfaces of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nics {
    One,
    Two,
}

/// Makes a lab in which a pod's packets to a server outside cross the firewall.
pub fn lab(nics: Nics, backend: Backend) -> Lab {
    match nics {
        Nics::One => {
            let lab = Lab::dual_stack(backend);
            outside(&lab, FIREWALL, FIREWALL_V6);
            lab
        }
        Nics::Two => {
            let lab = Lab::dual_stack_two_nics(backend);
            outside(&lab, FIREWALL_EGRESS, FIREWALL_EGRESS_V6);
            lab
        }
    }
}

/// Returns a spec with an entry of both families.
pub fn spec(nics: Nics, options: &str) -> String {
    let interface = match nics {
        Nics::One => "eth0",
        Nics::Two => "{ingress: eth0, egress: eth1}",
    };
    format!(
        "firewall: {{interface: {interface}}}
outbound:
  - {{name: pods-out, allow_from: [10.224.0.0/16, 'fd00:224::/32']{options}}}
silence: [keeps-probes-out]"
    )
}

/// Returns the findings about the entry, or about the machine, that are no `ok`. Pings are never tried.
pub fn findings(lab: &Lab, spec: &str) -> Vec<Check> {
    let mut checks = checks(lab, spec);
    checks.retain(|check| check.status != "ok" && !check.reason.starts_with("pings are not tried"));
    checks
}

/// Returns how many checks say that connections were handled as the spec says.
fn tried(lab: &Lab, spec: &str) -> usize {
    let checks = checks(lab, spec).into_iter();
    let as_specified = checks.filter(|check| {
        check.code == "packets"
            && check.status == "ok"
            && check.forward.as_deref() == Some("pods-out")
            && check.reason.contains("as specified")
    });
    as_specified.count()
}

lab_test!(sampled either doctor_finds_nothing_wrong_with_an_entry_that_works);
fn doctor_finds_nothing_wrong_with_an_entry_that_works(backend: Backend) {
    let sources = [
        ("", FIREWALL, FIREWALL_V6),
        (
            ", snat: {v4: 10.3.0.5, v6: 'fd00:3::5'}",
            "10.3.0.5",
            "fd00:3::5",
        ),
        (", snat: none", "10.224.0.118", "fd00:224::118"),
    ];
    for nics in [Nics::One, Nics::Two] {
        let lab = lab(nics, backend);
        for (options, v4, v6) in long::cases(&sources, |_| nics == Nics::One) {
            let spec = spec(nics, options);
            lab.apply(&spec);
            assert_eq!(tcp(&lab.pod, CLIENT, 80), answer("server", v4));
            assert_eq!(tcp(&lab.pod, CLIENT_V6, 80), answer("server", v6));
            let mut found = findings(&lab, &spec);
            // The machine cannot know the routes of servers.
            found.retain(|one| !(one.code == "snat-address" && one.status == "unknown"));
            assert!(found.is_empty(), "{nics:?} {options}: {found:?}");
            assert_eq!(tried(&lab, &spec), 2, "{nics:?} {options}");
        }
        // Limits count the connections of the copy as well.
        for options in [
            ", limits: {new_per_second: 1, burst: 1}",
            ", protocol: udp, ports: [53, 5000-5010], limits: {max_connections: 2, per: client}",
            ", allow_to: [internet, 10.50.0.0/16, 'fd00:50::/64'], deny_from: [10.224.9.0/24], deny_to: [192.0.2.0/24]",
        ] {
            let spec = spec(nics, options);
            lab.apply(&spec);
            let found = findings(&lab, &spec);
            assert!(found.is_empty(), "{nics:?} {options}: {found:?}");
        }
    }
}

/// A fault on the firewall.
pub struct Fault<'f> {
    pub make: &'f str,
    pub undo: &'f str,
    /// The options of the entry.
    pub options: &'f str,
    /// The source that the server outside sees in IPv4 and in IPv6; `None` if no packet gets there.
    pub seen: [Option<&'f str>; 2],
    /// The status, the code and some words of the findings.
    pub says: &'f [(&'f str, &'f str, &'f str)],
}

impl<'f> Fault<'f> {
    /// Returns the status and the code of the first finding.
    fn kind(&self) -> (&'f str, &'f str) {
        (self.says[0].0, self.says[0].1)
    }
}

pub const ALIVE: [Option<&str>; 2] = [Some(FIREWALL), Some(FIREWALL_V6)];
pub const DEAD_V4: [Option<&str>; 2] = [None, Some(FIREWALL_V6)];
pub const DEAD_V6: [Option<&str>; 2] = [Some(FIREWALL), None];

const FAULTS: &[Fault<'_>] = &[
    Fault {
        make: "iptables -I FORWARD -s 10.224.0.0/16 -j DROP",
        undo: "iptables -D FORWARD -s 10.224.0.0/16 -j DROP",
        options: "",
        seen: DEAD_V4,
        says: &[(
            "fail",
            "foreign-rule",
            "`-A FORWARD -s 10.224.0.0/16 -j DROP` in filter drops the packets",
        )],
    },
    // The replies alone.
    Fault {
        make: "ip6tables -I FORWARD -d fd00:224::/32 -p tcp -j REJECT",
        undo: "ip6tables -D FORWARD -d fd00:224::/32 -p tcp -j REJECT",
        options: "",
        seen: DEAD_V6,
        says: &[("fail", "foreign-rule", "rejects the replies")],
    },
    // The server sends them with the addresses that the pod sees.
    Fault {
        make: "iptables -I FORWARD -d 10.224.0.0/16 -j DROP",
        undo: "iptables -D FORWARD -d 10.224.0.0/16 -j DROP",
        options: ", snat: none",
        seen: [None, Some(POD_V6)],
        says: &[(
            "fail",
            "foreign-rule",
            "`-A FORWARD -d 10.224.0.0/16 -j DROP` in filter drops the replies",
        )],
    },
    Fault {
        make: "nft 'table ip q { chain c { type filter hook forward priority 10; ip saddr 10.224.0.0/16 drop; }; }'",
        undo: "nft delete table ip q",
        options: "",
        seen: DEAD_V4,
        says: &[("fail", "native-nft", "drop")],
    },
    // Replies would leave by eth0, so the strict filter drops the packets.
    Fault {
        make: "ip route del 10.224.0.0/16
               echo 1 > /proc/sys/net/ipv4/conf/eth1/rp_filter",
        undo: "ip route add 10.224.0.0/16 via 10.4.0.1
               echo 0 > /proc/sys/net/ipv4/conf/eth1/rp_filter",
        options: "",
        seen: DEAD_V4,
        says: &[("fail", "rp-filter", "")],
    },
    // It works here if the filter is off, but not in a network that checks sources.
    Fault {
        make: "ip route del 10.224.0.0/16
               echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter
               echo 0 > /proc/sys/net/ipv4/conf/eth1/rp_filter",
        undo: "ip route add 10.224.0.0/16 via 10.4.0.1",
        options: "",
        seen: ALIVE,
        says: &[(
            "fail",
            "route",
            "replies to sources in 10.224.0.0/16, which arrive on eth1, leave through eth0",
        )],
    },
    Fault {
        make: "ip route del default",
        undo: "ip route add default via 10.3.0.1",
        options: "",
        seen: DEAD_V4,
        says: &[("fail", "route", "no route to the Internet")],
    },
    Fault {
        make: "ip route add 10.50.0.0/16 via 10.4.0.1",
        undo: "ip route del 10.50.0.0/16",
        options: ", allow_to: [internet, 10.50.0.0/16]",
        seen: ALIVE,
        says: &[(
            "fail",
            "route",
            "packets to 10.50.0.7:443 leave through eth1, while the spec's egress is eth0: ",
        )],
    },
    // The address of the other interface.
    Fault {
        make: "iptables -t nat -I POSTROUTING -s 10.224.0.0/16 -j SNAT --to-source 10.4.0.4",
        undo: "iptables -t nat -D POSTROUTING -s 10.224.0.0/16 -j SNAT --to-source 10.4.0.4",
        options: "",
        seen: [Some(FIREWALL_EGRESS), Some(FIREWALL_V6)],
        says: &[(
            "fail",
            "foreign-rule",
            "the server sees the source 10.4.0.4, while the spec says masquerade: ",
        )],
    },
    Fault {
        make: "iptables -t nat -I POSTROUTING -s 10.224.0.0/16 -j MASQUERADE",
        undo: "iptables -t nat -D POSTROUTING -s 10.224.0.0/16 -j MASQUERADE",
        options: ", snat: {v4: 10.3.0.5, v6: 'fd00:3::4'}",
        seen: ALIVE,
        says: &[(
            "fail",
            "foreign-rule",
            "the server sees the source 10.3.0.4, while the spec says 10.3.0.5: ",
        )],
    },
    // A rule before nvactl's jump opens the metadata service.
    Fault {
        make: "iptables -I FORWARD -d 169.254.0.0/16 -j ACCEPT",
        undo: "iptables -D FORWARD -d 169.254.0.0/16 -j ACCEPT",
        options: "",
        seen: ALIVE,
        says: &[(
            "fail",
            "foreign-rule",
            "reach 169.254.169.254, although `allow_to` does not name it: ",
        )],
    },
    // Another program may forward other sources, and to other destinations.
    Fault {
        make: "iptables -I FORWARD -d 10.3.0.0/24 -j ACCEPT
               iptables -I FORWARD -s 10.4.0.0/24 -j ACCEPT",
        undo: "iptables -D FORWARD -d 10.3.0.0/24 -j ACCEPT
               iptables -D FORWARD -s 10.4.0.0/24 -j ACCEPT",
        options: "",
        seen: ALIVE,
        says: &[
            (
                "warn",
                "foreign-rule",
                "although `allow_from` does not list them",
            ),
            (
                "warn",
                "foreign-rule",
                "although `allow_to` does not name it",
            ),
        ],
    },
    Fault {
        make: "iptables -I FORWARD -s 10.224.9.0/24 -j ACCEPT",
        undo: "iptables -D FORWARD -s 10.224.9.0/24 -j ACCEPT",
        options: ", deny_from: [10.224.9.0/24]",
        seen: ALIVE,
        says: &[(
            "fail",
            "foreign-rule",
            "clients of 10.224.9.0/24 reach 81.2.69.142, although `deny_from` lists them",
        )],
    },
    // A ban of some sources.
    Fault {
        make: "iptables -I FORWARD -s 10.224.9.0/24 -j DROP",
        undo: "iptables -D FORWARD -s 10.224.9.0/24 -j DROP",
        options: "",
        seen: ALIVE,
        says: &[(
            "warn",
            "foreign-rule",
            "drops the packets; affected: clients of 10.224.9.0/24",
        )],
    },
    // A consequence of rules that are not loaded is reported once.
    Fault {
        make: "iptables -t nat -F NVACTL-POSTROUTING",
        undo: "true",
        options: "",
        seen: [Some("10.224.0.118"), Some(FIREWALL_V6)],
        says: &[("fail", "snat-rule", "SNAT rules")],
    },
    // Last, since IPv6 loses its addresses.
    Fault {
        make: "ip link set eth0 down",
        undo: "true",
        options: "",
        seen: [None, None],
        says: &[("fail", "interface", "eth0 is down")],
    },
];

lab_test!(sampled doctor_names_each_fault_of_an_entry);
fn doctor_names_each_fault_of_an_entry(backend: Backend) {
    let lab = lab(Nics::Two, backend);
    let mut wrong = Vec::new();
    let turns = long::cases(FAULTS, Fault::kind).into_iter().enumerate();
    for (_, fault) in turns.filter(|(n, _)| long::is_turn(*n, backend)) {
        wrong.extend(missed(&lab, fault));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Makes a fault, asks the doctor, and undoes the fault. Returns the findings if they are not those of the fault.
pub fn missed(lab: &Lab, fault: &Fault<'_>) -> Option<String> {
    let spec = spec(Nics::Two, fault.options);
    lab.apply(&spec);
    lab.firewall.shell(fault.make);
    crate::measure::forget(lab);
    let seen = [CLIENT, CLIENT_V6].map(|to| {
        let to = socket(to, 80);
        lab.pod.enter(move || body_by_tcp(&to)).ok()
    });
    let meant = fault
        .seen
        .map(|source| source.map(|one| format!("server {one}")));
    assert_eq!(seen, meant, "{}", fault.make);
    let mut found = findings(lab, &spec);
    // The machine cannot know the routes of servers.
    found.retain(|one| !(one.code == "snat-address" && one.status == "unknown"));
    let is_said = |(status, code, words): &(&str, &str, &str)| {
        let mut found = found.iter();
        found.any(|one| one.status == *status && one.code == *code && one.reason.contains(words))
    };
    let is_as_meant = found.len() == fault.says.len() && fault.says.iter().all(is_said);
    lab.firewall.shell(fault.undo);
    (!is_as_meant).then(|| format!("{}: {found:?}", fault.make))
}

fn apply(lab: &Lab, spec: &str, more: &[&str]) -> Said {
    lab.nvactl_with(&[&["apply", "-"], more].concat(), spec)
}

lab_test!(either doctor_and_diff_show_a_missing_line_of_a_list);
/// The rule keeps pods out of a private network. None of the connections that are tried goes there.
fn doctor_and_diff_show_a_missing_line_of_a_list(backend: Backend) {
    let lab = lab(Nics::Two, backend);
    let spec = spec(Nics::Two, ", protocol: tcp");
    lab.apply(&spec);
    lab.firewall.shell(
        "iptables -D $(iptables -S NVACTL-FORWARD | grep -o 'NVACTL-TO-[0-9a-f]*') -d 192.168.0.0/16 -j RETURN",
    );
    let checks = checks(&lab, &spec);
    let mut failed = checks.iter().filter(|check| check.status == "fail");
    let one = failed.next().expect("it is found");
    assert_eq!(
        (one.code.as_str(), one.forward.as_deref()),
        ("forward-rule", Some("pods-out"))
    );
    let line = "-d 192.168.0.0/16 -j RETURN";
    assert!(
        one.reason.ends_with(&format!(" {line}` is not loaded")),
        "{one:?}"
    );
    assert!(failed.next().is_none(), "{checks:?}");
    // The IPv6 rules are whole.
    let whole = checks
        .iter()
        .filter(|check| check.reason.contains("or removed one"));
    assert_eq!(whole.count(), 1, "{checks:?}");
    let said = lab.nvactl_with(&["diff", "-"], &spec);
    let told = said.stdout.lines().find(|line| line.starts_with('!'));
    let told = told.expect("it is shown");
    assert!(
        told.starts_with("! pods-out ") && told.ends_with(line),
        "{said:?}"
    );
    let said = lab.nvactl_with(&["apply", "-", "--no-trial"], &spec);
    assert!(said.stdout.starts_with("! pods-out "), "{said:?}");
}

lab_test!(a_change_that_would_cut_off_a_working_entry_is_refused);
fn a_change_that_would_cut_off_a_working_entry_is_refused(backend: Backend) {
    let lab = lab(Nics::Two, backend);
    let spec = spec(Nics::Two, "");
    lab.apply(&spec);
    let working = answer("server", FIREWALL);
    assert_eq!(tcp(&lab.pod, CLIENT, 80), working);
    let before = save(&lab.firewall);
    // Packets leave by eth0, so no rule of the entry matches them.
    let wrong = spec.replace("'fd00:224::/32']", "'fd00:224::/32'], interface: eth1");
    let said = apply(&lab, &wrong, &[]);
    assert_eq!(said.code, 2, "{said:?}");
    for words in [
        "would cut off connections that work now",
        "`pods-out`: connections to 81.2.69.142:443 reach a server with the rules loaded now, but not with the new rules: ",
        "the packets leave by eth0, while the spec's egress is eth1",
    ] {
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
    assert_eq!(save(&lab.firewall), before);
    assert_eq!(tcp(&lab.pod, CLIENT, 80), working);
    // It was right.
    let said = apply(&lab, &wrong, &["--no-trial"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(tcp(&lab.pod, CLIENT, 80), Outcome::Silence);
    // An entry that is dead with and without a change stops none.
    let said = apply(&lab, &wrong.replace("pods-out", "out"), &[]);
    assert_eq!(said.code, 0, "{said:?}");
}

lab_test!(either a_change_that_takes_connections_from_a_working_entry_is_refused);
/// The entry itself is as it was, or has its sides mixed up.
fn a_change_that_takes_connections_from_a_working_entry_is_refused(backend: Backend) {
    let lab = lab(Nics::Two, backend);
    let now = spec(Nics::Two, "");
    lab.apply(&now);
    let working = answer("server", FIREWALL);
    assert_eq!(tcp(&lab.pod, CLIENT, 80), working);
    let before = save(&lab.firewall);
    let first = |entry: &str| now.replace("outbound:\n", &format!("outbound:\n  - {{{entry}}}\n"));
    for (changed, why) in [
        (
            first("name: first, allow_from: [10.0.0.0/8], deny_from: [10.224.0.0/16]"),
            ", where `first` takes them: iptables-",
        ),
        (
            first("name: first, allow_from: [10.0.0.0/8], snat: none"),
            ", where `first` takes them: the server sees the source 10.224.0.7, and its answers do not come back",
        ),
        (
            now.replace("ingress: eth0, egress: eth1", "ingress: eth1, egress: eth0"),
            ": the packets leave by eth0, while the spec's egress is eth1",
        ),
    ] {
        let said = apply(&lab, &changed, &[]);
        assert_eq!(said.code, 2, "{changed}{said:?}");
        for words in [
            "would cut off connections that work now",
            "`pods-out`: connections to 81.2.69.142:443 reach a server with the rules loaded now, but not with the new rules",
            &format!("with the new rules{why}"),
        ] {
            assert!(said.stderr.contains(words), "{words}: {said:?}");
        }
        assert!(!said.stderr.contains("with and without"), "{said:?}");
        // Another default route may end the operator's session.
        let hint = |cause: &str| said.stderr.find(&format!("hint: if the {cause} is wrong"));
        assert!(hint("spec") <= hint("route"), "{said:?}");
        // The rules are not loaded, so no command can delete one.
        assert!(!said.stderr.contains(" -D NVACTL"), "{said:?}");
        if changed.contains("first") {
            let fix = "    fix: write `pods-out` before `first` in the spec, or narrow `first`";
            assert!(said.stderr.contains(fix), "{said:?}");
        }
        assert_eq!(save(&lab.firewall), before);
        assert_eq!(tcp(&lab.pod, CLIENT, 80), working);
    }
}

lab_test!(either a_change_of_an_entry_that_is_meant_is_not_refused);
fn a_change_of_an_entry_that_is_meant_is_not_refused(backend: Backend) {
    let lab = lab(Nics::Two, backend);
    // Another program lets the pods out until now.
    lab.firewall.run("iptables -A FORWARD -i eth1 -j ACCEPT");
    lab.firewall
        .run("iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE");
    for options in [
        "",
        ", snat: none",
        ", protocol: udp, ports: [53]",
        ", allow_to: [10.50.0.0/16, 'fd00:50::/64']",
        ", deny_to: [81.0.0.0/8]",
    ] {
        let said = apply(&lab, &spec(Nics::Two, options), &[]);
        assert_eq!(said.code, 0, "{options}: {said:?}");
        assert!(!said.stderr.contains("pods-out"), "{options}: {said:?}");
    }
    // Another order, and an entry in front that lets the same connections out.
    let entries = |entries: &str| {
        format!(
            "firewall: {{interface: {{ingress: eth0, egress: eth1}}}}
outbound: [{entries}]
silence: [keeps-probes-out, outbound-overlap]"
        )
    };
    let all = "{name: all, allow_from: [10.224.0.0/16]}";
    let few = "{name: few, allow_from: [10.224.0.0/24], deny_to: [81.0.0.0/8]}";
    let wide = "{name: wide, allow_from: [10.0.0.0/8]}";
    for order in [[all, few], [few, all], [wide, all]] {
        let said = apply(&lab, &entries(&order.join(", ")), &[]);
        assert_eq!(said.code, 0, "{order:?}: {said:?}");
    }
    let none = "firewall: {interface: {ingress: eth0, egress: eth1}}\noutbound: []";
    let said = apply(&lab, none, &[]);
    assert_eq!(said.code, 0, "{said:?}");
}

lab_test!(either rules_that_refuse_sources_until_nvactl_s_jump_precedes_them_are_named);
fn rules_that_refuse_sources_until_nvactl_s_jump_precedes_them_are_named(backend: Backend) {
    let lab = lab(Nics::One, backend);
    lab.firewall
        .run("iptables -A FORWARD -s 10.224.9.0/24 -j DROP");
    let said = apply(&lab, &spec(Nics::One, ""), &[]);
    assert_eq!(said.code, 0, "{said:?}");
    for words in [
        "nvactl's jump is now before 1 rule that used to refuse packets of outbound entries",
        "-A FORWARD -s 10.224.9.0/24 -j DROP (`pods-out`)",
        "for each of these forwards and outbound entries: deny_from: [10.224.9.0/24]",
    ] {
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
}

lab_test!(either doctor_reports_an_entry_in_words_and_in_json);
fn doctor_reports_an_entry_in_words_and_in_json(backend: Backend) {
    let lab = lab(Nics::One, backend);
    let both = spec(Nics::One, ", protocol: tcp, ports: [443]").replace(
        "eth0}\noutbound:",
        "eth0, snat: masquerade}\nforwards: [{name: web, listen: 8080, target: {pod: 10.224.0.118:80}}]\noutbound:",
    );
    serve_tcp(&lab.pod, "pod", 80);
    lab.apply(&both);
    let said = lab.nvactl_with(&["doctor", "-"], &both);
    let words = "ok      packets              2 forwards and outbound entries\n";
    assert!(said.stdout.contains(words), "{said:?}");
    let said = lab.nvactl_with(&["doctor", "-", "--no-twin"], &both);
    let last = said.stdout.lines().last().unwrap_or_default();
    let unknown = "it is not known whether 1 forward and 1 outbound entry work: ";
    assert!(last.starts_with(unknown), "{said:?}");
    let said = lab.nvactl_with(&["doctor", "-", "--format", "json"], &both);
    let report: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    let checks = report["checks"].as_array().expect("a list");
    let of_entry = checks.iter().filter(|check| check["forward"] == "pods-out");
    assert!(
        of_entry.clone().any(|check| check["code"] == "packets"),
        "{report:#}"
    );
    // A run for one forward is not about entries.
    let args = ["doctor", "-", "--forward", "web", "--format", "json"];
    let said = lab.nvactl_with(&args, &both);
    let report: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    let checks = report["checks"].as_array().expect("a list");
    assert!(
        !checks.iter().any(|check| check["forward"] == "pods-out"),
        "{report:#}"
    );
}

//! `nvactl trace`: the path of one connection, on this machine, through rules as text, and through a spec.

use serde_json::Value;

use crate::lab::{Backend, CLIENT, CLIENT_V6, Lab, host_with};
use crate::nvactl;
use crate::traffic::serve_tcp;

const SPEC: &str = "
firewall: {interface: {ingress: eth0, egress: eth1}, snat: {v4: 10.4.0.4, v6: \"fd00:4::4\"}}
forwards:
  - {name: api, listen: 443, target: {pod: 10.224.0.118:8443}}
  - {name: dns, listen: 53, protocol: udp, target: {pod: 10.224.0.118:5353}}
  - {name: six, listen: 444, target: {pod: \"[fd00:224::118]:8444\"}}
outbound:
  - {name: out, allow_from: [10.224.0.0/16]}
";

/// The facts of a trace in one line each: the parts of the request, those of the reply, and the end.
fn facts(trace: &Value) -> Vec<String> {
    let word = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let at = |value: &Value| format!("{}:{}", word(&value["address"]), word(&value["port"]));
    let part = |side: &str, part: &Value| {
        if part["kind"] == "route" {
            let [to, out, via] = ["destination", "out", "via"].map(|key| word(&part[key]));
            return format!("{side} route to {to} by {out} via {via}");
        }
        let [hook, table, effect] = ["hook", "table", "effect"].map(|key| word(&part[key]));
        let mut line = format!("{side} {hook} {table} {effect}");
        if !part["to"].is_null() {
            line += &format!(" {}", at(&part["to"]));
        }
        for key in ["forward", "outbound"] {
            if let Some(name) = part[key].as_str() {
                line += &format!(" of {key} {name}");
            }
        }
        line
    };
    let mut facts = Vec::new();
    for side in ["request", "reply"] {
        let parts = trace[side]["path"].as_array().into_iter().flatten();
        facts.extend(parts.map(|one| part(side, one)));
    }
    facts.push(match trace["end"].as_str() {
        Some(end @ ("delivered" | "unanswered")) => format!(
            "{end} {} behind {} from {}, the reply by {}",
            at(&trace["target"]),
            word(&trace["behind"]),
            word(&trace["source"]["address"]),
            word(&trace["reply"]["out"]),
        ),
        end => end.unwrap_or("no end").to_owned(),
    });
    if let Some(words) = trace["cause"]["words"].as_str() {
        facts.push(words.to_owned());
    }
    facts
}

/// Traces a connection through this machine, with this exit code.
fn traced(lab: &Lab, options: &str, code: i32) -> Vec<String> {
    let options: Vec<&str> = options.split(' ').collect();
    let args = [&["trace", "live", "--format", "json"], &options[..]].concat();
    let said = lab.nvactl(&args);
    assert_eq!(said.code, code, "{said:?}");
    facts(&serde_json::from_str(&said.stdout).expect("it is JSON"))
}

lab_test!(a_connection_that_comes_through_shows_its_rules_translations_and_reply);
fn a_connection_that_comes_through_shows_its_rules_translations_and_reply(backend: Backend) {
    let lab = Lab::dual_stack_two_nics(backend);
    lab.apply(SPEC);
    for (options, port, forward, target, gateway, source) in [
        (
            format!("--from {CLIENT} --to 443"),
            8443,
            "api",
            "10.224.0.118",
            "10.4.0.1",
            "10.4.0.4",
        ),
        (
            format!("--from {CLIENT} --to 53 --protocol udp --size 3000"),
            5353,
            "dns",
            "10.224.0.118",
            "10.4.0.1",
            "10.4.0.4",
        ),
        (
            format!("--from {CLIENT_V6} --to 444"),
            8444,
            "six",
            "fd00:224::118",
            "fd00:4::1",
            "fd00:4::4",
        ),
    ] {
        let found = traced(&lab, &options, 0);
        let source_port = found
            .iter()
            .find_map(|line| line.strip_prefix(&format!("request postrouting nat snat {source}:")));
        let source_port = source_port.and_then(|rest| rest.split(' ').next());
        let source_port = source_port.expect("it shows the source");
        assert_eq!(
            found,
            [
                format!("request prerouting nat dnat {target}:{port} of forward {forward}"),
                format!("request route to {target} by eth1 via {gateway}"),
                format!("request forward filter accept of forward {forward}"),
                format!("request postrouting nat snat {source}:{source_port} of forward {forward}"),
                format!(
                    "reply route to {} by eth0 via {}",
                    if target.contains(':') {
                        CLIENT_V6
                    } else {
                        CLIENT
                    },
                    if target.contains(':') {
                        "fd00:3::1"
                    } else {
                        "10.3.0.1"
                    }
                ),
                "reply forward filter accept".to_owned(),
                format!("delivered {target}:{port} behind eth1 from {source}, the reply by eth0"),
            ],
            "{options}"
        );
    }
}

lab_test!(either a_ping_goes_out_by_an_outbound_entry);
fn a_ping_goes_out_by_an_outbound_entry(backend: Backend) {
    let lab = Lab::two_nics(backend);
    lab.apply(
        &SPEC
            .replace("{v4: 10.4.0.4, v6: \"fd00:4::4\"}", "10.4.0.4")
            .replace(
                "  - {name: six, listen: 444, target: {pod: \"[fd00:224::118]:8444\"}}\n",
                "",
            ),
    );
    let found = traced(
        &lab,
        "--from 10.224.0.118 --to 192.0.2.80 --protocol ping",
        0,
    );
    assert_eq!(
        found,
        [
            "request route to 192.0.2.80 by eth0 via 10.3.0.1",
            "request forward filter accept of outbound out",
            "request postrouting nat snat 10.3.0.4:- of outbound out",
            "reply route to 10.224.0.118 by eth1 via 10.4.0.1",
            "reply forward filter accept",
            "delivered 192.0.2.80:- behind eth0 from 10.3.0.4, the reply by eth1",
        ]
    );
}

lab_test!(a_connection_that_does_not_come_through_shows_why);
fn a_connection_that_does_not_come_through_shows_why(backend: Backend) {
    let lab = Lab::dual_stack_two_nics(backend);
    lab.apply(SPEC);
    let last = |options: &str| {
        let found = traced(&lab, options, 1);
        found[found.len().saturating_sub(2)..].join("; ")
    };
    let api = format!("--from {CLIENT} --to 443");
    let legacy = if backend == Backend::Legacy {
        " of iptables-legacy"
    } else {
        ""
    };

    // The rule for the forward is one for packets that come in by eth0.
    for (options, own) in [
        (format!("--from {CLIENT} --to 22"), "10.3.0.4"),
        (format!("{api} --in eth1"), "10.4.0.4"),
    ] {
        let found = traced(&lab, &options, 1);
        let routed = format!("request route to {own} by - via -");
        assert_eq!(found.first(), Some(&routed), "{found:?}");
        assert_eq!(
            found.last().map(String::as_str),
            Some("machine"),
            "{found:?}"
        );
    }

    lab.firewall
        .run("iptables -I FORWARD -p tcp --dport 8443 -j DROP");
    let found = traced(&lab, &api, 1);
    assert!(
        found.contains(&"request forward filter drop".to_owned()),
        "{found:?}"
    );
    let dropped = format!("FORWARD rule 1 in filter{legacy} drops the packet");
    assert_eq!(found.last(), Some(&dropped), "{found:?}");
    let text = lab.nvactl(&["trace", "live", "--from", CLIENT, "--to", "443"]);
    assert!(
        text.stdout
            .contains("-A FORWARD -p tcp -m tcp --dport 8443 -j DROP\n"),
        "{text:?}"
    );
    lab.firewall
        .run("iptables -D FORWARD -p tcp --dport 8443 -j DROP");

    lab.firewall
        .run("iptables -I FORWARD -p tcp --sport 8443 -j DROP");
    assert_eq!(
        last(&api),
        format!(
            "unanswered 10.224.0.118:8443 behind eth1 from 10.4.0.4, the reply by -; \
             FORWARD rule 1 in filter{legacy} drops the reply"
        )
    );
    lab.firewall
        .run("iptables -D FORWARD -p tcp --sport 8443 -j DROP");

    lab.firewall.run("ip route del 10.224.0.0/16");
    lab.firewall.run("ip route del default");
    assert_eq!(
        last(&format!("{api} --in eth0")),
        "lost; the packet has no route to its destination"
    );
}

lab_test!(a_rule_that_only_replies_meet_is_on_their_path);
fn a_rule_that_only_replies_meet_is_on_their_path(backend: Backend) {
    let lab = Lab::dual_stack_two_nics(backend);
    lab.apply(SPEC);
    let remark = "(iptables-legacy counts packets of both directions";
    let options = format!("--from {CLIENT} --to 443");
    for rule in ["-s 10.224.0.118", "-p tcp --sport 8443", "-d 198.51.100.10"] {
        lab.firewall
            .run(&format!("iptables -I FORWARD {rule} -j ACCEPT"));
        let found = traced(&lab, &options, 0);
        let accepts = "forward filter accept";
        let of_reply = format!("reply {accepts}");
        assert!(found.contains(&of_reply), "{rule}: {found:?}");
        assert!(
            !found.contains(&format!("request {accepts}")),
            "{rule}: {found:?}"
        );
        let said = lab.nvactl(&["trace", "live", "--from", CLIENT, "--to", "443"]);
        assert!(!said.stdout.contains(remark), "{rule}: {said:?}");
        lab.firewall
            .run(&format!("iptables -D FORWARD {rule} -j ACCEPT"));
    }
    // Nothing tells which packets this one counted.
    lab.firewall
        .run("iptables -I FORWARD -m length --length 40:1500 -j ACCEPT");
    let said = lab.nvactl(&["trace", "live", "--from", CLIENT, "--to", "443"]);
    let is_said = said.stdout.contains(remark);
    assert_eq!(is_said, backend == Backend::Legacy, "{said:?}");
}

lab_test!(either a_hairpin_comes_back_by_the_one_nic);
fn a_hairpin_comes_back_by_the_one_nic(backend: Backend) {
    let lab = Lab::one_nic(backend);
    lab.apply(
        "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards: [{name: web, listen: 8080, target: {pod: 10.224.0.118:80}}]
",
    );
    let found = traced(&lab, "--from 10.224.0.118 --to 8080", 0);
    let end = "delivered 10.224.0.118:80 behind eth0 from 10.3.0.4, the reply by eth0";
    assert_eq!(found.last().map(String::as_str), Some(end), "{found:?}");
}

/// The article's commands as iptables-save prints them.
fn article(to: &str, port: u16) -> String {
    format!(
        "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -p tcp -m tcp --dport {port} --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW -j ACCEPT
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -i eth0 -p tcp -m tcp --dport 49181 -j DNAT --to-destination {to}
-A POSTROUTING -d {host}/32 -o eth0 -p tcp -m tcp --dport {port} -j SNAT --to-source 10.3.0.4
COMMIT
",
        host = to.split(':').next().expect("it has an address"),
    )
}

lab_test!(either a_target_that_listens_on_another_port_is_found_on_the_live_machine);
/// Rules cannot tell it: the port of the article's Service is 49180.
fn a_target_that_listens_on_another_port_is_found_on_the_live_machine(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.pod, "pod", 49180);
    let spec = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards: [{name: web, listen: 49181, target: {pod: 10.224.0.118:49181}}]
";
    lab.apply(spec);
    let said = lab.nvactl(&["trace", "live", "--from", CLIENT, "--to", "49181"]);
    assert_eq!(said.code, 0, "{said:?}");
    let note =
        "rules cannot tell whether 10.224.0.118:49181 does; `nvactl doctor` and `nvactl probe` try";
    assert!(said.stderr.contains(note), "{said:?}");
    for (command, words) in [
        ("doctor", "10.224.0.118:49181 refuses"),
        ("probe", "refused"),
    ] {
        let said = lab.nvactl_with(&[command, "-"], spec);
        assert_eq!(said.code, 1, "{command}: {said:?}");
        assert!(said.stdout.contains(words), "{command}: {said:?}");
        let right = spec.replace(":49181}", ":49180}");
        lab.apply(&right);
        let said = lab.nvactl_with(&[command, "-"], &right);
        assert_eq!(said.code, 0, "{command}: {said:?}");
        lab.apply(spec);
    }
}

lab_test!(the_article_s_rules_lead_where_they_say);
fn the_article_s_rules_lead_where_they_say(backend: Backend) {
    let host = host_with(backend);
    let trace = |text: &str, options: &[&str], code: i32| {
        let args = [&["trace", "-", "--from", "198.51.100.7"], options].concat();
        let said = nvactl(&host, &args, text);
        assert_eq!(said.code, code, "{said:?}");
        said
    };
    let first = article("10.224.0.222", 49181);
    let said = trace(&first, &["--to", "49181"], 0);
    let delivered = "delivered: 10.224.0.222:49181 behind eth0 sees 10.3.0.4:40000\n";
    assert!(said.stdout.contains(delivered), "{said:?}");
    assert!(
        said.stderr.contains("the machine is made up from"),
        "{said:?}"
    );
    let note =
        "targets of a copy answer on every port: rules cannot tell whether 10.224.0.222:49181 does";
    assert!(said.stderr.contains(note), "{said:?}");
    assert!(
        said.stdout.lines().all(|line| line.chars().count() <= 100),
        "{said:?}"
    );

    let second = article("10.224.0.118:80", 80);
    let said = trace(&second, &["--to", "49181"], 0);
    assert!(
        said.stdout
            .contains("delivered: 10.224.0.118:80 behind eth0"),
        "{said:?}"
    );
    // A packet that is routed straight at the pod comes through as well.
    let said = trace(&second, &["--to", "10.224.0.118:80"], 0);
    assert!(
        said.stdout
            .contains("delivered: 10.224.0.118:80 behind eth0"),
        "{said:?}"
    );
    let said = trace(&second, &["--to", "10.224.0.118:81"], 1);
    assert!(
        said.stdout.contains("policy of FORWARD in filter"),
        "{said:?}"
    );
}

lab_test!(an_interface_that_the_spec_does_not_name_is_a_warning);
fn an_interface_that_the_spec_does_not_name_is_a_warning(backend: Backend) {
    let host = host_with(backend);
    let warning = "warning: `<stdin>` names no interface `eth7`, so one was made up
  hint: the spec has: --in eth0, --in eth1\n";
    for (by, is_warned) in [("eth7", true), ("eth1", false)] {
        let args = [
            "trace",
            "-",
            "--from",
            "192.0.2.7",
            "--to",
            "443",
            "--in",
            by,
        ];
        let said = nvactl(&host, &args, SPEC);
        assert_eq!(said.code, 1, "{said:?}");
        assert_eq!(said.stderr.contains(warning), is_warned, "{by}: {said:?}");
    }
}

lab_test!(either a_spec_alone_is_enough);
fn a_spec_alone_is_enough(backend: Backend) {
    let host = host_with(backend);
    let args = ["trace", "-", "--from", "198.51.100.7", "--to", "443"];
    let said = nvactl(&host, &args, SPEC);
    assert_eq!(said.code, 0, "{said:?}");
    let delivered = "delivered: 10.224.0.118:8443 behind eth1 sees 10.4.0.4:40000\n";
    assert!(said.stdout.contains(delivered), "{said:?}");
    let dnat = "PREROUTING   nat      DNAT to 10.224.0.118:8443     forward `api` (NVACTL-PREROUTING rule 1)\n";
    assert!(said.stdout.contains(dnat), "{said:?}");
    assert!(
        said.stdout.lines().all(|line| line.chars().count() <= 100),
        "{said:?}"
    );
}

/// Rules that redirect port 49181 with these options, and these rules of FORWARD.
fn redirecting(options: &str, forward: &str) -> String {
    format!(
        "*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -i eth0 -p tcp -m tcp --dport 49181 -j DNAT --to-destination {options}
-A POSTROUTING -o eth0 -j SNAT --to-source 10.3.0.4
COMMIT
*filter
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
{forward}
COMMIT
"
    )
}

lab_test!(either a_connection_to_a_port_that_nobody_names_is_opened_once);
/// A listener is opened where the first packet comes out.
fn a_connection_to_a_port_that_nobody_names_is_opened_once(backend: Backend) {
    let host = host_with(backend);
    let args = ["trace", "-", "--from", "198.51.100.7", "--to", "49181"];
    for (options, code, forward) in [
        // Another packet may go to another port.
        (
            "10.224.0.118:20000-60000 --random",
            0,
            "-A FORWARD -j ACCEPT",
        ),
        // The machine may have counted packets before.
        (
            "10.224.0.118:80",
            1,
            "-A FORWARD -p tcp -m tcp --dport 80 -m conntrack --ctstate NEW -m hashlimit --hashlimit-upto 1/hour --hashlimit-burst 1 --hashlimit-mode srcip --hashlimit-name x -j ACCEPT",
        ),
    ] {
        let said = nvactl(&host, &args, &redirecting(options, forward));
        assert_eq!(said.code, code, "{options}: {said:?}");
        assert!(
            said.stdout.contains("\ndelivered: 10.224.0.118:"),
            "{said:?}"
        );
        // A copy has a rule more before a rule that counts, which has this number in the text.
        assert!(said.stdout.contains("(FORWARD rule 2)"), "{said:?}");
    }
}

lab_test!(either a_rule_has_the_number_that_it_has_on_the_machine);
/// The number is good for `iptables -D`. A copy has a rule more before each that depends on packets before.
fn a_rule_has_the_number_that_it_has_on_the_machine(backend: Backend) {
    let lab = Lab::one_nic(backend);
    lab.firewall.shell("echo 1 > /proc/sys/net/ipv4/ip_forward");
    let limit = "-m limit --limit 1/min --limit-burst 1";
    for rule in [
        format!("-p tcp --dport 81 {limit} -j ACCEPT"),
        format!("-p tcp --dport 82 {limit} -j ACCEPT"),
        "-p tcp --dport 80 -j DROP".to_owned(),
    ] {
        lab.firewall.run(&format!("iptables -A FORWARD {rule}"));
    }
    let args = ["trace", "live", "--from", CLIENT, "--to", "10.224.0.118:80"];
    let said = lab.nvactl(&args);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stdout.contains("(FORWARD rule 3)"), "{said:?}");
    let said = lab.nvactl(&[&args[..], &["--format", "json"]].concat());
    let trace: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    assert_eq!(trace["cause"]["rule"]["place"], 3, "{said:?}");
}

lab_test!(either rules_without_addresses_are_those_of_the_client_s_family);
fn rules_without_addresses_are_those_of_the_client_s_family(backend: Backend) {
    let host = host_with(backend);
    let text = |rule: &str| {
        format!(
            "*filter\n:FORWARD ACCEPT [0:0]\n{rule}-A FORWARD -p tcp -m tcp --dport 81 -j DROP\nCOMMIT\n"
        )
    };
    let ends = [
        ("192.0.2.7", "198.51.100.8:81"),
        ("2001:db8::7", "[2001:db8:1::8]:81"),
    ];
    for (rule, known) in [
        ("", None),
        ("-A FORWARD -p icmp -j ACCEPT\n", Some(0)),
        ("-A FORWARD -p ipv6-icmp -j ACCEPT\n", Some(1)),
    ] {
        for (number, (from, to)) in ends.into_iter().enumerate() {
            let args = ["trace", "-", "--from", from, "--to", to];
            let said = nvactl(&host, &args, &text(rule));
            if known.is_none_or(|known| known == number) {
                assert_eq!(said.code, 1, "{rule}{from}: {said:?}");
                assert!(said.stdout.contains("dropped"), "{rule}{from}: {said:?}");
            } else {
                assert_eq!(said.code, 2, "{rule}{from}: {said:?}");
                let words = ["the client has an IPv", "address, and these are IPv"];
                assert!(
                    words.iter().all(|one| said.stderr.contains(one)),
                    "{said:?}"
                );
            }
        }
    }
}

lab_test!(either the_machine_s_own_connection_shows_its_route_and_where_the_reply_ends);
fn the_machine_s_own_connection_shows_its_route_and_where_the_reply_ends(backend: Backend) {
    let host = host_with(backend);
    let args = [
        "trace",
        "-",
        "--from",
        "10.4.0.4",
        "--to",
        "10.224.0.118:80",
    ];
    let said = nvactl(&host, &args, SPEC);
    assert_eq!(said.code, 0, "{said:?}");
    for words in [
        "routing               to 10.224.0.118: out by eth1 via 10.4.0.1\n",
        "reply:     10.224.0.118:80 -> 10.4.0.4:40000, ends at the machine\n",
    ] {
        assert!(said.stdout.contains(words), "{words}: {said:?}");
    }
    assert!(!said.stdout.contains("unknown"), "{said:?}");
}

lab_test!(either a_connection_that_meets_a_rule_of_unknown_effect_is_not_delivered_for_sure);
fn a_connection_that_meets_a_rule_of_unknown_effect_is_not_delivered_for_sure(backend: Backend) {
    let lab = Lab::one_nic(backend);
    lab.apply("firewall: {interface: eth0, snat: 10.3.0.4}\nforwards:\n  - {name: web, listen: 80, target: {pod: 10.224.0.118:80}}\n");
    let args = ["trace", "live", "--from", CLIENT, "--to", "80"];
    assert_eq!(lab.nvactl(&args).code, 0);
    lab.firewall
        .run("iptables -t raw -A PREROUTING -p tcp --dport 80 -m limit --limit 9/sec -j ACCEPT");
    let said = lab.nvactl(&args);
    assert_eq!(said.code, 1, "{said:?}");
    for words in [
        "the machine may treat the packets otherwise because of this: iptables",
        "warning: the end of the connection on the machine is unknown",
    ] {
        assert!(said.stderr.contains(words), "{words}: {said:?}");
    }
}

lab_test!(either a_client_without_an_interface_is_told_which_there_are);
fn a_client_without_an_interface_is_told_which_there_are(backend: Backend) {
    let lab = Lab::one_nic(backend);
    lab.firewall.run("ip route add unreachable 192.0.2.0/24");
    let args = ["trace", "live", "--from", "192.0.2.7", "--to", "80"];
    let said = lab.nvactl(&args);
    assert_eq!(
        (said.code, said.stderr.as_str()),
        (
            2,
            "error: no interface leads to the client 192.0.2.7\n\
             hint: name the interface by which it comes in: --in eth0\n"
        ),
        "{said:?}"
    );
}

//! Mistakes that the schema sees, and other forms of values that it accepts, each in a spec that has nearly every key.

use nvactl::yaml;

use crate::pages::page;
use crate::read;
use crate::validator::{errors, validator};

/// A spec with every mapping and nearly every key. `%KEY%` marks places for mistakes.
const SPEC: &str = r#"
version: 1
description: all keys
firewall:
  interface: {ingress: [eth0, eth2], egress: eth1}
  snat: {v4: 10.3.0.4, v6: "fd00::4"}
  mss: 1360
  forward_policy: keep
  layout: tree
networks:
  office: [198.51.100.0/24, "2001:db8::/32"]
defaults: {protocol: tcp, snat: masquerade}
forwards:
  - name: web
    description: storefront
    enabled: true
    listen: 49182
    protocol: [tcp, udp]
    target: {pod: ["10.224.0.118:80", "10.224.0.119:80"]}
    balance: client
    interface: {ingress: eth0}
    snat: 10.3.0.4-10.3.0.7
    allow_from: [office, 168.63.129.16]
    deny_from: [198.51.100.128/25]
    limits: {new_per_second: 50, burst: 100, max_connections: 1000, per: client, reject: true}
    log: {prefix: web, level: warning, per_minute: 60, connections: all}
    hairpin: true
    silence: [pod-address]
  - {name: lb, listen: ["10.3.0.5:443", 8000-8010], target: {ilb: 10.224.0.222}, log: true}
outbound:
  - name: pods-out
    allow_from: [10.224.0.0/16]
    allow_to: [internet, 10.50.0.0/16]
    protocol: [tcp, udp]
    ports: [443, 8000-8010]
    interface: {egress: eth0}
    silence: [metadata-open]
tests:
  - {name: web, from: office, to: 49182, protocol: tcp, in: eth0, reaches: "10.224.0.118:80|10.224.0.119:80", snat: 10.3.0.4}
  - {from: 10.224.0.7, to: 192.0.2.80, protocol: ping, reaches: 192.0.2.80}
silence: [policy-kept]
"#;

/// Mistakes of each kind that the schema sees: a part of the spec, and what stands there instead.
const MISTAKES: &[(&str, &str)] = &[
    // Unknown keys, in each mapping.
    ("version: 1\n", "version: 1\nvresion: 1\n"),
    ("layout: tree", "layout: tree\n  polcy: drop"),
    (
        "interface: {ingress: [eth0, eth2], egress: eth1}",
        "interface: {ingress: eth0, egress: eth1, both: eth2}",
    ),
    (
        "snat: {v4: 10.3.0.4, v6: \"fd00::4\"}",
        "snat: {v4: 10.3.0.4, v5: 10.3.0.5}",
    ),
    (
        "[198.51.100.0/24, \"2001:db8::/32\"]",
        "{file: office.txt, path: x}",
    ),
    (
        "{protocol: tcp, snat: masquerade}",
        "{protocol: tcp, listen: 80}",
    ),
    ("    enabled: true", "    enbled: true"),
    (
        "{pod: [\"10.224.0.118:80\", \"10.224.0.119:80\"]}",
        "{pods: \"10.224.0.118:80\"}",
    ),
    ("burst: 100", "brust: 100"),
    ("prefix: web", "prefx: web"),
    ("    allow_to:", "    alow_to:"),
    ("in: eth0, reaches", "on: eth0, reaches"),
    // Missing keys.
    ("forwards:", "defaults:"),
    ("  interface: {ingress: [eth0, eth2], egress: eth1}\n", ""),
    ("  snat: {v4: 10.3.0.4, v6: \"fd00::4\"}\n", ""),
    (
        "interface: {ingress: [eth0, eth2], egress: eth1}",
        "interface: {ingress: eth0}",
    ),
    ("  - name: web\n    description", "  - description"),
    ("    listen: 49182\n", ""),
    (
        "    target: {pod: [\"10.224.0.118:80\", \"10.224.0.119:80\"]}\n",
        "",
    ),
    (
        "new_per_second: 50, burst: 100, max_connections: 1000",
        "burst: 100, max_connections: 1000",
    ),
    (
        "new_per_second: 50, burst: 100, max_connections: 1000, per: client, reject: true",
        "per: client",
    ),
    (
        "new_per_second: 50, burst: 100, max_connections: 1000, per: client, reject: true",
        "reject: true",
    ),
    ("    allow_from: [10.224.0.0/16]\n", ""),
    ("    protocol: [tcp, udp]\n    ports", "    ports"),
    ("to: 49182, ", ""),
    ("from: office, ", ""),
    (", reaches: 192.0.2.80}", "}"),
    // Values of another form, and empty ones.
    ("description: all keys", "description:"),
    ("description: all keys", "description: [all, keys]"),
    ("    enabled: true", "    enabled: perhaps"),
    ("hairpin: true", "hairpin: 1"),
    ("listen: 49182", "listen: {port: 49182}"),
    ("listen: 49182", "listen: []"),
    ("target: {ilb: 10.224.0.222}", "target: 10.224.0.222"),
    (
        "target: {ilb: 10.224.0.222}",
        "target: {ilb: [10.224.0.222]}",
    ),
    ("allow_from: [office, 168.63.129.16]", "allow_from: office"),
    ("allow_from: [office, 168.63.129.16]", "allow_from: []"),
    ("allow_from: [10.224.0.0/16]", "allow_from: []"),
    ("allow_to: [internet, 10.50.0.0/16]", "allow_to: []"),
    (
        "allow_to: [internet, 10.50.0.0/16]",
        "allow_to: 10.50.0.0/16",
    ),
    (
        "allow_to: [internet, 10.50.0.0/16]",
        "allow_to: [internet, internet]",
    ),
    (
        "allow_to: [internet, 10.50.0.0/16]",
        "allow_to: [internet, 10.50.0.0/16, internet]",
    ),
    (
        "    protocol: [tcp, udp]\n    target",
        "    protocol: [tcp, tcp]\n    target",
    ),
    ("ingress: [eth0, eth2]", "ingress: [eth0, eth0]"),
    ("snat: 10.3.0.4-10.3.0.7", "snat: {}"),
    (
        "    interface: {egress: eth0}\n",
        "    interface: {egress: eth0}\n    snat: {}\n",
    ),
    (
        "    protocol: [tcp, udp]\n    target",
        "    protocol: []\n    target",
    ),
    ("    ports: [443, 8000-8010]", "    ports: []"),
    ("ingress: [eth0, eth2]", "ingress: []"),
    ("office: [198.51.100.0/24, \"2001:db8::/32\"]", "office: []"),
    (
        "office: [198.51.100.0/24, \"2001:db8::/32\"]",
        "office: 198.51.100.0/24",
    ),
    ("log: true}", "log: yes}"),
    ("limits: {new", "limits: [{new"),
    ("silence: [policy-kept]", "silence: policy-kept"),
    // Words.
    ("version: 1\n", "version: 2\n"),
    ("forward_policy: keep", "forward_policy: accept"),
    ("layout: tree", "layout: trees"),
    (
        "    protocol: [tcp, udp]\n    target",
        "    protocol: [tcp, ping]\n    target",
    ),
    ("balance: client", "balance: clients"),
    ("per: client", "per: host"),
    ("level: warning", "level: warn"),
    ("connections: all", "connections: dropped"),
    (
        "    protocol: [tcp, udp]\n    ports",
        "    protocol: [tcp, icmp]\n    ports",
    ),
    (
        "    protocol: [tcp, udp]\n    ports",
        "    protocol: [tcp, ping]\n    ports",
    ),
    (
        "    protocol: [tcp, udp]\n    ports",
        "    protocol: ping\n    ports",
    ),
    ("protocol: ping", "protocol: icmp"),
    ("silence: [policy-kept]", "silence: [takes-ssh]"),
    ("silence: [policy-kept]", "silence: [no-such-code]"),
    ("silence: [pod-address]", "silence: [duplicate-name]"),
    ("silence: [metadata-open]", "silence: [takes-ssh]"),
    // Ports and numbers.
    ("listen: 49182", "listen: 0"),
    ("listen: 49182", "listen: 65536"),
    ("listen: 49182", "listen: \"65536\""),
    ("listen: 49182", "listen: \"049182\""),
    ("listen: 49182", "listen: 80.5"),
    ("listen: 49182", "listen: 80-"),
    ("8000-8010], target", "8000-80100], target"),
    ("443, 8000-8010]", "443, 70000]"),
    ("to: 49182, ", "to: 70000, "),
    ("to: 49182, ", "to: 80-90, "),
    ("mss: 1360", "mss: 100"),
    ("mss: 1360", "mss: clip"),
    ("new_per_second: 50", "new_per_second: 10001"),
    ("new_per_second: 50", "new_per_second: 0"),
    ("new_per_second: 50", "new_per_second: fast"),
    ("burst: 100", "burst: 20000"),
    ("max_connections: 1000", "max_connections: 10000001"),
    ("per_minute: 60", "per_minute: 601"),
    // Names, and lines of words.
    ("name: web\n", "name: \"web; reboot\"\n"),
    ("name: web\n", "name: -web\n"),
    ("name: pods-out", "name: \"\""),
    ("office: [198", "1st-office: [198"),
    ("office: [198", "internet: [198"),
    ("description: storefront", "description: \" \""),
    ("description: storefront", "description: \"first\\nsecond\""),
    ("name: web, from", "name: \"\", from"),
    ("prefix: web", "prefix: a prefix that is too long"),
    ("prefix: web", "prefix: wéb"),
    ("ingress: [eth0, eth2]", "ingress: [eth0, eth+]"),
    ("egress: eth1", "egress: a-name-that-is-too-long"),
    ("in: eth0, reaches", "in: -eth0, reaches"),
    ("egress: eth1}", "egress: .}"),
    ("egress: eth1}", "egress: ..}"),
    ("egress: eth1}", "egress: ..a-long-name-it}"),
    // Addresses and networks.
    ("10.3.0.5:443", "10.3.0.256:443"),
    ("10.3.0.5:443", "10.3.0:443"),
    ("10.3.0.5:443", "10.3.0.05:443"),
    ("10.3.0.5:443", "fd00::5:443"),
    ("10.3.0.5:443", "0.0.0.0:443"),
    ("10.3.0.5:443", "127.0.0.1:443"),
    ("10.3.0.5:443", "224.0.0.1:443"),
    ("ilb: 10.224.0.222", "ilb: my-service:80"),
    ("[\"10.224.0.118:80\", \"10.224.0.119:80\"]", "10.224.0.118"),
    (
        "[\"10.224.0.118:80\", \"10.224.0.119:80\"]",
        "[\"10.224.0.118:80\", 10.224.0.119]",
    ),
    (
        "[\"10.224.0.118:80\", \"10.224.0.119:80\"]",
        "[\"10.224.0.118:80\", \"10.224.0.118:80\"]",
    ),
    ("v4: 10.3.0.4", "v4: \"fd00::5\""),
    ("v6: \"fd00::4\"", "v6: 10.3.0.5"),
    ("snat: 10.3.0.4-10.3.0.7", "snat: masqerade"),
    ("snat: 10.3.0.4-10.3.0.7", "snat: 10.3.0.4-7"),
    ("198.51.100.0/24, ", "198.51.100.0/33, "),
    ("198.51.100.0/24, ", "others, "),
    ("\"2001:db8::/32\"", "\"2001:db8::/129\""),
    (
        "deny_from: [198.51.100.128/25]",
        "deny_from: [198.51.100.128/025]",
    ),
    ("168.63.129.16]", "\"not a name\"]"),
    ("allow_from: [10.224.0.0/16]", "allow_from: [0.0.0.0/0]"),
    ("internet, 10.50.0.0/16", "internet, \"::/0\""),
    (
        "[198.51.100.0/24, \"2001:db8::/32\"]",
        "{file: /etc/office.txt}",
    ),
    (
        "[198.51.100.0/24, \"2001:db8::/32\"]",
        "{file: ../office.txt}",
    ),
    // Tests.
    ("from: 10.224.0.7", "from: 10.224.0.0/16"),
    (
        "to: 192.0.2.80, protocol: ping",
        "to: \"192.0.2.80:80\", protocol: ping",
    ),
    ("to: 192.0.2.80, protocol: ping", "to: 80, protocol: ping"),
    ("reaches: 192.0.2.80}", "reaches: \"192.0.2.80:80\"}"),
    (
        "10.224.0.118:80|10.224.0.119:80",
        "10.224.0.118:80|10.224.0.119",
    ),
    ("10.224.0.118:80|10.224.0.119:80", "web"),
    ("10.224.0.118:80|10.224.0.119:80", "nothing"),
    ("snat: 10.3.0.4}", "snat: 10.3.0.400}"),
    // Keys that exclude each other.
    (
        "{ilb: 10.224.0.222}",
        "{ilb: 10.224.0.222, pod: \"10.224.0.118:80\"}",
    ),
    ("{ilb: 10.224.0.222}", "{}"),
];

#[test]
fn each_kind_of_mistake_is_refused_by_the_schema_and_by_nvactl() {
    let validator = validator();
    assert_eq!(
        errors(&validator, &read(SPEC.as_bytes()).expect("it is YAML")),
        [""; 0]
    );
    assert!(yaml::examine(SPEC.as_bytes()).set.is_some());
    for (part, mistake) in MISTAKES {
        assert!(SPEC.contains(part), "{part}");
        let text = SPEC.replacen(part, mistake, 1);
        let is_read = yaml::examine(text.as_bytes()).set.is_some();
        assert!(!is_read, "nvactl takes `{mistake}`");
        let value = read(text.as_bytes());
        assert!(
            value.is_none_or(|value| !validator.is_valid(&value)),
            "the schema takes `{mistake}`"
        );
    }
}

/// Other forms of values, which nvactl takes as well.
const FORMS: &[(&str, &str)] = &[
    ("version: 1\n", "version: \"1\"\n"),
    ("description: all keys", "description: 2026"),
    ("description: all keys", "description: |\n  all keys"),
    ("    enabled: true", "    enabled: \"false\""),
    ("name: web\n", "name: 007\n"),
    ("mss: 1360", "mss: \"1360\""),
    ("mss: 1360", "mss: clamp"),
    (
        "interface: {ingress: [eth0, eth2], egress: eth1}",
        "interface: eth0.100",
    ),
    ("interface: {ingress: eth0}", "interface: {}"),
    ("egress: eth1}", "egress: .eth1}"),
    ("egress: eth1}", "egress: ...}"),
    ("egress: eth1}", "egress: ..a-long-name-i}"),
    ("egress: eth1}", "egress: .-a-long-name-i}"),
    ("listen: 49182", "listen: \"49182\""),
    ("listen: 49182", "listen: 49182-49182"),
    ("listen: 49182", "listen: [\"10.3.0.6:49182\"]"),
    (
        "[\"10.224.0.118:80\", \"10.224.0.119:80\"]",
        "10.224.0.118:80",
    ),
    ("{ilb: 10.224.0.222}", "{pod: 10.224.0.118}"),
    ("{ilb: 10.224.0.222}", "{ilb: \"10.224.0.222:49180\"}"),
    (
        "{name: lb, listen: [\"10.3.0.5:443\", 8000-8010], target: {ilb: 10.224.0.222}",
        "{name: lb, listen: \"[fd00::5]:443\", target: {ilb: \"[fd00::222]:443\"}",
    ),
    ("new_per_second: 50", "new_per_second: \"50\""),
    (
        "limits: {new_per_second: 50, burst: 100, max_connections: 1000, per: client, reject: true}",
        "limits: {}",
    ),
    (
        "new_per_second: 50, burst: 100, max_connections: 1000",
        "max_connections: 10000000",
    ),
    ("prefix: web", "prefix: 7"),
    ("log: true}", "log: \"false\"}"),
    ("allow_to: [internet, 10.50.0.0/16]", "allow_to: internet"),
    (
        "allow_to: [internet, 10.50.0.0/16]",
        "allow_to: [10.50.0.0/16, internet, 10.50.0.0/16]",
    ),
    (
        "[office, 168.63.129.16]",
        "[office, office, 168.63.129.16, 168.63.129.16]",
    ),
    ("snat: {v4: 10.3.0.4, v6: \"fd00::4\"}", "snat: {}"),
    ("snat: masquerade}", "snat: {}}"),
    ("snat: 10.3.0.4-10.3.0.7", "snat: {v4: 10.3.0.4}"),
    ("ports: [443, 8000-8010]", "ports: 443"),
    (
        "    protocol: [tcp, udp]\n    ports: [443, 8000-8010]\n",
        "",
    ),
    ("to: 49182, ", "to: \"10.3.0.4:49182\", "),
    (
        "10.224.0.118:80|10.224.0.119:80",
        "10.224.0.118:80 | 10.224.0.119:80",
    ),
    (
        "from: office, to: 49182, protocol: tcp, in: eth0, reaches: \"10.224.0.118:80|10.224.0.119:80\", snat: 10.3.0.4}",
        "from: 203.0.113.9, to: 49182, reaches: nothing}",
    ),
    (
        "from: 10.224.0.7, to: 192.0.2.80, protocol: ping, reaches: 192.0.2.80",
        "from: \"fd00::7\", to: \"2001:db8::1\", protocol: ping, reaches: \"[2001:db8::1]\"",
    ),
];

#[test]
fn each_form_of_a_value_is_valid_for_both() {
    let validator = validator();
    for (part, form) in FORMS {
        assert!(SPEC.contains(part), "{part}");
        let text = SPEC.replacen(part, form, 1);
        let reading = yaml::examine(text.as_bytes());
        assert!(reading.set.is_some(), "{form}: {:?}", reading.problems);
        let value = read(text.as_bytes()).expect("it is YAML");
        assert_eq!(errors(&validator, &value), [""; 0], "{form}");
    }
}

/// Valid values of the two kinds that the schema refuses, and how it accepts them.
const EDITS: &[(&str, &str, &str)] = &[
    (
        "description: all keys",
        "description: true",
        "description: \"true\"",
    ),
    (
        "description: storefront",
        "description: false",
        "description: \"false\"",
    ),
    ("name: pods-out", "name: true", "name: \"true\""),
    (
        "name: web, from",
        "name: true, from",
        "name: \"true\", from",
    ),
    ("prefix: web", "prefix: true", "prefix: \"true\""),
    ("egress: eth1}", "egress: 7}", "egress: \"7\"}"),
    (
        "10.224.0.118:80|10.224.0.119:80",
        "10.224.0.118:80-80",
        "10.224.0.118:80",
    ),
    (
        "to: 49182, ",
        "to: \"10.3.0.4:49182-49182\", ",
        "to: \"10.3.0.4:49182\", ",
    ),
];

/// The page names both kinds.
#[test]
fn two_kinds_of_valid_values_need_an_edit_for_the_schema() {
    let validator = validator();
    for (part, valid, edited) in EDITS {
        assert!(SPEC.contains(part), "{part}");
        let text = SPEC.replacen(part, valid, 1);
        let reading = yaml::examine(text.as_bytes());
        assert!(reading.set.is_some(), "{valid}: {:?}", reading.problems);
        let value = read(text.as_bytes()).expect("it is YAML");
        assert!(!validator.is_valid(&value), "the schema takes `{valid}`");
        let text = SPEC.replacen(part, edited, 1);
        assert!(yaml::examine(text.as_bytes()).set.is_some(), "{edited}");
        let value = read(text.as_bytes()).expect("it is YAML");
        assert_eq!(errors(&validator, &value), [""; 0], "{edited}");
    }
    let page = page("docs/spec.md");
    for example in [
        "interface `7`",
        "description `true`",
        "`10.224.0.118:80-80`",
    ] {
        assert!(page.contains(example), "{example}");
    }
}

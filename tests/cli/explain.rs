//! Tests of `nvactl explain`.

use std::fs;

use crate::{folder, nvactl, said};

const SPEC: &str = "\
firewall: {interface: {ingress: eth0, egress: eth1}, snat: masquerade}
forwards:
  - {name: games, listen: 6000-6010, protocol: udp, target: {pod: 10.224.0.118:7000-7010}}
  - {name: web, listen: 10.3.0.4:443, target: {ilb: 10.224.0.222}}
";

fn explain(options: &[&str]) -> String {
    let folder = folder();
    fs::write(folder.path().join("spec.yaml"), SPEC).unwrap();
    said(
        nvactl(folder.path())
            .args(["explain", "spec.yaml"])
            .args(options),
    )
}

#[test]
fn every_line_is_explained_in_the_order_of_a_packet_s_path() {
    insta::assert_snapshot!(explain(&[]));
}

#[test]
fn markdown_has_a_table_and_a_diagram() {
    insta::assert_snapshot!(explain(&["--format", "markdown"]));
}

#[test]
fn options_select_one_rule_or_one_forward() {
    insta::assert_snapshot!(explain(&["--rule", "2"]));
    insta::assert_snapshot!(explain(&["--forward", "games"]));
    insta::assert_snapshot!(explain(&["--forward", "game"]));
    insta::assert_snapshot!(explain(&["--rule", "99"]));
}

#[test]
fn descriptions_and_the_listeners_of_a_list_are_shown() {
    let folder = folder();
    let spec = format!(
        "description: NVA of cluster prod-1\n{}",
        SPEC.replace(
            "name: web, listen: 10.3.0.4:443",
            "name: web, description: <b>shop</b>, listen: [80, 10.3.0.4:443]"
        )
    );
    fs::write(folder.path().join("spec.yaml"), spec).unwrap();
    let mut all = String::new();
    for options in [
        &["--forward", "web"][..],
        &["--forward", "web", "--format", "markdown"],
        &["--forward", "games"],
    ] {
        let args = [&["explain", "spec.yaml"], options].concat();
        all += &said(nvactl(folder.path()).args(args));
    }
    insta::assert_snapshot!(all);
}

#[test]
fn ipv6_rules_are_labelled() {
    let folder = folder();
    let spec = SPEC.replace("10.224.0.222", "\"[fd00:224::222]:443\"");
    let spec = spec.replace("10.3.0.4:443", "443");
    fs::write(folder.path().join("spec.yaml"), spec).unwrap();
    let args = ["explain", "spec.yaml", "--forward", "web"];
    insta::assert_snapshot!(said(nvactl(folder.path()).args(args)));
}

#[test]
fn limits_on_segments_are_explained() {
    let folder = folder();
    let outbound = "outbound:
  - {name: out, allow_from: [10.224.0.0/16, 10.9.0.0/16], allow_to: [198.51.100.7], protocol: tcp, ports: [80, 443]}
";
    let mut all = String::new();
    for mss in ["clamp", "1360"] {
        let spec = SPEC.replace("snat:", &format!("mss: {mss}, snat:")) + outbound;
        fs::write(folder.path().join("spec.yaml"), spec).unwrap();
        let text = said(nvactl(folder.path()).args(["explain", "spec.yaml"]));
        let paragraphs = text.split("\n\n");
        let mangle = paragraphs.filter(|one| one.contains("mangle: "));
        all += &mangle.collect::<Vec<_>>().join("\n");
    }
    insta::assert_snapshot!(all);
}

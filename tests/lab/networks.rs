//! Networks by name, and files of them.

use crate::firewall::firewall;
use crate::guards::{ask_from, second_client};
use crate::lab::{Backend, CLIENT, CLIENT_V6, FIREWALL, FIREWALL_V6, Lab, save};
use crate::namespace::Host;
use crate::nvactl;
use crate::traffic::{Outcome, answer, serve_tcp};

const FOLDER: &str = "/etc/nvactl";

fn write(host: &Host, name: &str, text: &str) {
    let script = format!("mkdir -p {FOLDER}; umask 022; cat > {FOLDER}/{name}");
    let written = host.feed("sh", &["-c", &script], text);
    assert!(written.status.success());
}

/// Applies the spec in the folder.
fn apply(host: &Host) {
    let said = nvactl(
        host,
        &["apply", "/etc/nvactl/forward.yaml", "--no-trial"],
        "",
    );
    assert_eq!(said.code, 0, "{said:?}");
}

lab_test!(either a_named_office_connects_and_a_file_of_scanners_does_not);
fn a_named_office_connects_and_a_file_of_scanners_does_not(backend: Backend) {
    let lab = Lab::dual_stack(backend);
    serve_tcp(&lab.pod, "pod", 80);
    for address in ["198.51.100.130", "203.0.113.5", "192.0.2.9"] {
        second_client(&lab, address);
    }
    let spec = r#"
firewall: {interface: eth0, snat: {v4: 10.3.0.4, v6: "fd00:3::4"}}
silence: [keeps-probes-out]
networks:
  office: [198.51.100.0/24, "2001:db8:51::/48"]
  scanners: {file: scanners.txt}
defaults: {deny_from: [scanners]}
forwards:
  - {name: web, listen: 8080, target: {pod: 10.224.0.118:80}, allow_from: [office, 192.0.2.9]}
  - {name: web6, listen: 8080, target: {pod: "[fd00:224::118]:80"}, allow_from: [office]}
  - {name: open, listen: 8081, target: {pod: 10.224.0.118:80}}
"#;
    let scanners = "# of the last month\r\n198.51.100.128/25\r\n203.0.113.5 # one host\r\n2001:db8:bad::/48\r\n";
    write(&lab.firewall, "forward.yaml", spec);
    write(&lab.firewall, "scanners.txt", scanners);
    apply(&lab.firewall);
    assert_eq!(lab.nvactl(&["sysctl", "enable"]).code, 0);
    for (from, web, open) in [
        (CLIENT, true, true),
        ("192.0.2.9", true, true),
        ("198.51.100.130", false, false),
        ("203.0.113.5", false, false),
    ] {
        for (port, comes) in [(8080, web), (8081, open)] {
            let said = ask_from(&lab, from, port);
            assert_eq!(
                said,
                if comes { "pod 10.3.0.4" } else { "none" },
                "{from} {port}"
            );
        }
    }
    assert_eq!(lab.tcp(FIREWALL_V6, 8080), answer("pod", FIREWALL_V6));
    // The file alone decides.
    let denied = format!("{scanners}{CLIENT_V6}\n{CLIENT}");
    write(&lab.firewall, "scanners.txt", &denied);
    apply(&lab.firewall);
    assert_eq!(lab.tcp(FIREWALL_V6, 8080), Outcome::Silence);
    assert_eq!(lab.tcp(FIREWALL, 8081), Outcome::Silence);
}

const SPEC: &str = "
firewall: {interface: eth0, snat: 10.3.0.4}
networks: {scanners: {file: scanners.txt}}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}, deny_from: [scanners]}
";

lab_test!(either the_recorded_spec_has_its_files_of_networks);
/// `status`, `persist` and `rollback` without a spec need no file that has changed since.
fn the_recorded_spec_has_its_files_of_networks(backend: Backend) {
    let host = firewall(backend);
    write(&host, "forward.yaml", SPEC);
    write(&host, "scanners.txt", "192.0.2.0/24\n");
    apply(&host);
    let first = save(&host);
    assert!(first.contains("-s 192.0.2.0/24 -j DROP"), "{first}");
    let check = || nvactl(&host, &["status", "--check"], "");
    let note = "note: the spec is /etc/nvactl/forward.yaml as it was applied last";
    let said = check();
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains(&format!("{note}\n")), "{said:?}");

    write(&host, "scanners.txt", "203.0.113.0/24\n");
    let changed = format!("{note}; the file has changed since\n");
    let said = check();
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains(&changed), "{said:?}");
    host.run("rm /etc/nvactl/scanners.txt");
    let said = check();
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains(&changed), "{said:?}");

    write(&host, "scanners.txt", "203.0.113.0/24\n");
    apply(&host);
    assert!(save(&host).contains("-s 203.0.113.0/24 -j DROP"));
    let said = nvactl(&host, &["rollback"], "");
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(save(&host), first);
    // The record of the rollback has the file as the first change had it.
    let said = check();
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains(&changed), "{said:?}");
}

//! The commands that the pages show, as they stand there: typed by an operator at a desk and on the firewall.

use crate::boot::install;
use crate::desk::{Desk, FRONT_END};
use crate::lab::{Backend, FIREWALL, Said, example, host_with, save};
use crate::namespace::Host;
use crate::pages::{block, page};
use crate::traffic::{Outcome, answer, serve_tcp};

const SPEC: &str = "firewall: {interface: eth0, snat: 10.3.0.4}
forwards: [{name: web, listen: 49182, target: {pod: \"10.224.0.118:80\"}}]
";

/// Fails unless a run ended with a code; returns what it printed.
#[track_caller]
fn ended(said: Said, code: i32) -> String {
    assert_eq!(said.code, code, "{said:?}");
    said.stdout
}

/// Makes a desk with a pod that answers, and the spec on the firewall in the home folder of `op`.
fn desk(backend: Backend) -> Desk {
    let desk = Desk::new(backend);
    serve_tcp(&desk.lab.pod, "pod", 80);
    desk.write("/run/op/forward.yaml", SPEC);
    desk
}

fn is_forwarded(desk: &Desk) -> bool {
    desk.lab.tcp(FRONT_END, 49182) == answer("pod", FIREWALL)
}

/// Returns what a page shows of a machine with nft as another backend has it.
fn by(backend: Backend, shown: &str) -> String {
    match backend {
        Backend::Nft => shown.to_owned(),
        Backend::Legacy => shown.replace("iptables-nft", "iptables-legacy"),
    }
}

/// Puts a script in the place of a program that is not to be run.
fn stand_in(host: &Host, program: &str, script: &str) {
    let file = format!("cat > /run/bin/{program} && chmod +x /run/bin/{program}");
    let written = host.feed("sh", &["-euc", &file], &format!("#!/bin/sh\n{script}\n"));
    assert!(written.status.success(), "{program}: {written:?}");
}

lab_test!(either the_commands_of_changes);
fn the_commands_of_changes(backend: Backend) {
    let text = page("docs/changes.md");
    let desk = desk(backend);
    desk.lab.firewall.run("sysctl -qw net.ipv4.ip_forward=1");
    let with_deadline = block(&text, "lab: apply with a deadline");
    ended(desk.on_firewall(with_deadline), 0);
    assert!(is_forwarded(&desk));
    let waits = ended(desk.on_firewall("sudo nvactl confirm --status"), 0);
    assert!(waits.contains("is undone in"), "{waits}");
    ended(desk.here(block(&text, "lab: confirm anew")), 0);
    let waits = ended(desk.on_firewall("sudo nvactl confirm --status"), 0);
    assert!(waits.contains("nothing is waiting"), "{waits}");
    assert!(is_forwarded(&desk));

    let drop = "-d 10.224.0.99 -j DROP";
    desk.lab
        .firewall
        .run(&format!("iptables -t mangle -A FORWARD {drop}"));
    desk.write(
        "/run/op/forward.yaml",
        &SPEC.replace("10.224.0.118", "10.224.0.99"),
    );
    let said = desk.on_firewall("sudo nvactl apply forward.yaml");
    let shown = block(&text, "apply: refused");
    let shown = by(backend, shown);
    assert_eq!((said.code, said.stderr.as_str()), (2, shown.as_str()));
    assert!(is_forwarded(&desk));
}

lab_test!(either a_failed_test_is_shown_as_readme_has_it);
fn a_failed_test_is_shown_as_readme_has_it(backend: Backend) {
    let readme = page("README.md");
    let host = host_with(backend);
    let spec =
        block(&readme, "tests: forward.yaml").replace("10.224.0.118:80}", "10.224.0.118:81}");
    let spec = format!("firewall: {{interface: eth0, snat: 10.3.0.4}}\n{spec}");
    let write = host.feed("sh", &["-euc", "cat > /run/forward.yaml"], &spec);
    assert!(write.status.success(), "{write:?}");
    let command = format!(
        "cd /run; {} test forward.yaml",
        env!("CARGO_BIN_EXE_nvactl")
    );
    let said = Said::from(host.feed("sh", &["-euc", &command], ""));
    assert_eq!(ended(said, 1), block(&readme, "tests: failed"));
}

lab_test!(either the_commands_that_adopt_typed_rules);
fn the_commands_that_adopt_typed_rules(backend: Backend) {
    let text = page("docs/changes.md");
    let desk = Desk::new(backend);
    serve_tcp(&desk.lab.pod, "pod", 80);
    let host = &desk.lab.firewall;
    host.shell(
        "sysctl -qw net.ipv4.ip_forward=1
         iptables -A FORWARD -p tcp --syn --dport 80 -m conntrack --ctstate NEW -j ACCEPT
         iptables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
         iptables -P FORWARD DROP
         iptables -t nat -A PREROUTING -i eth0 -p tcp --dport 49182 -j DNAT --to-destination 10.224.0.118:80
         iptables -t nat -A POSTROUTING -o eth0 -p tcp --dport 80 -d 10.224.0.118 -j SNAT --to-source 10.3.0.4",
    );
    assert!(is_forwarded(&desk));
    // The second line reports by its exit code that something would change.
    let lines = block(&text, "lab: adopt").lines();
    for (line, code) in lines.zip([0, 1, 0]) {
        ended(desk.on_firewall(line), code);
    }
    assert!(is_forwarded(&desk));
    let rules = save(host);
    assert!(!rules.contains("-A PREROUTING -i eth0"), "{rules}");
    assert!(rules.contains("-A NVACTL-PREROUTING -i eth0"), "{rules}");
}

lab_test!(either the_commands_of_boot_and_of_the_uninstallation);
fn the_commands_of_boot_and_of_the_uninstallation(backend: Backend) {
    let desk = desk(backend);
    let host = &desk.lab.firewall;
    install(host);
    stand_in(host, "apt-get", "echo \"$*\" > /run/apt-get");
    ended(
        desk.on_firewall("sudo nvactl apply forward.yaml; sudo nvactl sysctl enable --persist"),
        0,
    );
    let unit = host.path("/etc/systemd/system/sysinit.target.wants/nvactl.service");
    let enabled = desk.on_firewall(block(&page("docs/boot.md"), "lab: boot unit"));
    assert!(ended(enabled, 0).contains("nvactl"));
    assert!(unit.symlink_metadata().is_ok());
    assert!(is_forwarded(&desk));

    let readme = page("README.md");
    let said = desk.on_firewall(block(&readme, "lab: uninstall"));
    assert_eq!(said.code, 0, "{said:?}");
    assert!(unit.symlink_metadata().is_err());
    assert_eq!(host.run("cat /run/apt-get"), "purge nvactl\n");
    assert!(!save(host).contains("-A "), "{said:?}");
    assert_eq!(desk.lab.tcp(FRONT_END, 49182), Outcome::Refused);
    ended(desk.on_firewall(block(&readme, "lab: delete the files")), 0);
    for path in [
        "/usr/local/bin/nvactl",
        "/var/lib/nvactl",
        "/etc/sysctl.d/99-nvactl.conf",
    ] {
        assert!(!host.exists(path), "{path}");
    }
}

lab_test!(either the_commands_of_doctor);
fn the_commands_of_doctor(backend: Backend) {
    let text = page("docs/doctor.md");
    let desk = desk(backend);
    ended(
        desk.on_firewall("sudo nvactl apply forward.yaml; sudo nvactl sysctl enable"),
        0,
    );
    let liberal = block(&text, "lab: liberal");
    ended(desk.on_firewall(liberal), 0);
    let host = &desk.lab.firewall;
    assert_eq!(
        host.run("sysctl -n net.netfilter.nf_conntrack_tcp_be_liberal"),
        "1\n"
    );
    assert!(
        host.run("cat /etc/sysctl.d/99-nvactl.conf")
            .contains("tcp_be_liberal = 1")
    );

    let doctor = block(&text, "lab: doctor");
    let found = ended(desk.on_firewall(doctor), 0);
    assert!(found.contains("web"), "{found}");
    ended(desk.here("ssh fw cat forward.yaml > forward.yaml"), 0);
    let probe = block(&text, "lab: probe");
    let open = ended(desk.here(probe), 0);
    assert!(open.contains("open"), "{open}");
    // The target answers, and another rule takes what is forwarded to it.
    host.run("iptables -I FORWARD -d 10.224.0.118 -j DROP");
    let found = ended(desk.on_firewall(doctor), 1);
    let readme = page("README.md");
    let shown = block(&readme, "doctor: fail").trim_end();
    let shown = by(backend, shown);
    assert!(found.contains(&shown), "{shown}\n{found}");
    ended(desk.here(probe), 1);
}

/// Two Services, as kubectl prints them, and their pod.
const OBJECTS: &str = r#"{"apiVersion": "v1", "kind": "List", "items": [
  {"kind": "Service", "metadata": {"name": "tmp-shell", "namespace": "default"},
   "spec": {"type": "LoadBalancer", "clusterIP": "10.0.14.2", "ports": [{"port": 49180, "targetPort": 80}]},
   "status": {"loadBalancer": {"ingress": [{"ip": "10.224.0.222"}]}}},
  {"kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
   "spec": {"type": "LoadBalancer", "clusterIP": "10.0.14.3", "ports": [{"port": 443, "targetPort": 80}]},
   "status": {"loadBalancer": {"ingress": [{"ip": "10.224.0.230"}]}}},
  {"kind": "Pod", "metadata": {"name": "web-1", "namespace": "shop"},
   "spec": {"containers": [{"ports": [{"containerPort": 80}]}]},
   "status": {"phase": "Running", "podIP": "10.224.0.118"}}]}"#;

lab_test!(either the_commands_of_import);
fn the_commands_of_import(backend: Backend) {
    let text = page("docs/import.md");
    let desk = Desk::new(backend);
    let host = &desk.lab.firewall;
    let typed = "iptables -t nat -A PREROUTING -i eth0 -p tcp --dport 49182 -j DNAT --to-destination 10.224.0.118:80
iptables -t nat -A POSTROUTING -o eth0 -p tcp --dport 80 -d 10.224.0.118 -j SNAT --to-source 10.3.0.4
";
    host.shell(typed);
    host.shell("mkdir -p /etc/iptables; iptables-save > /etc/iptables/rules.v4; chmod 640 /etc/iptables/rules.v4");
    desk.write("/run/op/commands.sh", typed);
    let lines: Vec<&str> = block(&text, "lab: import").lines().collect();
    let [live, file, commands] = lines[..] else {
        panic!("{lines:?}");
    };
    // Some machines let only root make the copies of `--strict`.
    let probe = desk.on_firewall("unshare -Urn ip link set lo up");
    let as_root = if probe.code == 0 { "" } else { "sudo " };
    desk.write("/run/op/commands", commands);
    let written = "nvactl check forward.yaml; cat forward.yaml; sudo rm forward.yaml";
    for printed in [
        ended(desk.on_firewall(&format!("{live}\n{written}")), 0),
        ended(desk.on_firewall(file), 0),
        ended(
            desk.on_firewall(&format!("{as_root}sh -eu commands\n{written}")),
            0,
        ),
    ] {
        assert!(printed.contains("pod: 10.224.0.118:80"), "{printed}");
    }
    // The package makes the folder, and a tarball does not.
    let init = block(&text, "lab: init");
    let said = desk.on_firewall(init);
    assert_eq!(said.code, 2, "{said:?}");
    let (_, fix) = said
        .stderr
        .split_once("to make it: ")
        .expect("it names a command");
    ended(desk.on_firewall(fix), 0);
    ended(desk.on_firewall(init), 0);
    let spec = host.run("cat /etc/nvactl/forward.yaml");
    assert!(spec.contains("snat: 10.3.0.4"), "{spec}");

    let asked = "case \"$*\" in 'get services -A -o json'|'get services,endpoints,pods -A -o json') ;; *) exit 9 ;; esac";
    stand_in(
        &desk.lab.client,
        "kubectl",
        &format!("{asked}\ncat <<'END'\n{OBJECTS}\nEND"),
    );
    let printed = ended(desk.here(block(&text, "lab: services")), 0);
    // The last line prints what it selects, and the line before writes all.
    for spec in [printed, ended(desk.here("cat forward.yaml"), 0)] {
        for target in ["ilb: 10.224.0.222:49180", "ilb: 10.224.0.230:443"] {
            assert!(spec.contains(target), "{target}: {spec}");
        }
    }
    let check = block(&text, "lab: check services");
    ended(desk.here(check), 0);
    ended(
        desk.here("sed -i s/10.224.0.230:443/10.224.0.230:444/ forward.yaml"),
        0,
    );
    let said = desk.here(check);
    assert!(said.stderr.contains("not-exposed"), "{said:?}");
    ended(said, 1);
}

lab_test!(either the_command_for_a_folder);
fn the_command_for_a_folder(backend: Backend) {
    let desk = Desk::new(backend);
    serve_tcp(&desk.lab.ilb, "ilb", 49180);
    serve_tcp(&desk.lab.pod, "pod", 80);
    for name in ["00-firewall.yaml", "tmp-shell.yaml", "web.yaml"] {
        let path = format!("forward.d/{name}");
        desk.write(&format!("/etc/nvactl/{path}"), &example(&path));
    }
    ended(
        desk.on_firewall(block(&page("docs/spec.md"), "lab: folder")),
        0,
    );
    ended(desk.on_firewall("sudo nvactl sysctl enable"), 0);
    assert!(is_forwarded(&desk));
    assert_eq!(desk.lab.tcp(FRONT_END, 49181), answer("ilb", FIREWALL));
}

lab_test!(either the_commands_that_count_the_traffic_of_connections);
fn the_commands_that_count_the_traffic_of_connections(backend: Backend) {
    let text = page("docs/metrics.md");
    let desk = desk(backend);
    ended(
        desk.on_firewall("sudo nvactl apply forward.yaml; sudo nvactl sysctl enable"),
        0,
    );
    let host = &desk.lab.firewall;
    let counted = || {
        assert!(is_forwarded(&desk));
        host.run("conntrack -L -p tcp --orig-port-dst 49182")
            .contains("bytes=")
    };
    assert!(!counted());
    ended(
        desk.on_firewall(block(&text, "lab: traffic of connections")),
        0,
    );
    assert!(counted());
    for (file, line) in [
        ("sysctl.d", "net.netfilter.nf_conntrack_acct = 1\n"),
        ("modules-load.d", "nf_conntrack\n"),
    ] {
        assert_eq!(
            host.run(&format!("cat /etc/{file}/60-conntrack-acct.conf")),
            line
        );
    }
}

lab_test!(either the_commands_of_the_timer);
/// `systemctl` starts no unit here, so a script does what the service says.
fn the_commands_of_the_timer(backend: Backend) {
    let desk = desk(backend);
    let host = &desk.lab.firewall;
    install(host);
    let (boot, metrics) = (page("docs/boot.md"), page("docs/metrics.md"));
    let service = page("packaging/nvactl-check.service");
    let command = service
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let command = command.expect("it starts a program");
    let command = command.replace("/usr/bin/nvactl", "/usr/local/bin/nvactl");
    stand_in(
        host,
        "systemctl",
        &format!(
            "echo \"$*\" >> /run/systemctl
             case \"$*\" in *nvactl-check.service | *nvactl-check.timer)
               NVACTL_CHECK=$(sed -n s/^NVACTL_CHECK=//p /etc/nvactl/check.env || true)
               {command}
             esac"
        ),
    );
    let prepared = "sudo mkdir -p /etc/nvactl /etc/systemd/system /var/lib/node_exporter /var/lib/prometheus/node-exporter
        sudo nvactl apply forward.yaml
        sudo nvactl sysctl enable --persist";
    ended(desk.on_firewall(prepared), 0);
    ended(desk.on_firewall(block(&boot, "lab: boot unit")), 0);
    ended(desk.on_firewall(block(&metrics, "lab: timer")), 0);
    let written = |folder: &str| host.run(&format!("cat {folder}/nvactl.prom"));
    assert!(written("/var/lib/prometheus/node-exporter").contains("nvactl_up 1\n"));
    host.run("rm /var/lib/prometheus/node-exporter/nvactl.prom");
    ended(
        desk.on_firewall(&format!("sudo {}", block(&metrics, "metrics: status"))),
        0,
    );
    assert!(written("/var/lib/prometheus/node-exporter").contains("nvactl_up 1\n"));

    host.run("iptables -F");
    assert!(!is_forwarded(&desk));
    ended(desk.on_firewall(block(&boot, "lab: timer that repairs")), 0);
    assert!(is_forwarded(&desk));

    host.run("iptables -t nat -F");
    ended(
        desk.on_firewall(block(&metrics, "lab: options of the timer")),
        0,
    );
    assert!(is_forwarded(&desk));
    assert!(written("/var/lib/node_exporter").contains("nvactl_repairs_total 2\n"));

    for unit in ["nvactl-check.service", "nvactl-check.timer"] {
        desk.write(
            &format!("/run/op/{unit}"),
            &page(&format!("packaging/{unit}")),
        );
    }
    ended(
        desk.on_firewall(block(&metrics, "lab: timer of the tarball")),
        0,
    );
    let installed = host.run("cat /etc/systemd/system/nvactl-check.service");
    assert!(
        installed.contains("ExecStart=/usr/local/bin/nvactl status"),
        "{installed}"
    );
    assert!(host.exists("/etc/systemd/system/nvactl-check.timer"));
    assert_eq!(
        host.run("cat /run/systemctl").lines().last(),
        Some("daemon-reload")
    );
}

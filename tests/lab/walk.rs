//! README's walk through both scenarios, its own commands on a firewall of the lab.

use crate::lab::{Backend, FIREWALL, Lab};
use crate::traffic::serve_tcp;

/// The public address that README uses.
const FRONT_END: &str = "203.0.113.7";

/// The code block behind a marker.
fn block(name: &str) -> &'static str {
    let readme = include_str!("../../README.md");
    let (_, rest) = readme
        .split_once(&format!("<!-- walk: {name} -->\n"))
        .expect(name);
    let (_, rest) = rest.split_once('\n').expect(name);
    rest.split_once("\n```").expect(name).0
}

lab_test!(the_walk_of_readme_works);
fn the_walk_of_readme_works(backend: Backend) {
    let lab = Lab::one_nic(backend);
    serve_tcp(&lab.ilb, "ilb", 49180);
    serve_tcp(&lab.pod, "pod", 80);
    lab.firewall.shell(&format!(
        "ln -s {} /run/bin/nvactl
         printf '#!/bin/sh\\nexec \"$@\"\\n' > /run/bin/sudo
         chmod +x /run/bin/sudo
         mkdir -p /run/home /etc/nvactl
         cat > /etc/nvactl/forward.yaml <<'END'\n{}\nEND",
        env!("CARGO_BIN_EXE_nvactl"),
        block("forward.yaml"),
    ));
    for (n, command) in block("commands").lines().enumerate() {
        // The second one reports by its exit code that something would change.
        let expected = i32::from(n == 1);
        lab.firewall.shell(&format!(
            "cd /run/home; code=0; {{ {command}\n}} || code=$?; test $code = {expected}"
        ));
    }
    // `ssh` shows what a new session proves; here the same command runs without one.
    let confirm = block("confirm").strip_prefix("ssh -t -S none fw ");
    let confirm = confirm.and_then(|command| command.strip_suffix(" --new-session"));
    lab.firewall.shell(confirm.expect("it runs over ssh"));
    lab.firewall.shell(block("forwarding"));
    // Azure translates the public address to the firewall's.
    let answers: Vec<String> = block("client")
        .lines()
        .map(|command| {
            let command = command.replace(FRONT_END, FIREWALL);
            lab.client
                .shell(&format!("{command} --silent --max-time 5"))
        })
        .collect();
    assert_eq!(
        answers,
        [format!("ilb {FIREWALL}"), format!("pod {FIREWALL}")]
    );
    for command in [block("keep"), block("look")]
        .into_iter()
        .flat_map(str::lines)
    {
        lab.firewall.shell(&format!("cd /run/home; {command}"));
    }
    let kept = lab
        .firewall
        .run("cat /etc/iptables/rules.v4 /etc/sysctl.d/99-nvactl.conf");
    assert!(
        kept.contains("10.224.0.222:49180") && kept.contains("ip_forward = 1"),
        "{kept}"
    );
}

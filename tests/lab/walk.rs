//! README's walk through both scenarios: its own commands, typed by an operator at a desk and on a firewall of the lab.

use crate::desk::Desk;
use crate::lab::{Backend, FIREWALL};
use crate::pages::{block, page};
use crate::traffic::serve_tcp;

lab_test!(the_walk_of_readme_works);
fn the_walk_of_readme_works(backend: Backend) {
    let readme = page("README.md");
    let desk = Desk::new(backend);
    let lab = &desk.lab;
    serve_tcp(&lab.ilb, "ilb", 49180);
    serve_tcp(&lab.pod, "pod", 80);
    desk.write(
        "/etc/nvactl/forward.yaml",
        block(&readme, "walk: forward.yaml"),
    );
    let run = |line: &str, code: i32| {
        let said = desk.on_firewall(line);
        assert_eq!(said.code, code, "{line}: {said:?}");
    };
    for (n, line) in block(&readme, "walk: commands").lines().enumerate() {
        // The second one reports by its exit code that something would change.
        run(line, i32::from(n == 1));
    }
    let said = desk.here(block(&readme, "walk: confirm"));
    assert_eq!(said.code, 0, "{said:?}");
    run(block(&readme, "walk: forwarding"), 0);
    let answers: Vec<String> = block(&readme, "walk: client")
        .lines()
        .map(|line| desk.here(&format!("{line} --silent --max-time 5")).stdout)
        .collect();
    let expected = [format!("ilb {FIREWALL}"), format!("pod {FIREWALL}")];
    assert_eq!(answers, expected);
    for marker in ["walk: keep", "walk: look"] {
        run(block(&readme, marker), 0);
    }
    let kept = lab
        .firewall
        .run("cat /etc/iptables/rules.v4 /etc/sysctl.d/99-nvactl.conf");
    assert!(
        kept.contains("10.224.0.222:49180") && kept.contains("ip_forward = 1"),
        "{kept}"
    );
}

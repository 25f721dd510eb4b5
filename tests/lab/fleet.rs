//! `examples/ansible`, `examples/github/rollout.yml` and `docs/fleet.md`: real Ansible and real sshds change firewalls
//! one after the other.
//!
//! ```text
//! controller 10.3.0.1 ──(bridge)──┬── fw-a 10.3.0.4
//!                                 ├── fw-b 10.3.0.5
//!                                 ├── fw-c 10.3.0.6
//!                                 └── target 10.3.0.99, also the jump host
//! ```

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_yaml::Value;

use crate::boot::{boot, install};
use crate::fake::{fake, unfake};
use crate::lab::{Backend, Said, host_with, save};
use crate::namespace::Host;
use crate::nvactl;
use crate::pages::{block, page, root};
use crate::required::is_required;
use crate::ssh::{Running, operator, serve};
use crate::traffic::{answer, ask_tcp, serve_tcp};

const TARGET: &str = "10.3.0.99";

/// A variable of the inventory.
const PROBE: &str = "    nvactl_probe_via: \"{{ ansible_host }}\"\n";

/// Returns the path of `ansible-playbook`; `None` if it is not installed and need not be.
fn ansible() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/bin".into()]);
    let mut files = folders.map(|folder| folder.join("ansible-playbook"));
    let found = files.find(|file| file.is_file());
    assert!(
        found.is_some() || !is_required(),
        "`tests/run` installs Ansible"
    );
    found
}

/// A forward to the target, and more lines of forwards.
fn spec(port: u16, more: &str) -> String {
    format!(
        "firewall: {{interface: eth0, snat: masquerade}}
forwards:
  - {{name: web, listen: {port}, target: {{pod: \"10.3.0.99:80\"}}}}
{more}tests:
  - {{from: 10.3.0.1, to: {port}, reaches: \"10.3.0.99:80\"}}
"
    )
}

/// Ends the connections that ssh shares on the controller.
const CLOSE: &str = "
for socket in /run/home/.ansible/cp/* /run/home/jump; do
  if [ -S $socket ]; then ssh -q -O exit -S $socket any > /dev/null 2>&1 || true; fi
done
";

/// A variable of the inventory.
fn given(spec: &str) -> String {
    let text = serde_json::to_string(spec).expect("it is text");
    format!("    nvactl_spec: {text}\n")
}

/// A variable that the inventory of the example has in a comment.
fn commented(name: &str) -> String {
    let inventory = page("examples/ansible/inventory.yml");
    let start = format!("    # {name}: ");
    let line = inventory.lines().find(|line| line.starts_with(&start));
    line.expect("it has one").replace("# ", "") + "\n"
}

struct Fleet {
    controller: Host,
    target: Host,
    firewalls: Vec<Host>,
    _sshds: Vec<Running>,
}

impl Fleet {
    /// Builds a controller, a target and as many firewalls, on which `op` can log in with the controller's key.
    fn new(backend: Backend, count: usize) -> Self {
        let controller = Host::new();
        controller.shell(
            "ip link add br0 type bridge
             ip address add 10.3.0.1/24 dev br0
             ip link set br0 up
             mkdir -p /run/home",
        );
        let target = Host::new();
        let firewalls: Vec<Host> = (0..count).map(|_| host_with(backend)).collect();
        let hosts = firewalls.iter().zip(["10.3.0.4", "10.3.0.5", "10.3.0.6"]);
        for (host, address) in hosts.chain([(&target, TARGET)]) {
            let link = format!("to{}", host.pid());
            let (here, peer) = (controller.pid(), host.pid());
            controller.ip(
                "-4",
                &format!("link add {link} netns {here} type veth peer name eth0 netns {peer}\nlink set {link} master br0 up"),
            );
            host.ip(
                "-4",
                &format!("address add {address}/24 dev eth0\nlink set eth0 up\nroute add default via 10.3.0.1"),
            );
        }
        let mut config = String::from(
            "StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\nUser op\n",
        );
        let mut sshds = Vec::new();
        for (n, host) in firewalls.iter().enumerate() {
            host.run(&format!(
                "ln -s {} /run/bin/nvactl",
                env!("CARGO_BIN_EXE_nvactl")
            ));
            operator(host, "");
            sshds.push(serve(host));
            let _ = writeln!(
                config,
                "Host {name} {address}\n  HostName {address}\n  IdentityFile /proc/{pid}/root/run/ssh/user",
                name = Self::name(n),
                address = Self::address(n),
                pid = host.pid()
            );
        }
        write(&controller, "/etc/ssh/ssh_config", &config);
        controller.shell("printf '10.3.0.4 fw-a\\n10.3.0.5 fw-b\\n10.3.0.6 fw-c\\n' >> /etc/hosts");
        controller.shell(&format!(
            "ln -s {} /run/bin/nvactl",
            env!("CARGO_BIN_EXE_nvactl")
        ));
        serve_tcp(&target, "web", 80);
        Self {
            controller,
            target,
            firewalls,
            _sshds: sshds,
        }
    }

    fn name(n: usize) -> &'static str {
        ["fw-a", "fw-b", "fw-c"][n]
    }

    fn address(n: usize) -> &'static str {
        ["10.3.0.4", "10.3.0.5", "10.3.0.6"][n]
    }

    /// Loads a spec on every firewall, without Ansible, and turns forwarding on.
    fn apply(&self, spec: &str) {
        for host in &self.firewalls {
            for args in [&["apply", "-", "--no-trial"][..], &["sysctl", "enable"]] {
                let said = nvactl(host, args, spec);
                assert_eq!(said.code, 0, "{said:?}");
            }
        }
    }

    fn saved(&self) -> Vec<String> {
        self.firewalls.iter().map(save).collect()
    }

    /// Whether a change on a firewall waits for its confirmation.
    fn waits(&self, n: usize) -> bool {
        let status = nvactl(&self.firewalls[n], &["confirm", "--status"], "").stdout;
        let waits = status.contains("unless you confirm it");
        assert!(
            waits || status.contains("nothing is waiting for a confirmation"),
            "{status}"
        );
        waits
    }

    fn history(&self, n: usize) -> String {
        nvactl(&self.firewalls[n], &["history"], "").stdout
    }

    /// Writes an inventory of all firewalls with more lines of variables.
    fn inventory(&self, vars: &[&str]) {
        let mut text = String::from("firewalls:\n  hosts:\n");
        for n in 0..self.firewalls.len() {
            let (name, address) = (Self::name(n), Self::address(n));
            let _ = writeln!(text, "    {name}: {{ansible_host: {address}}}");
        }
        let vars = vars.concat();
        let _ = write!(
            text,
            "  vars:
    ansible_user: op
    ansible_python_interpreter: /usr/bin/python3
    nvactl_save: persist
    nvactl_connect_timeout_secs: 3
{vars}"
        );
        write(&self.controller, "/run/inventory.yml", &text);
    }

    /// Runs a script on the controller in a folder, with Ansible and the inventory.
    fn script(&self, ansible: &Path, folder: &Path, script: &str) -> Said {
        let script = format!(
            "ln -sf {} /run/bin/ansible-playbook
             export HOME=/run/home ANSIBLE_INVENTORY=/run/inventory.yml ANSIBLE_NOCOLOR=1
             cd {}
             {script}",
            ansible.display(),
            folder.display()
        );
        Said::from(self.controller.feed("bash", &["-ec", &script], ""))
    }

    /// Writes the spec for commands without Ansible.
    fn by_hand_spec(&self, spec: &str) {
        write(&self.controller, "/run/home/forward.yaml", spec);
    }

    /// Runs commands of the page on the controller, beside the spec.
    fn by_hand(&self, script: &str) -> Said {
        let script = format!("cd /run/home\n{script}");
        Said::from(self.controller.feed("bash", &["-c", &script], ""))
    }

    fn play(&self, ansible: &Path, args: &str) -> Said {
        let folder = root().join("examples/ansible");
        self.script(
            ansible,
            &folder,
            &format!("ansible-playbook firewalls.yml {args}"),
        )
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.controller.shell(CLOSE);
    }
}

/// Replaces a file. A link in its place may lead to a file of the machine that runs the tests.
fn write(host: &Host, path: &str, text: &str) {
    let script = format!("rm -f {path}; cat > {path}");
    let written = host.feed("sh", &["-ec", &script], text);
    assert!(written.status.success(), "{path}: {written:?}");
}

/// Returns the numbers of Ansible's last lines for a host: `changed` and `failed`.
#[track_caller]
fn recap(said: &Said, name: &str) -> (u32, u32) {
    let (_, recap) = said
        .stdout
        .split_once("PLAY RECAP")
        .unwrap_or_else(|| panic!("{said:?}"));
    let line = recap.lines().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("{name}: {recap}"));
    let number = |key: &str| {
        let (_, rest) = line.split_once(key).expect("it has the number");
        let digits = rest.split(' ').next().expect("a word follows");
        digits.parse().expect("it is a number")
    };
    (number("changed="), number("failed="))
}

/// Returns the code block of `docs/fleet.md` behind a marker.
fn of_fleet(marker: &str) -> String {
    block(&page("docs/fleet.md"), marker).to_owned()
}

lab_test!(either a_rollout_stops_at_the_first_firewall_that_fails);
fn a_rollout_stops_at_the_first_firewall_that_fails(backend: Backend) {
    let Some(ansible) = ansible() else { return };
    let fleet = Fleet::new(backend, 3);
    fleet.apply(&spec(8080, ""));
    let before = fleet.saved();
    // Rules cannot show it: the network behind the second firewall takes its packets.
    fleet.target.run("iptables -A INPUT -s 10.3.0.5 -j DROP");
    fleet.inventory(&[&given(&spec(8081, "")), PROBE]);
    let said = fleet.play(&ansible, "");
    assert_eq!(said.code, 2, "{said:?}");
    let after = fleet.saved();
    assert!(after[0].contains("--dport 8081"), "{said:?}");
    assert_eq!(recap(&said, "fw-a").1, 0, "{said:?}");
    let to = format!("{}:8081", Fleet::address(0));
    assert_eq!(
        fleet.controller.enter(move || ask_tcp(&to)),
        answer("web", "10.3.0.4")
    );

    let kept = fleet.firewalls[0].run("cat /etc/iptables/rules.v4");
    assert!(kept.contains("--dport 8081"), "{kept}");

    assert_eq!(after[1], before[1], "{said:?}");
    assert!(fleet.history(1).contains("it was cancelled"), "{said:?}");
    assert_eq!(recap(&said, "fw-b").1, 1, "{said:?}");
    let told = "Connect to every listen port from the controller: failed. undone: apply <stdin>";
    assert!(said.stdout.contains(told), "{said:?}");

    assert_eq!(after[2], before[2], "{said:?}");
    assert_eq!(fleet.history(2).lines().count(), 1, "it was never asked");
    assert_eq!(recap(&said, "fw-c"), (0, 0), "{said:?}");
}

lab_test!(either no_firewall_changes_if_another_cannot);
fn no_firewall_changes_if_another_cannot(backend: Backend) {
    let Some(ansible) = ansible() else { return };
    let fleet = Fleet::new(backend, 2);
    fleet.apply(&spec(8080, ""));
    let before = fleet.saved();
    fleet.inventory(&[&given(&spec(8081, "")), PROBE]);
    let second = &fleet.firewalls[1];
    let ends_at = |task: &str| {
        let said = fleet.play(&ansible, "");
        assert_ne!(said.code, 0, "{task}: {said:?}");
        let (_, told) = said
            .stdout
            .split_once(&format!("TASK [nvactl : {task}]"))
            .unwrap_or_else(|| panic!("{task}: {said:?}"));
        let told = told.to_owned();
        assert!(!told.contains("TASK ["), "{task} is the last one: {said:?}");
        assert_eq!(recap(&said, "fw-a").0, 0, "{said:?}");
        told
    };
    second.run("mv /run/bin/nvactl /run/nvactl");
    let told = ends_at("Require nvactl on the firewall");
    assert!(told.contains("No such file or directory"), "{told}");
    second.run("mv /run/nvactl /run/bin/nvactl");

    fleet.controller.run("mv /run/bin/nvactl /run/nvactl");
    ends_at("Require nvactl on the controller, for the probe");
    fleet.controller.run("mv /run/nvactl /run/bin/nvactl");

    // An earlier run was killed before it confirmed the change.
    let args = ["apply", "-", "--no-trial", "--confirm", "10m"];
    let said = nvactl(second, &args, &spec(8081, ""));
    assert_eq!(said.code, 0, "{said:?}");
    let told = ends_at("Require that no change waits for a confirmation");
    // Ansible breaks the line.
    let words: Vec<&str> = told.split_whitespace().collect();
    let told = words.join(" ");
    for part in [
        "(apply <stdin>) is loaded, and is undone in ",
        "To undo it now: sudo nvactl confirm --cancel",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(fleet.waits(1));
    nvactl(second, &["confirm", "--cancel"], "");

    fleet.controller.shell(CLOSE);
    second.run("iptables -I INPUT -p tcp --dport 22 -j REJECT --reject-with tcp-reset");
    let told = ends_at("Look for nvactl");
    assert!(told.contains("UNREACHABLE"), "{told}");
    second.run("iptables -D INPUT 1");
    assert_eq!(fleet.saved(), before);
}

lab_test!(either a_connection_that_breaks_during_apply_ends_the_rollout);
/// The change waits for the deadline, because Ansible does not rescue an unreachable host.
fn a_connection_that_breaks_during_apply_ends_the_rollout(backend: Backend) {
    let Some(ansible) = ansible() else { return };
    let fleet = Fleet::new(backend, 2);
    fleet.apply(&spec(8080, ""));
    let before = fleet.saved();
    fleet.inventory(&[&given(&spec(8081, ""))]);
    let first = &fleet.firewalls[0];
    let breaks = format!(
        r#"#!/bin/sh
{} "$@" || exit
test "$1" = apply || exit 0
pid=$$
while [ "$pid" -gt 1 ]; do
  case $(cat /proc/$pid/comm) in sshd*) kill -KILL "$pid"; exit ;; esac
  pid=$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$pid/status)
done
"#,
        env!("CARGO_BIN_EXE_nvactl")
    );
    first.run("rm /run/bin/nvactl");
    write(first, "/run/bin/nvactl", &breaks);
    first.run("chmod +x /run/bin/nvactl");
    let said = fleet.play(&ansible, "");
    assert_eq!(said.code, 4, "{said:?}");
    assert!(fleet.waits(0), "{said:?}");
    assert_eq!(fleet.saved()[1], before[1], "{said:?}");
    nvactl(first, &["confirm", "--cancel"], "");
    assert_eq!(fleet.saved(), before);
}

lab_test!(either a_change_that_keeps_new_ssh_out_is_undone);
/// Ansible's own connection outlives the change, and so would its answer.
fn a_change_that_keeps_new_ssh_out_is_undone(backend: Backend) {
    let Some(ansible) = ansible() else { return };
    let fleet = Fleet::new(backend, 1);
    fleet.apply(&spec(8080, ""));
    let before = fleet.saved();
    // Nothing listens there.
    let taken =
        "  - {name: shell, listen: 22, target: {pod: \"10.3.0.99:22\"}, silence: [takes-ssh]}\n";
    fleet.inventory(&[&given(&spec(8080, taken))]);
    let said = fleet.play(&ansible, "");
    assert_eq!(said.code, 2, "{said:?}");
    let told = "Open a new SSH connection: failed. undone: apply <stdin>";
    assert!(said.stdout.contains(told), "{said:?}");
    assert_eq!(fleet.saved(), before, "{said:?}");
}

lab_test!(either a_change_that_keeps_everybody_from_the_jump_host_is_undone);
/// The firewall forwards a port to the jump host over which Ansible comes. ~/.ssh/config shares connections to it.
fn a_change_that_keeps_everybody_from_the_jump_host_is_undone(backend: Backend) {
    let Some(ansible) = ansible() else { return };
    let fleet = Fleet::new(backend, 1);
    operator(&fleet.target, "");
    let _sshd = serve(&fleet.target);
    let jump = "  - {name: jump, listen: 2222, target: {pod: \"10.3.0.99:22\"}}\n";
    fleet.apply(&spec(8080, jump));
    let before = fleet.saved();
    let config = fleet.controller.run("cat /etc/ssh/ssh_config");
    let config = format!(
        "Host jump.example.com
  HostName 10.3.0.4
  Port 2222
  IdentityFile /proc/{}/root/run/ssh/user
  ControlMaster auto
  ControlPersist 60
  ControlPath /run/home/jump
Host *
  {config}",
        fleet.target.pid()
    );
    write(&fleet.controller, "/etc/ssh/ssh_config", &config);
    // The connection that others share.
    fleet
        .controller
        .shell("ssh op@jump.example.com true < /dev/null > /dev/null 2>&1");
    assert!(fleet.controller.exists("/run/home/jump"));
    // The line that the inventory of the example has for a jump host.
    let line = commented("ansible_ssh_common_args").replace("azureuser@", "op@");
    fleet.inventory(&[&given(&spec(8080, "")), &line]);
    let said = fleet.play(&ansible, "");
    assert_eq!(said.code, 2, "{said:?}");
    let told = "Open a new SSH connection: failed. undone: apply <stdin>";
    assert!(said.stdout.contains(told), "{said:?}");
    assert_eq!(fleet.saved(), before, "{said:?}");
}

/// Returns the script of the workflow's steps. The runner knows nothing but the key and the host's key of the workflow.
fn rollout(host: &Host) -> String {
    // The workflow's spec is the file that another one checks.
    let workflow = |name: &str| -> Value {
        serde_yaml::from_str(&page(&format!("examples/github/{name}"))).expect("it is YAML")
    };
    let checked = &workflow("forwards.yml")["on"]["pull_request"]["paths"];
    assert_eq!(*checked, Value::from(vec!["forward.yaml"]));
    let workflow = workflow("rollout.yml");
    let paths = workflow["on"]["push"]["paths"].as_sequence();
    assert!(
        paths
            .expect("it has paths")
            .contains(&"forward.yaml".into())
    );
    let steps = workflow["jobs"]["rollout"]["steps"]
        .as_sequence()
        .expect("it has steps");
    let step = |name: &str| {
        let step = steps.iter().find(|step| step["name"] == name).expect(name);
        let mut script = String::new();
        for (name, value) in step["env"].as_mapping().into_iter().flatten() {
            let (name, value) = (
                name.as_str().expect("a word"),
                value.as_str().expect("text"),
            );
            if !value.starts_with("${{ secrets.") && !value.starts_with("${{ vars.") {
                let value = value.replace("${{ runner.temp }}", "/run/temp");
                let _ = writeln!(script, "export {name}='{value}'");
            }
        }
        script + step["run"].as_str().expect("it runs something")
    };
    let runner = format!(
        "mkdir -p /run/temp
         export RUNNER_TEMP=/run/temp ANSIBLE_SSH_COMMON_ARGS='-F none'
         export SSH_KEY=\"$(cat /proc/{pid}/root/run/ssh/user)\"
         export KNOWN_HOSTS=\"{address} $(cut -d' ' -f1,2 /proc/{pid}/root/run/ssh/host.pub)\"
         {CLOSE}",
        pid = host.pid(),
        address = Fleet::address(0)
    );
    [
        runner,
        step("Key"),
        step("Roll out"),
        step("Remove the key"),
    ]
    .join("\n")
}

lab_test!(either a_new_firewall_gets_rules_and_then_nothing_changes);
/// The commands of the page, and then those of the workflow.
fn a_new_firewall_gets_rules_and_then_nothing_changes(backend: Backend) {
    let Some(ansible) = ansible() else { return };
    let fleet = Fleet::new(backend, 1);
    let host = &fleet.firewalls[0];
    install(host);
    // The spec is the example's own, and the target is its pod. The rules are kept as the role does by default.
    fleet.inventory(&[]);
    fleet
        .controller
        .run("sed -i /nvactl_save/d /run/inventory.yml");
    fleet.target.run("ip address add 10.224.0.118/32 dev eth0");
    host.run("ip route add 10.224.0.0/16 via 10.3.0.99");
    let commands = of_fleet("fleet: ansible").replace(
        "/usr/share/doc/nvactl",
        root().to_str().expect("it is UTF-8"),
    );
    let (check, play) = commands.split_once("--check").expect("it looks first");
    let empty = save(host);
    let said = fleet.script(&ansible, Path::new("/run/home"), &format!("{check}--check"));
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.contains("+ web "), "{said:?}");
    assert_eq!(recap(&said, "fw-a").1, 0, "{said:?}");
    assert!(recap(&said, "fw-a").0 > 0, "{said:?}");
    assert_eq!(save(host), empty);
    assert!(!host.exists("/etc/nvactl"));

    let folder = Path::new("/run/home/ansible");
    let template = "/run/home/ansible/templates/forward.yaml.j2";
    let quoted = "# {% raw %}{{ not Jinja }}{% endraw %}";
    fleet
        .controller
        .shell(&format!("echo '{quoted}' >> {template}"));
    let said = fleet.script(&ansible, folder, play);
    assert_eq!(said.code, 0, "{said:?}");
    let is_forwarded = || {
        let to = format!("{}:49182", Fleet::address(0));
        let asked = fleet.controller.enter(move || ask_tcp(&to));
        assert_eq!(asked, answer("web", "10.3.0.4"));
    };
    is_forwarded();
    let kept = host.run("cat /etc/nvactl/forward.yaml /etc/sysctl.d/99-nvactl.conf");
    for part in ["reaches: ", "{{ not Jinja }}", "ip_forward = 1"] {
        assert!(kept.contains(part), "{part}: {kept}");
    }
    let unit = host.path("/etc/systemd/system/sysinit.target.wants/nvactl.service");
    assert!(unit.symlink_metadata().is_ok(), "{said:?}");
    let booted = boot(host);
    assert_eq!(booted.code, 0, "{booted:?}");
    is_forwarded();
    assert!(
        nvactl(host, &["confirm", "--status"], "")
            .stdout
            .contains("nothing is waiting for a confirmation")
    );

    fleet.controller.run(&format!("rm {template}"));
    fleet.inventory(&[&commented("nvactl_spec")]);
    let reviewed = spec(8081, "") + "description: \"{{ not Jinja }}\"\n";
    fleet.by_hand_spec(&reviewed);

    let rollout = rollout(host);
    let said = fleet.script(&ansible, folder, &rollout);
    assert_eq!((said.code, recap(&said, "fw-a").1), (0, 0), "{said:?}");
    let kept = host.run("cat /etc/nvactl/forward.yaml");
    assert_eq!(kept, reviewed, "{said:?}");
    assert!(save(host).contains("--dport 8081"), "{said:?}");
    let said = fleet.script(&ansible, folder, &rollout);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(recap(&said, "fw-a"), (0, 0), "{said:?}");
    assert!(!fleet.controller.exists("/run/temp/key"));
}

lab_test!(either the_report_of_a_pair_counts_the_first_one);
fn the_report_of_a_pair_counts_the_first_one(backend: Backend) {
    let fleet = Fleet::new(backend, 2);
    fleet.apply(&spec(8080, ""));
    let compared = || fleet.by_hand(&of_fleet("fleet: compare"));
    fleet.by_hand_spec(&spec(8080, ""));
    let said = compared();
    let same = said.stdout.matches("the same as").count();
    assert_eq!((said.code, same), (0, 2), "{said:?}");

    let first = &fleet.firewalls[0];
    let only_the_first = |said: &Said| {
        assert_eq!(said.code, 1, "{said:?}");
        let told = "different, or not read: fw-a\n";
        assert!(said.stderr.ends_with(told), "{said:?}");
    };
    fake(first, "ip6tables-save", "exit 1");
    only_the_first(&compared());
    unfake(first, "ip6tables-save");

    let refused = "-p tcp --dport 22 -j REJECT --reject-with tcp-reset";
    first.run(&format!("iptables -I INPUT {refused}"));
    only_the_first(&compared());
    first.run(&format!("iptables -D INPUT {refused}"));

    let said = nvactl(first, &["apply", "-", "--no-trial"], &spec(8081, ""));
    assert_eq!(said.code, 0, "{said:?}");
    let said = compared();
    only_the_first(&said);
    assert!(said.stdout.contains("listen 8081 → 8080"), "{said:?}");
}

lab_test!(either a_firewall_without_nvactl_is_named);
fn a_firewall_without_nvactl_is_named(backend: Backend) {
    let Some(ansible) = ansible() else { return };
    let fleet = Fleet::new(backend, 2);
    fleet.inventory(&[&given(&spec(8080, ""))]);
    fleet.firewalls[1].run("rm /run/bin/nvactl");
    for args in ["--check", ""] {
        let said = fleet.play(&ansible, args);
        assert_eq!(said.code, 2, "{said:?}");
        for words in [
            "nvactl does not run on fw-b: ",
            "secure_path",
            "apt-get install",
        ] {
            assert!(said.stdout.contains(words), "{words}: {said:?}");
        }
        assert_eq!(recap(&said, "fw-a").1, 0, "{said:?}");
    }
    assert_eq!(fleet.history(0).lines().count(), 1, "it was never asked");
}

lab_test!(either forwarding_is_kept_only_after_the_rules);
/// A boot that forwards without rules forwards everything.
fn forwarding_is_kept_only_after_the_rules(backend: Backend) {
    let Some(ansible) = ansible() else { return };
    let fleet = Fleet::new(backend, 1);
    let host = &fleet.firewalls[0];
    fleet.inventory(&[&given(&spec(8080, "")), PROBE]);
    host.shell("mkdir -p /etc/iptables && mount -t tmpfs -o ro tmpfs /etc/iptables");
    let said = fleet.play(&ansible, "");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(
        said.stdout.contains("Keep the rules for the next boot"),
        "{said:?}"
    );
    assert!(save(host).contains("--dport 8080"), "{said:?}");
    assert!(!host.exists("/etc/sysctl.d/99-nvactl.conf"), "{said:?}");

    host.run("umount /etc/iptables");
    let said = fleet.play(&ansible, "");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(host.exists("/etc/sysctl.d/99-nvactl.conf"), "{said:?}");
    let said = fleet.play(&ansible, "");
    assert_eq!((said.code, recap(&said, "fw-a")), (0, (0, 0)), "{said:?}");
}

lab_test!(either ipv6_forwards_on_a_firewall_that_forwards_ipv4);
/// Variables of the command line are text, and the spec has an empty list of tests.
fn ipv6_forwards_on_a_firewall_that_forwards_ipv4(backend: Backend) {
    let Some(ansible) = ansible() else { return };
    let fleet = Fleet::new(backend, 1);
    let host = &fleet.firewalls[0];
    fleet.apply(&spec(8080, ""));
    let said = nvactl(host, &["sysctl", "enable", "--persist"], "");
    assert_eq!(said.code, 0, "{said:?}");
    let more = "  - {name: web6, listen: 8080, target: {pod: \"[fd00:3::99]:80\"}}\n";
    let spec = spec(8080, more);
    let (spec, _) = spec.split_once("tests:").expect("it has tests");
    fleet.inventory(&[&given(&format!("{spec}tests: []\n")), PROBE]);
    let vars = "-e nvactl_confirm_secs=120 -e nvactl_connect_timeout_secs=4";
    let said = fleet.play(&ansible, vars);
    assert_eq!(said.code, 0, "{said:?}");
    let switch = host.run("cat /proc/sys/net/ipv6/conf/all/forwarding");
    assert_eq!(switch.trim(), "1", "{said:?}");
    let kept = host.run("cat /etc/sysctl.d/99-nvactl.conf");
    assert!(kept.contains("net.ipv6.conf.all.forwarding = 1"), "{kept}");
    let said = fleet.play(&ansible, vars);
    assert_eq!((said.code, recap(&said, "fw-a")), (0, (0, 0)), "{said:?}");
}

lab_test!(either a_pair_changes_one_after_the_other);
/// The page's commands without Ansible.
fn a_pair_changes_one_after_the_other(backend: Backend) {
    let fleet = Fleet::new(backend, 2);
    fleet.apply(&spec(8080, ""));
    let before = fleet.saved();
    fleet.by_hand_spec(&spec(8081, ""));
    let compare = of_fleet("fleet: compare");
    let said = fleet.by_hand(&compare);
    assert_eq!(
        said.stdout.matches("listen 8080 → 8081").count(),
        2,
        "{said:?}"
    );

    fleet.target.run("iptables -A INPUT -s 10.3.0.5 -j DROP");
    let said = fleet.by_hand(&of_fleet("fleet: pair"));
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.stdout.contains("confirmed: apply <stdin> stays"),
        "{said:?}"
    );
    assert!(fleet.saved()[0].contains("--dport 8081"), "{said:?}");
    assert!(fleet.waits(1));
    nvactl(&fleet.firewalls[1], &["confirm", "--cancel"], "");
    assert_eq!(fleet.saved()[1], before[1]);

    fleet.target.run("iptables -F INPUT");
    let said = fleet.by_hand(&of_fleet("fleet: pair"));
    assert_eq!(said.code, 0, "{said:?}");
    let said = fleet.by_hand(&compare);
    let same = said.stdout.matches("the same as").count();
    assert_eq!((said.code, same), (0, 2), "{said:?}");
}

lab_test!(either a_second_run_goes_on_where_the_first_one_failed);
/// The first VM fails, and the script runs again before the deadline. Later it fails to save the rules.
fn a_second_run_goes_on_where_the_first_one_failed(backend: Backend) {
    let fleet = Fleet::new(backend, 2);
    fleet.apply(&spec(8080, ""));
    let before = fleet.saved();
    fleet.by_hand_spec(&spec(8081, ""));
    let pair = of_fleet("fleet: pair");
    fleet.target.run("iptables -A INPUT -s 10.3.0.4 -j DROP");
    let said = fleet.by_hand(&pair);
    assert_eq!(said.code, 1, "{said:?}");

    fleet.target.run("iptables -F INPUT");
    let said = fleet.by_hand(&pair);
    assert_eq!(said.code, 2, "{said:?}");
    let told = "unless you confirm it; nothing else can change until it is confirmed or undone";
    assert!(said.stderr.contains(told), "{said:?}");
    assert!(fleet.waits(0), "it is not confirmed: {said:?}");
    assert_eq!(fleet.saved()[1], before[1], "{said:?}");

    // A folder in the file's place.
    let first = &fleet.firewalls[0];
    first.run("mkdir -p /etc/iptables/rules.v4/full");
    let page = page("docs/fleet.md");
    let (_, cancel) = page
        .split_once("undo it at once with `")
        .expect("the page names it");
    let (cancel, _) = cancel.split_once('`').expect("it ends");
    let said = fleet.by_hand(cancel);
    assert_eq!(said.code, 0, "{said:?}");
    let said = fleet.by_hand(&pair);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(fleet.saved()[0].contains("--dport 8081"), "{said:?}");
    assert!(!fleet.waits(0), "it is confirmed: {said:?}");
    assert_eq!(fleet.saved()[1], before[1], "{said:?}");

    first.run("rm -r /etc/iptables/rules.v4");
    let said = fleet.by_hand(&pair);
    assert_eq!(said.code, 0, "{said:?}");
    for host in &fleet.firewalls {
        let kept = host.run("cat /etc/iptables/rules.v4");
        assert!(kept.contains("--dport 8081"), "{kept}");
        assert!(save(host).contains("--dport 8081"), "{said:?}");
    }
    assert!(!fleet.waits(1), "{said:?}");
}

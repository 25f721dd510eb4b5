//! An operator's own session that goes dark, by a real sshd.

use std::process::{Child, Stdio};

use crate::lab::{Backend, FIREWALL, Lab, save};
use crate::lifecycle::{SPEC, apply};
use crate::namespace::{Host, wait_for};

const NVACTL: &str = env!("CARGO_BIN_EXE_nvactl");

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts sshd on a host, with a key that opens it, and gives its process.
fn serve_ssh(host: &Host) -> Running {
    // An account without a password that is not locked, in the host's own /etc.
    host.shell(
        "mkdir -p /run/sshd /run/ssh
         sed -i 's/^root:[^:]*:/root:*:/' /etc/shadow
         ssh-keygen -q -t ed25519 -N '' -f /run/ssh/host
         ssh-keygen -q -t ed25519 -N '' -f /run/ssh/user",
    );
    let sshd = host.run("which sshd");
    let mut command = host.command(sshd.trim());
    command
        .args(["-D", "-e", "-f", "/dev/null"])
        .args(["-o", "HostKey=/run/ssh/host"])
        .args(["-o", "AuthorizedKeysFile=/run/ssh/user.pub"])
        .args(["-o", "StrictModes=no", "-o", "PidFile=none"])
        .stderr(Stdio::null());
    Running(command.spawn().expect("it starts"))
}

/// A command line that runs a command on the firewall, from the client.
fn ssh(lab: &Lab, command: &str) -> String {
    let key = format!("/proc/{}/root/run/ssh/user", lab.firewall.pid());
    format!(
        "ssh -q -tt -i {key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
         -o ConnectTimeout=5 root@{FIREWALL} '{command}'"
    )
}

/// No packet of the session comes through any more, and none says that it has ended.
pub fn a_session_that_went_dark_is_undone(backend: Backend) {
    let lab = Lab::one_nic(backend);
    let _sshd = serve_ssh(&lab.firewall);
    wait_for("sshd listens", || {
        lab.firewall.run("ss -Htln sport = 22").contains(":22")
    });
    apply(&lab.firewall, SPEC);
    let before = save(&lab.firewall);
    let changed = SPEC.replace("49182", "49183");
    let written = lab
        .firewall
        .feed("sh", &["-c", "cat > /run/spec.yaml"], &changed);
    assert!(written.status.success());

    let command = format!(
        "PATH=/run/bin:/usr/sbin:/usr/bin:/sbin:/bin {NVACTL} apply /run/spec.yaml --confirm 5"
    );
    let line = ssh(&lab, &command);
    let mut ssh_command = lab.client.command("sh");
    ssh_command
        .args(["-c", &format!("exec {line} > /run/seen 2>&1")])
        .stdin(Stdio::piped());
    let mut session = Running(ssh_command.spawn().expect("it starts"));
    wait_for("it asks", || {
        lab.client
            .shell("cat /run/seen 2>/dev/null || true")
            .contains("keep it? [y/N]")
    });
    assert_ne!(save(&lab.firewall), before);
    lab.client.run("ip link set eth0 down");
    wait_for("the old rules are back", || save(&lab.firewall) == before);
    // Neither side knows that nobody is there any more.
    assert!(session.0.try_wait().expect("it can be asked").is_none());
    assert!(
        lab.firewall
            .run("ss -Htn state established sport = 22")
            .contains(crate::lab::CLIENT)
    );

    lab.client.run("ip link set eth0 up");
    lab.client
        .shell("ip route replace 198.51.100.1 dev eth0; ip route replace default via 198.51.100.1");
    let status = format!("{NVACTL} confirm --status");
    let said = lab.client.shell(&ssh(&lab, &status));
    assert!(
        said.starts_with("nothing is waiting for a confirmation"),
        "{said}"
    );
    assert!(said.contains("nobody confirmed it in time"), "{said}");
}

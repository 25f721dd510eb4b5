//! An sshd on the firewall, and `confirm --new-session` through it and through sudo.

use std::process::{Child, Stdio};

use crate::firewall::SPEC;
use crate::lab::{Backend, CLIENT, FIREWALL, Lab, Said, save};
use crate::namespace::{Host, wait_for};

const NVACTL: &str = env!("CARGO_BIN_EXE_nvactl");

/// A program that ends with the test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts sshd on a host, with a key that opens every account, and waits until it listens.
pub fn serve(host: &Host) -> Running {
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
        .args(["-o", "Subsystem=sftp internal-sftp"])
        .stderr(Stdio::null());
    let sshd = Running(command.spawn().expect("it starts"));
    wait_for("sshd listens", || {
        host.run("ss -Htln sport = 22").contains(":22")
    });
    sshd
}

/// Makes the account `op`, which may do everything by sudo. `defaults` are more lines for sudo's rules.
pub fn operator(host: &Host, defaults: &str) {
    host.shell(&format!(
        "echo 'op:x:4000:4000::/run/op:/bin/sh' >> /etc/passwd
         echo 'op:x:4000:' >> /etc/group
         echo 'op:*:19000:0:99999:7:::' >> /etc/shadow
         install -d -o 4000 -g 4000 /run/op
         cat > /etc/sudoers.d/op <<'END'
Defaults secure_path=/run/bin:/usr/sbin:/usr/bin:/sbin:/bin
op ALL=(ALL) NOPASSWD: ALL
{defaults}
END
         chmod 0440 /etc/sudoers.d/op"
    ));
}

/// Returns a command line for a client that runs a command on the firewall.
pub fn line(lab: &Lab, account: &str, options: &str, command: &str) -> String {
    let key = format!("/proc/{}/root/run/ssh/user", lab.firewall.pid());
    format!(
        "ssh -q {options} -i {key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
         -o ConnectTimeout=5 {account}@{FIREWALL} '{command}'"
    )
}

/// A firewall with sshd and an account `op`, which may do everything by sudo.
struct Remote {
    lab: Lab,
    _sshd: Running,
}

const ALONE: &str = "-S none";
const SHARED: &str = "-S /run/master";

impl Remote {
    /// `defaults` are more lines for sudo's rules.
    fn new(backend: Backend, defaults: &str) -> Self {
        let lab = Lab::one_nic(backend);
        let sshd = serve(&lab.firewall);
        operator(&lab.firewall, defaults);
        let remote = Self { lab, _sshd: sshd };
        remote.write("spec.yaml", SPEC);
        remote
    }

    fn write(&self, name: &str, text: &str) {
        let script = format!("cat > /run/op/{name}");
        let written = self.lab.firewall.feed("sh", &["-c", &script], text);
        assert!(written.status.success(), "{written:?}");
    }

    /// Runs a command by ssh.
    fn ssh(&self, options: &str, command: &str) -> Said {
        let line = line(&self.lab, "op", options, command);
        Said::from(self.lab.client.feed("sh", &["-c", &line], ""))
    }

    /// Runs a script that an ssh session left behind, as a tmux server is, with its environment.
    fn left_behind(&self, script: &str) -> Said {
        self.write("script", script);
        self.write(
            "orphan",
            "rm -f go code
             until [ -e go ]; do sleep 0.02; done
             sh script > out 2> err
             echo $? > code.new
             mv code.new code",
        );
        self.lab.firewall.run("rm -f /run/op/go /run/op/code");
        let said = self.ssh(ALONE, "setsid -f sh orphan < /dev/null > /dev/null 2>&1");
        assert_eq!(said.code, 0, "{said:?}");
        // The session has ended by now, and its sshd.
        let host = &self.lab.firewall;
        wait_for("it runs", || {
            host.shell("touch /run/op/go");
            host.exists("/run/op/code")
        });
        Said {
            code: host.run("cat /run/op/code").trim().parse().expect("a code"),
            stdout: host.run("cat /run/op/out"),
            stderr: host.run("cat /run/op/err"),
        }
    }

    /// The change still waits, and its rules are loaded.
    fn waits(&self) {
        let said = self.lab.nvactl(&["confirm", "--status"]);
        assert!(said.stdout.contains("unless you confirm it"), "{said:?}");
        assert!(save(&self.lab.firewall).contains("49182"));
    }
}

fn apply() -> String {
    format!("sudo -n {NVACTL} apply spec.yaml --confirm 5m")
}

fn confirm() -> String {
    format!("sudo -n {NVACTL} confirm --new-session")
}

#[track_caller]
fn refused(said: &Said, reason: &str, hint: &str) {
    assert_eq!((said.code, said.stdout.as_str()), (2, ""), "{said:?}");
    let error = format!("error: {reason}");
    assert!(said.stderr.starts_with(&error), "{said:?}");
    let waits = said.stderr.contains("; not confirmed, ") && said.stderr.contains(" s left\n");
    assert!(waits, "{said:?}");
    assert!(said.stderr.ends_with(&format!("{hint}\n")), "{said:?}");
}

const NEW_SESSION: &str = "ssh -t -S none HOST sudo nvactl confirm --new-session";
const SAME: &str = "this session uses the SSH connection that applied the change, `";

lab_test!(either only_a_new_connection_confirms);
fn only_a_new_connection_confirms(backend: Backend) {
    // sudo takes SSH_CONNECTION out of the environment, unless it is told to keep it.
    for defaults in ["", "Defaults env_keep += SSH_CONNECTION"] {
        let remote = Remote::new(backend, defaults);
        // A shell between: the last command of a line has sshd's own child as its parent.
        let both = format!("{} && {}; exit $?", apply(), confirm());
        let said = remote.ssh(ALONE, &both);
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.stdout.contains("unless you confirm it"), "{said:?}");
        let (advice, error) = said.stderr.split_once("error: ").expect("it is refused");
        assert!(advice.contains("only a new connection proves"), "{said:?}");
        assert!(advice.contains(NEW_SESSION), "{said:?}");
        assert!(error.starts_with(&format!("{SAME}{CLIENT} ")), "{said:?}");
        remote.waits();

        let said = remote.ssh(ALONE, &confirm());
        let confirmed = "confirmed: apply spec.yaml stays\n";
        assert_eq!(
            (said.code, said.stdout.as_str()),
            (0, confirmed),
            "{said:?}"
        );
        assert!(!said.stderr.contains("warning"), "{said:?}");
        assert!(save(&remote.lab.firewall).contains("49182"));
    }
}

lab_test!(either a_shared_connection_is_not_a_new_one);
fn a_shared_connection_is_not_a_new_one(backend: Backend) {
    let remote = Remote::new(backend, "");
    let line = line(&remote.lab, "op", &format!("-M -N {SHARED}"), "");
    let mut master = remote.lab.client.command("sh");
    master.args(["-c", &format!("exec {}", line.trim_end_matches(" ''"))]);
    let _master = Running(master.spawn().expect("it starts"));
    wait_for("the master is there", || {
        let check = format!("ssh {SHARED} -O check op@{FIREWALL}");
        let said = remote.lab.client.feed("sh", &["-c", &check], "");
        said.status.success()
    });
    let said = remote.ssh(SHARED, &apply());
    assert_eq!(said.code, 0, "{said:?}");
    let said = remote.ssh(SHARED, &confirm());
    refused(&said, &format!("{SAME}{CLIENT} "), NEW_SESSION);
    remote.waits();
    // The hint's own options.
    let said = remote.ssh(ALONE, &confirm());
    assert_eq!(said.code, 0, "{said:?}");
}

lab_test!(either only_a_connection_of_sshd_counts);
fn only_a_connection_of_sshd_counts(backend: Backend) {
    let remote = Remote::new(backend, "");
    let said = remote.ssh(ALONE, &apply());
    assert_eq!(said.code, 0, "{said:?}");
    let said = remote.left_behind(&confirm());
    let unknown = "no sshd started this session (tmux or the console)";
    refused(&said, unknown, NEW_SESSION);

    // A process that a user names sshd, and a variable that he makes up.
    remote.write(
        "inner",
        "env SSH_CONNECTION='192.0.2.1 9 10.3.0.4 22' sh innermost; exit $?",
    );
    remote.write("innermost", &format!("{}; exit $?", confirm()));
    let said = remote.left_behind("cp /bin/sh sshd; ./sshd inner; exit $?");
    refused(&said, unknown, NEW_SESSION);
    let made_up =
        format!("sudo -n SSH_CONNECTION='192.0.2.1 9 10.3.0.4 22' {NVACTL} confirm --new-session");
    refused(&remote.left_behind(&made_up), unknown, NEW_SESSION);
    remote.waits();

    let said = remote.ssh(ALONE, &format!("sudo -n {NVACTL} confirm --cancel"));
    assert_eq!(said.code, 0, "{said:?}");
    let said = remote.left_behind(&apply());
    assert_eq!(said.code, 0, "{said:?}");
    let plain = "ssh -t -S none HOST sudo nvactl confirm";
    assert!(said.stderr.ends_with(&format!("{plain}\n")), "{said:?}");
    let unknown = "no sshd started the session that applied the change";
    refused(&remote.ssh(ALONE, &confirm()), unknown, plain);
    let unknown = "no sshd started this session, nor the one that applied the change";
    refused(&remote.left_behind(&confirm()), unknown, plain);
    remote.waits();
    let said = remote.ssh(ALONE, &format!("sudo -n {NVACTL} confirm"));
    assert_eq!(said.code, 0, "{said:?}");
}

lab_test!(either a_connection_from_the_machine_itself_is_a_warning);
fn a_connection_from_the_machine_itself_is_a_warning(backend: Backend) {
    let remote = Remote::new(backend, "");
    let said = remote.ssh(ALONE, &apply());
    assert_eq!(said.code, 0, "{said:?}");
    let line = line(&remote.lab, "op", ALONE, &confirm());
    let said = Said::from(remote.lab.firewall.feed("sh", &["-c", &line], ""));
    assert_eq!(said.code, 0, "{said:?}");
    let warning = "warning: this SSH connection comes from the machine itself";
    assert!(said.stderr.contains(warning), "{said:?}");
}

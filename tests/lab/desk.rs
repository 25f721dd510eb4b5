//! An operator's two machines: a desk, and the lab's firewall, where `op` logs in by ssh and is root by sudo.

use crate::lab::{Backend, FIREWALL, Lab, Said};
use crate::ssh::{Running, operator, serve};

/// The public address that the pages use.
pub const FRONT_END: &str = "203.0.113.7";

pub struct Desk {
    pub lab: Lab,
    _sshd: Running,
}

impl Desk {
    /// Builds a lab with one NIC whose client is the desk. Its name for the firewall is `fw`, as on the pages, and the router
    /// translates the front end's address to the firewall's, as Azure does.
    pub fn new(backend: Backend) -> Self {
        let lab = Lab::one_nic(backend);
        operator(&lab.firewall, "");
        let sshd = serve(&lab.firewall);
        lab.vnet.run(&format!(
            "iptables -t nat -A PREROUTING -d {FRONT_END} -j DNAT --to-destination {FIREWALL}"
        ));
        let nvactl = env!("CARGO_BIN_EXE_nvactl");
        // `op` need not be able to search the folders that lead to the built one.
        lab.firewall.shell(&format!(
            "touch /run/bin/nvactl; mount --bind {nvactl} /run/bin/nvactl"
        ));
        lab.client.shell(&format!(
            "ln -s {nvactl} /run/bin/nvactl
             mkdir /run/desk
             cat > /run/ssh_config <<END
Host fw
  HostName {FIREWALL}
  User op
  IdentityFile /proc/{}/root/run/ssh/user
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
  ConnectTimeout 5
END
             mount --bind /run/ssh_config /etc/ssh/ssh_config",
            lab.firewall.pid()
        ));
        Self { lab, _sshd: sshd }
    }

    /// Runs a script at the desk.
    pub fn here(&self, script: &str) -> Said {
        let script = format!("cd /run/desk\n{script}");
        Said::from(self.lab.client.feed("sh", &["-euc", &script], ""))
    }

    /// Runs a script on the firewall in a session of ssh, in the home folder of `op`.
    pub fn on_firewall(&self, script: &str) -> Said {
        self.write("/run/op/script", script);
        self.here("ssh -S none fw 'PATH=/run/bin:/usr/sbin:$PATH exec sh -eu script' < /dev/null")
    }

    /// Writes a file on the firewall, which everybody may read.
    pub fn write(&self, path: &str, text: &str) {
        let script = format!("mkdir -p $(dirname {path}) && cat > {path} && chmod 644 {path}");
        let written = self.lab.firewall.feed("sh", &["-euc", &script], text);
        assert!(written.status.success(), "{path}: {written:?}");
    }
}

//! Reads the files in which people and programs leave commands that add rules at boot, and the scripts and rules that
//! these files name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::file;
use super::folder;
use super::persistence::rules_file;
use crate::net::Family;

/// The files that may hold such commands, and folders of such files.
const FILES: [&str; 8] = [
    "/etc/rc.local",
    "/etc/crontab",
    "/etc/network/interfaces",
    "/etc/ufw/before.rules",
    "/etc/ufw/before6.rules",
    "/etc/ufw/after.rules",
    "/etc/ufw/after6.rules",
    "/var/lib/cloud/instance/user-data.txt",
];
const FOLDERS: [&str; 11] = [
    WIREGUARD,
    "/etc/systemd/system",
    "/etc/cron.d",
    "/var/spool/cron/crontabs",
    "/etc/NetworkManager/dispatcher.d",
    "/etc/networkd-dispatcher/routable.d",
    "/etc/ppp/ip-up.d",
    "/etc/network/if-up.d",
    "/etc/network/if-pre-up.d",
    "/etc/network/interfaces.d",
    "/etc/cloud/cloud.cfg.d",
];
const WIREGUARD: &str = "/etc/wireguard";

/// A longer file is no list of commands.
const MOST_BYTES: usize = 1 << 20;

/// The most files to read.
const MOST_FILES: usize = 1_000;

/// A file with commands that may add rules at boot.
#[derive(Debug, Clone)]
pub struct BootText {
    pub path: String,
    pub text: String,
    /// The interface that wg-quick puts in place of `%i`.
    pub interface: Option<String>,
}

/// Reads these files, and the files that they name. Those that are not there or cannot be read are left out.
#[must_use]
pub fn boot_texts() -> Vec<BootText> {
    let mut paths: Vec<PathBuf> = FILES.iter().map(PathBuf::from).collect();
    for folder in FOLDERS {
        let names = folder::names(Path::new(folder)).unwrap_or_default();
        paths.extend(names.iter().map(|name| Path::new(folder).join(name)));
    }
    // `nvactl persist` writes them anew.
    let mut known: BTreeSet<PathBuf> = Family::ALL.map(rules_file).map(PathBuf::from).into();
    let mut texts: Vec<BootText> = Vec::new();
    while !paths.is_empty() && texts.len() < MOST_FILES {
        paths.retain(|path| known.insert(path.clone()));
        let new: Vec<BootText> = paths.iter().filter_map(|path| read(path)).collect();
        let named = new.iter().flat_map(|one| named_files(&one.text));
        paths = named.map(PathBuf::from).collect();
        texts.extend(new);
    }
    texts
}

fn read(path: &Path) -> Option<BootText> {
    let bytes = file::read_regular(path, MOST_BYTES).ok()??;
    let name = path.file_stem()?.to_string_lossy();
    (!bytes.contains(&0)).then(|| BootText {
        path: path.to_string_lossy().into_owned(),
        text: String::from_utf8_lossy(&bytes).into_owned(),
        interface: path.starts_with(WIREGUARD).then(|| name.into_owned()),
    })
}

/// Returns the files that the commands of a text may run or load: the absolute paths in them. A file that a command
/// writes is none of these.
fn named_files(text: &str) -> impl Iterator<Item = &str> {
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let commands = lines.flat_map(|line| line.split([';', '&', '|']));
    let commands = commands.filter(|command| !command.contains("tables-save"));
    let read = commands.filter_map(|command| command.split('>').next());
    let words = read.flat_map(|command| {
        command.split(|c: char| c.is_whitespace() || "<='\"`()[]{},".contains(c))
    });
    // systemd.service(5): characters before the path of a program.
    let words = words.map(|word| word.trim_start_matches(['@', '-', ':', '+', '!']));
    words.filter(|word| {
        let is_of_kernel = ["/proc/", "/sys/", "/dev/"]
            .iter()
            .any(|one| word.starts_with(one));
        word.starts_with('/') && !is_of_kernel
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_commands_run_or_load_is_followed() {
        for (text, named) in [
            ("/root/fw.sh", &["/root/fw.sh"][..]),
            (
                "ExecStart=-/bin/sh '/root/fw.sh'",
                &["/bin/sh", "/root/fw.sh"],
            ),
            ("  - [ sh, -c, \"/root/fw.sh start\" ]", &["/root/fw.sh"]),
            (
                "iptables-restore </etc/fw.rules || true",
                &["/etc/fw.rules"],
            ),
            (
                "[ -x /root/fw.sh ] && . /root/fw.sh >/var/log/fw",
                &["/root/fw.sh", "/root/fw.sh"],
            ),
            ("iptables-save -f /var/backups/rules; ls >/tmp/x", &[]),
            (
                "# /root/fw.sh\n/sbin/sysctl -w /proc/sys/x",
                &["/sbin/sysctl"],
            ),
            ("iptables -A FORWARD -s 10.0.0.0/8 -j ACCEPT", &[]),
        ] {
            assert_eq!(named_files(text).collect::<Vec<_>>(), named, "{text}");
        }
    }
}

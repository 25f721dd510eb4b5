//! Reads and sets the kernel's switches, and reads the sysctl files that set them at boot.

pub mod settings;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::host::file::{self, FileError, Prepared};
use crate::host::sysctl::settings::{Assignment, Switch, SwitchAtBoot, assignments};
use crate::net::{Family, Interface};

const CONF: &str = "/proc/sys/net/ipv4/conf";

/// Returns the file of a switch. The file of [`Switch::Liberal`] exists once `nf_conntrack` is loaded.
fn file_of(switch: Switch) -> &'static str {
    match switch {
        Switch::Forwarding(Family::V4) => "/proc/sys/net/ipv4/ip_forward",
        Switch::Forwarding(Family::V6) => "/proc/sys/net/ipv6/conf/all/forwarding",
        Switch::Liberal => "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal",
    }
}

/// nvactl's own sysctl file, the only one that it writes.
pub const OWN_FILE: &str = "/etc/sysctl.d/99-nvactl.conf";

/// The folders of sysctl files. A file hides files of the same name in later folders (sysctl.d(5)).
const FOLDERS: [&str; 5] = [
    "/etc/sysctl.d",
    "/run/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/usr/lib/sysctl.d",
    "/lib/sysctl.d",
];

/// The file that `sysctl --system` reads last, so that it wins over every drop-in (sysctl(8)). systemd-sysctl
/// reads it only if a drop-in links to it, as Debian's 99-sysctl.conf did until Debian 12.
const LAST_FILE: &str = "/etc/sysctl.conf";
const UFW_CONF: &str = "/etc/ufw/ufw.conf";
const UFW_FILE: &str = "/etc/ufw/sysctl.conf";

#[derive(Debug, Error)]
pub enum SysctlError {
    #[error("cannot read `{path}`")]
    Read { path: String, source: io::Error },
    #[error("cannot set {}: writing `{}` failed", .switch.key(), file_of(*.switch))]
    Write { switch: Switch, source: io::Error },
    #[error("{} is still {now} after it was set", .switch.key())]
    NotSet { switch: Switch, now: bool },
    #[error("{} now, but the rest of the change failed", set_to(.done, *.on))]
    Part {
        /// The switches that have changed.
        done: Vec<Switch>,
        on: bool,
        source: Box<SysctlError>,
    },
    #[error(transparent)]
    File(#[from] FileError),
}

impl SysctlError {
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            SysctlError::Part { done, on, .. } => {
                let back = done
                    .iter()
                    .map(|switch| format!(" {}={}", switch.key(), u8::from(!on)));
                let back: String = back.collect();
                Some(format!("to restore the old values: sudo sysctl -w{back}"))
            }
            SysctlError::File(error) => error.hint(),
            SysctlError::Read { path, .. } if path == file_of(Switch::Liberal) => {
                Some("nvactl's rules load the module that has it: sudo nvactl apply".to_owned())
            }
            _ => None,
        }
    }
}

fn set_to(switches: &[Switch], on: bool) -> String {
    let each = switches.iter();
    let each = each.map(|switch| format!("{} is {}", switch.key(), u8::from(on)));
    each.collect::<Vec<_>>().join(" and ")
}

/// Returns whether the kernel forwards packets of a family. Any number but 0 counts as on.
///
/// # Errors
/// If the setting cannot be read.
pub fn forwards(family: Family) -> Result<bool, SysctlError> {
    value(Switch::Forwarding(family))
}

/// Reads a switch. Any number but 0 counts as on.
///
/// # Errors
/// If the setting cannot be read.
pub fn value(switch: Switch) -> Result<bool, SysctlError> {
    read_switch(file_of(switch))
}

/// Returns whether the kernel accepts routes from router advertisements on an interface only while IPv6
/// forwarding is off (`accept_ra` in Documentation/networking/ip-sysctl.rst).
#[must_use]
pub fn accepts_routers_until_forwarding(interface: &Interface) -> bool {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/accept_ra");
    fs::read_to_string(path).is_ok_and(|text| text.trim() == "1")
}

/// Returns the interfaces whose own switch differs from `ip_forward`. A write to `ip_forward` sets the switch of
/// every interface, so these were set later.
///
/// # Errors
/// If the settings cannot be read.
pub fn contradicting_interfaces() -> Result<Vec<String>, SysctlError> {
    let common = forwards(Family::V4)?;
    let entries = fs::read_dir(CONF).map_err(|source| SysctlError::Read {
        path: CONF.to_owned(),
        source,
    })?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        // `all` is ip_forward itself. `default`, the initial value of new interfaces, counts.
        .filter(|name| name != "all")
        // An interface may vanish while the folder is read.
        .filter(|name| {
            read_switch(&format!("{CONF}/{name}/forwarding")).is_ok_and(|own| own != common)
        })
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// Returns an interface's name as a part of a switch's name: sysctl(8) reads a slash there as a dot of the
/// interface's name.
#[must_use]
pub fn part_of_key(interface: &str) -> String {
    interface.replace('.', "/")
}

/// Returns whether packets that arrive on this interface are forwarded, or `None` if it does not exist.
#[must_use]
pub fn forwards_from(interface: &Interface) -> Option<bool> {
    read_switch(&format!("{CONF}/{interface}/forwarding")).ok()
}

/// Returns whether the kernel has a switch. A kernel without IPv6 has no switch for it.
#[must_use]
pub fn has(switch: Switch) -> bool {
    fs::symlink_metadata(file_of(switch)).is_ok()
}

/// The effect of a change on nvactl's own file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    Untouched,
    Written,
    Removed,
}

/// Sets switches. With `keep`, also writes them to nvactl's own file, so that the next boot sets them. If a
/// value of forwarding changes, the kernel also sets the switch of every interface.
///
/// All steps that may be refused are prepared before the first switch changes: each switch is opened for
/// writing, and the new file is written beside the old one.
///
/// # Errors
/// If the kernel or the file system refuses: without root, or in a container where they are read-only. With
/// [`SysctlError::Part`] some switches have changed, with other errors none.
pub fn change(switches: &[Switch], on: bool, keep: bool) -> Result<Own, SysctlError> {
    let mut opened = Vec::new();
    for &switch in switches {
        // A switch that the kernel does not have yet is only kept for the boot.
        let later = keep && switch == Switch::Liberal && !has(switch);
        // An equal value is not written, because the kernel would ignore it (`devinet_sysctl_forward` in
        // net/ipv4/devinet.c compares first).
        if !later && value(switch)? != on {
            opened.push((switch, open(switch)?));
        }
    }
    let change = if keep {
        prepared(switches, on)?
    } else {
        FileChange::None
    };
    let mut done = Vec::new();
    carry_out(opened, on, change, &mut done).map_err(|source| match done.as_slice() {
        [] => source,
        _ => SysctlError::Part {
            done,
            on,
            source: Box::new(source),
        },
    })
}

/// Sets [`Switch::Liberal`] to the value in nvactl's own file. At boot, systemd-sysctl runs too early for it: the
/// kernel has the switch only after the rules are loaded.
///
/// # Errors
/// If the file cannot be read or the kernel refuses.
pub fn set_kept_liberal() -> Result<(), SysctlError> {
    let switch = Switch::Liberal;
    let kept = kept(&read_own()?.unwrap_or_default());
    let on = kept.into_iter().find(|(one, _)| *one == switch);
    match on {
        Some((_, on)) if has(switch) && value(switch)? != on => set(switch, open(switch)?, on),
        _ => Ok(()),
    }
}

fn open(switch: Switch) -> Result<File, SysctlError> {
    let file = OpenOptions::new().write(true).open(file_of(switch));
    file.map_err(|source| SysctlError::Write { switch, source })
}

/// A prepared change of nvactl's own file.
enum FileChange {
    None,
    Write(Prepared),
    Remove,
}

fn carry_out(
    opened: Vec<(Switch, File)>,
    on: bool,
    change: FileChange,
    done: &mut Vec<Switch>,
) -> Result<Own, SysctlError> {
    for (switch, file) in opened {
        let written = set(switch, file, on);
        // A switch that cannot be read back has been written.
        if let Ok(()) | Err(SysctlError::Read { .. }) = written {
            done.push(switch);
        }
        written?;
    }
    Ok(match change {
        FileChange::None => Own::Untouched,
        FileChange::Write(prepared) => {
            prepared.commit()?;
            Own::Written
        }
        FileChange::Remove => {
            file::remove(Path::new(OWN_FILE))?;
            Own::Removed
        }
    })
}

fn set(switch: Switch, mut file: File, on: bool) -> Result<(), SysctlError> {
    let text = if on { "1\n" } else { "0\n" };
    file.write_all(text.as_bytes())
        .map_err(|source| SysctlError::Write { switch, source })?;
    match value(switch)? {
        now if now == on => Ok(()),
        now => Err(SysctlError::NotSet { switch, now }),
    }
}

fn read_switch(path: &str) -> Result<bool, SysctlError> {
    let text = fs::read_to_string(path).map_err(|source| SysctlError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(text.trim() != "0")
}

fn read_own() -> Result<Option<String>, FileError> {
    let bytes = file::read(Path::new(OWN_FILE))?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// Returns the values in the text of nvactl's own file.
fn kept(text: &str) -> Vec<(Switch, bool)> {
    let value = |switch| {
        let lines = assignments(switch, Path::new(OWN_FILE), text);
        Some((switch, lines.last()?.on))
    };
    Switch::ALL.into_iter().filter_map(value).collect()
}

/// Prepares a change of nvactl's own file. Lines of other switches stay. A switch that is turned off loses its
/// line, because a 0 would override every file that an operator writes later. [`Switch::Liberal`] has no use
/// without forwarding, so the file is removed with its last line about forwarding.
fn prepared(switches: &[Switch], on: bool) -> Result<FileChange, SysctlError> {
    let path = Path::new(OWN_FILE);
    let old = read_own()?;
    let mut values = kept(old.as_deref().unwrap_or_default());
    values.retain(|(switch, _)| !switches.contains(switch));
    if on {
        values.extend(switches.iter().map(|switch| (*switch, true)));
    }
    if values.iter().all(|(switch, _)| *switch == Switch::Liberal) {
        if old.is_none() {
            return Ok(FileChange::None);
        }
        file::try_remove(path)?;
        return Ok(FileChange::Remove);
    }
    let mut text = "# Written by `nvactl sysctl`.\n".to_owned();
    for switch in Switch::ALL {
        let Some((_, on)) = values.iter().find(|(one, _)| *one == switch) else {
            continue;
        };
        // The switch does not exist yet when systemd-sysctl runs. With `-` that is no failure
        // (sysctl.d(5)).
        let dash = if switch == Switch::Liberal { "-" } else { "" };
        text.push_str(&format!("{dash}{} = {}\n", switch.key(), u8::from(*on)));
    }
    file::make_folder_of(path)?;
    Ok(FileChange::Write(file::prepare(
        path,
        text.as_bytes(),
        0o644,
    )?))
}

/// Returns whether systemd sets the switches at boot: it has booted this machine (`sd_booted(3)`), or its program
/// is installed.
fn by_systemd() -> bool {
    let programs = [
        "/usr/lib/systemd/systemd-sysctl",
        "/lib/systemd/systemd-sysctl",
    ];
    Path::new("/run/systemd/system").exists()
        || programs.iter().any(|program| Path::new(program).is_file())
}

/// Reads every line of the sysctl files that sets a switch, in the order in which the boot reads them.
#[must_use]
pub fn at_boot(switch: Switch) -> SwitchAtBoot {
    let mut files: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for folder in FOLDERS {
        // A missing folder counts as empty.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if Path::new(&name)
                .extension()
                .is_some_and(|end| end == "conf")
            {
                files.entry(name).or_insert_with(|| entry.path());
            }
        }
    }
    let mut unreadable = Vec::new();
    let mut read = read_all(switch, files.into_values(), &mut unreadable);
    let mut unread = read_all(switch, [LAST_FILE.into()], &mut unreadable);
    if !by_systemd() {
        read.append(&mut unread);
    }
    // ufw sets its own values when it starts, after the others (ufw-framework(8)).
    if ufw_is_on() {
        read.extend(read_all(switch, [UFW_FILE.into()], &mut unreadable));
    }
    SwitchAtBoot {
        read,
        unread,
        unreadable,
    }
}

/// Returns whether ufw's own file enables it at boot. Returns false if the file cannot be read.
#[must_use]
pub fn ufw_is_on() -> bool {
    let conf = file::read(Path::new(UFW_CONF)).ok().flatten();
    let conf = conf.unwrap_or_default();
    let conf = String::from_utf8_lossy(&conf);
    conf.lines().any(|line| line.trim() == "ENABLED=yes")
}

fn read_all(
    switch: Switch,
    paths: impl IntoIterator<Item = PathBuf>,
    unreadable: &mut Vec<PathBuf>,
) -> Vec<Assignment> {
    let mut found = Vec::new();
    for path in paths {
        match file::read(&path) {
            Ok(bytes) => {
                let bytes = bytes.unwrap_or_default();
                found.extend(assignments(switch, &path, &String::from_utf8_lossy(&bytes)));
            }
            // A link to /dev/null disables a file (sysctl.d(5)).
            Err(FileError::NotAFile { .. }) => {}
            Err(_) => unreadable.push(path),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_about_a_switch_in_nvactl_s_file_counts() {
        let text = "# Written by `nvactl sysctl`.\nnet.ipv4.ip_forward = 0\n\
                    net.ipv4.ip_forward = 1\n-net.netfilter.nf_conntrack_tcp_be_liberal = 1\n";
        let v4 = Switch::Forwarding(Family::V4);
        assert_eq!(kept(text), [(v4, true), (Switch::Liberal, true)]);
        assert_eq!(kept(""), []);
    }
}

//! The kernel's switches for forwarding, now and as the sysctl files set them at boot.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::file::{self, FileError, Prepared};
use crate::net::{Family, Interface};
use crate::per_family::Families;
use crate::sysctl::{Assignment, AtBoot, assignments, switch};

const CONF: &str = "/proc/sys/net/ipv4/conf";

/// The file of the switch that [`switch`] names.
fn file_of(family: Family) -> &'static str {
    match family {
        Family::V4 => "/proc/sys/net/ipv4/ip_forward",
        Family::V6 => "/proc/sys/net/ipv6/conf/all/forwarding",
    }
}

/// nvactl's own file, the only one it writes.
pub const OWN_FILE: &str = "/etc/sysctl.d/99-nvactl.conf";

/// Folders of sysctl files; a file in an earlier one hides its namesakes (sysctl.d(5)).
const FOLDERS: [&str; 5] = [
    "/etc/sysctl.d",
    "/run/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/usr/lib/sysctl.d",
    "/lib/sysctl.d",
];

/// `sysctl --system` reads it last, so it beats every drop-in (sysctl(8)).
/// systemd-sysctl reads it only where a drop-in links to it, as Debian's 99-sysctl.conf did.
const LAST_FILE: &str = "/etc/sysctl.conf";
const UFW_CONF: &str = "/etc/ufw/ufw.conf";
const UFW_FILE: &str = "/etc/ufw/sysctl.conf";

#[derive(Debug, Error)]
pub enum SysctlError {
    #[error("cannot read `{path}`")]
    Read { path: String, source: io::Error },
    #[error("cannot set {}: writing `{}` failed", switch(*.family), file_of(*.family))]
    Write { family: Family, source: io::Error },
    #[error("{} is still {now} after it was set", switch(*.family))]
    NotSet { family: Family, now: bool },
    #[error("{} now, and not everything is done", set_to(.done, *.on))]
    Part {
        /// The families whose switch has changed.
        done: Vec<Family>,
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
                    .map(|family| format!(" {}={}", switch(*family), u8::from(!on)));
                let back: String = back.collect();
                Some(format!("to go back to what was: sudo sysctl -w{back}"))
            }
            SysctlError::File(error) => error.hint(),
            _ => None,
        }
    }
}

fn set_to(families: &[Family], on: bool) -> String {
    let each = families.iter();
    let each = each.map(|family| format!("{} is {}", switch(*family), u8::from(on)));
    each.collect::<Vec<_>>().join(" and ")
}

/// Whether the kernel forwards packets of a family. Any number but 0 counts as on.
///
/// # Errors
/// When the kernel does not tell.
pub fn forwards(family: Family) -> Result<bool, SysctlError> {
    read_switch(file_of(family))
}

/// Whether the kernel takes routes from the advertisements of routers on an interface only for as
/// long as IPv6 is not forwarded (`accept_ra` in Documentation/networking/ip-sysctl.rst).
#[must_use]
pub fn accepts_routers_until_forwarding(interface: &Interface) -> bool {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/accept_ra");
    fs::read_to_string(path).is_ok_and(|text| text.trim() == "1")
}

/// Interfaces whose own switch differs from `ip_forward`, as a write to the common switch would
/// have set it.
///
/// # Errors
/// When the kernel does not tell.
pub fn contradicting_interfaces() -> Result<Vec<String>, SysctlError> {
    let common = forwards(Family::V4)?;
    let entries = fs::read_dir(CONF).map_err(|source| SysctlError::Read {
        path: CONF.to_owned(),
        source,
    })?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        // `all` is ip_forward itself, and `default` is what a new interface starts with.
        .filter(|name| name != "all")
        // An interface may vanish while the folder is read.
        .filter(|name| {
            read_switch(&format!("{CONF}/{name}/forwarding")).is_ok_and(|own| own != common)
        })
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// Whether packets that come in by this interface are forwarded; `None` if it does not exist.
#[must_use]
pub fn forwards_from(interface: &Interface) -> Option<bool> {
    read_switch(&format!("{CONF}/{interface}/forwarding")).ok()
}

/// Whether the kernel has a family's switch: one that was started without IPv6 has none for it.
#[must_use]
pub fn has_switch(family: Family) -> bool {
    fs::symlink_metadata(file_of(family)).is_ok()
}

/// Sets the families' switches and, with `keep`, writes nvactl's own file, so that the values hold
/// at the next boot. The kernel sets every interface's switch along when a value changes.
///
/// Everything that can be refused is tried before the first switch changes: each is opened for
/// writing, and the file is written beside the old one.
///
/// # Errors
/// When the kernel or the file system refuses: without root, or in a container that has them
/// read-only. With [`SysctlError::Part`] some switches have changed, else nothing has.
pub fn change(families: Families, on: bool, keep: bool) -> Result<(), SysctlError> {
    let mut switches = Vec::new();
    for &family in families.as_slice() {
        // An unchanged value is not written: the kernel would do nothing with it
        // (`devinet_sysctl_forward` in net/ipv4/devinet.c compares first).
        if forwards(family)? != on {
            let file = OpenOptions::new().write(true).open(file_of(family));
            let file = file.map_err(|source| SysctlError::Write { family, source })?;
            switches.push((family, file));
        }
    }
    let kept = keep.then(|| prepared(families, on)).transpose()?;
    let mut done = Vec::new();
    carry_out(switches, on, kept, &mut done).map_err(|source| match done.as_slice() {
        [] => source,
        _ => SysctlError::Part {
            done,
            on,
            source: Box::new(source),
        },
    })
}

fn carry_out(
    switches: Vec<(Family, File)>,
    on: bool,
    kept: Option<Prepared>,
    done: &mut Vec<Family>,
) -> Result<(), SysctlError> {
    for (family, file) in switches {
        let written = set(family, file, on);
        // One that cannot be read back has been written.
        if let Ok(()) | Err(SysctlError::Read { .. }) = written {
            done.push(family);
        }
        written?;
    }
    Ok(kept.map_or(Ok(()), Prepared::commit)?)
}

fn set(family: Family, mut file: File, on: bool) -> Result<(), SysctlError> {
    let value = if on { "1\n" } else { "0\n" };
    file.write_all(value.as_bytes())
        .map_err(|source| SysctlError::Write { family, source })?;
    match forwards(family)? {
        now if now == on => Ok(()),
        now => Err(SysctlError::NotSet { family, now }),
    }
}

fn read_switch(path: &str) -> Result<bool, SysctlError> {
    let text = fs::read_to_string(path).map_err(|source| SysctlError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(text.trim() != "0")
}

/// Prepares nvactl's own file. What it says of a family that is not meant stays.
fn prepared(families: Families, on: bool) -> Result<Prepared, SysctlError> {
    let path = Path::new(OWN_FILE);
    let old = file::read(path)?.unwrap_or_default();
    let old = String::from_utf8_lossy(&old);
    let mut text = "# Written by `nvactl sysctl`.\n".to_owned();
    for family in Family::ALL {
        let meant = families.as_slice().contains(&family).then_some(on);
        let kept = || assignments(family, path, &old).last().map(|line| line.on);
        if let Some(on) = meant.or_else(kept) {
            text.push_str(&format!("{} = {}\n", switch(family), u8::from(on)));
        }
    }
    file::make_folder_of(path)?;
    Ok(file::prepare(path, text.as_bytes(), 0o644)?)
}

/// Every assignment to a family's forwarding in the sysctl files, in the order in which they are
/// read at boot.
#[must_use]
pub fn at_boot(family: Family) -> AtBoot {
    let mut files: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for folder in FOLDERS {
        // A folder that is not there holds no file.
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
    let mut last = vec![LAST_FILE];
    // ufw sets its own values when it starts, behind the rest (ufw-framework(8)).
    if ufw_is_on() {
        last.push(UFW_FILE);
    }
    let mut unreadable = Vec::new();
    let drop_ins = read_all(family, files.into_values(), &mut unreadable);
    let last = read_all(family, last.into_iter().map(PathBuf::from), &mut unreadable);
    AtBoot {
        drop_ins,
        last,
        unreadable,
    }
}

/// Whether ufw's own file says that it starts at boot; not if it cannot be read.
#[must_use]
pub fn ufw_is_on() -> bool {
    let conf = file::read(Path::new(UFW_CONF)).ok().flatten();
    let conf = conf.unwrap_or_default();
    let conf = String::from_utf8_lossy(&conf);
    conf.lines().any(|line| line.trim() == "ENABLED=yes")
}

fn read_all(
    family: Family,
    paths: impl Iterator<Item = PathBuf>,
    unreadable: &mut Vec<PathBuf>,
) -> Vec<Assignment> {
    let mut found = Vec::new();
    for path in paths {
        match file::read(&path) {
            Ok(bytes) => {
                let bytes = bytes.unwrap_or_default();
                found.extend(assignments(family, &path, &String::from_utf8_lossy(&bytes)));
            }
            // A link to /dev/null is how a file is switched off (sysctl.d(5)).
            Err(FileError::NotAFile { .. }) => {}
            Err(_) => unreadable.push(path),
        }
    }
    found
}

//! Reads the files in which people and programs leave commands that add rules at boot.

use std::path::{Path, PathBuf};

use super::file;
use super::folder;

/// The files that may hold such commands, and folders of such files.
const FILES: [&str; 7] = [
    "/etc/rc.local",
    "/etc/network/interfaces",
    "/etc/ufw/before.rules",
    "/etc/ufw/before6.rules",
    "/etc/ufw/after.rules",
    "/etc/ufw/after6.rules",
    "/var/lib/cloud/instance/user-data.txt",
];
const FOLDERS: [&str; 5] = [
    WIREGUARD,
    "/etc/network/if-up.d",
    "/etc/network/if-pre-up.d",
    "/etc/network/interfaces.d",
    "/etc/cloud/cloud.cfg.d",
];
const WIREGUARD: &str = "/etc/wireguard";

/// A longer file is no list of commands.
const MOST_BYTES: usize = 1 << 20;

/// A file with commands that may add rules at boot.
#[derive(Debug, Clone)]
pub struct BootText {
    pub path: String,
    pub text: String,
    /// The interface that wg-quick puts in place of `%i`.
    pub interface: Option<String>,
}

/// Reads these files. Those that are not there or cannot be read are left out.
#[must_use]
pub fn boot_texts() -> Vec<BootText> {
    let mut paths: Vec<PathBuf> = FILES.iter().map(PathBuf::from).collect();
    for folder in FOLDERS {
        let names = folder::names(Path::new(folder)).unwrap_or_default();
        paths.extend(names.iter().map(|name| Path::new(folder).join(name)));
    }
    let texts = paths.iter().filter_map(|path| {
        let bytes = file::read_regular(path, MOST_BYTES).ok()??;
        let name = path.file_stem()?.to_string_lossy();
        Some(BootText {
            path: path.to_string_lossy().into_owned(),
            text: String::from_utf8_lossy(&bytes).into_owned(),
            interface: path.starts_with(WIREGUARD).then(|| name.into_owned()),
        })
    });
    texts.collect()
}

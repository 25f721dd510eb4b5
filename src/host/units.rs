//! Finds out which systemd units are installed and which start at boot.

use std::fs;
use std::path::{Path, PathBuf};

use super::folder;

/// The folders of systemd units. The first is the operator's (systemd.unit(5)).
const FOLDERS: [&str; 3] = [
    "/etc/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Returns whether a unit is enabled, and not masked by a link to /dev/null.
#[must_use]
pub fn starts_at_boot(unit: &str) -> bool {
    !is_masked(unit) && !links(unit).is_empty()
}

/// Returns whether a unit is a link to /dev/null, so that it never starts.
#[must_use]
pub fn is_masked(unit: &str) -> bool {
    let link = fs::read_link(Path::new(FOLDERS[0]).join(unit));
    link.is_ok_and(|target| target == Path::new("/dev/null"))
}

/// Returns the links by which targets start a unit. `systemctl enable` makes such a link in a target's folder.
#[must_use]
pub fn links(unit: &str) -> Vec<PathBuf> {
    let folders = fs::read_dir(FOLDERS[0]).into_iter().flatten().flatten();
    let of_target = |path: &PathBuf| {
        let end = path.extension();
        end.is_some_and(|end| end == "wants" || end == "requires")
    };
    let folders = folders.map(|entry| entry.path()).filter(of_target);
    let links = folders.map(|folder| folder.join(unit));
    links.filter(|link| folder::holds(link)).collect()
}

/// Returns the file of a unit that a package has installed.
#[must_use]
pub fn packaged(unit: &str) -> Option<PathBuf> {
    let files = FOLDERS[1..]
        .iter()
        .map(|folder| Path::new(folder).join(unit));
    files.into_iter().find(|file| file.is_file())
}

/// Returns whether a firewall manager is installed, enabled or not: its program or its unit exists.
#[must_use]
pub fn is_installed(name: &str) -> bool {
    let program = PathBuf::from(format!("/usr/sbin/{name}"));
    let unit = format!("{name}.service");
    program.is_file()
        || FOLDERS
            .iter()
            .any(|folder| Path::new(folder).join(&unit).is_file())
}

//! A folder that only root writes, and the files in it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::netfilter::token::shell_word;

/// Why a folder cannot be used, or is not trusted.
#[derive(Debug, Error)]
pub enum FolderError {
    #[error("cannot make the folder `{}`", .path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("cannot read the folder `{}`", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot remove `{}`", .path.display())]
    Remove { path: PathBuf, source: io::Error },
    #[error("cannot rename `{}`", .path.display())]
    Rename { path: PathBuf, source: io::Error },
    #[error("`{}` is no folder, so nothing in it is trusted", .path.display())]
    NotAFolder { path: PathBuf },
    #[error(
        "`{}` belongs to user {owner}, who could write whatever is loaded as root from `{}`",
        .path.display(), .folder.display()
    )]
    Owned {
        folder: PathBuf,
        path: PathBuf,
        owner: u32,
    },
    #[error(
        "`{}` is a link of user {owner}, who chose where it leads: nothing is loaded as root from `{}`",
        .path.display(), .folder.display()
    )]
    Link {
        folder: PathBuf,
        path: PathBuf,
        owner: u32,
    },
    #[error(
        "others than root may write `{}`, and so whatever is loaded as root from `{}`",
        .path.display(), .folder.display()
    )]
    Writable { folder: PathBuf, path: PathBuf },
}

impl FolderError {
    /// Returns the command that leads to a folder to be trusted: it begins anew. What stands above it is
    /// somebody else's to change.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        const OTHER: &str = "keep the state in a folder of root's own: --state-dir /var/lib/nvactl";
        // Others may have changed its files: a chmod alone would trust those.
        let aside = |path: &Path| {
            let words = [path.to_owned(), path.with_extension("untrusted")];
            let [from, to] = words.map(|path| shell_word(&path.to_string_lossy()));
            format!("sudo mv {from} {to}")
        };
        match self {
            FolderError::Owned { path, folder, .. } if path == folder => Some(aside(path)),
            FolderError::Writable { path, folder } if path == folder => Some(aside(path)),
            FolderError::Owned { .. }
            | FolderError::Writable { .. }
            | FolderError::Link { .. }
            | FolderError::NotAFolder { .. } => Some(OTHER.to_owned()),
            _ => None,
        }
    }
}

/// Makes a folder with mode 0700 where there is none, with those above it.
///
/// # Errors
/// When it cannot be made, or somebody else than root has put a link on the path to it.
pub fn make(path: &Path) -> Result<(), FolderError> {
    links_are_trusted(path)?;
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| FolderError::Make {
        path: path.to_owned(),
        source,
    })
}

/// As many links as the kernel follows on one path (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

/// Refuses a path on which somebody else than root, or the owner of `/`, has put a link: they chose where
/// it leads.
fn links_are_trusted(path: &Path) -> Result<(), FolderError> {
    let unreadable = |source| FolderError::Read {
        path: path.to_owned(),
        source,
    };
    let top = fs::metadata("/").map_err(unreadable)?.uid();
    let mut left = std::path::absolute(path).map_err(unreadable)?;
    for _ in 0..MOST_LINKS {
        let ancestors: Vec<PathBuf> = left.ancestors().map(Path::to_owned).collect();
        let link = ancestors.iter().rev().find_map(|at| {
            let metadata = fs::symlink_metadata(at).ok()?;
            metadata.is_symlink().then_some((at, metadata.uid()))
        });
        let Some((at, owner)) = link else {
            return Ok(());
        };
        if owner != 0 && owner != top {
            return Err(FolderError::Link {
                folder: path.to_owned(),
                path: at.clone(),
                owner,
            });
        }
        let target = fs::read_link(at).map_err(unreadable)?;
        let target = at.parent().unwrap_or(Path::new("/")).join(target);
        let rest = left.strip_prefix(at).unwrap_or(Path::new(""));
        left = target.join(rest);
    }
    Ok(())
}

/// Returns a folder's path without links, if nobody but root could change what stands in it: it and
/// the folders above it belong to root, or to the owner of `/`, and nobody else may write them or has
/// put a link on the path. A folder above it may be one like `/tmp`, where nobody can rename what is
/// root's (inode(7), the sticky bit).
///
/// # Errors
/// When somebody could, or it cannot be reached.
pub fn trusted(path: &Path) -> Result<PathBuf, FolderError> {
    let unreadable = |source| FolderError::Read {
        path: path.to_owned(),
        source,
    };
    links_are_trusted(path)?;
    let folder = fs::canonicalize(path).map_err(unreadable)?;
    // In a user namespace root of the machine has no name: who owns `/` is trusted all the same.
    let top = fs::metadata("/").map_err(unreadable)?.uid();
    for (depth, at) in folder.ancestors().enumerate() {
        let metadata = fs::symlink_metadata(at).map_err(unreadable)?;
        if !metadata.is_dir() {
            return Err(FolderError::NotAFolder { path: folder });
        }
        let (owner, mode) = (metadata.uid(), metadata.mode());
        if owner != 0 && owner != top {
            return Err(FolderError::Owned {
                path: at.to_owned(),
                folder,
                owner,
            });
        }
        let sticky = depth > 0 && mode & 0o1000 != 0;
        if mode & 0o022 != 0 && !sticky {
            return Err(FolderError::Writable {
                path: at.to_owned(),
                folder,
            });
        }
    }
    Ok(folder)
}

/// Returns the names of what is in a folder, in order; none where there is no folder.
///
/// # Errors
/// When it cannot be read.
pub fn names(path: &Path) -> Result<Vec<String>, FolderError> {
    let listed = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.and_then(Iterator::collect::<io::Result<Vec<_>>>),
    };
    let listed = listed.map_err(|source| FolderError::Read {
        path: path.to_owned(),
        source,
    })?;
    let mut names: Vec<String> = listed
        .into_iter()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// Removes a file; that there is none is as good. A folder in its place gets another name.
///
/// # Errors
/// When it cannot be removed.
pub fn remove(path: &Path) -> Result<(), FolderError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            let mut aside = path.as_os_str().to_owned();
            aside.push(".discarded");
            rename(path, Path::new(&aside))
        }
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(FolderError::Remove {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Refuses a file that does not belong to root, or to the owner of `/`: somebody has put it there while the
/// folder was open.
///
/// # Errors
/// When it belongs to another, or cannot be looked at.
pub fn root_owns(path: &Path) -> Result<(), FolderError> {
    let unreadable = |source| FolderError::Read {
        path: path.to_owned(),
        source,
    };
    let owner = fs::symlink_metadata(path).map_err(unreadable)?.uid();
    if owner == 0 || owner == fs::metadata("/").map_err(unreadable)?.uid() {
        return Ok(());
    }
    Err(FolderError::Owned {
        folder: path.parent().unwrap_or(path).to_owned(),
        path: path.to_owned(),
        owner,
    })
}

/// Gives a file or a folder another name beside it.
///
/// # Errors
/// When the kernel refuses.
pub fn rename(from: &Path, to: &Path) -> Result<(), FolderError> {
    fs::rename(from, to).map_err(|source| FolderError::Rename {
        path: from.to_owned(),
        source,
    })
}

/// Whether there is something of this name, whatever it is.
#[must_use]
pub fn holds(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Returns the folder named, else `$NVACTL_STATE_DIR`, else `/var/lib/nvactl`.
#[must_use]
pub fn state_folder(named: Option<&Path>) -> PathBuf {
    let from_environment = || std::env::var_os("NVACTL_STATE_DIR").map(PathBuf::from);
    named
        .map(Path::to_owned)
        .or_else(|| from_environment().filter(|path| !path.as_os_str().is_empty()))
        .unwrap_or_else(|| PathBuf::from("/var/lib/nvactl"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_that_others_may_write_is_not_trusted() {
        let top = tempfile::tempdir().expect("a folder");
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = top.path().join("state");
        make(&folder).expect("it is made");
        assert!(trusted(&folder).is_ok());
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is root's");
        };
        mode(&folder, 0o1777);
        let error = trusted(&folder).expect_err("anybody may put a file there");
        assert!(matches!(error, FolderError::Writable { .. }), "{error}");
        mode(&folder, 0o700);
        mode(top.path(), 0o777);
        let error = trusted(&folder).expect_err("anybody may rename it");
        assert!(matches!(&error, FolderError::Writable { path, .. } if path == top.path()));
        mode(top.path(), 0o1777);
        assert!(trusted(&folder).is_ok());
    }
}

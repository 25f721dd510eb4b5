//! A folder that only root can write to, and its files.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::netfilter::token::shell_word;

/// A reason why a folder cannot be used or is not trusted.
#[derive(Debug, Error)]
pub enum FolderError {
    #[error("cannot create the folder `{}`", .path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("cannot read the folder `{}`", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot remove `{}`", .path.display())]
    Remove { path: PathBuf, source: io::Error },
    #[error("cannot rename `{}`", .path.display())]
    Rename { path: PathBuf, source: io::Error },
    #[error("`{}` is not a folder, so no file in it is trusted", .path.display())]
    NotAFolder { path: PathBuf },
    #[error(
        "`{}` belongs to user {owner}, who could change the files that root loads from `{}`",
        .path.display(), .folder.display()
    )]
    Owned {
        folder: PathBuf,
        path: PathBuf,
        owner: u32,
    },
    #[error(
        "`{}` is a link of user {owner}, who can choose its target: root loads nothing from `{}`",
        .path.display(), .folder.display()
    )]
    Link {
        folder: PathBuf,
        path: PathBuf,
        owner: u32,
    },
    #[error(
        "users other than root can write to `{}`, and could change the files that root loads from `{}`",
        .path.display(), .folder.display()
    )]
    Writable { folder: PathBuf, path: PathBuf },
}

impl FolderError {
    /// Returns the command that makes nvactl start with a new, trusted folder. nvactl does not change the
    /// folders above it, which other programs use as well.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        const OTHER: &str =
            "use a state folder that only root can write to: --state-dir /var/lib/nvactl";
        // Other users may have changed the files: after a chmod alone, nvactl would trust them.
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

/// Creates a folder with mode 0700 and the folders above it, if they do not exist.
///
/// # Errors
/// If it cannot be created, or the path to it has a link that does not belong to root.
pub fn make(path: &Path) -> Result<(), FolderError> {
    links_are_trusted(path)?;
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| FolderError::Make {
        path: path.to_owned(),
        source,
    })
}

/// The number of links that the kernel follows in one path (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

/// Refuses a path with a link that belongs to a user other than root or the owner of `/`: that user chooses its
/// target.
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

/// Returns a folder's path without links, if only root could change its content. So it and the folders above it
/// must belong to root or to the owner of `/`, only they may write to them, and every link on the path must
/// be theirs. A folder above it may have the sticky bit, like `/tmp`, where nobody else can rename root's
/// files (inode(7)).
///
/// # Errors
/// If another user could change its content, or it cannot be read.
pub fn trusted(path: &Path) -> Result<PathBuf, FolderError> {
    let unreadable = |source| FolderError::Read {
        path: path.to_owned(),
        source,
    };
    links_are_trusted(path)?;
    let folder = fs::canonicalize(path).map_err(unreadable)?;
    // In a user namespace the machine's root has another number, so the owner of `/` is trusted, too.
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

/// Returns the names of the entries of a folder, sorted. Returns none if the folder does not exist.
///
/// # Errors
/// If it cannot be read.
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

/// Removes a file, if it exists. A folder with its name is renamed instead.
///
/// # Errors
/// If it cannot be removed.
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

/// Refuses a file that does not belong to root or to the owner of `/`: another user added it while the folder
/// was writable.
///
/// # Errors
/// If it belongs to another user, or its owner cannot be read.
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

/// Renames a file or a folder.
///
/// # Errors
/// If the kernel refuses.
pub fn rename(from: &Path, to: &Path) -> Result<(), FolderError> {
    fs::rename(from, to).map_err(|source| FolderError::Rename {
        path: from.to_owned(),
        source,
    })
}

/// Returns whether the path exists, as a file, a folder or anything else.
#[must_use]
pub fn holds(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Returns the named folder, else `$NVACTL_STATE_DIR`, else `/var/lib/nvactl`.
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
    fn a_folder_that_other_users_can_write_to_is_not_trusted() {
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

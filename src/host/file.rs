//! Files: read whole, replaced atomically.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use thiserror::Error;

#[derive(Debug, Error)]
pub enum FileError {
    #[error("cannot read `{}`", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write `{}`", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("`{}` is larger than {} MiB", .path.display(), .most >> 20)]
    TooLarge { path: PathBuf, most: usize },
    #[error("`{}` is not a regular file, so it cannot be replaced", .path.display())]
    NotAFile { path: PathBuf },
}

/// How the names of files begin that are being written.
pub const TEMPORARY: &str = ".nvactl-";

/// The mode of files that hold rules: root writes, its group reads, as netfilter-persistent has it.
pub const RULES_MODE: u32 = 0o640;

/// The bytes of a file, or `None` where there is none.
///
/// # Errors
/// When it is there and cannot be read.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// The bytes of a file that must be there, unless it has more than `most`.
///
/// # Errors
/// When it cannot be read, or has more.
pub fn read_limited(path: &Path, most: usize) -> Result<Vec<u8>, FileError> {
    let content = File::open(path).and_then(|file| read_at_most(file, most));
    match content {
        Ok((bytes, false)) => Ok(bytes),
        Ok((_, true)) => Err(FileError::TooLarge {
            path: path.to_owned(),
            most,
        }),
        Err(source) => Err(FileError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// At most `most` bytes of a stream, and whether there were more.
///
/// # Errors
/// When it cannot be read.
pub fn read_at_most(stream: impl Read, most: usize) -> io::Result<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    stream.take(most as u64 + 1).read_to_end(&mut bytes)?;
    let more = bytes.len() > most;
    bytes.truncate(most);
    Ok((bytes, more))
}

/// Makes the folder that a file is to stand in, where there is none.
///
/// # Errors
/// When it cannot be made.
pub fn make_folder_of(path: &Path) -> Result<(), FileError> {
    match path.parent() {
        Some(folder) => fs::create_dir_all(folder).map_err(|source| FileError::Write {
            path: path.to_owned(),
            source,
        }),
        None => Ok(()),
    }
}

/// Replaces a file, or makes it: whoever reads it sees the old bytes or the new ones, whatever
/// happens in between. A link is followed, so that it stays one.
///
/// # Errors
/// When it cannot be written, or is something else than a regular file; the old one stays.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let failed = |source| FileError::Write {
        path: path.to_owned(),
        source,
    };
    let place = followed(path);
    if place.exists() && !place.is_file() {
        return Err(FileError::NotAFile { path: place });
    }
    let folder = match place.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut new = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .make_in(folder, |path| {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o600).open(path)
        })
        .map_err(failed)?;
    new.write_all(bytes).map_err(failed)?;
    let permissions = Permissions::from_mode(mode);
    new.as_file().set_permissions(permissions).map_err(failed)?;
    new.as_file().sync_all().map_err(failed)?;
    new.persist(&place).map_err(|error| failed(error.error))?;
    // The rename itself is on disk only when the folder is.
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed)
}

/// Writes over the first bytes of a file that is there, in its own place: that needs no room on a full
/// disk. It is not atomic, so it is for a few bytes.
///
/// # Errors
/// When it is not there or cannot be written.
pub fn overwrite(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let written = || {
        let mut options = OpenOptions::new();
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let mut file = options.write(true).custom_flags(flags).open(path)?;
        file.write_all(bytes)?;
        file.sync_data()
    };
    written().map_err(|source| FileError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Tells one version of a file from the next, without reading it: its inode, and when it was written.
#[must_use]
pub fn version(path: &Path) -> Option<(u64, SystemTime)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.ino(), metadata.modified().ok()?))
}

/// Where a chain of links ends, whether or not there is a file.
fn followed(path: &Path) -> PathBuf {
    let mut place = path.to_owned();
    // As many as the kernel follows (path_resolution(7)).
    for _ in 0..40 {
        let Ok(target) = fs::read_link(&place) else {
            break;
        };
        place = match place.parent() {
            Some(folder) => folder.join(target),
            None => target,
        };
    }
    place
}

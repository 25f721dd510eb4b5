//! Files: read whole, replaced atomically.

use std::ffi::OsString;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use thiserror::Error;

use super::place::{self, Astray, Place};
use crate::net::printable::path as printable;
use crate::netfilter::token::shell_word;

#[derive(Debug, Error)]
pub enum FileError {
    #[error("cannot read `{}`", printable(.path))]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write `{}`", printable(.path))]
    Write { path: PathBuf, source: io::Error },
    #[error("`{}` is larger than {} MiB", printable(.path), .most >> 20)]
    TooLarge { path: PathBuf, most: usize },
    #[error("`{}` is not a regular file", printable(.path))]
    NotAFile { path: PathBuf },
    #[error(
        "`{}` leads by a link of user {owner}, `{}`, in a folder where every user may make one: it is not followed",
        printable(.path), printable(.link)
    )]
    ForeignLink {
        path: PathBuf,
        link: PathBuf,
        owner: u32,
    },
}

impl FileError {
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            FileError::ForeignLink { link, .. } => Some(format!(
                "name a file in a folder of your own, or remove the link: rm {}",
                shell_word(&link.to_string_lossy())
            )),
            _ => None,
        }
    }
}

/// The mode of files that hold rules: root writes, its group reads, as netfilter-persistent has it.
pub const RULES_MODE: u32 = 0o640;

/// The mode of folders in /etc.
const FOLDER_MODE: u32 = 0o755;

/// How names of files begin that are not whole yet.
pub const UNFINISHED: &str = ".nvactl-";

/// More than the rules of 500,000 forwards, in bytes.
pub const MOST_BYTES: usize = 256 << 20;

/// Reads a regular file that nvactl looks at by itself; `None` if there is none. A link is followed
/// only where the kernel would let this user follow it in a sticky folder.
///
/// # Errors
/// When it cannot be read, is something else than a regular file, or is larger than [`MOST_BYTES`].
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    read_regular(path, MOST_BYTES)
}

/// Reads a regular file as [`read`] does, unless it has more than `most` bytes.
///
/// # Errors
/// As [`read`].
pub fn read_regular(path: &Path, most: usize) -> Result<Option<Vec<u8>>, FileError> {
    let failed = |source| FileError::Read {
        path: path.to_owned(),
        source,
    };
    let not_a_file = || FileError::NotAFile {
        path: path.to_owned(),
    };
    let place = match found(path, failed) {
        Err(FileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        found => found?,
    };
    match place.kind {
        None => return Ok(None),
        Some(FileType::RegularFile) => {}
        Some(_) => return Err(not_a_file()),
    }
    // Should it have become a pipe or a terminal meanwhile, opening it does nothing and ends.
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(&place.folder, &place.name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(failed(error.into())),
    };
    let stat = rustix::fs::fstat(&file).map_err(|error| failed(error.into()))?;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(not_a_file());
    }
    match read_at_most(File::from(file), most).map_err(failed)? {
        (bytes, false) => Ok(Some(bytes)),
        (_, true) => Err(FileError::TooLarge {
            path: path.to_owned(),
            most,
        }),
    }
}

/// A file's content.
#[derive(Debug)]
pub struct Content {
    pub bytes: Vec<u8>,
    /// Whether it is root's and nobody else may write it.
    pub by_root: bool,
}

/// Reads a file that the user has named, a pipe included, unless it has more than `most` bytes.
///
/// # Errors
/// When it is not there, cannot be read, or has more.
pub fn read_limited(path: &Path, most: usize) -> Result<Vec<u8>, FileError> {
    Ok(read_content(path, most)?.bytes)
}

/// Reads a file as [`read_limited`] does, and looks who may have written it.
///
/// # Errors
/// As [`read_limited`].
pub fn read_content(path: &Path, most: usize) -> Result<Content, FileError> {
    let content = File::open(path).and_then(|file| {
        let metadata = file.metadata()?;
        let by_root = metadata.is_file() && metadata.uid() == 0 && metadata.mode() & 0o022 == 0;
        Ok((by_root, read_at_most(file, most)?))
    });
    match content {
        Ok((by_root, (bytes, false))) => Ok(Content { bytes, by_root }),
        Ok((_, (_, true))) => Err(FileError::TooLarge {
            path: path.to_owned(),
            most,
        }),
        Err(source) => Err(FileError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Reads at most `most` bytes of a stream, and says whether there were more.
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

/// Makes the folder that a file is to stand in, and those above it, where there is none: with mode
/// 0755, whatever the umask is.
///
/// # Errors
/// When it cannot be made, or the path leads by a link that is not to be followed.
pub fn make_folder_of(path: &Path) -> Result<(), FileError> {
    let failed = |source| FileError::Write {
        path: path.to_owned(),
        source,
    };
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => {
            let made = place::make_folders(folder, Mode::from_raw_mode(FOLDER_MODE));
            made.map_err(|astray| lost(path, astray, failed))
        }
        _ => Ok(()),
    }
}

/// Replaces a file, or makes it: whoever reads it sees the old bytes or the new ones, whatever
/// happens in between. A link is followed, so that it stays one, if the kernel would let this user
/// follow it in a sticky folder.
///
/// # Errors
/// When it cannot be written, is something else than a regular file, or the path leads by a link
/// that is not to be followed; the old one stays.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    prepare(path, bytes, mode)?.commit()
}

/// A file's new content, on disk beside the old one. Dropped without a commit it is removed.
#[derive(Debug)]
pub struct Prepared {
    /// As the caller names the file.
    path: PathBuf,
    folder: OwnedFd,
    name: OsString,
    /// `None` once it has taken the file's name.
    unfinished: Option<OsString>,
}

/// Writes a file's new content beside the old one. A full disk, a folder that cannot be written and
/// a path that cannot be followed show here, before anything has changed.
///
/// # Errors
/// As [`replace`].
pub fn prepare(path: &Path, bytes: &[u8], mode: u32) -> Result<Prepared, FileError> {
    let failed = |source| FileError::Write {
        path: path.to_owned(),
        source,
    };
    let place = found(path, failed)?;
    if place.kind.is_some_and(|kind| !kind.is_file()) {
        return Err(FileError::NotAFile {
            path: path.to_owned(),
        });
    }
    let write = || -> io::Result<Prepared> {
        // The folder is to be brought to disk later, for which it must be open for reading.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(&place.folder, ".", flags, Mode::empty())?;
        let (mut file, name) = create(&folder)?;
        let prepared = Prepared {
            path: path.to_owned(),
            folder,
            name: place.name,
            unfinished: Some(name),
        };
        file.write_all(bytes)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        file.sync_all()?;
        Ok(prepared)
    };
    write().map_err(failed)
}

impl Prepared {
    /// Puts the new content in the old one's place.
    ///
    /// # Errors
    /// When the old one cannot be replaced; it stays.
    pub fn commit(mut self) -> Result<(), FileError> {
        let failed = |path: &Path, error: Errno| FileError::Write {
            path: path.to_owned(),
            source: error.into(),
        };
        if let Some(unfinished) = &self.unfinished {
            rustix::fs::renameat(&self.folder, unfinished, &self.folder, &self.name)
                .map_err(|error| failed(&self.path, error))?;
            self.unfinished = None;
        }
        // The rename itself is on disk only when the folder is.
        rustix::fs::fsync(&self.folder).map_err(|error| failed(&self.path, error))
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if let Some(unfinished) = &self.unfinished {
            // Whatever kept it from being written may keep it from being removed.
            let _ = rustix::fs::unlinkat(&self.folder, unfinished, AtFlags::empty());
        }
    }
}

/// Fails where [`remove`] would, as far as that can be known before: a folder or a file that cannot be
/// written.
///
/// # Errors
/// When it cannot be removed.
pub fn try_remove(path: &Path) -> Result<(), FileError> {
    let folder = path.parent().unwrap_or(path);
    let may_write = |path| rustix::fs::access(path, Access::WRITE_OK);
    let both = may_write(folder).and_then(|()| may_write(path));
    both.map_err(|error| FileError::Write {
        path: path.to_owned(),
        source: error.into(),
    })
}

/// Removes a file that is there, or a link in its place: it is gone for good once this returns.
///
/// # Errors
/// When it cannot be removed; it stays.
pub fn remove(path: &Path) -> Result<(), FileError> {
    let removed = || {
        rustix::fs::unlink(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = path.parent().unwrap_or(path);
        rustix::fs::fsync(rustix::fs::open(folder, flags, Mode::empty())?)
    };
    removed().map_err(|error: Errno| FileError::Write {
        path: path.to_owned(),
        source: error.into(),
    })
}

/// Writes over the first bytes of a file that is there, in its own place: that needs no room on a full
/// disk. It is not atomic, so it is for a few bytes.
///
/// # Errors
/// When it is not there or cannot be written.
pub fn overwrite(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let written = || {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
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
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.ino(), metadata.modified().ok()?))
}

/// Makes a new file of a name that nobody can foresee, readable by its owner alone.
fn create(folder: &OwnedFd) -> io::Result<(File, OsString)> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    loop {
        let word = RandomState::new().hash_one(std::process::id());
        let name = OsString::from(format!("{UNFINISHED}{word:016x}"));
        match rustix::fs::openat(folder, &name, flags, mode) {
            Ok(file) => return Ok((File::from(file), name)),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Finds where a path leads; `failed` makes an error of what keeps it from being walked.
fn found(path: &Path, failed: impl FnOnce(io::Error) -> FileError) -> Result<Place, FileError> {
    Place::find(path).map_err(|astray| match astray {
        Astray::Io(error) if error.raw_os_error() == Some(Errno::ISDIR.raw_os_error()) => {
            FileError::NotAFile {
                path: path.to_owned(),
            }
        }
        astray => lost(path, astray, failed),
    })
}

fn lost(path: &Path, astray: Astray, failed: impl FnOnce(io::Error) -> FileError) -> FileError {
    match astray {
        Astray::Io(error) => failed(error),
        Astray::Link { path: link, owner } => FileError::ForeignLink {
            path: path.to_owned(),
            link,
            owner,
        },
    }
}

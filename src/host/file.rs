//! Reads whole files, and replaces or creates files atomically.

use std::ffi::OsString;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use thiserror::Error;

use super::place::{self, PathEnd, Unresolved};
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
    #[error("`{}` exists already, and is not replaced", printable(.path))]
    Exists { path: PathBuf },
    #[error(
        "`{}` leads through a link of user {owner}, `{}`, in a folder where every user can create links: nvactl does not follow it",
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
            FileError::Write { path, source } if source.kind() == io::ErrorKind::NotFound => {
                let folder = path.parent()?;
                // `sudo nvactl` got this far, and its user must be able to paste the line.
                let sudo = if folder.starts_with("/etc") {
                    "sudo "
                } else {
                    ""
                };
                Some(format!(
                    "the folder is missing; to make it: {sudo}mkdir -p {}",
                    shell_word(&folder.to_string_lossy())
                ))
            }
            FileError::Exists { .. } => {
                Some("name a file that does not exist, or remove this one".to_owned())
            }
            _ => None,
        }
    }
}

/// The mode of files that hold rules: root writes, its group reads. netfilter-persistent uses the same mode.
pub const RULES_MODE: u32 = 0o640;

/// The mode of a new spec. Others must not write it, since `apply` would refuse it.
pub const SPEC_MODE: u32 = 0o644;

/// The mode of folders in /etc.
const FOLDER_MODE: u32 = 0o755;

/// The prefix of the names of files that are not complete yet.
pub const UNFINISHED: &str = ".nvactl-";

/// The longest file that is read, in bytes. The rules of 500,000 forwards fit.
pub const MOST_BYTES: usize = 256 << 20;

/// Reads a regular file that the user has not named. Returns `None` if there is none. Follows a link only if
/// the kernel would let this user follow it in a sticky folder.
///
/// # Errors
/// If it cannot be read, is not a regular file, or is larger than [`MOST_BYTES`].
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
    let end = match found(path, failed) {
        Err(FileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        found => found?,
    };
    match end.kind {
        None => return Ok(None),
        Some(FileType::RegularFile) => {}
        Some(_) => return Err(not_a_file()),
    }
    // If the file has become a pipe or a terminal meanwhile, these flags keep `openat` from waiting.
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(&end.folder, &end.name, flags, Mode::empty()) {
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
pub struct FileContent {
    pub bytes: Vec<u8>,
    /// Whether it belongs to root and nobody else may write to it.
    pub by_root: bool,
}

/// Reads a file that the user has named, which may be a pipe.
///
/// # Errors
/// If it does not exist, cannot be read, or has more than `most` bytes.
pub fn read_limited(path: &Path, most: usize) -> Result<Vec<u8>, FileError> {
    Ok(read_content(path, most)?.bytes)
}

/// Reads a file as [`read_limited`] does, and checks who can write to it.
///
/// # Errors
/// As [`read_limited`].
pub fn read_content(path: &Path, most: usize) -> Result<FileContent, FileError> {
    let content = File::open(path).and_then(|file| {
        let metadata = file.metadata()?;
        let by_root = metadata.is_file() && metadata.uid() == 0 && metadata.mode() & 0o022 == 0;
        Ok((by_root, read_at_most(file, most)?))
    });
    match content {
        Ok((by_root, (bytes, false))) => Ok(FileContent { bytes, by_root }),
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

/// Reads at most `most` bytes of a stream, and returns whether there were more.
///
/// # Errors
/// If it cannot be read.
pub fn read_at_most(stream: impl Read, most: usize) -> io::Result<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    stream.take(most as u64 + 1).read_to_end(&mut bytes)?;
    let more = bytes.len() > most;
    bytes.truncate(most);
    Ok((bytes, more))
}

/// Creates the folder of a file and the folders above it, if they do not exist, with mode 0755 whatever the
/// umask is.
///
/// # Errors
/// If a folder cannot be created, or the path leads through a link that nvactl does not follow.
pub fn make_folder_of(path: &Path) -> Result<(), FileError> {
    let failed = |source| FileError::Write {
        path: path.to_owned(),
        source,
    };
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => {
            let made = place::make_folders(folder, Mode::from_raw_mode(FOLDER_MODE));
            made.map_err(|unresolved| unresolvable(path, unresolved, failed))
        }
        _ => Ok(()),
    }
}

/// Returns the path of the backup of a file: the same name with `.bak`.
#[must_use]
pub fn backup_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".bak");
    PathBuf::from(name)
}

/// Replaces or creates a file atomically: a reader sees either the old bytes or the new ones. Follows a link,
/// so that it stays a link, if the kernel would let this user follow it in a sticky folder.
///
/// # Errors
/// If it cannot be written, is not a regular file, or the path leads through a link that nvactl does not
/// follow. The old file stays.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    prepare(path, bytes, mode)?.commit()
}

/// Replaces or creates a file atomically as [`replace`] does, but replaces a link and not the file that it leads to.
///
/// # Errors
/// If it cannot be written, or is neither a regular file nor a link. The old file stays.
pub fn replace_name(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let failed = |source| FileError::Write {
        path: path.to_owned(),
        source,
    };
    let end = PathEnd::find_name(path);
    let end = end.map_err(|unresolved| of_unresolved(path, unresolved, failed))?;
    let replaced = |kind: FileType| kind.is_file() || kind.is_symlink();
    if !end.kind.is_none_or(replaced) {
        return Err(FileError::NotAFile {
            path: path.to_owned(),
        });
    }
    let prepared = write_beside(path, end, (bytes, mode)).map_err(failed)?;
    prepared.commit()
}

/// A file's new content, on disk beside the old file. It is removed if it is dropped without a commit.
#[derive(Debug)]
pub struct Prepared {
    /// The path as the caller gave it.
    path: PathBuf,
    folder: OwnedFd,
    name: OsString,
    /// The name of the new file. `None` once it has replaced the old one.
    unfinished: Option<OsString>,
}

/// Writes a file's new content beside the old file. A full disk, a folder without write permission and a path
/// that cannot be followed fail here, before anything has changed.
///
/// # Errors
/// As [`replace`].
pub fn prepare(path: &Path, bytes: &[u8], mode: u32) -> Result<Prepared, FileError> {
    let failed = |source| FileError::Write {
        path: path.to_owned(),
        source,
    };
    let end = found(path, failed)?;
    if end.kind.is_some_and(|kind| !kind.is_file()) {
        return Err(FileError::NotAFile {
            path: path.to_owned(),
        });
    }
    write_beside(path, end, (bytes, mode)).map_err(failed)
}

/// Checks that [`create_new`] would find no file of this name. One may still appear later.
///
/// # Errors
/// [`FileError::Exists`] for a file or a link, even one that leads nowhere; [`FileError::NotAFile`] for a folder, a
/// device or a pipe.
pub fn check_new(path: &Path) -> Result<(), FileError> {
    new_place(path).map(|_| ())
}

/// Creates a file atomically: a reader sees no file or all its bytes. A file that gets the name meanwhile stays, and
/// no link is followed.
///
/// # Errors
/// As [`check_new`], and if the file cannot be written.
pub fn create_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let place = new_place(path)?;
    let prepared = write_beside(path, place, (bytes, mode));
    let prepared = prepared.map_err(|source| FileError::Write {
        path: path.to_owned(),
        source,
    })?;
    prepared.commit_new()
}

/// Finds the place of a file that does not exist yet.
fn new_place(path: &Path) -> Result<PathEnd, FileError> {
    let failed = |source| FileError::Write {
        path: path.to_owned(),
        source,
    };
    let end = PathEnd::find_name(path);
    let end = end.map_err(|unresolved| of_unresolved(path, unresolved, failed))?;
    let path = path.to_owned();
    match end.kind {
        None => Ok(end),
        Some(FileType::RegularFile | FileType::Symlink) => Err(FileError::Exists { path }),
        Some(_) => Err(FileError::NotAFile { path }),
    }
}

/// Writes a file with an unpredictable name into the folder of a place.
fn write_beside(path: &Path, place: PathEnd, (bytes, mode): (&[u8], u32)) -> io::Result<Prepared> {
    // `commit` calls fsync on the folder, which must be open for reading for that.
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
}

impl Prepared {
    /// Replaces the old file with the new one.
    ///
    /// # Errors
    /// If the old file cannot be replaced. It stays.
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
        // The rename is on disk only after an fsync of the folder.
        rustix::fs::fsync(&self.folder).map_err(|error| failed(&self.path, error))
    }

    /// Gives the new file its name, unless there is a file of that name.
    fn commit_new(mut self) -> Result<(), FileError> {
        let named = self.unfinished.take().map_or(Ok(()), |unfinished| {
            let named = self.name_new(&unfinished);
            self.unfinished = named.is_err().then_some(unfinished);
            named
        });
        // The name is on disk only after an fsync of the folder.
        let done = named.and_then(|()| rustix::fs::fsync(&self.folder));
        done.map_err(|error| match error {
            Errno::EXIST => FileError::Exists {
                path: self.path.clone(),
            },
            error => FileError::Write {
                path: self.path.clone(),
                source: error.into(),
            },
        })
    }

    /// Renames a file, unless there is one of the new name. NFS and 9p know no such rename (`EINVAL`), and have
    /// links instead, which replace no file either.
    fn name_new(&self, unfinished: &OsString) -> Result<(), Errno> {
        let Self { folder, name, .. } = self;
        match rustix::fs::renameat_with(folder, unfinished, folder, name, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS) => {
                rustix::fs::linkat(folder, unfinished, folder, name, AtFlags::empty())?;
                rustix::fs::unlinkat(folder, unfinished, AtFlags::empty())
            }
            done => done,
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if let Some(unfinished) = &self.unfinished {
            // The reason why it was not written may also keep it from being removed.
            let _ = rustix::fs::unlinkat(&self.folder, unfinished, AtFlags::empty());
        }
    }
}

/// Checks whether [`remove`] would fail, as far as that can be known: by the write permission of the folder and
/// of the file.
///
/// # Errors
/// If it cannot be removed.
pub fn try_remove(path: &Path) -> Result<(), FileError> {
    let folder = path.parent().unwrap_or(path);
    let may_write = |path| rustix::fs::access(path, Access::WRITE_OK);
    let both = may_write(folder).and_then(|()| may_write(path));
    both.map_err(|error| FileError::Write {
        path: path.to_owned(),
        source: error.into(),
    })
}

/// Removes an existing file or link. The removal is on disk when this function returns.
///
/// # Errors
/// If it cannot be removed. It stays.
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

/// Overwrites the first bytes of an existing file in place, which needs no free space on the disk. It is not
/// atomic, so it is meant for a few bytes.
///
/// # Errors
/// If the file does not exist or cannot be written.
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

/// Returns the inode and the modification time of a file, which identify a version of it without reading it.
#[must_use]
pub fn version(path: &Path) -> Option<(u64, SystemTime)> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.ino(), metadata.modified().ok()?))
}

/// Creates a new file with an unpredictable name. Only its owner can read it.
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

/// Finds the folder and name that a path leads to. `failed` makes an error from an I/O error.
fn found(path: &Path, failed: impl FnOnce(io::Error) -> FileError) -> Result<PathEnd, FileError> {
    PathEnd::find(path).map_err(|unresolved| of_unresolved(path, unresolved, failed))
}

/// Returns the error of a path to a file. One that ends in `..` or `/` names a folder.
fn of_unresolved(
    path: &Path,
    unresolved: Unresolved,
    failed: impl FnOnce(io::Error) -> FileError,
) -> FileError {
    match unresolved {
        Unresolved::Io(error) if error.raw_os_error() == Some(Errno::ISDIR.raw_os_error()) => {
            FileError::NotAFile {
                path: path.to_owned(),
            }
        }
        unresolved => unresolvable(path, unresolved, failed),
    }
}

fn unresolvable(
    path: &Path,
    unresolved: Unresolved,
    failed: impl FnOnce(io::Error) -> FileError,
) -> FileError {
    match unresolved {
        Unresolved::Io(error) => failed(error),
        Unresolved::Link { path: link, owner } => FileError::ForeignLink {
            path: path.to_owned(),
            link,
            owner,
        },
    }
}

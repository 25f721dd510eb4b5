//! Reads the files of networks that a spec names. They lie beside the spec or below it.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use thiserror::Error;

use super::file::{self, FileError};
use crate::net::printable;

/// The longest spec that is read, in bytes, with its files of networks. 100,000 forwards are about 10 MB.
pub const MAX_BYTES: usize = 32 << 20;

/// A file of networks that a spec names.
#[derive(Debug)]
pub struct NetworkText {
    /// The path as the spec has it.
    pub path: String,
    /// The name in messages.
    pub name: String,
    pub content: Result<Vec<u8>, NetworkTextError>,
    /// The paths without links of the file and of the folder that the spec names; `None` if it was not read from the
    /// disk.
    pub(super) real: Option<[PathBuf; 2]>,
}

#[derive(Debug, Error)]
pub enum NetworkTextError {
    #[error("a spec from standard input is in no folder")]
    NoFolder,
    #[error("it does not lie beside the spec or below it")]
    Outside,
    #[error("it is behind a link that leads out of the spec's folder, to `{}`", printable::path(.0))]
    Linked(PathBuf),
    #[error("the spec and its files are larger than {} MiB", MAX_BYTES >> 20)]
    TooLarge,
    #[error("it is not a regular file")]
    NotAFile,
    #[error("{0}")]
    Read(io::Error),
    #[error(transparent)]
    File(FileError),
}

/// A file of networks on the disk.
#[derive(Debug)]
pub(super) struct FoundText {
    pub(super) real: [PathBuf; 2],
    pub(super) bytes: Vec<u8>,
}

/// Reads a file by its path from the spec's folder, unless it has more than `left` bytes. Links are followed within
/// the folder.
pub(super) fn read(folder: &Path, path: &str, left: usize) -> Result<FoundText, NetworkTextError> {
    let mut parts = Path::new(path).components();
    if !parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(NetworkTextError::Outside);
    }
    let top = fs::canonicalize(folder).map_err(NetworkTextError::Read)?;
    let real = fs::canonicalize(folder.join(path)).map_err(NetworkTextError::Read)?;
    if !real.starts_with(&top) {
        return Err(NetworkTextError::Linked(real));
    }
    // A link, or a folder that is one, may lead elsewhere tomorrow.
    let named = folder.join(path);
    let named =
        fs::canonicalize(named.parent().unwrap_or(folder)).map_err(NetworkTextError::Read)?;
    match file::read_regular(&real, left) {
        Ok(Some(bytes)) => Ok(FoundText {
            real: [real, named],
            bytes,
        }),
        Ok(None) => Err(NetworkTextError::Read(rustix::io::Errno::NOENT.into())),
        Err(FileError::Read { source, .. }) => Err(NetworkTextError::Read(source)),
        Err(FileError::NotAFile { .. }) => Err(NetworkTextError::NotAFile),
        Err(FileError::TooLarge { .. }) => Err(NetworkTextError::TooLarge),
        Err(error) => Err(NetworkTextError::File(error)),
    }
}

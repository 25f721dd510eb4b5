//! Reads a file that the user has named, or standard input.

use std::io;
use std::path::Path;

use super::file::{self, FileContent, FileError, MOST_BYTES};
use super::spec_source::is_stdin;
use crate::net::printable;

/// The name of standard input in messages.
const STDIN: &str = "<stdin>";

/// A file that the user has named.
#[derive(Debug)]
pub struct NamedInput {
    /// The path, or `<stdin>`.
    pub name: String,
    pub content: FileContent,
}

/// Reads a file, a pipe, or standard input for `-`.
///
/// # Errors
/// If it cannot be read, or has more than [`MOST_BYTES`].
pub fn read(path: &Path) -> Result<NamedInput, FileError> {
    if !is_stdin(path) {
        return Ok(NamedInput {
            name: printable::path(path),
            content: file::read_content(path, MOST_BYTES)?,
        });
    }
    let read = file::read_at_most(io::stdin().lock(), MOST_BYTES);
    let path = || STDIN.into();
    match read {
        Ok((bytes, false)) => Ok(NamedInput {
            name: STDIN.to_owned(),
            // The writer of a pipe is unknown.
            content: FileContent {
                bytes,
                by_root: false,
            },
        }),
        Ok((_, true)) => Err(FileError::TooLarge {
            path: path(),
            most: MOST_BYTES,
        }),
        Err(source) => Err(FileError::Read {
            path: path(),
            source,
        }),
    }
}

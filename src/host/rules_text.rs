//! Reads rules that the user has named: a file, or standard input.

use std::fs::File;
use std::io;
use std::path::Path;

use thiserror::Error;

use super::file::read_at_most;
use super::network_file::MAX_BYTES;
use super::spec_source::{is_stdin, name_of};

/// The text of rules, and its origin.
#[derive(Debug)]
pub struct RulesText {
    /// The name in messages: the path, or `<stdin>`.
    pub name: String,
    pub bytes: Vec<u8>,
}

#[derive(Debug, Error)]
pub enum RulesTextError {
    #[error("cannot read the rules `{name}`")]
    Read { name: String, source: io::Error },
    #[error("the rules `{name}` are larger than {} MiB", MAX_BYTES >> 20)]
    TooLarge { name: String },
}

/// Reads a file, a pipe, or standard input for `-`.
///
/// # Errors
/// If it cannot be read, or is longer than [`MAX_BYTES`].
pub fn read(path: &Path) -> Result<RulesText, RulesTextError> {
    let name = name_of(path);
    let content = if is_stdin(path) {
        read_at_most(io::stdin().lock(), MAX_BYTES)
    } else {
        File::open(path).and_then(|file| read_at_most(file, MAX_BYTES))
    };
    match content {
        Ok((bytes, false)) => Ok(RulesText { name, bytes }),
        Ok((_, true)) => Err(RulesTextError::TooLarge { name }),
        Err(source) => Err(RulesTextError::Read { name, source }),
    }
}

//! Reads the objects of Kubernetes that a command is about.

use std::path::Path;

use super::error::{Error, Result};
use crate::host::input;
use crate::kubernetes::{self, KubeObjects};

/// The objects of a file.
pub(super) struct ReadObjects {
    /// The name of the file.
    pub(super) name: String,
    pub(super) objects: KubeObjects,
}

/// Reads a file of kubectl, or standard input.
///
/// # Errors
/// If it cannot be read, or has no objects.
pub(super) fn read_objects(path: &Path) -> Result<ReadObjects> {
    let input = input::read(path)?;
    match kubernetes::read(&input.content.bytes) {
        Ok(objects) => Ok(ReadObjects {
            name: input.name,
            objects,
        }),
        Err(source) => Err(Error::Objects {
            file: input.name,
            source,
        }),
    }
}

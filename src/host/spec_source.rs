//! Where the spec comes from: a file, standard input, or one of the places it is looked for.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::file;
use crate::spec::MAX_BYTES;

/// The places where a spec is looked for when none is named, in this order.
const PLACES: [&str; 2] = ["forward.yaml", "/etc/nvactl/forward.yaml"];

/// A spec's text and where it was.
#[derive(Debug)]
pub struct Source {
    /// As messages name it: the path, or `<stdin>`.
    pub name: String,
    pub text: Vec<u8>,
    /// The file, when nvactl found it by itself and the user has not named it.
    found: Option<PathBuf>,
}

#[derive(Debug, Error)]
pub enum SourceError {
    #[error(
        "no spec: none was named, NVACTL_SPEC is not set, and there is neither ./forward.yaml nor /etc/nvactl/forward.yaml"
    )]
    None,
    #[error("cannot read the spec `{name}`")]
    Read { name: String, source: io::Error },
    #[error("the spec `{name}` is larger than {} MiB", MAX_BYTES >> 20)]
    TooLarge { name: String },
    #[error("`{}` was not named but found, and {why}: whoever that is could decide what this machine forwards", .path.display())]
    Untrusted { path: PathBuf, why: &'static str },
}

impl SourceError {
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            SourceError::None => Some("name it: nvactl check my-forwards.yaml".to_owned()),
            SourceError::Untrusted { path, .. } => Some(format!(
                "name it if you trust it (`{}`), or take the right away: chmod go-w",
                path.display()
            )),
            _ => None,
        }
    }
}

/// Reads the spec the user named, or finds one: `$NVACTL_SPEC`, `./forward.yaml`,
/// `/etc/nvactl/forward.yaml`. `-` is standard input.
///
/// # Errors
/// When there is none, or it cannot be read, or it is longer than [`MAX_BYTES`].
pub fn read(named: Option<&Path>) -> Result<Source, SourceError> {
    let from_environment = std::env::var_os("NVACTL_SPEC").filter(|value| !value.is_empty());
    let named = named
        .map(Path::to_owned)
        .or_else(|| from_environment.map(PathBuf::from));
    let (path, found) = match named {
        Some(path) => (path, None),
        None => {
            let place = PLACES
                .into_iter()
                .map(PathBuf::from)
                .find(|place| place.exists());
            let place = place.ok_or(SourceError::None)?;
            (place.clone(), Some(place))
        }
    };
    let (name, content) = if path.as_os_str() == "-" {
        let content = file::read_at_most(io::stdin().lock(), MAX_BYTES);
        ("<stdin>".to_owned(), content)
    } else {
        let content = File::open(&path).and_then(|file| file::read_at_most(file, MAX_BYTES));
        (path.display().to_string(), content)
    };
    match content {
        Err(source) => Err(SourceError::Read { name, source }),
        Ok((_, true)) => Err(SourceError::TooLarge { name }),
        Ok((text, false)) => Ok(Source { name, text, found }),
    }
}

impl Source {
    /// For commands that change the host: a spec that was only found must not be one that others
    /// than its owner and root may write, nor lie where anybody may put one.
    ///
    /// # Errors
    /// When it is.
    pub fn trusted(&self) -> Result<(), SourceError> {
        let Some(path) = &self.found else {
            return Ok(());
        };
        let mode = |path: &Path| {
            fs::metadata(path)
                .map(|metadata| metadata.permissions().mode())
                .map_err(|source| SourceError::Read {
                    name: path.display().to_string(),
                    source,
                })
        };
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let why = if mode(path)? & 0o022 != 0 {
            "others than its owner may write it"
        } else if mode(folder)? & 0o002 != 0 {
            "anybody may put one into its folder"
        } else {
            return Ok(());
        };
        Err(SourceError::Untrusted {
            path: path.clone(),
            why,
        })
    }
}

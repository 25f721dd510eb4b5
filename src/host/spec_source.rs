//! Where the spec comes from: a file, standard input, or one of the places it is looked for.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::file;
use crate::spec::MAX_BYTES;
use crate::token::shell_word;

/// The places where a spec is looked for when none is named, in this order.
const PLACES: [&str; 2] = ["forward.yaml", "/etc/nvactl/forward.yaml"];

/// How messages name standard input.
const STDIN: &str = "<stdin>";

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
    #[error("`{}` was not named but found, and {why} `{}`: they could decide what this machine forwards", .path.display(), .at_fault.display())]
    Untrusted {
        path: PathBuf,
        /// The file, or its folder.
        at_fault: PathBuf,
        why: Distrust,
    },
}

/// Why somebody else could change what stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Distrust {
    #[error("others than its owner may write")]
    Writable,
    #[error("somebody else owns")]
    Owned,
}

impl Distrust {
    /// The command that ends it.
    fn mend(self, path: &Path) -> String {
        let path = shell_word(&path.to_string_lossy());
        match self {
            Distrust::Writable => format!("chmod go-w {path}"),
            Distrust::Owned => format!("sudo chown root {path}"),
        }
    }
}

impl SourceError {
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            SourceError::None => Some("name it: nvactl check my-forwards.yaml".to_owned()),
            SourceError::Untrusted {
                path,
                at_fault,
                why,
            } => Some(format!(
                "name it if you trust it (nvactl apply {}), or make it safe: {}",
                path.display(),
                why.mend(at_fault)
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
                .find(|place| fs::symlink_metadata(place).is_ok());
            let place = place.ok_or(SourceError::None)?;
            (place.clone(), Some(place))
        }
    };
    let (name, content) = if path.as_os_str() == "-" {
        let content = file::read_at_most(io::stdin().lock(), MAX_BYTES);
        (STDIN.to_owned(), content)
    } else {
        let content = File::open(&path).and_then(|file| file::read_at_most(file, MAX_BYTES));
        (printable(&path), content)
    };
    match content {
        Err(source) => Err(SourceError::Read { name, source }),
        Ok((_, true)) => Err(SourceError::TooLarge { name }),
        Ok((text, false)) => Ok(Source { name, text, found }),
    }
}

/// A path as messages name it: no control character of a file's name reaches a terminal or a log.
#[must_use]
pub fn printable(path: &Path) -> String {
    let name = path.display().to_string();
    if name.contains(char::is_control) {
        name.escape_debug().to_string()
    } else {
        name
    }
}

impl Source {
    /// What names it on a command line.
    #[must_use]
    pub fn argument(&self) -> &str {
        if self.name == STDIN { "-" } else { &self.name }
    }

    /// For commands that change the host: a spec that was only found must not be one that others
    /// than its owner and root may write, nor lie in a folder where others may put one.
    ///
    /// # Errors
    /// When it is.
    pub fn trusted(&self) -> Result<(), SourceError> {
        let Some(path) = &self.found else {
            return Ok(());
        };
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let Some((at_fault, why)) = untrusted(path)?
            .map(|why| (path.as_path(), why))
            .or(untrusted(folder)?.map(|why| (folder, why)))
        else {
            return Ok(());
        };
        Err(SourceError::Untrusted {
            path: path.clone(),
            at_fault: at_fault.to_owned(),
            why,
        })
    }
}

/// Why somebody else could change what stands at `path`, if somebody could. Root, the user who runs
/// nvactl and the one behind `sudo` are trusted.
fn untrusted(path: &Path) -> Result<Option<Distrust>, SourceError> {
    let metadata = fs::metadata(path).map_err(|source| SourceError::Read {
        name: path.display().to_string(),
        source,
    })?;
    let sudo = std::env::var("SUDO_UID")
        .ok()
        .and_then(|uid| uid.parse().ok());
    let trusted = [Some(0), Some(rustix::process::geteuid().as_raw()), sudo];
    Ok(if metadata.permissions().mode() & 0o022 != 0 {
        Some(Distrust::Writable)
    } else if !trusted.contains(&Some(metadata.uid())) {
        Some(Distrust::Owned)
    } else {
        None
    })
}

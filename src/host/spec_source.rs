//! Where the spec comes from: a file, the files of a folder, standard input, or one of the places it
//! is looked for.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::file::{self, FileError};
use crate::net::printable;
use crate::netfilter::token::shell_word;

/// The places where a spec is looked for when none is named, in this order.
const PLACES: [&str; 2] = ["forward.yaml", "/etc/nvactl/forward.yaml"];

/// The folder that is the last of these places.
const FOLDER: &str = "/etc/nvactl/forward.d";

/// The longest spec that is read, in bytes. 100,000 forwards are about 10 MB.
pub const MAX_BYTES: usize = 32 << 20;

/// How messages name standard input.
const STDIN: &str = "<stdin>";

/// A spec's text and where it was.
#[derive(Debug)]
pub struct Source {
    /// As messages name it: the path, or `<stdin>`.
    pub name: String,
    /// In the order in which they make one spec. One, unless the spec is a folder.
    files: Vec<File>,
    /// Where it was, when nvactl found it by itself and the user has not named it.
    found: Option<PathBuf>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    /// As messages name it.
    name: String,
    text: Vec<u8>,
}

#[derive(Debug, Error)]
pub enum SourceError {
    #[error(
        "no spec: none was named, NVACTL_SPEC is not set, and there is none of ./forward.yaml, /etc/nvactl/forward.yaml and /etc/nvactl/forward.d"
    )]
    None,
    #[error("cannot read the spec `{name}`")]
    Read { name: String, source: io::Error },
    #[error("the spec `{name}` is larger than {} MiB", MAX_BYTES >> 20)]
    TooLarge { name: String },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the folder `{name}` has no file `*.yaml`, so it is no spec")]
    NoFile { name: String },
    #[error("`{}` was not named but found, and {why} `{}`: they could decide what this machine forwards", .path.display(), printable::path(.at_fault))]
    Untrusted {
        path: PathBuf,
        /// The spec, one of its files, or the folder that it lies in.
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
            SourceError::NoFile { .. } => Some(
                "give its files names that end in `.yaml`; hidden ones and subfolders are not read"
                    .to_owned(),
            ),
            SourceError::File(error) => error.hint(),
            SourceError::Read { .. } | SourceError::TooLarge { .. } => None,
        }
    }
}

/// Reads the spec the user named, or finds one: `$NVACTL_SPEC`, `./forward.yaml`,
/// `/etc/nvactl/forward.yaml`, `/etc/nvactl/forward.d`. `-` is standard input.
///
/// # Errors
/// When there is none, or it cannot be read, or it is longer than [`MAX_BYTES`].
pub fn read(named: Option<&Path>) -> Result<Source, SourceError> {
    let (path, found) = match self::named(named) {
        Some(path) => (path, None),
        None => {
            let place = find().ok_or(SourceError::None)?;
            (place.clone(), Some(place))
        }
    };
    let name = name_of(&path);
    // A pipe is read only where the user has named it, as a shell's `<(…)`.
    let named_itself = found.is_none() && !path.is_dir();
    let paths = if !is_stdin(&path) && path.is_dir() {
        files_in(&path)?
    } else {
        vec![path]
    };
    let mut files = Vec::with_capacity(paths.len());
    let mut left = MAX_BYTES;
    for path in paths {
        let text = if named_itself {
            read_named(&path, left)
        } else {
            read_found(&path, left)
        };
        let Some(text) = text? else {
            return Err(SourceError::TooLarge { name });
        };
        left -= text.len();
        files.push(File {
            name: name_of(&path),
            path,
            text,
        });
    }
    Ok(Source { name, files, found })
}

/// Returns the spec that the user names, by an argument or by `$NVACTL_SPEC`.
#[must_use]
pub fn named(argument: Option<&Path>) -> Option<PathBuf> {
    let from_environment = std::env::var_os("NVACTL_SPEC").filter(|value| !value.is_empty());
    argument
        .map(Path::to_owned)
        .or_else(|| from_environment.map(PathBuf::from))
}

/// Reads standard input or a file; `None` if it has more than `most` bytes.
fn read_named(path: &Path, most: usize) -> Result<Option<Vec<u8>>, SourceError> {
    let content = if is_stdin(path) {
        file::read_at_most(io::stdin().lock(), most)
    } else {
        fs::File::open(path).and_then(|file| file::read_at_most(file, most))
    };
    let (text, more) = content.map_err(|source| SourceError::Read {
        name: name_of(path),
        source,
    })?;
    Ok((!more).then_some(text))
}

/// Reads a regular file; `None` if it has more than `most` bytes.
fn read_found(path: &Path, most: usize) -> Result<Option<Vec<u8>>, SourceError> {
    let failed = |source| SourceError::Read {
        name: name_of(path),
        source,
    };
    match file::read_regular(path, most) {
        Ok(None) => Err(failed(rustix::io::Errno::NOENT.into())),
        Err(FileError::TooLarge { .. }) => Ok(None),
        Err(FileError::Read { source, .. }) => Err(failed(source)),
        read => Ok(read?),
    }
}

/// The first of the places where there is a spec.
fn find() -> Option<PathBuf> {
    let files = PLACES.into_iter().map(PathBuf::from);
    let mut there = files.filter(|place| fs::symlink_metadata(place).is_ok());
    let folder = || Some(PathBuf::from(FOLDER)).filter(|folder| folder.is_dir());
    there.next().or_else(folder)
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn name_of(path: &Path) -> String {
    if is_stdin(path) {
        STDIN.to_owned()
    } else {
        printable::path(path)
    }
}

/// The files of a folder that make a spec, in the order of their names, byte by byte: the same on
/// every machine, whatever its locale.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let listed = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let listed = listed.map_err(|source| SourceError::Read {
        name: printable::path(folder),
        source,
    })?;
    let is_spec = |name: &OsStr| {
        let name = name.as_bytes();
        name.ends_with(b".yaml") && !name.starts_with(b".")
    };
    let mut names: Vec<_> = listed.into_iter().map(|entry| entry.file_name()).collect();
    names.retain(|name| is_spec(name));
    names.sort_unstable();
    let mut paths: Vec<PathBuf> = names.into_iter().map(|name| folder.join(name)).collect();
    // A link to nothing is not passed over: its forwards are missing.
    paths.retain(|path| !path.is_dir());
    if paths.is_empty() {
        return Err(SourceError::NoFile {
            name: printable::path(folder),
        });
    }
    Ok(paths)
}

impl Source {
    /// What names it on a command line.
    #[must_use]
    pub fn argument(&self) -> &str {
        if self.name == STDIN { "-" } else { &self.name }
    }

    /// A spec that was kept when its plan was loaded.
    #[must_use]
    pub fn kept(name: String, files: impl Iterator<Item = (String, String)>) -> Self {
        let files = files.map(|(name, text)| File {
            path: PathBuf::from(&name),
            name,
            text: text.into_bytes(),
        });
        Self {
            name,
            files: files.collect(),
            found: None,
        }
    }

    /// Returns the name and the text of each file.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let files = self.files.iter();
        files.map(|file| (file.name.as_str(), file.text.as_slice()))
    }

    /// Returns what names it from every folder.
    #[must_use]
    pub fn absolute(&self) -> String {
        let path = std::path::absolute(&self.name).ok();
        let path = path.filter(|_| self.name != STDIN);
        path.map_or_else(|| self.name.clone(), |path| printable::path(&path))
    }

    /// For commands that change the host: a spec that was only found must not be one that others
    /// than its owner and root may write, nor hold such a file, nor lie in a folder where others may
    /// put one.
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
        let files = self.files.iter().map(|file| file.path.as_path());
        for at_fault in [path.as_path()].into_iter().chain(files).chain([folder]) {
            if let Some(why) = untrusted(at_fault)? {
                return Err(SourceError::Untrusted {
                    path: path.clone(),
                    at_fault: at_fault.to_owned(),
                    why,
                });
            }
        }
        Ok(())
    }
}

/// Why somebody else could change what stands at `path`, if somebody could. Root, the user who runs
/// nvactl and the one behind `sudo` are trusted.
fn untrusted(path: &Path) -> Result<Option<Distrust>, SourceError> {
    let metadata = fs::metadata(path).map_err(|source| SourceError::Read {
        name: printable::path(path),
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

//! Reads a spec from a file, the files of a folder, standard input, or one of the default paths, together with the
//! files of networks that it names.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::file::{self, FileError};
use super::network_file::{self, MAX_BYTES, NetworkText, NetworkTextError};
use crate::net::printable;
use crate::netfilter::token::shell_word;

/// The default paths of a spec, in the order in which they are tried.
const PLACES: [&str; 2] = ["forward.yaml", "/etc/nvactl/forward.yaml"];

/// The folder that is tried after the default paths.
const FOLDER: &str = "/etc/nvactl/forward.d";

/// The name of standard input in messages.
const STDIN: &str = "<stdin>";

/// The text of a spec and its origin.
#[derive(Debug)]
pub struct SpecSource {
    /// The name in messages: the path, or `<stdin>`.
    pub name: String,
    /// The files of the spec, in the order in which they are read. Only a folder has several.
    files: Vec<SpecFile>,
    /// The files of networks that it names.
    networks: Vec<NetworkText>,
    /// The path of the spec, if nvactl found it and the user has not named it.
    found: Option<PathBuf>,
}

#[derive(Debug)]
struct SpecFile {
    path: PathBuf,
    /// The name in messages.
    name: String,
    text: Vec<u8>,
}

#[derive(Debug, Error)]
pub enum SpecSourceError {
    #[error(
        "no spec: none was named, NVACTL_SPEC is not set, and none of ./forward.yaml, /etc/nvactl/forward.yaml and /etc/nvactl/forward.d exists"
    )]
    None,
    #[error("cannot read the spec `{name}`")]
    Read { name: String, source: io::Error },
    #[error("the spec `{name}` is larger than {} MiB", MAX_BYTES >> 20)]
    TooLarge { name: String },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the folder `{name}` has no file `*.yaml`, so it is not a spec")]
    NoFile { name: String },
    #[error("nvactl found the spec `{}` by itself, and {why} `{}`: they could decide what this machine forwards", .path.display(), printable::path(.at_fault))]
    Untrusted {
        path: PathBuf,
        /// The spec, one of its files, or the folder that it lies in.
        at_fault: PathBuf,
        why: Distrust,
    },
    #[error("the spec names the file of networks `{name}`, and {why} `{}`: they could decide whom this machine admits", printable::path(.at_fault))]
    UntrustedNetworks {
        name: String,
        /// The file, or a folder between the spec and the file.
        at_fault: PathBuf,
        why: Distrust,
    },
}

/// The reason why another user could change a spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Distrust {
    #[error("users other than the owner can write to")]
    Writable,
    #[error("another user owns")]
    Owned,
}

impl Distrust {
    /// Returns the command that fixes it.
    fn fix(self, path: &Path) -> String {
        let path = shell_word(&path.to_string_lossy());
        match self {
            Distrust::Writable => format!("sudo chmod go-w {path}"),
            Distrust::Owned => format!("sudo chown root {path}"),
        }
    }
}

impl SpecSourceError {
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            SpecSourceError::Untrusted {
                path,
                at_fault,
                why,
            } => Some(format!(
                "if you trust it, add it to the command: {}\n\
                 hint: to make it safe: {}",
                shell_word(&path.to_string_lossy()),
                why.fix(at_fault)
            )),
            SpecSourceError::UntrustedNetworks { at_fault, why, .. } => Some(why.fix(at_fault)),
            SpecSourceError::NoFile { .. } => Some(
                "give its files names that end in `.yaml`; hidden files and subfolders are not read"
                    .to_owned(),
            ),
            SpecSourceError::File(error) => error.hint(),
            // The hint names the command, which this room does not know.
            SpecSourceError::None | SpecSourceError::Read { .. } | SpecSourceError::TooLarge { .. } => None,
        }
    }
}

/// Returns the spec that is at a path now; `None` if no file or folder there can be read.
#[must_use]
pub fn at(path: &Path) -> Option<SpecSource> {
    if path.is_file() || path.is_dir() {
        read(Some(path)).ok()
    } else {
        None
    }
}

/// Reads the spec that the user has named, or finds one: `$NVACTL_SPEC`, `./forward.yaml`,
/// `/etc/nvactl/forward.yaml`, `/etc/nvactl/forward.d`. `-` is standard input.
///
/// # Errors
/// If there is none, it cannot be read, or it is longer than [`MAX_BYTES`].
pub fn read(named: Option<&Path>) -> Result<SpecSource, SpecSourceError> {
    let (path, found) = match self::named(named) {
        Some(path) => (path, None),
        None => {
            let place = find().ok_or(SpecSourceError::None)?;
            (place.clone(), Some(place))
        }
    };
    let name = name_of(&path);
    // A pipe is read only if the user has named it, such as a shell's `<(…)`.
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
            return Err(SpecSourceError::TooLarge { name });
        };
        left -= text.len();
        files.push(SpecFile {
            name: name_of(&path),
            path,
            text,
        });
    }
    Ok(SpecSource {
        name,
        files,
        networks: Vec::new(),
        found,
    })
}

/// Returns the spec that the user has named, by an argument or by `$NVACTL_SPEC`.
#[must_use]
pub fn named(argument: Option<&Path>) -> Option<PathBuf> {
    let from_environment = std::env::var_os("NVACTL_SPEC").filter(|value| !value.is_empty());
    argument
        .map(Path::to_owned)
        .or_else(|| from_environment.map(PathBuf::from))
}

/// Reads standard input or a file. Returns `None` if it has more than `most` bytes.
fn read_named(path: &Path, most: usize) -> Result<Option<Vec<u8>>, SpecSourceError> {
    let content = if is_stdin(path) {
        file::read_at_most(io::stdin().lock(), most)
    } else {
        fs::File::open(path).and_then(|file| file::read_at_most(file, most))
    };
    let (text, more) = content.map_err(|source| SpecSourceError::Read {
        name: name_of(path),
        source,
    })?;
    Ok((!more).then_some(text))
}

/// Reads a regular file. Returns `None` if it has more than `most` bytes.
fn read_found(path: &Path, most: usize) -> Result<Option<Vec<u8>>, SpecSourceError> {
    let failed = |source| SpecSourceError::Read {
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

/// Returns the first default path that exists.
fn find() -> Option<PathBuf> {
    let files = PLACES.into_iter().map(PathBuf::from);
    let mut there = files.filter(|place| fs::symlink_metadata(place).is_ok());
    let folder = || Some(PathBuf::from(FOLDER)).filter(|folder| folder.is_dir());
    there.next().or_else(folder)
}

/// Whether a path is `-`, which stands for standard input.
#[must_use]
pub fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Returns the name of a path in messages.
pub(super) fn name_of(path: &Path) -> String {
    if is_stdin(path) {
        STDIN.to_owned()
    } else {
        printable::path(path)
    }
}

/// Returns the files of a folder that make a spec, sorted by the bytes of their names: the order does not depend
/// on the locale.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>, SpecSourceError> {
    let listed = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let listed = listed.map_err(|source| SpecSourceError::Read {
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
    // A broken link stays in the list, so that reading it fails: otherwise its forwards would be missing.
    paths.retain(|path| !path.is_dir());
    if paths.is_empty() {
        return Err(SpecSourceError::NoFile {
            name: printable::path(folder),
        });
    }
    Ok(paths)
}

impl SpecSource {
    /// Returns the spec's name as an argument on a command line.
    #[must_use]
    pub fn argument(&self) -> &str {
        if self.name == STDIN { "-" } else { &self.name }
    }

    /// Returns the spec's place for a user who did not name it: `./forward.yaml` rather than `forward.yaml`.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.found {
            Some(path) if path.is_relative() => format!("./{}", self.name),
            _ => self.name.clone(),
        }
    }

    /// Returns a spec from the texts that were saved when its plan was loaded. Those of `networks` have the paths
    /// that the spec names.
    #[must_use]
    pub fn kept(
        name: String,
        files: impl Iterator<Item = (String, String)>,
        networks: impl Iterator<Item = (String, String)>,
    ) -> Self {
        let files = files.map(|(name, text)| SpecFile {
            path: PathBuf::from(&name),
            name,
            text: text.into_bytes(),
        });
        let mut source = Self {
            name,
            files: files.collect(),
            networks: Vec::new(),
            found: None,
        };
        let folder = source.folder().unwrap_or_default();
        let networks = networks.map(|(path, text)| NetworkText {
            name: printable::path(&folder.join(&path)),
            path,
            content: Ok(text.into_bytes()),
            real: None,
        });
        source.networks = networks.collect();
        source
    }

    /// Returns the spec with this path and text.
    #[must_use]
    pub fn of_text(path: &Path, text: Vec<u8>) -> Self {
        let name = name_of(path);
        Self {
            name: name.clone(),
            files: vec![SpecFile {
                path: path.to_owned(),
                name,
                text,
            }],
            networks: Vec::new(),
            found: None,
        }
    }

    /// Returns the folder of the spec's files; `None` for standard input.
    fn folder(&self) -> Option<PathBuf> {
        let file = self.files.first().filter(|file| !is_stdin(&file.path))?;
        Some(match file.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        })
    }

    /// Reads the files of networks that the spec names by these paths.
    #[must_use]
    pub fn with_networks(mut self, paths: impl IntoIterator<Item = String>) -> Self {
        let folder = self.folder();
        let texts = self.files.iter().map(|file| file.text.len());
        let mut left = MAX_BYTES.saturating_sub(texts.sum());
        let each = paths.into_iter().map(|path| {
            let found = match &folder {
                Some(folder) => network_file::read(folder, &path, left),
                None => Err(NetworkTextError::NoFolder),
            };
            left -= found.as_ref().map_or(0, |found| found.bytes.len());
            let beside = self
                .files
                .first()
                .map(|file| file.path.with_file_name(&path));
            NetworkText {
                name: beside.map_or_else(|| path.clone(), |path| printable::path(&path)),
                path,
                real: found.as_ref().ok().map(|found| found.real.clone()),
                content: found.map(|found| found.bytes),
            }
        });
        self.networks = each.collect();
        self
    }

    /// Returns the files of networks that were read.
    #[must_use]
    pub fn networks(&self) -> &[NetworkText] {
        &self.networks
    }

    /// Returns the name and the text of each file, without those of networks.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let files = self.files.iter();
        files.map(|file| (file.name.as_str(), file.text.as_slice()))
    }

    /// Returns the spec's absolute path, or `<stdin>`.
    #[must_use]
    pub fn absolute(&self) -> String {
        let path = std::path::absolute(&self.name).ok();
        let path = path.filter(|_| self.name != STDIN);
        path.map_or_else(|| self.name.clone(), |path| printable::path(&path))
    }

    /// Checks, for commands that change the host, that no other user could have written a spec that the user has
    /// not named: neither the spec, nor one of its files, nor a file in its folder. The user never names a file of
    /// networks, so these are checked for every spec.
    ///
    /// # Errors
    /// If another user could have written it.
    pub fn trusted(&self) -> Result<(), SpecSourceError> {
        for networks in &self.networks {
            self.trusted_networks(networks)?;
        }
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
                return Err(SpecSourceError::Untrusted {
                    path: path.clone(),
                    at_fault: at_fault.to_owned(),
                    why,
                });
            }
        }
        Ok(())
    }

    /// Checks a file of networks, the folders between the spec and the file, and those between the spec and a link to
    /// the file.
    fn trusted_networks(&self, networks: &NetworkText) -> Result<(), SpecSourceError> {
        let (Some(real), Some(folder)) = (&networks.real, self.folder()) else {
            return Ok(());
        };
        let failed = |source| SpecSourceError::Read {
            name: networks.name.clone(),
            source,
        };
        let top = fs::canonicalize(folder).map_err(failed)?;
        let above = real
            .iter()
            .flat_map(|path| path.ancestors().take_while(|at| **at != top));
        for at_fault in above {
            if let Some(why) = untrusted(at_fault)? {
                return Err(SpecSourceError::UntrustedNetworks {
                    name: networks.name.clone(),
                    at_fault: at_fault.to_owned(),
                    why,
                });
            }
        }
        Ok(())
    }
}

/// Returns the reason why another user could change `path`, if one could. Root, the user who runs nvactl and the
/// user who called `sudo` are trusted.
fn untrusted(path: &Path) -> Result<Option<Distrust>, SpecSourceError> {
    let metadata = fs::metadata(path).map_err(|source| SpecSourceError::Read {
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

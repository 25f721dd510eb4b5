//! Resolves a path to an open folder and a name in it.
//!
//! A path is resolved component by component. Each is opened in the folder before it, so nobody can exchange
//! anything between a check and its use. A symbolic link is followed only if the kernel would let this user
//! follow it with `protected_symlinks` on, whatever the value of that setting is (proc(5)). The kernel checks
//! only the last component of a path. Here links to folders are checked too.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// The number of links that the kernel follows in one path (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

const FOLDER: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A folder and a name in it, after all links were followed.
#[derive(Debug)]
pub struct PathEnd {
    /// Open with `O_PATH`: it identifies the folder, but cannot read it.
    pub folder: OwnedFd,
    pub name: OsString,
    /// The type of the file with that name. `None` if there is no file.
    pub kind: Option<FileType>,
}

/// The treatment of a link that is the last component of a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LastLink {
    Follow,
    Keep,
}

/// The reason why a path cannot be resolved.
#[derive(Debug)]
pub enum Unresolved {
    Io(io::Error),
    /// A link of another user, in a folder where every user can create links.
    Link {
        path: PathBuf,
        owner: u32,
    },
}

impl From<Errno> for Unresolved {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl PathEnd {
    /// Resolves a path. Its last component need not exist.
    ///
    /// # Errors
    /// If a component before the last is not a folder or cannot be searched, or a link must not be followed. A
    /// path that ends in `..` or `/` names no file in a folder: `EISDIR`.
    pub fn find(path: &Path) -> Result<Self, Unresolved> {
        Self::resolve(path, LastLink::Follow)
    }

    /// Resolves a path as [`PathEnd::find`] does, but keeps a link that is its last component.
    ///
    /// # Errors
    /// As [`PathEnd::find`].
    pub fn find_name(path: &Path) -> Result<Self, Unresolved> {
        Self::resolve(path, LastLink::Keep)
    }

    fn resolve(path: &Path, last: LastLink) -> Result<Self, Unresolved> {
        let mut resolver = Resolver::begin(path)?;
        while let Some(name) = resolver.ahead.pop() {
            if !resolver.ahead.is_empty() || name == ".." {
                resolver.enter(name)?;
                continue;
            }
            let kind = match resolver.look_at(&name) {
                Ok(found) => FileType::from_raw_mode(found.stat.st_mode),
                Err(Errno::NOENT) => {
                    return Ok(Self {
                        folder: resolver.folder,
                        name,
                        kind: None,
                    });
                }
                Err(error) => return Err(error.into()),
            };
            if kind.is_symlink() && last == LastLink::Follow {
                resolver.follow(&name)?;
                continue;
            }
            return Ok(Self {
                folder: resolver.folder,
                name,
                kind: Some(kind),
            });
        }
        Err(Errno::ISDIR.into())
    }
}

/// Creates each missing folder of a path with exactly this mode, whatever the umask is.
///
/// # Errors
/// If a folder cannot be created or searched, or a link must not be followed.
pub fn make_folders(path: &Path, mode: Mode) -> Result<(), Unresolved> {
    let mut resolver = Resolver::begin(path)?;
    while let Some(name) = resolver.ahead.pop() {
        // The umask can only remove bits from `mode`, and `fchmod` restores them.
        match rustix::fs::mkdirat(&resolver.folder, &name, mode) {
            Ok(()) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let folder = rustix::fs::openat(&resolver.folder, &name, flags, Mode::empty())?;
                rustix::fs::fchmod(&folder, mode)?;
                resolver.folder = folder;
                resolver.at.push(name);
            }
            Err(Errno::EXIST) => resolver.enter(name)?,
            // The folder may exist although the disk accepts no new one.
            Err(error) => resolver.enter(name).map_err(|_| error)?,
        }
    }
    Ok(())
}

/// An open file, or an open link that was not followed.
struct OpenPlace {
    fd: OwnedFd,
    stat: Stat,
}

/// The state while a path is resolved.
struct Resolver {
    folder: OwnedFd,
    /// The path of the folder, for messages.
    at: PathBuf,
    /// The remaining components, the next one last.
    ahead: Vec<OsString>,
    links: usize,
}

impl Resolver {
    fn begin(path: &Path) -> Result<Self, Unresolved> {
        if path.as_os_str().is_empty() {
            return Err(Errno::NOENT.into());
        }
        let mut resolver = Self {
            folder: rustix::fs::openat(CWD, ".", FOLDER, Mode::empty())?,
            at: PathBuf::new(),
            ahead: Vec::new(),
            links: 0,
        };
        resolver.put_ahead(path)?;
        Ok(resolver)
    }

    /// Adds the components of `path` before the remaining ones. Starts at the root if the path is absolute.
    fn put_ahead(&mut self, path: &Path) -> Result<(), Errno> {
        if path.has_root() {
            self.folder = rustix::fs::openat(CWD, "/", FOLDER, Mode::empty())?;
            self.at = PathBuf::from("/");
        }
        let names = path.components().rev().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            _ => None,
        });
        self.ahead.extend(names);
        Ok(())
    }

    fn look_at(&self, name: &OsStr) -> Result<OpenPlace, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.folder, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        Ok(OpenPlace { fd, stat })
    }

    /// Enters the folder with this name, or follows the link with this name.
    fn enter(&mut self, name: OsString) -> Result<(), Unresolved> {
        match rustix::fs::openat(&self.folder, &name, FOLDER, Mode::empty()) {
            Ok(folder) => {
                self.folder = folder;
                self.at.push(name);
                Ok(())
            }
            // Because of `O_NOFOLLOW`, a link to a folder is not opened as a folder.
            Err(Errno::NOTDIR | Errno::LOOP) => self.follow(&name),
            Err(error) => Err(error.into()),
        }
    }

    /// Follows a link: its target comes before the remaining components.
    fn follow(&mut self, name: &OsStr) -> Result<(), Unresolved> {
        let link = self.look_at(name)?;
        if !FileType::from_raw_mode(link.stat.st_mode).is_symlink() {
            return Err(Errno::NOTDIR.into());
        }
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(Errno::LOOP.into());
        }
        let folder = rustix::fs::fstat(&self.folder)?;
        if !may_follow(&folder, &link.stat) {
            return Err(Unresolved::Link {
                path: self.at.join(name),
                owner: link.stat.st_uid,
            });
        }
        let target = rustix::fs::readlinkat(&link.fd, "", Vec::new())?;
        self.put_ahead(Path::new(OsStr::from_bytes(target.as_bytes())))?;
        Ok(())
    }
}

/// Returns whether `protected_symlinks` allows this user to follow a link (`may_follow_link` in fs/namei.c).
fn may_follow(folder: &Stat, link: &Stat) -> bool {
    let open_to_all = Mode::SVTX | Mode::WOTH;
    rustix::process::geteuid().as_raw() == link.st_uid
        || !Mode::from_raw_mode(folder.st_mode).contains(open_to_all)
        || folder.st_uid == link.st_uid
}

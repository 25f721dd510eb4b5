//! Where a path leads: an open folder and a name in it.
//!
//! A path is walked component by component, each opened in the folder before it, so nothing can be
//! exchanged between a check and its use. A symbolic link is followed only where the kernel would
//! let this user follow it with `protected_symlinks` on, whatever that switch says (proc(5)); the
//! kernel asks this of a path's last component alone, here it holds for links to folders too.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// As many links as the kernel follows in one path (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

const FOLDER: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A name in a folder, behind all links.
#[derive(Debug)]
pub struct Place {
    /// Open with `O_PATH`: it names the folder and reads nothing.
    pub folder: OwnedFd,
    pub name: OsString,
    /// What the name stands for; `None` if there is nothing.
    pub kind: Option<FileType>,
}

/// Why a path leads nowhere.
#[derive(Debug)]
pub enum Astray {
    Io(io::Error),
    /// A link of another user, in a folder where every user may make one.
    Link {
        path: PathBuf,
        owner: u32,
    },
}

impl From<Errno> for Astray {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl Place {
    /// Finds where a path leads, whether or not there is a file.
    ///
    /// # Errors
    /// When a component before the last is no folder or cannot be searched, or a link is not to be
    /// followed. A path that ends in `..` or `/` names no file in a folder: `EISDIR`.
    pub fn find(path: &Path) -> Result<Self, Astray> {
        let mut walk = Walk::begin(path)?;
        while let Some(name) = walk.ahead.pop() {
            if !walk.ahead.is_empty() || name == ".." {
                walk.enter(name)?;
                continue;
            }
            let kind = match walk.look_at(&name) {
                Ok(found) => FileType::from_raw_mode(found.stat.st_mode),
                Err(Errno::NOENT) => {
                    return Ok(Self {
                        folder: walk.folder,
                        name,
                        kind: None,
                    });
                }
                Err(error) => return Err(error.into()),
            };
            if kind.is_symlink() {
                walk.follow(&name)?;
                continue;
            }
            return Ok(Self {
                folder: walk.folder,
                name,
                kind: Some(kind),
            });
        }
        Err(Errno::ISDIR.into())
    }
}

/// Makes each folder of a path that is not there, with exactly this mode, whatever the umask is.
///
/// # Errors
/// When one cannot be made or searched, or a link is not to be followed.
pub fn make_folders(path: &Path, mode: Mode) -> Result<(), Astray> {
    let mut walk = Walk::begin(path)?;
    while let Some(name) = walk.ahead.pop() {
        // The umask may take something away from `mode`, but adds nothing.
        match rustix::fs::mkdirat(&walk.folder, &name, mode) {
            Ok(()) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let folder = rustix::fs::openat(&walk.folder, &name, flags, Mode::empty())?;
                rustix::fs::fchmod(&folder, mode)?;
                walk.folder = folder;
                walk.at.push(name);
            }
            Err(Errno::EXIST) => walk.enter(name)?,
            // A folder on a disk that takes no new ones may be there all the same.
            Err(error) => walk.enter(name).map_err(|_| error)?,
        }
    }
    Ok(())
}

/// What stands under a name, links not followed.
struct Found {
    fd: OwnedFd,
    stat: Stat,
}

/// A walk along a path.
struct Walk {
    folder: OwnedFd,
    /// The folder as a message names it.
    at: PathBuf,
    /// The components that are left, the next one last.
    ahead: Vec<OsString>,
    links: usize,
}

impl Walk {
    fn begin(path: &Path) -> Result<Self, Astray> {
        if path.as_os_str().is_empty() {
            return Err(Errno::NOENT.into());
        }
        let mut walk = Self {
            folder: rustix::fs::openat(CWD, ".", FOLDER, Mode::empty())?,
            at: PathBuf::new(),
            ahead: Vec::new(),
            links: 0,
        };
        walk.put_ahead(path)?;
        Ok(walk)
    }

    /// Goes on along `path`, from the root if it begins there.
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

    fn look_at(&self, name: &OsStr) -> Result<Found, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.folder, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        Ok(Found { fd, stat })
    }

    /// Goes into a folder, or to where the link of that name leads.
    fn enter(&mut self, name: OsString) -> Result<(), Astray> {
        match rustix::fs::openat(&self.folder, &name, FOLDER, Mode::empty()) {
            Ok(folder) => {
                self.folder = folder;
                self.at.push(name);
                Ok(())
            }
            // A link counts as no folder, because of `O_NOFOLLOW`.
            Err(Errno::NOTDIR | Errno::LOOP) => self.follow(&name),
            Err(error) => Err(error.into()),
        }
    }

    /// Goes on to where a link leads.
    fn follow(&mut self, name: &OsStr) -> Result<(), Astray> {
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
            return Err(Astray::Link {
                path: self.at.join(name),
                owner: link.stat.st_uid,
            });
        }
        let target = rustix::fs::readlinkat(&link.fd, "", Vec::new())?;
        self.put_ahead(Path::new(OsStr::from_bytes(target.as_bytes())))?;
        Ok(())
    }
}

/// The rule of `protected_symlinks` (`may_follow_link` in fs/namei.c).
fn may_follow(folder: &Stat, link: &Stat) -> bool {
    let open_to_all = Mode::SVTX | Mode::WOTH;
    rustix::process::geteuid().as_raw() == link.st_uid
        || !Mode::from_raw_mode(folder.st_mode).contains(open_to_all)
        || folder.st_uid == link.st_uid
}

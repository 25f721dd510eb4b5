//! Network namespaces without a name. The kernel removes one with its last file descriptor and its last process, also
//! if nvactl is killed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::panic::resume_unwind;
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// An open network namespace.
#[derive(Debug)]
pub struct Netns(OwnedFd);

impl Netns {
    /// Makes an empty namespace and moves the calling thread into it. Call it only within [`aside`].
    ///
    /// # Errors
    /// `PermissionDenied` without `CAP_SYS_ADMIN`; `ENOSPC` if all `user.max_net_namespaces` are in use (unshare(2)).
    pub fn make() -> io::Result<Self> {
        #[expect(
            deprecated,
            reason = "the function in its place is `unsafe`, for flags that are not used here"
        )]
        rustix::thread::unshare(UnshareFlags::NEWNET)?;
        Self::current()
    }

    /// Opens the calling thread's namespace.
    ///
    /// # Errors
    /// If /proc lacks it.
    pub fn current() -> io::Result<Self> {
        Ok(Self(File::open("/proc/thread-self/ns/net")?.into()))
    }

    /// Moves the calling thread into the namespace. From then on it belongs to the programs that the thread starts,
    /// the sockets that it opens, and the files below `/proc/sys/net` and `/proc/thread-self/net` that it reads.
    /// Call it only within [`aside`].
    ///
    /// # Errors
    /// As setns(2).
    pub fn enter(&self) -> io::Result<()> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(())
    }

    /// Returns a path to the namespace for `ip link … netns PATH`, valid in any process of the same user.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// Runs `work` on a thread of its own, which may move between namespaces. The calling thread stays in its namespace.
///
/// # Errors
/// If no thread can be made.
pub fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, work)?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

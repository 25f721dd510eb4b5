//! Which network namespace and which boot this is, how long ago the boot was, and empty namespaces.

use std::fs;
use std::io;
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;

use rustix::thread::UnshareFlags;

/// A network namespace, as records name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// As the kernel numbers it: `net:[4026531840]`. Another kernel numbers the machine's first
    /// namespace differently (FACTS: measured on 6.1 and 6.18).
    pub link: String,
    /// Whether it is the one that the machine booted with: the kernel's first, or in a container that of
    /// its first process.
    pub first: bool,
}

/// A switch of the whole machine, which the kernel shows in the first network namespace only
/// (`net_core_table`, `net/core/sysctl_net_core.c`).
const ONLY_IN_FIRST: &str = "/proc/sys/net/core/netdev_max_backlog";

/// Reads which namespace this process is in. In doubt it is not the first.
///
/// # Errors
/// When the kernel does not say.
pub fn here() -> io::Result<Namespace> {
    let link = fs::read_link("/proc/self/ns/net")?;
    // Each boot of a container makes its namespace anew, with another number.
    let is_of_init = || match fs::read_link("/proc/1/ns/net") {
        // Nothing says that there is one machine unless systemd is its first process.
        Ok(of_init) => of_init == link && is_init_systemd(),
        Err(_) => is_a_unit_of_init(),
    };
    Ok(Namespace {
        first: Path::new(ONLY_IN_FIRST).exists() || is_of_init(),
        link: link.to_string_lossy().into_owned(),
    })
}

/// Whether systemd has booted this machine or container (`sd_booted(3)`).
fn is_init_systemd() -> bool {
    let name = fs::read_to_string("/proc/1/comm");
    Path::new("/run/systemd/system").exists() && name.is_ok_and(|name| name.trim() == "systemd")
}

/// Whether systemd has started this process as a unit's: one with fewer capabilities than systemd may not
/// read the links of its namespaces (`ptrace_may_access` in kernel/ptrace.c; systemd.exec(5)).
fn is_a_unit_of_init() -> bool {
    let started = std::env::var("SYSTEMD_EXEC_PID").ok();
    started.and_then(|pid| pid.parse().ok()) == Some(std::process::id())
}

/// Runs `work` in an empty network namespace of its own. The programs that `work` starts are in it, and
/// it ends with the last of them.
///
/// # Errors
/// When none can be made here.
pub fn in_empty<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    // The namespace is the thread's alone: nothing else of nvactl's moves.
    #[expect(
        deprecated,
        reason = "the one in its place is `unsafe`, for flags that are not used here"
    )]
    let enter = || Ok(rustix::thread::unshare(UnshareFlags::NEWNET)?);
    thread::scope(|scope| {
        let within = move || -> io::Result<T> { enter().map(|()| work()) };
        let thread = thread::Builder::new().spawn_scoped(scope, within)?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

impl Namespace {
    /// Returns the number of its inode, in digits.
    #[must_use]
    pub fn number(&self) -> String {
        self.link.chars().filter(char::is_ascii_digit).collect()
    }
}

/// Reads the name that the kernel gave this boot (random(4)).
///
/// # Errors
/// When it cannot be read.
pub fn boot() -> io::Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}

/// Returns the seconds since the boot, those in suspension included: no clock that is set moves
/// them.
#[must_use]
pub fn uptime_secs() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    time.tv_sec.unsigned_abs()
}

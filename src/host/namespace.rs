//! Identifies the network namespace and the boot of this process, and makes empty namespaces.

use std::fs;
use std::io;
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;

use rustix::thread::UnshareFlags;

/// A network namespace, as it is stored in records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// The kernel's name of it: `net:[4026531840]`. Kernels give the machine's first namespace different
    /// numbers.
    pub link: String,
    /// Whether the machine booted with it: it is the kernel's first one or, in a container, that of the
    /// container's first process.
    pub first: bool,
}

/// A setting of the whole machine, which the kernel shows only in the first network namespace
/// (`net_core_table`, `net/core/sysctl_net_core.c`).
const ONLY_IN_FIRST: &str = "/proc/sys/net/core/netdev_max_backlog";

/// Reads the network namespace of this process. In doubt it does not count as the first.
///
/// # Errors
/// If the kernel does not show it.
pub fn here() -> io::Result<Namespace> {
    let link = fs::read_link("/proc/self/ns/net")?;
    // A container gets a new namespace with another number at each boot.
    let is_of_init = || match fs::read_link("/proc/1/ns/net") {
        // The namespace of process 1 is that of a whole machine or container only if systemd has booted it.
        Ok(of_init) => of_init == link && is_init_systemd(),
        Err(_) => is_a_unit_of_init(),
    };
    Ok(Namespace {
        first: Path::new(ONLY_IN_FIRST).exists() || is_of_init(),
        link: link.to_string_lossy().into_owned(),
    })
}

/// Returns whether systemd has booted this machine or container (`sd_booted(3)`).
fn is_init_systemd() -> bool {
    let name = fs::read_to_string("/proc/1/comm");
    Path::new("/run/systemd/system").exists() && name.is_ok_and(|name| name.trim() == "systemd")
}

/// Returns whether systemd has started this process as a unit (systemd.exec(5)). Such a process may have fewer
/// capabilities than systemd, and then it may not read the links of systemd's namespaces
/// (`ptrace_may_access` in kernel/ptrace.c).
fn is_a_unit_of_init() -> bool {
    let started = std::env::var("SYSTEMD_EXEC_PID").ok();
    started.and_then(|pid| pid.parse().ok()) == Some(std::process::id())
}

/// Runs `work` in a new, empty network namespace. The programs that `work` starts run in it, and it ends with
/// the last of them.
///
/// # Errors
/// If no namespace can be made here.
pub fn in_empty<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    // Only this thread changes its namespace, not the rest of nvactl.
    #[expect(
        deprecated,
        reason = "its replacement is `unsafe`, because of flags that are not used here"
    )]
    let enter = || Ok(rustix::thread::unshare(UnshareFlags::NEWNET)?);
    thread::scope(|scope| {
        let within = move || -> io::Result<T> { enter().map(|()| work()) };
        let thread = thread::Builder::new().spawn_scoped(scope, within)?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

impl Namespace {
    /// Returns the namespace's inode number, in digits.
    #[must_use]
    pub fn number(&self) -> String {
        self.link.chars().filter(char::is_ascii_digit).collect()
    }
}

/// Reads the kernel's ID of this boot (random(4)).
///
/// # Errors
/// If it cannot be read.
pub fn boot() -> io::Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}

/// Returns the seconds since the boot, including suspended time. Setting the clock does not change them.
#[must_use]
pub fn uptime_secs() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    time.tv_sec.unsigned_abs()
}

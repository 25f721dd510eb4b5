//! One host of the lab: a network namespace and a mount namespace of its own.
//!
//! A process holds them and ends with the test that made it, so nothing is left behind, however
//! the test ends.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::required::is_required;

/// Sets the switches that a namespace takes over from the machine: those of IPv4, and with
/// `net.core.devconf_inherit_init_net` 1 or 3 those of IPv6. The values are the kernel's own.
const SWITCHES: &str = "
set_all() { # FAMILY SWITCH=VALUE…
  family=$1; shift
  for conf in /proc/sys/net/$family/conf/*; do
    for switch; do
      if [ -e $conf/${switch%=*} ]; then echo ${switch#*=} > $conf/${switch%=*}; fi
    done
  done
}
echo 0 > /proc/sys/net/ipv4/ip_forward
set_all ipv4 forwarding=0 rp_filter=0 accept_local=0 route_localnet=0 src_valid_mark=0 \
  accept_source_route=0 accept_redirects=1 secure_redirects=1 send_redirects=1 shared_media=1 \
  arp_announce=0 arp_filter=0 arp_ignore=0 proxy_arp=0 ignore_routes_with_linkdown=0 log_martians=0
set_all ipv6 forwarding=0 disable_ipv6=0 accept_ra=1 accept_redirects=1 accept_source_route=0 \
  addr_gen_mode=0 use_tempaddr=0 ignore_routes_with_linkdown=0
";

/// A script for the holder: its own /etc and sysctl files, no systemd and no other manager of the firewall.
const FILES: &str = "
mkdir /run/etc /run/work
# A copy of a thousand files for each host takes longer than many tests.
if ! mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/work /etc 2> /dev/null; then
  cp -a /etc/. /run/etc
  mount --bind /run/etc /etc
fi
rm -rf /etc/iptables /etc/nvactl /etc/sysctl.d /etc/sysctl.conf /etc/systemd/system /etc/ufw /etc/nftables.conf \
  /etc/sysconfig/nftables.conf
mkdir -p /etc/sysctl.d /etc/systemd/system
# sudo looks the machine's own name up, and nobody answers here.
echo 127.0.0.1 $(uname -n) >> /etc/hosts
mount -t tmpfs tmpfs /var/lib
for folder in /usr/lib/sysctl.d /usr/local/lib/sysctl.d; do
  if [ -d $folder ]; then mount -t tmpfs tmpfs $folder; fi
done
for file in /usr/sbin/ufw /usr/sbin/firewalld; do
  if [ -f $file ]; then mount --bind /dev/null $file; fi
done
for folder in /usr/lib/systemd /lib/systemd; do
  for file in systemd-sysctl system/ufw.service system/firewalld.service; do
    if [ -f $folder/$file ]; then mount --bind /dev/null $folder/$file; fi
  done
done
";

/// A script for the holder: its own /run.
const RUN: &str = "
mount -t tmpfs tmpfs /run
mkdir /run/bin
";

/// A script for the holder: hold on until standard input ends, which it does when the test process does.
const HOLD: &str = "
# Addresses can be used at once: nobody is asked first whether they are taken.
echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
ip link set lo up
echo ready
exec cat
";

/// The path of nsenter. For a search on another PATH than its own, the test process would be forked, with the page
/// tables of all its memory.
fn nsenter() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut files = std::env::split_paths(&path).map(|folder| folder.join("nsenter"));
        files.find(|file| file.is_file()).expect("it is installed")
    })
}

pub struct Host {
    holder: Child,
}

impl Host {
    pub fn new() -> Self {
        Self::on_a_machine_with("")
    }

    /// Makes a host of a namespace in which `inherited`, a script, has set what the machine would
    /// have handed down.
    pub fn on_a_machine_with(inherited: &str) -> Self {
        Self::hold(&[inherited, SWITCHES, RUN, FILES, HOLD])
    }

    /// Makes a host of which only the network matters: the machine's files are there, and cannot be written.
    pub fn without_files(inherited: &str) -> Self {
        Self::hold(&[inherited, SWITCHES, RUN, "mount -o remount,bind,ro /", HOLD])
    }

    fn hold(scripts: &[&str]) -> Self {
        let mut holder = Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-ec",
                &scripts.join("\n"),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let mut ready = String::new();
        BufReader::new(holder.stdout.take().expect("it is piped"))
            .read_line(&mut ready)
            .expect("its output is text");
        assert_eq!(
            ready, "ready\n",
            "the holder of a namespace could not set it up"
        );
        Self { holder }
    }

    /// As `ip link … netns` names the host.
    pub fn pid(&self) -> String {
        self.holder.id().to_string()
    }

    /// A command that will run on this host.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(nsenter());
        command
            .args(["--target", &self.pid(), "--net", "--mount", "--"])
            .arg(program)
            // The host's own /run/bin decides which iptables the plain names are.
            .env(
                "PATH",
                "/run/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("XTABLES_LOCKFILE", "/run/xtables.lock")
            .env_remove("NVACTL_SPEC");
        command
    }

    /// Runs a command line of plain words, which must succeed, and gives its standard output.
    pub fn run(&self, line: &str) -> String {
        let mut words = line.split_ascii_whitespace();
        let program = words.next().expect("the line has a command");
        let output = output(self.command(program).args(words));
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).expect("it prints text")
    }

    /// Runs a script by a shell.
    pub fn shell(&self, script: &str) -> String {
        let output = output(self.command("sh").args(["-ec", script]));
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).expect("it prints text")
    }

    /// Runs lines of `ip`, all of one family, by one process.
    pub fn ip(&self, family: &str, lines: &str) {
        let output = self.feed("ip", &[family, "-batch", "-"], lines);
        assert!(output.status.success(), "{lines}: {output:?}");
    }

    /// Runs a command with standard input, and gives all it left.
    pub fn feed(&self, program: &str, args: &[&str], stdin: &str) -> Output {
        let mut child = self
            .command(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut pipe = child.stdin.take().expect("it is piped");
        // A command that has no use for its standard input may have ended before it was written.
        let written = pipe.write_all(stdin.as_bytes());
        let unread = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
        assert!(written.as_ref().err().is_none_or(unread), "{written:?}");
        drop(pipe);
        child.wait_with_output().expect("it ends")
    }

    /// Whether there is a file on this host.
    pub fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// A file of this host as the test process names it.
    pub fn path(&self, path: &str) -> PathBuf {
        format!("/proc/{}/root{path}", self.pid()).into()
    }

    /// Runs `work` on a thread that is on this host, so that the sockets it makes are.
    pub fn enter<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let net = File::open(format!("/proc/{}/ns/net", self.pid())).expect("the holder is alive");
        thread::spawn(move || {
            move_into_link_name_space(net.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("the lab has been found to be possible");
            work()
        })
        .join()
        .expect("what runs on a host does not panic")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Waits until a condition holds, half a minute at most: many tests run at once.
pub fn wait_for(what: &str, condition: impl Fn() -> bool) {
    wait_for_at_most(Duration::from_secs(30), what, condition);
}

/// Waits until a condition holds, `limit` at most.
pub fn wait_for_at_most(limit: Duration, what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + limit;
    // Many conditions start a program, and many tests wait at once.
    let mut pause = Duration::from_millis(5);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(pause);
        pause = (pause * 3 / 2).min(Duration::from_millis(100));
    }
}

fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("it starts")
}

/// Whether namespaces can be made here. Where they cannot, that is said past the test harness's
/// capture, and with `NVACTL_LAB=required` it is a failure.
pub fn possible() -> bool {
    let made = output(Command::new("unshare").args(["--net", "--mount", "true"]));
    if made.status.success() {
        return true;
    }
    let reason = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(
        !is_required(),
        "the lab is required and cannot run: {reason}"
    );
    writeln!(io::stderr(), "SKIPPED a lab test: {}", reason.trim()).expect("stderr is open");
    false
}

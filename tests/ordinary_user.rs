//! A twin that an ordinary user makes, and the reasons for which the kernel refuses it.
//!
//! The kernel moves only a process with one thread into a user namespace, so this test has no harness: it starts itself
//! without rights, and that process is the one that is tried.

mod asked;
mod required;

use std::env;
use std::io::{Write as _, stderr};
use std::process::{Command, ExitCode, Output, Stdio};

use nvactl::host::user_namespace::enter_own_namespaces;
use nvactl::netfilter::backend::Backend;
use nvactl::yaml;

use asked::{cases, set_of, tried};
use required::is_required;

/// The argument of the process without rights that tries specs.
const TRY: &str = "--try-specs";
/// The argument of the process without rights that only enters the namespaces.
const ENTER: &str = "--enter";

const NVACTL: &str = env!("CARGO_BIN_EXE_nvactl");

const SPEC: &str = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards: [{name: web, listen: 80, target: {pod: 10.224.0.118:80}}]
tests: [{from: 198.51.100.7, to: 80, reaches: '10.224.0.118:80'}]
";

/// Every so many cases one is tried: the lab tries all of them.
const EVERY: usize = 8;

/// More than one transaction of iptables-nft can hold in a user namespace.
const FORWARDS: usize = 600;

fn main() -> ExitCode {
    match env::args().nth(1).as_deref() {
        Some(TRY) => try_specs(),
        Some(ENTER) => match enter_own_namespaces() {
            Ok(()) => println!("entered"),
            Err(error) => println!("{error}; {}", error.hint()),
        },
        _ if is_possible() => {
            an_ordinary_user_makes_twins();
            each_refusal_is_told_apart();
        }
        _ => {}
    }
    ExitCode::SUCCESS
}

/// Whether this process is root and can make namespaces, as the lab demands.
fn is_possible() -> bool {
    let mut unshare = Command::new("unshare");
    let made = output(unshare.args(["--net", "--mount", "true"]));
    let is_made = made.status.success();
    assert!(
        is_made || !is_required(),
        "the lab is required and cannot run"
    );
    if !is_made {
        writeln!(stderr(), "SKIPPED the tests of an ordinary user").expect("stderr is open");
    }
    is_made
}

fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("it starts")
}

fn own_path() -> String {
    let path = env::current_exe().expect("it has a path");
    path.into_os_string().into_string().expect("it is text")
}

/// Returns the beginning of a command that runs as a user without rights.
fn ordinary() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "4242", "--regid", "4242", "--clear-groups"]);
    command.args(["--bounding-set", "-all", "--inh-caps", "-all"]);
    command
}

fn fed(command: &mut Command, text: &str) -> Output {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(text.as_bytes()).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn an_ordinary_user_makes_twins() {
    let tried = output(ordinary().args([&own_path(), TRY]));
    let printed = String::from_utf8_lossy(&tried.stdout);
    assert!(tried.status.success(), "{printed}{tried:?}");
    assert!(printed.contains("tried"), "{printed}");
    for (words, printed) in [
        (&["test", "-"][..], "1 test, 1 passed\n"),
        (
            &["trace", "-", "--from", "198.51.100.7", "--to", "80"],
            "delivered: 10.224.0.118:80 behind eth0 sees 10.3.0.4:40000\n",
        ),
    ] {
        let mut command = ordinary();
        let fed = fed(command.arg(NVACTL).args(words), SPEC);
        let found = String::from_utf8_lossy(&fed.stdout);
        assert!(fed.status.success(), "{words:?}: {fed:?}");
        assert!(found.contains(printed), "{words:?}: {fed:?}");
    }
}

/// Tries specs as a user without rights.
fn try_specs() {
    enter_own_namespaces().expect("the kernel allows it");
    let mut connections = 0;
    for backend in [Backend::Nft, Backend::Legacy] {
        for case in cases().iter().step_by(EVERY) {
            let Some(set) = set_of(case) else {
                continue;
            };
            let tried = tried(&set, backend);
            assert!(
                tried.wrong.is_empty(),
                "{}: {:#?}",
                case.display(),
                tried.wrong
            );
            connections += tried.connections;
        }
    }
    assert!(connections > 50, "{connections}");
    let forwards: String = (0..FORWARDS)
        .map(|n| {
            let port = 20_000 + n;
            format!("\n- {{name: f{n}, listen: {port}, target: {{pod: '10.224.0.8:{port}'}}}}")
        })
        .collect();
    let spec = format!(
        "firewall: {{interface: {{ingress: eth0, egress: eth1}}, snat: masquerade}}\nforwards:{forwards}"
    );
    let set = yaml::read(spec.as_bytes()).expect("it is valid");
    let tried = tried(&set, Backend::Nft);
    assert!(tried.wrong.is_empty(), "{:#?}", tried.wrong);
    println!("tried");
}

fn each_refusal_is_told_apart() {
    let path = own_path();
    // Limits belong to a user namespace, so these are within one that is in another one.
    let ordinary = format!("exec unshare --user --map-user=4242 --map-group=4242 {path} {ENTER}");
    let chrooted =
        format!("exec chroot . setpriv --bounding-set -all --inh-caps -all {path} {ENTER}");
    for (script, printed) in [
        (ordinary.clone(), "entered\n"),
        (
            format!("echo 1 > /proc/sys/user/max_user_namespaces; {ordinary}"),
            "no user namespace can be made: as many as `user.max_user_namespaces` allows are in use; \
             run it with `sudo`, or let every program have more: sudo sysctl -w user.max_user_namespaces=15000\n",
        ),
        (
            format!("echo 0 > /proc/sys/user/max_net_namespaces; {ordinary}"),
            "no network namespace can be made: as many as `user.max_net_namespaces` allows are in use; \
             run it with `sudo`, or let every program have more: sudo sysctl -w user.max_net_namespaces=15000\n",
        ),
        // As in a container: no process can make a user namespace within chroot(2).
        (
            format!("mount --rbind / /mnt; cd /mnt; {chrooted}"),
            "no user namespace can be made: this container or sandbox forbids it; run it as root with CAP_SYS_ADMIN \
             and CAP_NET_ADMIN; with Docker: docker run --privileged\n",
        ),
    ] {
        let arguments = ["--user", "--map-root-user", "--mount", "sh", "-ec", &script];
        let entered = output(Command::new("unshare").args(arguments));
        let found = String::from_utf8_lossy(&entered.stdout);
        assert_eq!(found, printed, "{script}: {entered:?}");
    }
}

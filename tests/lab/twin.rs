//! The twin: what the kernel does in a copy of the machine is what it does on the machine.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr};

use nvactl::net::Protocol;
use nvactl::twin::connection_end::{ConnectionEnd, Reached};
use nvactl::twin::machine::Machine;
use nvactl::twin::netns;
use nvactl::twin::talk::{From, Question, Talker};
use nvactl::twin::wiring::wire;

use crate::lab::{Backend, Lab};
use crate::traffic::{serve_tcp, serve_udp};

const SPEC: &str = "
firewall: {interface: {ingress: eth0, egress: eth1}, snat: {v4: 10.4.0.4, v6: \"fd00:4::4\"}}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
  - {name: dns, listen: 53, protocol: udp, target: {pod: 10.224.0.118:5353}}
  - {name: web6, listen: 49182, target: {pod: \"[fd00:224::118]:80\"}}
  - {name: dns6, listen: 53, protocol: udp, target: {pod: \"[fd00:224::118]:5353\"}}
";

/// Asks again while a port is in use: a program that another test starts holds every socket until its exec.
pub fn answered(talker: &mut Talker<'_>, question: &Question) -> ConnectionEnd {
    let is_held = |error: &Error| error.kind() == ErrorKind::AddrInUse;
    let mut outcomes = std::iter::repeat_with(|| talker.ask(question)).take(1000);
    let outcome = outcomes.find(|outcome| !outcome.as_ref().is_err_and(is_held));
    let outcome = outcome.expect("the port is free soon");
    outcome.expect("it can be asked")
}

fn question(protocol: Protocol, client: &str, to: &str, listener: &str) -> Question {
    Question {
        protocol,
        client: client.parse().expect("an address"),
        from: From::World(0),
        to: to.parse().expect("an address and a port"),
        listeners: vec![listener.parse().expect("an address and a port")],
        request: 100,
        answer: if protocol == Protocol::Tcp {
            20_000
        } else {
            1000
        },
    }
}

lab_test!(a_twin_treats_packets_like_the_machine);
/// Connections of each protocol and family come out where they should, and one that nothing accepts does not.
fn a_twin_treats_packets_like_the_machine(backend: Backend) {
    let lab = Lab::dual_stack_two_nics(backend);
    lab.apply(SPEC);
    let mut rules = String::new();
    for program in ["iptables", "ip6tables"] {
        rules += &lab.firewall.run(&format!("{program}-save"));
        rules += "|";
    }
    let name = backend.name();
    let outcomes = lab.firewall.enter(move || {
        netns::aside(move || {
            let machine = Machine::read().expect("it is listed");
            let wired = wire(&machine, None).expect("namespaces can be made");
            assert_eq!(wired.left_out, [], "{machine:#?}");
            for (program, text) in ["iptables", "ip6tables"].into_iter().zip(rules.split('|')) {
                let file = tempfile::NamedTempFile::new().expect("a file");
                std::fs::write(file.path(), text).expect("it is written");
                let loaded = std::process::Command::new(format!("{program}-{name}-restore"))
                    .arg(file.path())
                    .env("XTABLES_LOCKFILE", "/dev/null")
                    .output()
                    .expect("it starts");
                assert!(loaded.status.success(), "{loaded:?}");
            }
            let mut talker =
                Talker::new(&wired.machine, &wired.worlds).expect("sockets can be opened");
            let worlds: Vec<String> = wired
                .worlds
                .iter()
                .map(|world| world.interface.clone())
                .collect();
            let mut ask = |question: Question| match answered(&mut talker, &question) {
                ConnectionEnd::Delivered(Reached {
                    world,
                    source,
                    target,
                }) => Some((worlds[world].clone(), source.ip(), target)),
                _ => None,
            };
            [
                ask(question(
                    Protocol::Tcp,
                    "198.51.100.7",
                    "10.3.0.4:49182",
                    "10.224.0.118:80",
                )),
                ask(question(
                    Protocol::Udp,
                    "198.51.100.7",
                    "10.3.0.4:53",
                    "10.224.0.118:5353",
                )),
                ask(question(
                    Protocol::Tcp,
                    "2001:db8:51::7",
                    "[fd00:3::4]:49182",
                    "[fd00:224::118]:80",
                )),
                ask(question(
                    Protocol::Udp,
                    "2001:db8:51::7",
                    "[fd00:3::4]:53",
                    "[fd00:224::118]:5353",
                )),
                ask(question(
                    Protocol::Tcp,
                    "198.51.100.7",
                    "10.3.0.4:49183",
                    "10.224.0.118:80",
                )),
                ask(question(
                    Protocol::Tcp,
                    "198.51.100.7",
                    "10.224.0.118:80",
                    "10.224.0.118:80",
                )),
            ]
        })
        .expect("a thread")
    });
    let came = |source: &str, target: &str| {
        let source: IpAddr = source.parse().expect("an address");
        let target: SocketAddr = target.parse().expect("an address and a port");
        Some(("eth1".to_owned(), source, target))
    };
    assert_eq!(
        outcomes,
        [
            came("10.4.0.4", "10.224.0.118:80"),
            came("10.4.0.4", "10.224.0.118:5353"),
            came("fd00:4::4", "[fd00:224::118]:80"),
            came("fd00:4::4", "[fd00:224::118]:5353"),
            None,
            None,
        ]
    );
}

/// What the twin's connections would change if they were the live machine's: the counters of nvactl's rules,
/// the entries of connections to the listeners, interfaces and routes.
fn state_of(lab: &Lab) -> Vec<String> {
    let mut state = Vec::new();
    for program in ["iptables-save", "ip6tables-save"] {
        let saved = lab.firewall.run(&format!("{program} -c"));
        // The doctor's own connections to the targets leave by POSTROUTING.
        let own = saved.lines().filter(|line| line.contains("NVACTL-"));
        let own = own.filter(|line| !line.contains("-A POSTROUTING"));
        state.extend(own.map(str::to_owned));
    }
    let flows = lab.firewall.run("conntrack -L");
    let listeners = flows.lines().filter(|line| line.contains("dport=49182"));
    state.push(listeners.count().to_string());
    state.push(lab.firewall.run("ip -o address"));
    state.push(lab.firewall.run("ip route show table all"));
    state
}

lab_test!(either doctor_does_not_change_the_live_machine);
fn doctor_does_not_change_the_live_machine(backend: Backend) {
    let lab = Lab::dual_stack_two_nics(backend);
    serve_tcp(&lab.pod, "pod", 80);
    serve_udp(&lab.pod, "pod", 5353);
    lab.apply(SPEC);
    let args = ["doctor", "-", "--timeout", "1", "--format", "prometheus"];
    // What is not there yet, such as a neighbour's entry, comes with the first.
    lab.nvactl_with(&args, SPEC);
    let before = state_of(&lab);
    let said = lab.nvactl_with(&args, SPEC);
    for (forward, protocol, family) in [
        ("dns", "udp", "v4"),
        ("dns6", "udp", "v6"),
        ("web", "tcp", "v4"),
        ("web6", "tcp", "v6"),
    ] {
        let line = format!(
            "nvactl_forward_works{{forward=\"{forward}\",protocol=\"{protocol}\",family=\"{family}\"}} 1\n"
        );
        assert!(said.stdout.contains(&line), "{said:?}");
    }
    assert_eq!(state_of(&lab), before);

    // Its target is silent, although the copy's is not.
    let silent =
        format!("{SPEC}  - {{name: silent, listen: 49199, target: {{pod: 10.224.0.118:81}}}}\n");
    lab.apply(&silent);
    let said = lab.nvactl_with(&args, &silent);
    let line = "nvactl_forward_works{forward=\"silent\",protocol=\"tcp\",family=\"v4\"} 0\n";
    assert!(said.stdout.contains(line), "{said:?}");
    lab.apply(SPEC);

    // A forward that dies there is told, and no rule of the live machine is changed to find out.
    lab.firewall
        .run("iptables -I FORWARD -p tcp --dport 80 -j DROP");
    let before = state_of(&lab);
    let said = lab.nvactl_with(&args, SPEC);
    let line = "nvactl_forward_works{forward=\"web\",protocol=\"tcp\",family=\"v4\"} 0\n";
    assert!(said.stdout.contains(line), "{said:?}");
    assert_eq!(state_of(&lab), before);

    let without = ["doctor", "-", "--timeout", "1", "--no-twin"];
    let said = lab.nvactl_with(&without, SPEC);
    let line =
        "unknown packets              no connection was tried in a copy of this machine: --no-twin";
    assert!(said.stdout.contains(line), "{said:?}");
}

lab_test!(either an_interface_that_is_down_is_the_only_cause);
/// The metric of an interface that is down is 0, not missing, and no other hop is blamed for it.
fn an_interface_that_is_down_is_the_only_cause(backend: Backend) {
    let lab = Lab::two_nics(backend);
    serve_tcp(&lab.pod, "pod", 80);
    let spec = "\
firewall: {interface: {ingress: eth0, egress: eth1}, snat: 10.4.0.4}
forwards: [{name: web, listen: 49182, target: {pod: 10.224.0.118:80}}]";
    lab.apply(spec);
    for interface in ["eth1", "eth0"] {
        lab.firewall.run(&format!("ip link set {interface} down"));
        let args = ["doctor", "-", "--timeout", "0.1"];
        let metrics = [&args[..], &["--format", "prometheus"]].concat();
        let said = lab.nvactl_with(&metrics, spec);
        let line = "nvactl_forward_works{forward=\"web\",protocol=\"tcp\",family=\"v4\"} 0\n";
        assert!(said.stdout.contains(line), "{interface}: {said:?}");
        let said = lab.nvactl_with(&args, spec);
        let fails: Vec<&str> = said
            .stdout
            .lines()
            .filter(|line| line.starts_with("fail"))
            .collect();
        let down = format!(
            "fail    interface            {interface} is down: no packet passes through it"
        );
        assert_eq!(fails, [down], "{said:?}");
        lab.firewall.run(&format!("ip link set {interface} up"));
        lab.firewall
            .run("ip route replace 10.224.0.0/16 via 10.4.0.1");
    }
}

lab_test!(either a_target_that_cannot_be_asked_is_asked_from_a_client);
/// The firewall cannot ask a target whose router is dead; a client can, by the listen address.
fn a_target_that_cannot_be_asked_is_asked_from_a_client(backend: Backend) {
    let lab = Lab::dual_stack_two_nics(backend);
    serve_tcp(&lab.pod, "pod", 80);
    lab.apply(SPEC);
    lab.firewall
        .run("ip route replace 10.224.0.0/16 via 10.4.0.99");
    let said = lab.nvactl_with(&["doctor", "-", "--timeout", "1"], SPEC);
    let mut lines = said.stdout.lines();
    let is_target = |line: &&str| line.starts_with("unknown target") && line.contains(" web: ");
    let line = lines.find(is_target);
    let line = line.unwrap_or_else(|| panic!("no line about the target: {said:?}"));
    assert!(line.contains("10.4.0.99"), "{line}");
    let fix = lines.next().unwrap_or_default();
    assert!(
        fix.ends_with("nvactl probe SPEC --via 10.3.0.4"),
        "{said:?}"
    );
}

lab_test!(either a_killed_doctor_leaves_nothing_behind);
/// A killed doctor leaves nothing that the next one, or the machine, would meet.
fn a_killed_doctor_leaves_nothing_behind(backend: Backend) {
    let lab = Lab::dual_stack_two_nics(backend);
    lab.apply(SPEC);
    let args = ["doctor", "-", "--timeout", "0.1", "--format", "prometheus"];
    let whole = lab.nvactl_with(&args, SPEC);
    let before = state_of(&lab);
    let killed = lab.firewall.shell(&format!(
        "for tenth in 0 1 2 3 4 5 6 7; do
           echo '{SPEC}' > /run/spec.yaml
           {} doctor /run/spec.yaml --timeout 0.1 > /dev/null 2>&1 & pid=$!
           sleep 0.0$tenth; sleep 0.$tenth
           kill -9 $pid 2>/dev/null && echo killed
         done; wait",
        env!("CARGO_BIN_EXE_nvactl")
    ));
    assert!(killed.contains("killed"), "each had ended by itself");
    assert_eq!(state_of(&lab), before);
    assert_eq!(lab.nvactl_with(&args, SPEC).stdout, whole.stdout);
}

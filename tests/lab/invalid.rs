//! Packets that conntrack takes for no connection's: what they do to a live one, who tells of them, and
//! the switch that keeps them from it.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::firewall::firewall;
use crate::lab::{Backend, FIREWALL, Lab, POD};
use crate::nvactl;
use crate::wire::{self, ACK, FIN, RST, SYN, Segment};

const SPEC: &str = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards: [{name: web, listen: 49182, target: {pod: 10.224.0.118:80}}]
";
const SWITCH: &str = "net.netfilter.nf_conntrack_tcp_be_liberal";
const FILE: &str = "/etc/sysctl.d/99-nvactl.conf";

fn lab(backend: Backend) -> Lab {
    let lab = Lab::one_nic(backend);
    lab.apply(SPEC);
    lab
}

fn doctor(lab: &Lab) -> Option<Value> {
    let said = lab.nvactl_with(&["doctor", "-", "--timeout", "1", "--format", "json"], SPEC);
    let report: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    let mut checks = report["checks"].as_array().expect("a list").iter();
    let of = |check: &&Value| check["code"] == "conntrack-invalid";
    checks.find(of).cloned()
}

fn status(lab: &Lab, format: &str) -> String {
    let said = lab.nvactl_with(&["status", "-", "--format", format], SPEC);
    assert_eq!(said.code, 0, "{said:?}");
    said.stdout
}

/// What the target sends far behind its connection's window does not end the connection.
fn survives_what_is_out_of_its_window(lab: &Lab) -> bool {
    let patience = Some(Duration::from_secs(10));
    let listener = lab.pod.enter(|| TcpListener::bind((POD, 80)));
    let listener = listener.expect("the port is free");
    let wire = wire::listen(&lab.pod);
    let client = lab.client.enter(|| TcpStream::connect((FIREWALL, 49182)));
    let mut client = client.expect("there is a way");
    let (mut server, SocketAddr::V4(peer)) = listener.accept().expect("it comes") else {
        panic!("the lab's targets have IPv4");
    };
    server.set_read_timeout(patience).expect("it is no zero");
    client.set_read_timeout(patience).expect("it is no zero");
    server.write_all(b"one").expect("it is connected");
    client.read_exact(&mut [0; 3]).expect("it is connected");
    // The acknowledgement of these three bytes tells where both ends are.
    let from_peer = || {
        let mut packets = std::iter::repeat_with(|| Segment::next(&wire));
        let found = packets.find(|packet| packet.from == peer && packet.flags & SYN == 0);
        found.expect("they do not end")
    };
    let first = from_peer();
    let acknowledged = |packet: &Segment| packet.ack.wrapping_sub(first.ack) == 3;
    let mut packets = std::iter::repeat_with(from_peer);
    let last = packets.find(acknowledged).expect("they do not end");
    let far = Segment {
        from: last.to,
        to: last.from,
        seq: last.ack.wrapping_add(5_000_000),
        ack: last.seq,
        flags: ACK,
    };
    far.send_by(&lab.pod.enter(wire::raw), b"late");
    // Somebody answers it: the firewall with a reset, or the client, who says where it is.
    let reset = from_peer().flags & RST != 0;
    let sent = client.write_all(b"two");
    let came = server.read(&mut [0; 3]);
    assert_eq!(came.is_err(), reset, "{sent:?}, {came:?}");
    !reset
}

lab_test!(a_packet_out_of_its_window_ends_a_connection_unless_the_kernel_is_liberal);
fn a_packet_out_of_its_window_ends_a_connection_unless_the_kernel_is_liberal(backend: Backend) {
    let lab = lab(backend);
    let check = doctor(&lab).expect("it is told");
    assert_eq!(
        (&check["status"], &check["reason"]),
        (
            &"ok".into(),
            &"no packet has been INVALID since boot".into()
        )
    );
    assert!(!status(&lab, "text").contains("INVALID"));
    assert!(!survives_what_is_out_of_its_window(&lab));

    // Whoever looks afterwards learns of it, and of the switch.
    let check = doctor(&lab).expect("it is told");
    let reason = check["reason"].as_str().expect("it is text");
    assert_eq!(check["status"], "ok", "{check}");
    assert!(reason.contains(&format!("{SWITCH}=1")), "{reason}");
    let text = status(&lab, "text");
    let line = text.lines().find(|line| line.starts_with("conntrack"));
    let line = line.expect("it has the line");
    assert!(line.contains("INVALID packets since boot: "), "{line}");
    let fix = "sudo nvactl sysctl enable --liberal --persist";
    assert!(line.ends_with(fix), "{line}");
    let json: Value = serde_json::from_str(&status(&lab, "json")).expect("it is JSON");
    let invalid = json["conntrack"]["invalid"].as_u64();
    assert!(invalid > Some(0), "{json:#}");
    assert_eq!(json["conntrack"]["be_liberal"], false);
    let metrics = status(&lab, "prometheus");
    let told = format!(
        "\nnvactl_conntrack_invalid_total {}\n",
        invalid.expect("it is a number")
    );
    assert!(metrics.contains(&told), "{metrics}");

    let said = lab.nvactl(&["sysctl", "enable", "--liberal"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(survives_what_is_out_of_its_window(&lab));
    assert_eq!(doctor(&lab), None);
    let text = status(&lab, "text");
    assert!(!text.contains(SWITCH), "{text}");
    assert!(text.contains("INVALID packets since boot: "), "{text}");
}

lab_test!(doctor_warns_of_invalid_packets);
fn doctor_warns_of_invalid_packets(backend: Backend) {
    let lab = lab(backend);
    let done = Arc::new(AtomicBool::new(false));
    let sender = {
        let done = Arc::clone(&done);
        let address = |ip: &str, port| {
            let ip: Ipv4Addr = ip.parse().expect("it is an address");
            SocketAddrV4::new(ip, port)
        };
        // No connection begins and ends in one packet.
        let senseless = Segment {
            from: address("198.51.100.10", 40000),
            to: address(FIREWALL, 49182),
            seq: 0,
            ack: 0,
            flags: SYN | FIN,
        };
        lab.client.enter(move || {
            let raw = wire::raw();
            thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    senseless.send_by(&raw, &[]);
                    thread::sleep(Duration::from_millis(5));
                }
            })
        })
    };
    let check = doctor(&lab);
    done.store(true, Ordering::Relaxed);
    sender.join().expect("it has sent");
    let check = check.expect("it is told");
    assert_eq!(check["status"], "warn", "{check}");
    let reason = check["reason"].as_str().expect("it is text");
    assert!(
        reason.contains("while this ran") && reason.contains(SWITCH),
        "{reason}"
    );
    assert_eq!(
        check["fix"],
        "sudo nvactl sysctl enable --liberal --persist"
    );

    let fix = ["sysctl", "enable", "--liberal", "--persist"];
    let said = lab.nvactl(&fix);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(doctor(&lab), None);
}

lab_test!(the_liberal_switch_is_persisted_with_forwarding);
fn the_liberal_switch_is_persisted_with_forwarding(backend: Backend) {
    let host = firewall(backend);
    host.run("iptables -A FORWARD -m conntrack --ctstate INVALID -j ACCEPT");
    let now = || host.run("cat /proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal");
    let sysctl = |args: &[&str]| {
        let said = nvactl(&host, &[&["sysctl"], args].concat(), "");
        assert_eq!(said.code, 0, "{said:?}");
        said
    };
    let said = sysctl(&["status"]);
    assert!(
        said.stdout.contains(&format!("\n{SWITCH} = 0\n")),
        "{said:?}"
    );
    let said = sysctl(&["enable", "--liberal"]);
    let until = format!("{SWITCH} = 1 is lost at the next boot");
    assert!(said.stderr.contains(&until), "{said:?}");
    assert_eq!((now().as_str(), host.exists(FILE)), ("1\n", false));

    host.shell("echo 0 > /proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal");
    let said = sysctl(&["enable", "--liberal", "--persist"]);
    assert!(said.stderr.contains("sudo nvactl boot enable"), "{said:?}");
    assert_eq!(now(), "1\n");
    let kept = format!("# Written by `nvactl sysctl`.\nnet.ipv4.ip_forward = 1\n-{SWITCH} = 1\n");
    assert_eq!(host.run(&format!("cat {FILE}")), kept);
    let said = sysctl(&["status"]);
    let at_boot = format!("  {FILE}:3: {SWITCH} = 1  (read last: wins)\n");
    assert!(said.stdout.ends_with(&at_boot), "{said:?}");
    // sysctl(8) takes the file as it is.
    host.shell(
        "echo 0 > /proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal
         if command -v sysctl; then sysctl -p /etc/sysctl.d/99-nvactl.conf
         else echo 1 > /proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal; fi",
    );
    assert_eq!(now(), "1\n");
    // Who turns on forwarding alone leaves it; who turns off the last forwarding takes it along.
    sysctl(&["enable", "--persist"]);
    assert_eq!(host.run(&format!("cat {FILE}")), kept);
    let said = sysctl(&["disable", "--persist"]);
    assert!(
        said.stdout.contains(&format!("{FILE}: removed")),
        "{said:?}"
    );
    assert_eq!((now().as_str(), host.exists(FILE)), ("1\n", false));

    // With nvactl's own unit nothing is to be added.
    host.shell(
        "mkdir -p /etc/systemd/system/sysinit.target.wants
         ln -s /lib/none /etc/systemd/system/sysinit.target.wants/nvactl.service",
    );
    let said = sysctl(&["enable", "--liberal", "--persist"]);
    assert!(!said.stderr.contains("boot enable"), "{said:?}");

    // A kernel that does not track connections yet.
    host.run(&format!("rm {FILE}"));
    host.run("mount -t tmpfs tmpfs /proc/sys/net/netfilter");
    let said = nvactl(&host, &["sysctl", "enable", "--liberal"], "");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("sudo nvactl apply"), "{said:?}");
    let said = sysctl(&["enable", "--liberal", "--persist"]);
    assert!(!said.stdout.contains(SWITCH), "{said:?}");
    assert_eq!(host.run(&format!("cat {FILE}")), kept);
}

//! Links of unusual kinds: real packets beside those of the copy that `nvactl trace live` makes.
//!
//! ```text
//! client 10.1.0.2 ── eth0 firewall eth1 ── server 10.2.0.2, 10.224.0.10
//! ```

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::lab::{Backend, Said, host_with};
use crate::namespace::{Host, wait_for};
use crate::traffic::{self, Outcome, answer, serve_tcp};

const CLIENT: &str = "10.1.0.2";
const CLIENT_V6: &str = "fd00:1::2";

struct Links {
    client: Host,
    firewall: Host,
    server: Host,
}

impl Links {
    /// With rules that redirect port 8080 to the server.
    fn new(backend: Backend) -> Self {
        let links = Self::without_rules(backend);
        links.firewall.shell(
            "iptables -t nat -A PREROUTING -p tcp --dport 8080 -j DNAT --to-destination 10.224.0.10:80
             ip6tables -t nat -A PREROUTING -p tcp --dport 8080 -j DNAT --to-destination [fd00:224::10]:80",
        );
        links
    }

    fn without_rules(backend: Backend) -> Self {
        let links = Self {
            client: Host::without_files(""),
            firewall: host_with(backend),
            server: Host::without_files(""),
        };
        for (host, name, number) in [(&links.client, "eth0", 1), (&links.server, "eth1", 2)] {
            links.firewall.ip(
                "-4",
                &format!(
                    "link add name {name} type veth peer name eth0 netns {peer}
                     address add 10.{number}.0.1/24 dev {name}
                     link set {name} up",
                    peer = host.pid()
                ),
            );
            links.firewall.ip(
                "-6",
                &format!("address add fd00:{number}::1/64 dev {name} nodad"),
            );
            host.shell(&format!(
                "ip address add 10.{number}.0.2/24 dev eth0
                 ip -6 address add fd00:{number}::2/64 dev eth0 nodad
                 ip link set eth0 up
                 ip route add default via 10.{number}.0.1
                 ip -6 route add default via fd00:{number}::1"
            ));
        }
        links.server.shell(
            "ip address add 10.224.0.10/32 dev lo
             ip -6 address add fd00:224::10/128 dev lo",
        );
        links.firewall.shell(
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
             ip route add 10.224.0.0/16 via 10.2.0.2
             ip -6 route add fd00:224::/32 via fd00:2::2",
        );
        serve_tcp(&links.server, "server", 80);
        serve_tcp(&links.client, "client", 80);
        links
    }

    /// Runs nvactl on the firewall.
    fn nvactl(&self, args: &[&str]) -> Said {
        crate::nvactl(&self.firewall, args, "")
    }

    fn trace(&self, from: &str, to: &str) -> Said {
        self.trace_with(&format!("--from {from} --to {to}"))
    }

    fn trace_with(&self, options: &str) -> Said {
        let options: Vec<&str> = options.split(' ').collect();
        self.nvactl(&[&["trace", "live"], &options[..]].concat())
    }

    /// Asserts that a trace ends badly, with these words.
    fn fails(&self, options: &str, words: &str) {
        let said = self.trace_with(options);
        assert_eq!(said.code, 1, "{options}: {said:?}");
        // Lines are broken between words.
        let text: Vec<&str> = said.stdout.split_ascii_whitespace().collect();
        assert!(text.join(" ").contains(words), "{options}: {said:?}");
    }

    /// Asserts that the copy does not show the end of a connection, for a reason with these words.
    fn is_unknown(&self, from: &str, to: &str, words: &str) {
        let said = self.nvactl(&[
            "trace", "live", "--from", from, "--to", to, "--format", "json",
        ]);
        assert_eq!(said.code, 1, "{from} to {to}: {said:?}");
        let json: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
        let unknown = json["unknown"].to_string();
        assert!(unknown.contains(words), "{from} to {to}: {said:?}");
    }

    /// Asserts that a connection is answered, on the machine and in its copy.
    fn answers(&self, host: &Host, name: &str, from: &str, to: (&str, u16)) {
        let to = traffic::socket(to.0, to.1);
        let asked = to.clone();
        let real = host.enter(move || traffic::ask_tcp(&asked));
        assert_eq!(real, answer(name, from), "{from} to {to}");
        let said = self.trace(from, &to);
        assert_eq!(said.code, 0, "{from} to {to}: {said:?}");
    }
}

lab_test!(either hosts_behind_an_interface_without_an_address_are_reached);
/// As a container with a route for its address alone, and as a rented server.
fn hosts_behind_an_interface_without_an_address_are_reached(backend: Backend) {
    let links = Links::new(backend);
    links.firewall.shell(
        "ip address flush dev eth1
         ip -6 address add fe80::1/64 dev eth1 nodad
         ip -6 route del fd00:224::/32
         ip route add 10.224.0.10 dev eth1 scope link
         ip -6 route add fd00:224::10 dev eth1",
    );
    links.server.shell(
        "ip address flush dev eth0
         ip address flush dev lo
         ip address add 10.224.0.10/32 dev eth0
         ip -6 address add fd00:224::10/128 dev eth0 nodad
         ip -6 address add fe80::2/64 dev eth0 nodad
         ip route add 10.1.0.1 dev eth0 scope link
         ip route add default via 10.1.0.1
         ip -6 route replace default via fe80::1 dev eth0",
    );
    for proxies in ["0", "1"] {
        links.firewall.run(&format!(
            "sysctl -qw net.ipv4.conf.eth1.proxy_arp={proxies}"
        ));
        links.answers(&links.client, "server", CLIENT, ("10.1.0.1", 8080));
        links.answers(&links.server, "client", "10.224.0.10", (CLIENT, 80));
    }
    links.answers(&links.client, "server", CLIENT_V6, ("fd00:1::1", 8080));
    links.answers(&links.server, "client", "fd00:224::10", (CLIENT_V6, 80));

    // Nobody knows to which address such hosts send their packets.
    links
        .firewall
        .shell("sysctl -qw net.ipv4.conf.eth1.proxy_arp=0 net.ipv4.conf.eth1.arp_ignore=1");
    links.is_unknown(
        CLIENT,
        "10.1.0.1:8080",
        "a router for the hosts behind eth1",
    );
    links.answers(&links.client, "server", CLIENT_V6, ("fd00:1::1", 8080));
}

lab_test!(either the_machine_answers_for_addresses_of_others);
fn the_machine_answers_for_addresses_of_others(backend: Backend) {
    let links = Links::new(backend);
    links.firewall.shell(
        "ip neigh add proxy 10.1.0.77 dev eth0
         ip route add 10.1.0.77 dev eth1
         ip route add 10.1.0.78 dev eth1
         ip -6 neigh add proxy fd00:1::77 dev eth0
         ip -6 route add fd00:1::77 dev eth1
         sysctl -qw net.ipv6.conf.eth0.proxy_ndp=1",
    );
    links.answers(&links.client, "server", CLIENT, ("10.1.0.77", 8080));
    links.answers(&links.client, "server", CLIENT_V6, ("fd00:1::77", 8080));
    // Some kernels keep the entry without its interface, and find it only so.
    links.firewall.shell(
        "ip neigh del proxy 10.1.0.77 dev eth0 || ip neigh del proxy 10.1.0.77
         ip neigh add proxy 10.1.0.77",
    );
    links.client.run("ip neigh flush all");
    links.answers(&links.client, "server", CLIENT, ("10.1.0.77", 8080));
    let nobody = links.client.enter(|| traffic::ask_tcp("10.1.0.78:8080"));
    assert_ne!(nobody, answer("server", CLIENT));
    let said = links.trace(CLIENT, "10.1.0.78:8080");
    assert_eq!(said.code, 1, "{said:?}");
    links
        .firewall
        .run("sysctl -qw net.ipv4.conf.eth0.proxy_arp=1");
    links.client.run("ip neigh flush all");
    links.answers(&links.client, "server", CLIENT, ("10.1.0.78", 8080));
}

lab_test!(either a_virtual_address_is_reached_by_the_address_beside_it);
fn a_virtual_address_is_reached_by_the_address_beside_it(backend: Backend) {
    let links = Links::new(backend);
    links.firewall.shell(
        "ip address add 192.0.2.1/32 dev eth0
         sysctl -qw net.ipv4.conf.eth0.arp_ignore=2",
    );
    links.answers(&links.client, "server", CLIENT, ("192.0.2.1", 8080));
}

/// Makes both interfaces ports of a bridge, with a host behind each.
fn bridge(links: &Links) {
    links.firewall.shell(
        "ip address flush dev eth0
         ip address flush dev eth1
         ip link add name br0 type bridge
         ip link set eth0 master br0
         ip link set eth1 master br0
         ip address add 172.17.0.1/16 dev br0
         ip link set br0 up
         iptables -t nat -F PREROUTING
         iptables -t nat -A PREROUTING -d 172.17.0.1 -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.3:80
         iptables -t nat -A POSTROUTING -d 172.17.0.3 -j MASQUERADE",
    );
    for (host, address) in [(&links.client, A), (&links.server, B)] {
        host.shell(&format!(
            "ip address flush dev eth0
             ip address add {address}/16 dev eth0
             ip route add default via 172.17.0.1"
        ));
    }
    // The kernel puts off the work after a change of a link for up to a second.
    wait_for("the bridge has a carrier", || {
        !links
            .firewall
            .run("ip link show br0")
            .contains("NO-CARRIER")
    });
}

const A: &str = "172.17.0.2";
const B: &str = "172.17.0.3";
const HIDDEN: &str = "172.17.0.1";
const PASSES_RULES: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

lab_test!(either a_connection_from_port_to_port_of_a_bridge_ends_as_it_does_or_is_unknown);
fn a_connection_from_port_to_port_of_a_bridge_ends_as_it_does_or_is_unknown(backend: Backend) {
    let links = Links::new(backend);
    bridge(&links);
    let ports = "the other ports of the bridge br0, which has 2";
    let to = "172.17.0.1:8080";
    let ask = |host: &Host| host.enter(move || traffic::ask_tcp(to));
    for passes_rules in [false, true] {
        if passes_rules && !links.firewall.exists(PASSES_RULES) {
            continue;
        }
        if links.firewall.exists(PASSES_RULES) {
            let value = u8::from(passes_rules);
            links.firewall.run(&format!(
                "sysctl -qw net.bridge.bridge-nf-call-iptables={value}"
            ));
        }
        links.firewall.run("ping -c 1 -W 5 172.17.0.2");
        links.firewall.run("ping -c 1 -W 5 172.17.0.3");
        let real = ask(&links.client);
        assert_eq!(real, answer("server", HIDDEN), "{passes_rules}");
        let said = links.trace(A, to);
        assert_eq!(said.code, 0, "{passes_rules}: {said:?}");

        // The bridge sends a packet that it takes from port to port to no host behind the same port.
        let real = ask(&links.server);
        if passes_rules {
            assert_eq!(real, Outcome::Silence);
            links.is_unknown(B, to, ports);
        } else {
            assert_eq!(real, answer("server", HIDDEN));
            assert_eq!(links.trace(B, to).code, 0);
        }
        links.is_unknown(A, "172.17.0.3:80", ports);

        // A rule's drop is certain.
        links
            .firewall
            .run("iptables -A FORWARD -s 172.17.0.2 -p tcp --dport 80 -j DROP");
        let said = links.trace(A, to);
        assert_eq!(said.code, 1, "{said:?}");
        let drops = "not delivered: FORWARD rule 1 in filter";
        assert!(said.stdout.contains(drops), "{said:?}");
        links.firewall.run("iptables -F FORWARD");
        // A port that is not the copy's is no command that the copy refuses.
        assert!(!said.stderr.contains("the copy lacks"), "{said:?}");
    }
}

lab_test!(either an_unknown_test_is_a_warning_of_apply);
fn an_unknown_test_is_a_warning_of_apply(backend: Backend) {
    let links = Links::new(backend);
    if !links.firewall.exists(PASSES_RULES) {
        return;
    }
    bridge(&links);
    links.firewall.shell(
        "sysctl -qw net.bridge.bridge-nf-call-iptables=1
         iptables -t nat -F",
    );
    let spec = "
firewall: {interface: {ingress: br0, egress: br0}, snat: 172.17.0.1}
forwards:
  - {name: web, listen: 8080, target: {pod: \"172.17.0.3:80\"}}
tests:
  - {from: 172.17.0.99, in: br0, to: 8080, reaches: \"172.17.0.3:80\", snat: 172.17.0.1}
";
    let apply = |spec: &str| crate::nvactl(&links.firewall, &["apply", "-"], spec);
    let said = apply(spec);
    assert_eq!(said.code, 0, "{said:?}");
    let warning = "warning: it is not known whether a test of the spec passes:\n  unknown ";
    assert!(said.stderr.contains(warning), "{said:?}");
    let to = traffic::socket(HIDDEN, 8080);
    let real = links.client.enter(move || traffic::ask_tcp(&to));
    assert_eq!(real, answer("server", HIDDEN));
    // A test that fails still refuses the change.
    let denied = spec.replace("target:", "deny_from: [172.17.0.99], target:");
    let said = apply(&denied);
    assert_eq!(said.code, 2, "{said:?}");
}

/// Sends a long request by TCP and returns whether an answer comes.
fn is_long_request_answered(to: &'static str) -> bool {
    let to: SocketAddr = to.parse().expect("an address and a port");
    let limit = Duration::from_secs(2);
    let asked = || -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&to, limit)?;
        stream.set_read_timeout(Some(limit))?;
        let field = "x".repeat(30_000);
        write!(stream, "GET / HTTP/1.0\r\nField: {field}\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    asked().is_ok_and(|text| !text.is_empty())
}

lab_test!(either a_hole_for_long_packets_to_a_target_behind_a_router_is_seen);
/// The server's route says what a host behind a router does: it does not know how small the link's MTU is.
fn a_hole_for_long_packets_to_a_target_behind_a_router_is_seen(backend: Backend) {
    let links = Links::new(backend);
    links.firewall.run("ip link set eth1 mtu 1300");
    links.server.shell(
        "ip link set eth0 mtu 1300
         ip route change default via 10.2.0.1 advmss 1460
         ip -6 route change default via fd00:2::1 advmss 1440",
    );
    for (icmp, from, to, listener) in [
        (
            "iptables -A OUTPUT -p icmp -j DROP",
            CLIENT,
            "10.224.0.10:80",
            "10.1.0.1:8080",
        ),
        (
            "ip6tables -A OUTPUT -p icmpv6 --icmpv6-type packet-too-big -j DROP",
            CLIENT_V6,
            "[fd00:224::10]:80",
            "[fd00:1::1]:8080",
        ),
    ] {
        for to in [to, listener] {
            let long = format!("--from {from} --to {to} --size 30000");
            links.firewall.run(icmp);
            assert!(
                !links.client.enter(move || is_long_request_answered(to)),
                "{to}"
            );
            links.fails(&long, "is larger than the MTU of the route");
            links.firewall.run(&icmp.replace("-A", "-D"));
            assert!(
                links.client.enter(move || is_long_request_answered(to)),
                "{to}"
            );
            assert_eq!(links.trace_with(&long).code, 0, "{to}");
            links
                .client
                .shell("ip route flush cache; ip -6 route flush cache");
        }
    }
}

lab_test!(either a_router_that_was_never_asked_is_asked);
fn a_router_that_was_never_asked_is_asked(backend: Backend) {
    let links = Links::new(backend);
    links
        .firewall
        .run("ip route change 10.224.0.0/16 via 10.2.0.9");
    let words = "stays in the queue for 10.2.0.9, which does not answer on eth1";
    links.fails(&format!("--from {CLIENT} --to 10.1.0.1:8080"), words);
    let real = links.client.enter(|| traffic::body_by_tcp("10.1.0.1:8080"));
    assert!(real.is_err(), "{real:?}");
    links.server.run("ip address add 10.2.0.9/24 dev eth0");
    links.answers(&links.client, "server", CLIENT, ("10.1.0.1", 8080));
}

lab_test!(either the_networks_of_an_interface_that_is_not_copied_are_unknown);
fn the_networks_of_an_interface_that_is_not_copied_are_unknown(backend: Backend) {
    let links = Links::new(backend);
    links.firewall.shell(
        "ip link add name 'x\"y' type veth peer name far
         ip link set far up
         ip link set 'x\"y' up
         ip route add 10.224.0.0/17 dev 'x\"y'",
    );
    let real = links.client.enter(|| traffic::body_by_tcp("10.1.0.1:8080"));
    assert!(real.is_err(), "{real:?}");
    links.is_unknown(CLIENT, "10.1.0.1:8080", "iproute2 takes no such name");
    links.answers(&links.client, "server", CLIENT, ("10.2.0.2", 80));
}

lab_test!(either a_fragment_that_nobody_assembles_shows_its_path);
/// Without connection tracking the kernel forwards fragments as they are.
fn a_fragment_that_nobody_assembles_shows_its_path(backend: Backend) {
    let links = Links::without_rules(backend);
    let udp = format!("--from {CLIENT} --to 10.224.0.10:53 --protocol udp --size 3000");
    let ping = format!("--from {CLIENT} --to 10.224.0.10 --protocol ping --size 3000");
    let said = links.trace_with(&udp);
    assert_eq!(said.code, 0, "{said:?}");
    for (rule, options, words) in [
        ("-p udp --dport 53 -j DROP", &udp, "drops the packet"),
        ("-d 10.224.0.10 -f -j DROP", &udp, "drops the packet"),
        ("-p udp --sport 53 -j DROP", &udp, "drops the reply"),
        ("-d 10.224.0.10 -p icmp -j DROP", &ping, "drops the packet"),
        ("-s 10.224.0.10 -p icmp -j DROP", &ping, "drops the reply"),
    ] {
        links.firewall.run(&format!("iptables -A FORWARD {rule}"));
        let said = links.trace_with(options);
        assert_eq!(said.code, 1, "{rule}: {said:?}");
        let is_named = said.stdout.contains("FORWARD rule 1 in filter");
        assert!(is_named && said.stdout.contains(words), "{rule}: {said:?}");
        links.firewall.run("iptables -F FORWARD");
    }
}

lab_test!(either a_packet_that_the_machine_does_not_send_has_a_reason);
fn a_packet_that_the_machine_does_not_send_has_a_reason(backend: Backend) {
    let links = Links::without_rules(backend);
    links.firewall.shell(
        "ip route add unreachable 10.224.7.0/24
         ip route add blackhole 10.224.8.0/24
         ip route add prohibit 10.224.9.0/24
         ip route add unreachable 10.225.0.0/16 table 99
         ip rule add uidrange 0-0 lookup 99",
    );
    for (to, words) in [
        ("10.224.7.9:80", "the packet meets an unreachable route"),
        ("10.224.8.9:80", "the packet meets a blackhole route"),
        ("10.224.9.9:80", "the packet meets a prohibit route"),
        ("192.0.2.9:80", "the packet has no route to its destination"),
    ] {
        links.fails(&format!("--from 10.2.0.1 --to {to}"), words);
    }
    let said = links.trace("10.2.0.1", "10.225.0.9:80");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(!said.stdout.contains("does not arrive"), "{said:?}");
}

lab_test!(either a_source_that_nobody_has_is_named);
fn a_source_that_nobody_has_is_named(backend: Backend) {
    let links = Links::new(backend);
    links
        .firewall
        .run("iptables -t nat -A POSTROUTING -o eth1 -j SNAT --to-source 10.2.0.41");
    let real = links.client.enter(|| traffic::body_by_tcp("10.1.0.1:8080"));
    assert!(real.is_err(), "{real:?}");
    let to = format!("--from {CLIENT} --to 10.1.0.1:8080");
    links.fails(&to, "nobody answers there for 10.2.0.41");
    links.firewall.run("ip address add 10.2.0.41/24 dev eth1");
    let real = links.client.enter(|| traffic::ask_tcp("10.1.0.1:8080"));
    assert_eq!(real, answer("server", "10.2.0.41"));
    assert_eq!(links.trace_with(&to).code, 0);
}

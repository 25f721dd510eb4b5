//! The cause of a dead connection, named by the kernel itself.

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use nvactl::net::Protocol;
use nvactl::twin::cause::{
    By, Conversation, DecidingRule, Fate, Holder, Taken, Watch, WatchReport,
};

use crate::fake::{count_programs, counted_programs};
use crate::lab::{Backend, CLIENT, CLIENT_V6, FIREWALL, FIREWALL_V6, Lab, POD, POD_V6};
use crate::traffic::serve_udp;

const PORT: u16 = 5000;
/// An answer within the lab takes microseconds.
const PATIENCE: Duration = Duration::from_millis(100);

/// A fault: the commands that make it and undo it, and the cause in words.
struct Fault<'f> {
    make: &'f str,
    undo: &'f str,
    cause: &'f str,
}

const fn fault<'f>(make: &'f str, undo: &'f str, cause: &'f str) -> Fault<'f> {
    Fault { make, undo, cause }
}

/// A lab with a forward of UDP to a pod, by the rules of a backend.
fn lab(backend: Backend) -> Lab {
    let lab = Lab::dual_stack_two_nics(backend);
    lab.firewall.shell(
        "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
    );
    for (iptables, pod) in [
        ("iptables", format!("{POD}:80")),
        ("ip6tables", format!("[{POD_V6}]:80")),
    ] {
        for protocol in ["udp", "tcp"] {
            let nat =
                format!("{iptables} -t nat -A PREROUTING -i eth0 -p {protocol} --dport {PORT}");
            lab.firewall
                .run(&format!("{nat} -j DNAT --to-destination {pod}"));
        }
        lab.firewall.run(&format!(
            "{iptables} -t nat -A POSTROUTING -o eth1 -j MASQUERADE"
        ));
    }
    serve_udp(&lab.pod, "pod", 80);
    lab
}

fn conversation(protocol: Protocol) -> Conversation {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    Conversation {
        protocol: protocol.into(),
        client: address(CLIENT),
        listen: address(FIREWALL),
        port: PORT,
        targets: vec![(address(POD), 80)],
        sources: vec![address(crate::lab::FIREWALL_EGRESS)..=address(crate::lab::FIREWALL_EGRESS)],
    }
}

fn conversation_v6() -> Conversation {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    Conversation {
        protocol: Protocol::Udp.into(),
        client: address(CLIENT_V6),
        listen: address(FIREWALL_V6),
        port: PORT,
        targets: vec![(address(POD_V6), 80)],
        sources: Vec::new(),
    }
}

/// Sends one datagram, or asks for one connection, and returns what the kernel told.
fn watch(lab: &Lab, conversation: Conversation, size: usize) -> Option<Taken> {
    let begun = lab.firewall.enter(|| Watch::begin(&["eth0", "eth1"]));
    let watch = begun.expect("packets can be traced");
    let to = SocketAddr::from((conversation.listen, conversation.port));
    let transport = conversation.protocol.transport().expect("it has ports");
    lab.client.enter(move || match transport {
        Protocol::Tcp => drop(TcpStream::connect_timeout(&to, PATIENCE)),
        Protocol::Udp => {
            let socket = UdpSocket::bind((conversation.client, 0)).expect("its own address");
            socket
                .set_read_timeout(Some(PATIENCE))
                .expect("it is a time");
            socket.send_to(&vec![b'x'; size], to).expect("it is sent");
            let _ = socket.recv(&mut [0; 99]);
        }
    });
    lab.firewall.enter(move || {
        let seen: WatchReport = watch.end().expect("the trace is read");
        assert!(seen.complete);
        seen.taken(&conversation).expect("the rules are listed")
    })
}

/// Describes a cause in one line.
fn words(taken: Option<Taken>) -> String {
    let Some(Taken {
        by,
        direction,
        fate,
    }) = taken
    else {
        return "none".to_owned();
    };
    let decided = |DecidingRule {
                       stage,
                       holder,
                       text,
                       owner,
                       ..
                   }: DecidingRule| {
        let holder = match holder {
            Holder::Iptables {
                backend,
                family,
                table,
                chain,
            } => {
                format!("{backend} {} {table} {chain}", family.as_str())
            }
            Holder::Nft(chain) => format!("{} {} {}", chain.family, chain.table, chain.name),
        };
        let owner = owner.map(|owner| format!(" ({owner})")).unwrap_or_default();
        format!("{} {holder}{owner}: {text}", stage.as_str())
    };
    let by = match by {
        By::Rule(rule) => decided(rule),
        By::Policy(policy) => decided(policy),
        By::Kernel(reason) => format!("kernel: {}", reason.words()),
        By::NoRule => "no rule".to_owned(),
    };
    let fate = match fate {
        Fate::Translated { to } => format!("Translated {}:{}", to.0, to.1),
        Fate::Redirected { to } => format!("Redirected {}:{}", to.0, to.1),
        fate => format!("{fate:?}"),
    };
    format!("{direction:?} {fate} | {by}")
}

fn try_all(lab: &Lab, faults: &[Fault<'_>], protocol: Protocol) {
    let mut wrong = Vec::new();
    for Fault { make, undo, cause } in faults {
        lab.firewall.shell(make);
        let named = words(watch(lab, conversation(protocol), 10));
        lab.firewall.shell(undo);
        if named != *cause {
            wrong.push(format!("{make}\n   {named}\n   {cause}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let sound = watch(lab, conversation(protocol), 10);
    assert_eq!(words(sound), "none");
}

lab_test!(a_rule_of_iptables_is_named);
/// Rules of iptables, whichever the backend.
fn a_rule_of_iptables_is_named(backend: Backend) {
    let lab = lab(backend);
    let name = match backend {
        Backend::Nft => "nft",
        Backend::Legacy => "legacy",
    };
    let faults = [
        (
            "iptables -A FORWARD -p udp -m comment --comment 'no way' -j DROP",
            "iptables -D FORWARD 1",
            "Request Dropped | forward {} v4 filter FORWARD: -A FORWARD -p udp -m comment --comment \"no way\" -j DROP",
        ),
        (
            "iptables -A FORWARD -s 9.9.9.9 -j ACCEPT; iptables -A FORWARD -i eth0 -j REJECT",
            "iptables -F FORWARD",
            "Request Rejected | forward {} v4 filter FORWARD: -A FORWARD -i eth0 -j REJECT --reject-with icmp-port-unreachable",
        ),
        (
            "iptables -P FORWARD DROP",
            "iptables -P FORWARD ACCEPT",
            "Request Dropped | forward {} v4 filter FORWARD: -P FORWARD DROP",
        ),
        (
            "iptables -N ufw-x; iptables -A FORWARD -p udp -g ufw-x; iptables -P FORWARD DROP",
            "iptables -P FORWARD ACCEPT; iptables -F FORWARD; iptables -X ufw-x",
            "Request Dropped | forward {} v4 filter FORWARD: -P FORWARD DROP",
        ),
        (
            "iptables -N f2b-x; iptables -A FORWARD -j f2b-x; iptables -A f2b-x -p udp -j DROP",
            "iptables -F FORWARD; iptables -F f2b-x; iptables -X f2b-x",
            "Request Dropped | forward {} v4 filter f2b-x (fail2ban): -A f2b-x -p udp -j DROP",
        ),
        (
            "iptables -t mangle -A PREROUTING -i eth1 -p udp --sport 80 -j DROP",
            "iptables -t mangle -F",
            "Reply Dropped | prerouting {} v4 mangle PREROUTING: -A PREROUTING -i eth1 -p udp -m udp --sport 80 -j DROP",
        ),
        (
            "iptables -t mangle -A POSTROUTING -o eth1 -j DROP",
            "iptables -t mangle -F",
            "Request Dropped | postrouting {} v4 mangle POSTROUTING: -A POSTROUTING -o eth1 -j DROP",
        ),
        (
            "iptables -A FORWARD -i eth0 -j ACCEPT; iptables -P FORWARD DROP",
            "iptables -P FORWARD ACCEPT; iptables -F FORWARD",
            "Reply Dropped | forward {} v4 filter FORWARD: -P FORWARD DROP",
        ),
        (
            "iptables -t raw -A PREROUTING -i eth0 -p udp -j CT --notrack",
            "iptables -t raw -F",
            "Request Untranslated | prerouting {} v4 raw PREROUTING: -A PREROUTING -i eth0 -p udp -j CT --notrack",
        ),
        (
            "iptables -t nat -I PREROUTING -p udp --dport 5000 -j DNAT --to 10.224.0.99:81",
            "iptables -t nat -D PREROUTING 1",
            "Request Translated 10.224.0.99:81 | prerouting {} v4 nat PREROUTING: -A PREROUTING -p udp -m udp --dport 5000 -j DNAT --to-destination 10.224.0.99:81",
        ),
        (
            "iptables -t nat -I PREROUTING -p udp -j REDIRECT --to-ports 53",
            "iptables -t nat -D PREROUTING 1",
            "Request Redirected 10.3.0.4:53 | prerouting {} v4 nat PREROUTING: -A PREROUTING -p udp -j REDIRECT --to-ports 53",
        ),
        (
            "iptables -t nat -I PREROUTING -p udp -j ACCEPT",
            "iptables -t nat -D PREROUTING 1",
            "Request Untranslated | prerouting {} v4 nat PREROUTING: -A PREROUTING -p udp -j ACCEPT",
        ),
    ];
    let faults = faults.map(|(make, undo, cause)| (make, undo, cause.replace("{}", name)));
    let faults: Vec<Fault<'_>> = faults
        .iter()
        .map(|(make, undo, cause)| fault(make, undo, cause))
        .collect();
    try_all(&lab, &faults, Protocol::Udp);
}

lab_test!(a_rule_of_nft_is_named);
/// Rules that only nft shows.
fn a_rule_of_nft_is_named(backend: Backend) {
    let lab = lab(backend);
    let faults = [
        fault(
            "nft 'table inet own { chain c { type filter hook forward priority 0; \
             udp dport vmap { 79: accept, 80: drop }; }; }'",
            "nft delete table inet own",
            "Request Dropped | forward inet own c: udp dport vmap { 79 : accept, 80 : drop }",
        ),
        fault(
            "nft 'table ip firewalld { chain e { }; chain c { type filter hook forward priority 0; policy drop; \
             goto e; }; }'",
            "nft delete table ip firewalld",
            "Request Dropped | forward ip firewalld c (firewalld): policy drop",
        ),
        fault(
            "nft 'table ip own { chain c { type filter hook forward priority 0; policy drop; \
             iif eth0 counter accept; }; }'",
            "nft delete table ip own",
            "Reply Dropped | forward ip own c: policy drop",
        ),
        fault(
            "nft 'table ip own { chain c { type filter hook forward priority 0; \
             iif eth0 counter reject; }; }'",
            "nft delete table ip own",
            "Request Rejected | forward ip own c: iif \"eth0\" counter reject",
        ),
        fault(
            "nft 'table ip own { chain c { type nat hook prerouting priority -110; \
             udp dport 5000 dnat to 10.224.0.99:81; }; }'",
            "nft delete table ip own",
            "Request Translated 10.224.0.99:81 | prerouting ip own c: udp dport 5000 dnat to 10.224.0.99:81",
        ),
        fault(
            "nft 'table ip own { chain c { type nat hook prerouting priority -110; \
             udp dport 5000 redirect to :53; }; }'",
            "nft delete table ip own",
            "Request Redirected 10.3.0.4:53 | prerouting ip own c: udp dport 5000 redirect to :53",
        ),
        fault(
            "nft 'table ip own { chain c { type nat hook postrouting priority 90; \
             oif eth1 snat to 10.4.0.77; }; }'",
            "nft delete table ip own",
            "Request SourceTranslated { to: 10.4.0.77 } | postrouting ip own c: oif \"eth1\" snat to 10.4.0.77",
        ),
        fault(
            "nft 'table ip own { chain c { type filter hook prerouting priority -301; \
             udp dport 5000 notrack; }; }'",
            "nft delete table ip own",
            "Request Untranslated | prerouting ip own c: udp dport 5000 notrack",
        ),
        fault(
            "nft 'table netdev own { chain c { type filter hook ingress device eth0 priority 0; \
             udp dport 5000 drop; }; }'",
            "nft delete table netdev own",
            "Request Dropped | ingress netdev own c: udp dport 5000 drop",
        ),
        fault(
            "nft 'table netdev own { chain c { type filter hook egress device eth1 priority 0; \
             udp dport 80 drop; }; }'",
            "nft delete table netdev own",
            "Request Dropped | egress netdev own c: udp dport 80 drop",
        ),
        fault(
            "iptables-nft -A FORWARD -p tcp -j ACCEPT; \
             nft add rule ip filter FORWARD ip saddr 198.51.100.10 drop",
            "iptables-nft -F FORWARD",
            "Request Dropped | forward ip filter FORWARD: ip saddr 198.51.100.10 drop",
        ),
        fault(
            "iptables-nft -A FORWARD -p tcp -j ACCEPT; nft 'add set ip filter s { type ipv4_addr; }'; \
             nft 'add element ip filter s { 198.51.100.10 }'; \
             nft add rule ip filter FORWARD ip saddr @s counter drop",
            "iptables-nft -F FORWARD; nft delete set ip filter s",
            "Request Dropped | forward ip filter FORWARD: ip saddr @s counter drop",
        ),
    ];
    try_all(&lab, &faults, Protocol::Udp);
    try_all(&lab, &faults[1..4], Protocol::Tcp);
}

lab_test!(a_drop_reason_of_the_kernel_is_named);
/// Faults of routes, switches and neighbours.
fn a_drop_reason_of_the_kernel_is_named(backend: Backend) {
    let lab = lab(backend);
    let unrouted = "ip route add 10.224.0.0/16 via 10.4.0.1";
    let faults = [
        fault(
            "echo 0 > /proc/sys/net/ipv4/ip_forward",
            "echo 1 > /proc/sys/net/ipv4/ip_forward",
            "is not forwarded: forwarding is off for the machine or for the interface",
        ),
        fault(
            "ip route add 198.51.100.10 via 10.4.0.1; echo 1 > /proc/sys/net/ipv4/conf/eth0/rp_filter",
            "ip route del 198.51.100.10; echo 0 > /proc/sys/net/ipv4/conf/eth0/rp_filter",
            "fails the reverse path check (`rp_filter`): the route back to its source uses another interface",
        ),
        fault(
            "ip route del default; ip route del 10.224.0.0/16; ip route add 198.51.100.0/24 via 10.3.0.1",
            "ip route del 198.51.100.0/24; ip route add default via 10.3.0.1; ip route add 10.224.0.0/16 via 10.4.0.1",
            "has no route to its destination",
        ),
        fault(
            "ip route add blackhole 10.224.0.118",
            "ip route del blackhole 10.224.0.118",
            "meets a blackhole route or rule",
        ),
        fault(
            "ip route add prohibit 10.224.0.118",
            "ip route del prohibit 10.224.0.118",
            "meets a prohibit route or rule",
        ),
        fault(
            "ip route add unreachable 10.224.0.118",
            "ip route del unreachable 10.224.0.118",
            "meets an unreachable route or rule",
        ),
        fault(
            "ip rule add iif eth0 prohibit pref 50",
            "ip rule del pref 50",
            "meets a prohibit route or rule",
        ),
        fault(
            "ip address add 198.51.100.10/32 dev lo",
            "ip address del 198.51.100.10/32 dev lo",
            "is a martian: its source or destination address is invalid on this interface",
        ),
        fault(
            "ip route replace 10.224.0.0/16 via 10.4.0.99",
            "ip route replace 10.224.0.0/16 via 10.4.0.1",
            "stays in the queue for 10.4.0.99, which does not answer on eth1",
        ),
        fault(
            "ip route add 10.224.0.118 via 10.4.0.1 mtu 600; ip link set eth1 mtu 576",
            "ip route del 10.224.0.118; ip link set eth1 mtu 1500; ip route replace 10.224.0.0/16 via 10.4.0.1",
            "is larger than the MTU of the route and must not be fragmented",
        ),
        // The client has learned the MTU of the fault before: it sends fragments.
        fault(
            "iptables -t mangle -A PREROUTING -i eth0 -j TTL --ttl-set 1",
            "iptables -t mangle -F",
            "has reached the end of its time to live (TTL)",
        ),
    ];
    assert!(faults[2].undo.contains(unrouted));
    let mut wrong = Vec::new();
    for Fault { make, undo, cause } in &faults {
        lab.firewall.shell(make);
        let named = words(watch(&lab, conversation(Protocol::Udp), 1000));
        lab.firewall.shell(undo);
        if named != format!("Request Dropped | kernel: {cause}") {
            wrong.push(format!("{make}\n   {named}\n   {cause}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let v6 = [
        fault(
            "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding",
            "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
            "Request Dropped | kernel: is not forwarded: forwarding is off for the machine or for the interface",
        ),
        fault(
            "ip -6 route add blackhole fd00:224::118",
            "ip -6 route del blackhole fd00:224::118",
            "Request Dropped | kernel: meets a blackhole route or rule",
        ),
        fault(
            "ip6tables -A FORWARD -i eth0 -p udp -j REJECT",
            "ip6tables -F FORWARD",
            "Request Rejected | forward {} v6 filter FORWARD: -A FORWARD -i eth0 -p udp -j REJECT --reject-with icmp6-port-unreachable",
        ),
    ];
    for Fault { make, undo, cause } in &v6 {
        lab.firewall.shell(make);
        let named = words(watch(&lab, conversation_v6(), 10));
        lab.firewall.shell(undo);
        let name = match backend {
            Backend::Nft => "nft",
            Backend::Legacy => "legacy",
        };
        assert_eq!(named, cause.replace("{}", name), "{make}");
    }
    assert_eq!(words(watch(&lab, conversation_v6(), 10)), "none");
}

lab_test!(either more_rules_start_no_more_programs_for_a_watch);
/// The last of many rules is found, too.
fn more_rules_start_no_more_programs_for_a_watch(backend: Backend) {
    let lab = lab(backend);
    let [few, many] = [0, 30_000].map(|rules| {
        let mut text = String::from("*filter\n:FORWARD ACCEPT [0:0]\n");
        for n in 0..rules {
            text += &format!(
                "-A FORWARD -p udp --dport {} -s 10.9.{}.0/24 -j DROP\n",
                n % 60_000 + 1,
                n % 250
            );
        }
        text += "-A FORWARD -i eth0 -p udp --dport 80 -j DROP\nCOMMIT\n";
        let loaded = lab.firewall.feed("iptables-restore", &[], &text);
        assert!(loaded.status.success(), "{loaded:?}");
        let conversation = conversation(Protocol::Udp);
        let (watch, begun) = lab.firewall.enter(|| {
            count_programs();
            (Watch::begin(&["eth0", "eth1"]), counted_programs())
        });
        let watch = watch.expect("packets can be traced");
        let to = SocketAddr::from((conversation.listen, conversation.port));
        lab.client.enter(move || {
            let socket = UdpSocket::bind((conversation.client, 0)).expect("its own address");
            socket.send_to(b"x", to).expect("it is sent");
        });
        let (taken, ended) = lab.firewall.enter(move || {
            count_programs();
            let seen = watch.end().expect("the trace is read");
            let taken = seen.taken(&conversation).expect("the rules are listed");
            (taken, counted_programs())
        });
        let named = words(taken);
        assert!(
            named.ends_with("-A FORWARD -i eth0 -p udp -m udp --dport 80 -j DROP"),
            "{named}"
        );
        [begun, ended].map(|[programs, _]| programs)
    });
    assert_eq!(few, many);
}

//! The packet filter of a host, copied into a twin and read back there.

use std::net::UdpSocket;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::process::Command;

use nvactl::net::Family;
use nvactl::netfilter::backend::Backend as Iptables;
use nvactl::twin::netns::Netns;
use nvactl::twin::rules::{Copied, PacketFilter, Reason, Unknown};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, SendFlags, SocketType};

use crate::fake::{count_programs, counted_programs, fake_here};
use crate::lab::{Backend, host_with};
use crate::namespace::Host;

/// Lists everything that filters, without what differs at every look.
const LOOK: &str = "
for backend in nft legacy; do
  for family in ip ip6; do ${family}tables-$backend-save 2>&1; done
done | sed -e '/^#/d' -e '/^Error/d' -e '/^Perhaps/d' -e '/^iptables-nft-save/d' -e 's/ \\[[0-9]*:[0-9]*\\]$//'
nft -s list ruleset
ipset save
";

/// A filter that was copied into a twin.
struct Twin {
    copied: Copied,
    /// The listings of the host and of the twin.
    lists: [String; 2],
    counted: Vec<usize>,
}

/// Copies a host's filter, has `meanwhile` send packets in the twin, and looks again.
fn copy(host: &Host, change: fn(PacketFilter) -> PacketFilter, meanwhile: fn()) -> Twin {
    host.enter(move || {
        let live = here(LOOK);
        let filter = change(PacketFilter::read().expect("root reads it"));
        assert_eq!(here(LOOK), live, "reading changes nothing");
        Netns::make().expect("root makes one");
        here("ip link set lo up; ip link add eth0 type veth peer name peer0; ip link set eth0 up");
        let mut copied = filter.load().expect("root loads it");
        let copy = here(LOOK);
        assert_eq!(copied.counted().expect("the chains are there"), [0; 0]);
        meanwhile();
        let counted = copied.counted().expect("the chains are there");
        assert_eq!(copied.counted().expect("the chains are there"), [0; 0]);
        Twin {
            copied,
            lists: [live, copy],
            counted,
        }
    })
}

fn copy_as_it_is(host: &Host) -> Twin {
    copy(host, |filter| filter, || ())
}

/// Runs a script in the calling thread's namespace.
fn here(script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).output();
    let output = output.expect("a shell starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn send(port: u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("lo is up");
    let _ = socket.send_to(b"x", ("127.0.0.1", port));
}

fn host(backend: Backend) -> Host {
    let host = host_with(backend);
    host.shell("ip link add eth0 type veth peer name peer0; ip link set eth0 up");
    host
}

/// Orders the blocks of a listing, without chains that accept everything: iptables-restore makes each
/// built-in chain of a table, and an nft rule may have a counter or none.
fn normal(list: &str) -> String {
    let list = list
        .replace(" counter ", " ")
        .replace("\t\tcounter ", "\t\t");
    let (mut blocks, mut block) = (Vec::new(), String::new());
    for line in list.lines().filter(|line| !line.is_empty()) {
        block.push_str(line);
        block.push('\n');
        if line.starts_with("table ") || matches!(line, "COMMIT" | "\t}" | "}") {
            blocks.push(std::mem::take(&mut block));
        }
    }
    blocks.push(block);
    blocks.retain(|block| !block.ends_with("policy accept;\n\t}\n"));
    blocks.sort_unstable();
    blocks.concat()
}

fn assert_same(twin: &Twin) {
    assert_eq!(twin.copied.left_out, []);
    let [live, copy] = &twin.lists.each_ref().map(|list| normal(list));
    assert!(live == copy, "{live}\n\n==== twin:\n{copy}");
}

lab_test!(a_filter_of_both_families_is_copied_as_it_is);
fn a_filter_of_both_families_is_copied_as_it_is(backend: Backend) {
    let host = host(backend);
    host.shell(
        "
ipset create nets hash:net counters timeout 600; ipset add nets 10.0.0.0/8 timeout 0
ipset create lists list:set; ipset add lists nets
iptables -P FORWARD DROP
iptables -N web
iptables -A web -p tcp -m multiport --dports 80,443 -m comment --comment 'two  words \"x\"' -j ACCEPT
iptables -A FORWARD -i eth0 ! -s 10.0.0.0/8 -m conntrack --ctstate NEW -g web
iptables -A FORWARD -m set --match-set lists src -j DROP
iptables -A FORWARD -m physdev --physdev-in a-jb -j REJECT
iptables -A FORWARD -m statistic --mode random --probability 0.5 -j LOG --log-prefix 'a '
iptables -A FORWARD -j NFQUEUE --queue-num 3
iptables -t nat -A PREROUTING -p tcp --dport 5000:5010 -j DNAT --to-destination 10.224.0.118:2000-2010/5000
iptables -t nat -A POSTROUTING -j MASQUERADE --random-fully
iptables -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
iptables -t raw -A PREROUTING -p udp --dport 53 -j NOTRACK
ip6tables -P INPUT DROP
ip6tables -A INPUT -p ipv6-icmp --icmpv6-type 135 -j ACCEPT
ip6tables -t nat -A PREROUTING -d 2001:db8::1 -p tcp --dport 80 -j DNAT --to-destination [fd00::1]:8080
",
    );
    assert_same(&copy_as_it_is(&host));
}

lab_test!(a_comment_with_a_line_break_does_not_lose_a_rule);
/// A comment over two lines cannot be read by iptables-restore, and says nothing about a packet.
fn a_comment_with_a_line_break_does_not_lose_a_rule(backend: Backend) {
    let host = host(backend);
    host.shell(
        "iptables -A FORWARD -p tcp -m comment --comment 'a
b' -m tcp --dport 80 -j ACCEPT
iptables -A FORWARD -j DROP",
    );
    let twin = copy_as_it_is(&host);
    assert_eq!(twin.copied.left_out, []);
    let [_, copy] = &twin.lists;
    assert!(
        copy.contains("-A FORWARD -p tcp -m tcp --dport 80 -j ACCEPT\n-A FORWARD -j DROP\n"),
        "{copy}"
    );
}

lab_test!(nft_rules_in_iptables_tables_are_copied);
fn nft_rules_in_iptables_tables_are_copied(backend: Backend) {
    if backend == Backend::Legacy {
        return;
    }
    for own in [
        "",
        "iptables -N NVACTL-FORWARD; iptables -I FORWARD -j NVACTL-FORWARD",
    ] {
        // From wrong words to none at all: iptables-nft-save 1.8.9 stops at the mark, and leaves out a table
        // with a named counter.
        for worst in ["", "tcp dport 5 meta mark set 5", "counter name c"] {
            let host = host(backend);
            host.shell(
                "
iptables -A FORWARD -s 1.2.3.4 -j DROP
iptables -A FORWARD -p tcp --dport 80 -m physdev --physdev-in x -m conntrack --ctstate NEW -j ACCEPT
iptables -N late
iptables -A late -m policy --dir in --pol ipsec --proto esp -j ACCEPT
iptables -t nat -A POSTROUTING -m policy --dir out --pol none -j MASQUERADE
nft add set ip filter s '{ type ipv4_addr; flags interval; elements = { 9.9.9.0/24 } }'
nft add rule ip filter FORWARD ip saddr @s drop
nft add rule ip filter FORWARD tcp dport '{ 443, 8443 }' counter drop
nft add rule ip filter FORWARD udp dport 1-5 jump late
nft add chain ip filter own
nft add rule ip filter own ip daddr vmap '{ 1.1.1.1 : drop, 2.2.2.2 : jump late }'
nft insert rule ip filter FORWARD ip saddr 9.9.9.9 jump own
nft add chain ip filter mine '{ type filter hook forward priority 10; policy drop; }'
nft add rule ip filter mine ct state established accept
iptables -A FORWARD -p udp -j ACCEPT
",
            );
            host.shell(own);
            if !worst.is_empty() {
                host.shell(&format!(
                    "nft add counter ip filter c; nft insert rule ip filter FORWARD {worst}"
                ));
            }
            let twin = copy_as_it_is(&host);
            let [live, copy] = &twin.lists;
            let matches = |text: &str| text.matches("xt match physdev").count();
            let [live, copy] = [live, copy].map(|list| list.replace("\tcounter c {\n\t}\n", ""));
            if worst.starts_with("counter") {
                // FORWARD comes as nft's text, which has no words for this match; other chains are whole.
                let left: Vec<_> = twin.copied.left_out.iter().map(|left| &left.why).collect();
                assert_eq!(left, [&Reason::OnlyIptables], "{:?}", twin.copied.left_out);
                assert_eq!(matches(&copy), matches(&live) - 1, "{copy}");
                assert!(copy.contains("xt match policy"), "{copy}");
                continue;
            }
            let rules = |text: &str| text[text.find("table ").expect("nft lists it")..].to_owned();
            assert_eq!(twin.copied.left_out, []);
            assert_eq!(normal(&rules(&copy)), normal(&rules(&live)), "{live}");
        }
    }
}

lab_test!(tables_of_nft_are_copied);
fn tables_of_nft_are_copied(backend: Backend) {
    let host = host(backend);
    host.shell(
        "
nft -f - <<END
table inet filter {
	comment \"a table\"
	set s { type ipv4_addr; flags timeout; elements = { 9.9.9.9 timeout 1d } }
	map m { type inet_service : verdict; elements = { 22 : jump ssh, 80-90 : drop }; flags interval; }
	counter c { }
	chain ssh {
		ip saddr @s counter name c accept comment \"a {\"
	}
	chain forward {
		type filter hook forward priority 10; policy drop;
		ct state vmap { established : accept, invalid : drop }
		tcp dport vmap @m
		iifname \"eth*\" oif \"lo\" ip6 saddr fd00::/8 reject with icmpx admin-prohibited
		meta nftrace set 1
	}
}
table ip sleeping {
	flags dormant
	chain c {
		type filter hook forward priority 0; policy drop;
		drop
	}
}
table netdev early {
	chain in {
		type filter hook ingress device \"eth0\" priority 0
		tcp dport 6 drop
	}
}
table bridge b {
	chain f {
		type filter hook forward priority 0
		ether type arp accept
	}
}
table ip nat {
	chain pre {
		type nat hook prerouting priority -100
		tcp dport 7 dnat to 10.0.0.1:8
	}
}
END
",
    );
    let twin = copy_as_it_is(&host);
    assert_eq!(twin.copied.left_out, []);
    let lists = twin.lists;
    let cut = |text: String| -> String {
        let lines = text.lines().filter(|line| !line.contains("meta nftrace"));
        let lines = lines.map(|line| match line.split_once(" expires ") {
            Some((head, _)) => format!("{head} }}\n"),
            None => format!("{line}\n"),
        });
        lines.collect()
    };
    let [live, copy] = lists.map(cut);
    // nftrace leaves a rule that counts.
    let copy = copy.replace("\t\tcounter\n", "");
    let [live, copy] = [live, copy].map(|list| normal(&list));
    assert!(live == copy, "{live}\n\n==== twin:\n{copy}");
}

lab_test!(a_line_that_does_not_load_is_the_only_one_lost);
/// A line that the program refuses, and one that the kernel refuses.
fn a_line_that_does_not_load_is_the_only_one_lost(backend: Backend) {
    let host = host(backend);
    let change: fn(PacketFilter) -> PacketFilter = match backend {
        Backend::Nft => |filter| broken(filter, Iptables::Nft),
        Backend::Legacy => |filter| broken(filter, Iptables::Legacy),
    };
    let twin = copy(&host, change, || ());
    let left = &twin.copied.left_out;
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left[0].text.contains("nosuchmatch"), "{left:?}");
    assert!(left[1].text.contains("-j DNAT"), "{left:?}");
    // The conditions of the second load, and count.
    let watched = &twin.copied.watched;
    assert_eq!(watched.len(), 1, "{watched:?}");
    assert!(matches!(watched[0].why, Unknown::Refused(_)));
    let [_, copy] = &twin.lists;
    assert_eq!(copy.matches("-j ACCEPT").count(), 297, "{copy}");
    assert!(copy.contains(":FORWARD DROP"), "{copy}");
    let order = "--dport 199 -j ACCEPT
-A FORWARD -p tcp -m comment --comment nvactl-twin-0
-A FORWARD -p tcp -m tcp --dport 201";
    assert!(copy.contains(order), "{copy}");
}

fn broken(filter: PacketFilter, backend: Iptables) -> PacketFilter {
    let rules: String = (1..300)
        .map(|port| match port {
            100 => "-A FORWARD -p tcp -m nosuchmatch -j ACCEPT\n".to_owned(),
            200 => "-A FORWARD -p tcp -j DNAT --to-destination 10.0.0.1\n".to_owned(),
            _ => format!("-A FORWARD -p tcp -m tcp --dport {port} -j ACCEPT\n"),
        })
        .collect();
    let text = format!("*nat\nCOMMIT\n*filter\n:FORWARD DROP [0:0]\n{rules}COMMIT\n");
    filter.with_saved(backend, Family::V4, text.into_bytes())
}

lab_test!(an_nft_line_that_does_not_load_is_the_only_one_lost);
fn an_nft_line_that_does_not_load_is_the_only_one_lost(backend: Backend) {
    let host = host(backend);
    host.shell(
        "
ip link add eth9 type veth peer name peer9
nft -f - <<END
table inet t {
	chain forward {
		type filter hook forward priority 0; policy drop;
		tcp dport 1 accept
		iif \"eth9\" tcp dport 2 accept
		tcp dport 3 accept
	}
}
END
",
    );
    let twin = copy_as_it_is(&host);
    let left: Vec<_> = twin
        .copied
        .left_out
        .iter()
        .map(|left| (left.place.to_string(), left.text.as_str()))
        .collect();
    assert_eq!(
        left,
        [(
            "nft inet t forward".to_owned(),
            "iif \"eth9\" tcp dport 2 accept"
        )]
    );
    let [_, copy] = &twin.lists;
    assert!(
        copy.contains("\t\ttcp dport 1 accept\n\t\ttcp dport 3 accept\n"),
        "{copy}"
    );
}

lab_test!(a_packet_that_meets_a_stateful_rule_is_counted);
fn a_packet_that_meets_a_stateful_rule_is_counted(backend: Backend) {
    let host = host(backend);
    host.shell(
        "
iptables -A OUTPUT -p udp --dport 9 -m limit --limit 1/min -j ACCEPT
iptables -A OUTPUT -p udp --dport 10 -m recent --rcheck --name x -j DROP
iptables -A OUTPUT -p udp --dport 11 -m limit --limit 1/min -j LOG
nft add table inet t
nft add chain inet t out '{ type filter hook output priority 0; }'
nft add rule inet t out udp dport 9 limit rate over 1/minute drop
nft add rule inet t out udp dport 12 quota over 1 mbytes drop
nft add rule inet t out udp dport 13 limit rate 1/minute log
",
    );
    let twin = copy(
        &host,
        |filter| filter,
        || {
            send(9);
            send(11);
            send(13);
        },
    );
    assert_eq!(twin.copied.left_out, []);
    let watched = &twin.copied.watched;
    let of = |at: usize| watched[at].text.as_str();
    let counted: Vec<_> = twin.counted.iter().map(|at| of(*at)).collect();
    assert_eq!(watched.len(), 4, "{watched:?}");
    assert_eq!(
        counted,
        [
            "-A OUTPUT -p udp -m udp --dport 9 -m limit --limit 1/min -j ACCEPT",
            "udp dport 9 limit rate over 1/minute drop"
        ]
    );
}

lab_test!(a_stateful_nft_rule_in_an_iptables_table_is_counted);
/// A rule of nft's in a table of iptables' has its counter there. iptables-nft 1.8.9 prints the first one
/// for any port, and nothing of a chain with the second.
fn a_stateful_nft_rule_in_an_iptables_table_is_counted(backend: Backend) {
    if backend == Backend::Legacy {
        return;
    }
    for (native, left_out) in [
        ("limit rate 1/minute accept", 0),
        ("limit rate over 1/minute drop", 2),
    ] {
        let host = host(backend);
        host.shell(
            "
iptables -A OUTPUT -p udp --dport 9 -m recent --rcheck --name x -j DROP
iptables -A OUTPUT -p udp --dport 9 -m hashlimit --hashlimit-above 1/min --hashlimit-name h -j DROP
iptables -A OUTPUT -p udp --dport 12 -m string --algo bm --string x
",
        );
        host.shell(&format!(
            "nft insert rule ip filter OUTPUT udp dport '{{ 10, 11 }}' {native}"
        ));
        for (port, expected) in [(9, 2), (10, 1), (12, 0)] {
            let ports: fn() = match port {
                9 => || send(9),
                10 => || send(10),
                _ => || send(12),
            };
            let twin = copy(&host, |filter| filter, ports);
            let named = twin.copied.left_out.iter().filter(|left| {
                assert_eq!(left.why, Reason::OnlyIptables);
                left.text.contains("drop")
            });
            assert_eq!(named.count(), left_out);
            let texts: Vec<_> = twin
                .counted
                .iter()
                .map(|at| &twin.copied.watched[*at].text)
                .collect();
            assert_eq!(
                texts.len(),
                expected,
                "{native} {port} {texts:?} {:?}",
                twin.copied
            );
        }
    }
}

lab_test!(a_user_namespace_takes_any_number_of_rules);
/// iptables-nft takes some hundred rules at once there. The test runs itself in one.
fn a_user_namespace_takes_any_number_of_rules(backend: Backend) {
    const WITHIN: &str = "NVACTL_WITHIN_USER_NAMESPACE";
    if std::env::var_os(WITHIN).is_none() {
        let test = format!(
            "twin_rules::a_user_namespace_takes_any_number_of_rules::{}",
            backend.name()
        );
        let this = std::env::current_exe().expect("it runs");
        let output = Command::new("unshare")
            .args(["-Urnm"])
            .arg(this)
            .args(["--exact", &test, "--nocapture"])
            .env(WITHIN, "1")
            .output()
            .expect("unshare starts");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("1 passed"), "{output:?}");
        return;
    }
    let change: fn(PacketFilter) -> PacketFilter = match backend {
        Backend::Nft => |filter| many(filter, Iptables::Nft),
        Backend::Legacy => |filter| many(filter, Iptables::Legacy),
    };
    let (copied, text) = std::thread::spawn(move || {
        Netns::make().expect("root makes one");
        let filter = change(PacketFilter::read().expect("root reads it"));
        (filter.load().expect("root loads it"), here(LOOK))
    })
    .join()
    .expect("it loads");
    assert_eq!(copied.left_out, []);
    assert_eq!(text.matches("-j ACCEPT").count(), 3000);
}

fn many(filter: PacketFilter, backend: Iptables) -> PacketFilter {
    let rules: String = (1..=3000)
        .map(|port| format!("-A FORWARD -p tcp -m tcp --dport {port} -j ACCEPT\n"))
        .collect();
    let text = format!("*filter\n:FORWARD DROP [0:0]\n{rules}COMMIT\n");
    filter.with_saved(backend, Family::V4, text.into_bytes())
}

lab_test!(either more_forwards_start_no_more_programs_for_a_copy);
/// nft does not list nvactl's own chains either: at 10,000 forwards that took 1.7 s. Whole tables are listed only while
/// they are short, by fewer programs.
fn more_forwards_start_no_more_programs_for_a_copy(backend: Backend) {
    let host = host(backend);
    let [few, many, more] = [10, 1000, 10_000].map(|forwards| {
        let mut text = String::from("*filter\n:FORWARD ACCEPT\n:NVACTL-FORWARD - [0:0]\n-A FORWARD -j NVACTL-FORWARD\n");
        for port in 1..=forwards {
            text.push_str(&format!("-A NVACTL-FORWARD -d 10.0.0.1/32 -p tcp -m tcp --dport {port} -m conntrack --ctstate NEW -j ACCEPT\n"));
        }
        text.push_str("-A FORWARD -m limit --limit 1/sec -j ACCEPT\nCOMMIT\n*nat\n:NVACTL-PREROUTING - [0:0]\n-A PREROUTING -j NVACTL-PREROUTING\n");
        for port in 1..=forwards {
            text.push_str(&format!("-A NVACTL-PREROUTING -p tcp -m tcp --dport {port} -j DNAT --to-destination 10.0.0.1:{port}\n"));
            text.push_str(&format!("-A NVACTL-PREROUTING -p udp -m udp --dport {port} -j DNAT --to-destination 10.0.0.1:{port}\n"));
        }
        text.push_str("COMMIT\n");
        let loaded = host.feed("iptables-restore", &[], &text);
        assert!(loaded.status.success(), "{loaded:?}");
        if backend == Backend::Nft {
            host.run("nft add rule ip filter FORWARD tcp dport { 1, 2 } drop");
        }
        let (copied, counted) = host.enter(|| {
            count_programs();
            let filter = PacketFilter::read().expect("root reads it");
            Netns::make().expect("root makes one");
            let mut copied = filter.load().expect("root loads it");
            copied.counted().expect("the chains are there");
            (copied, counted_programs())
        });
        assert_eq!(copied.left_out, []);
        assert_eq!(copied.watched.len(), 1);
        counted
    });
    assert_eq!(many, more);
    assert!(few[0] <= many[0], "{few:?} {many:?}");
}

lab_test!(a_table_that_vanishes_while_it_is_read_is_read_again);
/// A program may load its table anew or remove it. nft lists the table, and cannot list its rules a moment later.
fn a_table_that_vanishes_while_it_is_read_is_read_again(backend: Backend) {
    let host = host(backend);
    host.run("iptables -A FORWARD -p tcp --dport 1 -j DROP");
    host.run("nft table inet q { chain c { ip saddr 10.0.0.1 drop; }; }");
    let fails = [
        ("ip filter", ""),
        ("inet q", ""),
        ("inet q", "real delete table inet q;"),
    ];
    let fails = match backend {
        Backend::Nft => &fails[..],
        Backend::Legacy => &fails[1..],
    };
    for &(table, meanwhile) in fails {
        let (left_out, copy) = host.enter(move || {
            fake_here(
                &["nft"],
                &format!(
                    "case \"$*\" in *' list table {table}')
                       if mkdir /run/failed; then {meanwhile} echo Error: No such file >&2; exit 1; fi
                     esac
                     real \"$@\""
                ),
            );
            let filter = PacketFilter::read().expect("the second try reads it");
            assert_ne!(here("ls -d /run/failed"), "", "the first try fails");
            Netns::make().expect("root makes one");
            (filter.load().expect("root loads it").left_out, here(LOOK))
        });
        assert_eq!(left_out, [], "{table} {meanwhile}");
        for (rule, is_there) in [
            ("ip saddr 10.0.0.1 drop", meanwhile.is_empty()),
            ("--dport 1 -j DROP", true),
        ] {
            assert_eq!(copy.contains(rule), is_there, "{table} {meanwhile}: {copy}");
        }
    }
}

lab_test!(a_table_that_cannot_be_read_is_the_only_one_left_out);
fn a_table_that_cannot_be_read_is_the_only_one_left_out(backend: Backend) {
    let host = host(backend);
    host.run("iptables -A FORWARD -p tcp --dport 1 -j DROP");
    for table in ["q", "r"] {
        host.run(&format!(
            "nft table inet {table} {{ chain {table} {{ ip saddr 10.0.0.1 drop; }}; }}"
        ));
    }
    let (left_out, copy) = host.enter(|| {
        fake_here(
            &["nft"],
            "case \"$*\" in *' list table inet q') echo Error: No such file >&2; exit 1; esac
             real \"$@\"",
        );
        let filter = PacketFilter::read().expect("the other tables are read");
        Netns::make().expect("root makes one");
        (filter.load().expect("root loads it").left_out, here(LOOK))
    });
    let left_out: Vec<String> = left_out
        .iter()
        .map(|one| format!("{}: {}: {}", one.place, one.text, one.why))
        .collect();
    assert_eq!(
        left_out,
        ["nft inet q: table inet q: it cannot be read: Error: No such file"]
    );
    for (rule, is_there) in [
        ("table inet q", false),
        ("table inet r", true),
        ("--dport 1 -j DROP", true),
    ] {
        assert_eq!(copy.contains(rule), is_there, "{rule}: {copy}");
    }
}

lab_test!(a_queue_depends_on_its_listener);
/// Without a listener the kernel drops the packet, in the twin as on the host; with one nobody can tell.
fn a_queue_depends_on_its_listener(backend: Backend) {
    let host = host(backend);
    host.run("iptables -A OUTPUT -p udp --dport 9 -j NFQUEUE --queue-num 3");
    host.run("iptables -A OUTPUT -p udp --dport 9 -j NFQUEUE --queue-balance 4:5");
    let twin = copy(&host, |filter| filter, || send(9));
    assert_same(&twin);
    assert_eq!(twin.copied.watched, []);

    let _listener = host.enter(|| listen(5));
    let twin = copy(&host, |filter| filter, || send(9));
    let watched = &twin.copied.watched;
    assert_eq!(watched.len(), 1, "{watched:?}");
    assert_eq!(watched[0].why, Unknown::Queue);
    // The first rule drops it before.
    assert_eq!(twin.counted, [0; 0]);
    host.run("iptables -D OUTPUT 1");
    let twin = copy(&host, |filter| filter, || send(9));
    assert_eq!(twin.counted, [0]);
}

/// Listens on an nfqueue of the calling thread's namespace (`linux/netfilter/nfnetlink_queue.h`).
fn listen(queue: u16) -> OwnedFd {
    const NETFILTER: NonZeroU32 = NonZeroU32::new(12).expect("it is not 0");
    let socket = rustix::net::socket(
        AddressFamily::NETLINK,
        SocketType::RAW,
        Some(Protocol::from_raw(NETFILTER)),
    );
    let socket = socket.expect("root has one");
    // NFNL_SUBSYS_QUEUE, NFQNL_MSG_CONFIG; NLM_F_REQUEST | NLM_F_ACK.
    let mut message = [
        &28_u32.to_ne_bytes()[..],
        &0x0302_u16.to_ne_bytes(),
        &5_u16.to_ne_bytes(),
        &[0; 8],
    ]
    .concat();
    message.extend([[0, 0], queue.to_be_bytes()].concat());
    // NFQA_CFG_CMD with NFQNL_CFG_CMD_BIND.
    message.extend(
        [
            &8_u16.to_ne_bytes()[..],
            &1_u16.to_ne_bytes(),
            &[1, 0, 0, 2],
        ]
        .concat(),
    );
    rustix::net::sendto(
        &socket,
        &message,
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )
    .expect("the kernel takes it");
    socket
}

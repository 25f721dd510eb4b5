//! Faults on the firewall, each measured on real packets and told by `nvactl doctor`.
//!
//! A row claims which forwards die and what the doctor says first. The claim about packets is measured
//! before the doctor is asked, so no row rests on an opinion about a rule.

use std::time::Duration;

use serde_json::Value;

use crate::lab::{Backend, FIREWALL, FIREWALL_V6, Lab};
use crate::long;
use crate::measure::{self, Service};

const SPEC: &str = r#"
firewall: {interface: {ingress: eth0, egress: eth1}, snat: {v4: 10.4.0.4, v6: "fd00:4::4"}}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
  - {name: dns, listen: 53, protocol: udp, target: {pod: 10.224.0.118:5353}}
  - {name: web6, listen: 49182, target: {pod: "[fd00:224::118]:80"}}
  - {name: dns6, listen: 53, protocol: udp, target: {pod: "[fd00:224::118]:5353"}}
"#;

const SERVICES: [Service<'_>; 4] = [
    service("web", true, FIREWALL, 49182),
    service("dns", false, FIREWALL, 53),
    service("web6", true, FIREWALL_V6, 49182),
    service("dns6", false, FIREWALL_V6, 53),
];

const fn service<'s>(name: &'s str, is_tcp: bool, address: &'s str, port: u16) -> Service<'s> {
    Service {
        name,
        is_tcp,
        address,
        port,
    }
}

/// The checks that say something about packets as they pass now.
pub const PACKET_CODES: [&str; 17] = [
    "interface",
    "interface-forwarding",
    "ip-forward",
    "rp-filter",
    "jump",
    "dnat-rule",
    "foreign-rule",
    "other-backend",
    "native-nft",
    "forward-rule",
    "snat-rule",
    "own-chains",
    "route",
    "mtu",
    "packets",
    "neighbour",
    "snat-address",
];

/// An answer within the lab takes microseconds; a claim that does not hold is measured again, with more.
const PATIENCE: Duration = Duration::from_millis(250);
const LONGER: Duration = Duration::from_secs(2);
/// Rows that share a lab. Each leaves it as it was.
const PER_LAB: usize = 12;

const WEB: &[&str] = &["web"];
const DNS: &[&str] = &["dns"];
const WEB_6: &[&str] = &["web6"];
const TCP: &[&str] = &["web", "web6"];
const V4: &[&str] = &["web", "dns"];
const V6: &[&str] = &["web6", "dns6"];

/// A fault.
struct Row<'r> {
    name: &'r str,
    /// A script for the firewall. `OTHER` is the backend that the plain `iptables` is not of.
    make: &'r str,
    /// A script that takes back whatever it did beside rules and ipsets.
    undo: &'r str,
    /// The forwards that are dead for the lab's client.
    dead: &'r [&'r str],
    /// The first finding about the first of them, or, where none is dead, about `web`. There is one about
    /// each of them.
    says: Option<Says<'r>>,
    /// Two words of the spec, and what stands there instead.
    spec: (&'r str, &'r str),
    /// The backend without which the fault cannot be.
    only: Option<Backend>,
}

struct Says<'r> {
    status: &'r str,
    code: &'r str,
    words: &'r str,
}

/// A fault that changes rules alone.
const fn dead<'r>(
    name: &'r str,
    make: &'r str,
    dead: &'r [&'r str],
    code: &'r str,
    words: &'r str,
) -> Row<'r> {
    let says = Says {
        status: "fail",
        code,
        words,
    };
    Row {
        says: Some(says),
        dead,
        ..harmless(name, make)
    }
}

const fn harmless<'r>(name: &'r str, make: &'r str) -> Row<'r> {
    Row {
        name,
        make,
        undo: "",
        dead: &[],
        says: None,
        spec: ("", ""),
        only: None,
    }
}

impl<'r> Row<'r> {
    const fn undo(self, undo: &'r str) -> Self {
        Self { undo, ..self }
    }

    const fn spec(self, from: &'r str, to: &'r str) -> Self {
        Self {
            spec: (from, to),
            ..self
        }
    }

    const fn only(self, backend: Backend) -> Self {
        Self {
            only: Some(backend),
            ..self
        }
    }

    /// Returns the status and code that the doctor gives.
    fn kind(&self) -> Option<(&'r str, &'r str)> {
        self.says.as_ref().map(|says| (says.status, says.code))
    }

    /// Instead of `fail`: the doctor cannot know where packets meet what a rule has counted, and warns where
    /// a rule names the networks that it keeps out.
    const fn status(self, status: &'r str) -> Self {
        match self.says {
            Some(says) => Self {
                says: Some(Says { status, ..says }),
                ..self
            },
            None => self,
        }
    }
}

/// Another forward, for which no row measures.
const BAIT: &str = "forwards:\n  - {name: bait, listen: 2222, target: {pod: 10.224.0.118:80}}";

/// A chain of nft with rules.
macro_rules! chain {
    ($family:literal, $hook:literal, $rules:literal) => {
        concat!(
            "nft 'table ",
            $family,
            " q { chain c { type ",
            $hook,
            "; ",
            $rules,
            "; }; }'"
        )
    };
}

const OF_IPTABLES: &[Row<'_>] = &[
    harmless("nothing", "true"),
    dead(
        "a DROP",
        "iptables -I FORWARD -p tcp --dport 80 -j DROP",
        WEB,
        "foreign-rule",
        "`-A FORWARD -p tcp -m tcp --dport 80 -j DROP` in filter drops the packets",
    ),
    dead(
        "a REJECT",
        "ip6tables -I FORWARD -p tcp --dport 80 -j REJECT",
        WEB_6,
        "foreign-rule",
        "rejects the packets",
    ),
    dead(
        "a DROP beside a chain that nft takes for a keyword",
        "iptables -N tcp
         iptables -A INPUT -j tcp
         iptables -I FORWARD -p tcp --dport 80 -j DROP",
        WEB,
        "foreign-rule",
        "`-A FORWARD -p tcp -m tcp --dport 80 -j DROP` in filter drops the packets",
    ),
    dead(
        "a DROP in a chain that nft takes for a keyword",
        "iptables -N log
         iptables -N 1ban
         iptables -N \"a\\$(id)';b\"; iptables -I FORWARD -j log; \
           iptables -A log -p tcp --dport 80 -j DROP",
        WEB,
        "foreign-rule",
        "`-A log -p tcp -m tcp --dport 80 -j DROP` in filter drops the packets",
    ),
    dead(
        "a DROP of the other backend",
        "iptables-OTHER -A FORWARD -p tcp --dport 80 -j DROP",
        WEB,
        "other-backend",
        "drops the packets",
    ),
    dead(
        "a policy of the other backend",
        "iptables-OTHER -P FORWARD DROP",
        V4,
        "other-backend",
        "policy of FORWARD in filter drops the packets",
    ),
    harmless(
        "an ACCEPT before the jump",
        "iptables -I FORWARD -p tcp --dport 80 -j ACCEPT",
    ),
    dead(
        "a goto to a chain that says nothing",
        "iptables -N E; iptables -I FORWARD -p tcp --dport 80 -g E",
        WEB,
        "forward-rule",
        "policy of FORWARD in filter drops the packets",
    ),
    dead(
        "Docker's chain for the user",
        "iptables -N DOCKER-USER
         iptables -I FORWARD -j DOCKER-USER
         iptables -A DOCKER-USER -i eth0 -j DROP",
        V4,
        "foreign-rule",
        "rule `-A DOCKER-USER -i eth0 -j DROP` in filter",
    ),
    dead(
        "an ACCEPT for some, then a DROP",
        "iptables -I FORWARD -p tcp --dport 80 -j DROP
         iptables -I FORWARD -s 192.0.2.0/24 -p tcp --dport 80 -j ACCEPT",
        WEB,
        "foreign-rule",
        "--dport 80 -j DROP",
    ),
    dead(
        "a wildcard of interfaces",
        "iptables -I FORWARD -i eth+ -o eth+ -p tcp -j DROP",
        WEB,
        "foreign-rule",
        "-i eth+ -o eth+",
    ),
    dead(
        "replies dropped by a range of ports",
        "iptables -t mangle -A PREROUTING -i eth1 -p tcp --sport 79:90 -j DROP",
        WEB,
        "foreign-rule",
        "drops the replies",
    ),
    dead(
        "replies dropped by a list of ports",
        "ip6tables -t raw -A PREROUTING -i eth1 -p tcp -m multiport --sports 70:79,80 -j DROP",
        WEB_6,
        "foreign-rule",
        "drops the replies",
    ),
    dead(
        "replies dropped by their TTL",
        "iptables -t mangle -A FORWARD -p tcp --sport 80 -m ttl --ttl-lt 64 -j DROP",
        WEB,
        "foreign-rule",
        "drops the replies",
    ),
    dead(
        "replies dropped by a policy of mangle",
        "iptables -t mangle -P FORWARD DROP
         iptables -t mangle -A FORWARD -i eth0 -j ACCEPT",
        V4,
        "foreign-rule",
        "policy of FORWARD in mangle drops the replies",
    ),
    harmless(
        "a rule for connections that targets open",
        "iptables -I FORWARD -i eth1 -p tcp --syn -j DROP
         ip6tables -I FORWARD -i eth1 -p tcp --syn -j DROP",
    ),
    dead(
        "NOTRACK",
        "iptables -t raw -A PREROUTING -p tcp --dport 49182 -j NOTRACK",
        WEB,
        "foreign-rule",
        "makes the packets skip NAT",
    ),
    dead(
        "a zone of conntrack",
        "iptables -t raw -A PREROUTING -i eth0 -j CT --zone 5",
        V4,
        "dnat-rule",
        "are not translated back",
    ),
    dead(
        "a TTL of 1",
        "iptables -t mangle -A PREROUTING -p tcp --dport 49182 -j TTL --ttl-set 1",
        WEB,
        "route",
        "the end of its time to live",
    ),
    dead(
        "a DNAT to elsewhere",
        "iptables -t nat -I PREROUTING -p tcp --dport 49182 -j DNAT --to 10.224.0.98:80",
        WEB,
        "foreign-rule",
        "sends the packets to 10.224.0.98:80 instead of the target",
    ),
    dead(
        "a RETURN before the jump",
        "iptables -t nat -I PREROUTING -p udp --dport 53 -j RETURN",
        DNS,
        "foreign-rule",
        "makes the packets skip NAT",
    ),
    dead(
        "a REDIRECT",
        "ip6tables -t nat -I PREROUTING -p tcp --dport 49182 -j REDIRECT --to-ports 9999",
        WEB_6,
        "foreign-rule",
        "redirects the packets to port 9999 of this machine",
    ),
    harmless(
        "a MASQUERADE with options in front",
        "iptables -t nat -I POSTROUTING -o eth1 -j MASQUERADE --random
         ip6tables -t nat -I POSTROUTING -o eth1 -j MASQUERADE",
    ),
    harmless(
        "a MASQUERADE of the other backend",
        "iptables-OTHER -t nat -I POSTROUTING -o eth1 -j MASQUERADE",
    ),
    harmless(
        "a SNAT with options to the spec's source",
        "iptables -t nat -I POSTROUTING -o eth1 -j SNAT --to-source 10.4.0.4 --persistent",
    ),
    dead(
        "a SNAT to an address of nobody",
        "iptables -t nat -I POSTROUTING -o eth1 -j SNAT --to-source 10.4.0.77",
        V4,
        "foreign-rule",
        "gives the packets the source 10.4.0.77",
    ),
    harmless("OUTPUT closed", "iptables -P OUTPUT DROP"),
    harmless(
        "OUTPUT closed by the other backend",
        "iptables-OTHER -P OUTPUT DROP",
    ),
    harmless(
        "INPUT closed",
        "iptables -P INPUT DROP; iptables -A INPUT -p tcp -j REJECT",
    ),
    harmless(
        "INPUT closed by the other backend",
        "iptables-OTHER -P INPUT DROP",
    ),
    dead(
        "two causes",
        "iptables -t mangle -A FORWARD -p tcp --dport 80 -j DROP
         iptables-OTHER -A FORWARD -p tcp --dport 80 -j DROP",
        WEB,
        "foreign-rule",
        "-j DROP` in mangle",
    ),
    dead(
        "a time of day that is always",
        "iptables -t mangle -A FORWARD -p tcp --dport 80 -m time --timestart 00:00 --timestop \
           23:59:59 -j DROP",
        WEB,
        "foreign-rule",
        "drops the packets",
    ),
    dead(
        "an ipset of everybody",
        "ipset create everybody hash:net
         ipset add everybody 0.0.0.0/1
         ipset add everybody 128.0.0.0/1
         iptables -I FORWARD -p tcp -m set --match-set everybody src -j DROP",
        WEB,
        "foreign-rule",
        "--match-set everybody src",
    ),
    dead(
        "an ipset with the client",
        "ipset create banned hash:net
         ipset add banned 192.0.2.0/24
         ipset add banned 198.51.100.0/24
         iptables -I FORWARD -m set --match-set banned src -j DROP",
        V4,
        "foreign-rule",
        "--match-set banned src",
    )
    .status("warn"),
    harmless(
        "an ipset of somebody else",
        "ipset create others hash:net
         ipset add others 192.0.2.0/24
         iptables -I FORWARD -m set --match-set others src -j DROP",
    ),
    dead(
        "an ipset with a space in its name",
        "ipset create 'bad ips' hash:net
         ipset add 'bad ips' 10.224.0.118
         iptables -I FORWARD -m set --match-set 'bad ips' dst -j DROP",
        V4,
        "foreign-rule",
        "--match-set bad ips dst",
    ),
    harmless(
        "a trap on another forward",
        "ipset create trap hash:ip
         iptables -t raw -A PREROUTING -i eth0 -p tcp --dport 49182 -m set --match-set trap \
           src -j DROP
         iptables -t raw -A PREROUTING -i eth0 -p tcp --dport 2222 -j SET --add-set trap src",
    )
    .spec("forwards:", BAIT),
    dead(
        "replies dropped by the client's network",
        "iptables -t mangle -A FORWARD -d 198.51.100.0/24 -j DROP",
        V4,
        "foreign-rule",
        "-d 198.51.100.0/24 -j DROP",
    )
    .status("warn"),
    dead(
        "a drop by the network that opened a connection",
        "iptables -t mangle -A FORWARD -m conntrack --ctorigsrc 198.51.100.0/24 -j DROP",
        V4,
        "foreign-rule",
        "--ctorigsrc 198.51.100.0/24 -j DROP",
    )
    .status("warn"),
    dead(
        "the second set of a rule",
        "ipset create all hash:net
         ipset add all 0.0.0.0/1
         ipset add all 128.0.0.0/1
         ipset create some hash:net
         ipset add some 198.51.100.0/24
         iptables -t mangle -A FORWARD -m set --match-set all dst -m set --match-set some src \
           -j DROP",
        V4,
        "foreign-rule",
        "--match-set some src -j DROP",
    )
    .status("warn"),
    dead(
        "a ban beside limits of a forward's own",
        "iptables -t mangle -A FORWARD -s 198.51.100.0/24 -p tcp --dport 80 -j DROP",
        WEB,
        "foreign-rule",
        "-s 198.51.100.0/24 -p tcp -m tcp --dport 80 -j DROP",
    )
    .status("warn")
    .spec("name: web,", "name: web, limits: {new_per_second: 50},"),
    harmless(
        "a string that nobody sends",
        "iptables -t mangle -A FORWARD -m string --algo bm --string attack -j DROP",
    ),
    dead(
        "connections of many bytes",
        "echo 1 > /proc/sys/net/netfilter/nf_conntrack_acct
         iptables -t mangle -A FORWARD -m connbytes --connbytes 5000: --connbytes-dir both \
           --connbytes-mode bytes -j DROP",
        WEB,
        "foreign-rule",
        "drops the replies",
    )
    .undo("echo 0 > /proc/sys/net/netfilter/nf_conntrack_acct"),
    dead(
        "long packets",
        "iptables -t mangle -A FORWARD -i eth1 -m length --length 1000:65535 -j DROP",
        WEB,
        "foreign-rule",
        "drops the replies",
    ),
    dead(
        "a queue that nobody listens to",
        "iptables -I FORWARD -p tcp --dport 80 -j NFQUEUE --queue-num 3",
        WEB,
        "foreign-rule",
        "-j NFQUEUE --queue-num 3",
    ),
    dead(
        "a drop by chance",
        "iptables -I FORWARD -p tcp --dport 80 -m statistic --mode random --probability \
           0.999999 -j DROP",
        WEB,
        "packets",
        "it takes some packets by chance or in turn",
    )
    .status("unknown"),
    dead(
        "a chain that is reached by chance",
        "iptables -N LOTTERY
         iptables -A LOTTERY -j DROP
         iptables -I FORWARD -p tcp --dport 80 -m statistic --mode random --probability \
           0.999999 -j LOTTERY",
        WEB,
        "foreign-rule",
        "-A LOTTERY -j DROP",
    ),
    dead(
        "a comment that speaks of nvactl's chain",
        "iptables -I FORWARD -p tcp --dport 80 -m comment --comment 'before -j \
           NVACTL-FORWARD' -j DROP",
        WEB,
        "foreign-rule",
        "drops the packets",
    ),
    dead(
        "a policy of mangle that no packet meets, then a DROP",
        "iptables -t mangle -P FORWARD DROP
         iptables -t mangle -A FORWARD -j ACCEPT
         iptables -I FORWARD -p tcp --dport 80 -j DROP",
        WEB,
        "foreign-rule",
        "`-A FORWARD -p tcp -m tcp --dport 80 -j DROP` in filter drops the packets",
    ),
    dead(
        "a limit that is used up",
        "iptables -I FORWARD -p tcp --dport 80 -j DROP
         iptables -I FORWARD -p tcp --dport 80 -m limit --limit 1/hour --limit-burst 1 -j \
           ACCEPT",
        WEB,
        "packets",
        "has counted so far",
    )
    .status("unknown"),
    Row {
        says: Some(Says {
            status: "fail",
            code: "foreign-rule",
            words: "come through, although `allow_from` does not list them",
        }),
        ..harmless(
            "an ACCEPT that lets everybody in",
            "iptables -I FORWARD -p tcp --dport 80 -j ACCEPT",
        )
    }
    .spec("name: web,", "name: web, allow_from: [198.51.100.0/24],"),
    Row {
        says: Some(Says {
            status: "fail",
            code: "foreign-rule",
            words: "`-A FORWARD -p tcp -m tcp --dport 80 -j ACCEPT`",
        }),
        ..harmless(
            "an accept of nft that decides nothing before an ACCEPT that does",
            "nft 'table inet q { chain c { type filter hook forward priority -10; \
           tcp dport 80 accept; }; }'
         iptables -I FORWARD -p tcp --dport 80 -j ACCEPT",
        )
    }
    .spec("name: web,", "name: web, allow_from: [198.51.100.0/24],"),
];

const OF_NFT: &[Row<'_>] = &[
    dead(
        "an anonymous verdict map",
        chain!(
            "inet",
            "filter hook forward priority 0",
            "tcp dport vmap { 80 : drop, 81 : accept }"
        ),
        TCP,
        "native-nft",
        "vmap",
    ),
    dead(
        "a named verdict map",
        "nft 'table inet q { map m { type inet_service : verdict; elements = { 80 : jump x }; \
           }; chain x { counter drop; }; chain c { type filter hook forward priority 0; \
           tcp dport vmap @m; }; }'",
        TCP,
        "native-nft",
        "inet q x",
    ),
    dead(
        "a concatenated verdict map",
        "nft 'table ip q { map m { type ipv4_addr . inet_service : verdict; elements = { \
           10.224.0.118 . 80 : drop }; }; chain c { type filter hook forward priority 0; \
           ip daddr . tcp dport vmap @m; }; }'",
        WEB,
        "native-nft",
        "@m",
    ),
    dead(
        "a condition on the family",
        chain!(
            "inet",
            "filter hook forward priority 0",
            "meta nfproto ipv6 drop"
        ),
        V6,
        "native-nft",
        "nfproto ipv6",
    ),
    dead(
        "a condition on IPv6 addresses",
        chain!(
            "inet",
            "filter hook forward priority 0",
            "ip6 daddr fd00:224::/64 udp dport 5353 drop"
        ),
        &["dns6"],
        "native-nft",
        "fd00:224::/64",
    ),
    dead(
        "a policy without a rule for replies",
        chain!(
            "inet",
            "filter hook forward priority 0; policy drop",
            "ct state new accept"
        ),
        &["web", "dns", "web6", "dns6"],
        "native-nft",
        "the policy of the nft chain inet q c drops the",
    ),
    dead(
        "two drops in one chain",
        chain!(
            "inet",
            "filter hook forward priority 0",
            "tcp dport 80 drop; udp dport 5353 drop"
        ),
        &["web", "dns", "web6", "dns6"],
        "native-nft",
        "tcp dport 80 drop",
    ),
    dead(
        "a dnat of nft",
        chain!(
            "ip",
            "nat hook prerouting priority -110",
            "tcp dport 49182 dnat to 10.88.0.20:3001"
        ),
        WEB,
        "native-nft",
        "sends the packets to 10.88.0.20:3001 instead of the target",
    ),
    dead(
        "a redirect of nft",
        chain!(
            "ip6",
            "nat hook prerouting priority -110",
            "tcp dport 49182 redirect to :9999"
        ),
        WEB_6,
        "native-nft",
        "redirects the packets to port 9999",
    ),
    dead(
        "a notrack of nft",
        chain!(
            "inet",
            "filter hook prerouting priority raw",
            "tcp dport 49182 notrack"
        ),
        TCP,
        "native-nft",
        "makes the packets skip NAT",
    ),
    dead(
        "a snat of nft to nobody's address",
        chain!(
            "ip",
            "nat hook postrouting priority 90",
            "oifname \"eth1\" snat to 10.4.0.77"
        ),
        V4,
        "native-nft",
        "gives the packets the source 10.4.0.77",
    ),
    harmless(
        "a masquerade of nft",
        chain!(
            "ip",
            "nat hook postrouting priority 90",
            "oifname \"eth1\" masquerade"
        ),
    ),
    dead(
        "a chain at the ingress of a device",
        "nft 'table netdev q { chain c { type filter hook ingress device \"eth0\" priority 0; \
           tcp dport 49182 drop; }; }'",
        TCP,
        "native-nft",
        "netdev q c",
    ),
    dead(
        "a chain at the egress of a device",
        "nft 'table netdev q { chain c { type filter hook egress device \"eth1\" priority 0; \
           udp dport 5353 drop; }; }'",
        &["dns", "dns6"],
        "native-nft",
        "netdev q c",
    ),
    harmless(
        "a trap of nft on another forward",
        "nft 'table ip q { set trap { type ipv4_addr; flags dynamic; timeout 1m; }; chain c { \
           type filter hook prerouting priority -300; tcp dport 49182 ip saddr @trap drop; \
           iifname \"eth0\" tcp dport 2222 update @trap { ip saddr }; }; }'",
    )
    .spec("forwards:", BAIT),
    dead(
        "a verdict map of networks",
        chain!(
            "ip",
            "filter hook forward priority 0",
            "ip saddr vmap { 198.51.100.0/24 : drop, 9.9.9.9 : drop }"
        ),
        V4,
        "native-nft",
        "198.51.100.0/24 : drop",
    )
    .status("warn"),
    dead(
        "replies dropped by nft by the client's network",
        chain!(
            "ip",
            "filter hook forward priority 0",
            "ip daddr 198.51.100.0/24 drop"
        ),
        V4,
        "native-nft",
        "ip daddr 198.51.100.0/24 drop",
    )
    .status("warn"),
    dead(
        "a set of nft in a table of iptables",
        "iptables -t mangle -A FORWARD -p tcp --dport 9 -j ACCEPT
         nft 'add set ip mangle bad { type ipv4_addr; flags interval; elements = { \
           198.51.100.0/24 }; }'
         nft add rule ip mangle FORWARD ip saddr @bad drop",
        V4,
        "native-nft",
        "ip saddr @bad drop",
    )
    .only(Backend::Nft)
    .status("warn"),
    harmless(
        "a dormant table",
        "nft 'table inet q { flags dormant; chain c { type filter hook forward priority 0; \
           policy drop; }; }'",
    ),
    harmless(
        "an accept of nft",
        chain!(
            "inet",
            "filter hook forward priority 0",
            "tcp dport 80 accept"
        ),
    ),
    dead(
        "a set of networks",
        "nft 'table inet q { set s { type ipv4_addr; flags interval; elements = { \
           81.0.0.0/8, 198.51.0.0/16 }; }; chain c { type filter hook prerouting priority -300; \
           ip saddr @s tcp dport 49182 drop; }; }'",
        WEB,
        "native-nft",
        "@s",
    ),
    dead(
        "a reject of nft in the mangle hook",
        chain!(
            "inet",
            "filter hook forward priority mangle",
            "udp dport 5353 ct original proto-dst 53 reject"
        ),
        &["dns", "dns6"],
        "native-nft",
        "rejects the packets",
    ),
    dead(
        "a flag of TCP",
        chain!(
            "inet",
            "filter hook forward priority 5",
            "tcp flags syn / syn,ack drop"
        ),
        TCP,
        "native-nft",
        "tcp flags",
    ),
    dead(
        "networks and an address in a table of iptables",
        "iptables -t mangle -A FORWARD -p tcp --dport 9 -j ACCEPT
         nft add rule ip mangle FORWARD ip saddr { 198.51.100.0/24, 9.9.9.9 } drop",
        V4,
        "native-nft",
        "198.51.100.0/24 } drop",
    )
    .only(Backend::Nft)
    .status("warn"),
    dead(
        "a rule of nft in a table of iptables",
        "nft insert rule ip filter FORWARD tcp dport 80 drop",
        WEB,
        "foreign-rule",
        "--dport 80 -j DROP",
    )
    .only(Backend::Nft),
    dead(
        "a limit of nft that is used up",
        chain!(
            "inet",
            "filter hook forward priority 0",
            "tcp dport 80 limit rate over 1/hour burst 1 packets drop"
        ),
        TCP,
        "packets",
        "has counted so far",
    )
    .status("unknown"),
];

const OF_WAYS: &[Row<'_>] = &[
    dead(
        "a mark and a rule for it",
        "iptables -t mangle -A PREROUTING -p tcp --dport 49182 -j MARK --set-mark 5
         ip rule add fwmark 5 lookup 55
         ip route add unreachable default table 55",
        WEB,
        "route",
        "a packet meets an unreachable route or rule",
    )
    .undo("ip route flush table 55; ip rule del fwmark 5"),
    dead(
        "a mark on replies and a rule for it",
        "iptables -t mangle -A PREROUTING -i eth1 -p tcp --sport 80 -j MARK --set-mark 6
         ip rule add fwmark 6 lookup 56
         ip route add blackhole default table 56",
        WEB,
        "route",
        "a reply meets a blackhole route or rule",
    )
    .undo("ip route flush table 56; ip rule del fwmark 6"),
    dead(
        "a dead gateway of clients",
        "ip route replace default via 10.3.0.99",
        V4,
        "neighbour",
        "10.3.0.99",
    )
    .undo("ip route replace default via 10.3.0.1"),
    dead(
        "a dead gateway of targets",
        "ip route replace 10.224.0.0/16 via 10.4.0.99",
        V4,
        "neighbour",
        "10.4.0.99",
    )
    .undo("ip route replace 10.224.0.0/16 via 10.4.0.1"),
    dead(
        "a rule for some clients",
        "ip rule add from 198.51.100.0/24 to 10.224.0.0/16 prohibit",
        V4,
        "route",
        "clients of 198.51.100.0/24",
    )
    .status("warn")
    .undo("ip rule del from 198.51.100.0/24 to 10.224.0.0/16 prohibit"),
    dead(
        "a rule for clients of whom nobody is connected",
        "ip rule add from 192.0.2.0/24 ipproto tcp dport 80 prohibit",
        &[],
        "route",
        "clients of 192.0.2.0/24",
    )
    .status("warn")
    .undo("ip rule del from 192.0.2.0/24 ipproto tcp dport 80 prohibit"),
    dead(
        "a rule for replies to some clients",
        "ip rule add to 198.51.100.0/24 prohibit",
        V4,
        "route",
        "",
    )
    .undo("ip rule del to 198.51.100.0/24 prohibit"),
    dead(
        "a blackhole for some clients",
        "ip route add blackhole 198.51.100.0/24",
        V4,
        "route",
        "",
    )
    .undo("ip route del blackhole 198.51.100.0/24"),
    harmless(
        "the rule for local addresses at another place",
        "ip rule add priority 100 lookup local; ip rule del priority 0",
    )
    .undo("ip rule add priority 0 lookup local; ip rule del priority 100"),
    dead(
        "a rule before the one for local addresses",
        "ip rule add priority 100 lookup local
         ip rule add priority 50 to 10.3.0.4 prohibit
         ip rule del priority 0",
        V4,
        "packets",
        "does not arrive",
    )
    .undo(
        "ip rule add priority 0 lookup local
         ip rule del priority 50
         ip rule del priority 100",
    ),
    dead(
        "a rule for an interface",
        "ip rule add iif eth0 to 10.224.0.0/16 table 99
         ip route add unreachable default table 99",
        V4,
        "route",
        "",
    )
    .undo("ip route flush table 99; ip rule del iif eth0 to 10.224.0.0/16 table 99"),
    dead(
        "a blackhole for the target",
        "ip route add blackhole 10.224.0.118",
        V4,
        "route",
        "",
    )
    .undo("ip route del blackhole 10.224.0.118"),
    dead(
        "an unreachable target of IPv6",
        "ip -6 route add unreachable fd00:224::118",
        V6,
        "route",
        "",
    )
    .undo("ip -6 route del unreachable fd00:224::118"),
    harmless(
        "strict rp_filter where ways are the same",
        "for i in all eth0 eth1; do echo 1 > /proc/sys/net/ipv4/conf/$i/rp_filter; done",
    )
    .undo("for i in all eth0 eth1; do echo 0 > /proc/sys/net/ipv4/conf/$i/rp_filter; done"),
    harmless(
        "strict rp_filter on two ingresses",
        "for i in eth0 eth1; do echo 1 > /proc/sys/net/ipv4/conf/$i/rp_filter; done",
    )
    .undo("for i in eth0 eth1; do echo 0 > /proc/sys/net/ipv4/conf/$i/rp_filter; done")
    .spec("ingress: eth0", "ingress: [eth0, eth1]"),
    harmless(
        "strict rp_filter with a hairpin",
        "for i in eth0 eth1; do echo 1 > /proc/sys/net/ipv4/conf/$i/rp_filter; done",
    )
    .undo("for i in eth0 eth1; do echo 0 > /proc/sys/net/ipv4/conf/$i/rp_filter; done")
    .spec("name: web,", "name: web, hairpin: true,"),
    dead(
        "strict rp_filter where ways differ",
        "ip route replace default via 10.4.0.1
         echo 1 > /proc/sys/net/ipv4/conf/eth0/rp_filter",
        V4,
        "rp-filter",
        "",
    )
    .undo(
        "ip route replace default via 10.3.0.1
         echo 0 > /proc/sys/net/ipv4/conf/eth0/rp_filter",
    ),
    harmless(
        "several addresses on the egress",
        "ip address add 10.4.0.5/24 dev eth1; ip address add 10.4.1.4/24 dev eth1",
    )
    .undo("ip address del 10.4.1.4/24 dev eth1; ip address del 10.4.0.5/24 dev eth1"),
    harmless(
        "several addresses on the ingress",
        "ip address add 10.3.0.5/24 dev eth0",
    )
    .undo("ip address del 10.3.0.5/24 dev eth0"),
    harmless("a source on another interface", "true").spec("v4: 10.4.0.4", "v4: 10.3.0.4"),
    dead(
        "a source on lo that nobody is told of",
        "ip address add 10.4.0.9/32 dev lo
         echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore
         echo 2 > /proc/sys/net/ipv4/conf/all/arp_announce",
        V4,
        "packets",
        "",
    )
    .undo(
        "ip address del 10.4.0.9/32 dev lo
         echo 0 > /proc/sys/net/ipv4/conf/all/arp_ignore
         echo 0 > /proc/sys/net/ipv4/conf/all/arp_announce",
    )
    .spec("v4: 10.4.0.4", "v4: 10.4.0.9"),
    harmless("a source on lo", "ip address add 10.4.0.9/32 dev lo")
        .undo("ip address del 10.4.0.9/32 dev lo")
        .spec("v4: 10.4.0.4", "v4: 10.4.0.9"),
    harmless("a narrow interface", "ip link set eth0 mtu 1300").undo("ip link set eth0 mtu 1500"),
    dead(
        "a hole for long packets",
        "ip link set eth0 mtu 1300; iptables -A OUTPUT -p icmp -j DROP",
        WEB,
        "mtu",
        "",
    )
    .undo("ip link set eth0 mtu 1500"),
    dead(
        "forwarding off",
        "echo 0 > /proc/sys/net/ipv4/ip_forward",
        V4,
        "ip-forward",
        "",
    )
    .undo("echo 1 > /proc/sys/net/ipv4/ip_forward"),
    dead(
        "forwarding of IPv6 off",
        "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding",
        V6,
        "ip-forward",
        "",
    )
    .undo("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"),
    dead(
        "forwarding off on an interface",
        "echo 0 > /proc/sys/net/ipv4/conf/eth0/forwarding",
        V4,
        "interface-forwarding",
        "eth0.forwarding is 0",
    )
    .undo("echo 1 > /proc/sys/net/ipv4/conf/eth0/forwarding"),
    dead(
        "neighbour discovery kept out",
        "ip6tables -P INPUT DROP; ip -6 neigh flush all",
        V6,
        "foreign-rule",
        "drops neighbour discovery",
    )
    .undo("ip6tables -P INPUT ACCEPT"),
    harmless(
        "neighbour discovery let in",
        "ip6tables -P INPUT DROP
         ip6tables -A INPUT -p icmpv6 -j ACCEPT
         ip -6 neigh flush all",
    ),
    dead(
        "a port of a bridge",
        "ip link add br0 type bridge
         ip link set br0 up
         ip address flush dev eth0 scope global
         ip link set eth0 master br0
         ip address add 10.3.0.4/24 dev br0
         ip route add default via 10.3.0.1",
        &["web", "dns", "web6", "dns6"],
        "interface",
        "",
    )
    .undo(
        "ip link del br0
         ip address add 10.3.0.4/24 dev eth0
         ip route add default via 10.3.0.1
         ip -6 address add fd00:3::4/128 dev eth0",
    ),
];

/// Takes back the rules of both backends and families, and ipsets. It leaves what legacy never had.
const FLUSH: &str = "
nft flush ruleset
for family in ip ip6; do
  grep -q . /proc/net/${family}_tables_names || continue
  ${family}tables-legacy-restore <<EOF
*filter
:INPUT ACCEPT
:FORWARD ACCEPT
:OUTPUT ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT
:INPUT ACCEPT
:OUTPUT ACCEPT
:POSTROUTING ACCEPT
COMMIT
*mangle
:PREROUTING ACCEPT
:INPUT ACCEPT
:FORWARD ACCEPT
:OUTPUT ACCEPT
:POSTROUTING ACCEPT
COMMIT
*raw
:PREROUTING ACCEPT
:OUTPUT ACCEPT
COMMIT
EOF
done
# The kernel lets go of the sets of a table of nft some time after the table is gone.
for try in 1 2 3 4 5 6 7 8 9; do
  if ipset destroy 2> /dev/null; then exit 0; fi
  sleep 0.05
done
ipset destroy
";

/// Prints the rest of the firewall's state, which a row's own script takes back.
const STATE: &str = "
ip -o address
ip -o link
ip route show table all
ip -6 route show table all
ip rule
ip -6 rule
cd /proc/sys/net
grep . ipv4/ip_forward ipv4/conf/*/rp_filter ipv4/conf/*/forwarding ipv4/conf/*/arp_ignore ipv4/conf/*/arp_announce \
  ipv6/conf/all/forwarding netfilter/nf_conntrack_acct
";

/// A lab with targets, and forwards that work.
pub fn lab(backend: Backend) -> Lab {
    let lab = Lab::dual_stack_two_nics(backend);
    measure::serve_tcp(&lab.pod, 80);
    measure::serve_udp(&lab.pod, 5353);
    lab
}

/// Takes back all rules.
pub fn flush(lab: &Lab) {
    lab.firewall.shell(FLUSH);
    let flushed = lab.firewall.feed("conntrack", &["--flush"], "");
    assert!(flushed.status.success(), "{flushed:?}");
}

/// Returns the checks of `nvactl doctor` about packets.
pub fn checks(lab: &Lab, spec: &str) -> Vec<Check> {
    let said = lab.nvactl_with(&["doctor", "-", "--format", "json", "--timeout", "1"], spec);
    let report: Value =
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    let checks = report["checks"].as_array().expect("a list").iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let checks = checks.map(|check| Check {
        code: text(&check["code"]),
        status: text(&check["status"]),
        forward: check["forward"].as_str().map(str::to_owned),
        reason: text(&check["reason"]),
    });
    checks
        .filter(|check| PACKET_CODES.contains(&check.code.as_str()))
        .collect()
}

/// A check of the doctor's.
#[derive(Debug)]
pub struct Check {
    pub code: String,
    pub status: String,
    pub forward: Option<String>,
    pub reason: String,
}

/// Returns in words the claims of a row that do not hold.
fn wrong(lab: &Lab, row: &Row<'_>, backend: Backend) -> Vec<String> {
    let (from, to) = row.spec;
    let spec = SPEC.replacen(from, to, usize::from(!from.is_empty()));
    let said = lab.nvactl_with(&["apply", "-", "--no-trial"], &spec);
    assert_eq!(said.code, 0, "{}: {said:?}", row.name);
    let script = row.make.replace("OTHER", backend.other().name());
    lab.firewall.shell(&script);
    measure::forget(lab);
    let mut dead = measure::dead(lab, &SERVICES, PATIENCE);
    if dead != row.dead {
        dead = measure::dead(lab, &SERVICES, LONGER);
    }
    if dead != row.dead {
        return vec![format!("dead are {dead:?}, not {:?}", row.dead)];
    }
    let checks = checks(lab, &spec);
    let mut wrong = Vec::new();
    for service in &SERVICES {
        let is_dead = dead.contains(&service.name);
        // Some findings about the machine are about every forward.
        let about = |check: &&Check| {
            let forward = check.forward.as_deref();
            forward.map_or(is_dead, |name| name == service.name)
        };
        let found = checks.iter().filter(about);
        let bad: Vec<&Check> = match row.says {
            Some(Says { status, .. }) => found.filter(|check| check.status == status).collect(),
            None => {
                let bad = |check: &&Check| {
                    check.status == "fail" || check.status == "unknown" && check.code == "packets"
                };
                found.filter(bad).collect()
            }
        };
        let is_named = is_dead || row.dead.is_empty() && service.name == "web";
        let holds = match (&row.says, bad.first()) {
            (Some(says), Some(found)) if is_named => {
                let is_first = row.dead.first().is_none_or(|name| *name == service.name);
                !is_first || found.code == says.code && found.reason.contains(says.words)
            }
            (Some(_), None) if is_named => false,
            (_, found) => found.is_none(),
        };
        if !holds {
            let state = if is_dead { "dead" } else { "alive" };
            let all: Vec<&Check> = checks.iter().filter(|check| check.status != "ok").collect();
            wrong.push(format!("{} is {state}: {all:?}", service.name));
        }
    }
    wrong
}

fn hold(rows: &[Row<'_>], backend: Backend) {
    let mut wrong_rows = Vec::new();
    let picked = std::env::var("NVACTL_ROW").ok();
    let mut rows: Vec<&Row<'_>> = match &picked {
        Some(words) => rows.iter().filter(|row| row.name.contains(words)).collect(),
        None => long::cases(rows, Row::kind),
    };
    let mut turns = 0..;
    rows.retain(|row| match (row.only, &picked) {
        (Some(only), _) => only == backend,
        (None, Some(_)) => true,
        (None, None) => turns.next().is_some_and(|n| long::is_turn(n, backend)),
    });
    for some in rows.chunks(PER_LAB) {
        let lab = lab(backend);
        lab.apply(SPEC);
        let state = || lab.firewall.shell(STATE);
        let before = state();
        for row in some {
            let wrong = wrong(&lab, row, backend);
            wrong_rows.extend(wrong.into_iter().map(|one| format!("{}: {one}", row.name)));
            lab.firewall.shell(row.undo);
            flush(&lab);
            assert_eq!(state(), before, "{}: it is not undone", row.name);
        }
    }
    assert!(wrong_rows.is_empty(), "{}", wrong_rows.join("\n"));
}

lab_test!(sampled doctor_agrees_with_packets_under_iptables_rules);
fn doctor_agrees_with_packets_under_iptables_rules(backend: Backend) {
    hold(OF_IPTABLES, backend);
}

lab_test!(sampled doctor_agrees_with_packets_under_nft_rules);
fn doctor_agrees_with_packets_under_nft_rules(backend: Backend) {
    hold(OF_NFT, backend);
}

lab_test!(sampled doctor_agrees_with_packets_on_each_path);
fn doctor_agrees_with_packets_on_each_path(backend: Backend) {
    hold(OF_WAYS, backend);
}

lab_test!(either each_target_of_a_client_balanced_forward_is_tried);
/// A client always gets the same of these targets, so that few clients see few of them.
fn each_target_of_a_client_balanced_forward_is_tried(backend: Backend) {
    let lab = lab(backend);
    lab.apply(SPEC);
    let targets = [118, 119, 120, 121].map(|host| format!("10.224.0.{host}"));
    let pods = targets.each_ref().map(|target| format!("{target}:80"));
    let many = format!("target: {{pod: [{}]}}, balance: client", pods.join(", "));
    let spec = SPEC.replacen("target: {pod: 10.224.0.118:80}", &many, 1);
    let said = lab.nvactl_with(&["apply", "-", "--no-trial"], &spec);
    assert_eq!(said.code, 0, "{said:?}");
    for target in &targets {
        let rule = format!("FORWARD -d {target} -p tcp -j DROP");
        lab.firewall.run(&format!("iptables -t mangle -A {rule}"));
        let mut checks = checks(&lab, &spec);
        checks.retain(|check| check.status != "ok");
        let is_told = checks.iter().any(|check| {
            check.code == "foreign-rule" && check.status == "fail" && check.reason.contains(target)
        });
        assert!(is_told, "{target}: {checks:?}");
        lab.firewall.run(&format!("iptables -t mangle -D {rule}"));
    }
}

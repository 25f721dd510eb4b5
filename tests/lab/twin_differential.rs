//! Random rules of others, and two answers about each forward and outbound entry: real packets, and `nvactl doctor`.
//!
//! The lab's client has the address that the doctor takes for somebody of the Internet, so both speak of the
//! same client. The doctor asks for other clients, too. It asks for this one first, so a finding that names
//! clients concerns it only where the first named is this one; a finding that names nobody concerns all.
//! A finding about a client that the spec keeps out concerns nobody who is let in. The pod's connections by the outbound
//! entries go to the same address, and a packet with another source than the entry's may come back or not.
//!
//! The lab's neighbours are forgotten before each measurement: an address that was resolved before a rule
//! kept neighbour discovery out is reached for some seconds more.
//!
//! - False ok: the forward is dead, and the doctor says neither `fail` nor `unknown`.
//! - False fail: the forward is alive, and the doctor says `fail`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::chance::Chance;
use crate::lab::{Backend, FIREWALL, FIREWALL_V6, Lab};
use crate::long;
use crate::measure::{self, Service};
use crate::twin_faults::{Check, checks, flush};

/// How many rulesets are tried, over both backends.
const COUNT_VARIABLE: &str = "NVACTL_DIFFERENTIAL";
/// A single ruleset, by its number.
const ONE_VARIABLE: &str = "NVACTL_DIFFERENTIAL_ONE";
const PATIENCE: Duration = Duration::from_millis(250);
const LONGER: Duration = Duration::from_secs(2);

/// Somebody of the Internet, as the doctor has it.
const CLIENT: &str = "81.2.69.142";
const CLIENT_V6: &str = "2a02:cf40::1";

const SPEC: &str = r#"
firewall: {interface: {ingress: eth0, egress: eth1}, snat: {v4: 10.4.0.4, v6: "fd00:4::4"}}
forwards:
  - {name: web, listen: 49182, LISTtarget: {pod: 10.224.0.118:80}}
  - {name: dns, listen: 53, LISTprotocol: udp, target: {pod: 10.224.0.118:5353}}
  - {name: alt, listen: 8443, LISTtarget: {pod: 10.224.0.99:443}}
  - {name: web6, listen: 49182, LIST6target: {pod: "[fd00:224::118]:80"}}
  - {name: dns6, listen: 53, LIST6protocol: udp, target: {pod: "[fd00:224::118]:5353"}}
outbound:
  - {name: out, allow_from: [10.224.0.118/32], protocol: tcp, ports: [443]}
  - {name: out6, allow_from: ["fd00:224::118/128"], protocol: tcp, ports: [443]}
"#;

const SERVICES: [Service<'_>; 5] = [
    service("web", true, FIREWALL, 49182),
    service("dns", false, FIREWALL, 53),
    service("alt", true, FIREWALL, 8443),
    service("web6", true, FIREWALL_V6, 49182),
    service("dns6", false, FIREWALL_V6, 53),
];

/// The server outside, as the pod asks for it.
const OUTWARD: [Service<'_>; 2] = [
    service("out", true, CLIENT, 443),
    service("out6", true, CLIENT_V6, 443),
];

const fn service<'s>(name: &'s str, is_tcp: bool, address: &'s str, port: u16) -> Service<'s> {
    Service {
        name,
        is_tcp,
        address,
        port,
    }
}

/// Rules of others as a text for each program and, within it, each table.
#[derive(Debug, Default)]
struct Foreign {
    sets: String,
    tables: BTreeMap<(String, &'static str), Vec<String>>,
    nft: String,
}

impl Foreign {
    fn add(&mut self, program: &str, table: &'static str, line: impl Into<String>) {
        let key = (program.to_owned(), table);
        self.tables.entry(key).or_default().push(line.into());
    }

    /// Loads the rules; a line that the kernel refuses is the generator's fault.
    fn load(&self, lab: &Lab) -> Result<(), String> {
        let feed = |program: &str, args: &[&str], text: &str| {
            let output = lab.firewall.feed(program, args, text);
            if output.status.success() {
                return Ok(());
            }
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(format!("{program}: {words}\n{text}"))
        };
        feed("ipset", &["restore"], &self.sets)?;
        for ((program, table), lines) in &self.tables {
            let text = format!("*{table}\n{}\nCOMMIT\n", lines.join("\n"));
            // `iptables-OTHER` is `iptables-nft` or `iptables-legacy` by now.
            let restore = format!("{program}-restore");
            feed(&restore, &["--noflush"], &text)?;
        }
        feed("nft", &["-f", "-"], &self.nft)
    }

    fn text(&self) -> String {
        let mut text = self.sets.clone();
        for ((program, table), lines) in &self.tables {
            let _ = writeln!(text, "{program} -t {table}:\n  {}", lines.join("\n  "));
        }
        text + &self.nft
    }
}

/// The addresses of one family.
struct Names {
    is_v6: bool,
    /// Networks, with and without the client or the target in them.
    nets: &'static [&'static str],
    pod: &'static str,
    nobody: &'static str,
    source: &'static str,
    set: &'static str,
}

const V4: Names = Names {
    is_v6: false,
    nets: &[
        "81.2.69.0/24",
        "81.2.69.142/32",
        "0.0.0.0/1",
        "192.0.2.0/24",
        "10.3.0.0/24",
        "10.0.0.0/8",
        "172.17.0.0/16",
        "10.224.0.118/32",
        "10.224.0.0/16",
        "10.3.0.4/32",
        "10.4.0.4/32",
    ],
    pod: "10.224.0.118",
    nobody: "10.224.0.98",
    source: "10.4.0.4",
    set: "f4",
};

const V6: Names = Names {
    is_v6: true,
    nets: &[
        "2a02:cf40::/32",
        "2a02:cf40::1/128",
        "2001:db8::/32",
        "2000::/3",
        "fd00:3::/64",
        "fc00::/7",
        "fd00:224::118/128",
        "fd00:224::/64",
        "fd00:4::4/128",
    ],
    pod: "fd00:224::118",
    nobody: "fd00:224::98",
    source: "fd00:4::4",
    set: "f6",
};

/// Ports before translation, behind it, and others.
const TCP_PORTS: &[&str] = &["49182", "80", "8443", "443", "22", "3000:60000", "1:1023"];
const UDP_PORTS: &[&str] = &["53", "5353", "123", "1:1023", "5000:6000"];

struct Generator {
    chance: Chance,
    other: &'static str,
}

impl Generator {
    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.chance.index(of.len())]
    }

    /// Says yes once in so many times.
    fn once_in(&mut self, times: u64) -> bool {
        self.chance.below(times) == 0
    }

    fn foreign(mut self) -> Foreign {
        let mut to = Foreign::default();
        for (name, family, nets) in [("f4", "inet", V4.nets), ("f6", "inet6", V6.nets)] {
            let _ = writeln!(to.sets, "create {name} hash:net family {family}");
            for _ in 0..=self.chance.below(2) {
                // A set takes no network of the shortest prefixes.
                let net = self.one(&nets[3..]);
                let _ = writeln!(to.sets, "add -exist {name} {net}");
            }
        }
        for _ in 0..=self.chance.below(3) {
            let (names, program) = if self.once_in(3) {
                (&V6, "ip6tables")
            } else {
                (&V4, "iptables")
            };
            let program = if self.once_in(4) {
                format!("{program}-{}", self.other)
            } else {
                program.to_owned()
            };
            match self.chance.below(9) {
                0 => self.docker(&mut to, &program, names),
                1 => self.ufw(&mut to, &program, names),
                2 => self.fail2ban(&mut to, &program, names),
                3 => self.kube(&mut to, &program, names),
                4 => self.calico(&mut to, &program, names),
                5 => self.nft(&mut to),
                _ => self.anything(&mut to, &program, names),
            }
        }
        to
    }

    fn docker(&mut self, to: &mut Foreign, program: &str, names: &Names) {
        for chain in ["DOCKER", "DOCKER-USER", "DOCKER-ISOLATION-STAGE-1"] {
            to.add(program, "filter", format!(":{chain} - [0:0]"));
        }
        let at = self.place("FORWARD");
        to.add(
            program,
            "filter",
            format!("{at} -j DOCKER-ISOLATION-STAGE-1"),
        );
        let at = self.place("FORWARD");
        to.add(program, "filter", format!("{at} -j DOCKER-USER"));
        for line in [
            "-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-A FORWARD -o docker0 -j DOCKER",
            "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
            "-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j RETURN",
        ] {
            to.add(program, "filter", line);
        }
        if self.once_in(2) {
            let matches = self.matches("FORWARD", names);
            let target = self.one(&["DROP", "RETURN", "ACCEPT"]);
            to.add(
                program,
                "filter",
                format!("-A DOCKER-USER {matches} -j {target}"),
            );
        }
        to.add(program, "nat", ":DOCKER - [0:0]");
        let at = self.place("PREROUTING");
        let local = "-m addrtype --dst-type LOCAL";
        to.add(program, "nat", format!("{at} {local} -j DOCKER"));
        if !names.is_v6 {
            let port = self.one(&["49182", "8443", "9000", "80"]);
            let publish = format!("-A DOCKER ! -i docker0 -p tcp --dport {port}");
            to.add(
                program,
                "nat",
                format!("{publish} -j DNAT --to-destination 172.17.0.2:80"),
            );
            let masquerade = "-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE";
            to.add(program, "nat", masquerade);
        }
    }

    fn ufw(&mut self, to: &mut Foreign, program: &str, names: &Names) {
        for chain in [
            "ufw-before-forward",
            "ufw-user-forward",
            "ufw-reject-forward",
        ] {
            to.add(program, "filter", format!(":{chain} - [0:0]"));
        }
        let before = self.place("FORWARD");
        to.add(program, "filter", format!("{before} -j ufw-before-forward"));
        to.add(
            program,
            "filter",
            "-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        );
        to.add(
            program,
            "filter",
            "-A ufw-before-forward -j ufw-user-forward",
        );
        for _ in 0..self.chance.below(3) {
            let matches = self.matches("FORWARD", names);
            let target = self.one(&["ACCEPT", "DROP", "REJECT"]);
            to.add(
                program,
                "filter",
                format!("-A ufw-user-forward {matches} -j {target}"),
            );
        }
        if self.once_in(3) {
            let at = self.place("FORWARD");
            to.add(program, "filter", format!("{at} -j ufw-reject-forward"));
            to.add(program, "filter", "-A ufw-reject-forward -j REJECT");
        }
        to.add(
            program,
            "filter",
            "-A INPUT -m conntrack --ctstate INVALID -j DROP",
        );
    }

    fn fail2ban(&mut self, to: &mut Foreign, program: &str, names: &Names) {
        to.add(program, "filter", ":f2b-web - [0:0]");
        let chain = self.one(&["INPUT", "FORWARD"]);
        to.add(
            program,
            "filter",
            format!("-I {chain} -p tcp -m multiport --dports 80,443 -j f2b-web"),
        );
        for _ in 0..=self.chance.below(2) {
            let net = self.one(names.nets);
            to.add(program, "filter", format!("-A f2b-web -s {net} -j REJECT"));
        }
        if self.once_in(3) {
            let set = names.set;
            let target = self.one(&["DROP", "REJECT"]);
            to.add(
                program,
                "filter",
                format!("-A f2b-web -m set --match-set {set} src -j {target}"),
            );
        }
        to.add(program, "filter", "-A f2b-web -j RETURN");
    }

    fn kube(&mut self, to: &mut Foreign, program: &str, names: &Names) {
        for chain in [
            "KUBE-SERVICES",
            "KUBE-NODEPORTS",
            "KUBE-MARK-MASQ",
            "KUBE-POSTROUTING",
        ] {
            to.add(program, "nat", format!(":{chain} - [0:0]"));
        }
        let at = self.place("PREROUTING");
        to.add(program, "nat", format!("{at} -j KUBE-SERVICES"));
        let at = self.place("POSTROUTING");
        to.add(program, "nat", format!("{at} -j KUBE-POSTROUTING"));
        for line in [
            "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
            "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000",
            "-A KUBE-POSTROUTING -j MASQUERADE --random-fully",
            "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
            "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",
        ] {
            to.add(program, "nat", line);
        }
        let port = self.one(&["49182", "30080", "8443"]);
        let node = format!("-A KUBE-NODEPORTS -p tcp --dport {port}");
        to.add(program, "nat", format!("{node} -j KUBE-MARK-MASQ"));
        if self.once_in(2) {
            let host = if names.is_v6 {
                format!("[{}]", names.nobody)
            } else {
                names.nobody.to_owned()
            };
            to.add(
                program,
                "nat",
                format!("{node} -j DNAT --to-destination {host}:80"),
            );
        }
        to.add(program, "filter", ":KUBE-FORWARD - [0:0]");
        let at = self.place("FORWARD");
        to.add(program, "filter", format!("{at} -j KUBE-FORWARD"));
        for line in [
            "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
            "-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT",
            "-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        ] {
            to.add(program, "filter", line);
        }
    }

    fn calico(&mut self, to: &mut Foreign, program: &str, names: &Names) {
        for chain in [
            "cali-FORWARD",
            "cali-fh-any-interface",
            "cali-from-wl-dispatch",
        ] {
            to.add(program, "filter", format!(":{chain} - [0:0]"));
        }
        let at = self.place("FORWARD");
        to.add(program, "filter", format!("{at} -j cali-FORWARD"));
        for line in [
            "-A cali-FORWARD -j MARK --set-xmark 0x0/0xe0000",
            "-A cali-FORWARD -i cali+ -j cali-from-wl-dispatch",
            "-A cali-FORWARD -j cali-fh-any-interface",
            "-A cali-from-wl-dispatch -j DROP",
        ] {
            to.add(program, "filter", line);
        }
        let matches = self.matches("FORWARD", names);
        let mark = "-j MARK --set-xmark 0x10000/0x10000";
        to.add(
            program,
            "filter",
            format!("-A cali-fh-any-interface {matches} {mark}"),
        );
        let accept = "-m mark --mark 0x10000/0x10000";
        to.add(
            program,
            "filter",
            format!("-A cali-fh-any-interface {accept} -j RETURN"),
        );
        let target = self.one(&["DROP", "RETURN", "RETURN"]);
        let state = self.one(&["NEW", "NEW,INVALID", "ESTABLISHED"]);
        to.add(
            program,
            "filter",
            format!("-A cali-fh-any-interface -m conntrack --ctstate {state} -j {target}"),
        );
        to.add(program, "filter", format!("-A FORWARD {accept} -j ACCEPT"));
        to.add(program, "raw", ":cali-PREROUTING - [0:0]");
        to.add(program, "raw", "-A PREROUTING -j cali-PREROUTING");
        to.add(
            program,
            "raw",
            "-A cali-PREROUTING -j MARK --set-xmark 0x0/0xf0000",
        );
    }

    /// Rules of every table, before and behind nvactl's jump, and chains that they lead to.
    fn anything(&mut self, to: &mut Foreign, program: &str, names: &Names) {
        for n in 0..=self.chance.below(3) {
            let (table, chain) = [
                ("filter", "FORWARD"),
                ("filter", "FORWARD"),
                ("filter", "INPUT"),
                ("filter", "OUTPUT"),
                ("mangle", "PREROUTING"),
                ("mangle", "FORWARD"),
                ("mangle", "POSTROUTING"),
                ("nat", "POSTROUTING"),
                ("raw", "PREROUTING"),
                ("nat", "PREROUTING"),
            ][self.chance.index(10)];
            let at = self.place(chain);
            let matches = self.matches(chain, names);
            if self.once_in(4) {
                let own = format!("mine-{n}");
                to.add(program, table, format!(":{own} - [0:0]"));
                let how = self.one(&["-j", "-g"]);
                to.add(program, table, format!("{at} {matches} {how} {own}"));
                for _ in 0..=self.chance.below(2) {
                    let (matches, target) = self.rule(table, chain, names);
                    to.add(program, table, format!("-A {own} {matches} {target}"));
                }
            } else {
                let (matches, target) = self.rule(table, chain, names);
                to.add(program, table, format!("{at} {matches} {target}"));
            }
        }
        if self.once_in(8) {
            let (table, chain) = [
                ("filter", "FORWARD"),
                ("filter", "INPUT"),
                ("mangle", "FORWARD"),
            ][self.chance.index(3)];
            // Replies and requests that a rule accepts, and a policy for the rest.
            to.add(program, table, format!(":{chain} DROP [0:0]"));
            let matches = self.matches(chain, names);
            to.add(program, table, format!("-A {chain} {matches} -j ACCEPT"));
        }
    }

    /// Before nvactl's jump, or behind it.
    fn place(&mut self, chain: &str) -> String {
        let how = self.one(&["-I", "-A"]);
        format!("{how} {chain}")
    }

    /// Returns conditions and a target; some targets need conditions of their own.
    fn rule(&mut self, table: &str, chain: &str, names: &Names) -> (String, String) {
        let matches = self.matches(chain, names);
        let plain = self.one(&["DROP", "ACCEPT", "RETURN", "DROP"]);
        let target = match (table, chain, self.chance.below(4)) {
            ("filter", _, 0) => "-j REJECT".to_owned(),
            ("filter", _, 1) => "-j NFLOG --nflog-group 7".to_owned(),
            ("mangle", "PREROUTING", 0) => "-j MARK --set-xmark 0x5/0xff".to_owned(),
            ("mangle", _, 0 | 1) => "-j CONNMARK --save-mark".to_owned(),
            ("mangle", "PREROUTING" | "FORWARD", 2) if !names.is_v6 => {
                let ttl = self.one(&["--ttl-set 64", "--ttl-set 1", "--ttl-inc 1"]);
                format!("-j TTL {ttl}")
            }
            ("raw", ..) if plain != "DROP" => "-j CT --notrack".to_owned(),
            ("nat", "PREROUTING", _) => {
                let protocol = self.one(&["tcp", "udp"]);
                let port = self.one(if protocol == "tcp" {
                    TCP_PORTS
                } else {
                    UDP_PORTS
                });
                let mut kinds = vec![
                    "-j REDIRECT --to-ports 9999".to_owned(),
                    "-j RETURN".to_owned(),
                    "-j ACCEPT".to_owned(),
                ];
                kinds.push(if names.is_v6 {
                    format!("-j DNAT --to-destination [{}]:80", names.nobody)
                } else {
                    format!("-j DNAT --to-destination {}:80", names.nobody)
                });
                let kind = kinds.swap_remove(self.chance.index(kinds.len()));
                return (format!("-p {protocol} --dport {port}"), kind);
            }
            ("nat", _, n) => match n {
                0 => "-j MASQUERADE".to_owned(),
                1 => format!("-j SNAT --to-source {}", names.source),
                2 => "-j RETURN".to_owned(),
                _ => "-j ACCEPT".to_owned(),
            },
            _ => format!("-j {plain}"),
        };
        let is_rare = table == "filter" && target == "-j ACCEPT" && self.once_in(4);
        let limit = if is_rare {
            " -m limit --limit 5/sec"
        } else {
            ""
        };
        (format!("{matches}{limit}"), target)
    }

    /// Returns up to three conditions.
    fn matches(&mut self, chain: &str, names: &Names) -> String {
        let mut words = Vec::new();
        let not = |generator: &mut Self| if generator.once_in(4) { "! " } else { "" };
        let is_in = matches!(chain, "PREROUTING" | "INPUT" | "FORWARD");
        let is_out = matches!(chain, "OUTPUT" | "POSTROUTING" | "FORWARD");
        if is_in && self.once_in(3) {
            let (not, name) = (not(self), self.one(&["eth0", "eth1", "eth+", "docker0"]));
            words.push(format!("{not}-i {name}"));
        }
        if is_out && self.once_in(3) {
            let (not, name) = (not(self), self.one(&["eth0", "eth1", "eth+", "docker0"]));
            words.push(format!("{not}-o {name}"));
        }
        if self.once_in(3) {
            let (not, side, net) = (not(self), self.one(&["-s", "-d"]), self.one(names.nets));
            words.push(format!("{not}{side} {net}"));
        }
        match self.chance.below(6) {
            0 | 1 => {
                let protocol = self.one(&["tcp", "udp"]);
                let port = self.one(if protocol == "tcp" {
                    TCP_PORTS
                } else {
                    UDP_PORTS
                });
                let (not, side) = (not(self), self.one(&["--dport", "--sport"]));
                words.push(format!("-p {protocol} -m {protocol} {not}{side} {port}"));
            }
            2 => {
                let side = self.one(&["--dports", "--sports", "--ports"]);
                let list = self.one(&["80,443", "22,8443", "49182,53", "5353", "1024:65535"]);
                let (protocol, not) = (self.one(&["tcp", "udp"]), not(self));
                words.push(format!("-p {protocol} -m multiport {not}{side} {list}"));
            }
            3 => {
                let flags = self.one(&[
                    "--syn",
                    "--tcp-flags SYN,ACK SYN,ACK",
                    "--tcp-flags FIN FIN",
                ]);
                words.push(format!("-p tcp -m tcp {flags}"));
            }
            _ => {}
        }
        if self.once_in(2) || words.is_empty() {
            let not = not(self);
            let more = match self.chance.below(8) {
                0 | 1 => {
                    let states = self.one(&[
                        "NEW",
                        "ESTABLISHED",
                        "INVALID",
                        "RELATED,ESTABLISHED",
                        "DNAT",
                        "SNAT",
                    ]);
                    format!("-m conntrack {not}--ctstate {states}")
                }
                2 => format!("-m mark {not}--mark 0x5/0xff"),
                3 => format!(
                    "-m set {not}--match-set {} {}",
                    names.set,
                    self.one(&["src", "dst"])
                ),
                4 if names.is_v6 => format!("-m hl {}", self.one(&["--hl-lt 64", "--hl-gt 63"])),
                4 => format!("-m ttl {}", self.one(&["--ttl-lt 64", "--ttl-gt 63"])),
                5 => format!(
                    "-m conntrack {not}--ctorigdstport {}",
                    self.one(&["49182", "53", "8443"])
                ),
                6 => format!("-m addrtype {not}--dst-type LOCAL"),
                _ => "-m comment --comment \"it's \\\"mine\\\" -j ACCEPT\"".to_owned(),
            };
            words.push(more);
        }
        words.join(" ")
    }

    /// A table of nft's own.
    fn nft(&mut self, to: &mut Foreign) {
        let (family, names) = match self.chance.below(4) {
            0 => ("ip", &V4),
            1 => ("ip6", &V6),
            _ => ("inet", if self.once_in(2) { &V4 } else { &V6 }),
        };
        let hook = self.one(&["prerouting", "forward", "forward", "input", "postrouting"]);
        let priority = self.one(&["-300", "-150", "-1", "0", "5", "110"]);
        let policy = if self.once_in(6) { "drop" } else { "accept" };
        let ip = if names.is_v6 { "ip6" } else { "ip" };
        let mut rules = String::new();
        for _ in 0..=self.chance.below(3) {
            let verdict = self.one(&[
                "drop",
                "accept",
                "counter drop",
                "accept",
                "return",
                "jump more",
            ]);
            let net = self.one(names.nets);
            let rule = match self.chance.below(9) {
                0 => format!(
                    "tcp dport {} {verdict}",
                    self.one(&["80", "49182", "{ 22, 80 }", "1-1023", "!= 80"])
                ),
                1 => format!(
                    "udp dport {} {verdict}",
                    self.one(&["53", "5353", "!= 5353"])
                ),
                2 => format!("{ip} saddr {net} {verdict}"),
                3 => format!("{ip} daddr != {net} {verdict}"),
                4 => format!(
                    "ct state {} {verdict}",
                    self.one(&["new", "established,related", "invalid"])
                ),
                5 => format!("ct status dnat {verdict}"),
                6 => format!(
                    "tcp dport vmap {{ 80 : {}, 443 : accept }}",
                    self.one(&["drop", "accept", "jump more"])
                ),
                7 => format!(
                    "meta l4proto {{ {} }} {verdict}",
                    self.one(&["tcp", "udp", "tcp, udp"])
                ),
                _ => format!(
                    "iifname \"{}\" {ip} daddr {} {verdict}",
                    self.one(&["eth0", "eth1", "eth*"]),
                    names.pod
                ),
            };
            let _ = writeln!(rules, "    {rule}");
        }
        let more = self.one(&[
            "tcp sport 80 drop",
            "counter",
            "ct direction reply accept",
            "udp sport 5353 drop",
        ]);
        let n = to.nft.len();
        let _ = writeln!(
            to.nft,
            "table {family} t{n} {{\n  chain more {{\n    {more}\n  }}\n  chain c {{\n    type filter hook {hook} priority {priority}; policy {policy};\n{rules}  }}\n}}"
        );
    }
}

/// Makes the lab's client the one that the doctor asks for.
fn lab(backend: Backend) -> Lab {
    let lab = Lab::dual_stack_two_nics(backend);
    measure::serve_tcp(&lab.pod, 80);
    measure::serve_udp(&lab.pod, 5353);
    measure::serve_tcp(&lab.other, 443);
    lab.client.shell(&format!(
        "ip address add {CLIENT}/32 dev eth0; ip -6 address add {CLIENT_V6}/128 dev eth0 nodad
         ip route replace default via 198.51.100.1 src {CLIENT}
         ip -6 route replace default via 2001:db8:51::1 src {CLIENT_V6}"
    ));
    lab.vnet.shell(&format!(
        "ip route add {CLIENT}/32 dev client; ip -6 route add {CLIENT_V6}/128 dev client"
    ));
    // The pod's own connections cross the firewall both ways. The packets of forwards have other ports there.
    measure::serve_tcp(&lab.client, 443);
    for (ip, client, pod, [out, back]) in [
        ("ip", CLIENT, V4.pod, ["10.4.0.4", FIREWALL]),
        ("ip -6", CLIENT_V6, V6.pod, ["fd00:4::4", FIREWALL_V6]),
    ] {
        lab.vnet.shell(&format!(
            "{ip} route add default via {out} table 100
             {ip} route add default via {back} table 101
             {ip} rule add iif pod to {client} ipproto tcp dport 443 lookup 100
             {ip} rule add iif client to {pod} ipproto tcp sport 443 lookup 101"
        ));
    }
    lab
}

/// Says whether a finding is about the lab's client.
fn is_ours(check: &Check) -> bool {
    if check.reason.contains(", although `") {
        return false;
    }
    let ours = [CLIENT, CLIENT_V6].map(|address| {
        [
            format!("({address})"),
            format!(": {address}, which is connected now"),
        ]
    });
    let of_pods = [V4.pod, V6.pod].map(|pod| format!(": clients of {pod}/"));
    let names_ours = ours
        .iter()
        .flatten()
        .chain(&of_pods)
        .any(|words| check.reason.contains(words));
    let names_others = [": clients of ", ", which is connected now"]
        .iter()
        .any(|words| check.reason.contains(words));
    names_ours || !names_others
}

fn spec(chance: &mut Chance) -> String {
    let (list, list_v6) = if chance.below(3) == 0 {
        (
            format!("allow_from: [{CLIENT}/32], "),
            format!("allow_from: [\"{CLIENT_V6}/128\"], "),
        )
    } else {
        (String::new(), String::new())
    };
    SPEC.replace("LIST6", &list_v6).replace("LIST", &list)
}

fn all() -> impl Iterator<Item = &'static Service<'static>> {
    SERVICES.iter().chain(&OUTWARD)
}

fn dead(lab: &Lab, patience: Duration) -> Vec<&'static str> {
    let mut dead = measure::dead(lab, &SERVICES, patience);
    dead.extend(measure::dead_for(&lab.pod, &OUTWARD, patience));
    dead
}

/// Returns how many forwards and entries are dead, of how many the doctor does not know, and in words what it says otherwise
/// than real packets.
fn differences(lab: &Lab, spec: &str) -> (usize, usize, Vec<String>) {
    measure::forget(lab);
    let dead = dead(lab, PATIENCE);
    let checks = checks(lab, spec);
    let judge = |dead: &[&str]| -> Vec<String> {
        let wrong = all().filter_map(|service| {
            let is_dead = dead.contains(&service.name);
            let says = |status: &str| {
                checks.iter().any(|check| {
                    check.status == status
                        && check
                            .forward
                            .as_deref()
                            .is_none_or(|name| name == service.name)
                        && is_ours(check)
                        && (is_dead || !check.reason.contains("the server sees the source"))
                })
            };
            match (is_dead, says("fail"), says("unknown")) {
                (true, false, false) => Some(format!("false ok: {}", service.name)),
                (false, true, _) => Some(format!("false fail: {}", service.name)),
                _ => None,
            }
        });
        wrong.collect()
    };
    let mut wrong = judge(&dead);
    if !wrong.is_empty() {
        wrong = judge(&self::dead(lab, LONGER));
    }
    if !wrong.is_empty() {
        let told = checks.iter().filter(|check| check.status != "ok");
        wrong.extend(told.map(|check| format!("  {check:?}")));
    }
    let unknown = all().filter(|service| {
        let of = |check: &&Check| check.forward.as_deref() == Some(service.name);
        let mut of_it = checks.iter().filter(of).filter(|check| is_ours(check));
        of_it.any(|check| check.status == "unknown")
    });
    (dead.len(), unknown.count(), wrong)
}

lab_test!(sampled doctor_agrees_with_packets_under_random_rules);
fn doctor_agrees_with_packets_under_random_rules(backend: Backend) {
    let number = |variable: &str| {
        let text = std::env::var(variable).ok()?;
        Some(text.parse::<u64>().expect("it is a number"))
    };
    let numbers: Vec<u64> = match number(ONE_VARIABLE) {
        Some(one) => vec![one],
        None => (0..number(COUNT_VARIABLE)
            .unwrap_or(long::count(30, 300))
            .div_ceil(2))
            .filter(|n| long::is_turn(usize::try_from(*n).expect("it is small"), backend))
            .collect(),
    };
    let lab = lab(backend);
    lab.apply(&spec(&mut Chance::of(0)));
    let mut wrong = Vec::new();
    let (mut refused, mut dead, mut asked, mut unknown) = (0, 0, 0, 0);
    for number in numbers {
        flush(&lab);
        let mut chance = Chance::of(number);
        let spec = spec(&mut chance);
        let said = lab.nvactl_with(&["apply", "-", "--no-trial"], &spec);
        assert_eq!(said.code, 0, "ruleset {number}: {said:?}");
        let other = backend.other().name();
        let foreign = Generator { chance, other }.foreign();
        if let Err(words) = foreign.load(&lab) {
            println!("ruleset {number}: {words}");
            refused += 1;
        }
        let (killed, not_known, found) = differences(&lab, &spec);
        dead += killed;
        unknown += not_known;
        asked += all().count();
        if !found.is_empty() {
            wrong.push(format!(
                "{ONE_VARIABLE}={number}:\n{}\n{}",
                found.join("\n"),
                foreign.text()
            ));
        }
    }
    println!("{dead} of {asked} forwards and entries were dead, of {unknown} nothing was known");
    // A few rulesets are no measure.
    let is_known = asked < 100 || unknown * 5 <= asked;
    assert!(
        is_known,
        "of {unknown} of {asked} forwards nothing was known"
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(refused, 0, "the kernel refused rules");
}

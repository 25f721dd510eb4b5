//! The lab: a client, a firewall and targets, with a router between them as the virtual network is.
//!
//! ```text
//! client 198.51.100.10 ──┐           ┌── ilb   10.224.0.222
//!                       vnet (router)┼── pod   10.224.0.118
//! fw     10.3.0.4    ───┘           └── other 10.224.0.99
//! ```
//!
//! With two NICs the firewall reaches the targets by eth1 (10.4.0.4) and the client by eth0.

use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::process::Output;

use crate::namespace::Host;
use crate::pages::root;
use crate::traffic::{self, Outcome};

pub const CLIENT: &str = "198.51.100.10";
pub const FIREWALL: &str = "10.3.0.4";
pub const FIREWALL_EGRESS: &str = "10.4.0.4";
pub const ILB: &str = "10.224.0.222";
pub const POD: &str = "10.224.0.118";
pub const OTHER: &str = "10.224.0.99";

/// The same in a lab that has both families.
pub const CLIENT_V6: &str = "2001:db8:51::10";
pub const FIREWALL_V6: &str = "fd00:3::4";
pub const FIREWALL_EGRESS_V6: &str = "fd00:4::4";
pub const ILB_V6: &str = "fd00:224::222";
pub const POD_V6: &str = "fd00:224::118";
pub const OTHER_V6: &str = "fd00:224::99";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Nft,
    Legacy,
}

impl Backend {
    fn program(self) -> &'static str {
        match self {
            Backend::Nft => "/usr/sbin/xtables-nft-multi",
            Backend::Legacy => "/usr/sbin/xtables-legacy-multi",
        }
    }
}

/// A host whose plain `iptables…` names are those of one backend.
pub fn host_with(backend: Backend) -> Host {
    with_programs(Host::new(), backend)
}

/// The same for a host of which only the network matters.
pub fn bare_host_with(backend: Backend) -> Host {
    with_programs(Host::without_files(""), backend)
}

/// Makes the plain `iptables…` names of a host those of one backend.
fn with_programs(host: Host, backend: Backend) -> Host {
    for name in [
        "iptables",
        "iptables-save",
        "iptables-restore",
        "ip6tables",
        "ip6tables-save",
        "ip6tables-restore",
    ] {
        let link = host.path(&format!("/run/bin/{name}"));
        symlink(backend.program(), link).expect("the name is free");
    }
    host
}

pub struct Lab {
    pub client: Host,
    pub firewall: Host,
    pub ilb: Host,
    pub pod: Host,
    pub other: Host,
    pub vnet: Host,
}

impl Lab {
    pub fn one_nic(backend: Backend) -> Self {
        let lab = Self::hosts("", backend);
        lab.connect_firewall(&[("fw0", "10.3.0.1/24", "eth0", "10.3.0.4/24")]);
        lab
    }

    /// With one NIC, and IPv6 addresses beside the others.
    pub fn dual_stack(backend: Backend) -> Self {
        let lab = Self::one_nic(backend);
        lab.add_ipv6();
        lab
    }

    /// The same with two NICs.
    pub fn dual_stack_two_nics(backend: Backend) -> Self {
        let lab = Self::two_nics(backend);
        lab.add_ipv6();
        lab.vnet.ip("-6", "address add fd00:4::1/64 dev fw1");
        let egress = format!("address add {FIREWALL_EGRESS_V6}/64 dev eth1");
        let route = "route add fd00:224::/32 via fd00:4::1";
        lab.firewall.ip("-6", &format!("{egress}\n{route}"));
        lab
    }

    fn add_ipv6(&self) {
        self.vnet
            .shell("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
        let mut router = String::new();
        for (host, link, gateway, address) in [
            (&self.client, "client", "2001:db8:51::1", CLIENT_V6),
            (&self.firewall, "fw0", "fd00:3::1", FIREWALL_V6),
            (&self.ilb, "ilb", "fd00:224::1", ILB_V6),
            (&self.pod, "pod", "fd00:224::2", POD_V6),
            (&self.other, "other", "fd00:224::3", OTHER_V6),
        ] {
            let _ = writeln!(
                router,
                "address add {gateway}/128 dev {link}\nroute add {address}/128 dev {link}"
            );
            host.ip(
                "-6",
                &format!(
                    "address add {address}/128 dev eth0
                     route add {gateway} dev eth0
                     route add default via {gateway}"
                ),
            );
        }
        self.vnet.ip("-6", &router);
    }

    pub fn two_nics(backend: Backend) -> Self {
        Self::two_nics_on_a_machine_with("", backend)
    }

    /// Builds the lab on a machine whose namespaces begin with what `inherited`, a script, sets.
    pub fn two_nics_on_a_machine_with(inherited: &str, backend: Backend) -> Self {
        let lab = Self::hosts(inherited, backend);
        lab.connect_firewall(&[
            ("fw0", "10.3.0.1/24", "eth0", "10.3.0.4/24"),
            ("fw1", "10.4.0.1/24", "eth1", "10.4.0.4/24"),
        ]);
        lab.firewall.run("ip route add 10.224.0.0/16 via 10.4.0.1");
        lab
    }

    fn hosts(inherited: &str, backend: Backend) -> Self {
        let host = || Host::without_files(inherited);
        let lab = Self {
            client: host(),
            firewall: with_programs(Host::on_a_machine_with(inherited), backend),
            ilb: host(),
            pod: host(),
            other: host(),
            vnet: host(),
        };
        lab.vnet.shell("echo 1 > /proc/sys/net/ipv4/ip_forward");
        let ends = [
            (&lab.client, "client", "198.51.100", CLIENT),
            (&lab.ilb, "ilb", "10.224.0", ILB),
            (&lab.pod, "pod", "10.224.0", POD),
            (&lab.other, "other", "10.224.0", OTHER),
        ];
        let mut router = String::new();
        for (host, link, net, address) in ends {
            // Each has a line of its own to the router, as hosts of a virtual network have.
            router += &lab.link(link, &format!("{net}.1/32"), host, "eth0");
            let _ = writeln!(router, "route add {address}/32 dev {link}");
        }
        lab.vnet.ip("-4", &router);
        for (host, _, net, address) in ends {
            host.ip(
                "-4",
                &format!(
                    "address add {address}/32 dev eth0
                     link set eth0 up
                     route add {net}.1 dev eth0
                     route add default via {net}.1"
                ),
            );
        }
        lab
    }

    /// Connects the firewall with the router: the names and addresses of both ends of each line.
    fn connect_firewall(&self, lines: &[(&str, &str, &str, &str)]) {
        let (mut router, mut firewall) = (String::new(), String::new());
        for (link, here, name, there) in lines {
            router += &self.link(link, here, &self.firewall, name);
            let _ = writeln!(
                firewall,
                "address add {there} dev {name}\nlink set {name} up"
            );
        }
        self.vnet.ip("-4", &router);
        firewall += "route add default via 10.3.0.1";
        self.firewall.ip("-4", &firewall);
    }

    /// Returns the lines of `ip` for the router that make a link to a host.
    fn link(&self, link: &str, here: &str, host: &Host, name: &str) -> String {
        let (vnet, peer) = (self.vnet.pid(), host.pid());
        format!(
            "link add {link} netns {vnet} type veth peer name {name} netns {peer}
             address add {here} dev {link}
             link set {link} up\n"
        )
    }

    /// Sends what goes to `address` through the firewall, as a user-defined route does.
    pub fn route_through_firewall(&self, address: &str) {
        let client = "ip rule add iif client to";
        self.vnet.run(&format!("{client} {address} lookup 100"));
        self.vnet
            .run("ip route replace default via 10.3.0.4 table 100");
    }

    pub fn route_through_firewall_v6(&self, address: &str) {
        self.vnet.run(&format!(
            "ip -6 rule add iif client to {address} lookup 100"
        ));
        self.vnet.run(&format!(
            "ip -6 route replace default via {FIREWALL_V6} table 100"
        ));
    }

    /// Runs nvactl on the firewall.
    pub fn nvactl(&self, args: &[&str]) -> Said {
        self.nvactl_with(args, "")
    }

    /// Runs nvactl on the firewall with a text on its standard input.
    pub fn nvactl_with(&self, args: &[&str], stdin: &str) -> Said {
        crate::nvactl(&self.firewall, args, stdin)
    }

    /// Applies a spec, without a trial for the sake of time, and turns forwarding on.
    pub fn apply(&self, spec: &str) {
        let said = self.nvactl_with(&["apply", "-", "--no-trial"], spec);
        assert_eq!(said.code, 0, "{said:?}");
        let said = self.nvactl(&["sysctl", "enable"]);
        assert_eq!(said.code, 0, "{said:?}");
    }

    /// What a TCP connection from the client brings back.
    pub fn tcp(&self, address: &str, port: u16) -> Outcome {
        let to = traffic::socket(address, port);
        self.client.enter(move || traffic::ask_tcp(&to))
    }

    /// What a datagram from the client brings back.
    pub fn udp(&self, address: &str, port: u16) -> Outcome {
        let to = traffic::socket(address, port);
        self.client.enter(move || traffic::ask_udp(&to))
    }

    /// What `curl` says on the client.
    pub fn curl(&self, address: &str, port: u16) -> String {
        let url = format!("http://{address}:{port}/");
        self.client
            .run(&format!("curl --silent --show-error --max-time 5 {url}"))
    }
}

/// iptables-save's lines without the comments, which carry a time, and without counters.
pub fn save(host: &Host) -> String {
    normal(&host.run("iptables-save"))
}

/// The same of ip6tables-save.
pub fn save_v6(host: &Host) -> String {
    normal(&host.run("ip6tables-save"))
}

/// Takes out of iptables-save text what is different at every look, and orders the tables, which
/// differ by backend and by who was first.
fn normal(text: &str) -> String {
    let lines: String = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| match line.split_once(" [") {
            Some((chain, _)) if chain.starts_with(':') => format!("{chain} [0:0]\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let mut tables: Vec<&str> = lines.split_inclusive("COMMIT\n").collect();
    tables.sort_unstable();
    tables.concat()
}

pub fn example(name: &str) -> String {
    let path = root().join("examples").join(name);
    std::fs::read_to_string(path).expect("the example is there")
}

/// What a run of nvactl left behind.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("nvactl ended by itself"),
            stdout: String::from_utf8(output.stdout).expect("it prints text"),
            stderr: String::from_utf8(output.stderr).expect("it prints text"),
        }
    }
}

//! A machine, as far as a twin copies it: interfaces, routes, policy rules, neighbours and switches. It is read from
//! the live machine, or made up from a spec or from rules.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;

use super::batch::{self, IpError};
use super::proxied::ProxiedAddress;
use super::routes;
use super::switches::Switches;
use crate::host::child;
use crate::net::{Family, Interface};

/// The kernel asks for a neighbour once a second: 60 rounds are enough for one question.
const ROUNDS: u32 = 60;
const ROUND: Duration = Duration::from_millis(20);
/// The most routers without an entry that are asked for. A machine with more has routes for something else than routers,
/// such as a tunnel's other ends.
const MOST_ASKED: usize = 16;

/// Each listing takes milliseconds.
const LIMIT: Duration = Duration::from_secs(10);

/// The network of a machine.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    pub links: Vec<MachineLink>,
    /// As `ip -json -details route show table all` lists them, by family.
    pub routes: Vec<(Family, Value)>,
    /// As `ip -json rule` lists them, by family.
    pub rules: Vec<(Family, Value)>,
    pub neighbours: Vec<Neighbour>,
    pub proxied: Vec<ProxiedAddress>,
    pub switches: Switches,
    /// Interfaces with a filter of tc, which may take a packet apart from all rules.
    pub filtered: Vec<String>,
    /// Interfaces whose names no batch of `ip` can hold. Of the lists, only that of the routes has them.
    pub unnamable: Vec<String>,
    /// The sources and destinations of encryption policies (`ip xfrm policy`).
    pub policies: Vec<(IpNet, IpNet)>,
}

/// A network interface.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are flags of the kernel"
)]
pub struct MachineLink {
    pub name: String,
    pub kind: LinkKind,
    /// `None` for an interface without a hardware address, such as a tunnel.
    pub mac: Option<String>,
    pub mtu: u64,
    pub up: bool,
    pub carrier: bool,
    pub master: Option<String>,
    /// The number or name of its group, unless it is in the default one.
    pub group: Option<String>,
    pub addresses: Vec<Address>,
    /// Whether an XDP program sees its packets before any rule.
    pub xdp: bool,
    /// Whether it is a port of a bridge that sends packets back by the port by which they came.
    pub hairpin: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    Loopback,
    Bridge,
    /// A VRF with this routing table.
    Vrf(u64),
    /// Any other interface. It carries packets.
    Other,
}

/// An address of an interface.
#[derive(Debug, Clone)]
pub struct Address {
    pub net: IpNet,
    pub peer: Option<IpAddr>,
    pub broadcast: Option<IpAddr>,
    pub scope: String,
    pub deprecated: bool,
}

impl Address {
    /// Returns the network that is on the link by this address.
    #[must_use]
    pub fn on_link(&self) -> IpNet {
        match self.peer {
            Some(peer) => IpNet::new(peer, self.net.prefix_len()).unwrap_or(self.net),
            None => self.net,
        }
        .trunc()
    }
}

/// An entry of the neighbour table.
#[derive(Debug, Clone)]
pub struct Neighbour {
    pub address: IpAddr,
    pub interface: String,
    pub permanent: bool,
    /// Whether nobody has answered for the address.
    pub failed: bool,
    /// The port of a bridge behind which the neighbour is, if that is known.
    pub bridge_port: Option<String>,
}

/// The routing table of the machine's own packets.
const MAIN: &str = "main";

/// Returns the network and the interface of a route of the main table.
fn network_of(family: Family, route: &Value) -> Option<(IpNet, Interface)> {
    let is_plain = route["type"].as_str().is_none_or(|kind| kind == "unicast");
    let is_main = route["table"].as_str().is_none_or(|table| table == MAIN);
    if !is_plain || !is_main {
        return None;
    }
    let interface = route["dev"].as_str()?.parse().ok()?;
    let net = match (route["dst"].as_str()?, family) {
        ("default", Family::V4) => "0.0.0.0/0".parse().ok()?,
        ("default", Family::V6) => "::/0".parse().ok()?,
        (net, _) => net
            .parse()
            .or_else(|_| net.parse::<IpAddr>().map(IpNet::from))
            .ok()?,
    };
    Some((net, interface))
}

/// Reads the networks of the live machine's main routing table, each with the interface that leads to it, and nothing
/// else of the machine.
///
/// # Errors
/// If `ip` is missing or fails.
pub fn live_networks() -> Result<Vec<(IpNet, Interface)>, IpError> {
    let mut networks = Vec::new();
    for (family, option) in OPTIONS {
        let routes = batch::list(&[&[option], LIST_ROUTES].concat())?;
        let known = routes.iter().filter_map(|route| network_of(family, route));
        networks.extend(known);
    }
    Ok(networks)
}

/// The option of `ip` for each family, and the arguments that list all routes.
const OPTIONS: [(Family, &str); 2] = [(Family::V4, "-4"), (Family::V6, "-6")];
const LIST_ROUTES: &[&str] = &["-details", "route", "show", "table", "all"];

impl Machine {
    /// Iterates over the networks of the main routing table, each with the interface that leads to it.
    pub fn networks(&self) -> impl Iterator<Item = (IpNet, Interface)> {
        let routes = self.routes.iter();
        routes.filter_map(|(family, route)| network_of(*family, route))
    }

    /// Reads the live machine in whose network namespace the calling thread is.
    ///
    /// # Errors
    /// If `ip` is missing or fails.
    pub fn read() -> Result<Self, IpError> {
        let links = batch::list(&["-details", "address"])?;
        let links = links.iter().filter_map(link);
        let (links, unnamable): (Vec<MachineLink>, Vec<MachineLink>) =
            links.partition(|link| is_namable(&link.name));
        let mut machine = Self {
            links,
            unnamable: unnamable.into_iter().map(|link| link.name).collect(),
            switches: Switches::read(),
            ..Self::default()
        };
        for (family, option) in OPTIONS {
            let routes = batch::list(&[&[option], LIST_ROUTES].concat())?;
            let rules = batch::list(&[option, "rule"])?;
            machine
                .routes
                .extend(routes.into_iter().map(|one| (family, one)));
            machine
                .rules
                .extend(rules.into_iter().map(|one| (family, one)));
        }
        machine.neighbours = neighbours(&machine.links)?;
        machine.proxied = ProxiedAddress::list()?;
        machine.filtered = filtered();
        machine.policies = policies();
        Ok(machine)
    }

    #[must_use]
    pub fn link(&self, name: &str) -> Option<&MachineLink> {
        self.links.iter().find(|link| link.name == name)
    }

    /// Returns the addresses of all interfaces.
    #[must_use]
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        let addresses = self.links.iter().flat_map(|link| &link.addresses);
        addresses.map(|address| address.net.addr()).collect()
    }

    /// Returns the source networks in policy rules.
    #[must_use]
    pub fn sources(&self) -> BTreeSet<IpNet> {
        self.of_rules("src", "srclen").collect()
    }

    /// Returns the networks to which replies may not leave: the destinations in policy rules, and those of routes
    /// that lead nowhere.
    #[must_use]
    pub fn destinations(&self) -> BTreeSet<IpNet> {
        let routes = self.routes.iter().filter_map(|(_, route)| {
            let kind = route["type"].as_str()?;
            let leads_nowhere = matches!(kind, "blackhole" | "prohibit" | "unreachable");
            let text = route["dst"].as_str().filter(|_| leads_nowhere)?;
            let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
            text.parse::<IpNet>().ok().or_else(address)
        });
        self.of_rules("dst", "dstlen").chain(routes).collect()
    }

    fn of_rules(&self, address: &str, length: &str) -> impl Iterator<Item = IpNet> {
        let nets = self.rules.iter().filter_map(move |(_, rule)| {
            let address: IpAddr = rule[address].as_str()?.parse().ok()?;
            let length = rule[length]
                .as_u64()
                .and_then(|length| u8::try_from(length).ok());
            match length {
                Some(length) => IpNet::new(address, length).ok(),
                None => Some(IpNet::from(address)),
            }
        });
        nets.map(|net| net.trunc())
    }

    /// Has the kernel ask for the routers that it has not asked for yet, and again for those that did not answer when they
    /// were last asked, which may be long ago. Waits for their answers for about a second at most.
    ///
    /// # Errors
    /// If `ip` is missing or fails.
    pub fn ask_routers_again(&mut self) -> Result<(), IpError> {
        // An interface without hardware addresses asks for none.
        let asking = self
            .links
            .iter()
            .filter(|link| link.carrier && link.mac.is_some());
        let routers: BTreeSet<(String, IpAddr)> = asking
            .flat_map(|link| {
                let routers = self.gateways(&link.name).into_iter();
                routers.map(|router| (link.name.clone(), router))
            })
            .collect();
        let silent = |machine: &Self| {
            let failed = machine.neighbours.iter().filter(|one| one.failed);
            let failed = failed.map(|one| (one.interface.clone(), one.address));
            failed
                .filter(|one| routers.contains(one))
                .collect::<Vec<_>>()
        };
        let is_known = |(interface, router): &&(String, IpAddr)| {
            let mut neighbours = self.neighbours.iter();
            neighbours.any(|one| one.address == *router && one.interface == *interface)
        };
        let never_asked = routers.iter().filter(|one| !is_known(one));
        let mut asked: Vec<(String, IpAddr)> = never_asked.take(MOST_ASKED).cloned().collect();
        asked.extend(silent(self));
        let commands: String = asked
            .iter()
            .map(|(interface, router)| format!("neigh replace {router} dev {interface} use\n"))
            .collect();
        if commands.is_empty() {
            return Ok(());
        }
        batch::run(&[], &commands)?;
        for _ in 0..ROUNDS {
            thread::sleep(ROUND);
            self.neighbours = neighbours(&self.links)?;
            if silent(self).is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Returns whether nobody answers for an address on one of the machine's links.
    #[must_use]
    pub fn is_dead(&self, address: IpAddr) -> bool {
        let mut dead = self.neighbours.iter().filter(|one| one.failed);
        dead.any(|one| one.address == address)
    }

    /// Returns whether a default route leads out by an interface.
    #[must_use]
    pub fn leads_everywhere(&self, interface: &str, family: Family) -> bool {
        let of_family = self.routes.iter().filter(|(of, _)| *of == family);
        let hops = of_family
            .filter(|(_, route)| route["dst"] == "default")
            .flat_map(|(_, route)| {
                let several = route["nexthops"].as_array().into_iter().flatten();
                several.chain([route])
            });
        hops.into_iter().any(|hop| hop["dev"] == interface)
    }

    /// Returns the networks whose hosts the routes by an interface expect on its link, with no address of its own in them.
    #[must_use]
    pub fn routed_on_link(&self, interface: &str) -> BTreeSet<IpNet> {
        let here = self.routes.iter().filter(|(_, route)| {
            let is_unicast = route["type"].as_str().is_none_or(|kind| kind == "unicast");
            let is_made_by_kernel = route["protocol"] == "kernel";
            is_unicast
                && !is_made_by_kernel
                && routes::is_direct(route)
                && route["dev"] == interface
        });
        here.filter_map(|(family, route)| routes::destination(route, *family))
            .collect()
    }

    /// Returns the networks to which routes by an interface lead, with those of its own addresses.
    #[must_use]
    pub fn networks_by(&self, interface: &str) -> Vec<IpNet> {
        let by = |route: &Value| {
            let several = route["nexthops"].as_array().into_iter().flatten();
            let mut hops = several.chain([route]);
            hops.any(|hop| hop["dev"] == interface)
        };
        // Packets to a broadcast or multicast address are not forwarded.
        let leads = |route: &Value| {
            let kind = route["type"].as_str();
            kind.is_none_or(|kind| matches!(kind, "unicast" | "local"))
        };
        let here = self.routes.iter();
        let here = here.filter(|(_, route)| by(route) && leads(route));
        here.filter_map(|(family, route)| routes::destination(route, *family))
            .filter(|net| !is_link_local(net.addr()) && !net.addr().is_multicast())
            .collect()
    }

    /// Returns the next hops of an interface's routes.
    #[must_use]
    pub fn gateways(&self, interface: &str) -> BTreeSet<IpAddr> {
        let hops = self.routes.iter().flat_map(|(_, route)| {
            let several = route["nexthops"].as_array().into_iter().flatten();
            several.chain([route])
        });
        let here = hops.filter(|hop| hop["dev"] == interface);
        here.filter_map(gateway).collect()
    }
}

/// Returns whether `ip -batch` can read a name: `#` begins a comment there.
fn is_namable(interface: &str) -> bool {
    !interface.contains(['#', '"', '\'', '\\'])
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn gateway(hop: &Value) -> Option<IpAddr> {
    let plain = hop["gateway"].as_str();
    plain.or(hop["via"]["host"].as_str())?.parse().ok()
}

impl MachineLink {
    /// Returns the addresses of one family.
    pub fn of(&self, family: Family) -> impl Iterator<Item = &Address> {
        let addresses = self.addresses.iter();
        addresses.filter(move |address| Family::of(address.net.addr()) == family)
    }

    /// Returns the first address of a family that is not link-local.
    #[must_use]
    pub fn first(&self, family: Family) -> Option<IpAddr> {
        let mut global = self.of(family).filter(|address| address.scope != "link");
        global.next().map(|address| address.net.addr())
    }
}

fn link(value: &Value) -> Option<MachineLink> {
    let has = |flag: &str| {
        let mut flags = value["flags"].as_array().into_iter().flatten();
        flags.any(|one| one == flag)
    };
    let kind = match value["linkinfo"]["info_kind"].as_str() {
        _ if has("LOOPBACK") => LinkKind::Loopback,
        Some("bridge") => LinkKind::Bridge,
        Some("vrf") => LinkKind::Vrf(value["linkinfo"]["info_data"]["table"].as_u64()?),
        _ => LinkKind::Other,
    };
    let addresses = value["addr_info"].as_array().into_iter().flatten();
    Some(MachineLink {
        name: value["ifname"].as_str()?.to_owned(),
        kind,
        mac: value["address"]
            .as_str()
            .filter(|_| value["link_type"] == "ether")
            .map(str::to_owned),
        mtu: value["mtu"].as_u64()?,
        up: has("UP"),
        carrier: has("LOWER_UP") && !has("NO-CARRIER"),
        master: value["master"].as_str().map(str::to_owned),
        group: value["group"]
            .as_str()
            .filter(|group| *group != "default")
            .map(str::to_owned),
        addresses: addresses.filter_map(address).collect(),
        xdp: !value["xdp"].is_null(),
        hairpin: value["linkinfo"]["info_slave_data"]["hairpin"] == true,
    })
}

fn address(value: &Value) -> Option<Address> {
    let parsed = |key: &str| value[key].as_str().and_then(|text| text.parse().ok());
    let local: IpAddr = parsed("local")?;
    // An address that failed duplicate detection is not in use.
    if value["tentative"] == true && value["dadfailed"] == true {
        return None;
    }
    let length = u8::try_from(value["prefixlen"].as_u64()?).ok()?;
    Some(Address {
        net: IpNet::new(local, length).ok()?,
        peer: parsed("address"),
        broadcast: parsed("broadcast"),
        scope: value["scope"].as_str().unwrap_or("global").to_owned(),
        deprecated: value["preferred_life_time"] == 0,
    })
}

/// Lists the neighbours. It is not known behind which ports they are if the program `bridge` is missing.
fn neighbours(links: &[MachineLink]) -> Result<Vec<Neighbour>, IpError> {
    let fdb = if links.iter().any(|link| link.kind == LinkKind::Bridge) {
        printed("bridge", &["-json", "fdb", "show"])
    } else {
        None
    };
    let fdb: Vec<Value> = fdb
        .and_then(|listed| serde_json::from_str(&listed).ok())
        .unwrap_or_default();
    let listed = batch::list(&["neigh"])?;
    Ok(listed
        .iter()
        .filter_map(|one| neighbour(one, &fdb))
        .collect())
}

fn neighbour(value: &Value, fdb: &[Value]) -> Option<Neighbour> {
    let is = |state: &str| {
        let mut states = value["state"].as_array().into_iter().flatten();
        states.any(|one| one == state)
    };
    Some(Neighbour {
        address: value["dst"].as_str()?.parse().ok()?,
        interface: value["dev"].as_str()?.to_owned(),
        permanent: is("PERMANENT"),
        failed: is("FAILED") || is("INCOMPLETE"),
        bridge_port: value["lladdr"].as_str().and_then(|mac| port_of(fdb, mac)),
    })
}

/// Lists the interfaces at which tc has filters. The list is empty if tc is missing.
fn filtered() -> Vec<String> {
    let Some(listed) = printed("tc", &["-json", "qdisc", "show"]) else {
        return Vec::new();
    };
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap_or_default();
    let holders = listed.iter().filter_map(|one| {
        let holds = matches!(one["kind"].as_str()?, "clsact" | "ingress");
        one["dev"].as_str().filter(|_| holds)
    });
    let has_filter = |name: &&str| {
        let mut sides = ["ingress", "egress"].into_iter();
        sides.any(|side| {
            let filters = printed("tc", &["filter", "show", "dev", name, side]);
            filters.is_some_and(|filters| !filters.trim().is_empty())
        })
    };
    let names: BTreeSet<&str> = holders.filter(has_filter).collect();
    names.into_iter().map(str::to_owned).collect()
}

/// Lists the selectors of encryption policies, without those of single sockets.
fn policies() -> Vec<(IpNet, IpNet)> {
    selectors(&printed("ip", &["xfrm", "policy"]).unwrap_or_default())
}

fn selectors(listed: &str) -> Vec<(IpNet, IpNet)> {
    let mut found = Vec::new();
    let mut lines = listed.lines().peekable();
    while let Some(line) = lines.next() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_of_socket = lines
            .peek()
            .is_some_and(|next| next.trim_start().starts_with("socket "));
        if let ["src", source, "dst", destination, ..] = words[..]
            && !line.starts_with(char::is_whitespace)
            && !is_of_socket
            && let (Ok(source), Ok(destination)) = (source.parse(), destination.parse())
        {
            found.push((source, destination));
        }
    }
    found
}

/// Returns the port of a bridge behind which a neighbour of the machine is. `fdb` is the list of `bridge fdb show`.
fn port_of(fdb: &[Value], mac: &str) -> Option<String> {
    let mut entries = fdb.iter();
    let entry = entries.find(|entry| entry["mac"] == mac && entry["master"].is_string())?;
    entry["ifname"].as_str().map(str::to_owned)
}

/// Returns a program's output; `None` if the program is missing or fails.
fn printed(program: &str, args: &[&str]) -> Option<String> {
    let output = child::read(program, args, b"", LIMIT).ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl MachineLink {
        /// Returns an interface that is up and has some addresses.
        pub(crate) fn with(name: &str, addresses: &[&str]) -> Self {
            let address = |text: &&str| Address {
                net: text.parse().expect("an address with a length"),
                peer: None,
                broadcast: None,
                scope: "global".to_owned(),
                deprecated: false,
            };
            Self {
                name: name.to_owned(),
                kind: LinkKind::Other,
                mac: None,
                mtu: 1500,
                up: true,
                carrier: true,
                master: None,
                group: None,
                addresses: addresses.iter().map(address).collect(),
                xdp: false,
                hairpin: false,
            }
        }
    }

    /// The text is from iproute2 6.1: a policy, one of a socket, and one without a protocol.
    #[test]
    fn a_policy_of_ipsec_has_a_selector() {
        let listed = "src 10.1.0.0/16 dst 10.2.0.0/16 proto tcp \n\tdir fwd priority 0 ptype main \n\
            \ttmpl src 192.0.2.1 dst 192.0.2.2\n\t\tproto esp reqid 0 mode tunnel\n\
            src 0.0.0.0/0 dst 0.0.0.0/0 \n\tsocket in priority 0 ptype main \n\
            src ::/0 dst fd00::/8 \n\tdir out priority 0 ptype main \n";
        let found: Vec<String> = selectors(listed)
            .iter()
            .map(|(source, destination)| format!("{source} {destination}"))
            .collect();
        assert_eq!(found, ["10.1.0.0/16 10.2.0.0/16", "::/0 fd00::/8"]);
    }

    #[test]
    fn a_host_is_behind_the_port_at_which_its_address_was_seen() {
        let listed = serde_json::json!([
            {"mac":"33:33:00:00:00:01","ifname":"br0","flags":["self"],"state":"permanent"},
            {"mac":"02:00:00:00:00:02","ifname":"eth0","flags":["self"],"state":"permanent"},
            {"mac":"02:00:00:00:00:02","ifname":"veth1","flags":[],"master":"br0","state":""},
        ]);
        let listed = listed.as_array().expect("a list");
        assert_eq!(
            port_of(listed, "02:00:00:00:00:02").as_deref(),
            Some("veth1")
        );
        assert_eq!(port_of(listed, "33:33:00:00:00:01"), None);
    }
}

//! The namespaces of a twin: the machine's interfaces, addresses, routes and switches in one, and a world behind each
//! interface that carries packets.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use thiserror::Error;

use super::batch::IpError;
use super::batch::{self, RefusedCommand};
use super::bridge;
use super::machine::{Address, LinkKind, Machine, MachineLink};
use super::netns::Netns;
use super::proxied::ProxiedAddress;
use super::world::{NO_MAC, World};
use super::{routes, switches};
use crate::host::user_namespace::UserNamespaceError;
use crate::net::Family;

#[derive(Debug, Error)]
pub enum WiringError {
    #[error("no network namespace can be made: {}", refusal(.0))]
    Namespace(io::Error),
    #[error(transparent)]
    Ip(#[from] IpError),
    #[error("the copy's interface {interface} cannot be made: {words}")]
    Interface { interface: String, words: String },
    #[error(
        "a copy cannot be told to forward packets, because the settings in /proc/sys/net cannot be written here: {}",
        unwritable(.0)
    )]
    Switches(io::Error),
    #[error("the time limit was reached before the copy had all {0} interfaces")]
    Late(usize),
}

/// Says why the kernel makes no namespace (unshare(2)).
fn refusal(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "nvactl lacks CAP_SYS_ADMIN, as in a container or a sandboxed unit".to_owned()
        }
        io::ErrorKind::StorageFull => {
            "as many as `user.max_net_namespaces` admits are in use".to_owned()
        }
        _ => error.to_string(),
    }
}

/// Says why the settings cannot be written.
fn unwritable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            "/proc/sys is mounted read-only, as in a container".to_owned()
        }
        _ => error.to_string(),
    }
}

impl WiringError {
    /// Returns the fix, if it is outside of nvactl.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Switches(_) => Some(
                "to make them writable, as root: mount -o remount,bind,rw /proc/sys\n\
                 hint: with Docker, start the container with: docker run --privileged"
                    .to_owned(),
            ),
            Self::Namespace(error) => match error.kind() {
                io::ErrorKind::PermissionDenied => Some(UserNamespaceError::Forbidden.hint()),
                io::ErrorKind::StorageFull => {
                    Some("to allow more: sudo sysctl -w user.max_net_namespaces=15000".to_owned())
                }
                _ => None,
            },
            Self::Ip(error) => error.hint(),
            Self::Interface { .. } | Self::Late(_) => None,
        }
    }
}

/// A twin without rules.
#[derive(Debug)]
pub struct Wired {
    pub machine: Netns,
    pub worlds: Vec<World>,
    /// Routes, policy rules and switches that the twin lacks.
    pub left_out: Vec<RefusedCommand>,
}

/// Makes the namespaces, interfaces, addresses and routes. The calling thread is in the twin's machine namespace
/// afterwards.
///
/// # Errors
/// If a namespace or an interface cannot be made, if its switches cannot be set, or [`WiringError::Late`] if the
/// deadline passes: each interface takes about 20 ms.
pub fn wire(machine: &Machine, deadline: Option<Instant>) -> Result<Wired, WiringError> {
    let mut worlds = Vec::new();
    let links: Vec<&MachineLink> = machine
        .links
        .iter()
        .filter(|link| has_world(machine, link))
        .collect();
    let in_time = || match deadline {
        Some(deadline) if Instant::now() >= deadline => Err(WiringError::Late(links.len())),
        _ => Ok(()),
    };
    for link in &links {
        in_time()?;
        let world = World::make(machine, link, worlds.len());
        worlds.push(world.map_err(WiringError::Namespace)?);
    }
    let netns = Netns::make().map_err(WiringError::Namespace)?;
    switches::try_to_write().map_err(WiringError::Switches)?;
    for (name, value) in [
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
        ("ipv6/conf/default/router_solicitations", "0"),
    ] {
        switches::set(name, value);
    }
    make_interfaces(machine, &worlds, in_time)?;
    let unset = machine.switches.set();
    for link in machine.links.iter().filter(|link| is_made(machine, link)) {
        for family in ["ipv4", "ipv6"] {
            switches::set(&format!("{family}/neigh/{}/proxy_delay", link.name), "0");
        }
    }
    let mut left_out: Vec<RefusedCommand> = unset
        .into_iter()
        .map(|name| RefusedCommand {
            family: None,
            command: name,
            why: "the kernel lets no namespace but the first set it".to_owned(),
        })
        .collect();
    left_out.extend(batch::run(&[], &addresses(machine))?);
    for world in &worlds {
        in_time()?;
        world.netns.enter().map_err(WiringError::Namespace)?;
        if let Some(link) = machine.link(&world.interface) {
            world.settle(machine, link)?;
        }
    }
    await_neighbours(machine, &worlds, &netns).map_err(WiringError::Namespace)?;
    netns.enter().map_err(WiringError::Namespace)?;
    for family in Family::ALL {
        let (text, unknown) = route_commands(machine, &worlds, family);
        left_out.extend(unknown);
        let option = match family {
            Family::V4 => "-4",
            Family::V6 => "-6",
        };
        left_out.extend(batch::run(&[option], &text)?);
        for one in differences(machine, family)? {
            let is_named = |known: &RefusedCommand| {
                known.family == one.family && known.command.trim_end() == one.command.trim_end()
            };
            if !left_out.iter().any(is_named) {
                left_out.push(one);
            }
        }
    }
    Ok(Wired {
        machine: netns,
        worlds,
        left_out,
    })
}

/// The longest time for which the kernel may put off the work after `ip link set up`.
const PUT_OFF: Duration = Duration::from_secs(1);

/// Waits until machine and worlds find each other by IPv6. Some time after an interface is up, the kernel gives it the
/// route for multicast and, in a world, a link-local address. Until then neighbour discovery fails, and the kernel tries
/// it again after a second.
fn await_neighbours(machine: &Machine, worlds: &[World], netns: &Netns) -> io::Result<()> {
    let until = Instant::now() + PUT_OFF;
    let await_in = |netns: &Netns, is_ready: &dyn Fn() -> bool| -> io::Result<()> {
        netns.enter()?;
        while !is_ready() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    };
    for world in worlds {
        let link = machine.link(&world.interface);
        let Some(link) = link.filter(|link| link.up && link.carrier && link.mtu >= LEAST_MTU)
        else {
            continue;
        };
        await_in(netns, &|| is_off(&link.name) || takes_multicast(&link.name))?;
        await_in(&world.netns, &|| {
            is_off(world.port()) || has_link_local(world.port())
        })?;
    }
    Ok(())
}

/// The least MTU with which an interface has IPv6 (RFC 8200, 5).
const LEAST_MTU: u64 = 1280;

/// Whether an interface of the calling thread's namespace has no IPv6.
fn is_off(interface: &str) -> bool {
    let off = switches::one(&format!("ipv6/conf/{interface}/disable_ipv6"));
    off.is_none_or(|off| off.trim() == "1")
}

/// Whether an interface of the calling thread's namespace has the route for multicast, `ff00::/8`.
fn takes_multicast(interface: &str) -> bool {
    let routes = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default();
    let mut to_multicast = routes.lines().filter(|line| line.starts_with("ff000000"));
    to_multicast.any(|line| line.split_ascii_whitespace().next_back() == Some(interface))
}

/// Whether an interface of the calling thread's namespace has a link-local address.
fn has_link_local(interface: &str) -> bool {
    let addresses = fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
    let mut of_link = addresses.lines().filter(|line| line.starts_with("fe80"));
    of_link.any(|line| line.split_ascii_whitespace().next_back() == Some(interface))
}

/// Interfaces that the kernel puts into each new namespace, down, if it supports their tunnels
/// (`fb_tunnels_only_for_init_net` in Documentation/admin-guide/sysctl/net.rst).
const FALLBACK: [&str; 9] = [
    "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "sit0", "ip6tnl0", "ip6gre0", "ip6_vti0",
];

/// Returns whether an interface gets a world. The port of a bridge gets none. An interface without an address that
/// belongs to another one gets none either, such as the accelerated one that a cloud enslaves to `eth0`.
fn has_world(machine: &Machine, link: &MachineLink) -> bool {
    if FALLBACK.contains(&link.name.as_str()) && !link.up {
        return false;
    }
    let master = link.master.as_ref();
    match link.kind {
        LinkKind::Other => match master.and_then(|name| machine.link(name)) {
            Some(master) if master.kind == LinkKind::Bridge => false,
            Some(_) => !link.addresses.is_empty(),
            None => master.is_none() || !link.addresses.is_empty(),
        },
        LinkKind::Bridge => true,
        LinkKind::Loopback | LinkKind::Vrf(_) => false,
    }
}

/// Returns whether the twin has an interface. It has one port of each bridge.
fn is_made(machine: &Machine, link: &MachineLink) -> bool {
    let is_port = |master: &String| {
        let port = bridge::port(machine, master);
        port.is_some_and(|port| port.name == link.name)
    };
    link.kind != LinkKind::Other
        || has_world(machine, link)
        || link.master.as_ref().is_some_and(is_port)
}

fn make_interfaces(
    machine: &Machine,
    worlds: &[World],
    in_time: impl Fn() -> Result<(), WiringError>,
) -> Result<(), WiringError> {
    for link in machine
        .links
        .iter()
        .filter(|link| link.kind == LinkKind::Bridge || matches!(link.kind, LinkKind::Vrf(_)))
    {
        make(link, None)?;
    }
    for world in worlds {
        in_time()?;
        let Some(link) = machine.link(&world.interface) else {
            continue;
        };
        if link.kind == LinkKind::Bridge {
            // A bridge without a port has no carrier.
            if let Some(port) = bridge::port(machine, &link.name) {
                make(port, Some(world))?;
                let text = bridge::join(machine, &port.name, &link.name);
                refused_none(&link.name, batch::run(&[], &text)?)?;
            }
        } else {
            make(link, Some(world))?;
            let vrf = link.master.as_ref().and_then(|name| machine.link(name));
            if let Some(vrf) = vrf.filter(|vrf| matches!(vrf.kind, LinkKind::Vrf(_))) {
                let text = format!("link set dev {} master {}\n", link.name, vrf.name);
                refused_none(&link.name, batch::run(&[], &text)?)?;
            }
        }
    }
    // Packets of the twin are as long as the machine's own: rules would count several as one if the kernel joined
    // them. Older versions of iproute2 do not know this setting.
    let ends = machine.links.iter().map(|link| &link.name);
    let text: String = ends
        .map(|name| format!("link set dev {name} gso_max_segs 1\n"))
        .collect();
    let _ = batch::run(&[], &text)?;
    Ok(())
}

/// Makes one interface, and its other end in the world if it leads to one.
fn make(link: &MachineLink, world: Option<&World>) -> Result<(), WiringError> {
    let MachineLink { name, mtu, .. } = link;
    let mac = match (link.kind, &link.mac) {
        (LinkKind::Vrf(_), _) => String::new(),
        (_, Some(mac)) => format!("address {mac}"),
        (_, None) => format!("address {NO_MAC}"),
    };
    let kind = match (link.kind, world) {
        (LinkKind::Bridge, None) => "type bridge".to_owned(),
        (LinkKind::Vrf(table), None) => format!("type vrf table {table}"),
        (_, None) => "type veth".to_owned(),
        (_, Some(world)) => format!(
            "type veth peer name {} address {} mtu {mtu} netns {}",
            world.port(),
            world.mac(),
            world.netns.path()
        ),
    };
    done(
        name,
        &format!(
            "link add name {name} {mac} mtu {mtu} {kind}\n{}",
            extras(link)
        ),
    )
}

fn extras(link: &MachineLink) -> String {
    let arp = if link.mac.is_none() {
        format!("link set dev {} arp off\n", link.name)
    } else {
        String::new()
    };
    let group = match &link.group {
        Some(group) => format!("link set dev {} group {group}\n", link.name),
        None => String::new(),
    };
    format!("{arp}{group}link set dev {} addrgenmode none\n", link.name)
}

fn done(name: &str, text: &str) -> Result<(), WiringError> {
    let refused = batch::run(&[], text)?;
    // A kernel without IPv6 has no such mode.
    let refused = refused
        .into_iter()
        .filter(|one| !one.command.ends_with("addrgenmode none"));
    refused_none(name, refused.collect())
}

fn refused_none(interface: &str, refused: Vec<RefusedCommand>) -> Result<(), WiringError> {
    match refused.into_iter().next() {
        None => Ok(()),
        Some(refused) => Err(WiringError::Interface {
            interface: interface.to_owned(),
            words: refused.why,
        }),
    }
}

/// Returns the commands that give the interfaces their addresses and switch them on.
fn addresses(machine: &Machine) -> String {
    let mut text = String::new();
    for link in &machine.links {
        // The kernel lists the IPv6 address first that was added last (`ipv6_link_dev_addr` in net/ipv6/addrconf.c), and
        // takes the first of equally good ones as the source.
        let (v6, v4): (Vec<&Address>, Vec<&Address>) = link
            .addresses
            .iter()
            .partition(|one| one.net.addr().is_ipv6());
        for Address {
            net,
            peer,
            broadcast,
            scope,
            deprecated,
        } in v4.into_iter().chain(v6.into_iter().rev())
        {
            // The kernel gives `lo` these addresses itself.
            if link.kind == LinkKind::Loopback && net.addr().is_loopback() {
                continue;
            }
            let local = net.addr();
            match peer {
                Some(peer) => {
                    let _ = write!(text, "address add {local} peer {peer}/{}", net.prefix_len());
                }
                None => {
                    let _ = write!(text, "address add {net}");
                }
            }
            if let Some(broadcast) = broadcast {
                let _ = write!(text, " broadcast {broadcast}");
            }
            let _ = write!(text, " dev {} scope {scope} noprefixroute", link.name);
            if net.addr().is_ipv6() {
                text.push_str(" nodad");
            }
            if *deprecated {
                text.push_str(" preferred_lft 0");
            }
            text.push('\n');
        }
    }
    let made = machine.links.iter().filter(|link| is_made(machine, link));
    for link in made.filter(|link| link.up) {
        let _ = writeln!(text, "link set dev {} up", link.name);
    }
    text
}

/// Returns the commands for routes, policy rules and permanent neighbours of one family, and the ones that cannot be
/// copied.
fn route_commands(
    machine: &Machine,
    worlds: &[World],
    family: Family,
) -> (String, Vec<RefusedCommand>) {
    let (mut text, mut unknown) = (String::new(), Vec::new());
    let mut listed = copied_routes(machine, family);
    listed.sort_by_key(|route| !routes::is_direct(route));
    for route in listed {
        match routes::route(route) {
            Ok(route) => {
                let _ = writeln!(text, "route append {route}");
            }
            Err(key) => unknown.push(not_known(family, route, &key)),
        }
    }
    // A new namespace has the kernel's own rules.
    let _ = writeln!(text, "rule flush");
    for (_, rule) in machine.rules.iter().filter(|(of, _)| *of == family) {
        match routes::rule(rule) {
            // `flush` keeps the rule with priority 0.
            Ok(_) if is_first(rule) => {}
            Ok(rule) => {
                let _ = writeln!(text, "rule add {rule}");
            }
            Err(key) => unknown.push(not_known(family, rule, &key)),
        }
    }
    let mut rules = machine.rules.iter().filter(|(of, _)| *of == family);
    let is_any = rules.clone().next().is_some();
    if is_any && !rules.any(|(_, rule)| is_first(rule)) {
        text.push_str("rule del priority 0\n");
    }
    for one in machine
        .neighbours
        .iter()
        .filter(|one| one.permanent && Family::of(one.address) == family)
    {
        if let Some(mac) = worlds
            .iter()
            .find(|world| world.interface == one.interface)
            .map(World::mac)
        {
            let _ = writeln!(
                text,
                "neigh replace {} lladdr {mac} dev {} nud permanent",
                one.address, one.interface
            );
        }
    }
    let of_family = |one: &&ProxiedAddress| Family::of(one.address) == family;
    for one in machine.proxied.iter().filter(of_family) {
        let interface = one.interface.iter().map(|name| format!(" dev {name}"));
        let interface: String = interface.collect();
        let _ = writeln!(text, "neigh add proxy {}{interface}", one.address);
    }
    (text, unknown)
}

/// Returns whether a rule is the kernel's own first rule.
fn is_first(rule: &Value) -> bool {
    rule["priority"] == 0 && rule["table"] == "local"
}

/// Returns the routes of the machine that the twin needs: the kernel makes the others itself.
fn copied_routes(machine: &Machine, family: Family) -> Vec<&Value> {
    let is_here = |name: &Value| {
        let name = name.as_str();
        name.is_none_or(|name| {
            let link = machine.link(name);
            link.is_some_and(|link| has_world(machine, link) || link.kind != LinkKind::Other)
        })
    };
    let listed = machine.routes.iter().filter(|(of, _)| *of == family);
    listed
        .map(|(_, route)| route)
        .filter(|route| !routes::is_automatic(route) && is_here(&route["dev"]))
        .collect()
}

/// Lists the routes and rules of the twin, and returns those that differ from the machine's. The calling thread is in
/// the twin's machine namespace.
fn differences(machine: &Machine, family: Family) -> Result<Vec<RefusedCommand>, IpError> {
    let option = match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    };
    let routes = batch::list(&[option, "-details", "route", "show", "table", "all"])?;
    let rules = batch::list(&[option, "rule"])?;
    let wanted = copied_routes(machine, family);
    let here = routes.iter().filter(|route| !routes::is_automatic(route));
    let mut found = different(family, "route append ", routes::route, wanted, here);
    let wanted = machine.rules.iter().filter(|(of, _)| *of == family);
    let wanted = wanted.map(|(_, rule)| rule);
    found.extend(different(family, "rule add ", routes::rule, wanted, &rules));
    Ok(found)
}

fn different<'v>(
    family: Family,
    verb: &str,
    words: fn(&Value) -> Result<String, String>,
    wanted: impl IntoIterator<Item = &'v Value>,
    here: impl IntoIterator<Item = &'v Value>,
) -> Vec<RefusedCommand> {
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for words in wanted.into_iter().filter_map(|one| words(one).ok()) {
        *counts.entry(words).or_default() += 1;
    }
    for words in here.into_iter().filter_map(|one| words(one).ok()) {
        *counts.entry(words).or_default() -= 1;
    }
    let differing = counts.into_iter().filter(|(_, count)| *count != 0);
    let refused = differing.map(|(words, count)| RefusedCommand {
        family: Some(family),
        command: format!("{verb}{words}"),
        why: if count > 0 {
            "the copy lacks it".to_owned()
        } else {
            "the copy has it and the machine does not".to_owned()
        },
    });
    refused.collect()
}

fn not_known(family: Family, listed: &Value, key: &str) -> RefusedCommand {
    RefusedCommand {
        family: Some(family),
        command: listed.to_string(),
        why: format!("`{key}` is not known"),
    }
}

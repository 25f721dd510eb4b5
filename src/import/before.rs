//! The packets of a redirection that an earlier rule takes.

use std::net::IpAddr;

use ipnet::IpNet;

use super::addresses::Addresses;
use super::conditions::RuleConditions;
use super::redirect::Redirect;
use crate::net::{Family, Interface, PortRange, Protocol};
use crate::netfilter::negatable::Negatable::{Is, Not};

/// The packets of a redirection that an earlier rule takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TakenBefore {
    Nothing,
    Sources(Addresses),
    Ports(Vec<PortRange>),
    Everything,
    /// A part that a spec cannot leave out, in words.
    Part(String),
}

impl TakenBefore {
    /// Some packets left the chain of the earlier rule before it.
    pub fn after_exception() -> Self {
        Self::Part("after an exception".to_owned())
    }
}

/// Returns the packets of a redirection that meet earlier conditions. `ingress` are the interfaces of the redirection.
pub fn taken_before(
    one: &Redirect<'_>,
    ingress: &[Interface],
    earlier: &RuleConditions<'_>,
    family: Family,
) -> TakenBefore {
    let protocol = |asked: &&Protocol| {
        let wanted = earlier.protocol;
        wanted.is_none_or(|wanted| wanted.holds(|one| one.transport() == Some(**asked)))
    };
    let protocols = one.protocols.iter().filter(protocol).count();
    let arrivals = ingress.iter().filter(|one| earlier.arrive_on(one)).count();
    let ports: Vec<PortRange> = one.listens.iter().map(|listen| listen.ports).collect();
    let has_port = earlier.ports.as_ref().is_none_or(|taken| {
        let mut each = taken.iter();
        each.any(|taken| ports.iter().any(|port| port.overlaps(*taken)))
    });
    let sources = one.sources.common(&earlier.sources(family));
    let destination = destination(one.listens[0].address, earlier, family);
    if protocols == 0
        || arrivals == 0
        || !has_port
        || sources.is_empty()
        || destination == SharedAddress::Another
        || earlier.for_replies
    {
        return TakenBefore::Nothing;
    }
    // A packet that left a built-in chain before the earlier rule does not reach the redirection either.
    let mut exceptions = earlier.exceptions.iter();
    let is_for_some = exceptions.any(|(place, _)| !place.chain.is_builtin());
    if !earlier.is_plain() {
        let words = earlier.beyond_words();
        return TakenBefore::Part(format!("by {words}"));
    }
    if is_for_some {
        return TakenBefore::after_exception();
    }
    if let SharedAddress::Some(words) = destination {
        return TakenBefore::Part(words);
    }
    let all_ports = earlier.ports.as_ref().is_none_or(|taken| {
        let left = taken.iter().fold(ports.clone(), |left, taken| {
            left.into_iter()
                .flat_map(|one| one.without(*taken))
                .collect()
        });
        left.is_empty()
    });
    let all_ways = protocols == one.protocols.len() && arrivals == ingress.len();
    let all_sources = one.sources.are_within(&sources);
    match (all_ways, all_ports, all_sources) {
        (true, true, true) => TakenBefore::Everything,
        (true, true, false) => TakenBefore::Sources(sources),
        (true, false, true) => TakenBefore::Ports(earlier.ports.clone().unwrap_or_default()),
        _ => TakenBefore::Part("by several conditions together".to_owned()),
    }
}

/// The addresses for which a redirection and earlier conditions both are.
#[derive(Debug, PartialEq, Eq)]
enum SharedAddress {
    Another,
    Same,
    Some(String),
}

fn destination(
    listen: Option<IpAddr>,
    earlier: &RuleConditions<'_>,
    family: Family,
) -> SharedAddress {
    let asked = earlier.destinations(family);
    match listen {
        Some(address)
            if asked
                .common(&Addresses::of(IpNet::from(address)))
                .is_empty() =>
        {
            SharedAddress::Another
        }
        Some(_) => SharedAddress::Same,
        None if asked.are_all() => SharedAddress::Same,
        None if earlier.destination.iter().all(|net| match net {
            Is(net) => is_of_many(net.addr()),
            Not(_) => false,
        }) =>
        {
            SharedAddress::Another
        }
        None => SharedAddress::Some("by their destination".to_owned()),
    }
}

/// Returns whether no connection can be opened to an address: multicast and broadcast.
fn is_of_many(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    }
}

//! The path of one connection through a twin: the hooks in order, the rules that decided, translations, routes and
//! the end.
//!
//! The kernel traces the packets of the connection. The rules of iptables-legacy are known by their counters, which
//! do not tell packets from replies: a rule for known connections, or for other addresses and ports than the request's, is
//! one of the replies' path. Any other rule is taken for one of the request's path.

mod read;
mod values;

pub use values::{
    Arrival, PathPart, PathRoute, PathRule, RouteTo, RuleEffect, SpecPart, TracedConnection,
    TracedEnd, TracedPath,
};

use std::net::SocketAddr;

use super::cause::{Conversation, Header, PacketPath, Stage, Taken, WatchReport};
use super::connection::{Connection, Opener};
use super::connection_end::{ConnectionEnd, Reached};
use super::repeat::watch;
use super::talk::From;
use super::{Twin, TwinError};
use crate::net::{Family, Port};

/// Opens a connection through a twin and follows it. The calling thread is in the twin's machine namespace afterwards.
/// `likely` is that of [`Opener::open`].
///
/// # Errors
/// If no connection can be opened, or if its packets cannot be watched.
pub fn trace(
    twin: &Twin,
    connection: &Connection,
    likely: &[Port],
) -> Result<TracedConnection, TwinError> {
    let mut opener = Opener::of(twin)?;
    let watch = watch(twin, Family::of(connection.to))?;
    let end = opener.open(connection, likely);
    twin.enter()?;
    let report = watch.end()?;
    drop(opener);
    let end = end?;
    let asked = conversation(connection);
    let packet = request(&report, &asked, end.reached());
    let came = packet.and_then(PacketPath::first);
    let port = came.and_then(|header| Port::new(header.ports?.0));
    let request = match packet {
        Some(packet) => read::request(&report, packet)?,
        None => read::untraced(&report),
    };
    let reply = end
        .reached()
        .and_then(|reached| reply(&report, &asked, reached));
    let reply = reply.map(|reply| read::reply(&report, reply, packet));
    let taken = || -> Result<Option<Taken>, TwinError> { Ok(report.taken(&asked)?) };
    let arrival = |reached: Reached| Arrival {
        interface: twin.worlds()[reached.world].interface.clone(),
        reached,
    };
    let is_here = packet.is_some_and(|packet| packet.left(Stage::Input));
    let end = match end {
        ConnectionEnd::Delivered(reached) => TracedEnd::Delivered(arrival(reached)),
        ConnectionEnd::Stuck(reached) => TracedEnd::Stuck(arrival(reached), taken()?),
        ConnectionEnd::Refused(_) | ConnectionEnd::Silent if is_here => TracedEnd::Machine,
        ConnectionEnd::Refused(kind) => TracedEnd::Refused(kind, taken()?),
        ConnectionEnd::Silent => TracedEnd::Silent(taken()?),
    };
    let mut traced = TracedConnection {
        connection: Connection {
            client_port: connection.client_port.or(port),
            ..connection.clone()
        },
        ingress: match connection.from {
            From::World(number) => Some(twin.worlds()[number].interface.clone()),
            From::Machine => None,
        },
        request,
        reply: reply.transpose()?,
        end,
        is_traced: report.traced,
    };
    for route in traced.routes_mut() {
        if route.to != RouteTo::Machine {
            route.next_hops = twin.machine().next_hops(route.destination);
        }
    }
    for rule in traced.rules_mut() {
        if twin.lacks_rules_of(&rule.holder) {
            rule.live_place = None;
        }
    }
    Ok(traced)
}

fn conversation(connection: &Connection) -> Conversation {
    Conversation {
        protocol: connection.protocol,
        client: connection.client,
        listen: connection.to,
        port: connection.destination().port(),
        targets: Vec::new(),
        sources: Vec::new(),
    }
}

/// Returns the first packet of the connection. If the connection was opened several times, it is the one that reached
/// the target, else the first.
fn request<'s>(
    report: &'s WatchReport,
    asked: &Conversation,
    reached: Option<&Reached>,
) -> Option<&'s PacketPath> {
    let mut requests = report.paths.iter().filter(|path| asked.requests(path));
    let arrives = |path: &&PacketPath| {
        let last = path.end().and_then(|step| step.header);
        let (from, to) = (last.and_then(source), last.and_then(destination));
        reached.is_some_and(|at| from == Some(at.source) && to == Some(at.target))
    };
    requests.clone().find(arrives).or_else(|| requests.next())
}

/// Returns the first packet of the target.
fn reply<'s>(
    report: &'s WatchReport,
    asked: &Conversation,
    reached: &Reached,
) -> Option<&'s PacketPath> {
    let servers = [(reached.target.ip(), reached.target.port())];
    let mut paths = report.paths.iter();
    paths.find(|path| {
        let to = path.first().and_then(destination);
        asked.replies(path, &servers) && !asked.requests(path) && to == Some(reached.source)
    })
}

/// Returns the source of a packet; a ping has port 0, and a fragment has none.
fn source(header: Header) -> Option<SocketAddr> {
    let (port, _) = header.ports?;
    Some(SocketAddr::new(header.source, port))
}

fn destination(header: Header) -> Option<SocketAddr> {
    let (_, port) = header.ports?;
    Some(SocketAddr::new(header.destination, port))
}

//! The path of one connection through a twin: the hooks in order, the rules that decided, translations, routes and
//! the end.
//!
//! The kernel traces the packets of the connection. The rules of iptables-legacy are known by their counters, which
//! do not tell packets from replies: a rule for known connections is one of the replies' path.

mod read;
mod values;

pub use values::{
    Arrival, PathPart, PathRoute, PathRule, RouteTo, RuleEffect, SpecPart, TracedConnection,
    TracedEnd, TracedPath,
};

use std::net::IpAddr;

use super::cause::{Conversation, Direction, PacketPath, Stage, Taken, WatchReport};
use super::connection::{Connection, ConnectionEnd, Opener};
use super::repeat::watch;
use super::talk::{From, Reached};
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
        Some(packet) => read::path(&report, packet, Direction::Request)?,
        None => read::untraced(&report),
    };
    let reply = end
        .reached()
        .and_then(|reached| reply(&report, &asked, reached));
    let reply = reply.map(|packet| read::path(&report, packet, Direction::Reply));
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
    Ok(TracedConnection {
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
    })
}

fn conversation(connection: &Connection) -> Conversation {
    Conversation {
        protocol: connection.protocol,
        client: connection.client,
        listen: connection.to,
        port: connection.destination().port(),
        targets: Vec::new(),
        source: None,
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
    let reaches = |path: &&PacketPath| {
        let last = path.end().and_then(|step| step.header);
        let to = last.and_then(|header| Some((header.destination, header.ports?.1)));
        let from = last.and_then(|header| Some((header.source, header.ports?.0)));
        let is = |end: Option<(IpAddr, u16)>, at: std::net::SocketAddr| {
            end == Some((at.ip(), at.port()))
        };
        reached.is_some_and(|reached| is(to, reached.target) && is(from, reached.source))
    };
    requests.clone().find(reaches).or_else(|| requests.next())
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
        let to = path
            .first()
            .and_then(|header| Some((header.destination, header.ports?.1)));
        let is_to_source = to == Some((reached.source.ip(), reached.source.port()));
        asked.replies(path, &servers) && !asked.requests(path) && is_to_source
    })
}

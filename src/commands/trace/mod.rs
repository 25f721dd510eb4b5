//! `nvactl trace`: one connection through a copy of a machine, hook by hook.

mod error;
mod json;
mod subject;
mod traced;

use std::net::IpAddr;

use ipnet::IpNet;

use super::console::Console;
use super::copy_source::{made_up_note, stranger};
use super::error::{Error, Result};
use super::exit::Exit;
use super::host::HostAccess;
use crate::cli::{DestinationArg, TraceArgs, TraceFormat};
use crate::forwards::OutboundProtocol;
use crate::health::trace_text;
use crate::net::{Family, Port};
use crate::twin::connection::{ClientSides, Connection, PlaceError, own_address};
use crate::twin::netns;
use crate::twin::packet_tests::unordered;
use crate::twin::talk::From;
use crate::twin::traced::{TracedConnection, TracedEnd, trace};
use crate::twin::{Twin, TwinError};
use subject::TraceSubject;
use traced::Traced;

pub use error::TraceError;

pub fn run(args: &TraceArgs, on: HostAccess<'_>, console: &mut Console) -> Result<Exit> {
    check(args)?;
    let subject = TraceSubject::read(args.subject.as_deref(), console)?;
    subject.enter_namespaces()?;
    let traced = netns::aside(|| through(&subject, args, on)).map_err(Error::Thread)??;
    let connection = &traced.connection;
    let ingress = args.ingress.as_ref();
    if let Some(warning) = ingress.and_then(|interface| subject.unnamed(interface)) {
        console.warn(warning);
    }
    match args.format {
        TraceFormat::Text => {
            if !traced.made_up.is_empty() {
                console.note(made_up_note(subject.name(), &traced.made_up));
            }
            console.print(&trace_text::text(connection));
        }
        TraceFormat::Json => console.say_json(&json::object(&traced))?,
    }
    for address in &traced.strangers {
        console.note(stranger(subject.name(), *address));
    }
    for rule in &traced.left_out {
        console.warn(format_args!("the copy lacks this: {rule}"));
    }
    for rule in &traced.unknown {
        console.warn(format_args!(
            "the machine may treat the packets otherwise because of this: {rule}"
        ));
    }
    if !traced.unknown.is_empty() {
        console.warn("the end of the connection on the machine is unknown");
    }
    if let TracedEnd::Delivered(arrival) = &connection.end {
        let target = trace_text::end(arrival.reached.target);
        let live = "`nvactl doctor` and `nvactl probe` try the target itself";
        let asked = if subject.is_live() {
            live
        } else {
            "try the target itself"
        };
        console.note(format_args!(
            "targets of a copy answer on every port: rules cannot tell whether {target} does; {asked}"
        ));
        if traced.unknown.is_empty() {
            return Ok(Exit::Done);
        }
    }
    Ok(Exit::Differs)
}

/// Refuses a destination that the protocol cannot have.
fn check(args: &TraceArgs) -> Result<(), TraceError> {
    let is_ping = args.protocol == OutboundProtocol::Ping;
    match args.to {
        DestinationArg::Own(_) | DestinationArg::Address(_, Some(_)) if is_ping => {
            Err(TraceError::PortOfPing)
        }
        DestinationArg::Address(address, None) if !is_ping => Err(TraceError::NoPort(address)),
        DestinationArg::Address(to, _) if Family::of(to) != Family::of(args.from.address) => {
            Err(TraceError::Families {
                client: args.from.address,
                to,
            })
        }
        _ => Ok(()),
    }
}

fn through(subject: &TraceSubject, args: &TraceArgs, on: HostAccess<'_>) -> Result<Traced> {
    let client = args.from.address;
    let side = args
        .ingress
        .clone()
        .map(|interface| (IpNet::from(client), interface));
    let to = match args.to {
        DestinationArg::Own(_) => None,
        DestinationArg::Address(address, _) => Some(address),
    };
    let mut source = subject.copied((client, to), side, on)?;
    let made_up = std::mem::take(&mut source.words);
    let strangers = std::mem::take(&mut source.strangers);
    let mut twin = source.twin(None)?;
    let sides = ClientSides::of(&twin, [client]);
    let from = sides.place(client, args.ingress.as_ref());
    let from = from.map_err(TraceError::Place)?;
    let (to, port) = destination(&twin, args, from).map_err(TraceError::Place)?;
    let connection = Connection {
        protocol: args.protocol,
        client,
        client_port: args.from.port,
        from,
        to,
        port,
        bytes: args.size,
    };
    let mut likely = subject.likely(args.protocol, to, port);
    let traced = traced(&mut twin, &connection, &mut likely)?;
    let left_out = twin.left_out();
    let unknown = unknown(&mut twin, &traced, &likely)?;
    Ok(Traced {
        connection: traced,
        made_up,
        strangers,
        left_out,
        unknown,
    })
}

/// Follows a connection. Adds the port that it reaches to `likely` if it is another one.
fn traced(
    twin: &mut Twin,
    connection: &Connection,
    likely: &mut Vec<Port>,
) -> Result<TracedConnection, TwinError> {
    // Packets of the copy's own do not count.
    twin.counted()?;
    let traced = trace(twin, connection, likely)?;
    let Some(port) = traced.stuck_at().filter(|port| !likely.contains(port)) else {
        return Ok(traced);
    };
    // It was opened twice. A rule that counts may have refused the second one.
    likely.push(port);
    twin.renew()?;
    twin.counted()?;
    trace(twin, connection, likely)
}

/// Names what may give a connection that was just followed another end on the machine.
fn unknown(
    twin: &mut Twin,
    traced: &TracedConnection,
    likely: &[Port],
) -> Result<Vec<String>, TwinError> {
    let connection = &traced.connection;
    let met = twin.counted()?;
    let met = met.into_iter();
    let met = met.filter_map(|number| twin.watched().get(number).map(ToString::to_string));
    let doubts = twin.doubts_about(connection, traced.reached());
    let mut unknown: Vec<String> = met.chain(doubts).collect();
    let rivals = twin.rivals();
    if !rivals.is_empty() {
        twin.exchange_rivals()?;
        if !traced.ends_as(&trace(twin, connection, likely)?) {
            unknown.push(unordered(&rivals));
        }
    }
    Ok(unknown)
}

/// Returns the address and port that the client connects to.
fn destination(
    twin: &Twin,
    args: &TraceArgs,
    from: From,
) -> Result<(IpAddr, Option<Port>), PlaceError> {
    match args.to {
        DestinationArg::Own(port) => Ok((own_address(twin, args.from.address, from)?, Some(port))),
        DestinationArg::Address(address, port) => Ok((address, port)),
    }
}

//! `nvactl trace`: one connection through a copy of a machine, hook by hook.

mod error;
mod json;
mod subject;
mod traced;

use std::net::IpAddr;

use ipnet::IpNet;

use super::console::Console;
use super::copy_source::CopySource;
use super::error::{Error, Result};
use super::exit::Exit;
use super::host::HostAccess;
use crate::cli::{DestinationArg, TraceArgs, TraceFormat};
use crate::forwards::OutboundProtocol;
use crate::health::trace_text;
use crate::net::{Family, Port, printable};
use crate::twin::connection::{ClientSides, Connection, PlaceError, own_address};
use crate::twin::netns;
use crate::twin::talk::From;
use crate::twin::traced::{TracedEnd, trace};
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
                let words = traced
                    .made_up
                    .iter()
                    .map(|line| format!("\n  {}", printable::line(line)));
                let words: String = words.collect();
                let name = printable::line(subject.name());
                console.note(format_args!("the machine is made up from `{name}`:{words}"));
            }
            console.print(&trace_text::text(connection));
        }
        TraceFormat::Json => console.say_json(&json::object(&traced))?,
    }
    for rule in &traced.left_out {
        console.warn(format_args!("the copy lacks this: {rule}"));
    }
    for rule in &traced.unknown {
        console.warn(format_args!(
            "the machine may treat the packets otherwise at this rule: {rule}"
        ));
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
        return Ok(Exit::Done);
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
    let CopySource {
        machine,
        filter,
        words,
    } = subject.copied(client, side, on)?;
    let mut twin = Twin::make(machine, &filter, None)?;
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
    let likely = subject.likely(args.protocol, to, port);
    Ok(followed(&mut twin, &connection, &likely, words)?)
}

fn followed(
    twin: &mut Twin,
    connection: &Connection,
    likely: &[Port],
    made_up: Vec<String>,
) -> Result<Traced, TwinError> {
    // Packets of the copy's own do not count.
    twin.counted()?;
    let mut traced = trace(twin, connection, likely)?;
    if let Some(port) = traced.stuck_at().filter(|port| !likely.contains(port)) {
        // It was opened twice. A rule that counts may have refused the second one.
        twin.renew()?;
        twin.counted()?;
        traced = trace(twin, connection, &[likely, &[port]].concat())?;
    }
    let met = twin.counted()?;
    let watched = twin.watched();
    let met = met.into_iter().filter_map(|number| watched.get(number));
    Ok(Traced {
        connection: traced,
        made_up,
        unknown: met.map(ToString::to_string).collect(),
        left_out: twin.left_out(),
    })
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

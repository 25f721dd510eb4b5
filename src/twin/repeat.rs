//! Connections that are repeated, with or without a watch.

use super::battery::{Ask, Subject};
use super::cause::{Conversation, Taken, Watch, WatchReport};
use super::connection_end::ConnectionEnd;
use super::judge::{sources_of, tried, verdict};
use super::sniff::{Sighting, Sniffer};
use super::talk::{From, Question};
use super::verdict::Verdict;
use super::{Twin, TwinError, batch};
use crate::net::Family;

/// The TTL or hop limit of the packets that the kernel of a new namespace sends (`IPDEFTTL`, RFC 1700).
const FIRST_HOPS: u8 = 64;

/// Returns whether a connection does as the spec says. The calling thread is in the twin's machine namespace
/// afterwards.
pub(super) fn is_as_wanted(twin: &Twin, ask: &Ask<'_>) -> Result<bool, TwinError> {
    let verdict = tried(twin, &mut twin.talker()?, ask);
    twin.enter()?;
    Ok(verdict == Verdict::AsWanted)
}

/// Repeats a connection of no forward under watch, and names its cause. The calling thread is in the twin's machine
/// namespace afterwards.
pub(super) fn taken(twin: &Twin, question: &Question) -> Result<Option<Taken>, TwinError> {
    let (_, seen, _) = repeat(twin, question)?;
    twin.enter()?;
    Ok(seen.taken(&Conversation {
        protocol: question.protocol.into(),
        client: question.client,
        listen: question.to.ip(),
        port: question.to.port(),
        targets: Vec::new(),
        sources: Vec::new(),
    })?)
}

/// Repeats a connection under watch; one with several targets is repeated until it goes wrong. The calling thread is
/// in the twin's machine namespace afterwards.
pub(super) fn until_bad(
    twin: &Twin,
    ask: &Ask<'_>,
) -> Result<(ConnectionEnd, WatchReport, Vec<Sighting>), TwinError> {
    let mut repeated = repeat(twin, &ask.question)?;
    for _ in 1..ask.times {
        if verdict(twin, ask, &repeated.0) != Verdict::AsWanted {
            break;
        }
        repeated = repeat(twin, &ask.question)?;
    }
    twin.enter()?;
    Ok(repeated)
}

/// Repeats a connection with the kernel's packet trace switched on.
pub(super) fn repeat(
    twin: &Twin,
    question: &Question,
) -> Result<(ConnectionEnd, WatchReport, Vec<Sighting>), TwinError> {
    let sniffer = Sniffer::open(twin.worlds()).map_err(TwinError::Socket)?;
    let mut talker = twin.talker()?;
    let watch = watch(twin, Family::of(question.client))?;
    let _ = sniffer.seen();
    let outcome = talker.ask(question).map_err(TwinError::Socket);
    twin.enter()?;
    let seen = watch.end()?;
    Ok((outcome?, seen, sniffer.seen()))
}

/// Begins a watch over the packets of the twin's machine. The calling thread is in its namespace afterwards.
pub(super) fn watch(twin: &Twin, family: Family) -> Result<Watch, TwinError> {
    // The kernel asks for an address once and waits: the watch has to see the question and the answer.
    if family == Family::V6 {
        for world in twin.worlds() {
            world.netns.enter().map_err(TwinError::Socket)?;
            forget_neighbours()?;
        }
        twin.enter()?;
        forget_neighbours()?;
    }
    twin.enter()?;
    let worlds = twin.worlds().iter();
    let names: Vec<&str> = worlds.map(|world| world.interface.as_str()).collect();
    Ok(Watch::begin(&names)?)
}

/// Removes all neighbours of the calling thread's namespace, so that each address is resolved again.
fn forget_neighbours() -> Result<(), TwinError> {
    batch::run(&["-6"], "neigh flush all\n")?;
    Ok(())
}

/// Returns whether a connection comes through, or its reply leaves by any interface.
pub(super) fn is_through(twin: &Twin, ask: &Ask<'_>) -> Result<bool, TwinError> {
    let sniffer = Sniffer::open(twin.worlds()).map_err(TwinError::Socket)?;
    let verdict = tried(twin, &mut twin.talker()?, ask);
    twin.enter()?;
    let is_dead = matches!(verdict, Verdict::Dead(_));
    let is_strayed = is_dead && strayed(twin, ask, &sniffer.seen()).is_some();
    Ok(verdict == Verdict::AsWanted || is_strayed)
}

/// Returns the interface by which a reply left, if the client is behind another one.
pub(super) fn strayed(twin: &Twin, ask: &Ask<'_>, sightings: &[Sighting]) -> Option<String> {
    let from = ask.question.from;
    // A world also sees the packets that it sends. A reply of a forward's target still has the target's own source
    // address; a reply to an outbound connection has not crossed a router yet.
    let is_sent_on = |one: &Sighting| match ask.of {
        Subject::Forward(_) => true,
        Subject::Outbound(_) => one.hops < FIRST_HOPS,
    };
    let is_reply = |one: &&Sighting| {
        one.source == ask.question.to
            && one.destination.ip() == ask.client.address
            && From::World(one.world) != from
            && is_sent_on(one)
    };
    let strayed = sightings.iter().find(is_reply)?;
    Some(twin.worlds()[strayed.world].interface.clone())
}

pub(super) fn conversation(twin: &Twin, ask: &Ask<'_>) -> Conversation {
    let targets = ask.question.listeners.iter();
    Conversation {
        protocol: ask.question.protocol.into(),
        client: ask.client.address,
        listen: ask.question.to.ip(),
        port: ask.question.to.port(),
        targets: targets.map(|at| (at.ip(), at.port())).collect(),
        sources: sources_of(twin, ask),
    }
}

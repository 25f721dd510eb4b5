//! Asks the twins of machines that are made up from specs for the connections of their batteries.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nvactl::forwards::{Forward, ForwardSet, Nets, Outbound};
use nvactl::host::network;
use nvactl::net::{Family, Interface, Port};
use nvactl::netfilter::backend::Backend;
use nvactl::plan::plan;
use nvactl::twin::battery::{Ask, InDoubt, Subject, battery};
use nvactl::twin::clients::{Clients, NamedInRules};
use nvactl::twin::judge::ask;
use nvactl::twin::made_up::MadeUp;
use nvactl::twin::rules::PacketFilter;
use nvactl::twin::verdict::{Judged, Verdict};
use nvactl::twin::{Twin, netns};
use nvactl::yaml::{self, NetworkFile};

/// Each twin takes less than a second.
const LIMIT: Duration = Duration::from_mins(2);
/// How often connections are opened until their ports are free.
const TIMES: usize = 2000;

/// Returns the rules of a spec as text.
pub fn rendered(set: &ForwardSet) -> Vec<(Family, String)> {
    let of_family = |family| (family, plan(set, family).to_string());
    Family::ALL.map(of_family).into()
}

/// The end of a spec's battery.
#[derive(Debug, Default)]
pub struct Tried {
    pub connections: usize,
    /// The connections that no machine can lead to where the spec wants them.
    pub ambiguous: usize,
    /// The connections that did not end as the spec says, and the parts of the machine that the twin lacks.
    pub wrong: Vec<String>,
}

/// Asks the twin of a made-up machine for every connection of a spec's battery.
///
/// Forwards may have the same target and other ingress interfaces. Then only the client tells their replies apart, and
/// the test says by which interface it comes in, as a person does who writes a test.
pub fn tried(set: &ForwardSet, backend: Backend) -> Tried {
    let mut tried = Tried::default();
    let judged = judged(set, &[], None, backend, &mut tried);
    tried.connections = judged.len();
    let is_wrong = |one: &Judged<'_>| one.verdict != Verdict::AsWanted;
    let wrong = |one: &Judged<'_>| is_wrong(one) && !is_ambiguous(set, one);
    let lost = judged.into_iter().filter(is_wrong);
    let (ambiguous, lost): (Vec<_>, Vec<_>) = lost.partition(|one| is_ambiguous(set, one));
    tried.ambiguous = ambiguous.len();
    let lost: Vec<Ask<'_>> = lost.into_iter().map(|one| one.ask).collect();
    if lost.is_empty() {
        return tried;
    }
    // One client may come in by several interfaces, each in a machine of its own.
    let mut by_ingress: BTreeMap<Interface, Vec<Ask<'_>>> = BTreeMap::new();
    for ask in lost {
        by_ingress.entry(ask.by.clone()).or_default().push(ask);
    }
    for (by, lost) in by_ingress {
        let client = |ask: &Ask<'_>| (IpNet::from(ask.client.address), by.clone());
        let routes: Vec<(IpNet, Interface)> = lost.iter().map(client).collect();
        let again = self::judged(set, &routes, Some(lost), backend, &mut tried);
        let again = again.iter().filter(|one| wrong(one));
        tried.wrong.extend(again.map(|one| {
            let ask = &one.ask;
            let from = format!("{} by {}", ask.client.address, ask.by);
            let name = ask.of.name();
            format!("{name}: {from} to {}: {:?}", ask.question.to, one.verdict)
        }));
    }
    tried
}

/// Asks the twin of a made-up machine for some connections, or for all of the battery.
fn judged<'s>(
    set: &'s ForwardSet,
    routes: &[(IpNet, Interface)],
    some: Option<Vec<Ask<'s>>>,
    backend: Backend,
    tried: &mut Tried,
) -> Vec<Judged<'s>> {
    let texts = rendered(set);
    let texts = texts
        .iter()
        .map(|(family, text)| (*family, text.as_bytes()));
    let filter = PacketFilter::of_texts(backend, texts).expect("it is nvactl's own text");
    let work = || {
        let made_up = MadeUp::of_spec(set, routes);
        let mut twin = Twin::make(made_up.machine, &filter, None).expect("it can be made");
        let mut asks = some.unwrap_or_else(|| all(set, &filter, &twin));
        let addresses = asks.iter().flat_map(|ask| {
            let targets = ask.question.listeners.iter().map(SocketAddr::ip);
            targets.chain([ask.client.address])
        });
        let addresses = addresses.collect();
        twin.answer_for(&addresses).expect("ip is installed");
        let mut done = Vec::new();
        // A program that another test starts holds every socket until its exec, so that a port may be in use.
        for _ in 0..TIMES {
            if asks.is_empty() {
                break;
            }
            let judged = ask(&mut twin, std::mem::take(&mut asks), Instant::now() + LIMIT);
            for one in judged.expect("they can be opened") {
                if matches!(&one.verdict, Verdict::Failed(why) if why.contains("in use")) {
                    asks.push(one.ask);
                } else {
                    done.push(one);
                }
            }
        }
        assert_eq!(asks.len(), 0, "ports stay in use");
        tried.wrong.extend(twin.left_out());
        done
    };
    netns::aside(work).expect("there is a thread")
}

/// Returns the whole battery. The calling thread is in the twin's machine namespace.
fn all<'s>(set: &'s ForwardSet, filter: &PacketFilter, twin: &Twin) -> Vec<Ask<'s>> {
    let machine = twin.machine();
    let named = NamedInRules::by(filter, machine);
    let mut asks = Vec::new();
    for family in Family::ALL.into_iter().filter(|family| set.has(*family)) {
        let of_family = |one: &&Forward| one.family() == family;
        let forwards: Vec<&Forward> = set.forwards.iter().filter(of_family).collect();
        let entries: Vec<&Outbound> = set.outbound_of(family).collect();
        let clients = Clients::of(set, family, machine, &[], &named, network::interfaces);
        let none = InDoubt::default();
        let worlds = twin.worlds();
        asks.extend(battery(
            &forwards, &entries, &clients, machine, worlds, &none,
        ));
    }
    asks
}

/// Returns whether no machine can lead a connection to where the spec wants it.
fn is_ambiguous(set: &ForwardSet, judged: &Judged<'_>) -> bool {
    match judged.ask.of {
        Subject::Forward(forward) => is_ambiguous_forward(set, forward, judged),
        Subject::Outbound(entry) => is_ambiguous_entry(set, entry, judged),
    }
}

/// Returns whether another forward leads packets with the same ingress, target and ports to another egress, or the
/// target is the firewall itself.
fn is_ambiguous_forward(set: &ForwardSet, forward: &Forward, judged: &Judged<'_>) -> bool {
    let same = set.forwards.iter().filter(|other| {
        other.egress != forward.egress
            && other.protocol == forward.protocol
            && other
                .entrances()
                .any(|one| forward.entrances().any(|two| one == two))
    });
    let listeners = &judged.ask.question.listeners;
    let mut same = same.flat_map(|other| {
        let to = other.target.destinations.iter();
        to.map(|to| (to.address, other.ports_at(to)))
    });
    let elsewhere = same.any(|(address, ports)| {
        let mut listeners = listeners.iter();
        listeners.any(|at| {
            at.ip() == address && Port::new(at.port()).is_some_and(|at| ports.contains(at))
        })
    });
    let machine = MadeUp::of_spec(set, &[]).machine;
    let is_own = listeners
        .iter()
        .any(|at| machine.addresses().contains(&at.ip()));
    let is_led_elsewhere = matches!(judged.verdict, Verdict::Behind(_) | Verdict::Dead(_));
    elsewhere && is_led_elsewhere || is_own
}

/// Returns whether another part of the spec has the destination, or a network that holds it and is no wider than the
/// entry's own, behind another interface than the entry's egress.
fn is_ambiguous_entry(set: &ForwardSet, entry: &Outbound, judged: &Judged<'_>) -> bool {
    let to = judged.ask.question.to.ip();
    let own = destinations(entry).filter(|net| net.contains(&to));
    let own = own.map(|net| net.prefix_len()).max().unwrap_or_default();
    let of_forwards = set.forwards.iter().flat_map(|forward| {
        let targets = forward.target.destinations.iter();
        let targets = targets.map(|to| (IpNet::from(to.address), &forward.egress));
        let nets = forward.sources.allow.iter().flat_map(Nets::as_slice);
        let clients = nets.flat_map(|net| forward.ingress.iter().map(|by| (*net, by)));
        targets.chain(clients)
    });
    let of_entries = set.outbound.iter().flat_map(|other| {
        let senders = other.allow_from.as_slice().iter();
        let senders = senders.flat_map(|net| other.ingress.iter().map(|by| (*net, by)));
        let servers = destinations(other).map(|net| (net, &other.egress));
        senders.chain(servers)
    });
    let mut others = of_forwards.chain(of_entries);
    others.any(|(net, by)| *by != entry.egress && net.contains(&to) && net.prefix_len() >= own)
}

/// Returns the networks to which an entry leads.
fn destinations(entry: &Outbound) -> impl Iterator<Item = IpNet> {
    let internet = entry.allow_to.internet.then(IpNet::default);
    let nets = entry.allow_to.nets.as_slice().iter().copied();
    internet.into_iter().chain(nets)
}

pub fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let entries = fs::read_dir(root).expect("tests/cases is there");
    let mut cases: Vec<PathBuf> = entries
        .map(|entry| entry.expect("it can be listed").path())
        .collect();
    cases.sort();
    cases
}

/// Returns the spec of a case, if it is valid.
pub fn set_of(case: &Path) -> Option<ForwardSet> {
    let text = fs::read(case.join("spec.yaml")).expect("each case has a spec");
    let paths = yaml::network_paths(&[&text]);
    let files = paths.iter().map(|path| (path, fs::read(case.join(path))));
    let files: Vec<_> = files.collect();
    let files = files.iter().filter_map(|(path, content)| {
        let content = Ok(content.as_deref().ok()?);
        Some(NetworkFile { path, content })
    });
    let files: Vec<NetworkFile<'_>> = files.collect();
    yaml::examine_with(&[&text], &files).set
}

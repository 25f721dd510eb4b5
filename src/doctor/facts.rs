//! What the edge has found out, without a judgement.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::backend::Backend;
use crate::counters::Counters;
use crate::flow::Flow;
use crate::native::NativeChain;
use crate::net::Interface;
use crate::network::{Links, Packet, ReversePath, Route};
use crate::probe::Probed;
use crate::ruleset::Ruleset;
use crate::spec::{Forward, ForwardSet};
use crate::status::RulesFile;

#[derive(Debug)]
pub struct Facts<'f> {
    pub backend: Backend,
    pub live: &'f Ruleset,
    pub counters: &'f Counters,
    /// The rules of the backend that is not called, where it is installed.
    pub other: Option<(Backend, Result<Ruleset, String>)>,
    /// `None` where nft is not installed.
    pub native: Option<Vec<NativeChain>>,
    pub links: Links,
    pub ip_forward: bool,
    /// Per interface, whether what comes in by it is forwarded.
    pub forwards_from: BTreeMap<&'f Interface, bool>,
    /// Per interface, how strictly it asks for the way back.
    pub reverse_path: BTreeMap<&'f Interface, ReversePath>,
    /// Whose way is asked for: one that is connected now, or else one that nobody has.
    pub client: Client,
    pub tracked: Option<(u64, u64)>,
    /// `None` where they cannot be listed.
    pub flows: Option<Vec<Flow>>,
    /// What has been loaded before, for connections that still follow it.
    pub once: Vec<ForwardSet>,
    /// The kernel's answers to what [`questions`] asks.
    pub routes: BTreeMap<Packet<'f>, Result<Route, String>>,
    /// What came of a connection to each target's ports.
    pub probed: &'f [Probed<'f>],
    pub pending: Option<String>,
    pub boot: Boot,
}

/// An example of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    pub address: Ipv4Addr,
    /// Whether it is connected now, through one of the forwards.
    pub real: bool,
}

/// What must be asked of the kernel's routing: the way of a client's packets to the machine and to
/// each target, and of the answers back to it. `own` is the address where clients come in.
#[must_use]
pub fn questions<'f>(
    set: &'f ForwardSet,
    asked: &[&Forward],
    client: Client,
    own: Option<Ipv4Addr>,
) -> BTreeSet<Packet<'f>> {
    let firewall = &set.firewall;
    let (ingress, egress) = (&firewall.ingress, &firewall.egress);
    let mut questions = BTreeSet::new();
    questions.extend(own.map(|own| arriving(own, client, ingress)));
    for forward in asked {
        let target = forward.target.address;
        questions.insert(Packet {
            to: target,
            came: None,
        });
        questions.insert(Packet {
            to: target,
            came: Some((client.address, ingress)),
        });
        questions.insert(returning(target, client, egress));
    }
    questions
}

/// A client's packet, before it is translated.
#[must_use]
pub fn arriving(own: Ipv4Addr, client: Client, ingress: &Interface) -> Packet<'_> {
    Packet {
        to: own,
        came: Some((client.address, ingress)),
    }
}

/// What a target answers, on its way to the client.
#[must_use]
pub fn returning(target: Ipv4Addr, client: Client, egress: &Interface) -> Packet<'_> {
    Packet {
        to: client.address,
        came: Some((target, egress)),
    }
}

/// What the next boot will bring.
#[derive(Debug)]
pub struct Boot {
    pub rules_file: &'static str,
    pub rules: RulesFile,
    /// Why the rules file is not loaded at boot, and what mends it.
    pub not_loaded: Option<(&'static str, &'static str)>,
    /// The value that the sysctl files set for the spec's interfaces, and the line that does: one
    /// that turns it off for any of them, if there is one.
    pub ip_forward: Option<(bool, String)>,
    /// Programs that make rules of their own when they start.
    pub managers: Vec<String>,
}

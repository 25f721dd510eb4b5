//! The facts that the edge gathers, without a judgement.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use super::answers::Answers;
use crate::forwards::{Forward, ForwardSet};
use crate::health::next_boot::NextBoot;
use crate::health::probe::Probed;
use crate::host::network::{Links, Packet, ReplyPacket, Route};
use crate::host::nft_mark::NftRule;
use crate::net::Interface;
use crate::netfilter::backend::Backend;
use crate::netfilter::conntrack::Flow;
use crate::netfilter::counters::Counters;
use crate::netfilter::ruleset::Ruleset;

#[derive(Debug)]
pub struct Facts<'f> {
    pub backend: Backend,
    pub live: &'f Ruleset,
    /// Whether no rule of nvactl is loaded in either family.
    pub is_bare: bool,
    pub counters: &'f Counters,
    /// The rules of the backend that is not called, if that backend is installed.
    pub other: Option<(Backend, Result<Ruleset, String>)>,
    /// nft's own rules that write nvactl's bit of a connection's mark.
    pub mark_rules: Vec<NftRule>,
    pub links: Links,
    pub ip_forward: bool,
    /// Whether the kernel forwards packets that come in by an interface.
    pub forwards_from: BTreeMap<&'f Interface, bool>,
    pub client: RoutedClient,
    pub tracked: Option<(u64, u64)>,
    /// `None` if conntrack entries cannot be listed.
    pub flows: Option<Vec<Flow>>,
    /// Forwards that were loaded before. Connections may still follow them.
    pub once: Vec<ForwardSet>,
    /// The kernel's answers to [`questions`].
    pub routes: BTreeMap<Packet<'f>, Result<Route, String>>,
    /// The interface by which answers to senders leave, as [`crate::health::sender::questions`] asks.
    pub answer_routes: BTreeMap<ReplyPacket, String>,
    /// The outcome of a connection to each target's ports.
    pub probed: &'f [Probed<'f>],
    /// The answers of the twin, or why there is no twin.
    pub answers: &'f Result<Answers<'f>, String>,
    /// Whether this is a virtual machine of Azure.
    pub is_azure: bool,
    pub pending: Option<PendingChange>,
    pub boot: BootFacts,
}

/// A change that waits for its confirmation.
#[derive(Debug)]
pub struct PendingChange {
    /// The change in one line.
    pub told: String,
    /// The best one first.
    pub choices: Vec<Choice>,
}

/// A command that decides on a change that waits for its confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Such as `to keep the change`.
    pub purpose: &'static str,
    pub command: &'static str,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.purpose, self.command)
    }
}

/// The client whose routes are asked for: one that is connected now, else an address of the Internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutedClient {
    pub address: IpAddr,
    /// Whether the client is connected now, through one of the forwards.
    pub real: bool,
}

/// Returns the routes to ask the kernel for: of a client's packets to the machine and to each target, and of the
/// replies to the client. `own` returns the address of an ingress interface.
#[must_use]
pub fn questions<'f>(
    asked: &[&'f Forward],
    client: RoutedClient,
    own: impl Fn(&Interface) -> Option<IpAddr>,
) -> BTreeSet<Packet<'f>> {
    let mut questions = BTreeSet::new();
    for forward in asked {
        for ingress in &forward.ingress {
            questions.extend(own(ingress).map(|own| arriving(own, client, ingress)));
            for to in &forward.target.destinations {
                questions.insert(Packet {
                    to: to.address,
                    came: Some((client.address, ingress)),
                });
            }
        }
        for to in &forward.target.destinations {
            questions.insert(Packet {
                to: to.address,
                came: None,
            });
            questions.insert(returning(to.address, client, &forward.egress));
        }
    }
    questions
}

/// Returns a client's packet before DNAT.
#[must_use]
pub fn arriving(own: IpAddr, client: RoutedClient, ingress: &Interface) -> Packet<'_> {
    Packet {
        to: own,
        came: Some((client.address, ingress)),
    }
}

/// Returns a target's reply on its path to the client.
#[must_use]
pub fn returning(target: IpAddr, client: RoutedClient, egress: &Interface) -> Packet<'_> {
    Packet {
        to: client.address,
        came: Some((target, egress)),
    }
}

/// The rules and switches after the next boot.
#[derive(Debug)]
pub struct BootFacts {
    pub next: NextBoot,
    /// The fault of nvactl's own unit, and the fix.
    pub unit: Option<(String, &'static str)>,
    /// Effects of other programs on the rules at boot, each with its fix.
    pub managers: Vec<(String, Option<String>)>,
}

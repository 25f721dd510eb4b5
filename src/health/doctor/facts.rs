//! What the edge has found out, without a judgement.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::answers::Answers;
use crate::forwards::{Forward, ForwardSet};
use crate::health::probe::Probed;
use crate::health::rules_file::RulesFile;
use crate::host::network::{Answer, Links, Packet, Route};
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
    /// Whether no rule of nvactl's is loaded, of any family.
    pub is_bare: bool,
    pub counters: &'f Counters,
    /// The rules of the backend that is not called, where it is installed.
    pub other: Option<(Backend, Result<Ruleset, String>)>,
    /// The rules of nft's own that write nvactl's bit of a connection's mark.
    pub mark_rules: Vec<NftRule>,
    pub links: Links,
    pub ip_forward: bool,
    /// Per interface, whether what comes in by it is forwarded.
    pub forwards_from: BTreeMap<&'f Interface, bool>,
    /// Whose way is asked for: one that is connected now, or else one that nobody has.
    pub client: Client,
    pub tracked: Option<(u64, u64)>,
    /// `None` where they cannot be listed.
    pub flows: Option<Vec<Flow>>,
    /// What has been loaded before, for connections that still follow it.
    pub once: Vec<ForwardSet>,
    /// The kernel's answers to what [`questions`] asks.
    pub routes: BTreeMap<Packet<'f>, Result<Route, String>>,
    /// The interface by which answers to senders leave, as [`crate::health::sender::questions`] asks.
    pub answer_routes: BTreeMap<Answer, String>,
    /// What came of a connection to each target's ports.
    pub probed: &'f [Probed<'f>],
    /// The answers of the twin, or why there is none.
    pub answers: &'f Result<Answers<'f>, String>,
    /// Whether this is a virtual machine of Azure.
    pub is_azure: bool,
    pub pending: Option<(String, &'static str)>,
    pub boot: Boot,
}

/// An example of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    pub address: IpAddr,
    /// Whether it is connected now, through one of the forwards.
    pub real: bool,
}

/// What must be asked of the kernel's routing: the way of a client's packets to the machine and to
/// each target, and of the answers back to it. `own` are the addresses where clients come in, by
/// interface.
#[must_use]
pub fn questions<'f>(
    asked: &[&'f Forward],
    client: Client,
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

/// A client's packet, before it is translated.
#[must_use]
pub fn arriving(own: IpAddr, client: Client, ingress: &Interface) -> Packet<'_> {
    Packet {
        to: own,
        came: Some((client.address, ingress)),
    }
}

/// What a target answers, on its way to the client.
#[must_use]
pub fn returning(target: IpAddr, client: Client, egress: &Interface) -> Packet<'_> {
    Packet {
        to: client.address,
        came: Some((target, egress)),
    }
}

/// What the next boot will bring.
#[derive(Debug)]
pub struct Boot {
    /// The file, or in words the record, that nvactl's rules come back from.
    pub place: &'static str,
    pub rules: RulesFile,
    /// Why iptables-restore does not load the rules file.
    pub refused: Option<String>,
    /// Why the rules file is not loaded at boot, and what mends it.
    pub not_loaded: Option<(&'static str, &'static str)>,
    /// The fault of nvactl's own unit, and the fix.
    pub unit: Option<(String, &'static str)>,
    /// The value that the sysctl files set for the spec's interfaces, and the line that does: one
    /// that turns it off for any of them, if there is one.
    pub ip_forward: Option<(bool, String)>,
    /// A line that turns it on, or off, only where `sysctl --system` is run after the boot.
    pub ip_forward_unread: Option<String>,
    /// Effects of other programs on the rules at boot, each with its fix.
    pub managers: Vec<(String, Option<String>)>,
}

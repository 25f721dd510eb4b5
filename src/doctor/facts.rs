//! What the edge has found out, without a judgement.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::backend::Backend;
use crate::counters::Counters;
use crate::flow::Flow;
use crate::native::NativeChain;
use crate::net::Interface;
use crate::network::{Links, ReversePath, Route};
use crate::probe::Probed;
use crate::ruleset::Ruleset;
use crate::spec::ForwardSet;
use crate::status::RulesFile;

#[derive(Debug)]
pub struct Facts<'f> {
    pub backend: Backend,
    pub live: &'f Ruleset,
    pub counters: &'f Counters,
    /// The rules of the backend that is not called, where it is installed.
    pub other: Option<(Backend, Ruleset)>,
    /// `None` where nft is not installed.
    pub native: Option<Vec<NativeChain>>,
    pub links: Links,
    pub ip_forward: bool,
    /// Per interface, whether what comes in by it is forwarded.
    pub forwards_from: BTreeMap<&'f Interface, bool>,
    /// Per interface, how strictly it asks for the way back.
    pub reverse_path: BTreeMap<&'f Interface, ReversePath>,
    /// How replies to a client leave: the way to an address of the Internet, or to one that is
    /// connected now.
    pub way_back: (Ipv4Addr, Result<Route, String>),
    pub tracked: Option<(u64, u64)>,
    /// `None` where they cannot be listed.
    pub flows: Option<Vec<Flow>>,
    /// What has been loaded before, for connections that still follow it.
    pub once: Vec<ForwardSet>,
    /// The way to each target.
    pub routes: BTreeMap<Ipv4Addr, Result<Route, String>>,
    /// What came of a connection to each target's ports.
    pub probed: &'f [Probed<'f>],
    pub pending: Option<String>,
    pub boot: Boot,
}

/// What the next boot will bring.
#[derive(Debug)]
pub struct Boot {
    pub rules_file: &'static str,
    pub rules: RulesFile,
    /// Why the rules file is not loaded at boot, and what mends it.
    pub not_loaded: Option<(&'static str, &'static str)>,
    /// The value the sysctl files set, and the line that does.
    pub ip_forward: Option<(bool, String)>,
    /// Programs that make rules of their own when they start.
    pub managers: Vec<String>,
}

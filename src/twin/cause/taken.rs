//! The rule, policy or kernel reason that decided about a conversation.

use rustix::net::netdevice::index_to_name;
use rustix::net::{AddressFamily, SocketType, socket};

use super::WatchReport;
use super::ending::{Conversation, Direction, Ending, Fate, number};
use super::error::CauseError;
use super::kernel::KernelReason;
use super::legacy::CountedRule;
use super::message::{NftChain, NftVerdict};
use super::path::{PacketPath, TraceStep, TraceStepKind};
use super::route::{self, RouteQuery};
use super::rules::{self, DecidingRule, Holder};
use super::trace::Stage;
use crate::forwards::OutboundProtocol;
use crate::host::network::Route;
use crate::net::{Family, Protocol};
use crate::netfilter::backend::Backend;
use crate::netfilter::programs;
use crate::twin::rules::list_chain;

/// The cause of a packet's end, if it is another end than the client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub by: By,
    pub direction: Direction,
    pub fate: Fate,
}

impl Taken {
    /// Returns whether two causes are the same but for the place of a rule in its chain.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.by.is_same(&other.by) && self.direction == other.direction
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    Rule(DecidingRule),
    Policy(DecidingRule),
    Kernel(KernelReason),
    /// No rule matched, although one should have.
    NoRule,
}

impl By {
    /// Returns whether both are the same, whatever the place of a rule in its chain. `nvactl apply` may add a jump
    /// before a rule, and a chain may hold the same rule twice.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (By::Rule(one), By::Rule(other)) | (By::Policy(one), By::Policy(other)) => {
                one.holder == other.holder && one.text == other.text && one.stage == other.stage
            }
            (one, other) => one == other,
        }
    }
}

impl WatchReport {
    /// Names the cause for the first packet of a conversation that went astray. Returns `None` if every packet went
    /// out and a reply came back, or the next hop is alive. Call it while the rules are those that were watched,
    /// since their text is read now.
    ///
    /// # Errors
    /// If a rule cannot be listed.
    pub fn taken(&self, conversation: &Conversation) -> Result<Option<Taken>, CauseError> {
        let Some((direction, fate, event)) = self.ending(conversation) else {
            return Ok(None);
        };
        let Some(by) = self.by(&event)? else {
            return Ok(None);
        };
        let fate = match &by {
            By::Rule(decided) if fate == Fate::Dropped && decided.rejects() => Fate::Rejected,
            By::Rule(_) if matches!(event, Ending::Untranslated(..)) => Fate::Untranslated,
            _ => fate,
        };
        if let By::Kernel(KernelReason::NotSeen | KernelReason::NoNeighbour { .. }) = &by
            && let Some(by) = self.keeps_discovery_out()?
        {
            return Ok(Some(Taken {
                by,
                direction,
                fate: Fate::Unresolved,
            }));
        }
        Ok(Some(Taken {
            by,
            direction,
            fate,
        }))
    }

    fn by(&self, event: &Ending<'_>) -> Result<Option<By>, CauseError> {
        Ok(match event {
            Ending::Traced(step) => self.traced(step)?,
            Ending::Legacy(counted) => Some(by_legacy(counted)),
            Ending::Lost(step) => Some(By::Kernel(self.lost(step))),
            Ending::Sent(step) => self.sent(step).map(By::Kernel),
            Ending::Untranslated(path, stage) => Some(self.untranslated(path, *stage)?),
            Ending::NotSeen => Some(By::Kernel(KernelReason::NotSeen)),
        })
    }

    /// Returns the rules that matched packets of the client, without nvactl's trace chains. One of them may have
    /// marked a packet and so changed its route.
    pub fn matched<'s>(
        &'s self,
        conversation: &Conversation,
    ) -> impl Iterator<Item = &'s TraceStep> {
        let conversation = conversation.clone();
        let paths = self.paths.iter();
        let requests = paths.filter(move |path| conversation.requests(path));
        let steps = requests.flat_map(|path| &path.steps);
        steps.filter(|step| matches!(step.kind, TraceStepKind::Rule { .. }))
    }

    /// Describes the rule or policy of a step; `None` for a step that has neither.
    ///
    /// # Errors
    /// If the rule cannot be listed.
    pub fn traced(&self, step: &TraceStep) -> Result<Option<By>, CauseError> {
        Ok(match &step.kind {
            TraceStepKind::Rule { chain, handle, .. } => {
                Some(By::Rule(rules::rule(step.stage, chain, *handle)?))
            }
            TraceStepKind::Policy(chain) => {
                Some(By::Policy(rules::policy(step.stage, chain, &step.verdict)))
            }
            TraceStepKind::Enters | TraceStepKind::Leaves | TraceStepKind::Return(_) => None,
        })
    }

    /// Finds the rule or policy that drops neighbour discovery of IPv6, which consists of ICMP packets. Neighbour
    /// discovery of IPv4 has no IP packets.
    fn keeps_discovery_out(&self) -> Result<Option<By>, CauseError> {
        let is_icmp =
            |path: &&PacketPath| path.first().is_some_and(|header| header.protocol == ICMPV6);
        for path in self.paths.iter().filter(is_icmp) {
            match self.end_of(path) {
                Some((_, Ending::Traced(step))) => return self.traced(step),
                Some((_, Ending::Legacy(counted))) => return Ok(Some(by_legacy(counted))),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Finds the reason for which the kernel lost a packet after a step.
    fn lost(&self, step: &TraceStep) -> KernelReason {
        let unknown = KernelReason::Unknown(step.stage);
        if step.kind != TraceStepKind::Leaves {
            return unknown;
        }
        // The kernel may have counted a packet that was sent again, but not one of the other family.
        let family = step.header.map(|header| Family::of(header.source));
        let mut counted = self.kernel.iter();
        let counted = counted.find(|(of, _)| family.is_none_or(|family| family == *of));
        if let Some((_, reason)) = counted {
            return reason.clone();
        }
        let asked = question(step).filter(|_| step.stage == Stage::Prerouting);
        match asked.map(|question| route::ask_route(&question)) {
            Some(Err(reason)) => reason,
            _ => unknown,
        }
    }

    /// Finds the reason for which a packet that passed all rules did not leave.
    fn sent(&self, step: &TraceStep) -> Option<KernelReason> {
        let header = step.header?;
        let narrow = (Family::of(header.source), KernelReason::NeedsFragmentation);
        if self.kernel.contains(&narrow) {
            return Some(KernelReason::NeedsFragmentation);
        }
        // The source may be an address of the machine by now, which no packet that comes in has.
        let question = RouteQuery {
            ingress: None,
            ..question(step)?
        };
        let interface = step.oif.and_then(name)?;
        let route = route::ask_route_by(&question, &interface)?;
        route::dead_neighbour(&route, header.destination)
    }

    /// Finds the rule that kept a packet from being translated: it exempted the packet from connection tracking, or
    /// accepted it in a table for translation.
    fn untranslated(&self, path: &PacketPath, stage: Stage) -> Result<By, CauseError> {
        let rules = path
            .steps
            .iter()
            .filter(|step| step.stage == stage && matches!(step.kind, TraceStepKind::Rule { .. }));
        let mut accepts = None;
        for step in rules {
            let TraceStepKind::Rule {
                chain,
                base,
                handle,
            } = &step.kind
            else {
                continue;
            };
            let is_candidate = match step.verdict {
                NftVerdict::Accept => is_nat(base)?,
                // It ends the base chain before a later rule of it.
                NftVerdict::Return => chain == base && is_nat(base)?,
                NftVerdict::Continue => true,
                _ => false,
            };
            if !is_candidate {
                continue;
            }
            let decided = rules::rule(step.stage, chain, *handle)?;
            if untracks(&decided.text) {
                return Ok(By::Rule(decided));
            }
            if step.verdict != NftVerdict::Continue {
                accepts = Some(decided);
            }
        }
        let at_stage = |counted: &&CountedRule| counted.stage == stage;
        let legacy = || self.legacy_of(path).filter(at_stage);
        let untracks = legacy().find(|counted| counted.untracks());
        let keeps = untracks.or_else(|| legacy().find(|counted| counted.keeps_address()));
        Ok(match (accepts, keeps) {
            (_, Some(counted)) if untracks.is_some() => by_legacy(counted),
            (Some(accepts), _) => By::Rule(accepts),
            (None, Some(counted)) => by_legacy(counted),
            (None, None) => By::NoRule,
        })
    }
}

/// The number of ICMP for IPv6 in a header.
const ICMPV6: u8 = 58;

fn untracks(text: &str) -> bool {
    text.contains("-j NOTRACK")
        || text.contains("--notrack")
        || text.split(' ').any(|word| word == "notrack")
}

/// Returns whether a base chain is one for translation.
fn is_nat(base: &NftChain) -> Result<bool, CauseError> {
    let listed = list_chain(base.family, &base.table, &base.name)?;
    let mut heads = listed.heads.iter();
    Ok(heads.any(|line| line.starts_with("type nat ")))
}

/// Describes a rule or a policy of iptables-legacy that counted.
#[must_use]
pub fn by_legacy(counted: &CountedRule) -> By {
    let decided = DecidingRule {
        stage: counted.stage,
        holder: Holder::Iptables {
            backend: Backend::Legacy,
            family: counted.family,
            table: counted.table,
            chain: counted.chain.clone(),
        },
        handle: None,
        place: counted.place,
        live_place: counted.live_place,
        text: counted.text.clone(),
        owner: programs::owner_of(counted.table.as_str(), counted.chain.as_str()),
    };
    match counted.place {
        Some(_) => By::Rule(decided),
        None => By::Policy(decided),
    }
}

/// Returns the query for the route of a step's packet.
fn question(step: &TraceStep) -> Option<RouteQuery> {
    let header = step.header?;
    let is_of = |one: OutboundProtocol| number(one, header.source) == header.protocol;
    let protocol = Protocol::ALL.into_iter().find(|one| is_of((*one).into()));
    Some(RouteQuery {
        source: header.source,
        destination: header.destination,
        ingress: step.iif.and_then(name),
        mark: step.mark,
        port: protocol.zip(header.ports.map(|(_, port)| port)),
    })
}

impl TraceStep {
    /// Returns the names of the interfaces by which the packet came in and will go out, as far as they are known here.
    #[must_use]
    pub fn interfaces(&self) -> (Option<String>, Option<String>) {
        (self.iif.and_then(name), self.oif.and_then(name))
    }

    /// Asks for the route of the packet as it is here.
    ///
    /// # Errors
    /// The reason for which the kernel would discard the packet. `None` without a packet.
    #[must_use]
    pub fn route(&self) -> Option<Result<Route, KernelReason>> {
        Some(route::ask_route(&question(self)?))
    }
}

/// Returns the name of an interface of the calling thread's namespace.
fn name(index: u32) -> Option<String> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    index_to_name(&socket, index).ok()
}

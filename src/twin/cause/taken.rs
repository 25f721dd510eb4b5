//! The rule, the policy or the reason that decided about a conversation, in words.

use rustix::net::netdevice::index_to_name;
use rustix::net::{AddressFamily, SocketType, socket};

use super::Seen;
use super::error::CauseError;
use super::event::{Conversation, Direction, Event, Fate, number};
use super::kernel::KernelReason;
use super::legacy::Counted;
use super::message::{Chain, Verdict};
use super::path::{Kind, Path, Step};
use super::route::{self, Question};
use super::rules::{self, Decided, Holder, Listed};
use super::trace::Stage;
use crate::net::{Family, Protocol};
use crate::netfilter::backend::Backend;
use crate::netfilter::programs;

/// An end of a packet other than the one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub by: By,
    pub direction: Direction,
    pub fate: Fate,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    Rule(Decided),
    Policy(Decided),
    Kernel(KernelReason),
    /// No rule matched, and one should have.
    NoRule,
}

impl By {
    /// Whether two are the same but for the place of a rule in its chain: `nvactl apply` may put a jump before
    /// a rule, and the same rule may stand there twice.
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

impl Seen {
    /// Names what took the first packet of a conversation that did not go its way; none where all went
    /// out and something came back, or the next hop is alive. Call it while the rules are those that were
    /// watched: their words are read now.
    ///
    /// # Errors
    /// Where a rule cannot be listed.
    pub fn taken(&self, conversation: &Conversation) -> Result<Option<Taken>, CauseError> {
        let Some((direction, fate, event)) = self.event(conversation) else {
            return Ok(None);
        };
        let Some(by) = self.by(&event)? else {
            return Ok(None);
        };
        let fate = match &by {
            By::Rule(decided) if fate == Fate::Dropped && rejects(&decided.text) => Fate::Rejected,
            By::Rule(_) if matches!(event, Event::Untranslated(..)) => Fate::Untranslated,
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

    fn by(&self, event: &Event<'_>) -> Result<Option<By>, CauseError> {
        Ok(match event {
            Event::Traced(step) => self.traced(step)?,
            Event::Legacy(counted) => Some(by_legacy(counted)),
            Event::Lost(step) => Some(By::Kernel(self.lost(step))),
            Event::Sent(step) => self.sent(step).map(By::Kernel),
            Event::Untranslated(path, stage) => Some(self.untranslated(path, *stage)?),
            Event::NotSeen => Some(By::Kernel(KernelReason::NotSeen)),
        })
    }

    /// Lists the rules that matched packets of the client, nvactl's trace left out. One of them may have
    /// marked a packet, by which another route was taken.
    pub fn matched<'s>(&'s self, conversation: &Conversation) -> impl Iterator<Item = &'s Step> {
        let conversation = *conversation;
        let paths = self.paths.iter();
        let requests = paths.filter(move |path| conversation.requests(path));
        let steps = requests.flat_map(|path| &path.steps);
        steps.filter(|step| matches!(step.kind, Kind::Rule { .. }))
    }

    /// Describes the rule or the policy of a step; none of a step that has neither.
    ///
    /// # Errors
    /// Where the rule cannot be listed.
    pub fn traced(&self, step: &Step) -> Result<Option<By>, CauseError> {
        Ok(match &step.kind {
            Kind::Rule { chain, handle, .. } => {
                Some(By::Rule(rules::rule(step.stage, chain, *handle)?))
            }
            Kind::Policy(chain) => Some(By::Policy(rules::policy(step.stage, chain))),
            Kind::Enters | Kind::Leaves | Kind::Return(_) => None,
        })
    }

    /// Finds the rule or the policy that drops the neighbour discovery of IPv6, which comes to the machine
    /// as ICMP. That of IPv4 is no packet of IP.
    fn keeps_discovery_out(&self) -> Result<Option<By>, CauseError> {
        let is_icmp = |path: &&Path| path.first().is_some_and(|header| header.protocol == ICMPV6);
        for path in self.paths.iter().filter(is_icmp) {
            match self.end_of(path) {
                Some((_, Event::Traced(step))) => return self.traced(step),
                Some((_, Event::Legacy(counted))) => return Ok(Some(by_legacy(counted))),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Finds the reason for which the kernel lost a packet behind a step.
    fn lost(&self, step: &Step) -> KernelReason {
        let unknown = KernelReason::Unknown(step.stage);
        if step.kind != Kind::Leaves {
            return unknown;
        }
        // A packet that is sent again may be counted meanwhile, but not of the other family.
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
    fn sent(&self, step: &Step) -> Option<KernelReason> {
        let header = step.header?;
        let narrow = (Family::of(header.source), KernelReason::NeedsFragmentation);
        if self.kernel.contains(&narrow) {
            return Some(KernelReason::NeedsFragmentation);
        }
        // A source that the machine has taken for its own is not one of a packet that comes in.
        let question = Question {
            ingress: None,
            ..question(step)?
        };
        let interface = step.oif.and_then(name)?;
        let route = route::ask_route_by(&question, &interface)?;
        route::dead_neighbour(&route, header.destination)
    }

    /// Finds the rule for which a packet was not translated: one that took it out of connection tracking,
    /// or accepted it in a table for translation.
    fn untranslated(&self, path: &Path, stage: Stage) -> Result<By, CauseError> {
        let rules = path
            .steps
            .iter()
            .filter(|step| step.stage == stage && matches!(step.kind, Kind::Rule { .. }));
        let mut accepts = None;
        for step in rules {
            let Kind::Rule {
                chain,
                base,
                handle,
            } = &step.kind
            else {
                continue;
            };
            let is_candidate = match step.verdict {
                Verdict::Accept => is_nat(base)?,
                // The end of the base chain, before a later rule of it.
                Verdict::Return => chain == base && is_nat(base)?,
                Verdict::Continue => true,
                _ => false,
            };
            if !is_candidate {
                continue;
            }
            let decided = rules::rule(step.stage, chain, *handle)?;
            if untracks(&decided.text) {
                return Ok(By::Rule(decided));
            }
            if step.verdict != Verdict::Continue {
                accepts = Some(decided);
            }
        }
        let at_stage = |counted: &&Counted| counted.stage == stage;
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

/// Whether a rule answers the sender. iptables prints a target, nft a word.
fn rejects(text: &str) -> bool {
    text.contains("-j REJECT") || text.split(' ').any(|word| word == "reject")
}

fn untracks(text: &str) -> bool {
    text.contains("-j NOTRACK")
        || text.contains("--notrack")
        || text.split(' ').any(|word| word == "notrack")
}

/// Whether a base chain translates.
fn is_nat(base: &Chain) -> Result<bool, CauseError> {
    let listed = Listed::of(base)?;
    Ok(listed
        .base
        .is_some_and(|line| line.starts_with("type nat ")))
}

/// Describes a rule or a policy of iptables-legacy that counted.
#[must_use]
pub fn by_legacy(counted: &Counted) -> By {
    let decided = Decided {
        stage: counted.stage,
        holder: Holder::Iptables {
            backend: Backend::Legacy,
            family: counted.family,
            table: counted.table,
            chain: counted.chain.clone(),
        },
        handle: None,
        place: counted.place,
        text: counted.text.clone(),
        owner: programs::owner_of(counted.table.as_str(), counted.chain.as_str()),
    };
    match counted.place {
        Some(_) => By::Rule(decided),
        None => By::Policy(decided),
    }
}

/// Asks for the route of the packet of a step.
fn question(step: &Step) -> Option<Question> {
    let header = step.header?;
    let protocol = Protocol::ALL
        .into_iter()
        .find(|one| number(*one) == header.protocol);
    Some(Question {
        source: header.source,
        destination: header.destination,
        ingress: step.iif.and_then(name),
        mark: step.mark,
        port: protocol.zip(header.ports.map(|(_, port)| port)),
    })
}

/// Returns the name of an interface of the calling thread's namespace.
fn name(index: u32) -> Option<String> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    index_to_name(&socket, index).ok()
}

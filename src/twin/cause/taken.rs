//! The event that decided about a conversation.

use std::net::IpAddr;

use rustix::net::netdevice::index_to_name;
use rustix::net::{AddressFamily, SocketType, socket};

use super::kernel::KernelReason;
use super::legacy::Counted;
use super::message::{Header, Verdict};
use super::path::{Kind, Path, Step};
use super::route::{self, Question};
use super::rules::{self, Decided, Holder, Listed};
use super::trace::Stage;
use super::{CauseError, Seen};
use crate::backend::Backend;
use crate::foreign;
use crate::net::Protocol;

/// A connection as its client asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conversation {
    pub protocol: Protocol,
    pub client: IpAddr,
    /// The address and the port that the client connects to.
    pub listen: IpAddr,
    pub port: u16,
    /// The address and the port to which a forward sends the connection.
    pub target: Option<(IpAddr, u16)>,
    /// The source address that the target is meant to see.
    pub source: Option<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    Request,
    /// From the target.
    Reply,
}

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Dropped,
    /// Discarded, with an answer to the sender.
    Rejected,
    /// Given to a program, or taken out by another module.
    Diverted,
    /// Sent to another address.
    Translated {
        to: (IpAddr, u16),
    },
    /// Given to a program of the machine itself.
    Redirected {
        to: (IpAddr, u16),
    },
    /// Sent with another source than the one meant.
    SourceTranslated {
        to: IpAddr,
    },
    /// Neither its destination nor its source has been translated.
    Untranslated,
}

/// The event of a fate, before the machine is asked for its words.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'s> {
    /// A rule or a policy that was traced.
    Traced(&'s Step),
    Legacy(&'s Counted),
    /// Between two stages, or within one where no rule took it. The step is the last at which the packet
    /// was seen.
    Lost(&'s Step),
    /// The packet went out and nothing came back.
    Sent(&'s Step),
    /// No rule translated the packet of this path.
    Untranslated(&'s Path),
    NotSeen,
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
        let mut fate = fate;
        let by = match event {
            Event::Traced(step) => {
                let Some(by) = self.traced(step)? else {
                    return Ok(None);
                };
                if let By::Rule(decided) = &by
                    && fate == Fate::Dropped
                    && rejects(&decided.text)
                {
                    fate = Fate::Rejected;
                }
                by
            }
            Event::Legacy(counted) => {
                if counted.target == "REJECT" {
                    fate = Fate::Rejected;
                }
                by_legacy(counted)
            }
            Event::Lost(step) => By::Kernel(self.lost(step)),
            Event::Sent(step) => match self.sent(step) {
                Some(reason) => By::Kernel(reason),
                None => return Ok(None),
            },
            Event::Untranslated(path) => self.untranslated(path)?,
            Event::NotSeen => By::Kernel(KernelReason::NotSeen),
        };
        Ok(Some(Taken {
            by,
            direction,
            fate,
        }))
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

    /// Finds the deciding event by what was seen alone.
    #[must_use]
    pub fn event(&self, conversation: &Conversation) -> Option<(Direction, Fate, Event<'_>)> {
        let mut sent = None;
        let mut answered = false;
        // The addresses that a reply comes from: the target's, and those at which requests went out.
        let mut servers: Vec<(IpAddr, u16)> = conversation.target.into_iter().collect();
        for path in &self.paths {
            if conversation.requests(path) {
                if let Some((fate, event)) = self.fate_of_request(path, conversation) {
                    return Some((Direction::Request, fate, event));
                }
                if let Some(end) = path.end() {
                    sent = Some(end);
                    servers.extend(end.header.and_then(destination));
                }
            } else if conversation.replies(path, &servers) {
                answered = true;
                if let Some((fate, event)) = self.fate_of_reply(path, conversation) {
                    return Some((Direction::Reply, fate, event));
                }
            }
        }
        match sent {
            Some(step) if !answered => Some((Direction::Request, Fate::Dropped, Event::Sent(step))),
            Some(_) => None,
            // Without a trace there are only the counters.
            None if !self.traced => self.counted_drop(),
            None => Some((Direction::Request, Fate::Dropped, Event::NotSeen)),
        }
    }

    fn fate_of_request<'s>(
        &'s self,
        path: &'s Path,
        conversation: &Conversation,
    ) -> Option<(Fate, Event<'s>)> {
        if let Some(end) = self.end_of(path) {
            return Some(end);
        }
        let end = path.end()?;
        let header = end.header?;
        let (asked, now) = (
            (conversation.listen, conversation.port),
            destination(header)?,
        );
        if end.stage == Stage::Input {
            if now == asked {
                return Some((Fate::Untranslated, Event::Untranslated(path)));
            }
            let translator = self.translator(path, Stage::Prerouting);
            return Some((Fate::Redirected { to: now }, translator));
        }
        match conversation.target {
            Some(target) if now == asked && target != asked => {
                return Some((Fate::Untranslated, Event::Untranslated(path)));
            }
            Some(target) if now != target => {
                let translator = self.translator(path, Stage::Prerouting);
                return Some((Fate::Translated { to: now }, translator));
            }
            _ => {}
        }
        match conversation.source {
            Some(meant) if header.source != meant => Some((
                Fate::SourceTranslated { to: header.source },
                self.translator(path, Stage::Postrouting),
            )),
            _ => None,
        }
    }

    fn fate_of_reply<'s>(
        &'s self,
        path: &'s Path,
        conversation: &Conversation,
    ) -> Option<(Fate, Event<'s>)> {
        if let Some(end) = self.end_of(path) {
            return Some(end);
        }
        let end = path.end()?;
        let header = end.header?;
        let meant = (conversation.listen, conversation.port);
        let source = header.ports.map(|(port, _)| (header.source, port));
        let astray = end.stage == Stage::Input || source != Some(meant);
        astray.then_some((Fate::Untranslated, Event::Untranslated(path)))
    }

    /// Finds the event that ended a packet's path within the machine.
    fn end_of<'s>(&'s self, path: &'s Path) -> Option<(Fate, Event<'s>)> {
        let ends = |step: &&Step| {
            let decides = matches!(step.kind, Kind::Rule { .. } | Kind::Policy(_));
            decides
                && matches!(
                    step.verdict,
                    Verdict::Drop | Verdict::Stolen | Verdict::Queue
                )
        };
        if let Some(step) = path.steps.iter().rev().find(ends) {
            let fate = match step.verdict {
                Verdict::Drop => Fate::Dropped,
                _ => Fate::Diverted,
            };
            return Some((fate, Event::Traced(step)));
        }
        let end = path.end()?;
        match (&end.kind, end.stage) {
            (Kind::Leaves, Stage::Postrouting | Stage::Input) => None,
            (Kind::Leaves, _) => Some((Fate::Dropped, Event::Lost(end))),
            (_, stage) => {
                let mut counted = self.legacy.iter().filter(|counted| counted.stage == stage);
                let legacy = counted.find(|counted| counted.takes());
                let event = legacy.map_or(Event::Lost(end), Event::Legacy);
                Some((Fate::Dropped, event))
            }
        }
    }

    /// Finds the rule that gave a packet its address: the last that accepted it before the address
    /// changed, or one of legacy that counted.
    fn translator<'s>(&'s self, path: &'s Path, stage: Stage) -> Event<'s> {
        let at_stage = || path.steps.iter().filter(move |step| step.stage == stage);
        let entered = at_stage().find_map(|step| step.header);
        let before = at_stage().take_while(|step| step.header == entered);
        let accepts = |step: &&Step| {
            matches!(step.kind, Kind::Rule { .. }) && step.verdict == Verdict::Accept
        };
        let in_nat = before.filter(accepts).last();
        let legacy = self
            .legacy
            .iter()
            .find(|counted| counted.stage == stage && counted.translates());
        match (in_nat, legacy) {
            // The rules of nft may have accepted it elsewhere than in a table for translation.
            (Some(step), None) => Event::Traced(step),
            (Some(step), Some(_)) if is_nat_of_iptables(step) => Event::Traced(step),
            (_, Some(counted)) => Event::Legacy(counted),
            (None, None) => Event::Untranslated(path),
        }
    }

    /// Finds a rule of legacy that took a packet, by counters alone.
    fn counted_drop(&self) -> Option<(Direction, Fate, Event<'_>)> {
        let mut counted = self.legacy.iter();
        let taker = counted.find(|counted| counted.takes() && counted.packets > 0)?;
        Some((Direction::Request, Fate::Dropped, Event::Legacy(taker)))
    }

    /// Finds the reason for which the kernel lost a packet behind a step.
    fn lost(&self, step: &Step) -> KernelReason {
        let asked = (step.stage == Stage::Prerouting && step.kind == Kind::Leaves)
            .then(|| question(step))
            .flatten();
        if let Some(reason) = self.kernel.first() {
            return reason.clone();
        }
        match asked.map(|question| route::ask_route(&question)) {
            Some(Err(reason)) => reason,
            _ => KernelReason::Unknown(step.stage),
        }
    }

    /// Finds the reason for which a packet that passed all rules did not leave.
    fn sent(&self, step: &Step) -> Option<KernelReason> {
        if self.kernel.contains(&KernelReason::NeedsFragmentation) {
            return Some(KernelReason::NeedsFragmentation);
        }
        let header = step.header?;
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
    fn untranslated(&self, path: &Path) -> Result<By, CauseError> {
        let rules = path.steps.iter().filter(|step| {
            step.stage == Stage::Prerouting && matches!(step.kind, Kind::Rule { .. })
        });
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
            if step.verdict == Verdict::Accept {
                accepts = Some(decided);
            }
        }
        let at_prerouting = |counted: &&Counted| counted.stage == Stage::Prerouting;
        let mut legacy = self.legacy.iter().filter(at_prerouting);
        if let Some(counted) = legacy.find(|counted| counted.untracks()) {
            return Ok(by_legacy(counted));
        }
        Ok(accepts.map_or(By::NoRule, By::Rule))
    }
}

impl Conversation {
    /// Whether a path is one of a packet from the client.
    fn requests(&self, path: &Path) -> bool {
        path.first().is_some_and(|header| {
            header.protocol == number(self.protocol)
                && header.source == self.client
                && destination(header) == Some((self.listen, self.port))
        })
    }

    /// Whether a path is one of an answer.
    fn replies(&self, path: &Path, servers: &[(IpAddr, u16)]) -> bool {
        let from = |header: Header| {
            let (port, _) = header.ports?;
            Some((header.source, port))
        };
        path.first().is_some_and(|header| {
            header.protocol == number(self.protocol)
                && from(header).is_some_and(|from| servers.contains(&from))
        })
    }
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

fn destination(header: Header) -> Option<(IpAddr, u16)> {
    header.ports.map(|(_, port)| (header.destination, port))
}

/// Whether a rule answers the sender. iptables prints a target, nft a word.
fn rejects(text: &str) -> bool {
    text.contains("-j REJECT") || text.split(' ').any(|word| word == "reject")
}

fn untracks(text: &str) -> bool {
    text.contains("-j NOTRACK")
        || text.contains("--notrack")
        || text.split(' ').any(|word| word == "notrack")
}

fn is_nat_of_iptables(step: &Step) -> bool {
    matches!(&step.kind, Kind::Rule { base, .. } if base.table == "nat")
}

/// Whether a base chain translates.
fn is_nat(base: &super::message::Chain) -> Result<bool, CauseError> {
    let listed = Listed::of(base)?;
    Ok(listed
        .base
        .is_some_and(|line| line.starts_with("type nat ")))
}

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
        owner: foreign::owner_of(counted.table.as_str(), counted.chain.as_str()),
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

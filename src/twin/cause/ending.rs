//! The event that ended a conversation, found in what the kernel reported.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::WatchReport;
use super::legacy::CountedRule;
use super::message::{FRAGMENT, Header, NftVerdict};
use super::path::{PacketPath, TraceStep, TraceStepKind};
use super::trace::Stage;
use crate::forwards::OutboundProtocol;
use crate::net::Family;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Packets of the client.
    Request,
    /// Packets of the target.
    Reply,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Dropped,
    /// Dropped, with an answer to the sender.
    Rejected,
    /// Given to a program, or stolen by another module of the kernel.
    Diverted,
    /// Never sent: neighbour discovery, which asks for the machine's hardware address or answers such a question, was
    /// dropped.
    Unresolved,
    /// Sent to another address.
    Translated {
        to: (IpAddr, u16),
    },
    /// Sent to a program of the machine itself.
    Redirected {
        to: (IpAddr, u16),
    },
    /// Sent with another source than the one that is wanted.
    SourceTranslated {
        to: IpAddr,
    },
    /// Sent on with the destination and source that it came with.
    Untranslated,
}

/// A connection as its client opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    pub protocol: OutboundProtocol,
    pub client: IpAddr,
    /// The address and port that the client connects to. A ping has port 0.
    pub listen: IpAddr,
    pub port: u16,
    /// The addresses and ports to one of which a forward sends the connection. None if that is not known.
    pub targets: Vec<(IpAddr, u16)>,
    /// The source addresses that the target may see. Empty if any is fine.
    pub sources: Vec<RangeInclusive<IpAddr>>,
}

/// The event that ended a conversation. The text of a rule is not read yet.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending<'s> {
    /// A rule or a policy that was traced.
    Traced(&'s TraceStep),
    Legacy(&'s CountedRule),
    /// The packet was lost between two stages, or within one in which no rule took it. The step is the last one at
    /// which it was seen.
    Lost(&'s TraceStep),
    /// The last packet, a request or a reply, left the machine.
    Sent(&'s TraceStep),
    /// No rule translated the packet of this path at this stage.
    Untranslated(&'s PacketPath, Stage),
    NotSeen,
}

impl WatchReport {
    /// Finds the event that ended a conversation.
    #[must_use]
    pub fn ending(&self, conversation: &Conversation) -> Option<(Direction, Fate, Ending<'_>)> {
        let (mut sent, mut answered) = (None, None);
        // The sources of replies: the targets, and the addresses to which requests were sent.
        let mut servers = conversation.targets.clone();
        for path in &self.paths {
            if conversation.requests(path) {
                if let Some((fate, event)) = self.fate_of_request(path, conversation) {
                    return Some((Direction::Request, fate, event));
                }
                if let Some(end) = path.end() {
                    sent = Some(end);
                    let to = |header: Header| {
                        let address = path.fragment().map(|_| (header.destination, 0));
                        destination(header).or(address)
                    };
                    servers.extend(end.header.and_then(to));
                }
            } else if conversation.replies(path, &servers) {
                answered = path.end().or(answered);
                if let Some((fate, event)) = self.fate_of_reply(path, conversation) {
                    return Some((Direction::Reply, fate, event));
                }
            }
        }
        match answered
            .map(|step| (Direction::Reply, step))
            .or(sent.map(|step| (Direction::Request, step)))
        {
            Some((direction, step)) => Some((direction, Fate::Dropped, Ending::Sent(step))),
            // The counters are all that is left without a trace.
            None if !self.traced => self.counted_drop(Family::of(conversation.client)),
            None => Some((Direction::Request, Fate::Dropped, Ending::NotSeen)),
        }
    }

    fn fate_of_request<'s>(
        &'s self,
        path: &'s PacketPath,
        conversation: &Conversation,
    ) -> Option<(Fate, Ending<'s>)> {
        if let Some(end) = self.end_of(path) {
            return self.mistranslated(path, conversation).or(Some(end));
        }
        let end = path.end()?;
        let header = end.header?;
        let (asked, now) = (
            (conversation.listen, conversation.port),
            destination(header)?,
        );
        if end.stage == Stage::Input {
            if now == asked {
                return Some((
                    Fate::Untranslated,
                    Ending::Untranslated(path, Stage::Prerouting),
                ));
            }
            let translator = self.translator(path, Stage::Prerouting);
            return Some((Fate::Redirected { to: now }, translator));
        }
        if conversation.goes_astray(now) {
            if now == asked {
                return Some((
                    Fate::Untranslated,
                    Ending::Untranslated(path, Stage::Prerouting),
                ));
            }
            let translator = self.translator(path, Stage::Prerouting);
            return Some((Fate::Translated { to: now }, translator));
        }
        let mut meant = conversation.sources.iter();
        let is_meant =
            meant.len() == 0 || meant.any(|addresses| addresses.contains(&header.source));
        (!is_meant).then(|| {
            (
                Fate::SourceTranslated { to: header.source },
                self.translator(path, Stage::Postrouting),
            )
        })
    }

    /// Finds the rule that sent a packet elsewhere before another rule or a policy took it. No rule is meant to
    /// accept the packet there.
    fn mistranslated<'s>(
        &'s self,
        path: &'s PacketPath,
        conversation: &Conversation,
    ) -> Option<(Fate, Ending<'s>)> {
        let asked = (conversation.listen, conversation.port);
        let behind = path.steps.iter().rev();
        // The steps after the hook in which destinations are translated.
        let is_behind = |step: &&TraceStep| match step.stage {
            Stage::Prerouting => step.kind == TraceStepKind::Leaves,
            stage => matches!(stage, Stage::Forward | Stage::Input),
        };
        let mut behind = behind.filter(is_behind);
        let now = behind.find_map(|step| destination(step.header?))?;
        if !conversation.goes_astray(now) {
            None
        } else if now == asked {
            Some((
                Fate::Untranslated,
                Ending::Untranslated(path, Stage::Prerouting),
            ))
        } else {
            let translator = self.translator(path, Stage::Prerouting);
            let fate = match path.steps.last()?.stage {
                Stage::Input => Fate::Redirected { to: now },
                _ => Fate::Translated { to: now },
            };
            Some((fate, translator))
        }
    }

    fn fate_of_reply<'s>(
        &'s self,
        path: &'s PacketPath,
        conversation: &Conversation,
    ) -> Option<(Fate, Ending<'s>)> {
        if let Some(end) = self.end_of(path) {
            return Some(end);
        }
        let end = path.end()?;
        let header = end.header?;
        if path.fragment().is_some() {
            return None;
        }
        let meant = (conversation.listen, conversation.port);
        let source = header.ports.map(|(port, _)| (header.source, port));
        let astray = end.stage == Stage::Input || source != Some(meant);
        astray.then_some((
            Fate::Untranslated,
            Ending::Untranslated(path, Stage::Prerouting),
        ))
    }

    /// Finds the event that ended a packet's path within the machine.
    pub(super) fn end_of<'s>(&'s self, path: &'s PacketPath) -> Option<(Fate, Ending<'s>)> {
        let ends = |step: &&TraceStep| {
            let decides = matches!(
                step.kind,
                TraceStepKind::Rule { .. } | TraceStepKind::Policy(_)
            );
            decides
                && matches!(
                    step.verdict,
                    NftVerdict::Drop | NftVerdict::Stolen | NftVerdict::Queue
                )
        };
        if let Some(step) = path.steps.iter().rev().find(ends) {
            let fate = match step.verdict {
                NftVerdict::Drop => Fate::Dropped,
                _ => Fate::Diverted,
            };
            return Some((fate, Ending::Traced(step)));
        }
        let end = path.end()?;
        match (&end.kind, end.stage) {
            (TraceStepKind::Leaves, Stage::Postrouting | Stage::Input) => None,
            (TraceStepKind::Leaves, _) => Some((Fate::Dropped, Ending::Lost(end))),
            (_, stage) => {
                let mut counted = self.legacy_of(path);
                let legacy = counted.find(|counted| counted.stage == stage && counted.takes());
                let event = legacy.map_or(Ending::Lost(end), Ending::Legacy);
                Some((Fate::Dropped, event))
            }
        }
    }

    /// Finds the rule that gave a packet its address: the last rule that accepted the packet before its address
    /// changed, or a rule of iptables-legacy that counted.
    fn translator<'s>(&'s self, path: &'s PacketPath, stage: Stage) -> Ending<'s> {
        let at_stage = || path.steps.iter().filter(move |step| step.stage == stage);
        // A packet that comes in fragments has no ports at first.
        let whole = |step: &TraceStep| step.header.filter(|header| header.ports.is_some());
        let entered = at_stage().find_map(whole);
        let before =
            at_stage().take_while(|step| whole(step).is_none_or(|now| Some(now) == entered));
        let accepts = |step: &&TraceStep| {
            matches!(step.kind, TraceStepKind::Rule { .. }) && step.verdict == NftVerdict::Accept
        };
        let in_nat = before.filter(accepts).last();
        let legacy = self
            .legacy_of(path)
            .find(|counted| counted.stage == stage && counted.translates());
        match (in_nat, legacy) {
            // A rule of nft may have accepted the packet in another table than one for translation.
            (Some(step), None) => Ending::Traced(step),
            (Some(step), Some(_)) if is_nat_of_iptables(step) => Ending::Traced(step),
            (_, Some(counted)) => Ending::Legacy(counted),
            (None, None) => Ending::Untranslated(path, stage),
        }
    }

    /// Returns the rules of iptables-legacy that counted, in the family of a path's packet.
    pub fn legacy_of<'s>(&'s self, path: &PacketPath) -> impl Iterator<Item = &'s CountedRule> {
        let family = path.first().map(|header| Family::of(header.source));
        let counted = self.legacy.iter();
        counted.filter(move |one| family.is_none_or(|family| one.family == family))
    }

    /// Finds a rule of iptables-legacy that took a packet, by counters alone.
    fn counted_drop(&self, family: Family) -> Option<(Direction, Fate, Ending<'_>)> {
        let mut counted = self.legacy.iter().filter(|one| one.family == family);
        let taker = counted.find(|counted| counted.takes() && counted.packets > 0)?;
        Some((Direction::Request, Fate::Dropped, Ending::Legacy(taker)))
    }
}

impl Conversation {
    /// Returns whether a path belongs to a packet from the client.
    #[must_use]
    pub fn requests(&self, path: &PacketPath) -> bool {
        let is_fragment = |header: Header| {
            self.is_part(header)
                && (header.source, header.destination) == (self.client, self.listen)
        };
        path.fragment().is_some_and(is_fragment)
            || path.first().is_some_and(|header| {
                header.protocol == number(self.protocol, header.source)
                    && header.source == self.client
                    && destination(header) == Some((self.listen, self.port))
            })
    }

    /// Returns whether a fragment may be one of the conversation's packets, by its protocol.
    fn is_part(&self, fragment: Header) -> bool {
        let number = number(self.protocol, fragment.source);
        [number, FRAGMENT].contains(&fragment.protocol)
    }

    /// Returns whether packets to this address and port reach none of the targets.
    fn goes_astray(&self, now: (IpAddr, u16)) -> bool {
        !self.targets.is_empty() && !self.targets.contains(&now)
    }

    /// Returns whether a path belongs to a reply of one of some servers.
    #[must_use]
    pub fn replies(&self, path: &PacketPath, servers: &[(IpAddr, u16)]) -> bool {
        let from = |header: Header| {
            let (port, _) = header.ports?;
            Some((header.source, port))
        };
        let is_fragment = |header: Header| {
            let mut servers = servers.iter();
            self.is_part(header) && servers.any(|(server, _)| *server == header.source)
        };
        path.fragment().is_some_and(is_fragment)
            || path.first().is_some_and(|header| {
                header.protocol == number(self.protocol, header.source)
                    && from(header).is_some_and(|from| servers.contains(&from))
            })
    }
}

/// Returns the number of a protocol in an IP header with this source.
pub(super) fn number(protocol: OutboundProtocol, source: IpAddr) -> u8 {
    match (protocol, source) {
        (OutboundProtocol::Tcp, _) => 6,
        (OutboundProtocol::Udp, _) => 17,
        (OutboundProtocol::Ping, IpAddr::V4(_)) => 1,
        (OutboundProtocol::Ping, IpAddr::V6(_)) => 58,
    }
}

fn destination(header: Header) -> Option<(IpAddr, u16)> {
    header.ports.map(|(_, port)| (header.destination, port))
}

fn is_nat_of_iptables(step: &TraceStep) -> bool {
    matches!(&step.kind, TraceStepKind::Rule { base, .. } if base.table == "nat")
}

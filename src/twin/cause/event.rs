//! The deciding event of a conversation, by what was seen alone.

use std::net::IpAddr;

use super::Seen;
use super::legacy::Counted;
use super::message::{Header, Verdict};
use super::path::{Kind, Path, Step};
use super::trace::Stage;
use crate::net::{Family, Protocol};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    Request,
    /// From the target.
    Reply,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Dropped,
    /// Discarded, with an answer to the sender.
    Rejected,
    /// Given to a program, or taken out by another module.
    Diverted,
    /// Nobody sends it to the machine: neighbour discovery, which asks for the machine's hardware address or
    /// answers it, is dropped.
    Unresolved,
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

/// The event of a fate, before the machine is asked for its words.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'s> {
    /// A rule or a policy that was traced.
    Traced(&'s Step),
    Legacy(&'s Counted),
    /// Between two stages, or within one where no rule took it. The step is the last at which the packet
    /// was seen.
    Lost(&'s Step),
    /// The packet, or the last reply, went out.
    Sent(&'s Step),
    /// No rule translated the packet of this path at this stage.
    Untranslated(&'s Path, Stage),
    NotSeen,
}

impl Seen {
    /// Finds the deciding event by what was seen alone.
    #[must_use]
    pub fn event(&self, conversation: &Conversation) -> Option<(Direction, Fate, Event<'_>)> {
        let (mut sent, mut answered) = (None, None);
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
            Some((direction, step)) => Some((direction, Fate::Dropped, Event::Sent(step))),
            // Without a trace there are only the counters.
            None if !self.traced => self.counted_drop(Family::of(conversation.client)),
            None => Some((Direction::Request, Fate::Dropped, Event::NotSeen)),
        }
    }

    fn fate_of_request<'s>(
        &'s self,
        path: &'s Path,
        conversation: &Conversation,
    ) -> Option<(Fate, Event<'s>)> {
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
                    Event::Untranslated(path, Stage::Prerouting),
                ));
            }
            let translator = self.translator(path, Stage::Prerouting);
            return Some((Fate::Redirected { to: now }, translator));
        }
        match conversation.target {
            Some(target) if now == asked && target != asked => {
                return Some((
                    Fate::Untranslated,
                    Event::Untranslated(path, Stage::Prerouting),
                ));
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

    /// Finds the rule that sent a packet elsewhere before another rule or a policy took it: no rule is
    /// meant to accept it there.
    fn mistranslated<'s>(
        &'s self,
        path: &'s Path,
        conversation: &Conversation,
    ) -> Option<(Fate, Event<'s>)> {
        let target = conversation.target?;
        let asked = (conversation.listen, conversation.port);
        let behind = path.steps.iter().rev();
        // Behind the hook in which destinations are translated.
        let is_behind = |step: &&Step| match step.stage {
            Stage::Prerouting => step.kind == Kind::Leaves,
            stage => matches!(stage, Stage::Forward | Stage::Input),
        };
        let mut behind = behind.filter(is_behind);
        let now = behind.find_map(|step| destination(step.header?))?;
        if now == target {
            None
        } else if now == asked {
            Some((
                Fate::Untranslated,
                Event::Untranslated(path, Stage::Prerouting),
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
        astray.then_some((
            Fate::Untranslated,
            Event::Untranslated(path, Stage::Prerouting),
        ))
    }

    /// Finds the event that ended a packet's path within the machine.
    pub(super) fn end_of<'s>(&'s self, path: &'s Path) -> Option<(Fate, Event<'s>)> {
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
                let mut counted = self.legacy_of(path);
                let legacy = counted.find(|counted| counted.stage == stage && counted.takes());
                let event = legacy.map_or(Event::Lost(end), Event::Legacy);
                Some((Fate::Dropped, event))
            }
        }
    }

    /// Finds the rule that gave a packet its address: the last that accepted it before the address
    /// changed, or one of legacy that counted.
    fn translator<'s>(&'s self, path: &'s Path, stage: Stage) -> Event<'s> {
        let at_stage = || path.steps.iter().filter(move |step| step.stage == stage);
        // A packet that comes in fragments has no ports at first.
        let whole = |step: &Step| step.header.filter(|header| header.ports.is_some());
        let entered = at_stage().find_map(whole);
        let before =
            at_stage().take_while(|step| whole(step).is_none_or(|now| Some(now) == entered));
        let accepts = |step: &&Step| {
            matches!(step.kind, Kind::Rule { .. }) && step.verdict == Verdict::Accept
        };
        let in_nat = before.filter(accepts).last();
        let legacy = self
            .legacy_of(path)
            .find(|counted| counted.stage == stage && counted.translates());
        match (in_nat, legacy) {
            // The rules of nft may have accepted it elsewhere than in a table for translation.
            (Some(step), None) => Event::Traced(step),
            (Some(step), Some(_)) if is_nat_of_iptables(step) => Event::Traced(step),
            (_, Some(counted)) => Event::Legacy(counted),
            (None, None) => Event::Untranslated(path, stage),
        }
    }

    /// Lists the rules of legacy that counted, of the family of a path's packet.
    pub(super) fn legacy_of<'s>(&'s self, path: &Path) -> impl Iterator<Item = &'s Counted> {
        let family = path.first().map(|header| Family::of(header.source));
        let counted = self.legacy.iter();
        counted.filter(move |one| family.is_none_or(|family| one.family == family))
    }

    /// Finds a rule of legacy that took a packet, by counters alone.
    fn counted_drop(&self, family: Family) -> Option<(Direction, Fate, Event<'_>)> {
        let mut counted = self.legacy.iter().filter(|one| one.family == family);
        let taker = counted.find(|counted| counted.takes() && counted.packets > 0)?;
        Some((Direction::Request, Fate::Dropped, Event::Legacy(taker)))
    }
}

impl Conversation {
    /// Whether a path is one of a packet from the client.
    pub(super) fn requests(&self, path: &Path) -> bool {
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

/// Returns the number of a protocol in the header of IP.
pub(super) fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

fn destination(header: Header) -> Option<(IpAddr, u16)> {
    header.ports.map(|(_, port)| (header.destination, port))
}

fn is_nat_of_iptables(step: &Step) -> bool {
    matches!(&step.kind, Kind::Rule { base, .. } if base.table == "nat")
}

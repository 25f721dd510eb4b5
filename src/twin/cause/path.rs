//! The paths of traced packets through the hooks.

use super::message::{Chain, Event, Header, Message, Verdict};
use super::trace::{Edge, Stage};

/// A packet that was traced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path {
    /// In the order in which the packet went through them.
    pub steps: Vec<Step>,
}

/// An event on a packet's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub stage: Stage,
    pub kind: Kind,
    pub verdict: Verdict,
    /// The packet as it came to the base chain.
    pub header: Option<Header>,
    pub iif: Option<u32>,
    pub oif: Option<u32>,
    pub mark: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The packet comes to the first chain of the stage.
    Enters,
    /// The packet has passed the last chain of the stage.
    Leaves,
    /// `base`: the base chain from which the packet came to `chain`.
    Rule {
        chain: Chain,
        base: Chain,
        handle: u64,
    },
    Return(Chain),
    Policy(Chain),
}

impl Step {
    /// Whether a rule accepted the packet.
    #[must_use]
    pub fn accepts(&self) -> bool {
        matches!(self.kind, Kind::Rule { .. }) && self.verdict == Verdict::Accept
    }
}

impl Path {
    /// The packet as it came. One that came in fragments goes on as the last of them (measured, Linux
    /// 6.18); the paths of the others end in prerouting, without ports.
    #[must_use]
    pub fn first(&self) -> Option<Header> {
        let headers = || self.steps.iter().filter_map(|step| step.header);
        let whole = headers().find(|header| header.ports.is_some());
        whole.or_else(|| headers().next())
    }

    /// The last chains of nvactl's that the packet came to, and the packet there.
    #[must_use]
    pub fn end(&self) -> Option<&Step> {
        let mut steps = self.steps.iter().rev();
        steps.find(|step| matches!(step.kind, Kind::Enters | Kind::Leaves))
    }

    /// Whether the packet has passed the last chain of a stage.
    #[must_use]
    pub fn left(&self, stage: Stage) -> bool {
        let left = |step: &Step| step.stage == stage && step.kind == Kind::Leaves;
        self.steps.iter().any(left)
    }
}

/// Joins messages to paths, in the order in which the packets came.
#[must_use]
pub fn paths(messages: Vec<Message>) -> Vec<Path> {
    let mut walks: Vec<(u32, Walk)> = Vec::new();
    for message in messages {
        let edge = Edge::of(&message.chain);
        // An id that begins again is another packet. Only a chain's first message has a header.
        let begins = edge.filter(|_| message.header.is_some());
        let known = walks.iter_mut().rev().find(|(id, _)| *id == message.id);
        let known = known.filter(|(_, walk)| !begins.is_some_and(|edge| walk.is_past(edge)));
        match known {
            Some((_, walk)) => walk.add(message, edge),
            None => {
                let mut walk = Walk::default();
                let id = message.id;
                walk.add(message, edge);
                walks.push((id, walk));
            }
        }
    }
    walks.into_iter().map(|(_, walk)| walk.path).collect()
}

/// A path that is still growing.
#[derive(Default)]
struct Walk {
    path: Path,
    at: Option<(Stage, Edge)>,
    base: Option<Chain>,
    header: Option<Header>,
}

impl Walk {
    /// Whether the packet has been at an edge or behind it, so that it cannot come there again.
    fn is_past(&self, (stage, edge): (Stage, Edge)) -> bool {
        edge == Edge::First && self.at.is_some_and(|(at, _)| at >= stage)
    }

    fn add(&mut self, message: Message, edge: Option<(Stage, Edge)>) {
        let has_header = message.header.is_some();
        if let Some(header) = message.header {
            self.header = Some(header);
            self.base = Some(message.chain.clone());
        }
        let kind = match (edge, message.event) {
            // A chain of nvactl's may send two messages, the first of which has the packet.
            (Some(_), _) if !has_header => return,
            (Some((_, Edge::First | Edge::Whole)), _) => Kind::Enters,
            (Some((_, Edge::Last)), _) => Kind::Leaves,
            (None, Event::Rule(handle)) => Kind::Rule {
                base: self.base.clone().unwrap_or_else(|| message.chain.clone()),
                chain: message.chain,
                handle,
            },
            (None, Event::Return) => Kind::Return(message.chain),
            (None, Event::Policy) => Kind::Policy(message.chain),
        };
        if edge.is_some() {
            self.at = edge;
        }
        // The egress hook, at which nvactl has no chain, comes behind postrouting.
        let stage = match (self.at, &kind) {
            (Some((Stage::Postrouting, Edge::Last)), Kind::Rule { .. } | Kind::Policy(_)) => {
                Stage::Egress
            }
            (Some((stage, _)), _) => stage,
            (None, _) => Stage::Ingress,
        };
        self.path.steps.push(Step {
            stage,
            kind,
            verdict: message.verdict,
            header: self.header,
            iif: message.iif,
            oif: message.oif,
            mark: message.mark,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::trace::TABLE;
    use super::*;

    fn message(
        family: &'static str,
        table: &str,
        name: &str,
        event: Event,
        dumped: bool,
    ) -> Message {
        let header = Header {
            source: [10, 1, 0, 2].into(),
            destination: [10, 1, 0, 1].into(),
            protocol: 17,
            ports: Some((4711, 5000)),
        };
        Message {
            id: 7,
            chain: Chain {
                family,
                table: table.to_owned(),
                name: name.to_owned(),
            },
            event,
            verdict: Verdict::Accept,
            header: dumped.then_some(header),
            iif: None,
            oif: None,
            mark: 0,
        }
    }

    /// As the kernel tells of one packet that passes prerouting.
    fn packet() -> Vec<Message> {
        vec![
            message("netdev", TABLE, "ingress-first-0", Event::Rule(3), true),
            message("netdev", TABLE, "ingress-first-0", Event::Policy, false),
            message("netdev", TABLE, "ingress-last-0", Event::Return, true),
            message("inet", TABLE, "prerouting-first", Event::Rule(1), true),
            message("inet", TABLE, "prerouting-first", Event::Policy, false),
            message("ip", "nat", "PREROUTING", Event::Rule(9), true),
            message("ip", "nat", "OWN", Event::Rule(4), false),
            message("inet", TABLE, "prerouting-last", Event::Policy, true),
            message("inet", TABLE, "forward-first", Event::Policy, true),
        ]
    }

    #[test]
    fn a_packet_has_one_path_and_one_sent_again_another() {
        let both = paths([packet(), packet()].concat());
        assert_eq!(both.len(), 2);
        assert_eq!(both[0], both[1]);
        let path = &both[0];
        assert!(path.left(Stage::Prerouting) && !path.left(Stage::Forward));
        let end = path.end().expect("it has steps");
        assert_eq!((end.stage, &end.kind), (Stage::Forward, &Kind::Enters));
        let rules: Vec<_> = path
            .steps
            .iter()
            .filter_map(|step| match &step.kind {
                Kind::Rule {
                    chain,
                    base,
                    handle,
                } => Some((step.stage, &*chain.name, &*base.name, *handle)),
                _ => None,
            })
            .collect();
        assert_eq!(
            rules,
            [
                (Stage::Prerouting, "PREROUTING", "PREROUTING", 9),
                (Stage::Prerouting, "OWN", "PREROUTING", 4),
            ]
        );
    }
}

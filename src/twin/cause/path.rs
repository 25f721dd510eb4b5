//! The paths of traced packets through the hooks.

use super::message::{Header, Message, MessageKind, NftChain, NftVerdict};
use super::trace::{Edge, Stage};

/// A traced packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PacketPath {
    /// The steps in the order of the packet's path.
    pub steps: Vec<TraceStep>,
}

/// An event on a packet's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceStep {
    pub stage: Stage,
    pub kind: TraceStepKind,
    pub verdict: NftVerdict,
    /// The packet as it entered the base chain.
    pub header: Option<Header>,
    pub iif: Option<u32>,
    pub oif: Option<u32>,
    pub mark: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceStepKind {
    /// The packet enters the first chain of the stage.
    Enters,
    /// The packet has passed the last chain of the stage.
    Leaves,
    /// `base` is the base chain from which the packet came to `chain`.
    Rule {
        chain: NftChain,
        base: NftChain,
        handle: u64,
    },
    Return(NftChain),
    Policy(NftChain),
}

impl TraceStep {
    /// Returns whether a rule accepted the packet.
    #[must_use]
    pub fn accepts(&self) -> bool {
        matches!(self.kind, TraceStepKind::Rule { .. }) && self.verdict == NftVerdict::Accept
    }
}

impl PacketPath {
    /// Returns the packet as it came. A packet that comes in fragments continues as the last fragment (Linux
    /// 6.18, held by the lab's `a_reason_of_the_kernel_is_named`). The paths of the other fragments end in prerouting,
    /// without ports.
    #[must_use]
    pub fn first(&self) -> Option<Header> {
        let headers = || self.steps.iter().filter_map(|step| step.header);
        let whole = headers().find(|header| header.ports.is_some());
        whole.or_else(|| headers().next())
    }

    /// Returns the packet as it came if it is a fragment that takes a path of its own: without connection tracking the
    /// kernel does not assemble fragments.
    #[must_use]
    pub fn fragment(&self) -> Option<Header> {
        let header = self.first().filter(|header| header.is_fragment)?;
        let goes_on = |step: &TraceStep| {
            let is_behind = !matches!(step.stage, Stage::Ingress | Stage::Prerouting);
            is_behind || step.verdict == NftVerdict::Drop
        };
        self.steps.iter().any(goes_on).then_some(header)
    }

    /// Returns the last chain of nvactl that the packet reached, and the packet there.
    #[must_use]
    pub fn end(&self) -> Option<&TraceStep> {
        let mut steps = self.steps.iter().rev();
        steps.find(|step| matches!(step.kind, TraceStepKind::Enters | TraceStepKind::Leaves))
    }

    /// Returns whether the packet has passed the last chain of a stage.
    #[must_use]
    pub fn left(&self, stage: Stage) -> bool {
        let left = |step: &TraceStep| step.stage == stage && step.kind == TraceStepKind::Leaves;
        self.steps.iter().any(left)
    }
}

/// Joins messages to paths, in the order in which the packets came.
#[must_use]
pub fn paths(messages: Vec<Message>) -> Vec<PacketPath> {
    let mut walks: Vec<(u32, GrowingPath)> = Vec::new();
    for message in messages {
        let edge = Edge::of(&message.chain);
        // An id at an earlier hook is another packet with the same id. Only a chain's first message has a header.
        let begins = edge.filter(|_| message.header.is_some());
        let known = walks.iter_mut().rev().find(|(id, _)| *id == message.id);
        let known = known.filter(|(_, walk)| !begins.is_some_and(|edge| walk.is_past(edge)));
        match known {
            Some((_, walk)) => walk.add(message, edge),
            None => {
                let mut walk = GrowingPath::default();
                let id = message.id;
                walk.add(message, edge);
                walks.push((id, walk));
            }
        }
    }
    walks.into_iter().map(|(_, walk)| walk.path).collect()
}

/// A path to which messages are still added.
#[derive(Default)]
struct GrowingPath {
    path: PacketPath,
    at: Option<(Stage, Edge)>,
    base: Option<NftChain>,
    header: Option<Header>,
}

impl GrowingPath {
    /// Returns whether the packet has passed an edge, so that it cannot come there again.
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
            // A chain of nvactl may send two messages. The first has the packet.
            (Some(_), _) if !has_header => return,
            (Some((_, Edge::First | Edge::Whole)), _) => TraceStepKind::Enters,
            (Some((_, Edge::Last)), _) => TraceStepKind::Leaves,
            (None, MessageKind::Rule(handle)) => TraceStepKind::Rule {
                base: self.base.clone().unwrap_or_else(|| message.chain.clone()),
                chain: message.chain,
                handle,
            },
            (None, MessageKind::Return) => TraceStepKind::Return(message.chain),
            (None, MessageKind::Policy) => TraceStepKind::Policy(message.chain),
        };
        if edge.is_some() {
            self.at = edge;
        }
        // nvactl has no chain at the egress hook, which comes after postrouting.
        let stage = match (self.at, &kind) {
            (
                Some((Stage::Postrouting, Edge::Last)),
                TraceStepKind::Rule { .. } | TraceStepKind::Policy(_),
            ) => Stage::Egress,
            (Some((stage, _)), _) => stage,
            (None, _) => Stage::Ingress,
        };
        self.path.steps.push(TraceStep {
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
        event: MessageKind,
        dumped: bool,
    ) -> Message {
        let header = Header {
            source: [10, 1, 0, 2].into(),
            destination: [10, 1, 0, 1].into(),
            protocol: 17,
            ports: Some((4711, 5000)),
            is_fragment: false,
        };
        Message {
            id: 7,
            chain: NftChain {
                family,
                table: table.to_owned(),
                name: name.to_owned(),
            },
            event,
            verdict: NftVerdict::Accept,
            header: dumped.then_some(header),
            iif: None,
            oif: None,
            mark: 0,
        }
    }

    /// Returns the messages about one packet that passes prerouting.
    fn packet() -> Vec<Message> {
        vec![
            message(
                "netdev",
                TABLE,
                "ingress-first-0",
                MessageKind::Rule(3),
                true,
            ),
            message(
                "netdev",
                TABLE,
                "ingress-first-0",
                MessageKind::Policy,
                false,
            ),
            message("netdev", TABLE, "ingress-last-0", MessageKind::Return, true),
            message(
                "inet",
                TABLE,
                "prerouting-first",
                MessageKind::Rule(1),
                true,
            ),
            message(
                "inet",
                TABLE,
                "prerouting-first",
                MessageKind::Policy,
                false,
            ),
            message("ip", "nat", "PREROUTING", MessageKind::Rule(9), true),
            message("ip", "nat", "OWN", MessageKind::Rule(4), false),
            message("inet", TABLE, "prerouting-last", MessageKind::Policy, true),
            message("inet", TABLE, "forward-first", MessageKind::Policy, true),
        ]
    }

    #[test]
    fn a_packet_that_is_sent_again_has_a_path_of_its_own() {
        let both = paths([packet(), packet()].concat());
        assert_eq!(both.len(), 2);
        assert_eq!(both[0], both[1]);
        let path = &both[0];
        assert!(path.left(Stage::Prerouting) && !path.left(Stage::Forward));
        let end = path.end().expect("it has steps");
        assert_eq!(
            (end.stage, &end.kind),
            (Stage::Forward, &TraceStepKind::Enters)
        );
        let rules: Vec<_> = path
            .steps
            .iter()
            .filter_map(|step| match &step.kind {
                TraceStepKind::Rule {
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

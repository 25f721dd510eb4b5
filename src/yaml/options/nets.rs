//! The keys `allow_from`, `deny_from`, `allow_to` and `deny_to`.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::forwards::INTERNET;
use crate::net::Family;
use crate::yaml::bounds::MAX_PROBLEMS;
use crate::yaml::fields::{Placed, parsed_item, sequence};
use crate::yaml::load::{Node, Value};
use crate::yaml::nets::ByFamily;
use crate::yaml::networks::{Member, NetworkNames};
use crate::yaml::problem::{Problem, ProblemKind, Span};

/// Reads a list of networks and of names of networks, or nothing if one of them is invalid.
pub fn nets(
    node: &Node<'_>,
    key: &'static str,
    networks: &mut NetworkNames<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Placed<ByFamily>> {
    let items = sequence(node, key, problems)?;
    let span = node.span.clone();
    let value = each(items, &span, key, networks, problems)?;
    Some(Placed { value, span })
}

/// Reads the networks and names of a list's items, or nothing if one of them is invalid.
fn each<'n>(
    items: impl IntoIterator<Item = &'n Node<'n>, IntoIter: ExactSizeIterator>,
    span: &Span,
    key: &'static str,
    networks: &mut NetworkNames<'_>,
    problems: &mut Vec<Problem>,
) -> Option<ByFamily> {
    let items = items.into_iter();
    let count = items.len();
    let (mut nets, mut names) = (Vec::<IpNet>::new(), Vec::new());
    for item in items {
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
        let expected = "a network as `198.51.100.0/24`, or a name from `networks`";
        let member = parsed_item(item, key, expected, problems, |text| networks.member(text));
        match member.map(|member| member.value) {
            Some(Member::Net(net)) => nets.push(net),
            Some(Member::Name(name)) => names.push(name),
            None => {}
        }
    }
    // A check of the other networks alone could report a problem that the spec does not have.
    if nets.len() + names.len() < count {
        return None;
    }
    networks.list(nets, names, span, problems)
}

/// The destinations of an outbound entry as written.
#[derive(Debug, Clone, Default)]
pub struct WrittenDestinations {
    pub internet: bool,
    pub nets: ByFamily,
}

impl WrittenDestinations {
    pub fn internet() -> Self {
        Self {
            internet: true,
            ..Self::default()
        }
    }

    pub fn is_empty(&self) -> bool {
        !self.internet && self.nets.is_empty()
    }

    pub fn has(&self, family: Family) -> bool {
        self.internet || !self.nets.of(family).is_empty()
    }

    /// Returns the addresses of the platform that the list names exactly.
    pub fn named(&self) -> &[IpAddr] {
        self.nets.guarded()
    }
}

/// Reads a list of networks and names, in which the word `internet` may stand, or that word alone.
pub fn destinations(
    node: &Node<'_>,
    key: &'static str,
    networks: &mut NetworkNames<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Placed<WrittenDestinations>> {
    let is_internet =
        |item: &&Node<'_>| matches!(&item.value, Value::Scalar(text) if text == INTERNET);
    let items = if is_internet(&node) {
        std::slice::from_ref(node)
    } else {
        sequence(node, key, problems)?
    };
    let (internet, others): (Vec<&Node<'_>>, Vec<_>) = items.iter().partition(is_internet);
    if let [_, again, ..] = internet.as_slice() {
        let text = INTERNET.to_owned();
        problems.push(Problem::new(
            again.span.clone(),
            ProblemKind::Twice { text },
        ));
    }
    let span = node.span.clone();
    let value = WrittenDestinations {
        internet: !internet.is_empty(),
        nets: each(others, &span, key, networks, problems)?,
    };
    Some(Placed { value, span })
}

//! DNAT rules of one listener, of which each takes a share of the connections.

use std::collections::BTreeMap;

use super::conditions::Share;
use super::redirect::Redirect;
use super::remark::ImportRemark;
use crate::forwards::{Destination, Listen};
use crate::netfilter::matches::Probability;
use crate::netfilter::text::parse::EveryNth;

/// Joins the rules that share the connections of one listener, and those that differ in their sources alone.
/// Returns the others unchanged, in order.
pub fn joined(all: Vec<Redirect<'_>>) -> Vec<Redirect<'_>> {
    let mut joined = Joined::default();
    let mut open: Option<Vec<Redirect<'_>>> = None;
    for one in all {
        if let Some(group) = &mut open {
            if is_of_one_listener(&group[0], &one) {
                let is_last = one.share.is_none();
                group.push(one);
                if is_last {
                    joined.push_all(open.take().map(together));
                }
                continue;
            }
            joined.push_all(open.take().map(together));
        }
        if one.share.is_some() {
            open = Some(vec![one]);
            continue;
        }
        match joined.other_sources(&one) {
            Some(other) => {
                other.sources.add(&one.sources);
                other.places.extend(one.places);
                other.ways.extend(one.ways);
                for remark in one.remarks {
                    if other.remarks.last().is_none_or(|last| last.1 != remark.1) {
                        other.remarks.push(remark);
                    }
                }
                for interface in one.ingress {
                    if !other.ingress.contains(&interface) {
                        other.ingress.push(interface);
                    }
                }
            }
            None => joined.push_all([one]),
        }
    }
    joined.push_all(open.map(together));
    joined.all
}

/// The joined redirections, in order.
#[derive(Default)]
struct Joined<'r> {
    all: Vec<Redirect<'r>>,
    /// Their numbers by listeners and targets.
    numbers: BTreeMap<(Vec<Listen>, Vec<Destination>), Vec<usize>>,
}

impl<'r> Joined<'r> {
    fn push_all(&mut self, some: impl IntoIterator<Item = Redirect<'r>>) {
        for one in some {
            let numbers = self.numbers.entry(key(&one)).or_default();
            numbers.push(self.all.len());
            self.all.push(one);
        }
    }

    /// Returns the first one that differs from another one in its sources alone.
    fn other_sources(&mut self, one: &Redirect<'_>) -> Option<&mut Redirect<'r>> {
        let numbers = self.numbers.get(&key(one))?;
        let mut numbers = numbers.iter().copied();
        let number = numbers.find(|number| differ_in_sources(&self.all[*number], one))?;
        self.all.get_mut(number)
    }
}

fn key(one: &Redirect<'_>) -> (Vec<Listen>, Vec<Destination>) {
    (one.listens.clone(), one.destinations.clone())
}

fn is_of_one_listener(one: &Redirect<'_>, other: &Redirect<'_>) -> bool {
    one.listens == other.listens
        && one.protocols == other.protocols
        && one.ingress == other.ingress
        && one.sources == other.sources
}

/// Returns whether two rules send one listener to the same targets, for different sources or interfaces.
fn differ_in_sources(one: &Redirect<'_>, other: &Redirect<'_>) -> bool {
    one.listens == other.listens
        && one.protocols == other.protocols
        && one.destinations == other.destinations
        && one.share.is_none()
        && (one.ingress == other.ingress
            || one.sources == other.sources && !one.ingress.is_empty() && !other.ingress.is_empty())
}

fn together(group: Vec<Redirect<'_>>) -> Redirect<'_> {
    let count = group.len();
    let is_whole = group.last().is_some_and(|last| last.share.is_none())
        || matches!(
            group.last().and_then(|last| last.share),
            Some(Share::Nth(EveryNth {
                every: 1,
                packet: 0
            }))
        );
    let is_equal = is_whole
        && group.iter().enumerate().all(|(n, one)| {
            let left = u32::try_from(count - n).unwrap_or(u32::MAX);
            match one.share {
                None => n + 1 == count,
                Some(Share::Probability(share)) => share == Probability::one_of(left),
                Some(Share::Nth(EveryNth { every, packet })) => every == left && packet == 0,
            }
        });
    let by_turns = group
        .iter()
        .any(|one| matches!(one.share, Some(Share::Nth(_))));
    let mut group = group.into_iter();
    let mut first = group.next().expect("a group has a first rule");
    if is_whole {
        first.share = None;
    }
    if is_whole && !is_equal {
        let place = first.places[0].clone();
        first.remarks.push((place, ImportRemark::UnequalShares));
    }
    if by_turns {
        let place = first.places[0].clone();
        first.remarks.push((place, ImportRemark::OtherShares));
    }
    for one in group {
        first.places.extend(one.places);
        first.ways.extend(one.ways);
        for to in one.destinations {
            if !first.destinations.contains(&to) {
                first.destinations.push(to);
            }
        }
    }
    first
}

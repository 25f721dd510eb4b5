//! DNAT rules of one listener, of which each takes a share of the connections.

use super::conditions::Share;
use super::redirect::Redirect;
use super::remark::ImportRemark;
use crate::netfilter::matches::Probability;
use crate::netfilter::text::parse::EveryNth;

/// Joins the rules that share the connections of one listener, and those that differ in their sources alone.
/// Returns the others unchanged, in order.
pub fn joined(all: Vec<Redirect<'_>>) -> Vec<Redirect<'_>> {
    let mut joined: Vec<Redirect<'_>> = Vec::new();
    let mut open: Option<Vec<Redirect<'_>>> = None;
    for one in all {
        if let Some(group) = &mut open {
            if is_of_one_listener(&group[0], &one) {
                let is_last = one.share.is_none();
                group.push(one);
                if is_last {
                    joined.extend(open.take().map(together));
                }
                continue;
            }
            joined.extend(open.take().map(together));
        }
        if one.share.is_some() {
            open = Some(vec![one]);
            continue;
        }
        match joined
            .iter_mut()
            .find(|other| differ_in_sources(other, &one))
        {
            Some(other) => {
                other.sources = other.sources.with(&one.sources);
                other.places.extend(one.places);
                other.ways.extend(one.ways);
                other.remarks.extend(one.remarks);
                other.remarks.dedup_by(|a, b| a.1 == b.1);
                for interface in one.ingress {
                    if !other.ingress.contains(&interface) {
                        other.ingress.push(interface);
                    }
                }
            }
            None => joined.push(one),
        }
    }
    joined.extend(open.map(together));
    joined
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

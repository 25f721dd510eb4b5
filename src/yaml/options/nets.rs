//! The keys `allow_from` and `deny_from`.

use ipnet::IpNet;

use crate::yaml::bounds::MAX_PROBLEMS;
use crate::yaml::fields::{Placed, parsed_item, sequence};
use crate::yaml::load::Node;
use crate::yaml::nets::ByFamily;
use crate::yaml::networks::{Member, NetworkNames};
use crate::yaml::problem::Problem;

/// Reads a list of networks and of names of networks, or nothing if one of them is invalid.
pub fn nets(
    node: &Node<'_>,
    key: &'static str,
    networks: &mut NetworkNames<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Placed<ByFamily>> {
    let (mut nets, mut names) = (Vec::<IpNet>::new(), Vec::new());
    let items = sequence(node, key, problems)?;
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
    if nets.len() + names.len() < items.len() {
        return None;
    }
    let span = node.span.clone();
    let value = networks.list(nets, names, &span, problems)?;
    Some(Placed { value, span })
}

//! The key `snat`, of the firewall and of a forward.

use std::str::FromStr as _;

use crate::forwards::{Snat, Snats};
use crate::net::{self, AddressRange, Family};
use crate::yaml::fields::{Fields, Placed, parsed};
use crate::yaml::load::{Node, Value};
use crate::yaml::problem::Problem;
use crate::yaml::problem::ProblemKind;

/// Reads one `snat` for both families, or a mapping with one for each. An address is for its own family
/// only.
pub fn snats(node: &Node<'_>, problems: &mut Vec<Problem>) -> Option<Placed<Snats>> {
    let expected = "an address, a range of them, `masquerade` or `none`, or these by `v4` and `v6`";
    let mut snats = Snats::default();
    if !matches!(node.value, Value::Mapping(_)) {
        let one = parsed(node, "snat", expected, problems, snat)?;
        let family = match one.value {
            Snat::Addresses(range) => Some(range.family()),
            _ => None,
        };
        snats.v4 = (family != Some(Family::V6)).then_some(one.value);
        snats.v6 = (family != Some(Family::V4)).then_some(one.value);
        return Some(Placed {
            value: snats,
            span: one.span,
        });
    }
    let fields = Fields::of(node, "snat", "`snat`", &["v4", "v6"], problems)?;
    let mut readable = true;
    for family in Family::ALL {
        let of_family = |text: &str| match snat(text)? {
            Snat::Addresses(range) if range.family() != family => Err(ProblemKind::WrongFamily {
                key: family.as_str(),
                address: range.first(),
                family,
            }),
            snat => Ok(snat),
        };
        let one = fields.parsed(family.as_str(), expected, problems, of_family);
        if one.is_none() && fields.get(family.as_str()).is_some() {
            readable = false;
        }
        match family {
            Family::V4 => snats.v4 = one.map(|one| one.value),
            Family::V6 => snats.v6 = one.map(|one| one.value),
        }
    }
    readable.then(|| Placed {
        value: snats,
        span: node.span.clone(),
    })
}

/// Reads one `snat`.
pub fn snat(text: &str) -> Result<Snat, ProblemKind> {
    match text {
        "masquerade" => Ok(Snat::Masquerade),
        "none" => Ok(Snat::Client),
        addresses => AddressRange::from_str(addresses)
            .map(Snat::Addresses)
            .map_err(|_| ProblemKind::InvalidSnat {
                text: addresses.to_owned(),
            }),
    }
}

/// Reports a source address that no host can have.
pub fn check_snat(snat: &Placed<Snats>, problems: &mut Vec<Problem>) {
    for family in Family::ALL {
        let Some(Snat::Addresses(range)) = snat.value.of(family) else {
            continue;
        };
        for address in [range.first(), range.last()] {
            if let Some(reason) = net::not_a_host(address) {
                let kind = ProblemKind::UnusableAddress {
                    key: "snat",
                    address,
                    reason,
                };
                problems.push(Problem::new(snat.span.clone(), kind));
                break;
            }
        }
    }
}

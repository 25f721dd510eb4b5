//! The lists of a forward's clients.

use super::addresses::Addresses;
use crate::forwards::{Nets, Sources};
use crate::net::Family;

/// Returns the lists that admit exactly the accepted clients. The short list is the one that people wrote.
pub fn client_lists(family: Family, accepted: &Addresses, refused: &Addresses) -> Sources {
    let outside = Addresses::all(family).without(accepted);
    // The refused part of a network that is otherwise allowed reads best as a deny list.
    let around = smallest_around(family, accepted, refused);
    match around {
        Some(allow) => Sources {
            deny: Nets::new(allow.without(accepted).nets()),
            allow: (!allow.are_all()).then(|| Nets::new(allow.nets())),
        },
        None if outside.nets().len() < accepted.nets().len() => Sources {
            allow: None,
            deny: Nets::new(outside.nets()),
        },
        None => Sources {
            allow: Some(Nets::new(accepted.nets())),
            deny: Nets::default(),
        },
    }
}

/// Returns the accepted clients together with the refused ones among them, if that takes fewer networks.
fn smallest_around(family: Family, accepted: &Addresses, refused: &Addresses) -> Option<Addresses> {
    let plain = accepted.nets().len();
    let candidates = [
        Addresses::all(family),
        accepted.with(&inner(family, accepted, refused)),
    ];
    let cost = |allow: &Addresses| {
        let deny = allow.without(accepted).nets().len();
        deny + if allow.are_all() {
            0
        } else {
            allow.nets().len()
        }
    };
    let best = candidates.into_iter().min_by_key(cost)?;
    (cost(&best) < plain).then_some(best)
}

/// Returns the refused networks that lie between accepted ones.
fn inner(family: Family, accepted: &Addresses, refused: &Addresses) -> Addresses {
    let nets = refused.nets().into_iter().filter(|net| {
        net.supernet()
            .is_some_and(|around| Addresses::of(around).meet(accepted))
    });
    let mut inner = Addresses::none(family);
    for net in nets {
        inner.add(&Addresses::of(net));
    }
    inner.without(accepted)
}

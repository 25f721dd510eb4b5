//! The clients that a forward allows and denies.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// The clients that a forward allows and denies. `deny` wins over `allow`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sources {
    /// `None`: every client.
    pub allow: Option<Nets>,
    pub deny: Nets,
}

impl Sources {
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        let allowed = self.allow.as_ref();
        allowed.is_none_or(|nets| nets.contains(address)) && !self.deny.contains(address)
    }
}

/// Networks, sorted by address and aggregated: none lies within another, and no two make up one. The
/// list is shared, since thousands of forwards may have the same ten thousand networks.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nets(Arc<[IpNet]>);

impl Nets {
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "`aggregate` takes only a Vec"
    )]
    pub fn new(nets: Vec<IpNet>) -> Self {
        let mut nets = IpNet::aggregate(&nets);
        nets.sort_unstable();
        Self(nets.into())
    }

    #[must_use]
    pub fn as_slice(&self) -> &[IpNet] {
        &self.0
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether the networks cover every address of a family.
    #[must_use]
    pub fn are_all(&self) -> bool {
        self.0.iter().any(|net| net.prefix_len() == 0)
    }

    /// Returns the network of the list that another network lies in.
    #[must_use]
    pub fn holding(&self, net: IpNet) -> Option<IpNet> {
        let behind = self.0.partition_point(|one| one.network() <= net.network());
        let one = *self.0.get(behind.checked_sub(1)?)?;
        one.contains(&net).then_some(one)
    }

    /// Returns whether an address is in both lists. Walks the shorter one.
    #[must_use]
    pub fn overlap(&self, other: &Self) -> bool {
        let (shorter, longer) = if self.0.len() <= other.0.len() {
            (self, other)
        } else {
            (other, self)
        };
        // Two networks share an address only if one of them lies in the other.
        shorter.0.iter().any(|net| {
            let behind = longer
                .0
                .partition_point(|one| one.network() < net.network());
            let next = longer.0.get(behind);
            next.is_some_and(|next| net.contains(next)) || longer.holding(*net).is_some()
        })
    }

    /// Returns whether every network of `other` lies in one of this list.
    #[must_use]
    pub fn hold(&self, other: &Self) -> bool {
        // Entries and forwards with the same list share it.
        Arc::ptr_eq(&self.0, &other.0) || other.0.iter().all(|net| self.holding(*net).is_some())
    }

    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        // The networks are sorted and do not overlap, so only the last one that begins at or before
        // the address can hold it.
        let behind = self.0.partition_point(|net| net.network() <= address);
        behind
            .checked_sub(1)
            .is_some_and(|n| self.0[n].contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Nets {
        let nets: Vec<IpNet> = list
            .iter()
            .map(|net| net.parse().expect("it is a net"))
            .collect();
        Nets::new(nets)
    }

    #[test]
    fn denied_clients_and_clients_outside_the_allowed_networks_are_refused() {
        let sources = Sources {
            allow: Some(nets(&["10.0.0.0/8", "198.51.100.0/24", "fd00::/8"])),
            deny: nets(&["10.9.0.0/16", "198.51.100.7/32"]),
        };
        for (address, admitted) in [
            ("10.1.2.3", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("10.9.255.1", false),
            ("10.10.0.0", true),
            ("198.51.100.6", true),
            ("198.51.100.7", false),
            ("9.255.255.255", false),
            ("fd00::1", true),
            ("fe80::1", false),
            ("::", false),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(sources.admits(address), admitted, "{address}");
        }
        let address = "203.0.113.1".parse().expect("an address");
        assert!(Sources::default().admits(address));
        let nobody = Sources {
            allow: Some(Nets::default()),
            ..Sources::default()
        };
        assert!(!nobody.admits(address));
    }

    #[test]
    fn lists_overlap_if_an_address_is_in_both() {
        for (one, other, overlap, held) in [
            (&["10.0.0.0/8"][..], &["10.1.0.0/16"][..], true, true),
            (&["10.1.0.0/16"], &["10.0.0.0/8"], true, false),
            (
                &["10.1.0.0/16"],
                &["9.0.0.0/8", "10.0.0.0/8", "11.0.0.0/8"],
                true,
                false,
            ),
            (
                &["10.0.0.0/8"],
                &["9.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8"],
                true,
                false,
            ),
            (
                &["10.0.0.0/16", "10.2.0.0/16", "10.4.0.0/16"],
                &["10.1.0.0/16", "10.3.0.0/16"],
                false,
                false,
            ),
            (
                &["10.0.0.0/16", "10.2.0.0/16"],
                &["10.2.7.0/24"],
                true,
                true,
            ),
            (&["10.0.0.0/8"], &["fd00::/8"], false, false),
            (&["10.0.0.0/8"], &[], false, true),
        ] {
            let (one, other) = (nets(one), nets(other));
            assert_eq!(one.overlap(&other), overlap, "{one:?} {other:?}");
            assert_eq!(other.overlap(&one), overlap, "{other:?} {one:?}");
            assert_eq!(one.hold(&other), held, "{one:?} {other:?}");
        }
    }

    #[test]
    fn lists_of_the_same_addresses_are_equal() {
        let halves = nets(&["10.128.0.0/9", "10.0.0.0/9", "10.1.0.0/16"]);
        assert_eq!(halves, nets(&["10.0.0.0/8"]));
        assert!(nets(&["0.0.0.0/1", "128.0.0.0/1"]).are_all());
    }
}

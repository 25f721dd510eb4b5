//! Finds forwards whose translated packets look alike, so that only the ingress interface decides which
//! source address a packet gets.
//!
//! Example: one forward listens on one address, another on all addresses. Both lead to the same target
//! by the same listen port, and their `snat` differs. A packet to that address belongs to the second
//! forward if it arrives on an interface that the first does not have. When the packet leaves, only
//! `-i` tells the two apart.

use super::forward::{Destination, Forward};

/// Returns for each forward whether its POSTROUTING rules must match the ingress interface.
#[must_use]
pub fn need_ingress_match(forwards: &[&Forward]) -> Vec<bool> {
    let port = |n: usize| {
        let forward = forwards[n];
        let ports = forward.listen.ports;
        (forward.family(), forward.protocol, ports.first())
    };
    let (mut open, addressed): (Vec<usize>, Vec<usize>) =
        (0..forwards.len()).partition(|n| forwards[*n].listen.address.is_none());
    open.sort_unstable_by_key(|n| port(*n));
    let mut told = vec![false; forwards.len()];
    for n in addressed {
        let one = forwards[n];
        let (family, protocol, first) = port(n);
        let last = one.listen.ports.last();
        // Listeners for all addresses do not overlap, so the order of their ends is that of their begins.
        let begun = open.partition_point(|other| port(*other) <= (family, protocol, last));
        let mut alike = Vec::new();
        for n in open[..begun].iter().rev() {
            let other = forwards[*n];
            if (other.family(), other.protocol) != (family, protocol)
                || other.listen.ports.last() < first
            {
                break;
            }
            if are_alike(one, other) {
                alike.push(*n);
            }
        }
        if alike.iter().any(|other| comes_past(forwards[*other], one)) {
            told[n] = true;
            // The rule for the firewall's own packets comes after the rules of `alike`, which must not
            // match those packets.
            for other in alike.into_iter().filter(|_| one.hairpin) {
                told[other] = true;
            }
        }
    }
    told
}

/// Returns whether packets of both forwards can go to one target by one interface and need different
/// sources.
fn are_alike(one: &Forward, other: &Forward) -> bool {
    let meet = |a: &Destination, b: &Destination| {
        a.address == b.address && one.ports_at(a).overlaps(other.ports_at(b))
    };
    let (mine, its) = (&one.target.destinations, &other.target.destinations);
    one.snat != other.snat
        && one.egress == other.egress
        && mine.iter().any(|a| its.iter().any(|b| meet(a, b)))
}

/// Returns whether `open`, which listens on all addresses, can take packets to the address of `addressed`.
fn comes_past(open: &Forward, addressed: &Forward) -> bool {
    let taken = |entrance| addressed.entrances().any(|one| one == entrance);
    (open.hairpin && !addressed.hairpin) || open.entrances().any(|entrance| !taken(entrance))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    const POD: &str = "target: {pod: 10.224.0.118:80}";
    const ETH2: &str = "interface: {ingress: eth2}";
    const BOTH: &str = "interface: {ingress: [eth0, eth2]}";
    const SNAT: &str = "snat: 10.4.0.9";
    const SEVERAL: &str = "target: {pod: [10.224.0.117:80, 10.224.0.118:80]}";
    const OTHER_POD: &str = "target: {pod: 10.224.0.119:80}";
    const OTHER_PORT: &str = "target: {pod: 10.224.0.118:81}";
    const OTHER_PATH: &str = "interface: {ingress: eth2, egress: eth3}";

    #[expect(clippy::too_many_lines, reason = "it is a table")]
    #[test]
    fn the_ingress_interface_is_matched_only_if_nothing_else_tells_forwards_apart() {
        for (case, one, all, told) in [
            (
                "two entrances, two sources",
                ["8080", POD, ETH2, SNAT],
                [POD, "", ""],
                [true, false],
            ),
            (
                "the client's own address as the source",
                ["8080", POD, ETH2, "snat: none"],
                [POD, "", ""],
                [true, false],
            ),
            (
                "one source",
                ["8080", POD, ETH2, ""],
                [POD, "", ""],
                [false, false],
            ),
            (
                "one entrance",
                ["8080", POD, "", SNAT],
                [POD, "", ""],
                [false, false],
            ),
            (
                "one more entrance of the first",
                ["8080", POD, BOTH, SNAT],
                [POD, "", ""],
                [false, false],
            ),
            (
                "one more entrance of the second",
                ["8080", POD, "", SNAT],
                [POD, BOTH, ""],
                [true, false],
            ),
            (
                "the firewall's own packets for the second",
                ["8080", POD, "", SNAT],
                [POD, "", "hairpin: true"],
                [true, false],
            ),
            (
                "the firewall's own packets for the first",
                ["8080", POD, ETH2, "snat: 10.4.0.9, hairpin: true"],
                [POD, "", ""],
                [true, true],
            ),
            (
                "two targets",
                ["8080", OTHER_POD, ETH2, SNAT],
                [POD, "", ""],
                [false, false],
            ),
            (
                "two ports of a target",
                ["8080", OTHER_PORT, ETH2, SNAT],
                [POD, "", ""],
                [false, false],
            ),
            (
                "one of several pods",
                ["8080", SEVERAL, ETH2, SNAT],
                [POD, "", ""],
                [true, false],
            ),
            (
                "two listen ports",
                ["8081", POD, ETH2, SNAT],
                [POD, "", ""],
                [false, false],
            ),
            (
                "a port of a range",
                ["8000-8100", POD, ETH2, SNAT],
                [POD, "", ""],
                [true, false],
            ),
            (
                "two protocols",
                ["8080", POD, ETH2, "snat: 10.4.0.9, protocol: udp"],
                [POD, "", ""],
                [false, false],
            ),
            (
                "two paths to the target",
                ["8080", POD, OTHER_PATH, SNAT],
                [POD, "", ""],
                [false, false],
            ),
        ] {
            let rest = |words: &[&str]| -> String {
                let said = words.iter().filter(|words| !words.is_empty());
                said.map(|words| format!(", {words}")).collect()
            };
            let [port, options @ ..] = &one;
            let text = format!(
                "firewall: {{interface: {{ingress: eth0, egress: eth1}}, snat: 10.4.0.4}}\nforwards:\n\
                 - {{name: all, listen: 8080{}}}\n- {{name: one, listen: '10.3.0.4:{port}'{}}}\n\
                 - {{name: far, listen: 9000-9999, {POD}, {ETH2}}}\n",
                rest(&all),
                rest(options),
            );
            let set = yaml::read(text.as_bytes())
                .unwrap_or_else(|problems| panic!("{case}: {problems:?}"));
            let forwards: Vec<&Forward> = set.forwards.iter().collect();
            let found = need_ingress_match(&forwards);
            assert_eq!(
                [found[1], found[0], found[2]],
                [told[0], told[1], false],
                "{case}"
            );
        }
    }
}

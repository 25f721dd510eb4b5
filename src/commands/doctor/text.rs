//! Prints the checks as text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::forwards::Numbers;
use crate::health::doctor::{self, Check, Hop, Status, Untried};
use crate::net::{Family, printable};

/// The most checks of one kind that are shown one by one.
const MOST_SHOWN: usize = 10;

/// Prints a line for each hop, and a fact of many forwards once.
pub fn text(checks: &[Check], asked: Numbers, untried: Option<&Untried>) -> String {
    let mut out = String::new();
    let families = NamedFamilies::of(checks);
    let said = |check: &Check| families.said(check, &printable::line(&check.reason).to_string());
    for hop in checks.chunk_by(|a, b| a.code == b.code) {
        let (good, rest): (Vec<&Check>, Vec<&Check>) =
            hop.iter().partition(|check| check.status == Status::Ok);
        let (of_forwards, of_all): (Vec<&Check>, Vec<&Check>) =
            good.into_iter().partition(|check| check.forward.is_some());
        for check in of_all {
            line(&mut out, check, &said(check));
        }
        // All forwards that pass a hop share one line.
        match of_forwards.as_slice() {
            [first, _, _, ..] => line(&mut out, first, &together(&of_forwards, hop, asked)),
            few => {
                for check in few {
                    line(&mut out, check, &said(check));
                }
            }
        }
        let shown = &rest[..rest.len().min(MOST_SHOWN)];
        for (n, check) in shown.iter().enumerate() {
            line(&mut out, check, &said(check));
            // One value of `mss` is for all connections, so it is printed once, behind them all.
            let is_repeated = |next: &&Check| check.code == Hop::Mtu && next.fix == check.fix;
            if shown.get(n + 1).is_some_and(is_repeated) {
                continue;
            }
            let fix = check.fix.as_ref();
            for fix in fix.iter().flat_map(|fix| fix.lines(check.tried)) {
                let _ = writeln!(out, "{:<28} {fix}", "");
            }
        }
        if rest.len() > MOST_SHOWN {
            let more = rest.len() - MOST_SHOWN;
            let _ = writeln!(out, "{:<28} and {more} more of this kind", "");
        }
    }
    out + "\n" + &last(checks, &families, asked, untried) + "\n"
}

/// Whether sentences name the family of a check.
#[derive(Debug)]
struct NamedFamilies<'c> {
    /// The forwards and outbound entries with checks of both families.
    of_both: BTreeSet<&'c str>,
    /// Whether both families were examined.
    are_both: bool,
}

impl<'c> NamedFamilies<'c> {
    fn of(checks: &'c [Check]) -> Self {
        let mut names: BTreeMap<&str, BTreeSet<Family>> = BTreeMap::new();
        let mut families = BTreeSet::new();
        for check in checks {
            families.extend(check.family);
            if let Some(name) = &check.forward {
                names.entry(name).or_default().extend(check.family);
            }
        }
        let of_both = names.into_iter().filter(|(_, of)| of.len() > 1);
        Self {
            of_both: of_both.map(|(name, _)| name).collect(),
            are_both: families.len() > 1,
        }
    }

    /// Returns words about a check behind the name of its forward and its family.
    fn said(&self, check: &Check, words: &str) -> String {
        match (&check.forward, check.family) {
            (Some(name), Some(family)) if self.of_both.contains(name.as_str()) => {
                format!("{name} ({family}): {words}")
            }
            (Some(name), _) => format!("{name}: {words}"),
            (None, Some(family)) if self.are_both => format!("{family}: {words}"),
            (None, _) => words.to_owned(),
        }
    }
}

/// Counts the forwards and outbound entries that pass a hop. If others do not pass it, it names their number too: each
/// that the user asked about has a check of `packets`, unless another hop took its packets.
fn together(good: &[&Check], hop: &[Check], asked: Numbers) -> String {
    let count = |checks: &mut dyn Iterator<Item = &Check>| {
        let names: BTreeSet<&str> = checks.filter_map(|one| one.forward.as_deref()).collect();
        names.len()
    };
    let passing = count(&mut good.iter().copied());
    let all = match hop.first().map(|check| check.code) {
        Some(Hop::Packets) => asked.all(),
        _ => count(&mut hop.iter()),
    };
    if passing < all {
        format!("{passing} of {}", asked.some(all))
    } else {
        asked.some(passing)
    }
}

/// Names the check to look at first, or reports that nothing is wrong.
fn last(
    checks: &[Check],
    families: &NamedFamilies<'_>,
    asked: Numbers,
    untried: Option<&Untried>,
) -> String {
    let brief = |check: &Check| brief(check, families);
    match (doctor::first(checks), untried) {
        (Some(check), _) if check.status == Status::Fail => {
            format!("the first hop that fails: {}", brief(check))
        }
        (_, Some(Untried { of, why })) => {
            let work = if of.all() == 1 { "works" } else { "work" };
            let (words, why) = (of.words(), printable::line(why));
            format!("it is not known whether {words} {work}: {why}")
        }
        (None, None) => format!("nothing is wrong with {}", asked.words()),
        (Some(check), None) if check.is_unknown_of_packets() => {
            format!(
                "it is not known whether all {} work: {}",
                asked.noun(),
                brief(check)
            )
        }
        (Some(check), None) => format!("no check fails, but look at {}", brief(check)),
    }
}

/// The most characters of a reason on the last line.
const MOST_REPEATED: usize = 100;

/// Summarizes a check: its code, its forward and the beginning of its reason.
fn brief(check: &Check, families: &NamedFamilies<'_>) -> String {
    let reason = printable::line(&check.reason).to_string();
    let mut words: String = reason.chars().take(MOST_REPEATED).collect();
    if words.len() < reason.len() {
        words.push('…');
    }
    format!("{}: {}", check.code.code(), families.said(check, &words))
}

fn line(out: &mut String, check: &Check, words: &str) {
    let _ = writeln!(
        out,
        "{:<7} {:<20} {words}",
        check.status.word(),
        check.code.code()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: Hop, status: Status, forward: Option<&str>, reason: &str) -> Check {
        Check {
            code,
            status,
            forward: forward.map(str::to_owned),
            family: None,
            reason: reason.to_owned(),
            fix: None,
            tried: false,
            stands: false,
        }
    }

    fn last_of(checks: &[Check], asked: Numbers, untried: Option<&Untried>) -> String {
        last(checks, &NamedFamilies::of(checks), asked, untried)
    }

    /// One family's routes say nothing about the other's.
    #[test]
    fn a_finding_names_its_family_if_both_were_examined() {
        let of = |family, check: Check| Check {
            family: Some(family),
            ..check
        };
        let route = |family| {
            of(
                family,
                check(Hop::Route, Status::Fail, Some("out"), "no route"),
            )
        };
        let own = check(Hop::OwnChains, Status::Fail, None, "a line is missing");
        let only = check(Hop::Route, Status::Fail, Some("web"), "no route");
        let both = [
            of(Family::V4, own.clone()),
            of(Family::V4, only),
            route(Family::V4),
            route(Family::V6),
        ];
        let said = text(&both, self::of(2), None);
        for line in [
            "fail    own-chains           IPv4: a line is missing\n",
            "fail    route                web: no route\n",
            "fail    route                out (IPv4): no route\n",
            "fail    route                out (IPv6): no route\n",
            "the first hop that fails: own-chains: IPv4: a line is missing\n",
        ] {
            assert!(said.contains(line), "{line}: {said}");
        }
        // A fact of both families has none, and a spec of one family needs no name.
        let said = text(&[own, route(Family::V6)], self::of(1), None);
        assert!(!said.contains("IPv"), "{said}");
    }

    #[test]
    fn one_limit_for_all_is_printed_once() {
        let fix = "set `mss: 1160`";
        let mtu = |name, fix: Option<&str>| Check {
            fix: fix.map(Into::into),
            ..check(Hop::Mtu, Status::Fail, Some(name), "long")
        };
        let checks = [
            mtu("a", Some(fix)),
            mtu("b", Some(fix)),
            mtu("c", None),
            mtu("d", Some(fix)),
        ];
        let text = text(&checks, of(4), None);
        assert_eq!(text.matches(fix).count(), 2, "{text}");
        let first = text.find("fix: ").expect("there is one");
        assert!(text.find("b: long") < Some(first), "{text}");
    }

    fn of(forwards: usize) -> Numbers {
        Numbers {
            forwards,
            entries: 0,
        }
    }

    #[test]
    fn outbound_entries_are_counted_beside_forwards() {
        for (forwards, entries, words) in [
            (1, 0, "nothing is wrong with 1 forward"),
            (0, 1, "nothing is wrong with 1 outbound entry"),
            (
                2,
                2,
                "nothing is wrong with 2 forwards and 2 outbound entries",
            ),
        ] {
            let asked = Numbers { forwards, entries };
            assert_eq!(last_of(&[], asked, None), words);
        }
        let asked = Numbers {
            forwards: 2,
            entries: 2,
        };
        let checks = ["a", "b", "c"].map(|name| check(Hop::Packets, Status::Ok, Some(name), ""));
        assert!(
            text(&checks, asked, None)
                .starts_with("ok      packets              3 of 4 forwards and outbound entries\n")
        );
    }

    #[test]
    fn forwards_that_pass_a_hop_are_counted_beside_the_others() {
        let ok = |hop, name| check(hop, Status::Ok, Some(name), "");
        let three = |hop| ["a", "b", "c"].map(|name| ok(hop, name)).to_vec();
        let failed = |hop| [three(hop), vec![check(hop, Status::Fail, Some("d"), "")]].concat();
        for (checks, asked, words) in [
            (
                three(Hop::Packets),
                3,
                "ok      packets              3 forwards\n",
            ),
            (
                three(Hop::Packets),
                4,
                "ok      packets              3 of 4 forwards\n",
            ),
            (
                failed(Hop::Target),
                4,
                "ok      target               3 of 4 forwards\n",
            ),
            (
                three(Hop::ListenAddress),
                4,
                "ok      listen-address       3 forwards\n",
            ),
            (
                ["a"; 3].map(|name| ok(Hop::Target, name)).to_vec(),
                1,
                "ok      target               1 forward\n",
            ),
        ] {
            let text = text(&checks, of(asked), None);
            assert!(text.starts_with(words), "{text}");
        }
    }

    #[test]
    fn a_jump_that_no_packet_reaches_is_named_last() {
        let early = check(
            Hop::ListenAddress,
            Status::Warn,
            Some("web"),
            "it is not here",
        );
        let jump = check(Hop::Jump, Status::Warn, None, "no packet reaches it");
        assert_eq!(
            last_of(&[early, jump], of(1), None),
            "no check fails, but look at jump: no packet reaches it"
        );
    }

    /// An unknown result comes before a warning about later.
    #[test]
    fn the_last_line_reports_success_only_if_it_is_known() {
        let file = check(Hop::Persistence, Status::Warn, None, "it is not there");
        let rule = check(Hop::Packets, Status::Unknown, Some("web"), "it counts");
        let dead = check(Hop::Route, Status::Fail, Some("web"), &"r".repeat(101));
        let azure = check(Hop::AzureNsg, Status::Unknown, Some("web"), "is it open?");
        let untried = Untried {
            of: of(2),
            why: "no connection was tried (--no-twin)".to_owned(),
        };
        let failed = format!("the first hop that fails: route: web: {}…", "r".repeat(100));
        for (checks, untried, said) in [
            (vec![], None, "nothing is wrong with 2 forwards"),
            (
                vec![file.clone()],
                Some(&untried),
                "it is not known whether 2 forwards work: no connection was tried (--no-twin)",
            ),
            (
                vec![file.clone()],
                None,
                "no check fails, but look at persistence: it is not there",
            ),
            (
                vec![file.clone(), rule],
                None,
                "it is not known whether all forwards work: packets: web: it counts",
            ),
            (
                vec![file, azure],
                None,
                "no check fails, but look at persistence: it is not there",
            ),
            (vec![dead], Some(&untried), failed.as_str()),
        ] {
            assert_eq!(last_of(&checks, of(2), untried), said);
        }
    }
}

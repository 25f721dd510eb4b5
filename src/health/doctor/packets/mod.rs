//! Packets: the connections that were opened through the twin, and what took those that died.

mod finding;
mod verdict;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::answers::{Answers, ByForward, by_forward};
use super::scene::Scene;
use super::target::{self, Astray};
use super::{Case, Check, Hop, Status};
use crate::diff::drift::{DriftKind, compare};
use crate::forwards::Forward;
use crate::host::network::somebody;
use crate::net::words::counted;
use crate::net::{Family, Protocol};
use crate::netfilter::backend::iptables as plain;
use crate::twin::battery::Wanted;
use crate::twin::cause::Fate;
use crate::twin::clients::ClientKind;
use crate::twin::doubt::Doubt;
use crate::twin::verdict::{Judged, Verdict};
use finding::Finding;
use verdict::told;
pub use words::{client, keeps, rule, took};

/// How many forwards nobody knows of whether they work, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct Untried {
    pub forwards: usize,
    pub why: String,
}

/// Counts the forwards whose connections were not all tried; none where all were. `asked` is the number
/// of forwards that were asked about.
#[must_use]
pub fn untried(answers: &Result<Answers<'_>, String>, asked: usize) -> Option<Untried> {
    let answers = match answers {
        Ok(answers) => answers,
        Err(why) => {
            return Some(Untried {
                forwards: asked,
                why: format!("no connection was tried ({why})"),
            });
        }
    };
    let late = answers.judged.iter();
    let late = late.filter(|one| one.verdict == Verdict::NotAsked);
    let late: BTreeSet<&str> = late.map(|one| one.ask.forward.name.as_str()).collect();
    (!late.is_empty()).then(|| Untried {
        forwards: late.len(),
        why: "the time was over before all were tried; more time: --deadline 2m".to_owned(),
    })
}

pub fn check(case: &Case<'_>, astray: &Astray, checks: &mut Vec<Check>) {
    let answers = match &case.facts.answers {
        Ok(answers) => answers,
        Err(why) => {
            let words = format!("no connection was tried in a copy of this machine: {why}");
            checks.push(Hop::Packets.unknown(words));
            return;
        }
    };
    for left in &answers.left_out {
        let words = format!("not in the copy in which packets are tried: {left}");
        checks.push(Hop::Packets.warn(words));
    }
    if answers.untried_networks > 0 {
        checks.push(Hop::Packets.ok(format!(
            "clients of some of the networks that rules name or routes lead to were tried; left out: {}",
            counted(answers.untried_networks, "network")
        )));
    }
    if answers.without_internet.contains(&case.family) {
        checks.extend(no_way_back(case));
    }
    let put_in = put_in(case, answers);
    let scene = Scene::of(case, put_in.as_deref());
    let by_forward = by_forward(answers);
    if case.family == Family::V6 && answers.judged.iter().any(is_undiscovered) {
        // Nobody is asked for an address, so that nobody answers.
        checks.retain(|check| {
            let follows = [Hop::Neighbour, Hop::Target].contains(&check.code);
            !follows || check.status == Status::Ok
        });
    }
    moderate(&by_forward, checks);
    let here = case.asked.iter();
    for forward in here.filter(|forward| !astray.has(forward)) {
        let of_forward = by_forward.get(&std::ptr::from_ref(*forward));
        let of_forward = of_forward.map_or(&[][..], Vec::as_slice);
        let mut found = of_one(&scene, answers, forward, of_forward);
        // The live machine's switches and neighbours have been told.
        let is_told = |check: &Check| {
            let live = [Hop::IpForward, Hop::InterfaceForwarding, Hop::Neighbour];
            let is_same = |told: &Check| {
                let of = told.forward.as_ref();
                told.code == check.code
                    && told.status == Status::Fail
                    && of.is_none_or(|of| Some(of) == check.forward.as_ref())
            };
            live.contains(&check.code) && checks.iter().any(is_same)
        };
        found.retain(|check| !is_told(check));
        let found = without_consequences(found, forward, &case.apply, checks);
        checks.extend(found);
    }
}

/// Warns that no route leads to the Internet, if a forward admits clients of it.
fn no_way_back(case: &Case<'_>) -> Option<Check> {
    let mut asked = case.asked.iter();
    let forward = asked.find(|forward| forward.sources.admits(somebody(case.family)))?;
    let ingress = forward.ingress.first()?;
    let check = Hop::Route.warn(
        "no route leads back to clients of the Internet: only clients on the machine's own networks get answers",
    );
    let ip = match case.family {
        Family::V4 => "ip",
        Family::V6 => "ip -6",
    };
    Some(check.fix(format!(
        "if clients of the Internet are meant: sudo {ip} route add default via ROUTER dev {ingress}"
    )))
}

/// Leaves out what follows from rules of a forward that are not loaded, which `checks` already say. If `apply` was
/// tried against it, those have a tried fix.
fn without_consequences(
    found: Vec<Check>,
    forward: &Forward,
    apply: &str,
    checks: &mut [Check],
) -> Vec<Check> {
    const RULES: [Hop; 3] = [Hop::DnatRule, Hop::ForwardRule, Hop::SnatRule];
    let name = forward.name.as_str();
    let is_cause = |check: &Check, hop: Hop| {
        let is_of_forward = check.forward.as_deref().is_none_or(|of| of == name);
        // The rule for replies is in nvactl's own chain, and its loss is one of `own-chains`.
        let takes = match hop {
            Hop::OwnChains => [Hop::Jump, Hop::OwnChains].contains(&check.code),
            _ => check.code == Hop::Jump || RULES.contains(&check.code),
        };
        check.status == Status::Fail && is_of_forward && takes
    };
    let (follow, rest): (Vec<Check>, Vec<Check>) = found.into_iter().partition(|one| {
        let may_follow = RULES.contains(&one.code) || one.code == Hop::OwnChains;
        may_follow
            && one.status != Status::Ok
            && checks.iter().any(|check| is_cause(check, one.code))
    });
    for one in follow
        .iter()
        .filter(|one| one.tried && one.fix.as_deref() == Some(apply))
    {
        let causes = checks.iter_mut().filter(|check| is_cause(check, one.code));
        for cause in causes.filter(|cause| cause.fix.as_deref() == Some(apply)) {
            cause.tried = true;
        }
    }
    rest
}

/// Returns a line that somebody has put into nvactl's chains, where a client comes in and no rule is known for it.
fn put_in(case: &Case<'_>, answers: &Answers<'_>) -> Option<String> {
    let is_unexplained = |judged: &Judged<'_>| matches!(&judged.verdict, Verdict::LetIn(blame) if blame.by.is_none());
    if !answers.judged.iter().any(is_unexplained) {
        return None;
    }
    let drift = compare(case.facts.live, case.set, case.family).drift;
    let line = drift
        .into_iter()
        .find(|drift| drift.what == DriftKind::PutIn)?;
    let program = plain(case.family);
    Some(format!("{program} {}: `{}`", line.table, line.line))
}

/// Whether a rule took neighbour discovery from a connection of IPv6.
fn is_undiscovered(judged: &Judged<'_>) -> bool {
    let Verdict::Dead(death) = &judged.verdict else {
        return false;
    };
    let mut causes = death.causes.iter();
    causes.any(|taken| taken.fate == Fate::Unresolved)
}

/// Returns for each forward whether it works: connections do as the spec says in the twin, and the live target
/// answers. A forward is left out if that is not known. `checks` is what was found by then.
#[must_use]
pub fn works(case: &Case<'_>, checks: &[Check]) -> BTreeMap<(String, Protocol, Family), bool> {
    let Ok(answers) = &case.facts.answers else {
        return BTreeMap::new();
    };
    let put_in = put_in(case, answers);
    let scene = Scene::of(case, put_in.as_deref());
    let by_forward = by_forward(answers);
    let silent = target::silent(case);
    // Nothing comes in, or nothing is forwarded.
    let is_dark = checks.iter().any(|check| {
        let of_all = [Hop::Interface, Hop::IpForward, Hop::Jump];
        check.status == Status::Fail && check.forward.is_none() && of_all.contains(&check.code)
    });
    let known = case.asked.iter().filter_map(|forward| {
        let judged = by_forward.get(&std::ptr::from_ref(*forward));
        let judged = judged.map_or(&[][..], Vec::as_slice);
        let is_silent = silent.contains(&std::ptr::from_ref(*forward));
        let works = match standing(&of_one(&scene, answers, forward, judged)) {
            _ if is_silent => false,
            None if is_dark => false,
            known => known?,
        };
        let key = (forward.name.to_string(), forward.protocol, forward.family());
        Some((key, works))
    });
    known.collect()
}

/// Whether a forward works by what was found: any failure decides, then anything unknown.
fn standing(checks: &[Check]) -> Option<bool> {
    let has = |status| checks.iter().any(|check| check.status == status);
    if has(Status::Fail) {
        Some(false)
    } else if has(Status::Unknown) {
        None
    } else {
        Some(true)
    }
}

/// Makes a warning of each failure that was found in nvactl's rules as they are written, where no packet
/// misses them. The twin asks all connections of a forward whose rules are not loaded.
fn moderate(by_forward: &ByForward<'_, '_>, checks: &mut [Check]) {
    // Whether all connections of the forwards of a name pass, and of all forwards.
    let mut of_name: BTreeMap<&str, bool> = BTreeMap::new();
    for judged in by_forward.values().flatten() {
        let passes = judged.verdict == Verdict::AsWanted;
        *of_name
            .entry(judged.ask.forward.name.as_str())
            .or_insert(true) &= passes;
    }
    let of_all = !of_name.is_empty() && of_name.values().all(|passes| *passes);
    let is_rule = |check: &&mut Check| {
        let rules = [
            Hop::Jump,
            Hop::DnatRule,
            Hop::ForwardRule,
            Hop::SnatRule,
            Hop::OwnChains,
        ];
        check.status == Status::Fail && rules.contains(&check.code)
    };
    for check in checks.iter_mut().filter(is_rule) {
        let passes = match &check.forward {
            None => of_all,
            Some(name) => of_name.get(name.as_str()).copied().unwrap_or_default(),
        };
        if passes {
            check.status = Status::Warn;
        }
    }
}

/// Says what was found about one forward.
fn of_one(
    scene: &Scene<'_>,
    answers: &Answers<'_>,
    forward: &Forward,
    judged: &[&Judged<'_>],
) -> Vec<Check> {
    let mut found: Vec<Finding<'_>> = Vec::new();
    // The networks that rules name, each with the finding about it.
    let mut named: Vec<(IpNet, usize)> = Vec::new();
    let is_fine =
        |one: &&&Judged<'_>| one.verdict == Verdict::AsWanted && answers.doubt(&one.ask).is_none();
    let passing = |one: &&&Judged<'_>| one.ask.wanted == Wanted::Through;
    let somebody_passes = judged.iter().filter(passing).any(|one| is_fine(&one));
    for one in judged {
        let mut said = told(scene, answers, &one.ask, &one.verdict);
        if let Some(doubt) = answers.doubt(&one.ask) {
            said = doubted(said, doubt);
        }
        for check in said {
            let at = found.iter().position(|known| known.takes(&check));
            let at = at.unwrap_or_else(|| {
                found.push(Finding {
                    check: check.clone(),
                    clients: Vec::new(),
                    is_of_clients: matches!(one.verdict, Verdict::LetIn(_)),
                });
                found.len() - 1
            });
            found[at].add(check, &one.ask.client);
            if let ClientKind::Named(net) = one.ask.client.kind {
                named.push((net, at));
            }
        }
    }
    let fine = judged.iter().filter(is_fine).count();
    if somebody_passes {
        for (at, finding) in found.iter_mut().enumerate() {
            finding.moderate(&named, at);
        }
    }
    let found = found.into_iter();
    let mut found: Vec<Check> = found.map(|one| one.into_check(somebody_passes)).collect();
    let is_tried = judged.iter().any(|one| passing(&one));
    if !is_tried && found.is_empty() {
        found.push(Hop::Packets.unknown(if forward.sources.allow.is_none() {
            "no client could be tried: no route leads back to one by an ingress interface"
        } else {
            "no client could be tried: its lists admit none that comes in by its interfaces, or nobody answers \
             for those addresses"
        }));
    } else if found.is_empty() {
        found.push(Hop::Packets.ok(format!(
            "{} did as the spec says, in a copy of this machine",
            counted(fine, "connection")
        )));
    }
    found.into_iter().map(|check| check.of(forward)).collect()
}

/// Takes back the certainty where a verdict may depend on something that the copy does not have.
fn doubted(said: Vec<Check>, doubt: &Doubt) -> Vec<Check> {
    if said.is_empty() {
        let words = format!("it works in a copy of this machine, which lacks: {doubt}");
        return vec![Hop::Packets.unknown(words)];
    }
    let unsure = said.into_iter().map(|check| Check {
        status: Status::Unknown,
        reason: format!(
            "{}, in a copy of this machine, which lacks: {doubt}",
            check.reason
        ),
        ..check
    });
    unsure.collect()
}

#[cfg(test)]
mod tests;

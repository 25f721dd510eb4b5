//! Reports the connections that were opened through the twin, and the rules that took their packets.

mod finding;
mod verdict;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::answers::{Answers, BySubject, by_subject};
use super::route::{self, Astray};
use super::rules::ANOTHER_SPEC;
use super::scene::Scene;
use super::{Case, Check, Fix, Hop, Status, target};
use crate::diff::drift::{DriftKind, compare};
use crate::forwards::{Forward, Name, Numbers, Outbound, OutboundProtocol, listeners_of, rows};
use crate::host::network::somebody;
use crate::net::words::counted;
use crate::net::{Family, Protocol};
use crate::netfilter::backend::iptables as plain;
use crate::twin::battery::{Subject, Wanted};
use crate::twin::cause::Fate;
use crate::twin::clients::ClientKind;
use crate::twin::doubt::Doubt;
use crate::twin::verdict::{Judged, Verdict};
use finding::Finding;
use verdict::told;
pub use words::{keeps, rule, took, tried_client};

/// The number of forwards and outbound entries that were not tried, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct Untried {
    pub of: Numbers,
    pub why: String,
}

/// Counts the forwards and outbound entries whose connections were not all tried; `None` if all were. `asked` is the
/// number of those that the user asked about.
#[must_use]
pub fn untried(answers: &Result<Answers<'_>, String>, asked: Numbers) -> Option<Untried> {
    let answers = match answers {
        Ok(answers) => answers,
        Err(why) => {
            return Some(Untried {
                of: asked,
                why: format!("no connection was tried ({why})"),
            });
        }
    };
    let late = answers.judged.iter();
    let late = late.filter(|one| one.verdict == Verdict::NotAsked);
    let is_entry = |of: Subject<'_>| matches!(of, Subject::Outbound(_));
    let late: BTreeSet<(bool, &Name)> = late
        .map(|one| (is_entry(one.ask.of), one.ask.of.name()))
        .collect();
    let entries = late.iter().filter(|(is_entry, _)| *is_entry).count();
    (!late.is_empty()).then(|| Untried {
        of: Numbers {
            forwards: late.len() - entries,
            entries,
        },
        why: "the time limit was reached first; for more time: --deadline 2m".to_owned(),
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
        let words = format!("the test copy of this machine is incomplete: {left}");
        checks.push(Hop::Packets.warn(words));
    }
    if answers.untried_networks > 0 {
        checks.push(Hop::Packets.ok(format!(
            "rules and routes name more networks than are tried as clients; not tried: {}",
            counted(answers.untried_networks, "network")
        )));
    }
    if answers.without_internet.contains(&case.family) {
        checks.extend(no_way_back(case));
    }
    let put_in = put_in(case, answers);
    let scene = Scene::of(case, put_in.as_deref());
    let by_subject = by_subject(answers);
    if case.family == Family::V6 && answers.judged.iter().any(is_undiscovered) {
        // Without neighbour discovery no target can answer, so these checks only repeat the cause.
        checks.retain(|check| {
            let follows = [Hop::Neighbour, Hop::Target].contains(&check.code);
            !follows || check.status == Status::Ok
        });
    }
    moderate(&by_subject, checks);
    for row in rows(&case.asked).filter(|row| !astray.has(row[0])) {
        let forward = row[0];
        let mut found = of_row(&scene, answers, row, &by_subject);
        // The checks of the live machine have already reported its switches and the next hops of targets.
        let is_told = |check: &Check| {
            let is_same = |told: &Check| told.code == check.code && told.status == Status::Fail;
            let mut same = checks.iter().filter(|told| is_same(told));
            match check.code {
                Hop::IpForward | Hop::InterfaceForwarding => {
                    same.any(|told| told.forward.is_none() || told.forward == check.forward)
                }
                Hop::Neighbour => {
                    route::has_silent_hop(case, forward)
                        || same.any(|told| told.forward == check.forward)
                }
                _ => false,
            }
        };
        let has_no_route =
            |check: &Check| check.code == Hop::Route && route::is_down(case, &forward.egress);
        found.retain(|check| !is_told(check) && !has_no_route(check));
        let found = without_consequences(found, &forward.name, &case.apply, checks);
        checks.extend(found);
    }
    for entry in case.entries {
        let judged = by_subject.get(&Subject::Outbound(entry).key());
        let judged = judged.map_or(&[][..], Vec::as_slice);
        let found = of_entry(&scene, answers, entry, judged);
        let found = unreported(found, case, entry, checks);
        let found = without_consequences(found, &entry.name, &case.apply, checks);
        checks.extend(found);
    }
    checks.extend(untried_pings(case.entries));
}

/// Leaves out the findings about an outbound entry that the checks of the live machine have already reported.
fn unreported(
    mut found: Vec<Check>,
    case: &Case<'_>,
    entry: &Outbound,
    checks: &[Check],
) -> Vec<Check> {
    let failed = |code: Hop, name: Option<&str>| {
        let mut failed = checks.iter().filter(|one| one.status == Status::Fail);
        failed.any(|told| told.code == code && told.forward.as_deref() == name)
    };
    // The entry's rules match the egress, so all else follows from another route.
    if failed(Hop::Route, Some(entry.name.as_str())) {
        return Vec::new();
    }
    found.retain(|check| match check.code {
        Hop::IpForward | Hop::InterfaceForwarding => !failed(check.code, None),
        Hop::Route => !route::is_down(case, &entry.egress),
        _ => true,
    });
    found
}

/// Warns that no route leads to the Internet, if a forward admits clients of the Internet.
fn no_way_back(case: &Case<'_>) -> Option<Check> {
    let mut asked = case.asked.iter();
    let forward = asked.find(|forward| forward.sources.admits(somebody(case.family)))?;
    let ingress = forward.ingress.first()?;
    let check = Hop::Route.warn(
        "this machine has no route to clients of the Internet: only clients on its own networks get replies",
    );
    let ip = route::ip(case.family);
    Some(
        check.fix(
            Fix::only_if(
                "if clients come from the Internet",
                format!("sudo {ip} route add default via ROUTER dev {ingress}"),
            )
            .with_router_on(ingress),
        ),
    )
}

/// Leaves out the findings that follow from rules of a forward or an entry that are not loaded, because `checks`
/// already report those rules. If `apply` was tried for such a finding, the reported rules get a tried fix.
fn without_consequences(
    found: Vec<Check>,
    name: &Name,
    apply: &str,
    checks: &mut [Check],
) -> Vec<Check> {
    const RULES: [Hop; 3] = [Hop::DnatRule, Hop::ForwardRule, Hop::SnatRule];
    let is_apply = |check: &Check| check.fix.as_ref().is_some_and(|fix| fix.is(apply));
    let name = name.as_str();
    let is_cause = |check: &Check, hop: Hop| {
        let is_of_forward = check.forward.as_deref().is_none_or(|of| of == name);
        // `own-chains` reports the loss of the rule for replies, which is in nvactl's own chain.
        let takes = match hop {
            Hop::OwnChains => [Hop::Jump, Hop::OwnChains].contains(&check.code),
            _ => check.code == Hop::Jump || RULES.contains(&check.code),
        };
        // The rules of the spec that is loaded may also do what this spec does not say.
        let takes = takes || check.reason.starts_with(ANOTHER_SPEC);
        check.status == Status::Fail && is_of_forward && takes
    };
    let (follow, rest): (Vec<Check>, Vec<Check>) = found.into_iter().partition(|one| {
        let may_follow = RULES.contains(&one.code) || one.code == Hop::OwnChains;
        may_follow
            && one.status != Status::Ok
            && checks.iter().any(|check| is_cause(check, one.code))
    });
    for one in follow.iter().filter(|one| one.tried && is_apply(one)) {
        let causes = checks.iter_mut().filter(|check| is_cause(check, one.code));
        for cause in causes.filter(|cause| is_apply(cause)) {
            cause.tried = true;
        }
    }
    rest
}

/// Returns a line that somebody added to nvactl's chains, if a client comes in and no rule is known to admit it.
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

/// Whether a rule dropped the neighbour discovery of an IPv6 connection.
fn is_undiscovered(judged: &Judged<'_>) -> bool {
    let Verdict::Dead(death) = &judged.verdict else {
        return false;
    };
    let mut causes = death.causes.iter();
    causes.any(|taken| taken.fate == Fate::Unresolved)
}

/// Whether each forward and each outbound entry works. One is left out if that is not known.
#[derive(Debug, Default)]
pub struct Works {
    pub forwards: BTreeMap<(String, Protocol, Family), bool>,
    pub entries: BTreeMap<(String, Family), bool>,
}

/// Returns for each forward whether it works: its connections do as the spec says in the twin, and its live target
/// answers. An outbound entry works if its connections do. `checks` are the findings so far.
#[must_use]
pub fn works(case: &Case<'_>, checks: &[Check]) -> Works {
    let Ok(answers) = &case.facts.answers else {
        return Works::default();
    };
    let put_in = put_in(case, answers);
    let scene = Scene::of(case, put_in.as_deref());
    let by_subject = by_subject(answers);
    let silent = target::silent(case);
    // No packet comes in, or none is forwarded.
    let is_dark = checks.iter().any(|check| {
        let of_all = [Hop::Interface, Hop::IpForward, Hop::Jump];
        check.status == Status::Fail && check.forward.is_none() && of_all.contains(&check.code)
    });
    let known = rows(&case.asked).filter_map(|row| {
        let forward = row[0];
        let is_silent = |forward: &&Forward| silent.contains(&std::ptr::from_ref(*forward));
        let works = match standing(&of_row(&scene, answers, row, &by_subject)) {
            _ if row.iter().any(is_silent) => false,
            None if is_dark => false,
            known => known?,
        };
        let key = (forward.name.to_string(), forward.protocol, forward.family());
        Some((key, works))
    });
    let entries = case.entries.iter().filter_map(|entry| {
        let judged = by_subject.get(&Subject::Outbound(entry).key());
        let judged = judged.map_or(&[][..], Vec::as_slice);
        let works = standing(&of_entry(&scene, answers, entry, judged))? && !is_dark;
        Some(((entry.name.to_string(), entry.family), works))
    });
    Works {
        forwards: known.collect(),
        entries: entries.collect(),
    }
}

/// Whether a forward works: no if a check failed, not known if one is unknown, else yes.
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

/// Turns each failure in nvactl's rules as they are written into a warning if all connections pass without them.
/// The twin tries all connections of a forward or outbound entry whose rules are not loaded.
fn moderate(by_subject: &BySubject<'_, '_>, checks: &mut [Check]) {
    // Whether all connections pass, for each name of a forward or outbound entry.
    let mut of_name: BTreeMap<&str, (Subject<'_>, bool)> = BTreeMap::new();
    let mut of_all = !by_subject.is_empty();
    for judged in by_subject.values().flatten() {
        let passes = judged.verdict == Verdict::AsWanted;
        of_all &= passes;
        let subject = judged.ask.of;
        let known = of_name.entry(subject.name().as_str());
        known.or_insert((subject, true)).1 &= passes;
    }
    let is_rule = |check: &&mut Check| {
        let rules = [
            Hop::Jump,
            Hop::DnatRule,
            Hop::MssRule,
            Hop::ForwardRule,
            Hop::SnatRule,
            Hop::OwnChains,
        ];
        check.status == Status::Fail && !check.stands && rules.contains(&check.code)
    };
    for check in checks.iter_mut().filter(is_rule) {
        let passes = match &check.forward {
            None => of_all,
            Some(name) => match of_name.get(name.as_str()) {
                Some((Subject::Outbound(entry), passes)) => {
                    *passes && (check.code == Hop::MssRule || is_tried_whole(entry))
                }
                Some((Subject::Forward(_), passes)) => *passes,
                None => false,
            },
        };
        if passes {
            check.status = Status::Warn;
        }
    }
}

/// Returns whether the connections that are tried meet all rules of an entry. Pings are not tried, and of the ports only
/// the first and the last. Up to seven ranges of ports are in one rule (15 slots, a range takes two).
fn is_tried_whole(entry: &Outbound) -> bool {
    let mut protocols = entry.protocols.iter();
    protocols.all(|one| one.transport().is_some()) && entry.ports.len() <= 7
}

/// The findings about the connections of one listener or one outbound entry.
struct Outcome {
    found: Vec<Check>,
    /// How many connections did as the spec says.
    fine: usize,
    /// Whether a client that the forward admits was tried.
    is_tried: bool,
}

/// Returns the findings about a row: each listener has connections of its own.
fn of_row(
    scene: &Scene<'_>,
    answers: &Answers<'_>,
    row: &[&Forward],
    by_subject: &BySubject<'_, '_>,
) -> Vec<Check> {
    let mut all = Outcome {
        found: Vec::new(),
        fine: 0,
        is_tried: false,
    };
    let mut listeners: Vec<Vec<&Forward>> = Vec::new();
    for forward in row {
        let judged = by_subject.get(&Subject::Forward(forward).key());
        let one = outcome(scene, answers, judged.map_or(&[][..], Vec::as_slice));
        for check in one.found {
            if let Some(at) = all.found.iter().position(|known| *known == check) {
                listeners[at].push(forward);
            } else {
                all.found.push(check);
                listeners.push(vec![forward]);
            }
        }
        all.fine += one.fine;
        all.is_tried |= one.is_tried;
    }
    for (check, of) in all.found.iter_mut().zip(&listeners) {
        if of.len() < row.len() {
            check.reason = format!("{} (listener {})", check.reason, listeners_of(of));
        }
    }
    let nobody = if row[0].sources.allow.is_none() {
        "no client could be tried: this machine has no route to a client by an ingress interface"
    } else {
        "no client could be tried: `allow_from` and `deny_from` admit no client that this machine reaches by an \
         ingress interface"
    };
    concluded(&row[0].name, Hop::Packets.unknown(nobody), all)
}

/// The connections of a twin have ports.
const NO_PINGS: &str = "pings are not tried in a copy of this machine";

/// Says which outbound entries let out pings beside connections that are tried.
fn untried_pings(entries: &[Outbound]) -> Option<Check> {
    let pings = entries.iter().filter(|entry| {
        let has = |one: OutboundProtocol| entry.protocols.contains(&one);
        has(OutboundProtocol::Ping) && (has(OutboundProtocol::Tcp) || has(OutboundProtocol::Udp))
    });
    let names: Vec<&Name> = pings.map(|entry| &entry.name).collect();
    let of = match names.as_slice() {
        [] => return None,
        [one] => format!("`{one}`"),
        many => {
            let entries = many.len();
            let forwards = 0;
            Numbers { forwards, entries }.words()
        }
    };
    Some(Hop::Packets.unknown(format!(
        "{NO_PINGS}: it is not known whether those of {of} pass"
    )))
}

/// Returns the findings about an outbound entry.
fn of_entry(
    scene: &Scene<'_>,
    answers: &Answers<'_>,
    entry: &Outbound,
    judged: &[&Judged<'_>],
) -> Vec<Check> {
    let nobody = if entry.protocols.iter().all(|one| one.transport().is_none()) {
        Hop::Packets.unknown(NO_PINGS)
    } else {
        Hop::Packets.unknown(
            "no connection could be tried: `allow_from` and `allow_to` leave no address, or earlier entries decide on \
             all connections",
        )
    };
    concluded(&entry.name, nobody, outcome(scene, answers, judged))
}

fn outcome(scene: &Scene<'_>, answers: &Answers<'_>, judged: &[&Judged<'_>]) -> Outcome {
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
                found.push(Finding::new(check.clone(), &one.verdict));
                found.len() - 1
            });
            found[at].add(check, &one.ask);
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
    Outcome {
        found: found.map(|one| one.into_check(somebody_passes)).collect(),
        fine,
        is_tried: judged.iter().any(|one| passing(&one)),
    }
}

/// Returns the findings about a forward or an outbound entry, or a check that there are none. `nobody` is the check if
/// no connection could be tried.
fn concluded(name: &Name, nobody: Check, outcome: Outcome) -> Vec<Check> {
    let Outcome {
        mut found,
        fine,
        is_tried,
    } = outcome;
    if !is_tried && found.is_empty() {
        found.push(nobody);
    } else if found.is_empty() {
        found.push(Hop::Packets.ok(format!(
            "the rules handle {} as specified, tried in a copy of this machine with test servers in place of the targets",
            counted(fine, "connection")
        )));
    }
    let named = found.into_iter().map(|check| Check {
        forward: Some(name.to_string()),
        ..check
    });
    named.collect()
}

/// Makes a verdict uncertain if it may depend on something that the copy does not have.
fn doubted(said: Vec<Check>, doubt: &Doubt) -> Vec<Check> {
    if said.is_empty() {
        let words =
            format!("connections pass in a copy of this machine, but the copy lacks: {doubt}");
        return vec![Hop::Packets.unknown(words)];
    }
    let unsure = said.into_iter().map(|check| Check {
        status: Status::Unknown,
        reason: format!(
            "{}, in a copy of this machine, but the copy lacks: {doubt}",
            check.reason
        ),
        ..check
    });
    unsure.collect()
}

#[cfg(test)]
mod tests;

//! Packets: the connections that were opened through the twin, and what took those that died.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::answers::{Answers, ByForward, by_forward};
use super::remedy::{self, Remedy};
use super::scene::Scene;
use super::target::Astray;
use super::{Case, Check, Hop, Status};
use crate::diff::drift::{DriftKind, compare};
use crate::forwards::Forward;
use crate::net::printable;
use crate::net::words::counted;
use crate::net::{Family, Protocol};
use crate::netfilter::backend::{Backend, iptables as plain};
use crate::netfilter::names::{ChainName, TableName};
use crate::twin::battery::{Ask, Wanted};
use crate::twin::cause::{By, Decided, Direction, Fate, Holder, KernelReason, Taken};
use crate::twin::clients::{Client, ClientKind};
use crate::twin::doubt::Doubt;
use crate::twin::explain::KeptIn;
use crate::twin::judge::{Blame, Death, Judged, Verdict};

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
        why: "the time was over before all were tried; more time: --deadline SECONDS".to_owned(),
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
    if case.family == Family::V4 || !case.set.has(Family::V4) {
        for left in &answers.left_out {
            let words = format!("not in the copy in which packets are tried: {left}");
            checks.push(Hop::Packets.warn(words));
        }
        if answers.untried_networks > 0 {
            checks.push(Hop::Packets.unknown(format!(
                "clients of {} more networks, which rules name or routes lead to, were not tried: that \
                 would take too long",
                answers.untried_networks
            )));
        }
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
        // The live machine's switches have been told.
        let is_told = |check: &Check| {
            let switches = [Hop::IpForward, Hop::InterfaceForwarding];
            let is_same = |told: &Check| told.code == check.code && told.status == Status::Fail;
            switches.contains(&check.code) && checks.iter().any(is_same)
        };
        found.retain(|check| !is_told(check));
        let found = without_consequences(found, forward, &case.apply, checks);
        checks.extend(found);
    }
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

/// Returns for each forward whether it works; nothing about one of which that is not known.
#[must_use]
pub fn works(case: &Case<'_>) -> BTreeMap<(String, Protocol, Family), bool> {
    let Ok(answers) = &case.facts.answers else {
        return BTreeMap::new();
    };
    let put_in = put_in(case, answers);
    let scene = Scene::of(case, put_in.as_deref());
    let by_forward = by_forward(answers);
    let known = case.asked.iter().filter_map(|forward| {
        let judged = by_forward.get(&std::ptr::from_ref(*forward))?;
        let works = standing(&of_one(&scene, answers, forward, judged))?;
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
/// misses them.
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

/// A finding, and the clients for whom it was found.
struct Finding<'a> {
    check: Check,
    clients: Vec<&'a Client>,
    /// Whether the sentence begins with the clients.
    is_of_clients: bool,
}

impl<'a> Finding<'a> {
    /// Whether it is about another client of the same.
    fn takes(&self, check: &Check) -> bool {
        self.check.code == check.code && self.check.reason == check.reason
    }

    /// Adds a client.
    fn add(&mut self, check: Check, client: &'a Client) {
        if self.check.fix.is_none() {
            self.check.fix = check.fix;
            self.check.tried = check.tried;
        }
        let is_known = self.clients.iter().any(|one| one.address == client.address);
        let is_worse = severity(check.status) > severity(self.check.status);
        if is_worse {
            self.check.status = check.status;
        }
        if !is_known {
            self.clients.push(client);
        }
    }

    /// Makes a warning of a ban that a rule of others has for a network of its own, whether a client of it is
    /// connected now or not. `named` holds the networks that rules name, each with its finding; `at` is this one.
    fn moderate(&mut self, named: &[(IpNet, usize)], at: usize) {
        let is_named = |client: &Client| {
            let mut nets = named.iter().filter(|(_, of)| *of == at);
            match client.kind {
                ClientKind::Named(_) => true,
                ClientKind::Seen => nets.any(|(net, _)| net.contains(&client.address)),
                _ => false,
            }
        };
        let is_rule = [
            Hop::ForeignRule,
            Hop::OtherBackend,
            Hop::NativeNft,
            Hop::ForwardRule,
        ];
        let is_ban = self.check.status == Status::Fail && is_rule.contains(&self.check.code);
        if is_ban && !self.is_of_clients && self.clients.iter().all(|one| is_named(one)) {
            self.check.status = Status::Warn;
        }
    }

    /// Returns the check. Those whom it does not concern need not be told apart where it concerns all.
    fn into_check(mut self, are_some: bool) -> Check {
        let reason = &self.check.reason;
        self.check.reason = match (self.clients.as_slice(), self.is_of_clients) {
            ([first], true) => format!("{} {reason}", subject(first)),
            ([first, more @ ..], true) => {
                format!("{}, and {} more, {reason}", subject(first), more.len())
            }
            ([first], false) if are_some => format!("{reason}: {}", client(first)),
            ([first, more @ ..], false) if are_some => {
                format!("{reason}: {}, and {} more", client(first), more.len())
            }
            _ => return self.check,
        };
        self.check
    }
}

fn severity(status: Status) -> u8 {
    match status {
        Status::Ok => 0,
        Status::Warn => 1,
        Status::Unknown => 2,
        Status::Fail => 3,
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
        found.push(Hop::Packets.unknown(
            "no client could be tried: its lists admit none that comes in by its interfaces, or nobody answers \
             for those addresses",
        ));
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

fn told(scene: &Scene<'_>, answers: &Answers<'_>, ask: &Ask<'_>, verdict: &Verdict) -> Vec<Check> {
    let said = match verdict {
        Verdict::AsWanted => return Vec::new(),
        Verdict::Dead(death) => return dead(scene, ask, death),
        Verdict::NotAsked => Hop::Packets
            .unknown("not tried: the doctor's time limit was reached first")
            .fix(more_time(scene)),
        Verdict::Failed(why) => Hop::Packets.unknown(format!(
            "not tried: its connection could not be opened in a copy of this machine: {why}"
        )),
        Verdict::Fickle(by) => fickle(scene.family, by.as_ref()),
        Verdict::Unknown(numbers) => {
            let rules: Vec<&str> = numbers
                .iter()
                .filter_map(|n| answers.watched.get(*n))
                .map(String::as_str)
                .collect();
            Hop::Packets.unknown(format!(
                "its packets reach a rule whose effect cannot be known from here: {}",
                rules.join("; ")
            ))
        }
        Verdict::Behind(interface) => behind(scene, ask, interface),
        Verdict::Strayed(interface) => strayed(ask, interface),
        Verdict::Source { seen, blame } => with_rule(
            scene,
            ask,
            blame,
            Hop::SnatRule,
            &format!(
                "the target sees {seen}, while the spec says {}",
                ask.forward.snat
            ),
        ),
        Verdict::Elsewhere { at, blame } => with_rule(
            scene,
            ask,
            blame,
            Hop::DnatRule,
            &format!("its packets go to {at}"),
        ),
        Verdict::LetIn(blame) => let_in(scene, ask, blame),
    };
    vec![said]
}

fn behind(scene: &Scene<'_>, ask: &Ask<'_>, interface: &str) -> Check {
    Hop::Route
        .fail(format!(
            "{} answers behind {interface}, while the spec's egress is {}",
            ask.forward.reaches(),
            ask.forward.egress
        ))
        .fix(format!(
            "correct `egress` in the spec, then {}",
            scene.apply
        ))
}

/// Names what lets a client in that the lists of a forward keep out; the sentence follows the client's name.
fn let_in(scene: &Scene<'_>, ask: &Ask<'_>, blame: &Blame) -> Check {
    let is_denied = ask.forward.sources.deny.contains(ask.client.address);
    let list = if is_denied {
        "deny_from keeps them out"
    } else {
        "allow_from leaves them out"
    };
    let what = format!("come through, though {list}");
    let check = match (&blame.by, scene.put_in) {
        (Some(By::Rule(decided) | By::Policy(decided)), _) => {
            let rule = rule(scene.family, decided);
            hop_of(scene, decided).fail(format!("{what}: {rule} accepts them"))
        }
        (_, Some(line)) => {
            let words = "somebody has put a line into nvactl's own part of";
            let check = Hop::OwnChains.fail(format!("{what}: {words} {line}"));
            check.fix(scene.apply)
        }
        (_, None) => Hop::ForeignRule.fail(what),
    };
    match &blame.cure {
        Some(cure) => with_remedy(check, remedy::of(scene, ask, cure)),
        None => check,
    }
}

/// The command that asks again, with more time.
fn more_time(scene: &Scene<'_>) -> String {
    format!("{} --deadline 120", scene.doctor)
}

fn fickle(family: Family, by: Option<&By>) -> Check {
    let words = "it comes through at one time and not at another";
    Hop::Packets.unknown(match by {
        Some(By::Rule(decided) | By::Policy(decided)) => format!(
            "{words}: when it does not, {} takes the packets",
            rule(family, decided)
        ),
        Some(By::Kernel(reason)) => {
            format!("{words}: when it does not, a packet {}", reason.words())
        }
        Some(By::NoRule) | None => words.to_owned(),
    })
}

/// Names the interface by which replies leave. A route for all clients would also move the machine's other
/// packets, so no command is printed.
fn strayed(ask: &Ask<'_>, interface: &str) -> Check {
    let words = format!(
        "replies to clients that come in by {by} leave by {interface}: the network may drop those. A route to \
         those clients by {by}, or a routing table of its own for connections of {by}, brings them back by {by}",
        by = ask.by,
    );
    let target = ask.question.listeners.first();
    let look = target.map(|target| {
        format!(
            "to look: ip route get CLIENT from {} iif {}",
            target.ip(),
            ask.forward.egress
        )
    });
    let check = Hop::RpFilter.warn(words);
    match look {
        Some(look) => check.fix(look),
        None => check,
    }
}

/// Names a rule that does something to a forward's packets.
fn with_rule(scene: &Scene<'_>, ask: &Ask<'_>, blame: &Blame, otherwise: Hop, what: &str) -> Check {
    let (hop, words, is_contested) = match &blame.by {
        Some(By::Rule(decided) | By::Policy(decided)) => (
            hop_of(scene, decided),
            format!("{what}, by {}", rule(scene.family, decided)),
            is_contested(scene, decided),
        ),
        _ => (otherwise, what.to_owned(), false),
    };
    let check = if is_contested {
        hop.unknown(format!("{words} {CONTESTED}"))
    } else {
        hop.fail(words)
    };
    match &blame.cure {
        Some(cure) => with_remedy(check, remedy::of(scene, ask, cure)),
        None => check,
    }
}

fn with_remedy(check: Check, remedy: Remedy) -> Check {
    match remedy {
        Remedy::Tried(fix) => check.tried(fix),
        Remedy::Setting(fix) => check.fix(fix),
    }
}

fn dead(scene: &Scene<'_>, ask: &Ask<'_>, death: &Death) -> Vec<Check> {
    let tried = death.is_cured;
    let mut checks = Vec::new();
    for (n, taken) in death.causes.iter().enumerate() {
        let (hop, status) = match &taken.by {
            // The rule for replies is one for all forwards.
            By::Policy(decided)
                if taken.direction == Direction::Reply
                    && hop_of(scene, decided) == Hop::ForwardRule =>
            {
                (Hop::OwnChains, Status::Fail)
            }
            By::Rule(decided) | By::Policy(decided) => {
                let status = if is_contested(scene, decided) {
                    Status::Unknown
                } else {
                    Status::Fail
                };
                (hop_of(scene, decided), status)
            }
            By::Kernel(KernelReason::NotForwarded) if scene.ip_forward => {
                (Hop::InterfaceForwarding, Status::Fail)
            }
            By::Kernel(reason) => of_kernel(reason),
            By::NoRule if matches!(taken.fate, Fate::SourceTranslated { .. }) => {
                (Hop::SnatRule, Status::Fail)
            }
            By::NoRule => (Hop::DnatRule, Status::Fail),
        };
        // Without evidence it is asked again, and then not known.
        let mut words = took(scene.family, ask, taken);
        if let By::Rule(decided) = &taken.by
            && is_contested(scene, decided)
        {
            words = format!("{words} {CONTESTED}");
        }
        let mut check = hop.found(status, words);
        if let (Fate::Unresolved, By::Rule(decided)) = (taken.fate, &taken.by) {
            check = check.fix(remedy::discovery(decided));
        } else if let Some(cure) = death.cures.get(n).filter(|_| tried) {
            check = with_remedy(check, remedy::of_taken(scene, ask, taken, cure));
        } else if let Some(hint) = remedy::hint(&taken.by) {
            check = check.fix(hint);
        }
        checks.push(check);
    }
    if let Some(interface) = &death.behind {
        checks.push(behind(scene, ask, interface));
    }
    if checks.is_empty() {
        let what = if death.is_stuck {
            "the target is reached, and the data does not come through"
        } else {
            "nothing comes through"
        };
        checks.push(match &death.failure {
            Some(why) => Hop::Packets.unknown(format!("{what}; the search for the cause failed: {why}")),
            None if death.is_examined => {
                Hop::Packets.unknown(format!("{what}, and the kernel does not tell why"))
            }
            None => Hop::Packets
                .unknown(format!(
                    "{what}; the cause was not looked for, because of the time limit or because so many \
                     connections fail"
                ))
                .fix(more_time(scene)),
        });
    }
    checks
}

/// The condition under which the other backend's table for translation decides.
const CONTESTED: &str = "if its table was loaded after nvactl's: no program tells";

/// Whether a rule decides only where its table goes before nvactl's: of the tables for translation of both
/// backends the kernel takes the one that was loaded last first.
fn is_contested(scene: &Scene<'_>, decided: &Decided) -> bool {
    let translates = matches!(
        decided.holder,
        Holder::Iptables {
            table: TableName::Nat,
            ..
        }
    );
    translates && hop_of(scene, decided) == Hop::OtherBackend
}

/// The hop that a rule belongs to, by its program: nvactl's own, another's of the same iptables, the other
/// backend's, or nft's.
fn hop_of(scene: &Scene<'_>, decided: &Decided) -> Hop {
    match &decided.holder {
        Holder::Iptables {
            backend,
            table,
            chain,
            ..
        } => {
            let called = match scene.backend {
                Backend::Legacy => Backend::Legacy,
                _ => Backend::Nft,
            };
            let is_called = (*backend == Backend::Legacy) == (called == Backend::Legacy);
            match (is_called, chain.is_own()) {
                (true, true) => Hop::OwnChains,
                // Where no rule accepts a packet, the policy takes it.
                (true, false)
                    if *table == TableName::Filter
                        && *chain == ChainName::Forward
                        && decided.handle.is_none()
                        && decided.place.is_none() =>
                {
                    Hop::ForwardRule
                }
                (true, false) => Hop::ForeignRule,
                (false, _) => Hop::OtherBackend,
            }
        }
        Holder::Nft(_) => Hop::NativeNft,
    }
}

fn of_kernel(reason: &KernelReason) -> (Hop, Status) {
    match reason {
        KernelReason::ReversePath => (Hop::RpFilter, Status::Fail),
        KernelReason::NotForwarded => (Hop::IpForward, Status::Fail),
        KernelReason::NoRoute
        | KernelReason::Martian
        | KernelReason::Blackhole
        | KernelReason::Prohibited
        | KernelReason::Unreachable
        | KernelReason::Ttl => (Hop::Route, Status::Fail),
        KernelReason::NeedsFragmentation => (Hop::Mtu, Status::Fail),
        KernelReason::NoNeighbour { .. } => (Hop::Neighbour, Status::Fail),
        KernelReason::NotSeen | KernelReason::Unknown(_) => (Hop::Packets, Status::Unknown),
    }
}

/// Says what keeps the machine's own packets from a target, or why that is not known.
#[must_use]
pub fn keeps(family: Family, found: &KeptIn) -> String {
    let taken = match found {
        KeptIn::By(taken) => taken.as_ref().map(|taken| &taken.by),
        KeptIn::Failed(why) => {
            return format!(
                "whether the machine's own rules keep its packets in could not be tried: {why}"
            );
        }
        KeptIn::NotAsked => {
            return "whether the machine's own rules keep its packets in was not tried: the doctor's time \
                    limit was reached first"
                .to_owned();
        }
    };
    match taken {
        Some(By::Rule(decided) | By::Policy(decided)) => {
            format!("{} takes the machine's own packets", rule(family, decided))
        }
        _ => "the machine's own packets do not reach it in a copy of this machine either, where every \
              target answers"
            .to_owned(),
    }
}

/// Says what took a packet, with the packet's direction.
#[must_use]
pub fn took(family: Family, ask: &Ask<'_>, taken: &Taken) -> String {
    let whose = match taken.direction {
        Direction::Request => "packets",
        Direction::Reply => "replies",
    };
    let decided = match &taken.by {
        By::Kernel(reason) => {
            let of = match taken.direction {
                Direction::Request => "a packet",
                Direction::Reply => "a reply",
            };
            return format!("{of} {}", reason.words());
        }
        By::NoRule if matches!(taken.fate, Fate::SourceTranslated { .. }) => {
            return format!(
                "no rule gives the {whose} the source that the spec says, {}",
                ask.forward.snat
            );
        }
        By::NoRule => {
            return format!("{whose} to {} are not translated", ask.question.to);
        }
        By::Rule(decided) | By::Policy(decided) => decided,
    };
    let rule = rule(family, decided);
    match taken.fate {
        Fate::Dropped => format!("{rule} drops the {whose}"),
        Fate::Rejected => format!("{rule} rejects the {whose}"),
        Fate::Diverted => format!("{rule} hands the {whose} to a program"),
        Fate::Unresolved => format!(
            "{rule} drops neighbour discovery (ICMPv6), without which no {whose} come or go"
        ),
        Fate::Translated {
            to: (address, port),
        } => {
            format!(
                "{rule} sends the {whose} elsewhere, to {}:{port}",
                crate::net::Host(address)
            )
        }
        Fate::Redirected { to: (_, port) } => {
            format!("{rule} redirects the {whose} to port {port} of this machine")
        }
        Fate::SourceTranslated { to } => format!("{rule} gives the {whose} the source {to}"),
        Fate::Untranslated => format!("{rule} exempts the {whose} from translation"),
    }
}

/// Names a rule or a policy: its program, table, chain and text.
fn rule(family: Family, decided: &Decided) -> String {
    let owner = decided
        .owner
        .map(|owner| format!("{owner}'s "))
        .unwrap_or_default();
    match &decided.holder {
        Holder::Iptables {
            backend,
            table,
            chain,
            ..
        } => {
            let program = match backend {
                Backend::Auto => plain(family).to_owned(),
                named => named.program(family, "iptables"),
            };
            match decided.place {
                Some(_) => format!(
                    "{program}: {owner}rule in {table}, `{}`,",
                    printable::line(&decided.text)
                ),
                None => format!("{program}: the policy of {chain} in {table}"),
            }
        }
        Holder::Nft(chain) => {
            let named = format!("{} {} {}", chain.family, chain.table, chain.name);
            match decided.handle {
                Some(_) => format!(
                    "{owner}rule in the nft chain {named}, `{}`,",
                    printable::line(&decided.text)
                ),
                None => format!("the policy of the nft chain {named}"),
            }
        }
    }
}

/// Returns the words for an example of a client.
#[must_use]
pub fn client(client: &Client) -> String {
    let Client { address, kind } = client;
    match kind {
        ClientKind::Somebody => format!("a client of the Internet ({address}, made up)"),
        ClientKind::Seen => format!("{address}, which is connected now"),
        ClientKind::Near(net) | ClientKind::Listed(net) | ClientKind::Named(net) => {
            format!("clients of {net} ({address})")
        }
    }
}

/// Returns the words for a client and all others of its kind.
fn subject(client: &Client) -> String {
    let Client { address, kind } = client;
    match kind {
        ClientKind::Somebody => format!("clients of the Internet ({address}, made up)"),
        ClientKind::Seen => format!("clients such as {address}, which is connected now,"),
        ClientKind::Near(net) | ClientKind::Listed(net) | ClientKind::Named(net) => {
            format!("clients of {net}")
        }
    }
}

#[cfg(test)]
mod tests;

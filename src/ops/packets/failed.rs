//! Describes the connections of forwards and outbound entries that fail with the change, and the replies that leave by
//! another interface.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::forwards::Snat;
use crate::health::doctor::{Scene, client_words, fixes, rule_words, took};
use crate::net::words::quoted;
use crate::netfilter::backend::Backend;
use crate::ops::remark::Remarks;
use crate::twin::cause::{By, Holder, KernelReason, Taken};
use crate::twin::change::Tried;
use crate::twin::verdict::{Death, Examination, Judged, Verdict};

/// The most lost connections that are shown one by one.
const MOST_LOST: usize = 5;

/// Returns a line for each forward and outbound entry that a change would cut off, with the rule that takes its
/// packets, and a line for each fix.
pub fn lost(tried: &Tried<'_>, backend: Backend, foreign_snat: &BTreeSet<IpAddr>) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut names = BTreeSet::new();
    for one in &tried.lost {
        if !names.insert(one.ask.of.name().as_str()) {
            continue;
        }
        if names.len() > MOST_LOST {
            continue;
        }
        let in_front = tried.in_front.get(one.ask.of.name());
        let in_front =
            in_front.map_or(String::new(), |name| format!(", where `{name}` takes them"));
        lines.push(format!(
            "`{}`: connections to {} reach a {} with the rules loaded now, but not with the new \
             rules{in_front}: {} (tried in a copy of this machine, as {})",
            one.ask.of.name(),
            one.ask.question.to,
            one.ask.of.far_end(),
            why_lost(one, foreign_snat),
            client_words(&one.ask.client)
        ));
        // The rules of the entry in front are not loaded, so no command can change them.
        if let Some(name) = tried.in_front.get(one.ask.of.name()) {
            lines.push(format!(
                "  fix: write `{}` before `{name}` in the spec, or narrow `{name}`",
                one.ask.of.name()
            ));
        } else if let Verdict::Dead(death) = &one.verdict {
            let scene = Scene {
                family: one.ask.of.family(),
                backend,
                ip_forward: true,
                apply: "sudo nvactl apply",
                doctor: "sudo nvactl doctor",
                put_in: None,
            };
            let fixes = fixes(&scene, &one.ask, death);
            lines.extend(fixes.iter().map(|fix| format!("  {}", fix.line())));
        }
    }
    match names.len().saturating_sub(MOST_LOST) {
        0 => {}
        more => lines.push(format!("and {more} more")),
    }
    lines
}

/// Describes why a connection is lost. If the kernel gives no reason, names an SNAT address that is not this
/// machine's.
fn why_lost(judged: &Judged<'_>, foreign_snat: &BTreeSet<IpAddr>) -> String {
    let is_unexplained = matches!(
        &judged.verdict,
        Verdict::Dead(death) if death.behind.is_none()
            && death.causes.is_empty()
            && death.examination == Examination::Done
    );
    let snat = match judged.ask.of.snat() {
        Snat::Addresses(range) => [range.first(), range.last()],
        Snat::Masquerade | Snat::Client => return why(judged),
    };
    match snat.into_iter().find(|one| foreign_snat.contains(one)) {
        Some(address) if is_unexplained => {
            format!("probably because {address} is no address of this machine")
        }
        _ => why(judged),
    }
}

/// Describes why a connection is lost or dead.
fn why(judged: &Judged<'_>) -> String {
    let ask = &judged.ask;
    let family = ask.of.family();
    match &judged.verdict {
        // nvactl's rules match the egress, so any other cause follows from this one.
        Verdict::Dead(Death {
            behind: Some(interface),
            ..
        }) => format!(
            "the packets leave by {interface}, while the spec's egress is {}",
            ask.of.egress()
        ),
        Verdict::Dead(death) => match death.causes.as_slice() {
            [] => match &death.examination {
                Examination::Failed(why) => format!("the cause is not known: {why}"),
                Examination::Done => "the kernel gives no reason".to_owned(),
                Examination::Pending => {
                    "the cause is not known: the time limit was reached first".to_owned()
                }
            },
            causes => causes
                .iter()
                .map(|taken| took(family, ask, taken))
                .collect::<Vec<_>>()
                .join("; then "),
        },
        Verdict::Elsewhere { at, blame } => match &blame.by {
            Some(By::Rule(decided) | By::Policy(decided)) => {
                format!("{} sends the packets to {at}", rule_words(family, decided))
            }
            _ => format!("the packets go to {at}"),
        },
        Verdict::Source { seen, .. } => {
            format!("the server sees the source {seen}, and its answers do not come back")
        }
        _ => "the connection does not come through".to_owned(),
    }
}

/// Warns of replies that leave by another interface than the one by which their clients come in.
pub fn strayed(judged: &[Judged<'_>], remarks: &mut Remarks) {
    let mut found: BTreeMap<(String, &str), Vec<&Judged<'_>>> = BTreeMap::new();
    for one in judged {
        if let Verdict::Strayed(interface) = &one.verdict {
            let key = (interface.clone(), one.ask.by.as_str());
            found.entry(key).or_default().push(one);
        }
    }
    for ((out, by), all) in found {
        let names: BTreeSet<&str> = all.iter().map(|one| one.ask.of.name().as_str()).collect();
        let ask = &all[0].ask;
        let target = ask.question.listeners.first();
        let look = target.map_or(String::new(), |target| {
            format!(
                "\nhint: to look: ip route get {} from {} iif {}",
                ask.client.address,
                target.ip(),
                ask.of.egress()
            )
        });
        remarks.warn(format_args!(
            "replies of {} leave by {out}, but their clients come in by {by}: the network may drop the replies \
             (tried in a copy of this machine, as {}){look}",
            quoted(names),
            client_words(&ask.client)
        ));
    }
}

/// Names the causes why forwards and outbound entries fail with and without the change, unless another message names them.
pub fn dead(judged: &[Judged<'_>], remarks: &mut Remarks) {
    let mut found: Vec<(String, Vec<&str>)> = Vec::new();
    for one in judged {
        let told = match &one.verdict {
            Verdict::Dead(death) => {
                // Another message names a route that leaves by another interface.
                let mut causes = death.causes.iter().filter(|_| death.behind.is_none());
                let is_unknown = death.examination != Examination::Done;
                death.causes.is_empty() && is_unknown
                    || causes.any(|taken| !is_told_elsewhere(taken))
            }
            _ => true,
        };
        if !told {
            continue;
        }
        let (why, name) = (why(one), one.ask.of.name().as_str());
        match found.iter_mut().find(|(known, _)| *known == why) {
            Some((_, names)) if names.contains(&name) => {}
            Some((_, names)) => names.push(name),
            None => found.push((why, vec![name])),
        }
    }
    let each = found.iter().map(|(why, names)| {
        let names = quoted(names);
        format!("connections of {names} fail with and without this change: {why}")
    });
    remarks.warn_of_rules(each);
}

/// Returns whether another message names the cause: switches, routes and neighbours are checked on the machine
/// itself. nvactl's own rule does what the spec says, for example if a target is this machine.
fn is_told_elsewhere(taken: &Taken) -> bool {
    match &taken.by {
        By::Rule(decided) => {
            matches!(&decided.holder, Holder::Iptables { chain, .. } if chain.is_own())
        }
        By::Policy(_) => false,
        By::NoRule => true,
        By::Kernel(reason) => matches!(
            reason,
            KernelReason::NotForwarded
                | KernelReason::NoRoute
                | KernelReason::NoNeighbour { .. }
                | KernelReason::NotSeen
                | KernelReason::Unknown(_)
        ),
    }
}

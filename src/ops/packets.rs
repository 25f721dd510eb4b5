//! Tries the effect of a change on connections in a copy of the machine, before it is loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::flows::described;
use super::remark::Remarks;
use super::warn::policy_name;
use crate::forwards::ForwardSet;
use crate::forwards::Listeners;
use crate::forwards::Snat;
use crate::health::doctor::{Scene, client_words, fixes, rule_words, took};
use crate::host::network;
use crate::net::Family;
use crate::net::per_family::PerFamily;
use crate::net::printable;
use crate::net::words::counted;
use crate::net::words::few;
use crate::netfilter::backend::Backend;
use crate::netfilter::conntrack::Flow;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::ruleset::Ruleset;
use crate::plan::unplan::unplan;
use crate::twin::battery::Ask;
use crate::twin::cause::{By, Decided, Holder, KernelReason, Taken};
use crate::twin::change::{Opened, Tried, Trying, try_change};
use crate::twin::clients::ClientKind;
use crate::twin::netns;
use crate::twin::rule_change::RuleChange;
use crate::twin::verdict::{Death, Examination, Judged, Verdict};

/// Connections that are not tried by then are reported.
const LIMIT: Duration = Duration::from_mins(2);
/// The most rules that are shown one by one.
const MOST_RULES: usize = 20;
/// The most forwards that are named for each.
const MOST_NAMES: usize = 3;
/// The most lost connections that are shown one by one.
const MOST_LOST: usize = 5;

/// The result of a trial.
#[derive(Debug)]
pub enum PacketTrial {
    /// The change cuts off no forward that works now.
    Passed(Vec<Overtaken>),
    /// iptables-restore refuses the change in the copy.
    NotLoaded,
    /// The change would cut off forwards that work now, a line each.
    Cuts(Vec<String>),
    /// No copy could be made, with the reason.
    Impossible(String),
}

/// A warning about rules that refuse packets of forwards until nvactl's jump is before them.
#[derive(Debug)]
pub struct Overtaken {
    /// The warning before the change is loaded.
    pub planned: String,
    /// The warning after it.
    pub done: String,
}

/// Tries a change of the live rules, and adds remarks about its effect on connections.
/// `foreign_snat` returns the SNAT addresses that are not this machine's.
pub fn try_packets(
    set: &ForwardSet,
    live: &PerFamily<&Ruleset>,
    flows: &[Flow],
    change: RuleChange,
    foreign_snat: impl FnOnce() -> BTreeSet<IpAddr>,
    remarks: &mut Remarks,
) -> PacketTrial {
    let each = live.families().as_slice().iter();
    let sets: Vec<(Family, ForwardSet)> = each.map(|family| (*family, set.of(*family))).collect();
    let loaded: Vec<ForwardSet> = live.values().filter_map(|live| unplan(live)).collect();
    let trying = Trying {
        others: others(flows, set, &loaded),
        sets: &sets,
        loaded: &loaded,
        live: live.values().copied().collect(),
        flows,
        change,
        deadline: Instant::now() + LIMIT,
    };
    let work = || try_change(&trying);
    match netns::aside(work) {
        Ok(Ok(Some(tried))) => {
            let backend = trying.change.iptables.backend;
            told(&tried, backend, foreign_snat, remarks)
        }
        Ok(Ok(None)) => PacketTrial::NotLoaded,
        Ok(Err(error)) => PacketTrial::Impossible(error.words()),
        Err(error) => PacketTrial::Impossible(format!("no thread could be started: {error}")),
    }
}

/// Returns the connections outside the forwards that this machine passes on.
fn others<'f>(flows: &'f [Flow], set: &ForwardSet, loaded: &[ForwardSet]) -> Vec<&'f Flow> {
    if flows.is_empty() {
        return Vec::new();
    }
    let own = network::links();
    let is_own = |address| own.owner(address).is_some();
    let all: Vec<Listeners<'_>> = [set]
        .into_iter()
        .chain(loaded)
        .map(Listeners::new)
        .collect();
    let is_led = |flow: &Flow| all.iter().any(|set| set.leader(flow).is_some());
    flows
        .iter()
        .filter(|flow| flow.is_of_hosts() && !flow.finished)
        .filter(|flow| !is_own(flow.source) && !is_own(flow.reply_source))
        .filter(|flow| !is_led(flow))
        .collect()
}

fn told(
    tried: &Tried<'_>,
    backend: Backend,
    foreign_snat: impl FnOnce() -> BTreeSet<IpAddr>,
    remarks: &mut Remarks,
) -> PacketTrial {
    if !tried.lost.is_empty() {
        return PacketTrial::Cuts(lost(&tried.lost, backend, &foreign_snat()));
    }
    dead(&tried.dead, remarks);
    let all = Family::ALL.into_iter();
    let overtaken = all.filter_map(|family| opened(&tried.opened, family));
    let overtaken = overtaken.collect();
    other_flows(tried, remarks);
    if !tried.unsure.is_empty() {
        let names: BTreeSet<&str> = tried.unsure.iter().map(|one| one.name.as_str()).collect();
        let names = names.iter().map(|name| format!("`{name}`"));
        remarks.warn(format_args!(
            "connections to {} may or may not pass after this change: a rule of another program decides by \
             chance, by its counter, or by asking a program",
            few(names, MOST_NAMES)
        ));
    }
    strayed(&tried.strayed, remarks);
    if let Some(why) = tried.failed.first() {
        remarks.warn(format_args!(
            "{} to forwards of this spec could not be opened in a copy of this machine: {why}",
            counted(tried.failed.len(), "connection")
        ));
    }
    if tried.not_asked > 0 {
        remarks.warn(format_args!(
            "{} to forwards of this spec could not be tried in {} seconds; to try them after the change: \
             sudo nvactl doctor --deadline 600",
            counted(tried.not_asked, "connection"),
            LIMIT.as_secs()
        ));
    }
    if tried.untried_networks > 0 {
        remarks.note(format_args!(
            "clients of {} that routes or rules name were not tried",
            counted(tried.untried_networks, "more network")
        ));
    }
    PacketTrial::Passed(overtaken)
}

/// Returns a line for each forward that a change would cut off, with the rule that takes its packets, and a
/// line for each fix.
fn lost(judged: &[Judged<'_>], backend: Backend, foreign_snat: &BTreeSet<IpAddr>) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut names = BTreeSet::new();
    for one in judged {
        if !names.insert(one.ask.forward.name.as_str()) {
            continue;
        }
        if names.len() > MOST_LOST {
            continue;
        }
        lines.push(format!(
            "`{}`: connections to {} reach a target with the rules loaded now, but not with the new \
             rules: {} (tried in a copy of this machine, as {})",
            one.ask.forward.name,
            one.ask.question.to,
            why_lost(one, foreign_snat),
            client_words(&one.ask.client)
        ));
        if let Verdict::Dead(death) = &one.verdict {
            let scene = Scene {
                family: one.ask.forward.family(),
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
        more => lines.push(format!("and {}", counted(more, "more forward"))),
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
    let snat = match judged.ask.forward.snat {
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
    let family = ask.forward.family();
    match &judged.verdict {
        // nvactl's rules match the egress, so any other cause follows from this one.
        Verdict::Dead(Death {
            behind: Some(interface),
            ..
        }) => format!(
            "the packets leave by {interface}, while the spec's egress is {}",
            ask.forward.egress
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
        _ => "the connection does not come through".to_owned(),
    }
}

/// Warns of replies that leave by another interface than the one by which their clients come in.
fn strayed(judged: &[Judged<'_>], remarks: &mut Remarks) {
    let mut found: BTreeMap<(String, &str), Vec<&Judged<'_>>> = BTreeMap::new();
    for one in judged {
        if let Verdict::Strayed(interface) = &one.verdict {
            let key = (interface.clone(), one.ask.by.as_str());
            found.entry(key).or_default().push(one);
        }
    }
    for ((out, by), all) in found {
        let names: BTreeSet<String> = all
            .iter()
            .map(|one| format!("`{}`", one.ask.forward.name))
            .collect();
        let ask = &all[0].ask;
        let target = ask.question.listeners.first();
        let look = target.map_or(String::new(), |target| {
            format!(
                "\nhint: to look: ip route get {} from {} iif {}",
                ask.client.address,
                target.ip(),
                ask.forward.egress
            )
        });
        remarks.warn(format_args!(
            "replies of {} leave by {out}, but their clients come in by {by}: the network may drop the replies \
             (tried in a copy of this machine, as {}){look}",
            few(names, MOST_NAMES),
            client_words(&ask.client)
        ));
    }
}

/// Names the causes why forwards fail with and without the change, unless another message names them.
fn dead(judged: &[Judged<'_>], remarks: &mut Remarks) {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
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
        let (why, name) = (why(one), format!("`{}`", one.ask.forward.name));
        match found.iter_mut().find(|(known, _)| *known == why) {
            Some((_, names)) if names.contains(&name) => {}
            Some((_, names)) => names.push(name),
            None => found.push((why, vec![name])),
        }
    }
    let each = found.iter().map(|(why, names)| {
        let names = few(names.iter(), MOST_NAMES);
        format!("connections to {names} fail with and without this change: {why}")
    });
    remarks.warn_of_rules(each);
}

/// Whether another message names the cause: switches, routes and neighbours are checked on the machine
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

/// Describes the rules that refuse packets of forwards until nvactl's jump is before them, with the edit of
/// the spec that refuses the same on its last line.
fn opened(opened: &[Opened<'_>], family: Family) -> Option<Overtaken> {
    let of_family = opened
        .iter()
        .filter(|one| one.ask.forward.family() == family);
    let mut rules: Vec<(&str, Vec<&Opened<'_>>)> = Vec::new();
    for one in of_family {
        let text = one.rule.text.as_str();
        match rules.iter_mut().find(|(known, _)| *known == text) {
            Some((_, all)) => all.push(one),
            None => rules.push((text, vec![one])),
        }
    }
    let kind = match family {
        Family::V4 => "rule",
        Family::V6 => "ip6tables rule",
    };
    let refuse = match rules.len() {
        0 => return None,
        1 => "refuses",
        _ => "refuse",
    };
    let count = counted(rules.len(), kind);
    let planned = format!(
        "nvactl's jump will come before {count} that {refuse} packets of forwards, so those packets will be accepted:"
    );
    let done = format!(
        "nvactl's jump is now before {count} that used to refuse packets of forwards; these packets are accepted now:"
    );
    let mut text = String::new();
    for (rule, all) in rules.iter().take(MOST_RULES) {
        let mut names: Vec<String> = Vec::new();
        for one in all {
            let name = format!("`{}`", one.ask.forward.name);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let names = few(names.iter(), MOST_NAMES);
        let _ = write!(text, "\n  {} ({names})", printable::line(rule));
    }
    match rules.len().saturating_sub(MOST_RULES) {
        0 => {}
        more => {
            let _ = write!(text, "\n  and {more} more such rules");
        }
    }
    let _ = write!(text, "\nhint: {}", edit(&rules));
    Some(Overtaken {
        planned: planned + &text,
        done: done + &text,
    })
}

/// Returns the edit of the spec that refuses the same packets.
fn edit(rules: &[(&str, Vec<&Opened<'_>>)]) -> String {
    let refuses_all = |all: &&(&str, Vec<&Opened<'_>>)| {
        let mut asks = all.1.iter().map(|one| &one.ask);
        asks.any(|ask| ask.client.kind == ClientKind::Somebody)
    };
    let all = "to refuse all packets of a forward, write in the spec: enabled: false";
    if rules.iter().all(|one| refuses_all(&one)) {
        return all.to_owned();
    }
    let by_client = rules.iter().filter(|one| !refuses_all(one));
    let nets: BTreeSet<IpNet> = by_client
        .flat_map(|(_, all)| all)
        .map(|one| network_of(&one.ask))
        .collect();
    let nets = nets.iter().take(MOST_RULES).map(|net| match net {
        IpNet::V4(net) => net.to_string(),
        // YAML reads a colon as the end of a key.
        IpNet::V6(net) => format!("\"{net}\""),
    });
    let nets = nets.collect::<Vec<_>>().join(", ");
    let some = format!(
        "to refuse these clients, write in the spec, for a forward or in `defaults`: deny_from: [{nets}]"
    );
    if rules.iter().any(|one| refuses_all(&one)) {
        format!("{some}\nhint: {all}")
    } else {
        some
    }
}

/// Whether the chain is iptables' FORWARD, whose policy the spec sets.
fn is_forward(decided: &Decided) -> bool {
    matches!(
        &decided.holder,
        Holder::Iptables {
            table: TableName::Filter,
            chain: ChainName::Forward,
            ..
        }
    )
}

fn network_of(ask: &Ask<'_>) -> IpNet {
    match ask.client.kind {
        ClientKind::Near(net) | ClientKind::Listed(net) | ClientKind::Named(net) => net,
        ClientKind::Somebody | ClientKind::Seen => IpNet::from(ask.client.address),
    }
}

/// Names the connections outside the forwards that the change refuses or lets through.
fn other_flows(tried: &Tried<'_>, remarks: &mut Remarks) {
    let others = &tried.others;
    let are = |count: usize| if count == 1 { "is" } else { "are" };
    if !others.cut.is_empty() {
        let cut: Vec<&Flow> = others.cut.iter().map(|(flow, _)| *flow).collect();
        let by_policy = others.cut.iter().any(|(_, taken)| {
            let by = taken.as_ref().map(|taken| &taken.by);
            matches!(by, Some(By::Policy(decided)) if is_forward(decided))
        });
        let hint = if by_policy {
            "\nhint: to let them pass, add a rule that accepts them, or write in the spec, in `firewall`: forward_policy: keep"
        } else {
            ""
        };
        remarks.warn(format_args!(
            "{} that {} forwarded now would be refused if {} opened again: {}{}{hint}",
            counted(cut.len(), "connection"),
            are(cut.len()),
            if cut.len() == 1 {
                "it were"
            } else {
                "they were"
            },
            described(&cut),
            taker(
                cut.len(),
                others.cut.iter().find_map(|(_, taken)| taken.as_ref())
            )
        ));
    }
    if !others.opened.is_empty() {
        remarks.warn(format_args!(
            "{} outside the forwards that could not be opened until now can be opened after this change: {}",
            counted(others.opened.len(), "connection"),
            described(&others.opened)
        ));
    }
    if !others.dead.is_empty() {
        let dead: Vec<&Flow> = others.dead.iter().map(|(flow, _)| *flow).collect();
        remarks.warn(format_args!(
            "{} that {} forwarded now could not be opened again, with or without this change: {}{}",
            counted(dead.len(), "connection"),
            are(dead.len()),
            described(&dead),
            taker(dead.len(), others.dead.first().map(|(_, taken)| taken))
        ));
    }
    if others.left_out > 0 {
        remarks.note(format_args!(
            "{} outside the forwards were not tried",
            counted(others.left_out, "more connection")
        ));
    }
}

/// Names the rule or policy that takes a connection, in brackets.
fn taker(count: usize, taken: Option<&Taken>) -> String {
    let first = if count == 1 { "it" } else { "the first" };
    match taken.map(|taken| &taken.by) {
        Some(By::Policy(decided)) if is_forward(decided) => {
            let policy = match &decided.holder {
                Holder::Iptables { family, .. } => policy_name(*family),
                Holder::Nft(_) => policy_name(Family::V4),
            };
            format!(" (the {policy} DROP refuses {first})")
        }
        Some(By::Rule(decided) | By::Policy(decided)) => {
            let family = match &decided.holder {
                Holder::Iptables { family, .. } => *family,
                Holder::Nft(_) => Family::V4,
            };
            let rule = rule_words(family, decided);
            format!(" ({} refuses {first})", rule.trim_end_matches(','))
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::twin::battery::Wanted;
    use crate::twin::cause::{Direction, Fate, Stage};
    use crate::twin::change::Others;
    use crate::twin::clients::SampleClient;
    use crate::twin::talk::{From, Question};
    use crate::twin::verdict::Death;
    use crate::yaml;

    const SPEC: &str = "firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
  - {name: dns, listen: 53, protocol: udp, target: {pod: 10.224.0.99:5353}}
";

    fn ask(set: &ForwardSet, n: usize, client: ClientKind) -> Ask<'_> {
        let forward = &set.forwards[n];
        let address = "198.51.100.10".parse().expect("an address");
        Ask {
            forward,
            client: SampleClient {
                address,
                kind: client,
            },
            by: &forward.ingress[0],
            wanted: Wanted::Through,
            question: Question {
                protocol: forward.protocol,
                client: address,
                from: From::World(0),
                to: SocketAddr::new([10, 3, 0, 4].into(), forward.listen.ports.first().number()),
                listeners: Vec::new(),
                request: 1,
                answer: 1,
            },
            times: 1,
            is_brief: true,
            is_spare: false,
        }
    }

    fn rule(text: &str) -> Decided {
        Decided {
            stage: Stage::Forward,
            holder: Holder::Iptables {
                backend: Backend::Nft,
                family: Family::V4,
                table: TableName::Filter,
                chain: ChainName::Forward,
            },
            handle: Some(7),
            place: Some(1),
            text: text.to_owned(),
            owner: None,
        }
    }

    fn dead(ask: Ask<'_>, by: By) -> Judged<'_> {
        let verdict = Verdict::Dead(Death {
            causes: vec![Taken {
                by,
                direction: Direction::Request,
                fate: Fate::Dropped,
            }],
            ..Death::default()
        });
        Judged { ask, verdict }
    }

    fn said(tried: &Tried<'_>) -> (PacketTrial, Vec<String>) {
        let mut remarks = Remarks::default();
        let mut trial = told(tried, Backend::Nft, BTreeSet::new, &mut remarks);
        if let PacketTrial::Passed(overtaken) = &mut trial {
            for overtaken in overtaken {
                remarks.warn(&overtaken.planned);
                remarks.warn(&overtaken.done);
            }
        }
        (trial, remarks.warnings().map(str::to_owned).collect())
    }

    #[test]
    fn each_forward_that_would_be_cut_off_is_named_once() {
        let set = yaml::read(SPEC.as_bytes()).expect("it is valid");
        let by = || By::Rule(rule("-A FORWARD -j DROP"));
        let lost = [0, 0, 1].map(|n| dead(ask(&set, n, ClientKind::Somebody), by()));
        let tried = Tried {
            lost: lost.into(),
            ..Tried::default()
        };
        let (PacketTrial::Cuts(lines), warnings) = said(&tried) else {
            panic!("it is refused");
        };
        assert_eq!(warnings, [""; 0]);
        assert_eq!(
            lines,
            [("web", "49182"), ("dns", "53")].map(|(name, port)| format!(
                "`{name}`: connections to 10.3.0.4:{port} reach a target with the rules loaded now, but not with \
                 the new rules: iptables-nft rule `-A FORWARD -j DROP` in filter drops the packets (tried in a copy of this \
                 machine, as the made-up client 198.51.100.10)"
            ))
        );
    }

    #[test]
    fn a_forward_that_fails_already_is_a_warning_unless_another_message_names_the_cause() {
        let set = yaml::read(SPEC.as_bytes()).expect("it is valid");
        let of = |by: fn() -> By| {
            let dead = [0, 1].map(|n| dead(ask(&set, n, ClientKind::Seen), by()));
            said(&Tried {
                dead: dead.into(),
                ..Tried::default()
            })
        };
        let (trial, warnings) = of(|| By::Rule(rule("-A FORWARD -j DROP")));
        assert!(matches!(trial, PacketTrial::Passed(_)));
        assert_eq!(
            warnings,
            [
                "connections to `web`, `dns` fail with and without this change: \
                 iptables-nft rule `-A FORWARD -j DROP` in filter drops the packets"
            ]
        );
        for by in [
            || By::Kernel(KernelReason::NotForwarded),
            || By::Kernel(KernelReason::NoRoute),
            || By::NoRule,
        ] {
            assert_eq!(of(by).1, [""; 0]);
        }
    }

    #[test]
    fn rules_behind_the_jump_are_named_with_the_edit_that_refuses_the_same() {
        let set = yaml::read(SPEC.as_bytes()).expect("it is valid");
        let banned: IpNet = "198.51.100.0/24".parse().expect("a network");
        let one = |n, kind, text| Opened {
            ask: ask(&set, n, kind),
            rule: rule(text),
        };
        let (ban, block) = (
            "-A FORWARD -s 198.51.100.0/24 -j DROP",
            "-A FORWARD -p udp -j DROP",
        );
        let told = |opened: Vec<Opened<'_>>| {
            said(&Tried {
                opened,
                ..Tried::default()
            })
            .1
        };
        assert_eq!(
            told(vec![one(0, ClientKind::Named(banned), ban)]),
            [
                "nvactl's jump will come before 1 rule that refuses packets of forwards, so those packets will be accepted:\
              \n  -A FORWARD -s 198.51.100.0/24 -j DROP (`web`)\
              \nhint: to refuse these clients, write in the spec, for a forward or in `defaults`: deny_from: [198.51.100.0/24]",
                "nvactl's jump is now before 1 rule that used to refuse packets of forwards; these packets are accepted now:\
              \n  -A FORWARD -s 198.51.100.0/24 -j DROP (`web`)\
              \nhint: to refuse these clients, write in the spec, for a forward or in `defaults`: deny_from: [198.51.100.0/24]"
            ]
        );
        assert_eq!(
            told(vec![one(1, ClientKind::Somebody, block)])[..1],
            [
                "nvactl's jump will come before 1 rule that refuses packets of forwards, so those packets will be accepted:\
              \n  -A FORWARD -p udp -j DROP (`dns`)\
              \nhint: to refuse all packets of a forward, write in the spec: enabled: false"
            ]
        );
        let both = told(vec![
            one(0, ClientKind::Named(banned), ban),
            one(1, ClientKind::Named(banned), ban),
            one(1, ClientKind::Somebody, block),
        ]);
        assert!(
            both[0].contains("(`web`, `dns`)")
                && both[0].contains("[198.51.100.0/24]\nhint: to refuse all"),
            "{both:?}"
        );
    }

    #[test]
    fn other_connections_are_counted_and_shown() {
        let flow = |source: &str| Flow {
            protocol: crate::net::Protocol::Tcp,
            source: source.parse().expect("an address"),
            destination: [10, 9, 0, 7].into(),
            destination_port: crate::net::Port::new(22).expect("a port"),
            reply_source: [10, 9, 0, 7].into(),
            reply_port: crate::net::Port::new(22).expect("a port"),
            reply_destination: source.parse().expect("an address"),
            replied: true,
            finished: false,
        };
        let flows = ["192.0.2.1", "192.0.2.2"].map(flow);
        let others = Others {
            cut: flows.iter().map(|flow| (flow, None)).collect(),
            opened: vec![&flows[0]],
            left_out: 3,
            ..Others::default()
        };
        let (_, warnings) = said(&Tried {
            others,
            not_asked: 2,
            ..Tried::default()
        });
        assert_eq!(
            warnings,
            [
                "2 connections that are forwarded now would be refused if they were opened again: tcp 192.0.2.1 → \
                 10.9.0.7:22, tcp 192.0.2.2 → 10.9.0.7:22",
                "1 connection outside the forwards that could not be opened until now can be opened after this change: \
                 tcp 192.0.2.1 → 10.9.0.7:22",
                "2 connections to forwards of this spec could not be tried in 120 seconds; to try them after \
                 the change: sudo nvactl doctor --deadline 600",
            ]
        );
    }
}

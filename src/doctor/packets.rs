//! Packets: the connections that were opened through the twin, and what took those that died.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Case, Check, Hop, Status};
use crate::backend::{Backend, iptables as plain};
use crate::foreign;
use crate::line::deletion;
use crate::net::{Family, Protocol};
use crate::printable;
use crate::ruleset::{ChainName, TableName};
use crate::spec::Forward;
use crate::token::shell_word;
use crate::twin::battery::{Ask, Wanted};
use crate::twin::cause::{By, Decided, Direction, Fate, Holder, KernelReason, Taken};
use crate::twin::clients::{Client, ClientKind};
use crate::twin::cure::Cure;
use crate::twin::judge::{Death, Judged, Verdict};

/// The answers of the twin.
#[derive(Debug)]
pub struct Answers<'f> {
    pub judged: Vec<Judged<'f>>,
    /// The rules whose state the twin does not have, in words.
    pub watched: Vec<String>,
    /// Things of the machine that the twin does not have, in words.
    pub left_out: Vec<String>,
    /// The targets that the machine itself does not reach in the twin, and what takes its packets.
    pub kept_in: BTreeMap<(String, IpAddr), String>,
}

impl Answers<'_> {
    /// Says why the machine itself does not reach a target, where a rule of its own keeps it from that.
    #[must_use]
    pub fn kept_in(&self, forward: &Forward, target: IpAddr) -> Option<String> {
        let key = (forward.name.to_string(), target);
        self.kept_in.get(&key).cloned()
    }
}

pub fn check(case: &Case<'_>, checks: &mut Vec<Check>) {
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
    }
    moderate(case, answers, checks);
    let mut by_forward: BTreeMap<*const Forward, Vec<&Judged<'_>>> = BTreeMap::new();
    for judged in &answers.judged {
        let forward = std::ptr::from_ref(judged.ask.forward);
        by_forward.entry(forward).or_default().push(judged);
    }
    for forward in &case.asked {
        let of_forward = by_forward.get(&std::ptr::from_ref(*forward));
        let of_forward = of_forward.map_or(&[][..], Vec::as_slice);
        let mut found = Vec::new();
        of_one(case, answers, forward, of_forward, &mut found);
        // The live machine's switches have been told.
        let is_told = |check: &Check| {
            let switches = [Hop::IpForward, Hop::InterfaceForwarding];
            let is_same = |told: &Check| told.code == check.code && told.status == Status::Fail;
            switches.contains(&check.code) && checks.iter().any(is_same)
        };
        found.retain(|check| !is_told(check));
        checks.extend(found);
    }
}

/// Makes a warning of each failure that was found in nvactl's rules as they are written, where no packet
/// misses them.
fn moderate(case: &Case<'_>, answers: &Answers<'_>, checks: &mut [Check]) {
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
    let passes = |name: Option<&String>| {
        let mut of_name = answers.judged.iter().filter(|judged| {
            judged.ask.forward.family() == case.family
                && name.is_none_or(|name| judged.ask.forward.name.as_str() == name)
        });
        let mut some = false;
        let all = of_name.all(|judged| {
            some = true;
            judged.verdict == Verdict::AsWanted
        });
        some && all
    };
    for check in checks.iter_mut().filter(is_rule) {
        if passes(check.forward.as_ref()) {
            check.status = Status::Warn;
        }
    }
}

fn of_one(
    case: &Case<'_>,
    answers: &Answers<'_>,
    forward: &Forward,
    judged: &[&Judged<'_>],
    checks: &mut Vec<Check>,
) {
    let mut found: Vec<Check> = Vec::new();
    // The clients for whom something was found, by its place in `found`.
    let mut met: Vec<Vec<String>> = Vec::new();
    let is_fine = |one: &&&Judged<'_>| one.verdict == Verdict::AsWanted;
    let passing = |one: &&&Judged<'_>| one.ask.wanted == Wanted::Through;
    let somebody_passes = judged.iter().filter(passing).any(|one| is_fine(&one));
    for one in judged {
        for check in told(case, answers, &one.ask, &one.verdict, somebody_passes) {
            let at = found.iter().position(|known| *known == check);
            let at = at.unwrap_or_else(|| {
                found.push(check);
                met.push(Vec::new());
                found.len() - 1
            });
            let words = client(&one.ask.client);
            if !met[at].contains(&words) {
                met[at].push(words);
            }
        }
    }
    let fine = judged.iter().filter(is_fine).count();
    if judged.is_empty() {
        found.push(Hop::Packets.unknown(
            "no client could be tried: its lists admit none that comes in by its interfaces",
        ));
    } else if found.is_empty() {
        let connections = if fine == 1 {
            "connection"
        } else {
            "connections"
        };
        found.push(Hop::Packets.ok(format!(
            "{fine} {connections} did as the spec says, in a copy of this machine"
        )));
    }
    // Those whom it does not concern need not be told apart where it concerns all.
    if somebody_passes {
        for (check, clients) in found.iter_mut().zip(&met) {
            if let Some(first) = clients.first() {
                let more = match clients.len() - 1 {
                    0 => String::new(),
                    more => format!(", and {more} more"),
                };
                check.reason = format!("{}: {first}{more}", check.reason);
            }
        }
    }
    checks.extend(found.into_iter().map(|check| check.of(forward)));
}

fn told(
    case: &Case<'_>,
    answers: &Answers<'_>,
    ask: &Ask<'_>,
    verdict: &Verdict,
    somebody_passes: bool,
) -> Vec<Check> {
    match verdict {
        Verdict::AsWanted => Vec::new(),
        Verdict::NotAsked => vec![Hop::Packets.unknown("the time was over before it was tried").fix(
            "more time: --deadline SECONDS",
        )],
        Verdict::Unknown(numbers) => {
            let rules: Vec<&str> = numbers
                .iter()
                .filter_map(|n| answers.watched.get(*n))
                .map(String::as_str)
                .collect();
            vec![Hop::Packets.unknown(format!(
                "its packets meet a rule whose effect depends on what it has counted, or on a program: {}",
                rules.join("; ")
            ))]
        }
        Verdict::Behind(interface) => vec![
            Hop::Route
                .fail(format!(
                    "{} answers behind {interface}, while the spec's egress is {}",
                    ask.forward.reaches(),
                    ask.forward.egress
                ))
                .fix(format!("correct `egress` in the spec, then {}", case.apply)),
        ],
        Verdict::Strayed(interface) => vec![
            Hop::RpFilter
                .warn(format!(
                    "replies to clients that come in by {} leave by {interface}: the network may drop those",
                    ask.by
                ))
                .fix(format!("sudo ip route replace default via ROUTER dev {}", ask.by)),
        ],
        Verdict::Source { seen, by } => vec![with_rule(
            case,
            by.as_ref(),
            Hop::SnatRule,
            &format!(
                "the target sees {seen}, while the spec says {}",
                ask.forward.snat
            ),
        )],
        Verdict::Elsewhere { at, by } => vec![with_rule(
            case,
            by.as_ref(),
            Hop::DnatRule,
            &format!("its packets go to {at}"),
        )],
        Verdict::LetIn(by) => {
            let check = with_rule(
                case,
                by.as_ref(),
                Hop::ForeignRule,
                "a client that its lists keep out comes through",
            );
            vec![check]
        }
        Verdict::Dead(death) => dead(case, ask, death, somebody_passes),
    }
}

/// Names a rule that does something to a forward's packets.
fn with_rule(case: &Case<'_>, by: Option<&By>, otherwise: Hop, what: &str) -> Check {
    match by {
        Some(By::Rule(decided) | By::Policy(decided)) => {
            let hop = hop_of(case, decided);
            let words = format!("{what}, by {}", rule(case.family, decided));
            let check = if is_contested(case, decided) {
                hop.unknown(format!("{words} {CONTESTED}"))
            } else {
                hop.fail(words)
            };
            check.fix(case.apply.as_str())
        }
        _ => otherwise.fail(what.to_owned()).fix(case.apply.as_str()),
    }
}

fn dead(case: &Case<'_>, ask: &Ask<'_>, death: &Death, somebody_passes: bool) -> Vec<Check> {
    let tried = death.is_cured;
    let mut checks = Vec::new();
    for (n, taken) in death.causes.iter().enumerate() {
        let (hop, status) = match &taken.by {
            // The rule for replies is one for all forwards.
            By::Policy(decided)
                if taken.direction == Direction::Reply
                    && hop_of(case, decided) == Hop::ForwardRule =>
            {
                (Hop::OwnChains, Status::Fail)
            }
            By::Rule(decided) | By::Policy(decided) => {
                let named = matches!(ask.client.kind, ClientKind::Named(_));
                let status = if is_contested(case, decided) {
                    Status::Unknown
                } else if named && somebody_passes {
                    Status::Warn
                } else {
                    Status::Fail
                };
                (hop_of(case, decided), status)
            }
            By::Kernel(KernelReason::NotForwarded) if case.facts.ip_forward => {
                (Hop::InterfaceForwarding, Status::Fail)
            }
            By::Kernel(reason) => of_kernel(reason),
            By::NoRule => (Hop::DnatRule, Status::Fail),
        };
        // Without evidence it is asked again, and then not known.
        let mut words = took(case.family, ask, taken);
        if let By::Rule(decided) = &taken.by
            && is_contested(case, decided)
        {
            words = format!("{words} {CONTESTED}");
        }
        let mut check = hop.found(status, words);
        let cure = match death.cures.as_slice() {
            [Cure::Apply] => Some(&Cure::Apply),
            cures => cures.get(n),
        };
        if let Some(cure) = cure.filter(|_| tried) {
            check = check.tried(fix(case, ask, cure));
        } else if let Some(hint) = hint(&taken.by) {
            check = check.fix(hint);
        }
        checks.push(check);
    }
    if checks.is_empty() {
        let words = if death.is_stuck {
            "the target is reached, and the data does not come through: the kernel does not tell why"
        } else {
            "nothing comes through, and the kernel does not tell why"
        };
        checks.push(Hop::Packets.unknown(words));
    }
    checks
}

/// The condition under which the other backend's table for translation decides.
const CONTESTED: &str = "if its table was loaded after nvactl's: no program tells";

/// Whether a rule decides only where its table goes before nvactl's: of the tables for translation of both
/// backends the kernel takes the one that was loaded last first.
fn is_contested(case: &Case<'_>, decided: &Decided) -> bool {
    let translates = matches!(
        decided.holder,
        Holder::Iptables {
            table: TableName::Nat,
            ..
        }
    );
    translates && hop_of(case, decided) == Hop::OtherBackend
}

/// The hop that a rule belongs to, by its program: nvactl's own, another's of the same iptables, the other
/// backend's, or nft's.
fn hop_of(case: &Case<'_>, decided: &Decided) -> Hop {
    match &decided.holder {
        Holder::Iptables {
            backend,
            table,
            chain,
            ..
        } => {
            let called = match case.facts.backend {
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

/// Says what keeps the machine's own packets from a target.
#[must_use]
pub fn keeps(family: Family, taken: Option<&Taken>) -> String {
    match taken.map(|taken| &taken.by) {
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

/// Returns the command or the edit that was tried. One that takes a protection away says so.
fn fix(case: &Case<'_>, ask: &Ask<'_>, cure: &Cure) -> String {
    let command = match cure {
        Cure::Apply | Cure::Without(By::Kernel(_) | By::NoRule) => return case.apply.clone(),
        Cure::AcceptInChain {
            family,
            table,
            chain,
            rule,
        } => format!(
            "sudo nft insert rule {family} {} {} {rule}",
            shell_word(table),
            shell_word(chain)
        ),
        Cure::Switch { name, value } => {
            // sysctl(8) takes a dot in a name as a slash.
            let parts: Vec<String> = name.split('/').map(|part| part.replace('.', "/")).collect();
            format!("sudo sysctl -w net.{}={value}", parts.join("."))
        }
        Cure::Without(By::Rule(decided) | By::Policy(decided)) => {
            let switch = decided.owner.and_then(foreign::switch_of);
            match switch {
                Some(switch) => filled_in(switch, ask),
                None => removal(case.family, decided),
            }
        }
    };
    format!("if it is not meant: {command}")
}

/// Puts a forward's own values into the sentence about a program's setting.
fn filled_in(switch: &str, ask: &Ask<'_>) -> String {
    let Some(target) = ask.question.listeners.first() else {
        return switch.to_owned();
    };
    let interfaces = [("on IN ", ask.by), ("on OUT ", &ask.forward.egress)];
    let mut words = switch
        .replace("TARGET", &target.ip().to_string())
        .replace("PORT", &target.port().to_string())
        .replace("ADDRESS", &ask.client.address.to_string());
    for (word, interface) in interfaces {
        words = words.replace(word, &format!("on {interface} "));
    }
    words
}

fn removal(family: Family, decided: &Decided) -> String {
    match &decided.holder {
        Holder::Iptables {
            backend,
            table,
            chain,
            ..
        } => {
            let program = backend.program(family, "iptables");
            match decided.place {
                Some(_) => format!("sudo {}", deletion(&program, *table, &decided.text)),
                None => format!("sudo {program} -t {table} -P {chain} ACCEPT"),
            }
        }
        Holder::Nft(chain) => match decided.handle {
            Some(_) => format!(
                "remove it; to look: sudo nft -a list chain {} {} {}",
                chain.family,
                shell_word(&chain.table),
                shell_word(&chain.name)
            ),
            None => format!(
                "sudo nft 'chain {} {} {} {{ policy accept; }}'",
                chain.family, chain.table, chain.name
            ),
        },
    }
}

fn hint(by: &By) -> Option<String> {
    match by {
        By::Kernel(KernelReason::NoNeighbour { address, interface }) => Some(format!(
            "is {address} up, and on the network of {interface}? sudo ip neigh show dev {interface}"
        )),
        By::Kernel(
            KernelReason::NoRoute
            | KernelReason::Unreachable
            | KernelReason::Prohibited
            | KernelReason::Blackhole,
        ) => Some("to look: sudo ip rule; sudo ip route show table all".to_owned()),
        By::Rule(Decided {
            holder: Holder::Nft(chain),
            ..
        }) => Some(format!(
            "to look: sudo nft -a list chain {} {} {}",
            chain.family,
            shell_word(&chain.table),
            shell_word(&chain.name)
        )),
        _ => None,
    }
}

/// Returns the words for an example of a client.
#[must_use]
pub fn client(client: &Client) -> String {
    let Client { address, kind } = client;
    match kind {
        ClientKind::Somebody => format!("clients of the Internet ({address})"),
        ClientKind::Seen => format!("{address}, which is connected now"),
        ClientKind::Near(net) | ClientKind::Listed(net) | ClientKind::Named(net) => {
            format!("clients of {net} ({address})")
        }
    }
}

/// Groups forwards by what is said of them, for a summary.
#[must_use]
pub fn works(answers: &Answers<'_>) -> BTreeMap<(String, Protocol, Family), bool> {
    let mut works = BTreeMap::new();
    for judged in &answers.judged {
        let forward = judged.ask.forward;
        let key = (forward.name.to_string(), forward.protocol, forward.family());
        let fine = match judged.verdict {
            Verdict::AsWanted | Verdict::Strayed(_) => true,
            Verdict::Unknown(_) | Verdict::NotAsked => continue,
            _ => false,
        };
        works
            .entry(key)
            .and_modify(|all| *all &= fine)
            .or_insert(fine);
    }
    works
}

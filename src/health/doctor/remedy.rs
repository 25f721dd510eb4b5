//! Fixes for packets that do not pass, by the cures that the twin has tried.

use super::fix::Fix;
use super::route;
use super::scene::Scene;
use crate::health::foreign::{Setting, setting_of};
use crate::host::sysctl::part_of_key;
use crate::net::Family;
use crate::netfilter::backend::iptables as plain;
use crate::netfilter::programs;
use crate::netfilter::text::line::{acceptance_by_policy, acceptance_of_icmp_v6, deletion};
use crate::netfilter::token::shell_word;
use crate::twin::battery::{Ask, Subject};
use crate::twin::cause::{By, DecidingRule, Fate, Holder, KernelReason, Taken};
use crate::twin::cure::ACCEPT_REDIRECTED;
use crate::twin::verdict::Death;
use crate::twin::verdict::{Cure, SwitchValue};

/// A fix, and whether this very command was tried in the twin. The setting of another program is never tried,
/// because that program does not run there.
#[derive(Debug, PartialEq, Eq)]
pub struct Remedy {
    pub fix: Fix,
    pub is_tried: bool,
}

impl Remedy {
    fn tried(fix: impl Into<Fix>) -> Self {
        Self {
            fix: fix.into(),
            is_tried: true,
        }
    }

    fn setting(fix: Fix) -> Self {
        Self {
            fix,
            is_tried: false,
        }
    }

    /// Returns the remedy as `doctor` and `apply` print it.
    #[must_use]
    pub fn line(&self) -> String {
        self.fix.line(self.is_tried)
    }
}

// Each fix that removes a protection asks first whether the protection is meant for these packets.
const IF_RULE_IS_WRONG: &str = "if the rule should not apply to these packets";
const IF_POLICY_IS_WRONG: &str = "if the policy should not apply to these packets";
const IF_CHAIN_IS_WRONG: &str = "if the chain should accept these packets";
const IF_ALL_REDIRECTED: &str =
    "if the chain should accept all redirected traffic, of any program, until the next boot";
const IF_ALL_TO_PORT: &str =
    "if the chain should accept all traffic to this port until the next boot";
const IF_ALL_OF_ENTRY: &str =
    "if the chain should accept the packets of this entry's sources until the next boot";
const IF_SETTING_IS_WRONG: &str = "if the kernel setting may change";

/// Returns the fix for a rule that took a packet, by its cure. The rule stands there `times` times.
#[must_use]
pub fn of_taken(
    scene: &Scene<'_>,
    ask: &Ask<'_>,
    taken: &Taken,
    cure: &Cure,
    times: usize,
) -> Remedy {
    // The rule may be meant for clients that `apply` would let in.
    let (
        By::Rule(decided),
        Fate::Dropped | Fate::Rejected | Fate::Diverted | Fate::Untranslated,
        Cure::Apply,
    ) = (&taken.by, taken.fate, cure)
    else {
        return of(scene, ask, cure, times);
    };
    if is_own(decided) {
        return of(scene, ask, cure, times);
    }
    let apply = scene.apply;
    match decided.owner.and_then(setting_of) {
        None => Remedy::tried(Fix::only_if(IF_RULE_IS_WRONG, apply)),
        Some(setting) => {
            let Setting { effect, .. } = setting;
            let command = filled_in(setting.command, ask, chain_of(&decided.holder));
            Remedy::setting(Fix::only_if(
                IF_RULE_IS_WRONG,
                format!(
                    "{effect} (`{command}`), or put nvactl's jump before all such rules (tried: works): {apply}"
                ),
            ))
        }
    }
}

/// The name of the chain in which a rule stands.
fn chain_of(holder: &Holder) -> &str {
    match holder {
        Holder::Iptables { chain, .. } => chain.as_str(),
        Holder::Nft(chain) => &chain.name,
    }
}

/// Returns the fixes that together let a dead connection through; none if no such fixes are known.
#[must_use]
pub fn of_death(scene: &Scene<'_>, ask: &Ask<'_>, death: &Death) -> Vec<Remedy> {
    let pairs: Vec<(&Taken, &Cure)> = death.causes.iter().zip(&death.cures).collect();
    let same = pairs.chunk_by(|one, next| one.0.by.is_same(&next.0.by));
    same.filter(|_| death.is_cured)
        .map(|all| of_taken(scene, ask, all[0].0, all[0].1, all.len()))
        .collect()
}

/// Whether a rule stands in a chain of nvactl.
fn is_own(decided: &DecidingRule) -> bool {
    matches!(&decided.holder, Holder::Iptables { chain, .. } if chain.is_own())
}

/// Returns the fix for a rule that drops neighbour discovery. Nobody has tried it.
#[must_use]
pub fn discovery(decided: &DecidingRule) -> Fix {
    let accept = match &decided.holder {
        Holder::Iptables {
            backend,
            table,
            chain,
            family,
            ..
        } => {
            let program = backend.program(*family, "iptables");
            acceptance_of_icmp_v6(&program, *table, chain)
        }
        Holder::Nft(chain) => format!(
            "sudo nft insert rule {} {} {} meta l4proto ipv6-icmp accept",
            chain.family,
            shell_word(&chain.table),
            shell_word(&chain.name)
        ),
    };
    Fix::from(format!(
        "accept ICMPv6 before that rule (not tried): {accept}"
    ))
}

/// Returns the fix for a cure that let a connection pass in the twin. A rule to remove stands there `times`
/// times.
#[must_use]
pub fn of(scene: &Scene<'_>, ask: &Ask<'_>, cure: &Cure, times: usize) -> Remedy {
    let (condition, owner, command, tried, holder) = match cure {
        Cure::Apply | Cure::Without(By::Kernel(_) | By::NoRule) => {
            return Remedy::tried(scene.apply);
        }
        Cure::SegmentLimit(mss, _) => {
            let apply = scene.apply;
            return Remedy::tried(format!(
                "set `mss: {mss}` in `firewall` of the spec, then: {apply}"
            ));
        }
        Cure::Switches(switches) => (IF_SETTING_IS_WRONG, None, sysctl(switches), "", ""),
        Cure::AcceptInChain {
            family,
            table,
            chain,
            rule,
        } => {
            let command = format!(
                "sudo nft insert rule {family} {} {} {rule}",
                shell_word(table),
                shell_word(chain)
            );
            let owner = programs::owner_of(table, chain);
            // A setting of the program accepts these packets alone, and outlives a boot.
            let condition = match owner.and_then(setting_of) {
                Some(_) => IF_CHAIN_IS_WRONG,
                None if rule == ACCEPT_REDIRECTED => IF_ALL_REDIRECTED,
                None if matches!(ask.of, Subject::Outbound(_)) => IF_ALL_OF_ENTRY,
                None => IF_ALL_TO_PORT,
            };
            (
                condition,
                owner,
                command,
                "connections pass with an accept before the rule (tried)",
                chain.as_str(),
            )
        }
        Cure::Without(By::Rule(decided)) => (
            IF_RULE_IS_WRONG,
            decided.owner,
            removal(scene.family, decided, times),
            "connections pass without the rule (tried)",
            chain_of(&decided.holder),
        ),
        Cure::Without(By::Policy(decided)) => (
            IF_POLICY_IS_WRONG,
            decided.owner,
            removal(scene.family, decided, times),
            "connections pass without the policy (tried)",
            chain_of(&decided.holder),
        ),
    };
    match owner.map(|owner| (owner, setting_of(owner))) {
        None => Remedy::tried(Fix::only_if(condition, command)),
        Some((_, Some(setting))) => {
            let Setting { effect, .. } = setting;
            let command = filled_in(setting.command, ask, holder);
            Remedy::setting(Fix::only_if(
                condition,
                format!("{tried}; {effect}: {command}"),
            ))
        }
        Some((owner, None)) => Remedy::tried(Fix::only_if(
            condition,
            format!(
                "change {owner}'s settings, because {owner} adds its rules again; until then: {command}"
            ),
        )),
    }
}

fn sysctl(switches: &[SwitchValue]) -> String {
    let words = switches.iter().map(|SwitchValue { name, value }| {
        let parts: Vec<String> = name.split('/').map(part_of_key).collect();
        format!(" net.{}={value}", parts.join("."))
    });
    format!("sudo sysctl -w{}", words.collect::<String>())
}

/// Puts a connection's own values into the command of a program's setting. `chain` holds the program's rule.
fn filled_in(command: &str, ask: &Ask<'_>, chain: &str) -> String {
    let Some(target) = ask.question.listeners.first() else {
        return command.to_owned();
    };
    let iptables = plain(ask.of.family());
    let jail = chain.strip_prefix("f2b-").unwrap_or("JAIL");
    let interfaces = [("on IN ", ask.by), ("on OUT ", ask.of.egress())];
    let mut words = command
        .replace("sudo iptables ", &format!("sudo {iptables} "))
        .replace("JAIL", jail)
        .replace("TARGET", &target.ip().to_string())
        .replace("PORT", &target.port().to_string())
        .replace("ADDRESS", &ask.client.address.to_string());
    for (word, interface) in interfaces {
        words = words.replace(word, &format!("on {interface} "));
    }
    words
}

/// Returns the command that deletes a rule as often as it stands there, or that lets a policy accept.
fn removal(family: Family, decided: &DecidingRule, times: usize) -> String {
    match &decided.holder {
        Holder::Iptables {
            backend,
            table,
            chain,
            ..
        } => {
            let program = backend.program(family, "iptables");
            match decided.place {
                Some(_) => {
                    let delete = deletion(&program, *table, &decided.text);
                    vec![delete; times].join(" && ")
                }
                None => format!("sudo {}", acceptance_by_policy(&program, *table, chain)),
            }
        }
        // The handle in the twin is not the handle on the machine.
        Holder::Nft(chain) => match decided.handle {
            Some(_) => format!(
                "delete the rule by the handle that this shows: sudo nft -a list chain {} {} {}",
                chain.family,
                shell_word(&chain.table),
                shell_word(&chain.name)
            ),
            None => {
                let command = format!(
                    "chain {} {} {} {{ policy accept; }}",
                    chain.family, chain.table, chain.name
                );
                format!("sudo nft {}", shell_word(&command))
            }
        },
    }
}

/// Returns a command that only looks, for a cause without a cure.
#[must_use]
pub fn hint(family: Family, by: &By) -> Option<Fix> {
    match by {
        By::Kernel(KernelReason::NoNeighbour { address, interface }) => Some(Fix::to_look_at(
            format!("whether {address} is up and on the network of {interface}"),
            format!("sudo ip neigh show dev {interface}"),
        )),
        By::Kernel(
            KernelReason::NoRoute
            | KernelReason::Unreachable
            | KernelReason::Prohibited
            | KernelReason::Blackhole,
        ) => {
            let ip = route::ip(family);
            Some(Fix::to_look(format!(
                "sudo {ip} rule; sudo {ip} route show table all"
            )))
        }
        By::Rule(DecidingRule {
            holder: Holder::Nft(chain),
            ..
        }) => Some(Fix::to_look(format!(
            "sudo nft -a list chain {} {} {}",
            chain.family,
            shell_word(&chain.table),
            shell_word(&chain.name)
        ))),
        _ => None,
    }
}

//! The commands and settings that let a connection pass, by what was tried in the twin.

use super::scene::Scene;
use crate::health::foreign;
use crate::net::Family;
use crate::net::printable;
use crate::netfilter::backend::iptables as plain;
use crate::netfilter::programs;
use crate::netfilter::text::line::{acceptance_of_icmp_v6, deletion};
use crate::netfilter::token::shell_word;
use crate::twin::battery::Ask;
use crate::twin::cause::{By, Decided, Fate, Holder, KernelReason, Taken};
use crate::twin::verdict::Death;
use crate::twin::verdict::{Cure, SwitchValue};

/// A fix. Each that takes a protection away says so.
#[derive(Debug, PartialEq, Eq)]
pub enum Remedy {
    /// This very command was tried in the twin.
    Tried(String),
    /// The rule's own program has a setting for it. The twin shows that the connection passes without the
    /// rule; the program does not run there.
    Setting(String),
}

impl Remedy {
    /// Returns the command so many times, for a rule that stands there as often.
    #[must_use]
    pub fn repeated(self, times: usize) -> Self {
        let Remedy::Tried(fix) = self else {
            return self;
        };
        let (condition, command) = match fix.split_once(": ") {
            Some((condition, command)) => (format!("{condition}: "), command),
            None => (String::new(), fix.as_str()),
        };
        let commands = vec![command; times].join(" && ");
        Remedy::Tried(condition + &commands)
    }

    /// Returns it as a line of text, as doctor and apply print it.
    #[must_use]
    pub fn line(&self) -> String {
        match self {
            Remedy::Tried(fix) => fix_line(fix, true),
            Remedy::Setting(fix) => fix_line(fix, false),
        }
    }
}

/// Returns the fix for what took a packet, by the cure that was tried in the twin.
#[must_use]
pub fn of_taken(scene: &Scene<'_>, ask: &Ask<'_>, taken: &Taken, cure: &Cure) -> Remedy {
    let remedy = of(scene, ask, cure);
    // It may be meant to keep out whom `apply` would let in.
    let (
        By::Rule(decided),
        Fate::Dropped | Fate::Rejected | Fate::Diverted | Fate::Untranslated,
        Cure::Apply,
    ) = (&taken.by, taken.fate, cure)
    else {
        return remedy;
    };
    if is_own(decided) {
        return remedy;
    }
    let apply = scene.apply;
    match decided.owner.and_then(foreign::switch_of) {
        None => Remedy::Tried(format!("{IF_NOT_MEANT}: {apply}")),
        Some(setting) => Remedy::Setting(format!(
            "{IF_NOT_MEANT}: {}; or, before all such rules (tried: works): {apply}",
            filled_in(setting, ask, chain_of(&decided.holder))
        )),
    }
}

/// The name of the chain in which a rule stands.
fn chain_of(holder: &Holder) -> &str {
    match holder {
        Holder::Iptables { chain, .. } => chain.as_str(),
        Holder::Nft(chain) => &chain.name,
    }
}

/// Returns the fixes that let a dead connection through, all together; none where no such fixes are known.
#[must_use]
pub fn of_death(scene: &Scene<'_>, ask: &Ask<'_>, death: &Death) -> Vec<Remedy> {
    let pairs: Vec<(&Taken, &Cure)> = death.causes.iter().zip(&death.cures).collect();
    let same = pairs.chunk_by(|one, next| one.0.by.is_same(&next.0.by));
    same.filter(|_| death.is_cured)
        .map(|all| of_taken(scene, ask, all[0].0, all[0].1).repeated(all.len()))
        .collect()
}

const IF_NOT_MEANT: &str = "if the rule is not meant to keep them out";

/// Whether a rule stands in a chain of nvactl's.
fn is_own(decided: &Decided) -> bool {
    matches!(&decided.holder, Holder::Iptables { chain, .. } if chain.is_own())
}

/// Returns the fix for a rule that drops neighbour discovery, which nobody has tried.
#[must_use]
pub fn discovery(decided: &Decided) -> String {
    let accept = match &decided.holder {
        Holder::Iptables {
            backend,
            table,
            chain,
            family,
            ..
        } => {
            let program = backend.program(*family, "iptables");
            format!("sudo {}", acceptance_of_icmp_v6(&program, *table, chain))
        }
        Holder::Nft(chain) => format!(
            "sudo nft insert rule {} {} {} meta l4proto ipv6-icmp accept",
            chain.family,
            shell_word(&chain.table),
            shell_word(&chain.name)
        ),
    };
    format!("accept ICMPv6 before that rule (not tried): {accept}")
}

/// Returns the fix for a cure that let a connection pass in the twin.
#[must_use]
pub fn of(scene: &Scene<'_>, ask: &Ask<'_>, cure: &Cure) -> Remedy {
    let (owner, command, tried, holder) = match cure {
        Cure::Apply | Cure::Without(By::Kernel(_) | By::NoRule) => {
            return Remedy::Tried(scene.apply.to_owned());
        }
        Cure::Switches(switches) => (None, sysctl(switches), "", ""),
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
            (
                owner,
                command,
                "with an accept before the rule it works (tried)",
                chain.as_str(),
            )
        }
        Cure::Without(By::Rule(decided) | By::Policy(decided)) => (
            decided.owner,
            removal(scene.family, decided),
            "without the rule it works (tried)",
            chain_of(&decided.holder),
        ),
    };
    match owner.map(|owner| (owner, foreign::switch_of(owner))) {
        None => Remedy::Tried(format!("if it is not meant: {command}")),
        Some((_, Some(setting))) => Remedy::Setting(format!(
            "if it is not meant: {tried}; {}",
            filled_in(setting, ask, holder)
        )),
        Some((owner, None)) => Remedy::Tried(format!(
            "if it is not meant: change {owner}'s own settings, since {owner} will put the rule back; until \
             then: {command}"
        )),
    }
}

fn sysctl(switches: &[SwitchValue]) -> String {
    let words = switches.iter().map(|SwitchValue { name, value }| {
        // sysctl(8) takes a dot in a name as a slash.
        let parts: Vec<String> = name.split('/').map(|part| part.replace('.', "/")).collect();
        format!(" net.{}={value}", parts.join("."))
    });
    format!("sudo sysctl -w{}", words.collect::<String>())
}

/// Puts a forward's own values into the sentence about a program's setting. `chain` is where its rule stands.
fn filled_in(switch: &str, ask: &Ask<'_>, chain: &str) -> String {
    let Some(target) = ask.question.listeners.first() else {
        return switch.to_owned();
    };
    let iptables = plain(ask.forward.family());
    let jail = chain.strip_prefix("f2b-").unwrap_or("JAIL");
    let interfaces = [("on IN ", ask.by), ("on OUT ", &ask.forward.egress)];
    let mut words = switch
        .replace("`iptables ", &format!("`{iptables} "))
        .replace("JAIL", jail)
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

/// Returns a question or a command that only looks, for a cause without a cure.
#[must_use]
pub fn hint(by: &By) -> Option<String> {
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

/// Prints a fix, its condition in front: a command that follows stands alone.
#[must_use]
pub fn fix_line(fix: &str, tried: bool) -> String {
    let tried = if tried { " (tried: works)" } else { "" };
    let condition = fix
        .split_once(": ")
        .filter(|(condition, _)| condition.starts_with("if ") && !condition.contains(['`', ';']));
    match condition {
        Some((condition, fix)) => {
            format!("fix, {condition}{tried}: {}", printable::line(fix))
        }
        None => format!("fix{tried}: {}", printable::line(fix)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fix_with_a_condition_says_it_before_the_command() {
        for (fix, tried, line) in [
            (
                "sudo nvactl apply",
                true,
                "fix (tried: works): sudo nvactl apply",
            ),
            ("to look: ip rule", false, "fix: to look: ip rule"),
            (
                "if it is not meant: sudo nvactl apply",
                true,
                "fix, if it is not meant (tried: works): sudo nvactl apply",
            ),
        ] {
            assert_eq!(fix_line(fix, tried), line);
        }
    }
}

//! Rules of others in a ruleset, as far as they concern nvactl's forwards.

use crate::net::Protocol;
use crate::netfilter::conntrack::Flow;
use crate::netfilter::matches::Match;
use crate::netfilter::names::{ChainName, Policy, TableName};
use crate::netfilter::negatable::Negatable::{Is, Not};
use crate::netfilter::protocol::IpProtocol;
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::{DEEPEST, Ruleset};
use crate::netfilter::target::Target;
use crate::netfilter::text::line::Line;
use crate::netfilter::tracking::{Conntrack, CtState};
use crate::plan::jumps_from;

/// Returns the first rule that leads to one of nvactl's chains from a chain where nvactl has no jump, or that a
/// script cannot delete. While that rule is loaded, the kernel refuses to delete nvactl's chain.
#[must_use]
pub fn reference(have: &Ruleset) -> Option<(TableName, &ChainName, &Rule)> {
    have.chains()
        .filter(|(_, name, _)| !name.is_own())
        .flat_map(|(table, name, chain)| chain.rules.iter().map(move |rule| (table, name, rule)))
        .filter(|(table, name, rule)| !jumps_from(*table, name) || !rule.is_loadable())
        .find(|(_, _, rule)| rule.leads_to().is_some_and(ChainName::is_own))
}

/// Returns the first line of a ruleset that is not nvactl's and is lost if `new` replaces the ruleset: a rule, a
/// chain, or a policy that drops.
#[must_use]
pub fn first_lost(ruleset: &Ruleset, new: &Ruleset) -> Option<String> {
    ruleset
        .chains()
        .filter(|(_, name, _)| !name.is_own())
        .find_map(|(table, name, chain)| {
            let declared = Line::Chain(name, chain.policy).to_string();
            let replaced = new.chain(table, name).and_then(|chain| chain.policy);
            if !name.is_builtin()
                || (chain.policy == Some(Policy::Drop) && replaced != Some(Policy::Drop))
            {
                return Some(declared);
            }
            let jump = |rule: &Rule| rule.leads_to().is_some_and(ChainName::is_own);
            let foreign = |rule: &&Rule| !(jumps_from(table, name) && jump(rule));
            let rule = chain.rules.iter().find(foreign)?;
            Some(Line::Append(name, rule).to_string())
        })
}

/// Returns whether a rule of others in FORWARD may accept the first packet of a connection that is not translated. A
/// rule that jumps may.
#[must_use]
pub fn may_accept(ruleset: &Ruleset, flow: &Flow) -> bool {
    let chain = ruleset.chain(TableName::Filter, &ChainName::Forward);
    let mut rules = chain.into_iter().flat_map(|chain| &chain.rules);
    rules.any(|rule| {
        let lets_pass = match &rule.target {
            Some(Target::Jump(chain) | Target::Goto(chain)) => !chain.is_own(),
            Some(Target::Accept | Target::Unread(_)) => true,
            Some(target @ Target::Other(_)) => !matches!(target.name(), "DROP" | "REJECT"),
            _ => false,
        };
        lets_pass && rule.matches.iter().all(|one| may_match(one, flow))
    })
}

/// Returns whether a rule of others in nat may give a connection its new source. Whether packets reach the rule is not
/// asked.
#[must_use]
pub fn may_rewrite(ruleset: &Ruleset, flow: &Flow) -> bool {
    may_translate(ruleset, flow, |target| match target {
        Target::Snat { addresses, .. } => {
            (addresses.first()..=addresses.last()).contains(&flow.reply_destination)
        }
        Target::Masquerade | Target::Unread(_) => true,
        other => matches!(other.name(), "SNAT" | "MASQUERADE" | "NETMAP"),
    })
}

/// Returns whether a rule of others in nat may redirect a connection to where it goes. Whether packets reach the rule is
/// not asked.
#[must_use]
pub fn may_redirect(ruleset: &Ruleset, flow: &Flow) -> bool {
    may_translate(ruleset, flow, |target| match target {
        Target::Dnat { address, .. } => *address == flow.reply_source,
        Target::Unread(_) => true,
        other => matches!(other.name(), "DNAT" | "REDIRECT" | "NETMAP"),
    })
}

fn may_translate(ruleset: &Ruleset, flow: &Flow, so: impl Fn(&Target) -> bool) -> bool {
    let nat = ruleset
        .chains()
        .filter(|(table, name, _)| *table == TableName::Nat && !name.is_own());
    let mut rules = nat.flat_map(|(_, _, chain)| &chain.rules);
    rules.any(|rule| {
        rule.target.as_ref().is_some_and(&so) && rule.matches.iter().all(|one| may_match(one, flow))
    })
}

/// Returns whether a condition may hold for the first packet of a connection. Most conditions are not read.
fn may_match(one: &Match, flow: &Flow) -> bool {
    let port = flow.destination_port;
    match one {
        Match::Tcp {
            destination: Some(ports),
            ..
        } => flow.protocol == Protocol::Tcp && ports.holds(|ports| ports.contains(port)),
        Match::Udp {
            destination: Some(ports),
            ..
        } => flow.protocol == Protocol::Udp && ports.holds(|ports| ports.contains(port)),
        Match::Source(Is(net)) => net.contains(&flow.source),
        Match::Source(Not(net)) => !net.contains(&flow.source),
        Match::Destination(Is(net)) => net.contains(&flow.destination),
        Match::Destination(Not(net)) => !net.contains(&flow.destination),
        Match::Protocol(Is(protocol)) => *protocol == IpProtocol::from(flow.protocol),
        Match::Conntrack(Conntrack {
            states: Some(Is(states)),
            ..
        })
        | Match::State(Is(states)) => states.contains(CtState::New),
        _ => true,
    }
}

/// Whether a packet that no conditional rule matches is forwarded: the first rule without a condition that decides
/// is an ACCEPT, or no such rule decides and the policy accepts.
#[must_use]
pub fn forwards_everything(ruleset: &Ruleset) -> bool {
    let decided = decides(ruleset, &ChainName::Forward, DEEPEST);
    decided.unwrap_or(ruleset.forward_policy() == Policy::Accept)
}

/// Returns the decision of a filter chain's rules without conditions: accepted, not accepted, or none.
fn decides(ruleset: &Ruleset, name: &ChainName, depth: usize) -> Option<bool> {
    let chain = ruleset.chain(TableName::Filter, name)?;
    for rule in chain.rules.iter().filter(|rule| rule.is_unconditional()) {
        let Some(target) = &rule.target else {
            continue;
        };
        match target {
            Target::Accept => return Some(true),
            Target::Return => return None,
            Target::Jump(next) if depth > 0 => {
                if let Some(decided) = decides(ruleset, next, depth - 1) {
                    return Some(decided);
                }
            }
            Target::Goto(next) if depth > 0 => return decides(ruleset, next, depth - 1),
            target if matches!(target.name(), "DROP" | "REJECT") => return Some(false),
            _ => {}
        }
    }
    None
}

/// A setting of another program that lets a connection pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The effect of the command, in words.
    pub effect: &'static str,
    /// Words in capitals stand for a forward's own values.
    pub command: &'static str,
}

/// Returns the setting by which a program lets a connection pass; none if there is no such setting.
#[must_use]
pub fn setting_of(program: &str) -> Option<Setting> {
    let (effect, command) = match program {
        "Docker" => (
            "let Docker's chain for users accept the target",
            "sudo iptables -I DOCKER-USER -d TARGET -j ACCEPT",
        ),
        "ufw" => (
            "let ufw route to the target",
            "sudo ufw route allow in on IN out on OUT to TARGET port PORT",
        ),
        "firewalld" => (
            "let a firewalld policy between the two zones accept the packets",
            "sudo firewall-cmd --permanent --new-policy NAME && \
             sudo firewall-cmd --permanent --policy NAME --add-ingress-zone ZONE && \
             sudo firewall-cmd --permanent --policy NAME --add-egress-zone ZONE && \
             sudo firewall-cmd --permanent --policy NAME --set-target ACCEPT && \
             sudo firewall-cmd --reload",
        ),
        "fail2ban" => (
            "lift fail2ban's ban",
            "sudo fail2ban-client set JAIL unbanip ADDRESS",
        ),
        "kube-proxy" => (
            "find the Service without a ready endpoint, which kube-proxy refuses",
            "kubectl get endpointslices -A",
        ),
        "Calico" | "Azure NPM" => (
            "find the NetworkPolicy that decides",
            "kubectl get networkpolicy -A",
        ),
        "Tailscale" => (
            "stop Tailscale from making its own rules",
            "sudo tailscale set --netfilter-mode=nodivert",
        ),
        "libvirt" => (
            "write `<forward mode='open'/>` into the libvirt network",
            "sudo virsh net-edit NETWORK",
        ),
        "Podman" => (
            "let Podman publish the container's port",
            "podman run --publish",
        ),
        "CrowdSec" => (
            "lift CrowdSec's ban",
            "sudo cscli decisions delete --ip ADDRESS",
        ),
        _ => return None,
    };
    Some(Setting { effect, command })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netfilter::text::parse::parse;

    fn ruleset(table: &str, lines: &[&str]) -> Ruleset {
        let lines = lines.join("\n");
        parse(&format!("*{table}\n{lines}\nCOMMIT\n")).expect("it is readable")
    }

    /// No script can spell it for iptables-restore.
    #[test]
    fn a_jump_whose_comment_has_a_line_break_is_a_reference() {
        let jump =
            |comment: &str| format!("-A FORWARD -m comment --comment {comment} -j NVACTL-FORWARD");
        for (lines, found) in [
            (vec![jump("mine")], None),
            (vec![jump("\"a\nb\"")], Some(jump("\"a\nb\""))),
        ] {
            let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            lines.insert(0, ":NVACTL-FORWARD - [0:0]");
            let ruleset = ruleset("filter", &lines);
            let line =
                reference(&ruleset).map(|(_, chain, rule)| Line::Append(chain, rule).to_string());
            assert_eq!(line, found);
        }
    }

    #[test]
    fn the_first_rule_without_a_condition_says_whether_everything_is_forwarded() {
        for (lines, open) in [
            (&[][..], true),
            (&[":FORWARD ACCEPT [0:0]"], true),
            (&[":FORWARD DROP [0:0]"], false),
            (
                &[
                    ":FORWARD ACCEPT [0:0]",
                    "-A FORWARD -j REJECT --reject-with icmp-port-unreachable",
                ],
                false,
            ),
            (
                &[
                    ":FORWARD ACCEPT [0:0]",
                    "-A FORWARD -m comment --comment closed -j DROP",
                ],
                false,
            ),
            (
                &[":FORWARD ACCEPT [0:0]", "-A FORWARD -i eth1 -j DROP"],
                true,
            ),
            (&[":FORWARD DROP [0:0]", "-A FORWARD -j ACCEPT"], true),
            (
                &[
                    ":FORWARD DROP [0:0]",
                    "-A FORWARD -j ACCEPT",
                    "-A FORWARD -j DROP",
                ],
                true,
            ),
            (
                &[
                    ":FORWARD DROP [0:0]",
                    ":MY - [0:0]",
                    "-A FORWARD -j MY",
                    "-A MY -j ACCEPT",
                ],
                true,
            ),
            (
                &[
                    ":FORWARD ACCEPT [0:0]",
                    ":MY - [0:0]",
                    "-A FORWARD -j MY",
                    "-A MY -j RETURN",
                    "-A MY -j DROP",
                ],
                true,
            ),
            (&[":FORWARD DROP [0:0]", "-A FORWARD -j LOG"], false),
        ] {
            assert_eq!(
                forwards_everything(&ruleset("filter", lines)),
                open,
                "{lines:?}"
            );
        }
    }
}

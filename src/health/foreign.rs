//! What other hands have put into a ruleset, as far as it concerns nvactl's forwards.

use crate::netfilter::names::{ChainName, Policy, TableName};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::{DEEPEST, Ruleset};
use crate::netfilter::target::Target;
use crate::netfilter::text::line::Line;
use crate::plan::jumps_from;

/// The first rule that leads to one of nvactl's chains from where nvactl does not jump, or that a script
/// cannot delete: while it stands, the kernel refuses to delete that chain.
#[must_use]
pub fn reference(have: &Ruleset) -> Option<(TableName, &ChainName, &Rule)> {
    have.chains()
        .filter(|(_, name, _)| !name.is_own())
        .flat_map(|(table, name, chain)| chain.rules.iter().map(move |rule| (table, name, rule)))
        .filter(|(table, name, rule)| !jumps_from(*table, name) || !rule.is_loadable())
        .find(|(_, _, rule)| rule.leads_to().is_some_and(ChainName::is_own))
}

/// The first line of a ruleset that is not nvactl's and would be lost if `new` took its place: a
/// rule, a chain, or a policy that drops.
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

/// Whether a packet that no rule asks for in particular is forwarded: the first rule without a
/// condition that decides does so by ACCEPT, or none does and the policy accepts.
#[must_use]
pub fn forwards_everything(ruleset: &Ruleset) -> bool {
    let decided = decides(ruleset, &ChainName::Forward, DEEPEST);
    decided.unwrap_or(ruleset.forward_policy() == Policy::Accept)
}

/// What a chain's rules without conditions decide in the filter table: accepted or not, or nothing.
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

/// Returns the setting of a program by which it lets a connection pass, as a sentence.
#[must_use]
pub fn switch_of(program: &str) -> Option<&'static str> {
    Some(match program {
        "Docker" => {
            "Docker lets a connection pass by a rule in its chain for others, \
             `iptables -I DOCKER-USER -d TARGET -j ACCEPT`; its daemon keeps the policy of FORWARD \
             with `--ip-forward-no-drop`"
        }
        "ufw" => "ufw lets it pass by `ufw route allow in on IN out on OUT to TARGET port PORT`",
        "firewalld" => {
            "firewalld lets it pass by a policy between the two zones: \
             `firewall-cmd --permanent --new-policy NAME`, then `--policy NAME` with \
             `--add-ingress-zone`, `--add-egress-zone` and `--set-target ACCEPT`"
        }
        "fail2ban" => "fail2ban lifts a ban by `fail2ban-client set JAIL unbanip ADDRESS`",
        "kube-proxy" => {
            "kube-proxy refuses what has no endpoint that is ready: `kubectl get endpointslices -A`"
        }
        "Calico" | "Azure NPM" => "a NetworkPolicy decides: `kubectl get networkpolicy -A`",
        "Tailscale" => {
            "Tailscale makes no rules by itself after `tailscale set --netfilter-mode=nodivert`"
        }
        "libvirt" => {
            "libvirt makes no such rules for a network with `<forward mode='open'/>`: `virsh net-edit NETWORK`"
        }
        "Podman" => "Podman lets in what a container publishes: `podman run --publish`",
        "CrowdSec" => "CrowdSec lifts a ban by `cscli decisions delete --ip ADDRESS`",
        _ => return None,
    })
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

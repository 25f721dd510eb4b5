//! The effect of a rule on a packet that meets it.

use crate::netfilter::rule::Rule;
use crate::netfilter::target::Target;

/// The effect of a rule on a packet that meets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleVerdict {
    Accept,
    Refuse,
    /// Its walk through the chain ends.
    Return,
    /// It decides in a way that is not read here: it rewrites the packet, or gives it to a program.
    Other,
    /// The packet meets the next rule.
    GoOn,
}

/// Targets without a type that let a packet meet the next rule (iptables-extensions(8)).
const GOING_ON: [&str; 17] = [
    "AUDIT",
    "CHECKSUM",
    "CLASSIFY",
    "CONNMARK",
    "CT",
    "DSCP",
    "ECN",
    "IDLETIMER",
    "LED",
    "LOG",
    "MARK",
    "NFLOG",
    "RATEEST",
    "SET",
    "TOS",
    "TRACE",
    "TTL",
];

/// Returns what a rule does with a packet that meets it.
pub fn verdict(rule: &Rule) -> RuleVerdict {
    match &rule.target {
        Some(Target::Accept) => RuleVerdict::Accept,
        Some(Target::Drop | Target::Reject(_)) => RuleVerdict::Refuse,
        Some(Target::Return | Target::Goto(_)) => RuleVerdict::Return,
        Some(Target::Other(_) | Target::Unread(_)) => {
            let name = rule.target.as_ref().map_or("", Target::name);
            match name {
                "REJECT" => RuleVerdict::Refuse,
                name if GOING_ON.contains(&name) => RuleVerdict::GoOn,
                _ => RuleVerdict::Other,
            }
        }
        Some(Target::Dnat { .. } | Target::Snat { .. } | Target::Masquerade) => RuleVerdict::Other,
        Some(
            Target::Jump(_)
            | Target::Log { .. }
            | Target::SetMark(_)
            | Target::SetConnmark(_)
            | Target::SetShiftedConnmark { .. }
            | Target::SaveMark(_)
            | Target::RestoreMark(_)
            | Target::TcpMss(_),
        )
        | None => RuleVerdict::GoOn,
    }
}

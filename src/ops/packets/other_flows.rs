//! Describes the connections outside the forwards and outbound entries that the change refuses or lets through.

use crate::health::doctor::rule_words;
use crate::net::Family;
use crate::net::words::counted;
use crate::netfilter::conntrack::Flow;
use crate::netfilter::names::{ChainName, TableName};
use crate::ops::flows::described;
use crate::ops::remark::Remarks;
use crate::ops::warn::policy_name;
use crate::twin::cause::{By, DecidingRule, Holder, Taken};
use crate::twin::change::Tried;

/// Names the connections outside the forwards and outbound entries that the change refuses or lets through.
pub fn other_flows(tried: &Tried<'_>, remarks: &mut Remarks) {
    let others = &tried.others;
    let are = |count: usize| if count == 1 { "is" } else { "are" };
    if !others.cut.is_empty() {
        let cut: Vec<&Flow> = others.cut.iter().map(|(flow, _)| *flow).collect();
        let by_policy = others.cut.iter().any(|(_, taken)| {
            let by = taken.as_ref().map(|taken| &taken.by);
            matches!(by, Some(By::Policy(decided)) if is_forward(decided))
        });
        let hint = if by_policy {
            "\nhint: to let them pass, name their networks in an entry of `outbound`, or add a rule that accepts them\
             \nhint: to leave all other packets to the policy as it is, write in the spec, in `firewall`: forward_policy: keep"
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
            "{} outside the forwards and outbound entries that could not be opened until now can be opened after this change: {}",
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
            "{} outside the forwards and outbound entries {} not tried",
            counted(others.left_out, "more connection"),
            if others.left_out == 1 { "was" } else { "were" }
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

/// Returns whether the chain is iptables' FORWARD, whose policy the spec sets.
fn is_forward(decided: &DecidingRule) -> bool {
    matches!(
        &decided.holder,
        Holder::Iptables {
            table: TableName::Filter,
            chain: ChainName::Forward,
            ..
        }
    )
}

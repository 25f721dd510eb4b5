//! Reasons for rules that limit connections and for rules that log them.

use nvactl::netfilter::matches::Match;
use nvactl::netfilter::names::ChainName;
use nvactl::netfilter::rule::Rule;
use nvactl::netfilter::target::Target;

use super::{Case, becomes, net};
use crate::mutate::Change::{Gone, Negated};
use crate::mutate::Field;

/// Returns the reason for a rule that refuses what is beyond a limit, and for the chain that it leads to.
pub fn of_limit(case: &Case<'_>) -> Option<&'static str> {
    let (rule, field, change) = (case.rule(), case.mutation.field, case.mutation.change);
    if is_only_for(case, &case.place.chain, is_limit) {
        return Some("tests stay within limits");
    }
    if !is_limit(rule) {
        return None;
    }
    if field != Field::Limit {
        return Some("tests stay within limits");
    }
    let refuses_all = |one: &Match| matches!(one, Match::ConnLimit(limit) if limit.most == 0);
    let mut changed = case.changed().into_iter().flat_map(|rule| &rule.matches);
    let is_seen = matches!(change, Gone | Negated) || changed.any(refuses_all);
    (!is_seen).then_some("a test opens too few connections for it")
}

fn is_limit(rule: &Rule) -> bool {
    let is_limit = |one: &Match| matches!(one, Match::HashLimit(_) | Match::ConnLimit(_));
    rule.matches.iter().any(is_limit)
}

/// Returns whether rules lead to a chain, and all of them are of one kind.
fn is_only_for(case: &Case<'_>, chain: &ChainName, is_kind: fn(&Rule) -> bool) -> bool {
    let chains = case.plan().tables[&case.place.table].values();
    let leading = chains.flat_map(|chain| &chain.rules);
    let mut leading = leading
        .filter(|rule| rule.leads_to() == Some(chain))
        .peekable();
    leading.peek().is_some() && leading.all(is_kind)
}

/// Returns the reason for a rule that logs packets. No packet sees its line, but another target would end its path.
pub fn of_log(case: &Case<'_>) -> Option<&'static str> {
    let rule = case.rule();
    if matches!(rule.target, Some(Target::Log { .. })) {
        let changed = case.changed().and_then(|rule| rule.target.as_ref());
        if matches!(changed, None | Some(Target::Log { .. })) {
            return Some("no packet sees a line of the log");
        }
        let next = case.later().first().and_then(|rule| rule.target.as_ref());
        let is_next = next.is_some_and(|next| becomes(case, next));
        if is_next {
            return Some("the rule that follows does the same");
        }
    }
    let is_of_log = case.place.chain.as_str().starts_with("NVACTL-LOG-");
    let is_of_nets = || is_only_for(case, &case.place.chain, |rule| net(rule).is_some());
    (is_of_log && becomes(case, &Target::Return) && is_of_nets())
        .then_some("the policy drops them as well")
}

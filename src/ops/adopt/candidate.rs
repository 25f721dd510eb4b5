//! A foreign rule that a change may take out, and what decides about it.

use crate::import::{Account, ImportedPlace, Part, RuleFate};
use crate::net::Family;
use crate::netfilter::matches::Match;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::programs::owner_of;
use crate::netfilter::rule::Rule;
use crate::netfilter::target::Target;
use crate::netfilter::text::line::Line;

/// A rule on the way to its choice.
pub struct Candidate<'r> {
    pub account: &'r Account,
    pub rule: &'r Rule,
}

impl Candidate<'_> {
    /// Returns whether two rules are in the same chain.
    pub fn is_beside(&self, other: &Self) -> bool {
        let [one, other] = [self, other].map(|one| &one.account.place);
        (one.family, one.table, &one.chain) == (other.family, other.table, &other.chain)
    }

    pub fn is_in(&self, family: Family, table: TableName) -> bool {
        let place = &self.account.place;
        (place.family, place.table) == (family, table)
    }

    pub fn is_own_jump(&self) -> bool {
        self.rule.leads_to().is_some_and(ChainName::is_own)
    }

    /// Returns the rule with its table and chain, as iptables-save prints it.
    pub fn text(&self) -> String {
        let place = &self.account.place;
        let line = Line::Append(&place.chain, self.rule);
        format!("{}: {line}", place.table)
    }

    /// Returns whether the rule jumps to rules that are all taken over.
    pub fn is_jump(&self) -> bool {
        matches!(
            self.account.fate,
            RuleFate::Taken {
                part: Part::Jump,
                ..
            }
        )
    }

    /// Returns whether a rule of FORWARD accepts replies alone, which nvactl's own rules do as well.
    pub fn is_for_replies(&self) -> bool {
        let place = &self.account.place;
        place.table == TableName::Filter
            && place.chain == ChainName::Forward
            && self.rule.target == Some(Target::Accept)
            && matches!(self.account.fate, RuleFate::NotNeeded(_))
            && self.can_go()
    }

    /// Returns whether the rule may be taken out at all: it is in a chain that people write, and neither it nor its
    /// target works together with anything outside the rules.
    pub fn can_go(&self) -> bool {
        let ImportedPlace { table, chain, .. } = &self.account.place;
        let is_of_people = match (table, chain) {
            (TableName::Filter, ChainName::Forward)
            | (TableName::Nat, ChainName::Prerouting | ChainName::Postrouting) => true,
            (TableName::Filter | TableName::Nat, chain) => {
                !chain.is_builtin()
                    && !chain.is_own()
                    && owner_of(table.as_str(), chain.as_str()).is_none()
            }
            _ => false,
        };
        let is_plain = |condition: &Match| match condition {
            Match::Set(_) | Match::Mark(_) | Match::Connmark(_) => false,
            Match::Other(_) => condition.name() == "statistic",
            _ => true,
        };
        let has_plain_target = match &self.rule.target {
            Some(target @ Target::Other(_)) => target.name() == "DNAT",
            Some(
                Target::Unread(_)
                | Target::SetMark(_)
                | Target::SetConnmark(_)
                | Target::SetShiftedConnmark { .. }
                | Target::SaveMark(_)
                | Target::RestoreMark(_)
                | Target::TcpMss(_),
            )
            | None => false,
            Some(_) => true,
        };
        is_of_people
            && has_plain_target
            && self.rule.is_loadable()
            && self.rule.matches.iter().all(is_plain)
    }
}

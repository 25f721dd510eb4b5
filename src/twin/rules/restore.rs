//! Loads the text of iptables-save: as it is, or else table by table and line by line.

use std::borrow::Cow;

use super::edit::{self, COMMENT, FilterFacts, RuleEdit, SHADOW};
use super::filter::Copied;
use super::own::is_nvactls;
use super::place::{At, LeftOut, Reason, RulePlace, Unknown, Watched};
use super::programs::{FilterError, restore};
use super::refused::{LoadRefusal, load_in_order};
use super::saved::{self, SavedTable};
use crate::net::Family;
use crate::netfilter::backend::Backend;

/// The lines of a table that are loaded, and the result for each.
#[derive(Debug)]
pub struct TablePlan<'t> {
    pub backend: Backend,
    pub family: Family,
    pub table: &'t str,
    pub lines: Vec<PlannedLine<'t>>,
}

/// A line of a table.
#[derive(Debug)]
pub struct PlannedLine<'t> {
    pub chain: &'t str,
    /// The text that is loaded.
    pub text: Cow<'t, str>,
    pub role: Role,
    pub is_loaded: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Declaration,
    /// A rule in a chain of nvactl, or a jump to one.
    Nvactls,
    Copy,
    /// In the place of a rule of the machine. If it counts, it has the index of the watched rule.
    Instead(Option<usize>),
    /// Before a rule of the machine. It counts for the watched rule with this index.
    Shadow(usize),
}

impl<'t> TablePlan<'t> {
    /// Decides which lines are loaded for a table.
    pub fn new(
        backend: Backend,
        family: Family,
        saved: &SavedTable<'t>,
        facts: &FilterFacts,
        copied: &mut Copied,
    ) -> Self {
        let mut plan = Self {
            backend,
            family,
            table: saved.name,
            lines: Vec::with_capacity(saved.chains.len() + saved.rules.len()),
        };
        for line in &saved.chains {
            plan.push(saved::chain(line), Cow::Borrowed(line), Role::Declaration);
        }
        for line in &saved.rules {
            plan.plan_rule(line, facts, copied);
        }
        plan
    }

    fn plan_rule(&mut self, line: &'t str, facts: &FilterFacts, copied: &mut Copied) {
        let chain = saved::chain(line);
        // iptables-save 1.8.9 prints the names of ipsets without quotes.
        let copy = facts.spaced_sets.quoted(line);
        if is_nvactls(chain) || edit::leads_to(line).is_some_and(|next| is_nvactls(&next)) {
            return self.push(chain, copy, Role::Nvactls);
        }
        match edit::edit(&copy, facts) {
            RuleEdit::Keep => self.push(chain, copy, Role::Copy),
            RuleEdit::Instead(text, why) => {
                if let Some(why) = why {
                    copied.left_out.push(self.left_out(chain, line, why));
                }
                self.push(chain, Cow::Owned(text), Role::Instead(None));
            }
            RuleEdit::Placeholder(conditions, why) => {
                let index = self.watch(chain, line, why, copied);
                let text = edit::commented(&conditions, COMMENT, index);
                self.push(chain, Cow::Owned(text), Role::Instead(Some(index)));
            }
            RuleEdit::Shadow(conditions, why) => {
                let index = self.watch(chain, line, why, copied);
                let text = edit::commented(&conditions, SHADOW, index);
                self.push(chain, Cow::Owned(text), Role::Shadow(index));
                self.push(chain, copy, Role::Copy);
            }
        }
    }

    fn push(&mut self, chain: &'t str, text: Cow<'t, str>, role: Role) {
        self.lines.push(PlannedLine {
            chain,
            text,
            role,
            is_loaded: true,
        });
    }

    fn place(&self, chain: &str) -> RulePlace {
        RulePlace::Iptables {
            backend: self.backend,
            family: self.family,
            table: self.table.to_owned(),
            chain: chain.to_owned(),
        }
    }

    fn left_out(&self, chain: &str, text: &str, why: Reason) -> LeftOut {
        LeftOut {
            place: self.place(chain),
            text: text.to_owned(),
            why,
        }
    }

    fn watch(&self, chain: &str, text: &str, why: Unknown, copied: &mut Copied) -> usize {
        copied.watched.push(Watched {
            place: self.place(chain),
            text: text.to_owned(),
            why,
            at: At::Comment,
            packets: 0,
        });
        copied.watched.len() - 1
    }

    /// Prints lines as a table for iptables-restore.
    fn text<'l>(&self, lines: impl IntoIterator<Item = &'l str>) -> String {
        let mut text = format!("*{}\n", self.table);
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str("COMMIT\n");
        text
    }

    /// Prints the table as blocks of some lines. All chains are declared before the first rule.
    fn in_blocks(&self, length: usize) -> String {
        let is_declaration = |line: &&PlannedLine<'_>| line.role == Role::Declaration;
        let (heads, rules): (Vec<_>, Vec<_>) = self.lines.iter().partition(is_declaration);
        let blocks = heads.chunks(length).chain(rules.chunks(length));
        blocks
            .map(|block| self.text(block.iter().map(|line| &*line.text)))
            .collect()
    }

    /// Loads the table line by line. If a rule is refused and its conditions alone load, a rule with these counts the
    /// packets that it would have seen.
    fn load_lines(&mut self, copied: &mut Copied) -> Result<(), FilterError> {
        let (backend, family) = (self.backend, self.family);
        if let Err(refusal) = restore(backend, family, &[], &self.text([]))? {
            let why = Reason::Refused(refusal.words);
            copied.left_out.push(self.left_out("", "", why));
            for line in &mut self.lines {
                line.is_loaded = false;
            }
            return Ok(());
        }
        let mut instead = Vec::new();
        let refused = load_in_order(self.lines.len(), |range| {
            let lines = self.lines[range.clone()].iter().map(|line| &*line.text);
            let loaded = restore(backend, family, &["--noflush"], &self.text(lines))?;
            let Err(refusal) = loaded else {
                return Ok(Ok(()));
            };
            let line = &self.lines[range.start];
            if range.len() == 1 && line.role == Role::Copy {
                let index = copied.watched.len();
                if let Some(conditions) = edit::conditions(&line.text) {
                    let text = edit::commented(&conditions, COMMENT, index);
                    if restore(backend, family, &["--noflush"], &self.text([&*text]))?.is_ok() {
                        let why = Unknown::Refused(refusal.words.clone());
                        self.watch(line.chain, &line.text, why, copied);
                        instead.push((range.start, index));
                    }
                }
            }
            // The first line of the text is the table's name.
            let at = refusal.at.and_then(|at| (at + range.start).checked_sub(1));
            Ok::<_, FilterError>(Err(LoadRefusal { at, ..refusal }))
        })?;
        for (at, words) in refused {
            let line = &self.lines[at];
            if !matches!(line.role, Role::Shadow(_)) {
                let why = Reason::Refused(words);
                copied
                    .left_out
                    .push(self.left_out(line.chain, &line.text, why));
            }
            self.lines[at].is_loaded = false;
        }
        for (at, index) in instead {
            self.lines[at].role = Role::Instead(Some(index));
            self.lines[at].is_loaded = true;
        }
        Ok(())
    }
}

/// Loads all tables of a backend and family.
pub fn load(plans: &mut [TablePlan<'_>], copied: &mut Copied) -> Result<(), FilterError> {
    let Some(first) = plans.first() else {
        return Ok(());
    };
    let (backend, family) = (first.backend, first.family);
    let text: String = plans
        .iter()
        .map(|plan| plan.text(plan.lines.iter().map(|line| &*line.text)))
        .collect();
    let Err(refusal) = restore(backend, family, &[], &text)? else {
        return Ok(());
    };
    if refusal.is_too_long() && is_loaded_in_blocks(plans)? {
        return Ok(());
    }
    for plan in plans {
        plan.load_lines(copied)?;
    }
    Ok(())
}

/// The lines of one transaction in a user namespace. More of them load faster (10,000 forwards in 7 s with 100, in 9 s
/// with 40, timed by hand), and fewer hold longer rules.
const BLOCKS: [usize; 2] = [100, 40];

/// Loads all tables with a COMMIT after every few rules, which a twin can have: nobody looks at it meanwhile. In a user
/// namespace one transaction of iptables-nft holds less than 200 rules, since only the first namespace may enlarge the
/// buffer of its socket (`mnl_set_sndbuffer` in iptables/nft.c). Returns whether every rule is loaded.
fn is_loaded_in_blocks(plans: &[TablePlan<'_>]) -> Result<bool, FilterError> {
    let Some(first) = plans.first() else {
        return Ok(true);
    };
    let (backend, family) = (first.backend, first.family);
    let empty: String = plans.iter().map(|plan| plan.text([])).collect();
    for length in BLOCKS {
        let blocks: String = plans.iter().map(|plan| plan.in_blocks(length)).collect();
        // Blocks of an attempt that failed are removed.
        let is_empty = restore(backend, family, &[], &empty)?.is_ok();
        if is_empty && restore(backend, family, &["--noflush"], &blocks)?.is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_declare_all_chains_before_the_first_rule() {
        let text = "*filter\n:a - [0:0]\n:b - [0:0]\n:c - [0:0]\n-A a -j c\n-A b -j c\n-A c -j DROP\nCOMMIT\n";
        let tables = saved::tables(text);
        let mut copied = Copied::default();
        let facts = FilterFacts::default();
        let plan = TablePlan::new(Backend::Nft, Family::V4, &tables[0], &facts, &mut copied);
        assert_eq!(
            plan.in_blocks(2),
            "*filter\n:a - [0:0]\n:b - [0:0]\nCOMMIT\n*filter\n:c - [0:0]\nCOMMIT\n\
             *filter\n-A a -j c\n-A b -j c\nCOMMIT\n*filter\n-A c -j DROP\nCOMMIT\n"
        );
    }
}

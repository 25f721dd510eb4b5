//! Loading iptables-save text: as it is where it can be, else table by table and line by line.

use std::borrow::Cow;

use super::edit::{self, Edit, Facts};
use super::filter::Copied;
use super::own::is_nvactls;
use super::place::{At, LeftOut, Place, Reason, Unknown, Watched};
use super::programs::{FilterError, restore};
use super::refused::{Refusal, load_in_order};
use super::saved::{self, Saved};
use crate::net::Family;
use crate::netfilter::backend::Backend;

/// A table to be loaded, and what came of it.
#[derive(Debug)]
pub struct Plan<'t> {
    pub backend: Backend,
    pub family: Family,
    pub table: &'t str,
    pub lines: Vec<Line<'t>>,
}

/// A line of a table.
#[derive(Debug)]
pub struct Line<'t> {
    pub chain: &'t str,
    /// As it is loaded.
    pub text: Cow<'t, str>,
    pub role: Role,
    pub is_loaded: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Declaration,
    /// A rule in a chain of nvactl's, or a jump to one.
    Nvactls,
    Copy,
    /// It stands in the place of a rule of the machine's, as the watched rule of this index if it counts.
    Instead(Option<usize>),
    /// It stands before a rule of the machine's and counts as the watched rule of this index.
    Shadow(usize),
}

impl<'t> Plan<'t> {
    /// Plans the load of a table.
    pub fn new(
        backend: Backend,
        family: Family,
        saved: &Saved<'t>,
        facts: &Facts,
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

    fn plan_rule(&mut self, line: &'t str, facts: &Facts, copied: &mut Copied) {
        let chain = saved::chain(line);
        // The names of ipsets stand without quotes in the text of iptables-save 1.8.9.
        let copy = facts.spaced_sets.quoted(line);
        if is_nvactls(chain) || edit::leads_to(line).is_some_and(|next| is_nvactls(&next)) {
            return self.push(chain, copy, Role::Nvactls);
        }
        match edit::edit(&copy, facts) {
            Edit::Keep => self.push(chain, copy, Role::Copy),
            Edit::Instead(text, why) => {
                if let Some(why) = why {
                    copied.left_out.push(self.left_out(chain, line, why));
                }
                self.push(chain, Cow::Owned(text), Role::Instead(None));
            }
            Edit::Placeholder(conditions, why) => {
                let index = self.watch(chain, line, why, copied);
                let text = edit::commented(&conditions, index);
                self.push(chain, Cow::Owned(text), Role::Instead(Some(index)));
            }
            Edit::Shadow(conditions, why) => {
                let index = self.watch(chain, line, why, copied);
                let text = edit::commented(&conditions, index);
                self.push(chain, Cow::Owned(text), Role::Shadow(index));
                self.push(chain, copy, Role::Copy);
            }
        }
    }

    fn push(&mut self, chain: &'t str, text: Cow<'t, str>, role: Role) {
        self.lines.push(Line {
            chain,
            text,
            role,
            is_loaded: true,
        });
    }

    fn place(&self, chain: &str) -> Place {
        Place::Iptables {
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

    /// Returns the text of some lines.
    fn text<'l>(&self, lines: impl IntoIterator<Item = &'l str>) -> String {
        let mut text = format!("*{}\n", self.table);
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str("COMMIT\n");
        text
    }

    /// Loads the table line by line: a refused line costs only itself. A refused rule whose conditions
    /// load counts the packets that it would have seen.
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
                    let text = edit::commented(&conditions, index);
                    if restore(backend, family, &["--noflush"], &self.text([&*text]))?.is_ok() {
                        let why = Unknown::Refused(refusal.words.clone());
                        self.watch(line.chain, &line.text, why, copied);
                        instead.push((range.start, index));
                    }
                }
            }
            // The first line is the table's.
            let at = refusal.at.and_then(|at| (at + range.start).checked_sub(1));
            Ok::<_, FilterError>(Err(Refusal { at, ..refusal }))
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
pub fn load(plans: &mut [Plan<'_>], copied: &mut Copied) -> Result<(), FilterError> {
    let Some(first) = plans.first() else {
        return Ok(());
    };
    let (backend, family) = (first.backend, first.family);
    let text: String = plans
        .iter()
        .map(|plan| plan.text(plan.lines.iter().map(|line| &*line.text)))
        .collect();
    if restore(backend, family, &[], &text)?.is_ok() {
        return Ok(());
    }
    for plan in plans {
        plan.load_lines(copied)?;
    }
    Ok(())
}

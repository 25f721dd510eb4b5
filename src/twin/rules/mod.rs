//! The packet filter of the machine, read as text and loaded into a twin.
//!
//! Rules are copied as their own programs print them, never as nvactl's model would. A rule whose effect the twin
//! cannot know is watched: another rule counts the packets that it would have decided about.

mod count;
mod edit;
mod filter;
mod listing;
mod named;
mod native;
mod of_text;
mod own;
mod place;
mod programs;
mod queues;
mod read;
mod refused;
mod repair;
mod restore;
mod rivals;
mod saved;
mod sets;
mod statement;

use crate::forwards::ForwardSet;
use crate::host::iptables::nft_family;
use crate::net::Family;
use crate::net::per_family::Families;
use crate::netfilter::backend::Backend;
use crate::netfilter::text::parse;
use crate::plan::unplan::unplan;

use filter::{LoadOrder, Text};
use listing::ListedTable;
use refused::{LoadRefusal, load_in_order};
use restore::TablePlan;

pub use edit::SHADOW;
pub use filter::{Copied, PacketFilter};
pub use listing::ListedChain;
pub use named::Networks;
pub use own::list_chain;
pub use place::{LeftOut, Reason, RulePlace, Unknown, Watched};
pub use programs::FilterError;

/// Returns whether the kernel may have tables of nft, built in or as a module: it has the function that evaluates
/// them.
fn has_nf_tables() -> bool {
    let symbols = std::fs::read("/proc/kallsyms").unwrap_or_default();
    let name = b" nft_do_chain";
    symbols.is_empty() || symbols.windows(name.len()).any(|part| part == name)
}

/// Returns whether a line of iptables-save declares a chain of nvactl.
fn has_nvactls(line: &str) -> bool {
    line.starts_with(':') && own::is_nvactls(saved::chain(line))
}

impl PacketFilter {
    /// Reads the filter in the calling thread's namespace.
    ///
    /// # Errors
    /// If an installed program cannot list its rules.
    pub fn read() -> Result<Self, FilterError> {
        read::read(Families::Both)
    }

    /// Reads the filter, as far as packets of some families meet it.
    ///
    /// # Errors
    /// As [`PacketFilter::read`].
    pub fn read_of(families: Families) -> Result<Self, FilterError> {
        read::read(families)
    }

    /// Replaces the text of one backend and family, for the twin of the machine after a change of nvactl's own chains
    /// and of the jumps to them. Other rules of iptables-nft are those that were read.
    #[must_use]
    pub fn with_saved(mut self, backend: Backend, family: Family, bytes: Vec<u8>) -> Self {
        let is_same = |text: &Text| text.backend == backend && text.family == family;
        self.texts.retain(|text| !is_same(text));
        self.texts.push(Text {
            backend,
            family,
            bytes,
        });
        self
    }

    /// Returns whether a rule that is not nvactl's chooses packets by chance or in turn.
    #[must_use]
    pub fn has_chance(&self) -> bool {
        self.has_foreign("-m statistic ", "numgen ")
    }

    /// Returns whether a rule that is not nvactl's chooses packets in turn.
    #[must_use]
    pub fn takes_turns(&self) -> bool {
        self.has_foreign("-m statistic --mode nth ", "numgen inc ")
    }

    /// Returns whether a rule that is not nvactl's has some words, as iptables or nft prints them.
    fn has_foreign(&self, of_iptables: &str, of_nft: &str) -> bool {
        let by_iptables = self.texts.iter().any(|text| {
            let printed = parse::text_of(&text.bytes);
            saved::foreign_rules(&printed).any(|rule| rule.contains(of_iptables))
        });
        let tables = self.own.iter().chain(&self.native);
        let mut rules = tables
            .flat_map(|table| &table.chains)
            .flat_map(|chain| &chain.rules);
        by_iptables || rules.any(|rule| rule.text.contains(of_nft))
    }

    /// Reads the forwards and outbound entries of nvactl's own rules, for each text that has some.
    #[must_use]
    pub fn loaded_sets(&self) -> Vec<ForwardSet> {
        let sets = self.texts.iter().filter_map(|text| {
            let rules = parse::parse(&parse::text_of(&text.bytes)).ok()?;
            unplan(&rules)
        });
        sets.collect()
    }

    /// Loads the filter into the calling thread's namespace and reads it back. The namespace has no rules, but has
    /// the interfaces.
    ///
    /// # Errors
    /// If a program is missing, hangs or lacks a right. A refused rule is left out and named.
    pub fn load(&self) -> Result<Copied, FilterError> {
        let mut copied = Copied {
            left_out: self.unread.clone(),
            ..Copied::default()
        };
        self.load_sets(&mut copied)?;
        let mut texts: Vec<_> = self
            .texts
            .iter()
            .map(|text| (text, parse::text_of(&text.bytes)))
            .collect();
        // No program says which table for translation the machine has loaded last.
        texts.sort_by_key(|(_, printed)| !printed.lines().any(has_nvactls));
        let (first, last): (Vec<&ListedTable>, Vec<&ListedTable>) = match self.order {
            LoadOrder::ForeignLast => (Vec::new(), self.native.iter().collect()),
            LoadOrder::ForeignFirst => {
                texts.reverse();
                // To load a table of iptables removes the chains of nft in it.
                self.native.iter().partition(|table| !self.is_shared(table))
            }
        };
        for table in first {
            native::load(table, &self.facts, &mut copied)?;
        }
        let mut plans = Vec::new();
        for (text, printed) in &texts {
            let mut tables = saved::tables(printed);
            if text.backend != Backend::Legacy {
                tables.retain_mut(|table| self.is_for_iptables(table, text.family));
            }
            let mut planned: Vec<TablePlan<'_>> = tables
                .iter()
                .map(|table| {
                    TablePlan::new(text.backend, text.family, table, &self.facts, &mut copied)
                })
                .collect();
            restore::load(&mut planned, &mut copied)?;
            plans.extend(planned);
        }
        for table in last {
            native::load(table, &self.facts, &mut copied)?;
        }
        if self.has_nft {
            repair::repair(&self.own, &plans, &self.facts, &mut copied)?;
        } else if has_nf_tables() {
            copied.left_out.push(LeftOut {
                place: RulePlace::Nft {
                    family: String::new(),
                    table: String::new(),
                    chain: String::new(),
                },
                text: String::new(),
                why: Reason::NotInstalled("nft"),
            });
        }
        Ok(copied)
    }

    /// Returns whether iptables-nft has a table with the family and the name of one of nft's own.
    fn is_shared(&self, native: &ListedTable) -> bool {
        let of_nft = self
            .texts
            .iter()
            .filter(|text| text.backend != Backend::Legacy);
        let mut of_family = of_nft.filter(|text| nft_family(text.family) == native.family);
        of_family.any(|text| {
            let printed = parse::text_of(&text.bytes);
            let tables = saved::tables(&printed);
            tables.iter().any(|table| table.name == native.name)
        })
    }

    /// Removes from a table of iptables-save the chains that nft made in a table of its own with a name of iptables:
    /// they are loaded with that table. Returns whether anything is left.
    fn is_for_iptables(&self, table: &mut saved::SavedTable<'_>, family: Family) -> bool {
        let mut natives = self.native.iter();
        let is_same =
            |native: &ListedTable| native.family == nft_family(family) && native.name == table.name;
        if !natives.any(is_same) {
            return true;
        }
        let is_ours = |line: &&str| {
            let chain = saved::chain(line);
            own::is_builtin(chain) || own::is_nvactls(chain)
        };
        table.chains.retain(is_ours);
        table.rules.retain(is_ours);
        !table.rules.is_empty()
    }

    fn load_sets(&self, copied: &mut Copied) -> Result<(), FilterError> {
        let text = parse::text_of(&self.sets);
        let names = &self.facts.spaced_sets;
        let lines: Vec<_> = text.lines().map(|line| names.quoted(line)).collect();
        let refused = load_in_order(lines.len(), |range| {
            let mut text = lines[range.clone()].join("\n");
            text.push('\n');
            let loaded = programs::load_sets(&text)?;
            // The lines before the refused one are loaded, and may be loaded again.
            Ok::<_, FilterError>(loaded.map_err(|refusal| LoadRefusal {
                at: refusal.at.map(|at| at + range.start),
                ..refusal
            }))
        })?;
        copied
            .left_out
            .extend(refused.into_iter().map(|(at, words)| LeftOut {
                place: RulePlace::Ipset,
                text: lines[at].clone().into_owned(),
                why: Reason::Refused(words),
            }));
        Ok(())
    }
}

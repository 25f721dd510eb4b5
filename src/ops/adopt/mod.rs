//! Adoption: a change takes out the foreign rules that its spec says as well, and its undo puts them back.
//!
//! ```text
//! live rules ─import─▶ draft ─meaning─▶ the same as the spec ─choose─▶ rules that go ─▶ ForeignShift of a transaction
//! record of a change ─put_back─▶ places among the rules that are there now ─▶ ForeignShift of a transaction
//! ```

mod adoption;
mod at_boot;
mod boot_command;
mod candidate;
mod choose;
mod comparison;
mod meaning;
mod put_back;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub(super) use adoption::Adoption;
pub use choose::{AdoptedRule, Chosen, OtherMeaning, choose};
pub(super) use comparison::compare;
pub use put_back::{
    LeftRule, PutBack, WhyLeft, are_gone, are_there, of_family, put_back, put_back_all,
};

use crate::diff::drift::FieldChange;
use crate::diff::foreign::{ForeignShift, GoalChain, foreign_rules};
use crate::forwards::{ForwardSet, Name};
use crate::host::boot_text::boot_texts;
use crate::host::file;
use crate::host::managers;
use crate::host::persistence::rules_file;
use crate::host::survey::Surroundings;
use crate::import::{Draft, KnownRoutes, import};
use crate::net::Family;
use crate::net::per_family::PerFamily;
use crate::net::printable;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::text::parse;
use crate::ops::records::KeptRule;
use crate::ops::remark::Remarks;
use crate::twin::TwinError;
use crate::twin::machine::Machine;

/// Loaded rules, as an import reads them.
#[derive(Debug)]
pub struct ReadRules {
    pub rules: Vec<(Family, Ruleset)>,
    pub draft: Draft,
}

impl ReadRules {
    /// Reads rules with the routes of this machine, which tell which interface leads where.
    ///
    /// # Errors
    /// When the routes cannot be read.
    pub fn read(live: &PerFamily<&Ruleset>) -> Result<Self, TwinError> {
        let rules = live.iter();
        let rules: Vec<(Family, Ruleset)> = rules
            .map(|(family, rules)| (family, (*rules).clone()))
            .collect();
        let routes = KnownRoutes(Machine::read()?.networks().collect());
        let draft = import(&rules, &routes);
        Ok(Self { rules, draft })
    }
}

/// Warns of rules of the other backend that the spec says as well. They filter beside nvactl's and are not touched.
///
/// # Errors
/// When the routes cannot be read.
pub fn say_of_other_backend(
    set: &ForwardSet,
    around: &Surroundings,
    remarks: &mut Remarks,
) -> Result<(), TwinError> {
    let none = Ruleset::default();
    for (family, beside) in around.beside.iter() {
        let Some((backend, rules)) = beside.as_ref().filter(|(_, rules)| rules.rule_count() > 0)
        else {
            continue;
        };
        let rules = match family {
            Family::V4 => PerFamily {
                v4: rules,
                v6: None,
            },
            Family::V6 => PerFamily {
                v4: &none,
                v6: Some(rules),
            },
        };
        let program = backend.program(family, "iptables");
        let loaded = ReadRules::read(&rules)?;
        let found = choose(&loaded.draft, &rules, set, &boot_texts()).adopted;
        remarks.warn_of_rules(found.iter().map(|one| {
            let KeptRule {
                table, chain, rule, ..
            } = &one.kept;
            format!(
                "{program} has a rule that the spec says as well; it was not adopted, because nvactl loads no rules with \
                 {program}: {table}: {chain} {rule}"
            )
        }));
    }
    Ok(())
}

impl OtherMeaning {
    /// Returns the lines of a refusal: the entry, its fields, and the rules.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let fields = self.fields.iter().map(|one| {
            let FieldChange { field, from, to } = one;
            format!(
                "`{}`: {field} is {from} in the rules, {to} in the spec",
                self.entry
            )
        });
        let rules = self
            .rules
            .iter()
            .map(|rule| format!("  {}", printable::line(rule)));
        fields.chain(rules).collect()
    }
}

/// Returns the shift of foreign rules that takes out rules of one family.
#[must_use]
pub fn removal(live: &Ruleset, adopted: &[&KeptRule]) -> ForeignShift {
    let mut of_chains: BTreeMap<(TableName, &ChainName), Vec<&KeptRule>> = BTreeMap::new();
    for one in adopted {
        of_chains
            .entry((one.table, &one.chain))
            .or_default()
            .push(one);
    }
    let mut shift = ForeignShift::default();
    for ((table, name), adopted) in of_chains {
        let Some(chain) = live.chain(table, name) else {
            continue;
        };
        let texts: BTreeSet<&str> = adopted.iter().map(|one| one.rule.as_str()).collect();
        let goes = |rule: &Rule| texts.contains(rule.to_string().as_str());
        let old: Vec<Rule> = foreign_rules(chain).cloned().collect();
        let (absent, new): (Vec<Rule>, Vec<Rule>) = old.iter().cloned().partition(goes);
        let with_chain = adopted.iter().all(|one| one.with_chain) && new.is_empty();
        let goal = |rules, absent| GoalChain { rules, absent };
        let new = (!with_chain).then_some(new);
        shift
            .old
            .set(table, name.clone(), goal(Some(old), Vec::new()));
        shift.new.set(table, name.clone(), goal(new, absent));
    }
    shift
}

/// Adds the remarks about rules that stay, and about what the rules that go do beyond the spec.
pub fn say(chosen: &Chosen, remarks: &mut Remarks) {
    for (names, remark) in &chosen.beyond {
        let names: Vec<&str> = names.iter().map(Name::as_str).collect();
        remarks.warn(format_args!(
            "{}: the loaded rules do not say quite the same: {remark}",
            names.join(", ")
        ));
    }
    remarks.warn_of_rules(chosen.at_boot.iter().map(|(rule, file)| {
        format!("`{file}` adds a rule at boot, so it was not adopted: {rule}")
    }));
    for family in Family::ALL {
        let of_family = chosen.of_shorewall.iter();
        let rules = of_family.filter_map(|(of, rule)| (*of == family).then_some(rule.as_str()));
        say_of_shorewall(family, &rules.collect::<Vec<_>>(), remarks);
    }
    if !chosen.adopted.is_empty() {
        say_of_unread(&chosen.unread_files, remarks);
    }
    for rule in &chosen.unsaid {
        remarks.note(format_args!("not in the spec, so it stays: {rule}"));
    }
}

/// Warns of rules that Shorewall would load again.
fn say_of_shorewall(family: Family, rules: &[&str], remarks: &mut Remarks) {
    const MOST: usize = 20;
    let (name, folder) = managers::shorewall(family);
    let mut lines: Vec<String> = rules
        .iter()
        .take(MOST)
        .map(|rule| format!("\n  {rule}"))
        .collect();
    if rules.len() > MOST {
        lines.push(format!("\n  and {} more", rules.len() - MOST));
    }
    if !rules.is_empty() {
        remarks.warn(format_args!(
            "Shorewall loads these rules again whenever it starts, so they were not adopted:{}\n  to take them out, \
             delete their lines in {folder}, then: sudo {name} reload\n  a reload removes nvactl's rules as well: \
             apply the spec again afterwards",
            lines.concat()
        ));
    }
}

/// Warns of commands and files that may add adopted rules at boot, and that nvactl cannot read.
fn say_of_unread(files: &[(String, String)], remarks: &mut Remarks) {
    const LOOK: &str = "look whether it adds an adopted rule at boot";
    remarks.warn_of_rules(files.iter().map(|(file, command)| {
        format!("`{file}` has a command that nvactl cannot read; {LOOK}: {command}")
    }));
    for (program, rules) in managers::table_loaders() {
        remarks.warn(format_args!(
            "{program} loads whole tables at boot; nvactl cannot read its rules, so {LOOK}: {rules}"
        ));
    }
}

/// Notes that a rules file still has adopted rules, which the next boot loads again.
pub fn say_of_rules_files(adopted: &[AdoptedRule], after: &mut Remarks) {
    for family in Family::ALL {
        let path = rules_file(family);
        let of_family = adopted.iter().filter(|one| one.kept.family == family);
        let of_family: Vec<&AdoptedRule> = of_family.collect();
        if of_family.is_empty() {
            continue;
        }
        let Ok(Some(bytes)) = file::read(Path::new(path)) else {
            continue;
        };
        let Ok(kept) = parse::parse(&parse::text_of(&bytes)) else {
            continue;
        };
        let is_kept = |one: &&&AdoptedRule| {
            let chain = kept.chain(one.kept.table, &one.kept.chain);
            let mut rules = chain.into_iter().flat_map(|chain| &chain.rules);
            rules.any(|rule| rule.to_string() == one.kept.rule)
        };
        if of_family.iter().any(|one| is_kept(&one)) {
            after.warn(format_args!(
                "`{path}` still has adopted rules, so the next boot may load them again; to write the loaded rules: sudo nvactl persist"
            ));
        }
    }
}

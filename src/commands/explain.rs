//! `nvactl explain`: each rule of a plan with a note in plain words.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::console::Console;
use super::error::Result;
use super::exit::Exit;
use super::failure::CommandRefusal;
use super::families::prefix;
use super::markdown::{code, fenced, note, short_code};
use super::spec::{check_name, load_spec};
use crate::cli::{Explain, ExplainFormat};
use crate::forwards::{Description, Forward, ForwardSet, Name};
use crate::net::Family;
use crate::net::per_family::{Families, PerFamily};
use crate::net::printable;
use crate::plan::explain::{ExplainedLine, explain, mermaid};

pub fn run(args: &Explain, console: &mut Console) -> Result<Exit> {
    let (source, set) = load_spec(args.spec.spec.as_deref(), console)?;
    let families = Families::with_v6(set.has(Family::V6));
    let steps = PerFamily::new(families, |family| explain(&set, family));
    let steps = steps.iter().flat_map(|(family, steps)| {
        let steps = steps.iter();
        steps.map(move |step| Shown { n: 0, family, step })
    });
    // A rule keeps its number in the whole plan if only a part is shown.
    let steps: Vec<Shown<'_>> = steps
        .zip(1..)
        .map(|(step, n)| Shown { n, ..step })
        .collect();
    let numbered = steps.iter().copied();
    let shown: Vec<Shown<'_>> = match (args.rule, &args.forward) {
        (Some(rule), _) => numbered.filter(|shown| shown.n == rule).collect(),
        (None, Some(name)) => {
            check_name(&set, name, &source.name)?;
            let of = |step: &ExplainedLine| step.forward.as_ref() == Some(name);
            numbered.filter(|shown| of(shown.step)).collect()
        }
        (None, None) => numbered.collect(),
    };
    if shown.is_empty() {
        return Err(CommandRefusal::NoSuchRule { count: steps.len() }.into());
    }
    match args.format {
        ExplainFormat::Text => {
            console.print(&described(&set, &shown));
            console.print(&text(&shown));
        }
        ExplainFormat::Markdown => {
            let is_shown = |name: &Name| {
                let narrowed = args.rule.is_some() || args.forward.is_some();
                let name = Some(name.as_str());
                let mut all = shown.iter();
                !narrowed || all.any(|shown| shown.step.forward.as_deref() == name)
            };
            let forwards: Vec<&Forward> = set
                .forwards
                .iter()
                .filter(|one| is_shown(&one.name))
                .collect();
            let outbound = set.outbound.iter().filter(|one| is_shown(&one.name));
            let diagram = mermaid(&set.firewall, &forwards, outbound);
            console.print(&described_in_markdown(&set, &shown));
            console.print(&markdown(&shown, &diagram));
        }
    }
    Ok(Exit::Done)
}

/// A step with its number and family.
#[derive(Clone, Copy)]
struct Shown<'s> {
    n: usize,
    family: Family,
    step: &'s ExplainedLine,
}

/// Returns the descriptions of the spec and of what is shown, each with the name of its forward or entry.
fn descriptions<'s>(
    set: &'s ForwardSet,
    shown: &[Shown<'_>],
) -> Vec<(Option<&'s str>, &'s Description)> {
    let names: BTreeSet<&str> = shown
        .iter()
        .filter_map(|shown| shown.step.forward.as_deref())
        .collect();
    let described = set.described();
    let described = described.filter(|(_, name, _)| names.contains(name.as_str()));
    let mut found: Vec<(Option<&str>, &Description)> = described
        .filter_map(|(_, name, words)| Some((Some(name.as_str()), words?)))
        .collect();
    // The entries of a forward are neighbours.
    found.dedup();
    let own = set.description.as_ref().map(|own| (None, own));
    own.into_iter().chain(found).collect()
}

fn described(set: &ForwardSet, shown: &[Shown<'_>]) -> String {
    let mut out = String::new();
    for (name, words) in descriptions(set, shown) {
        let name = name.map(|name| format!("{name}: ")).unwrap_or_default();
        let _ = writeln!(out, "{name}{}", printable::line(words));
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

fn described_in_markdown(set: &ForwardSet, shown: &[Shown<'_>]) -> String {
    let mut out = String::new();
    for (name, words) in descriptions(set, shown) {
        let words = code(words.as_str());
        let _ = match name {
            Some(name) => writeln!(out, "- {}: {words}", short_code(name)),
            None => writeln!(out, "{words}\n"),
        };
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

fn text(steps: &[Shown<'_>]) -> String {
    let mut out = String::new();
    for shown in steps {
        let Shown { n, step, .. } = shown;
        let _ = writeln!(
            out,
            "{n:>4}  {}{}: {}\n      {}\n",
            prefix(shown.family),
            step.table,
            step.line,
            step.note
        );
    }
    out
}

fn markdown(steps: &[Shown<'_>], diagram: &str) -> String {
    let mut out = String::from("| # | rule | what it does |\n|---|---|---|\n");
    for shown in steps {
        let Shown { n, step, .. } = shown;
        let _ = writeln!(
            out,
            "| {n} | {} | {} |",
            short_code(&format!(
                "{}-t {} {}",
                prefix(shown.family),
                step.table,
                step.line
            )),
            note(&step.note)
        );
    }
    out.push('\n');
    out.push_str(&fenced("mermaid", diagram));
    out
}

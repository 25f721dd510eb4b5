//! `nvactl explain`: each rule of a plan with a note in plain words.

use std::fmt::Write as _;

use super::console::Console;
use super::error::Result;
use super::exit::Exit;
use super::failure::CommandRefusal;
use super::families::prefix;
use super::markdown::{fenced, note, short_code};
use super::spec::{check_name, load_spec};
use crate::cli::{Explain, ExplainFormat};
use crate::forwards::{Forward, Name};
use crate::net::Family;
use crate::net::per_family::{Families, PerFamily};
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
        ExplainFormat::Text => console.print(&text(&shown)),
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

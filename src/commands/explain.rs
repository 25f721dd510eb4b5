//! `nvactl explain`: each rule of a plan with a note in plain words.

use std::fmt::Write as _;

use anyhow::Result;

use super::{Console, Exit, Refusal, find_forward, load_spec};
use crate::cli::{Explain, ExplainFormat};
use crate::explain::{Step, explain, mermaid};
use crate::net::Family;
use crate::spec::Forward;

pub fn run(args: &Explain, console: &mut Console) -> Result<Exit> {
    let (source, set) = load_spec(args.spec.spec.as_deref(), console)?;
    let steps = explain(&set, Family::V4);
    // Numbers are those of the whole plan, whatever is shown of it.
    let numbered = steps.iter().zip(1..);
    let shown: Vec<(&Step, usize)> = match (args.rule, &args.forward) {
        (Some(rule), _) => numbered.filter(|(_, n)| *n == rule).collect(),
        (None, Some(name)) => {
            find_forward(&set, name, &source.name)?;
            let of = |step: &Step| step.forward.as_ref() == Some(name);
            numbered.filter(|(step, _)| of(step)).collect()
        }
        (None, None) => numbered.collect(),
    };
    if shown.is_empty() {
        return Err(Refusal::NoSuchRule { count: steps.len() }.into());
    }
    match args.format {
        ExplainFormat::Text => console.print(&text(&shown)),
        ExplainFormat::Markdown => {
            let of_shown = |forward: &&Forward| {
                let narrowed = args.rule.is_some() || args.forward.is_some();
                let name = Some(forward.name.as_str());
                !narrowed
                    || shown
                        .iter()
                        .any(|(step, _)| step.forward.as_deref() == name)
            };
            let forwards = set.forwards.iter().filter(of_shown);
            console.print(&markdown(&shown, &mermaid(&set.firewall, forwards)));
        }
    }
    Ok(Exit::Done)
}

fn text(steps: &[(&Step, usize)]) -> String {
    let mut out = String::new();
    for (step, n) in steps {
        let _ = writeln!(
            out,
            "{n:>4}  {}: {}\n      {}\n",
            step.table, step.line, step.note
        );
    }
    out
}

fn markdown(steps: &[(&Step, usize)], diagram: &str) -> String {
    let mut out = String::from("| # | rule | what it does |\n|---|---|---|\n");
    for (step, n) in steps {
        let _ = writeln!(
            out,
            "| {n} | `-t {} {}` | {} |",
            step.table, step.line, step.note
        );
    }
    let _ = write!(out, "\n```mermaid\n{diagram}```\n");
    out
}

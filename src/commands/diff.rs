//! `nvactl diff`: what a spec would change, by forward.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use similar::TextDiff;

use super::{Console, Exit, Refusal, load_spec, show_problems};
use crate::cli::{Against, Diff, DiffFormat};
use crate::compare::{Comparison, Drift, DriftKind, FieldChange, ForwardLine, compare};
use crate::diff;
use crate::host::{self, file, iptables};
use crate::parse;
use crate::plan::plan;
use crate::ruleset::Ruleset;
use crate::spec;

pub fn run(args: &Diff, console: &mut Console) -> Result<Exit> {
    let (source, set) = load_spec(args.spec.spec.as_deref(), console)?;
    let (against, have) = match &args.against {
        Against::Live => {
            host::require_root("diff")?;
            let live = iptables::read()?;
            if !live.warning.is_empty() {
                console.warn(&live.warning);
            }
            ("the live rules".to_owned(), live.ruleset)
        }
        Against::File(path) => (path.display().to_string(), read_file(path, console)?),
    };
    let comparison = compare(&have, &set);
    let rules = args
        .rules
        .then(|| unified(&have, &plan(&set), &against, &source.name));
    match args.format {
        DiffFormat::Text => {
            console.print(&text(&comparison));
            console.print(rules.as_deref().unwrap_or_default());
            if comparison.same {
                console.say(format_args!("{}: the same as {against}", source.name));
            }
        }
        DiffFormat::Json => {
            let mut value = serde_json::to_value(&comparison)?;
            if let Some(rules) = rules {
                value["rules"] = rules.into();
            }
            console.say(serde_json::to_string_pretty(&value)?);
        }
        DiffFormat::Markdown => {
            console.print(&markdown(
                &comparison,
                &source.name,
                &against,
                rules.as_deref(),
            ));
        }
    }
    Ok(if comparison.same {
        Exit::Done
    } else {
        Exit::Differs
    })
}

/// Another spec's plan, or the rules of iptables-save text: a line that opens a table tells.
fn read_file(path: &Path, console: &mut Console) -> Result<Ruleset> {
    let name = path.display().to_string();
    let bytes = file::read(path)?.with_context(|| format!("there is no file `{name}`"))?;
    let text = String::from_utf8_lossy(&bytes);
    let first = text
        .lines()
        .find(|line| !line.trim().is_empty() && !line.starts_with('#'));
    if first.is_some_and(|line| line.starts_with('*')) {
        return parse::parse(&text).with_context(|| format!("cannot read the rules in `{name}`"));
    }
    spec::read(&bytes)
        .map(|set| plan(&set).with_builtin_chains())
        .map_err(|problems| {
            show_problems(&name, &bytes, &problems, console);
            let count = problems.len();
            Refusal::Spec { file: name, count }.into()
        })
}

/// What nvactl owns in the one and in the other, as a unified diff.
fn unified(have: &Ruleset, want: &Ruleset, from: &str, to: &str) -> String {
    let (have, want) = (diff::own(have).to_string(), diff::own(want).to_string());
    TextDiff::from_lines(&have, &want)
        .unified_diff()
        .context_radius(3)
        .header(from, to)
        .to_string()
}

fn text(comparison: &Comparison) -> String {
    let mut out = String::new();
    let mut line = |sign, name: &str, words: &str| {
        let _ = writeln!(out, "{sign} {name:<16} {words}");
    };
    for change in &comparison.firewall {
        line('~', "(firewall)", &changed(change));
    }
    for forward in &comparison.added {
        line('+', &forward.name, &described(forward));
    }
    for forward in &comparison.removed {
        line('-', &forward.name, &described(forward));
    }
    for forward in &comparison.changed {
        let changes: Vec<String> = forward.changes.iter().map(changed).collect();
        line('~', &forward.name, &changes.join(", "));
    }
    for drift in &comparison.drift {
        let name = drift.forward.as_deref().unwrap_or("(drift)");
        line('!', name, &drifted(drift));
    }
    if comparison.reordered {
        line('~', "(order)", "the same rules in another order");
    }
    out
}

fn described(forward: &ForwardLine) -> String {
    format!(
        "{} {} → {}",
        forward.protocol, forward.listen, forward.target
    )
}

fn changed(change: &FieldChange) -> String {
    format!("{} {} → {}", change.field, change.from, change.to)
}

fn drifted(drift: &Drift) -> String {
    let what = match drift.what {
        DriftKind::PutIn => "put in by hand",
        DriftKind::TakenOut => "taken out by hand",
        DriftKind::InFront => "stands before nvactl's jump",
    };
    format!("{what}, {}: {}", drift.table, drift.line)
}

/// Fit for a comment on a pull request.
fn markdown(comparison: &Comparison, spec: &str, against: &str, rules: Option<&str>) -> String {
    let mut out = format!("### `{spec}` against {against}\n\n");
    if comparison.same {
        out.push_str("Nothing changes.\n");
        return out;
    }
    out.push_str("| | forward | change |\n|---|---|---|\n");
    let mut row = |sign: &str, name: &str, words: &str| {
        // A bar would end the cell, a backtick the code.
        let words = words.replace('|', "\\|").replace('`', "'");
        let _ = writeln!(out, "| {sign} | `{name}` | {words} |");
    };
    for change in &comparison.firewall {
        row("🔧", "firewall", &changed(change));
    }
    for forward in &comparison.added {
        row("➕", &forward.name, &described(forward));
    }
    for forward in &comparison.removed {
        row("➖", &forward.name, &described(forward));
    }
    for forward in &comparison.changed {
        let changes: Vec<String> = forward.changes.iter().map(changed).collect();
        row("✏️", &forward.name, &changes.join("<br>"));
    }
    for drift in &comparison.drift {
        let name = drift.forward.as_deref().unwrap_or("-");
        row("⚠️", name, &drifted(drift));
    }
    if comparison.reordered {
        row("🔧", "-", "the same rules in another order");
    }
    if let Some(rules) = rules {
        let _ = write!(
            out,
            "\n<details><summary>Rules</summary>\n\n```diff\n{rules}```\n\n</details>\n"
        );
    }
    out
}

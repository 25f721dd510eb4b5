//! `nvactl diff`: the changes that a spec would make, by forward.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;

use similar::algorithms::{Capture, Compact, Replace, myers};
use similar::{DiffOp, group_diff_ops};
use tracing::debug;

use super::console::Console;
use super::error::{Error, Result};
use super::exit::Exit;
use super::failure::CommandRefusal;
use super::families::{prefix, warn_of_unread_v6};
use super::host::{HostAccess, READ_WAIT};
use super::markdown::{code, fenced};
use super::spec::{examine, load_spec, places, read_spec, show_problems, with_networks};
use crate::cli::{Against, Diff, DiffFormat};
use crate::diff;
use crate::diff::drift::{
    Comparison, Drift, DriftKind, FieldChange, ForwardLine, LineKind, compare_family,
    compare_specs, merged,
};
use crate::forwards::ForwardSet;
use crate::host::file::FileContent;
use crate::host::input::{self, NamedInput};
use crate::host::iptables::Iptables;
use crate::host::rehearsal::RehearsalError;
use crate::host::spec_source::{SpecSource, is_stdin};
use crate::host::{self, spec_source};
use crate::net::Family;
use crate::net::per_family::{Families, PerFamily};
use crate::net::printable;
use crate::net::words::names;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::text::parse::{self, ParseProblem};
use crate::ops::confirm::told_of;
use crate::ops::{families, name_interrupted};
use crate::plan::planned;
use crate::plan::unplan::unplan;
use crate::yaml::places::text_of;

pub fn run(args: &Diff, on: HostAccess<'_>, console: &mut Console) -> Result<Exit> {
    let spec = spec_source::named(args.spec.spec.as_deref());
    let against = matches!(&args.against, Against::File(path) if is_stdin(path));
    if against && spec.is_some_and(|spec| is_stdin(&spec)) {
        return Err(CommandRefusal::BothStdin.into());
    }
    let (source, set) = load_spec(args.spec.spec.as_deref(), console)?;
    if args.spec.spec.is_none() && args.format == DiffFormat::Text {
        console.note(format_args!("reading {}", source.place()));
    }
    let Compared {
        against,
        have,
        comparison,
    } = compared(args, &set, on, console)?;
    let rules = args.rules.then(|| {
        let each = have.iter().map(|(family, have)| {
            let names = [&against, &source.name].map(|name| match family {
                Family::V4 => name.clone(),
                Family::V6 => format!("{name} ({family})"),
            });
            unified(have, &wanted(&set, *family), &names[0], &names[1])
        });
        each.collect::<String>()
    });
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
            console.say_json(&value)?;
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

/// The rules or the spec that the spec was compared with, and the result.
struct Compared {
    against: String,
    have: Vec<(Family, Ruleset)>,
    comparison: Comparison,
}

fn compared(
    args: &Diff,
    set: &ForwardSet,
    on: HostAccess<'_>,
    console: &mut Console,
) -> Result<Compared> {
    let path = match &args.against {
        Against::Live => return live(args, set, on, console),
        Against::File(path) => path,
    };
    let iptables = on.iptables(READ_WAIT);
    let (against, content) = read_file(path, args.family, &iptables, console)?;
    let (have, comparison) = match content {
        ComparedContent::Rules(mut have) => {
            if let ([(family, _)], None) = (have.as_slice(), args.family) {
                let family = *family;
                let left = Family::ALL.into_iter().find(|other| *other != family);
                if let Some(left) = left.filter(|left| set.has(*left)) {
                    if is_stdin(path) {
                        // Each program prints nothing on a machine that has no table of its family.
                        have.push((left, Ruleset::default()));
                        have.sort_by_key(|(family, _)| *family);
                        console.note(format_args!(
                            "{against} has {family} rules alone, so there are no {left} rules; to compare {family} alone, add: --family {}",
                            family.as_str()
                        ));
                    } else {
                        console.note(format_args!(
                            "{against} is read as {family} rules: the spec's {left} forwards are not compared"
                        ));
                    }
                }
            }
            let each = have
                .iter()
                .map(|(family, have)| compare_family(have, set, *family));
            let comparison = merged(each);
            (have, comparison)
        }
        ComparedContent::Spec(old) => {
            let v6 = set.has(Family::V6) || old.has(Family::V6);
            let families = meant(args, Families::with_v6(v6));
            let have = families
                .iter()
                .map(|&family| (family, wanted(&old, family)));
            let each = families
                .iter()
                .map(|&family| compare_specs(&old, set, family));
            (have.collect(), merged(each))
        }
    };
    Ok(Compared {
        against,
        have,
        comparison,
    })
}

fn live(
    args: &Diff,
    set: &ForwardSet,
    on: HostAccess<'_>,
    console: &mut Console,
) -> Result<Compared> {
    host::require_root("diff")?;
    let state = on.known_state()?;
    let families = meant(args, families(Some(set), state.as_ref()));
    let iptables = on.iptables(READ_WAIT);
    let have = read(args, &families, set.has(Family::V6), &iptables, console)?;
    if let (Some(state), [(Family::V4, v4), rest @ ..]) = (&state, have.as_slice()) {
        let rules = PerFamily {
            v4,
            v6: rest.first().map(|(_, v6)| v6),
        };
        if let Some(remark) = name_interrupted(state, &rules)? {
            console.remark(&remark);
        }
    }
    if let Some(told) = told_of(state.as_ref())? {
        console.note(told);
    }
    let each = have
        .iter()
        .map(|(family, have)| compare_family(have, set, *family));
    Ok(Compared {
        against: "the live rules".to_owned(),
        comparison: merged(each),
        have,
    })
}

/// Reads the live rules of each readable family. IPv6 must be readable if the spec or the user asks for it.
fn read(
    args: &Diff,
    families: &[Family],
    has_v6: bool,
    iptables: &Iptables,
    console: &mut Console,
) -> Result<Vec<(Family, Ruleset)>> {
    let mut have = Vec::new();
    for family in families {
        match iptables.read(*family) {
            Ok(live) => {
                console.warn_of_rules(&live.warnings(iptables));
                have.push((*family, live.ruleset));
            }
            Err(error) if *family == Family::V6 && !has_v6 && args.family.is_none() => {
                warn_of_unread_v6(&error, console);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(have)
}

/// Returns the family of `--family`, else these.
fn meant(args: &Diff, families: Families) -> Vec<Family> {
    match args.family {
        Some(family) => vec![family],
        None => families.as_slice().to_vec(),
    }
}

/// Returns the rules that the spec would load for a family; none for IPv6 if the spec has none.
fn wanted(set: &ForwardSet, family: Family) -> Ruleset {
    let planned = planned(set, Families::Both);
    planned.get(family).cloned().unwrap_or_default()
}

enum ComparedContent {
    Rules(Vec<(Family, Ruleset)>),
    Spec(ForwardSet),
}

/// Reads another spec, which may be a folder, or iptables-save text, which starts with a table or is empty. Returns the
/// name too.
fn read_file(
    path: &Path,
    family: Option<Family>,
    iptables: &Iptables,
    console: &mut Console,
) -> Result<(String, ComparedContent)> {
    if !is_stdin(path) && path.is_dir() {
        let source = read_spec(Some(path))?;
        let name = printable::path(path);
        let spec = checked_spec(&name, &source, console)?;
        return Ok((name, spec));
    }
    let NamedInput { name, content } = input::read(path)?;
    // The pipe hides the failure of the command before it, whose rules would all be reported as missing.
    if is_stdin(path) && content.bytes.trim_ascii().is_empty() {
        return Err(CommandRefusal::EmptyStdin.into());
    }
    if parse::is_saved(&text_of(&content.bytes)) {
        let rules = rules_of_each(&content, family, iptables, console);
        let rules = rules.map_err(|error| Error::RulesFile {
            file: name.clone(),
            source: Box::new(with_reason(error, path)),
        })?;
        return Ok((name, ComparedContent::Rules(rules)));
    }
    let source = with_networks(SpecSource::of_text(path, content.bytes));
    let spec = checked_spec(&name, &source, console)?;
    Ok((name, spec))
}

/// Returns the error with a hint, if it has a likely reason.
fn with_reason(error: Error, path: &Path) -> Error {
    match error {
        Error::Rules(error) if error.problem == ParseProblem::TableTwice => {
            CommandRefusal::Unnamed(error).into()
        }
        Error::Rules(error) if error.problem == ParseProblem::CarriageReturn && is_stdin(path) => {
            CommandRefusal::FromTerminal(error).into()
        }
        error => error,
    }
}

/// Returns the rules of a text of one family, or of both.
fn rules_of_each(
    content: &FileContent,
    family: Option<Family>,
    iptables: &Iptables,
    console: &mut Console,
) -> Result<Vec<(Family, Ruleset)>> {
    let parts = parse::by_family(&parse::text_of(&content.bytes));
    if let [] | [_] = parts.as_slice() {
        let named = parts.first().map(|(named, _)| *named);
        if let (Some(named), Some(family)) = (named, family)
            && named != family
        {
            return Err(CommandRefusal::OtherFamily { named, family }.into());
        }
        return Ok(vec![rules(content, family.or(named), iptables, console)?]);
    }
    let meant = |one: &Family| family.is_none_or(|family| family == *one);
    let parts = parts.into_iter().filter(|(one, _)| meant(one));
    let each = parts.map(|(family, text)| {
        let content = FileContent {
            bytes: text.into_bytes(),
            by_root: content.by_root,
        };
        rules(&content, Some(family), iptables, console)
    });
    each.collect()
}

/// Returns the rules that iptables-restore loads from a file, and their family. A file that cannot be loaded
/// in a network namespace is only parsed. So is a file that others than root may have written, since it may
/// name a program for root to run (`--modprobe`, iptables(8)).
fn rules(
    content: &FileContent,
    family: Option<Family>,
    iptables: &Iptables,
    console: &mut Console,
) -> Result<(Family, Ruleset)> {
    let text = parse::text_of(&content.bytes);
    let read = parse::parse(&text);
    // Only rules that forward something show their family.
    let held = |rules: &Ruleset| {
        let mut families = Family::ALL.into_iter();
        let set = unplan(rules)?;
        families.find(|family| set.has(*family))
    };
    let family = family.or_else(|| held(read.as_ref().ok()?));
    let families = family.map_or(Family::ALL.to_vec(), |family| vec![family]);
    let mut first = None;
    for family in families.into_iter().filter(|_| content.by_root) {
        match iptables.rehearse(family, &content.bytes, &[]) {
            Ok(loaded) => return Ok((family, loaded.ruleset)),
            Err(RehearsalError::Refused(refused)) => drop(first.get_or_insert(refused)),
            Err(RehearsalError::Impossible(reason)) => {
                debug!(reason, "the file cannot be tried");
                first = None;
                break;
            }
        }
    }
    match first {
        // The file may be from another machine.
        Some(refused) if refused.is_missing_set() => console.warn(refused),
        Some(refused) => return Err(refused.into()),
        None => parse::check_spelling(&text)?,
    }
    Ok((family.unwrap_or(Family::V4), read?))
}

/// Checks the other spec; prints only its errors.
fn checked_spec(name: &str, source: &SpecSource, console: &mut Console) -> Result<ComparedContent> {
    let set = examine(source).sound().map_err(|problems| {
        show_problems(&places(source), &problems, console);
        CommandRefusal::Spec {
            file: name.to_owned(),
            count: problems.len(),
        }
    })?;
    Ok(ComparedContent::Spec(set))
}

/// Returns a unified diff of nvactl's rules; with the FORWARD policy only if nvactl sets it.
fn unified(have: &Ruleset, want: &Ruleset, from: &str, to: &str) -> String {
    let sets_policy = diff::sets_policy(want);
    let own = |ruleset: &Ruleset| {
        let mut own = diff::own(ruleset);
        if !sets_policy {
            own = own.without_forward_policy();
        }
        own.to_string()
    };
    let (have, want) = (own(have), own(want));
    let have: Vec<&str> = have.lines().collect();
    let want: Vec<&str> = want.lines().collect();
    let mut out = String::new();
    for hunk in group_diff_ops(operations(&have, &want), CONTEXT) {
        let (Some(first), Some(last)) = (hunk.first(), hunk.last()) else {
            continue;
        };
        if out.is_empty() {
            let _ = writeln!(out, "--- {from}\n+++ {to}");
        }
        let old = extent(first.old_range().start..last.old_range().end);
        let new = extent(first.new_range().start..last.new_range().end);
        let _ = writeln!(out, "@@ -{old} +{new} @@");
        let mut lines = |sign: char, lines: &[&str]| {
            for line in lines {
                let _ = writeln!(out, "{sign}{line}");
            }
        };
        for operation in &hunk {
            let (old, new) = (operation.old_range(), operation.new_range());
            if let DiffOp::Equal { .. } = operation {
                lines(' ', &have[old]);
            } else {
                lines('-', &have[old]);
                lines('+', &want[new]);
            }
        }
    }
    out
}

/// The number of lines around a change.
const CONTEXT: usize = 3;

/// Formats a range of lines as in a unified diff: from 1, or from the line before an empty range.
fn extent(lines: Range<usize>) -> String {
    match lines.len() {
        0 => format!("{},0", lines.start),
        1 => format!("{}", lines.start + 1),
        count => format!("{},{count}", lines.start + 1),
    }
}

/// Returns the edits between two lists, in order. Names one algorithm, since a choice at run time would
/// compile all of them.
fn operations(have: &[&str], want: &[&str]) -> Vec<DiffOp> {
    let mut operations = Compact::new(Replace::new(Capture::new()), have, want);
    let Ok(()) = myers::diff(&mut operations, have, 0..have.len(), want, 0..want.len());
    operations.into_inner().into_inner().into_ops()
}

/// The rules of a spec without a forward.
const COMMON: &str = "the rules that every spec has";

pub(super) fn text(comparison: &Comparison) -> String {
    let mut out = String::new();
    let mut line = |sign, name: &str, words: &str| {
        let name = printable::line(name).to_string();
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
        // `status` too counts a rule before a jump as drift only if it stops every packet.
        let label = match (drift.what, drift.stop) {
            (DriftKind::InFront, None) => "(in front)",
            _ => "(no forward)",
        };
        let owners = names(drift.owners());
        let name = if owners.is_empty() { label } else { &owners };
        line('!', name, &drifted(drift));
    }
    if comparison.lacks_common {
        line('+', "(rules)", COMMON);
    } else if comparison.reordered && comparison.changed.is_empty() {
        line('~', "(order)", "the same rules in another order");
    }
    out
}

fn described(forward: &ForwardLine) -> String {
    let ForwardLine {
        kind,
        family,
        protocol,
        listen,
        target,
        description,
        ..
    } = forward;
    let outbound = match (kind, family) {
        (None, _) => "",
        (Some(LineKind::Outbound), Some(Family::V6)) => "outbound IPv6 ",
        (Some(LineKind::Outbound), _) => "outbound ",
    };
    let words = description.as_ref().map(|words| format!(" ({words})"));
    format!(
        "{outbound}{protocol} {listen} → {target}{}",
        words.unwrap_or_default()
    )
}

fn changed(change: &FieldChange) -> String {
    format!("{} {} → {}", change.field, change.from, change.to)
}

fn drifted(drift: &Drift) -> String {
    let what = match (drift.what, drift.stop) {
        (DriftKind::PutIn, _) => "added by others".to_owned(),
        (DriftKind::TakenOut, _) => "missing".to_owned(),
        (DriftKind::InFront, None) => "is before nvactl's jump".to_owned(),
        (DriftKind::InFront, Some(stop)) => {
            format!("{} every packet before nvactl's jump", stop.verb())
        }
    };
    let prefix = prefix(drift.family);
    let line = printable::line(&drift.line);
    format!("{what}, {prefix}{}: {line}", drift.table)
}

/// Formats the comparison for a comment on a pull request.
fn markdown(comparison: &Comparison, spec: &str, against: &str, rules: Option<&str>) -> String {
    let mut out = format!("### {} against {}\n\n", code(spec), code(against));
    if comparison.same {
        out.push_str("Nothing changes.\n");
        return out;
    }
    out.push_str("| | forward | change |\n|---|---|---|\n");
    let mut row = |sign: &str, name: &str, words: &str| {
        let _ = writeln!(out, "| {sign} | {} | {words} |", code(name));
    };
    for change in &comparison.firewall {
        row("🔧", "firewall", &code(&changed(change)));
    }
    for forward in &comparison.added {
        row("➕", &forward.name, &code(&described(forward)));
    }
    for forward in &comparison.removed {
        row("➖", &forward.name, &code(&described(forward)));
    }
    for forward in &comparison.changed {
        let changes = forward.changes.iter().map(|change| code(&changed(change)));
        row(
            "✏️",
            &forward.name,
            &changes.collect::<Vec<_>>().join("<br>"),
        );
    }
    for drift in &comparison.drift {
        let owners = names(drift.owners());
        let name = if owners.is_empty() { "-" } else { &owners };
        row("⚠️", name, &code(&drifted(drift)));
    }
    if comparison.lacks_common {
        row("➕", "-", COMMON);
    } else if comparison.reordered && comparison.changed.is_empty() {
        row("🔧", "-", "the same rules in another order");
    }
    if let Some(rules) = rules {
        let rules = fenced("diff", rules);
        let _ = write!(
            out,
            "\n<details><summary>Rules</summary>\n\n{rules}\n</details>\n"
        );
    }
    out
}

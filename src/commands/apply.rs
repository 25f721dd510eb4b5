//! `nvactl apply`: loads the plan into the kernel, beside other rules.

use std::collections::BTreeSet;

use serde::Serialize;

use super::adopted::{JsonAdopted, shown};
use super::console::Console;
use super::error::{Error, Result};
use super::exit::Exit;
use super::host::HostAccess;
use super::spec::{examine, kept, read_spec, spec_of, tell_problems};
use super::{confirm, diff};
use crate::cli::{Apply, ApplyFormat};
use crate::diff::drift::{
    Comparison, Drift, FieldChange, ForwardChange, ForwardLine, ForwardNames, LineKind, POLICY,
    POLICY_V6,
};
use crate::forwards::Numbers;
use crate::health::test_result::TestResult;
use crate::host;
use crate::net::words::counted;
use crate::ops::adopt::AdoptedRule;
use crate::ops::apply::{ApplyReport, ApplyRequest, apply};
use crate::ops::{Ahead, ChangeOutcome, Difference, Failed};

pub fn run(args: &Apply, on: HostAccess<'_>, console: &mut Console) -> Result<Exit> {
    let source = read_spec(args.spec.spec.as_deref())?;
    let tells_source = args.dry_run && args.format == ApplyFormat::Text;
    if tells_source && args.spec.spec.is_none() {
        console.note(format_args!("reading {}", source.place()));
    }
    let iptables = on.iptables(args.lock_timeout.secs);
    let ahead = || {
        host::require_root("apply").ok()?;
        Ahead::start(&on.known_state().ok()??, &iptables)
    };
    let ahead = ahead();
    let mut reading = examine(&source);
    // An invalid spec must not hold the lock, however slowly its errors are printed.
    let ahead = ahead.filter(|_| reading.set.is_some());
    let problems = match reading.set {
        Some(_) => std::mem::take(&mut reading.problems),
        None => Vec::new(),
    };
    let set = spec_of(&source, reading, console)?;
    let done = (|| {
        source.trusted()?;
        host::require_root("apply")?;
        let request = ApplyRequest {
            set: &set,
            name: &source.name,
            spec: &kept(&source),
            dry_run: args.dry_run,
            confirm_secs: args.confirm,
            flush_stale: args.flush_stale,
            trial: !args.no_trial,
            adopt: args.adopt,
        };
        let machine = on.machine_unless_dry(args.dry_run, args.lock_timeout.secs)?;
        let report = apply(&request, &machine, ahead, |rules| {
            show(rules, args, console);
        })?;
        Ok::<_, Error>((machine.state, report))
    })();
    // The lock is free by now: a slow terminal delays no other nvactl.
    tell_problems(&source, problems, console);
    if let (Err(Error::Failed(failed)), ApplyFormat::Json) = (&done, args.format)
        && !failed.tests().is_empty()
    {
        console.say_json(&Json::refused(&source.name, failed, args.dry_run))?;
    }
    let (state, report) = done?;
    let exit = exit(&report, args.dry_run);
    match args.format {
        ApplyFormat::Json => {
            let json = Json::new(&source.name, &report, args);
            console.say_json(&json)?;
            return Ok(exit);
        }
        ApplyFormat::Text => {}
    }
    console.remarks(&report.remarks);
    match &report.outcome {
        ChangeOutcome::Unchanged => console.say(format_args!("{}: no changes", source.name)),
        ChangeOutcome::Would(difference) => {
            say_forwards(difference, console);
            console.print(&difference.lines);
            console.say(format_args!(
                "{}: would change{}",
                source.name,
                match only_policy(difference) {
                    Some(policy) => format!(" the {policy}"),
                    None => format!(": {}", counts(difference)),
                }
            ));
        }
        ChangeOutcome::Made { difference, .. } => {
            say_forwards(difference, console);
            console.say(format_args!(
                "{}: {}",
                source.name,
                match only_policy(difference) {
                    Some(policy) => format!("changed the {policy}"),
                    None => format!(
                        "{}: {}",
                        applied(
                            &difference.forwards,
                            removed(difference.comparison.as_ref()),
                            set.numbers(),
                        ),
                        counts(difference)
                    ),
                }
            ));
        }
    }
    console.remarks(&report.after);
    match report.outcome {
        ChangeOutcome::Made {
            pending: Some(pending),
            ..
        } => confirm::ask(&state, &pending, console),
        _ => Ok(exit),
    }
}

/// Lists the rules that are about to be adopted: they are known then even if the change is interrupted.
fn show(adopted: &[AdoptedRule], args: &Apply, console: &mut Console) {
    let shown = shown(adopted, args.dry_run);
    match args.format {
        ApplyFormat::Text => console.print(&shown),
        ApplyFormat::Json => console.tell(&shown),
    }
}

fn exit(report: &ApplyReport, dry_run: bool) -> Exit {
    match (&report.outcome, report.flows_left) {
        (ChangeOutcome::Would(_), _) => Exit::Differs,
        (ChangeOutcome::Unchanged, true) if dry_run => Exit::Differs,
        (_, true) => Exit::Uncertain,
        (_, false) => Exit::Done,
    }
}

/// The most forwards that are shown one by one: a first apply must not fill the terminal.
const MOST_SHOWN: usize = 40;

/// Prints a line for each forward that differs.
pub(super) fn say_forwards(difference: &Difference, console: &mut Console) {
    let Some(comparison) = &difference.comparison else {
        return;
    };
    let text = diff::text(comparison);
    let mut lines = text.lines();
    for line in lines.by_ref().take(MOST_SHOWN) {
        console.say(line);
    }
    let more = lines.count();
    if more > 0 {
        console.say(format_args!("  and {more} more"));
    }
}

/// Says how many forwards and outbound entries a change touched, of all in the spec.
fn applied(changed: &ForwardNames, removed: Numbers, all: Numbers) -> String {
    let touched = changed.added.len() + changed.changed.len();
    let (of_all, removed_words) = (all.some(all.all()), removed.words());
    match (touched, changed.removed.len()) {
        (0, 0) => format!("applied {}", all.words()),
        (0, _) => format!("removed {removed_words}"),
        (_, 0) if touched == all.all() => format!("applied {}", all.words()),
        (_, 0) => format!("changed {touched} of {of_all}"),
        (_, _) => format!("changed {touched} of {of_all}, removed {removed_words}"),
    }
}

/// Counts the removed forwards and outbound entries, each name once.
fn removed(comparison: Option<&Comparison>) -> Numbers {
    let of_kind = |kind: Option<LineKind>| {
        let removed = comparison.into_iter().flat_map(|one| &one.removed);
        let of_kind = removed.filter(|line| line.kind == kind);
        let names: BTreeSet<&str> = of_kind.map(|line| line.name.as_str()).collect();
        names.len()
    };
    Numbers {
        forwards: of_kind(None),
        entries: of_kind(Some(LineKind::Outbound)),
    }
}

/// Returns the name of the FORWARD policy if no rule differs.
fn only_policy(difference: &Difference) -> Option<&str> {
    let firewall = &difference.comparison.as_ref()?.firewall;
    let mut fields = firewall.iter().map(|change| change.field);
    let policy = fields.find(|field| [POLICY, POLICY_V6].contains(field));
    policy.filter(|_| (difference.added, difference.removed) == (0, 0))
}

fn counts(difference: &Difference) -> String {
    let [added, removed] = [difference.added, difference.removed].map(|n| counted(n, "rule"));
    format!("{added} added, {removed} removed")
}

/// The report for programs; docs/json.md documents the fields.
#[derive(Serialize)]
struct Json<'r> {
    spec: &'r str,
    dry_run: bool,
    /// Whether the rules have changed; in a dry run, whether they would.
    changed: bool,
    rules: Rules,
    firewall: &'r [FieldChange],
    forwards: Forwards<'r>,
    drift: &'r [Drift],
    warnings: Vec<&'r str>,
    /// The other remarks of the text report, in the same words.
    notes: Vec<&'r str>,
    /// The seconds that are left to confirm the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirm_within_secs: Option<u64>,
    /// The foreign rules that were taken out, or would be. Missing without `--adopt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    adopted: Option<Vec<JsonAdopted<'r>>>,
    /// The tests of the spec because of which the change was refused.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    failed_tests: &'r [TestResult],
}

#[derive(Default, Serialize)]
struct Rules {
    added: usize,
    removed: usize,
}

#[derive(Default, Serialize)]
struct Forwards<'r> {
    added: &'r [ForwardLine],
    removed: &'r [ForwardLine],
    changed: &'r [ForwardChange],
}

impl<'r> Json<'r> {
    fn new(spec: &'r str, report: &'r ApplyReport, args: &Apply) -> Self {
        let (difference, pending) = match &report.outcome {
            ChangeOutcome::Unchanged => (None, None),
            ChangeOutcome::Would(difference) => (Some(difference), None),
            ChangeOutcome::Made {
                difference,
                pending,
            } => (Some(difference), pending.as_ref()),
        };
        let comparison = difference.and_then(|difference| difference.comparison.as_ref());
        Self {
            spec,
            dry_run: args.dry_run,
            changed: difference.is_some(),
            rules: difference.map_or_else(Rules::default, |difference| Rules {
                added: difference.added,
                removed: difference.removed,
            }),
            firewall: comparison.map_or(&[], |comparison| &comparison.firewall),
            forwards: comparison.map_or_else(Forwards::default, |comparison| Forwards {
                added: &comparison.added,
                removed: &comparison.removed,
                changed: &comparison.changed,
            }),
            drift: comparison.map_or(&[], |comparison| &comparison.drift),
            warnings: report
                .remarks
                .warnings()
                .chain(report.after.warnings())
                .collect(),
            notes: report.remarks.notes().chain(report.after.notes()).collect(),
            confirm_within_secs: pending.map(|pending| pending.left()),
            adopted: args
                .adopt
                .then(|| report.adopted.iter().map(JsonAdopted::from).collect()),
            failed_tests: &[],
        }
    }

    /// Reports a change that was refused because of tests.
    fn refused(spec: &'r str, failed: &'r Failed, dry_run: bool) -> Self {
        Self {
            spec,
            dry_run,
            changed: false,
            rules: Rules::default(),
            firewall: &[],
            forwards: Forwards::default(),
            drift: &[],
            warnings: failed.remarks.warnings().collect(),
            notes: failed.remarks.notes().collect(),
            confirm_within_secs: None,
            adopted: None,
            failed_tests: failed.tests(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_the_forwards_that_a_change_touches() {
        let names = |n: usize| vec![String::new(); n];
        let summary = |[added, changed, removed]: [usize; 3], all, entries| {
            let forwards = ForwardNames {
                added: names(added),
                changed: names(changed),
                removed: names(removed),
            };
            let removed = Numbers {
                forwards: removed,
                entries: 0,
            };
            applied(
                &forwards,
                removed,
                Numbers {
                    forwards: all,
                    entries,
                },
            )
        };
        for (moved, all, entries, words) in [
            ([4, 0, 0], 4, 0, "applied 4 forwards"),
            ([0, 1, 0], 1, 0, "applied 1 forward"),
            ([0, 1, 0], 4, 0, "changed 1 of 4 forwards"),
            (
                [1, 1, 1],
                3,
                0,
                "changed 2 of 3 forwards, removed 1 forward",
            ),
            ([0, 0, 1], 3, 0, "removed 1 forward"),
            // Somebody had removed the rules.
            ([0, 0, 0], 3, 0, "applied 3 forwards"),
            ([1, 0, 0], 0, 1, "applied 1 outbound entry"),
            ([1, 0, 0], 0, 2, "changed 1 of 2 outbound entries"),
            ([2, 1, 0], 2, 1, "applied 2 forwards and 1 outbound entry"),
            ([0, 0, 0], 1, 2, "applied 1 forward and 2 outbound entries"),
            (
                [0, 1, 0],
                2,
                1,
                "changed 1 of 3 forwards and outbound entries",
            ),
            ([0, 0, 1], 2, 1, "removed 1 forward"),
        ] {
            assert_eq!(summary(moved, all, entries), words);
        }
    }
}

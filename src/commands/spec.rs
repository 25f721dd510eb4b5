//! The spec that a command is about: read, checked and reported.

use std::path::Path;

use super::console::Console;
use super::error::Result;
use super::failure::Refusal;
use super::host::Host;
use crate::forwards::{Forward, ForwardSet};
use crate::host::spec_source::{self, Source};
use crate::ops::history::{LastLoaded, moment};
use crate::ops::records::{KeptFile, KeptSpec};
use crate::plan::digest::Digest;
use crate::yaml::places::Places;
use crate::yaml::{self, Problem, Reading, Severity, page};

/// Says everything that there is to say of a spec.
#[must_use]
pub(super) fn examine(source: &Source) -> Reading {
    let texts: Vec<&[u8]> = source.texts().map(|(_, text)| text).collect();
    yaml::examine_all(&texts)
}

/// Where the bytes of a spec stand.
#[must_use]
pub(super) fn places(source: &Source) -> Places<'_> {
    Places::new(source.texts())
}

/// Returns the digest of a spec's bytes: of each file's, in order.
fn digest(source: &Source) -> Digest {
    Digest::of(source.texts().map(|(_, text)| text))
}

/// Reads and checks a spec; its errors and warnings are shown.
pub(super) fn load_spec(
    named: Option<&Path>,
    console: &mut Console,
) -> Result<(Source, ForwardSet)> {
    let source = spec_source::read(named)?;
    let set = spec_of(&source, examine(&source), console)?;
    Ok((source, set))
}

/// Reads and checks the spec named, or the one whose plan was loaded last, or one that is found.
pub(super) fn load_applied_spec(
    named: Option<&Path>,
    on: Host<'_>,
    console: &mut Console,
) -> Result<(Source, ForwardSet)> {
    if spec_source::named(named).is_none()
        && let Some(last) = on.last_loaded()?
        && let since = match &last {
            LastLoaded::Change(_) => "as it was applied last".to_owned(),
            LastLoaded::Saved(saved) => format!(
                "as it was saved at {}: nvactl.service has loaded that, and no later change",
                moment(saved.time)
            ),
        }
        && let Some(kept) = last.spec()
    {
        let files = kept.files.into_iter().map(|file| (file.name, file.text));
        let source = Source::kept(kept.name, files);
        console.note(format_args!("the spec is {} {since}", source.name));
        let set = spec_of(&source, examine(&source), console)?;
        return Ok((source, set));
    }
    load_spec(named, console)
}

/// A spec as the history keeps it.
pub(super) fn kept(source: &Source) -> KeptSpec {
    let texts = source.texts();
    let files: Vec<KeptFile> = texts
        .map(|(name, text)| KeptFile {
            name: name.to_owned(),
            text: String::from_utf8_lossy(text).into_owned(),
        })
        .collect();
    KeptSpec {
        name: source.absolute(),
        digest: digest(source),
        files,
    }
}

/// Returns the forwards of a spec; its errors and warnings are shown.
pub(super) fn spec_of(
    source: &Source,
    reading: Reading,
    console: &mut Console,
) -> Result<ForwardSet> {
    let errors = reading.problems.iter();
    let errors = errors.filter(|problem| problem.severity() == Severity::Error);
    let refusal = Refusal::Spec {
        file: source.name.clone(),
        count: errors.count(),
    };
    tell_problems(source, reading.problems, console);
    reading.set.ok_or_else(|| refusal.into())
}

/// Shows the errors and warnings of a spec.
pub(super) fn tell_problems(source: &Source, mut problems: Vec<Problem>, console: &mut Console) {
    problems.retain(|problem| problem.severity() != Severity::Note);
    if !problems.is_empty() {
        show_problems(&places(source), &problems, console);
    }
}

pub(super) fn show_problems(places: &Places<'_>, problems: &[Problem], console: &mut Console) {
    // Escapes are for the stream to keep or strip.
    let renderer = page::renderer(true);
    console.tell_pages(&page::pages(places, problems, &renderer));
}

/// The forwards of a name, one for each protocol, or a refusal with the nearest name.
pub(super) fn find_forwards<'s>(
    set: &'s ForwardSet,
    name: &str,
    file: &str,
) -> Result<Vec<&'s Forward>> {
    let of_name = |forward: &&Forward| forward.name.as_str() == name;
    let found: Vec<&Forward> = set.forwards.iter().filter(of_name).collect();
    let found = (!found.is_empty()).then_some(found);
    found.ok_or_else(|| {
        let names: Vec<&str> = set
            .forwards
            .iter()
            .map(|forward| forward.name.as_str())
            .collect();
        let refusal = Refusal::NoSuchForward {
            file: file.to_owned(),
            name: name.to_owned(),
            near: yaml::nearest(name, &names).map(str::to_owned),
        };
        refusal.into()
    })
}

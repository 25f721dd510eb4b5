//! Reads and checks the spec of a command, and prints its problems.

use std::path::Path;

use super::console::Console;
use super::error::Result;
use super::failure::CommandRefusal;
use super::host::HostAccess;
use crate::forwards::{ForwardSet, Name};
use crate::host::network_file::{NetworkText, NetworkTextError};
use crate::host::spec_source::{self, SpecSource};
use crate::kubernetes::KubeObjects;
use crate::net::printable;
use crate::ops::history::{LastLoaded, moment};
use crate::ops::records::{KeptFile, KeptSpec};
use crate::plan::digest::Digest;
use crate::yaml::places::Places;
use crate::yaml::{self, FileFault, NetworkFile, Problem, Reading, Severity, page};

/// Reads a spec and the files of networks that it names.
pub(super) fn read_spec(named: Option<&Path>) -> Result<SpecSource> {
    Ok(with_networks(spec_source::read(named)?))
}

/// Reads the files of networks that a spec names.
#[must_use]
pub(super) fn with_networks(source: SpecSource) -> SpecSource {
    let paths = yaml::network_paths(&texts(&source));
    source.with_networks(paths)
}

pub(super) fn texts(source: &SpecSource) -> Vec<&[u8]> {
    source.texts().map(|(_, text)| text).collect()
}

/// Checks a spec and returns every problem.
#[must_use]
pub(super) fn examine(source: &SpecSource) -> Reading {
    examine_against(source, None)
}

/// Checks a spec, and its targets against objects of Kubernetes.
#[must_use]
pub(super) fn examine_against(source: &SpecSource, objects: Option<&KubeObjects>) -> Reading {
    let mut reading = yaml::examine_against(&texts(source), &network_files(source), objects);
    let tests = reading.set.iter().flat_map(|set| &set.tests);
    if tests.count() > 0 {
        reading.locate_tests(&places(source));
    }
    reading
}

/// Returns the files of networks that were read with a spec.
pub(super) fn network_files(source: &SpecSource) -> Vec<NetworkFile<'_>> {
    let networks = source.networks().iter();
    let networks = networks.map(|file| NetworkFile {
        path: &file.path,
        content: file.content.as_deref().map_err(fault),
    });
    networks.collect()
}

/// Returns the reason why a file of networks was not read, for the report of a spec.
fn fault(error: &NetworkTextError) -> FileFault {
    match error {
        NetworkTextError::NoFolder => FileFault::NoFolder,
        NetworkTextError::Outside => FileFault::Outside,
        NetworkTextError::Linked(to) => FileFault::Linked(printable::path(to)),
        other => FileFault::Unreadable(other.to_string()),
    }
}

/// Returns the positions in the files of a spec.
#[must_use]
pub(super) fn places(source: &SpecSource) -> Places<'_> {
    Places::new(named_bytes(source))
}

/// Returns the name and the bytes of each file of a spec, then of each file of networks.
pub(super) fn named_bytes(source: &SpecSource) -> impl Iterator<Item = (&str, &[u8])> {
    let networks = source.networks().iter();
    let networks = networks.map(|file| (file.name.as_str(), bytes(file)));
    source.texts().chain(networks)
}

/// Returns the bytes of a file of networks; none if it was not read.
fn bytes(file: &NetworkText) -> &[u8] {
    file.content.as_deref().unwrap_or_default()
}

/// Returns the digest of the bytes of a spec's files, in order, and of its files of networks.
fn digest(source: &SpecSource) -> Digest {
    let networks = source.networks().iter().map(bytes);
    Digest::of(source.texts().map(|(_, text)| text).chain(networks))
}

/// Reads and checks a spec; prints its errors and warnings.
pub(super) fn load_spec(
    named: Option<&Path>,
    console: &mut Console,
) -> Result<(SpecSource, ForwardSet)> {
    let source = read_spec(named)?;
    let set = spec_of(&source, examine(&source), console)?;
    Ok((source, set))
}

/// Reads and checks the named spec, else the one that was loaded last, else one at a default path.
pub(super) fn load_applied_spec(
    named: Option<&Path>,
    on: HostAccess<'_>,
    console: &mut Console,
) -> Result<(SpecSource, ForwardSet)> {
    if spec_source::named(named).is_none()
        && let Some(last) = on.last_loaded()?
        && let since = match &last {
            LastLoaded::Change(_) => "as it was applied last".to_owned(),
            LastLoaded::Saved(saved) => format!(
                "as it was saved at {}: nvactl.service loaded it, and no change came later",
                moment(saved.time)
            ),
        }
        && let Some(kept) = last.spec()
    {
        let changed = changed(&kept);
        let source = kept_source(kept);
        console.note(format_args!("the spec is {} {since}{changed}", source.name));
        let set = spec_of(&source, examine(&source), console)?;
        return Ok((source, set));
    }
    load_spec(named, console)
}

/// Returns a spec from its record.
pub(super) fn kept_source(kept: KeptSpec) -> SpecSource {
    let [files, networks] = [kept.files, kept.networks]
        .map(|files| files.into_iter().map(|file| (file.name, file.text)));
    SpecSource::kept(kept.name, files, networks)
}

/// Says that a recorded spec is another one on disk now. The commands that are suggested read it from there.
fn changed(kept: &KeptSpec) -> &'static str {
    match spec_source::at(Path::new(&kept.name)).map(with_networks) {
        Some(source) if digest(&source) != kept.digest => "; the file has changed since",
        _ => "",
    }
}

/// Returns the record of a spec for the history.
pub(super) fn kept(source: &SpecSource) -> KeptSpec {
    let keep = |(name, text): (&str, &[u8])| KeptFile {
        name: name.to_owned(),
        text: String::from_utf8_lossy(text).into_owned(),
    };
    let networks = source.networks().iter();
    let networks = networks.map(|file| (file.path.as_str(), bytes(file)));
    KeptSpec {
        name: source.absolute(),
        digest: digest(source),
        files: source.texts().map(keep).collect(),
        networks: networks.map(keep).collect(),
    }
}

/// Returns the forwards of a spec; prints its errors and warnings.
pub(super) fn spec_of(
    source: &SpecSource,
    reading: Reading,
    console: &mut Console,
) -> Result<ForwardSet> {
    let errors = reading.problems.iter();
    let errors = errors.filter(|problem| problem.severity() == Severity::Error);
    let refusal = CommandRefusal::Spec {
        file: source.name.clone(),
        count: errors.count(),
    };
    tell_problems(source, reading.problems, console);
    reading.set.ok_or_else(|| refusal.into())
}

/// Prints the errors and warnings of a spec.
pub(super) fn tell_problems(
    source: &SpecSource,
    mut problems: Vec<Problem>,
    console: &mut Console,
) {
    problems.retain(|problem| problem.severity() != Severity::Note);
    if !problems.is_empty() {
        show_problems(&places(source), &problems, console);
    }
}

pub(super) fn show_problems(places: &Places<'_>, problems: &[Problem], console: &mut Console) {
    // The stream keeps or strips the escapes.
    let renderer = page::renderer(true);
    console.tell_pages(&page::pages(places, problems, &renderer));
}

/// Refuses a name that no forward and no outbound entry has, with the nearest name.
pub(super) fn check_name(set: &ForwardSet, name: &str, file: &str) -> Result<()> {
    let forwards = set.forwards.iter().map(|one| &one.name);
    let names = forwards.chain(set.outbound.iter().map(|one| &one.name));
    if names.clone().any(|one| one.as_str() == name) {
        return Ok(());
    }
    let names: Vec<&str> = names.map(Name::as_str).collect();
    let refusal = CommandRefusal::NoSuchForward {
        file: file.to_owned(),
        name: name.to_owned(),
        near: yaml::nearest(name, &names).map(str::to_owned),
    };
    Err(refusal.into())
}

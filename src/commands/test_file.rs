//! Reads a file of tests for a spec, as `--tests FILE` names it.

use std::path::Path;

use super::console::Console;
use super::error::Result;
use super::failure::CommandRefusal;
use super::spec::{named_bytes, network_files, show_problems, texts, with_networks};
use crate::forwards::PacketTest;
use crate::host::file;
use crate::host::network_file::MAX_BYTES;
use crate::host::spec_source::SpecSource;
use crate::yaml::places::Places;
use crate::yaml::{TestFile, examine_tests};

/// Reads and checks a file of tests for a valid spec; prints its errors. A test may name the networks of the spec.
///
/// # Errors
/// If the file cannot be read, or has errors.
pub(super) fn load_tests(
    path: &Path,
    spec: &SpecSource,
    console: &mut Console,
) -> Result<Vec<PacketTest>> {
    let text = file::read_limited(path, MAX_BYTES)?;
    let source = with_networks(SpecSource::of_text(path, text));
    let [text] = texts(&source)[..] else {
        return Ok(Vec::new());
    };
    let mut reading = examine_tests(&TestFile {
        text,
        networks: &network_files(&source),
        spec: &texts(spec),
        spec_networks: &network_files(spec),
    });
    let places = Places::new(named_bytes(&source).chain(named_bytes(spec)));
    reading.locate_tests(&places);
    let refusal = CommandRefusal::Spec {
        file: source.name.clone(),
        count: reading.problems.len(),
    };
    if !reading.problems.is_empty() {
        show_problems(&places, &reading.problems, console);
    }
    reading.tests.ok_or_else(|| refusal.into())
}

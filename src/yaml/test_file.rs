//! A file of tests for a spec: the key `tests`, and `networks` of its own.

use super::decode::{networks_of, silenced};
use super::fields::Fields;
use super::load::load;
use super::network_file::NetworkFile;
use super::networks::NetworkNames;
use super::packet_tests::{decode, locate, warn_of_interfaces};
use super::places::{Places, placed};
use super::problem::{self, Code, Problem};
use crate::forwards::PacketTest;
use crate::net::Interface;

/// The keys of the file.
const KEYS: &[&str] = &["networks", "tests"];

/// A file of tests, and the spec whose names of networks it may use.
#[derive(Debug)]
pub struct TestFile<'t> {
    pub text: &'t [u8],
    /// The files of networks that the file names.
    pub networks: &'t [NetworkFile<'t>],
    /// The texts of the spec, which is valid.
    pub spec: &'t [&'t [u8]],
    /// The files of networks that the spec names.
    pub spec_networks: &'t [NetworkFile<'t>],
    /// The interfaces that the spec names.
    pub interfaces: &'t [&'t Interface],
}

/// The result of reading a file of tests.
#[derive(Debug)]
pub struct TestReading {
    /// `None` if a problem is an error.
    pub tests: Option<Vec<PacketTest>>,
    /// In the order of the file.
    pub problems: Vec<Problem>,
    /// The first byte of each test.
    starts: Vec<usize>,
}

impl TestReading {
    /// Adds its file and line to each test. `places` holds the files that were examined.
    pub fn locate_tests(&mut self, places: &Places<'_>) {
        if let Some(tests) = &mut self.tests {
            locate(tests, &self.starts, places);
        }
    }
}

/// Checks a file of tests and reports every problem. Places count through the file, its files of networks, the texts of
/// the spec, and the spec's files of networks.
#[must_use]
pub fn examine_tests(file: &TestFile<'_>) -> TestReading {
    let own = file.networks.iter().map(NetworkFile::bytes);
    let of_spec = file.spec_networks.iter().map(NetworkFile::bytes);
    let all = [file.text].into_iter().chain(own);
    let all = all.chain(file.spec.iter().copied()).chain(of_spec);
    let starts: Vec<usize> = placed(all).map(|(start, _)| start).collect();
    let (own, of_spec) = starts[1..].split_at(file.networks.len());
    let (spec, of_spec) = of_spec.split_at(file.spec.len());

    let (mut problems, mut values) = (Vec::new(), 0);
    let of_spec = of_spec.iter().copied().zip(file.spec_networks);
    let mut networks = NetworkNames::new(of_spec, values, true);
    let mut silence = Vec::new();
    for (text, start) in file.spec.iter().zip(spec) {
        // The problems of the spec have been reported by then.
        if let Ok(document) = load(text, *start, &mut values) {
            networks_of(&document.root, &mut networks);
            silence.extend(silenced(&document.root));
        }
    }
    networks.change_files(own.iter().copied().zip(file.networks));
    let mut tests = Vec::new();
    match load(file.text, 0, &mut values) {
        Ok(document) => {
            problems.extend(document.problems);
            let place = "a file of tests";
            if let Some(fields) =
                Fields::of(&document.root, "test file", place, KEYS, &mut problems)
            {
                if let Some(node) = fields.get("networks") {
                    networks.decode(node, &mut problems);
                }
                if let Some(node) = fields.required("tests", &mut problems) {
                    tests = decode(node, &mut networks, &mut problems);
                }
            }
        }
        Err(problem) => problems.push(problem.in_test_file()),
    }
    if !silence.contains(&Code::UnknownInterface) {
        let known = file.interfaces.iter().copied().collect();
        warn_of_interfaces(&tests, &known, &mut problems);
    }
    let has_error = problem::in_order(&mut problems);
    let starts = tests.iter().map(|test| test.span.start).collect();
    let tests = tests.into_iter().map(|test| test.value).collect();
    TestReading {
        tests: Some(tests).filter(|_| !has_error),
        problems,
        starts,
    }
}

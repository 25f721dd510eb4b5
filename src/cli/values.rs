//! Values that several groups take.

use std::path::PathBuf;

use clap::Args;

use crate::net::Family;

#[derive(Debug, Args)]
pub struct Spec {
    /// The forward spec: a file, a folder whose *.yaml files are one spec, or - for standard input.
    pub spec: Option<PathBuf>,
}

/// A family, as `v4` or `v6`.
pub(super) fn family(text: &str) -> Result<Family, String> {
    let mut all = Family::ALL.into_iter();
    all.find(|family| family.as_str() == text)
        .ok_or_else(|| "not one of v4, v6".to_owned())
}

/// A time in seconds that a try may take.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.001..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("not a number of seconds from 0.001 to 3600".to_owned()),
    }
}

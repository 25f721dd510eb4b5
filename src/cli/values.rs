//! Values of several groups.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use crate::net::Family;

#[derive(Debug, Args)]
pub struct SpecArg {
    /// The forward spec: a file, a folder whose *.yaml files are one spec, or - for standard input.
    pub spec: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Args)]
pub struct LockTimeout {
    /// How long to wait for another nvactl that is changing the rules.
    #[arg(id = "lock_timeout", long = "lock-timeout", value_name = "SECONDS", default_value_t = 30, value_parser = number::<u64>)]
    pub secs: u64,
}

/// Reads a family: `v4` or `v6`.
pub(super) fn family(text: &str) -> Result<Family, String> {
    let mut all = Family::ALL.into_iter();
    all.find(|family| family.as_str() == text)
        .ok_or_else(|| "not one of v4, v6".to_owned())
}

/// Reads a whole number.
pub(super) fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "not a number".to_owned())
}

/// Reads a whole number that is not 0.
pub(super) fn positive<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| "not a whole number from 1".to_owned())
}

/// Reads a duration as seconds: `0.5`, `30s`, `2m`, `1h`.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    let (number, unit_secs) = with_unit(text);
    match number
        .parse::<f64>()
        .map(|number| number * f64::from(unit_secs))
    {
        Ok(seconds) if (0.001..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("not a time from 0.001 seconds to 1h, such as 0.5, 30s or 2m".to_owned()),
    }
}

/// Splits a time into its number and the seconds of its unit.
pub(super) fn with_unit(text: &str) -> (&str, u16) {
    let units = [('s', 1), ('m', 60), ('h', 60 * 60)];
    let mut each = units.into_iter();
    let found = each.find_map(|(unit, secs)| Some((text.strip_suffix(unit)?, secs)));
    found.unwrap_or((text, 1))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn a_word_is_no_number() {
        assert_eq!(number::<u64>("30"), Ok(30));
        assert_eq!(number::<u64>("abc"), Err("not a number".to_owned()));
        for text in ["abc", "0"] {
            let refused = Err("not a whole number from 1".to_owned());
            assert_eq!(positive::<NonZeroU32>(text), refused, "{text}");
        }
    }
}

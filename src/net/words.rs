//! Counts and lists for messages.

use std::error::Error;
use std::fmt::Display;

/// The longest list of names in a message. The rest is only counted.
const MOST_NAMES: usize = 3;

/// Lists the first names, then `and N more` for the rest.
pub fn names<T: Display>(names: impl IntoIterator<Item = T>) -> String {
    few(names, MOST_NAMES)
}

/// Lists names as [`names`] does, each in backticks.
pub fn quoted<T: Display>(each: impl IntoIterator<Item = T>) -> String {
    names(each.into_iter().map(|name| format!("`{name}`")))
}

/// Returns a number with its noun: `1 rule`, `2 rules`.
#[must_use]
pub fn counted(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// Joins an error and its causes: `error: cause: cause of the cause`.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut words = without_number(&error.to_string()).to_owned();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        words = format!("{words}: {}", without_number(&text));
        cause = error.source();
    }
    words
}

/// Removes the number of an error of the operating system, which [`std::io::Error`] prints behind its words.
fn without_number(text: &str) -> &str {
    let number = |rest: &str| {
        let digits = rest.strip_suffix(')')?;
        digits.parse::<u32>().ok()
    };
    match text.rsplit_once(" (os error ") {
        Some((words, rest)) if number(rest).is_some() => words,
        _ => text,
    }
}

/// Lists the first `most` items, then `and N more` for the rest.
pub fn few<T: Display>(items: impl IntoIterator<Item = T>, most: usize) -> String {
    let mut items = items.into_iter();
    let shown: Vec<String> = items
        .by_ref()
        .take(most)
        .map(|one| one.to_string())
        .collect();
    let shown = shown.join(", ");
    match items.count() {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn an_error_of_the_operating_system_has_no_number() {
        let error = io::Error::from_raw_os_error(2);
        assert!(error.to_string().ends_with(" (os error 2)"));
        assert_eq!(with_causes(&error), "No such file or directory");
        assert_eq!(without_number("a (os error x)"), "a (os error x)");
    }

    #[test]
    fn a_long_list_is_cut_and_the_rest_is_counted() {
        for (items, listed) in [
            (&["a"][..], "a"),
            (&["a", "b"], "a, b"),
            (&["a", "b", "c", "d"], "a, b and 2 more"),
        ] {
            assert_eq!(few(items, 2), listed);
        }
    }
}

//! Finds lines of a rules file that iptables-restore refuses for their blanks and line ends alone.
//! [`super::Reader`] reads them all the same, so that a person's file is understood.

use super::{ParseError, ParseProblem};
use crate::netfilter::token::words;

/// Returns the first line that every iptables-restore refuses for its spelling (measured: 1.8.9, both
/// backends; `tests/lab/rehearsal.rs` asks the one that is installed).
///
/// # Errors
/// [`ParseError`] for that line.
pub fn check_spelling(text: &str) -> Result<(), ParseError> {
    let mut numbered = (1..).zip(text.split('\n'));
    let refused = numbered.find_map(|(number, line)| Some((number, line, fault(line)?)));
    match refused {
        Some((line, text, problem)) => Err(ParseError {
            line,
            text: text.to_owned(),
            problem,
        }),
        None => Ok(()),
    }
}

fn fault(line: &str) -> Option<ParseProblem> {
    let said = line.trim_matches([' ', '\t', '\r']);
    let indented = line.starts_with([' ', '\t']);
    match line.as_bytes().first()? {
        // A comment may hold anything, and the counters of a chain may end in anything.
        b'#' | b':' => None,
        _ if line.ends_with('\r') => Some(ParseProblem::CarriageReturn),
        _ if said.is_empty() || (said == "COMMIT" && said != line) => Some(ParseProblem::Blanks),
        _ if indented && said.starts_with(['#', '*', ':']) => Some(ParseProblem::Blanks),
        _ => None,
    }
}

/// Returns the number, counted from 1, of the first line that has a word.
#[must_use]
pub fn first_line_with(text: &str, word: &str) -> Option<usize> {
    let mut numbered = (1..).zip(text.split('\n'));
    numbered.find_map(|(number, line)| words(line).any(|one| one == word).then_some(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_refused_for_its_blanks_and_line_ends_alone() {
        for (text, line) in [
            ("*filter\n:INPUT DROP [0:0]\nCOMMIT\n", None),
            (
                "*filter  \n:INPUT DROP [0:0]\r\n  -A INPUT -j DROP \t\n\nCOMMIT",
                None,
            ),
            ("# a comment\r\n*filter\nCOMMIT\n", None),
            ("*filter\r\n:INPUT DROP [0:0]\r\nCOMMIT\r\n", Some(1)),
            ("*filter\n-A INPUT -j DROP\r\nCOMMIT\n", Some(2)),
            ("*filter\nCOMMIT \n", Some(2)),
            ("*filter\n COMMIT\n", Some(2)),
            ("*filter\n  # a comment\nCOMMIT\n", Some(2)),
            ("*filter\nCOMMIT\n  ", Some(3)),
            ("\r\n*filter\nCOMMIT\n", Some(1)),
            (" *filter\nCOMMIT\n", Some(1)),
            ("*filter\n\t:INPUT DROP\nCOMMIT\n", Some(2)),
        ] {
            let refused = check_spelling(text).err();
            assert_eq!(refused.as_ref().map(|error| error.line), line, "{text:?}");
        }
        let told = check_spelling("*filter\nCOMMIT \n").map_err(|error| error.to_string());
        let expected = "line 2: iptables-restore takes no blanks there: `COMMIT `";
        assert_eq!(told, Err(expected.to_owned()));
    }
}

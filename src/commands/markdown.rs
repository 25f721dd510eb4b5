//! Escapes foreign text in markdown: it cannot end a cell or a fence, open a tag or mention a person.

use std::fmt::Write as _;

use crate::net::printable;

/// Formats a text as code in a table's cell.
pub fn code(text: &str) -> String {
    let mut out = String::from("<code>");
    for c in printable::line(text).to_string().chars() {
        if ends_code(c) {
            let _ = write!(out, "&#{};", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out + "</code>"
}

/// Formats a text as code in a table's cell, in backticks unless it has a character that is special in
/// markdown or HTML.
pub fn short_code(text: &str) -> String {
    if text.contains(|c| matches!(c, '`' | '|' | '\\') || printable::is_hidden(c)) {
        code(text)
    } else {
        format!("`{text}`")
    }
}

/// Formats a sentence in a table's cell, as code if a foreign word in it, such as a log prefix, has a
/// character that is special in markdown or HTML.
pub fn note(text: &str) -> String {
    let between_backticks = text.split('`').count() == 3;
    if text.contains(['|', '<', '&', '\\']) || (text.contains('`') && !between_backticks) {
        code(text)
    } else {
        text.to_owned()
    }
}

/// Puts lines of a language between fences.
pub fn fenced(language: &str, lines: &str) -> String {
    // Only a fence of the same length ends a fence.
    let runs = lines.split(|c| c != '`').map(str::len);
    let fence = "`".repeat(3.max(runs.max().unwrap_or(0) + 1));
    format!("{fence}{language}\n{lines}{fence}\n")
}

fn ends_code(c: char) -> bool {
    matches!(
        c,
        '&' | '<' | '>' | '|' | '`' | '\\' | '*' | '_' | '[' | ']' | '@' | '~'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_in_its_cell() {
        let comment = "a|b`c`\n| # | <img> @all \u{202e}";
        let cell = code(comment);
        assert!(!cell.contains(['|', '`', '\n', '@', '\u{202e}']), "{cell}");
        assert!(cell.contains("&#92;u{202e}</code>"), "{cell}");
        assert_eq!(short_code(comment), cell);
        assert_eq!(short_code("-A FORWARD -s <b>"), "`-A FORWARD -s <b>`");
        assert_eq!(note("begins with `a`, but"), "begins with `a`, but");
        assert_eq!(
            note("with `a`<b>`"),
            "<code>with &#96;a&#96;&#60;b&#62;&#96;</code>"
        );
        assert_eq!(note("with `a|`"), "<code>with &#96;a&#124;&#96;</code>");
    }

    #[test]
    fn a_fence_is_longer_than_any_in_its_text() {
        assert_eq!(fenced("diff", "+ x\n"), "```diff\n+ x\n```\n");
        assert_eq!(fenced("", "a ````\n"), "`````\na ````\n`````\n");
    }
}

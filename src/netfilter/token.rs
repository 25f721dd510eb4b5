//! One word of iptables-save text, and how iptables quotes it.
//!
//! This file knows quoting alone. The meaning of words is known to `text`.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use crate::net::printable::is_hidden;

/// One word, spelled as iptables-save spells it, quotes and backslashes included.
///
/// The spelling is kept because a foreign rule must print as it was read: the string match, for example,
/// always quotes its pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(Box<str>);

impl Token {
    /// Returns the word as it was spelled.
    #[must_use]
    pub fn spelled(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Token {
    /// Keeps one of [`words`].
    fn from(spelled: &str) -> Self {
        Self(spelled.into())
    }
}

/// A text as iptables-save spells a comment or a log prefix: bare when every byte is in
/// `[A-Za-z0-9_-]`, else in double quotes with `"`, `\` and `'` escaped (measured;
/// `xtables_save_string` in libxtables).
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'t>(pub &'t str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        if !self.0.is_empty() && self.0.bytes().all(bare) {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        for c in self.0.chars() {
            if matches!(c, '"' | '\\' | '\'') {
                f.write_char('\\')?;
            }
            f.write_char(c)?;
        }
        f.write_char('"')
    }
}

/// Returns a word without its quotes, as a program gets it from the command line.
#[must_use]
pub fn value(spelled: &str) -> Cow<'_, str> {
    if !spelled.contains('"') {
        return Cow::Borrowed(spelled);
    }
    let mut value = String::with_capacity(spelled.len());
    let mut quoted = false;
    let mut chars = spelled.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted => value.extend(chars.next()),
            c => value.push(c),
        }
    }
    Cow::Owned(value)
}

/// Quotes a word for a POSIX shell, so that a copied command does what it says. Characters that a terminal
/// must not get are written as bytes between `$'` and `'` (POSIX.1-2024, 2.2.4).
#[must_use]
pub fn shell_word(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:,=+@%".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else if word.contains(is_hidden) {
        let mut quoted = String::from("$'");
        for c in word.chars() {
            match c {
                '\\' | '\'' => quoted.extend(['\\', c]),
                c if is_hidden(c) => {
                    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                        let _ = write!(quoted, "\\x{byte:02x}");
                    }
                }
                c => quoted.push(c),
            }
        }
        quoted + "'"
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The characters that separate words for iptables-restore (`add_param_to_argv` in iptables/xshared.c).
const BLANKS: [char; 2] = [' ', '\t'];

/// Splits one line into its words, with their quotes. A quote that is not closed runs to the end of the line.
pub fn words(line: &str) -> impl Iterator<Item = &str> {
    split(line).map(|(word, _)| word)
}

/// Returns whether every quote in a line is closed again.
#[must_use]
pub fn is_closed(line: &str) -> bool {
    !line.contains('"') || split(line).all(|(_, closed)| closed)
}

/// Splits a line into its words, each with whether its quotes are closed.
fn split(line: &str) -> impl Iterator<Item = (&str, bool)> {
    let mut rest = line.trim_start_matches(BLANKS);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (len, closed) = word_len(rest);
        let (word, after) = rest.split_at(len);
        rest = after.trim_start_matches(BLANKS);
        Some((word, closed))
    })
}

/// The bytes that end a word, and the quote, which may hide its end.
const STOPS: [bool; 256] = {
    let mut stops = [false; 256];
    stops[b' ' as usize] = true;
    stops[b'\t' as usize] = true;
    stops[b'"' as usize] = true;
    stops
};

/// Returns the length in bytes of the word at the front of `text`, and whether its quotes are closed. A
/// backslash escapes only between quotes (measured).
fn word_len(text: &str) -> (usize, bool) {
    // Nearly every word has no quotes.
    let mut bytes = text.bytes();
    let plain = bytes.position(|b| STOPS[usize::from(b)]);
    let plain = plain.unwrap_or(text.len());
    let (mut quoted, mut escaped) = (false, false);
    for (at, b) in text.bytes().enumerate().skip(plain) {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b' ' | b'\t' if !quoted => return (at, true),
            _ => {}
        }
    }
    (text.len(), !quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_follows_iptables_save_and_comes_back() {
        for (text, spelled) in [
            ("web", "web"),
            ("a_b-C9", "a_b-C9"),
            ("a.b", r#""a.b""#),
            ("two words", r#""two words""#),
            (r#"say "hi""#, r#""say \"hi\"""#),
            (r"it's \ here", r#""it\'s \\ here""#),
        ] {
            assert_eq!(Quoted(text).to_string(), spelled);
            assert_eq!(value(spelled), text);
            assert_eq!(words(spelled).collect::<Vec<_>>(), [spelled]);
        }
    }

    #[test]
    fn a_line_falls_into_words_and_quoted_words() {
        let words: Vec<_> = words(r#"-A INPUT  -m comment --comment "a \" b" -j LOG"#)
            .map(value)
            .collect();
        assert_eq!(
            words,
            [
                "-A",
                "INPUT",
                "-m",
                "comment",
                "--comment",
                r#"a " b"#,
                "-j",
                "LOG"
            ]
        );
    }

    /// As iptables-restore reads them (measured, 1.8.9), and as iptables-save prints a name.
    #[test]
    fn a_backslash_outside_of_quotes_is_a_byte_like_others() {
        let line = r#"-i e\ -m comment --comment a\\b"c \" d" -j LOG"#;
        let words: Vec<_> = words(line).map(value).collect();
        assert_eq!(
            words,
            [
                "-i",
                r"e\",
                "-m",
                "comment",
                "--comment",
                r#"a\\bc " d"#,
                "-j",
                "LOG"
            ]
        );
    }

    #[test]
    fn only_spaces_and_tabs_separate_words() {
        let line = "\t-A a\rb\u{c}c  -j\tDROP ";
        assert_eq!(
            words(line).collect::<Vec<_>>(),
            ["-A", "a\rb\u{c}c", "-j", "DROP"]
        );
    }

    #[test]
    fn a_quote_that_stays_open_is_seen() {
        for (line, closed) in [
            ("-j DROP", true),
            (r#"--comment "a b" -j DROP"#, true),
            (r#"--comment a"b c"d -j DROP"#, true),
            (r#"-i "x -j DROP"#, false),
            (r#"-i e"x -j DROP"#, false),
            (r#"--comment "a \""#, false),
        ] {
            assert_eq!(is_closed(line), closed, "{line}");
        }
    }

    #[test]
    fn a_word_for_the_shell_cannot_start_a_command() {
        assert_eq!(shell_word("$(reboot)"), "'$(reboot)'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word("10.0.0.1/32"), "10.0.0.1/32");
    }

    #[test]
    fn a_word_for_the_shell_holds_no_escape_sequence_and_still_means_the_same() {
        for word in [
            "a\u{1b}[2Jb",
            "two\nlines",
            "it's \\ \u{9b} $(reboot)",
            "\u{202e}txt.exe",
            "\u{1b}1",
        ] {
            let quoted = shell_word(word);
            assert!(!quoted.contains(is_hidden), "{quoted}");
            let printed = std::process::Command::new("bash")
                .args(["-c", &format!("printf %s {quoted}")])
                .output();
            assert_eq!(
                printed.expect("bash starts").stdout,
                word.as_bytes(),
                "{quoted}"
            );
        }
    }
}

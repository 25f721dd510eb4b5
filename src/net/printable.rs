//! Makes text from outside nvactl safe to show on a terminal: control and bidirectional characters are
//! escaped.
//!
//! A rule's comment, a file name or another program's message can hold escape sequences that rewrite
//! the screen, and characters that show a line in another order than it is stored.

use std::fmt::{self, Display, Write};
use std::io;
use std::path::Path;

/// Returns whether a character is shown as an escape: a control character (C0, DEL and C1), a line or
/// paragraph separator, or one that sets the direction of text (Unicode Standard Annex 9).
#[must_use]
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}')
}

/// A text whose hidden characters `Display` prints as escapes.
#[derive(Debug, Clone, Copy)]
pub struct Printable<T> {
    text: T,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Lines,
    Line,
    Json,
}

/// Escapes hidden characters as `\u{1b}`. Line ends stay.
pub fn lines<T: Display>(text: T) -> Printable<T> {
    let form = Form::Lines;
    Printable { text, form }
}

/// Escapes hidden characters as `\u{1b}` and line ends as `\n`, so that the text is one line.
pub fn line<T: Display>(text: T) -> Printable<T> {
    let form = Form::Line;
    Printable { text, form }
}

/// Escapes the hidden characters in a JSON text as `\u001b`. The JSON keeps its meaning.
pub fn json<T: Display>(text: T) -> Printable<T> {
    let form = Form::Json;
    Printable { text, form }
}

/// Returns a path for a message, on one line.
#[must_use]
pub fn path(path: &Path) -> String {
    line(path.display()).to_string()
}

impl<T: Display> Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = self.form;
        write!(Escaper { to: f, form }, "{}", self.text)
    }
}

struct Escaper<'f, 'b> {
    to: &'f mut fmt::Formatter<'b>,
    form: Form,
}

impl Form {
    fn hides(self, c: char) -> bool {
        is_hidden(c) && (c != '\n' || self == Form::Line)
    }
}

impl Write for Escaper<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let form = self.form;
        // Nearly every piece is printable ASCII, and a look at the bytes is fast.
        let plain = |b: u8| matches!(b, b' '..=b'~') || (b == b'\n' && form != Form::Line);
        if text.bytes().all(plain) {
            return self.to.write_str(text);
        }
        let mut written = 0;
        for (at, c) in text.char_indices().filter(|(_, c)| form.hides(*c)) {
            self.to.write_str(&text[written..at])?;
            match form {
                // No hidden character needs a surrogate pair.
                Form::Json => write!(self.to, "\\u{:04x}", u32::from(c))?,
                Form::Lines | Form::Line => write!(self.to, "{}", c.escape_default())?,
            }
            written = at + c.len_utf8();
        }
        self.to.write_str(&text[written..])
    }
}

/// A writer that escapes the hidden characters of each log event and keeps it on one line.
#[derive(Debug)]
pub struct EscapedLog<W>(pub W);

impl<W: io::Write> io::Write for EscapedLog<W> {
    /// Writes one log event: a whole line with its line end.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        self.0.write_all(format!("{}\n", line(text)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Returns a text from outside nvactl as one line without control characters, cut after `most` bytes.
/// Letters, digits and printable ASCII stay as they are. All other characters are escaped as in Rust.
#[must_use]
pub fn cut(text: &str, most: usize) -> String {
    escaped(text, most, stays)
}

/// Returns the text as [`cut`] does, and escapes double quotes as well.
#[must_use]
pub fn cut_in_quotes(text: &str, most: usize) -> String {
    escaped(text, most, stays_in_quotes)
}

fn stays(c: char) -> bool {
    (c.is_alphanumeric() || c.is_ascii_graphic() || c == ' ') && c != '\\'
}

fn stays_in_quotes(c: char) -> bool {
    stays(c) && c != '"'
}

fn escaped(text: &str, most: usize, stays: fn(char) -> bool) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        let before = shown.len();
        if stays(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_default());
        }
        if shown.len() > most {
            shown.truncate(before);
            shown.push('…');
            break;
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One character of each kind, with its escapes in text and in JSON.
    const HIDDEN: [(char, &str, &str); 12] = [
        ('\u{1b}', r"\u{1b}", r"\u001b"),
        ('\r', r"\r", r"\u000d"),
        ('\t', r"\t", r"\u0009"),
        ('\u{7f}', r"\u{7f}", r"\u007f"),
        ('\u{9b}', r"\u{9b}", r"\u009b"),
        ('\u{61c}', r"\u{61c}", r"\u061c"),
        ('\u{200f}', r"\u{200f}", r"\u200f"),
        ('\u{2028}', r"\u{2028}", r"\u2028"),
        ('\u{2029}', r"\u{2029}", r"\u2029"),
        ('\u{202e}', r"\u{202e}", r"\u202e"),
        ('\u{2066}', r"\u{2066}", r"\u2066"),
        ('\u{2069}', r"\u{2069}", r"\u2069"),
    ];

    #[test]
    fn control_and_bidirectional_characters_are_escaped() {
        for (c, shown, in_json) in HIDDEN {
            let text = format!("a{c}ä{c}\n");
            assert_eq!(lines(&text).to_string(), format!("a{shown}ä{shown}\n"));
            assert_eq!(line(&text).to_string(), format!("a{shown}ä{shown}\\n"));
            assert_eq!(json(&text).to_string(), format!("a{in_json}ä{in_json}\n"));
        }
        for first in ['\u{0}', '\u{80}', '\u{202a}', '\u{2066}'] {
            assert!(is_hidden(first), "{first:?}");
        }
        for last in ['\u{1f}', '\u{9f}', '\u{202e}', '\u{2069}'] {
            assert!(is_hidden(last), "{last:?}");
        }
    }

    #[test]
    fn printable_text_is_unchanged() {
        for text in ["", "plain", "Grüße → 東京 ✏️ \\u{1b} “x”", " ~"] {
            assert_eq!(line(text).to_string(), text);
            assert_eq!(json(text).to_string(), text);
        }
    }

    #[test]
    fn escaped_json_keeps_its_meaning() {
        let text: String = HIDDEN.iter().map(|(c, ..)| c).collect();
        let value = serde_json::json!({ "comment": text, "": [text] });
        let printed = json(serde_json::to_string_pretty(&value).expect("it is JSON")).to_string();
        assert!(!printed.replace('\n', "").contains(is_hidden), "{printed}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&printed).expect("it is JSON"),
            value
        );
    }

    #[test]
    fn a_log_event_stays_one_line() {
        let mut out = Vec::new();
        io::Write::write_all(
            &mut EscapedLog(&mut out),
            b"DEBUG a\x1b[2Jb\nerror: c\xff\n",
        )
        .expect("memory");
        assert_eq!(
            String::from_utf8(out).expect("it is text"),
            "DEBUG a\\u{1b}[2Jb\\nerror: c\u{fffd}\n"
        );
    }
}

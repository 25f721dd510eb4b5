//! Finds the end of a line of iptables-save text. A comment may hold line breaks, which iptables-save prints
//! unescaped (measured, nft and legacy 1.8.9). iptables-restore cannot read such a line.

use std::ops::Range;

/// The most bytes of a quoted text over several lines. The longest text that the kernel keeps is the path of
/// `-m cgroup` (`PATH_MAX`), whose bytes may each be escaped; a comment has at most 255. A longer text begins
/// with a quote that is part of a name: names are printed without quotes.
const MOST_QUOTED: usize = 2 * 4096;

/// Splits a text into its lines, each with its end.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let len = line_len(rest.as_bytes(), true).filter(|len| *len > 0)?;
        let (line, after) = rest.split_at(len);
        rest = after;
        Some(line)
    })
}

/// Returns the length in bytes of the line that a text begins with, its end included; `None` if that
/// depends on text that is still to come. `whole`: none is to come.
#[must_use]
pub fn line_len(text: &[u8], whole: bool) -> Option<usize> {
    let end = text.iter().position(|byte| *byte == b'\n');
    let first = match end {
        Some(end) => end + 1,
        None if whole => text.len(),
        None => return None,
    };
    let line = &text[..first];
    match chain_at(line) {
        Some(chain) if line.contains(&b'"') => match quoted_end(text, chain.end, whole) {
            LineEnd::At(end) => Some(end),
            LineEnd::NoQuote => Some(first),
            LineEnd::Unknown => None,
        },
        _ => Some(first),
    }
}

/// The end of a line that has quotes.
enum LineEnd {
    At(usize),
    /// The quotes are parts of names, so the line ends at the first line break.
    NoQuote,
    Unknown,
}

/// Finds the end of a line with quotes. A text over several lines is a whole word and the value of a long
/// option (`xtables_save_string` in libxtables). Other quotes belong to names.
fn quoted_end(text: &[u8], from: usize, whole: bool) -> LineEnd {
    let (mut open, mut escaped, mut broken): (Option<usize>, bool, bool) = (None, false, false);
    for (at, byte) in text.iter().enumerate().skip(from) {
        match (open, byte) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(_), b'"') => {
                if broken && !text.get(at + 1).is_none_or(|byte| ends_word(*byte)) {
                    return LineEnd::NoQuote;
                }
                open = None;
            }
            (Some(begin), b'\n') => {
                if !is_value(&text[from..begin]) || at - begin > MOST_QUOTED {
                    return LineEnd::NoQuote;
                }
                broken = true;
            }
            (None, b'"') => open = Some(at),
            (None, b'\n') => return LineEnd::At(at + 1),
            _ => {}
        }
    }
    match open {
        _ if !whole => LineEnd::Unknown,
        Some(_) => LineEnd::NoQuote,
        None => LineEnd::At(text.len()),
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn ends_word(byte: u8) -> bool {
    is_blank(byte) || byte == b'\n'
}

/// Returns whether a word that begins behind `before` is the value of a long option.
fn is_value(before: &[u8]) -> bool {
    let end = before.iter().rposition(|byte| !is_blank(*byte));
    let Some(end) = end.map(|last| last + 1).filter(|end| *end < before.len()) else {
        return false;
    };
    let begin = before[..end].iter().rposition(|byte| ends_word(*byte));
    before[begin.map_or(0, |blank| blank + 1)..end].starts_with(b"--")
}

/// Finds the name of the chain in the line of a rule: behind `-A`, before which `iptables-save -c` prints the
/// rule's counters. It is printed without quotes, whatever bytes it has.
pub(super) fn chain_at(line: &[u8]) -> Option<Range<usize>> {
    let word = |from: usize| -> Option<Range<usize>> {
        let rest = line.get(from..)?;
        let begin = from + rest.iter().position(|byte| !is_blank(*byte))?;
        let len = line[begin..].iter().position(|byte| ends_word(*byte));
        let word = begin..len.map_or(line.len(), |len| begin + len);
        (!word.is_empty()).then_some(word)
    };
    let mut command = word(0)?;
    if line[command.start] == b'[' {
        command = word(command.end)?;
    }
    (&line[command.clone()] == b"-A").then(|| word(command.end))?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of a text, however it comes.
    fn split(text: &str) -> Vec<&str> {
        let all: Vec<&str> = lines(text).collect();
        let (mut streamed, mut begun) = (Vec::new(), 0);
        for end in 1..=text.len() {
            let whole = end == text.len();
            while begun < end {
                let Some(len) = line_len(&text.as_bytes()[begun..end], whole) else {
                    break;
                };
                streamed.push(&text[begun..begun + len]);
                begun += len;
            }
        }
        assert_eq!(streamed, all, "byte by byte it is the same");
        all
    }

    #[test]
    fn a_quoted_text_may_hold_line_breaks() {
        for text in [
            "-A FORWARD -m comment --comment \"one\ntwo\" -j DROP\n",
            "[1:2] -A FORWARD -m comment --comment \"a \\\"q\\\" \n\n#x\n  COMMIT\n-A X\n\" -j DROP\n",
            "-A FORWARD -m comment --comment \"one\ntwo\"\n",
            "-A FORWARD -m comment --comment \"one\ntwo\"",
            "-A A -m comment --comment \"one\ntwo\" -m comment --comment \"three\nfour\" -j B\n",
        ] {
            assert_eq!(split(text), [text]);
            let between = format!("*filter\n{text}");
            assert_eq!(split(&between), ["*filter\n", text]);
        }
        let text =
            "-A A -m comment --comment \"b\n\"\n-A A -m comment --comment \"c\nd\"\nCOMMIT\n";
        let lines = split(text);
        assert_eq!(lines.len(), 3, "{lines:?}");
    }

    #[test]
    fn a_quote_in_a_name_hides_no_line() {
        let next = "-A FORWARD -m comment --comment \"a b\" -j ACCEPT\n";
        for first in [
            "-A FORWARD -i e\"x -j DROP\n",
            "-A FORWARD -i \"x -j DROP\n",
            "-A FORWARD -m set --match-set \"x src -j DROP\n",
            "-A FORWARD -i x\" -j DROP\n",
            "-A ch\"m -j DROP\n",
            "-A \"chm -j DROP\n",
            "# a comment \"\n",
            ":ch\"m - [0:0]\n",
            "\"\n",
        ] {
            let text = format!("{first}{next}{first}{next}COMMIT\n");
            assert_eq!(split(&text), [first, next, first, next, "COMMIT\n"]);
            let last = format!("{next}{first}");
            assert_eq!(split(&last), [next, first]);
        }
        // Two that could be the ends of one: not a value, not at the end of a word, too far away.
        let plain = "-A FORWARD -j DROP\n".repeat(1000);
        for (first, between, last) in [
            ("-i \"x -j DROP\n", "", "-i x\" -j DROP\n"),
            ("-m recent --name \"x -j DROP\n", "", "-i x\"y -j DROP\n"),
            (
                "-m recent --name \"x -j DROP\n",
                plain.as_str(),
                "-i x\" -j DROP\n",
            ),
        ] {
            let text = format!("-A FORWARD {first}{between}-A FORWARD {last}");
            assert_eq!(split(&text).len(), 2 + between.lines().count(), "{first}");
        }
    }
}

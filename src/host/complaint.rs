//! Reads the messages of iptables-restore when it refuses a text.

/// Returns the number of the line that iptables-restore complains about: `Error occurred at line: 7`,
/// `line 7: RULE_APPEND failed`, `iptables-restore: line 7 failed` (measured with 1.8.9).
#[must_use]
pub fn line_named(words: &str) -> Option<usize> {
    let number = |text: &str| -> Option<usize> {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    words
        .match_indices("line")
        .find_map(|(at, word)| number(words[at + word.len()..].trim_start_matches([':', ' '])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_number_is_read_from_each_form_of_complaint() {
        for (words, line) in [
            (
                "iptables-restore v1.8.9 (nf_tables): unknown option\nError occurred at line: 7",
                Some(7),
            ),
            (
                "iptables-restore v1.8.9 (nf_tables): \nline 12: RULE_APPEND failed (Invalid argument): rule in chain X",
                Some(12),
            ),
            ("iptables-restore: line 3 failed", Some(3)),
            ("Stopped waiting after 10s.", None),
        ] {
            assert_eq!(line_named(words), line, "{words}");
        }
    }
}

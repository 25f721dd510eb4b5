//! Splits a script into its commands and their words, like a POSIX shell that replaces nothing. A line on which
//! a shell would replace, join or redirect something is an error: nvactl would otherwise read another rule than
//! the shell made.
//!
//! The crate `shlex` does not tell a quoted `;` or `$` from one that the shell acts on, so it cannot refuse them.

use super::error::TypedProblem;

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShellCommand {
    /// The first of its lines, counted from 1.
    pub line: usize,
    /// The command as it was typed.
    pub text: String,
    /// They have no quotes, and end at the problem if there is one.
    pub words: Vec<String>,
    /// The reason why the words are not those that the command gets.
    pub problem: Option<TypedProblem>,
}

/// Splits a script. Comments and empty lines are left out.
pub(super) fn commands(text: &str) -> impl Iterator<Item = ShellCommand> {
    let (mut rest, mut next_line) = (text, 1);
    let split = std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut splitter = Splitter::new(rest);
        let problem = splitter.split().err();
        let (typed, after) = rest.split_at(splitter.at);
        let line = next_line;
        next_line += typed.matches('\n').count();
        rest = after;
        Some(ShellCommand {
            line,
            text: typed.trim().to_owned(),
            words: splitter.words,
            problem,
        })
    });
    split.filter(|command| !command.words.is_empty() || command.problem.is_some())
}

/// Reads one command, to the end of its last line.
struct Splitter<'t> {
    text: &'t str,
    at: usize,
    words: Vec<String>,
    /// The word that is open. An empty one in quotes is a word, too.
    word: Option<String>,
}

impl<'t> Splitter<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            text,
            at: 0,
            words: Vec::new(),
            word: None,
        }
    }

    fn next(&mut self) -> Option<char> {
        let next = self.text[self.at..].chars().next()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn rest_starts_with(&self, start: &str) -> bool {
        self.text[self.at..].starts_with(start)
    }

    fn push(&mut self, c: char) {
        self.word.get_or_insert_default().push(c);
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take());
    }

    /// Reads the words. `at` is behind the line then, for an error as well.
    fn split(&mut self) -> Result<(), TypedProblem> {
        let result = self.read_words();
        self.end_word();
        if result.is_err() {
            let end = self.text[self.at..].find('\n');
            self.at = end.map_or(self.text.len(), |end| self.at + end + 1);
        }
        result
    }

    fn read_words(&mut self) -> Result<(), TypedProblem> {
        while let Some(c) = self.next() {
            match c {
                '\n' => break,
                '\r' if self.rest_starts_with("\n") || self.at == self.text.len() => {}
                ' ' | '\t' => self.end_word(),
                '#' if self.word.is_none() => {
                    let end = self.text[self.at..].find('\n');
                    self.at = end.map_or(self.text.len(), |end| self.at + end);
                }
                '\\' => self.escaped(),
                '\'' => self.in_single_quotes()?,
                '"' => self.in_double_quotes()?,
                '$' | '`' => return Err(TypedProblem::Replaced(c)),
                '{' if self.is_brace_list() => return Err(TypedProblem::Replaced(c)),
                ';' | '&' | '|' => return Err(TypedProblem::Joined(c)),
                '<' | '>' => return Err(TypedProblem::Redirected(c)),
                '(' | ')' => return Err(TypedProblem::Keyword(c.to_string())),
                c => self.push(c),
            }
        }
        Ok(())
    }

    /// `{80,443}` makes two words of one.
    fn is_brace_list(&self) -> bool {
        let inner = self.text[self.at..].split_once('}');
        inner.is_some_and(|(inner, _)| {
            !inner.contains([' ', '\t', '\n']) && (inner.contains(',') || inner.contains(".."))
        })
    }

    /// A backslash before a line end continues the line.
    fn escaped(&mut self) {
        if self.rest_starts_with("\r\n") {
            self.at += 2;
            return;
        }
        match self.next() {
            Some('\n') => {}
            Some(c) => self.push(c),
            None => self.push('\\'),
        }
    }

    fn in_single_quotes(&mut self) -> Result<(), TypedProblem> {
        self.word.get_or_insert_default();
        loop {
            match self.next().ok_or(TypedProblem::OpenQuote)? {
                '\'' => return Ok(()),
                c => self.push(c),
            }
        }
    }

    /// Between double quotes a backslash escapes only what the shell acts on there (POSIX.1-2024, 2.2.3).
    fn in_double_quotes(&mut self) -> Result<(), TypedProblem> {
        self.word.get_or_insert_default();
        loop {
            match self.next().ok_or(TypedProblem::OpenQuote)? {
                '"' => return Ok(()),
                c @ ('$' | '`') => return Err(TypedProblem::Replaced(c)),
                '\\' => match self.next().ok_or(TypedProblem::OpenQuote)? {
                    '\n' => {}
                    c @ ('$' | '`' | '"' | '\\') => self.push(c),
                    c => {
                        self.push('\\');
                        self.push(c);
                    }
                },
                c => self.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Vec<String>> {
        let words = commands(text).map(|one| {
            assert_eq!(one.problem, None, "{text}");
            one.words
        });
        words.collect()
    }

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        for text in [
            "a  b\tc",
            "a 'b c' d",
            "a \"b c\"d'e f'",
            "a b\\ c \\\" \\\\",
            "a '' \"\" b",
            "a \"\\$x \\\\ \\\" \\n \\`\"",
            "a \\\n b",
            "a 'b\nc' \"d\ne\" # f 'g",
            "a#b # c",
            "a '$x' \"it's\"",
            "a {b} {}",
        ] {
            let script = format!("printf '<%s>' {text}");
            let output = std::process::Command::new("bash")
                .args(["-c", &script])
                .output();
            let printed = output.expect("bash starts").stdout;
            let ours: String = words(text)
                .concat()
                .iter()
                .map(|word| format!("<{word}>"))
                .collect();
            assert_eq!(ours.as_bytes(), printed, "{text}");
        }
    }

    #[test]
    fn lines_are_counted_over_continuations_and_quotes() {
        let text = "# one\n\na b \\\n  c\r\nd 'e\nf'\n\ng";
        let found: Vec<ShellCommand> = commands(text).collect();
        let lines: Vec<(usize, usize)> = found
            .iter()
            .map(|one| (one.line, one.words.len()))
            .collect();
        assert_eq!(lines, [(3, 3), (5, 2), (8, 1)]);
        assert_eq!(found[0].words, ["a", "b", "c"]);
    }

    #[test]
    fn a_line_that_needs_a_shell_is_an_error() {
        for (text, line, problem) in [
            ("a\nb $x", 2, TypedProblem::Replaced('$')),
            ("b \"$x\"", 1, TypedProblem::Replaced('$')),
            ("b $(c)", 1, TypedProblem::Replaced('$')),
            ("b `c`", 1, TypedProblem::Replaced('`')),
            ("b {80,443}", 1, TypedProblem::Replaced('{')),
            ("a; b", 1, TypedProblem::Joined(';')),
            ("a \\\n && b", 1, TypedProblem::Joined('&')),
            ("a | b", 1, TypedProblem::Joined('|')),
            ("a > b", 1, TypedProblem::Redirected('>')),
            ("f() {", 1, TypedProblem::Keyword("(".to_owned())),
            ("a\nb 'c\nd", 2, TypedProblem::OpenQuote),
            ("b \"c\\", 1, TypedProblem::OpenQuote),
        ] {
            let found = commands(text).find(|one| one.problem.is_some());
            let found = found.unwrap_or_else(|| panic!("{text}"));
            assert_eq!((found.line, found.problem), (line, Some(problem)), "{text}");
        }
    }
}

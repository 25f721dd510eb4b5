//! Where commands write: reports to standard output, the rest to standard error.
//!
//! Whatever text of others a report or a message holds, no control or bidirectional character of it
//! gets through.

use std::fmt::Display;
use std::io::{self, BufWriter, Write};

use serde::Serialize;

use crate::net::printable::{json, line, lines};
use crate::ops::{Remark, Remarks};

/// As much as a pipe takes at once.
const BUFFER: usize = 64 << 10;

/// Writing never fails half-way through a command: a reader who has gone, or a full disk under the
/// report, must not decide whether a change to the host is carried through. What was lost is kept
/// for the end.
#[expect(missing_debug_implementations, reason = "it holds two writers")]
pub struct Console {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    /// Whether a person sees the report, and no program reads it.
    out_is_terminal: bool,
    lost: Option<io::Error>,
}

impl Console {
    #[must_use]
    pub fn new(out: Box<dyn Write>, err: Box<dyn Write>, out_is_terminal: bool) -> Self {
        Self {
            out,
            err,
            out_is_terminal,
            lost: None,
        }
    }

    /// Writes a report's text.
    pub fn print(&mut self, text: &(impl Display + ?Sized)) {
        self.write(&lines(text));
    }

    /// Writes one line of a report; a line end in it is written out.
    pub fn say(&mut self, text: impl Display) {
        self.write(&format_args!("{}\n", line(text)));
    }

    /// Writes a report as JSON.
    ///
    /// # Errors
    /// When the value has no form in JSON.
    pub fn say_json(&mut self, value: &impl Serialize) -> serde_json::Result<()> {
        let text = serde_json::to_string_pretty(value)?;
        self.write(&format_args!("{}\n", json(&text)));
        Ok(())
    }

    /// Writes what another program is to load: byte by byte as it is, unless a terminal shows it.
    pub fn print_exact(&mut self, text: &(impl Display + ?Sized)) {
        if self.out_is_terminal {
            self.print(text);
        } else {
            self.write(text);
        }
    }

    fn write(&mut self, text: &(impl Display + ?Sized)) {
        if self.lost.is_none() {
            // A ruleset comes in many small pieces, and standard output flushes at each line's end.
            let mut out = BufWriter::with_capacity(BUFFER, &mut self.out);
            let printed = write!(out, "{text}").and_then(|()| out.flush());
            self.lost = printed.err();
        }
    }

    pub fn warn(&mut self, text: impl Display) {
        self.message("warning", text);
    }

    pub fn error(&mut self, text: impl Display) {
        self.message("error", text);
    }

    /// Writes what an operation has to say.
    pub fn remarks(&mut self, remarks: &Remarks) {
        for remark in &remarks.0 {
            self.remark(remark);
        }
    }

    /// Warns of each of these rules, or of the first and of how many more there are.
    pub fn warn_of_rules(&mut self, warnings: &[String]) {
        let mut remarks = Remarks::default();
        remarks.warn_of_rules(warnings.iter());
        self.remarks(&remarks);
    }

    pub fn remark(&mut self, remark: &Remark) {
        match remark {
            Remark::Line(text) => self.say(text),
            Remark::Warning(text) => self.warn(text),
            Remark::Note(text) => self.note(text),
        }
    }

    pub fn note(&mut self, text: impl Display) {
        self.message("note", text);
    }

    /// Writes a message whose further lines are indented: a line end in a text of others begins no
    /// message of nvactl's.
    fn message(&mut self, kind: &str, text: impl Display) {
        let text = text.to_string();
        let mut message = format!("{kind}: ");
        for (n, line) in text.split('\n').enumerate() {
            if n > 0 {
                message.push_str(if line.starts_with(' ') { "\n" } else { "\n  " });
            }
            message.push_str(line);
        }
        message.push('\n');
        self.tell(message);
    }

    /// Writes to standard error. Nobody is left to tell when that is closed.
    pub fn tell(&mut self, text: impl Display) {
        let text = lines(text).to_string();
        let _ = self.err.write_all(text.as_bytes());
    }

    /// Writes pages about a spec to standard error, whose colours are for the stream to keep or
    /// strip. The text of the spec in them is made printable where they are made.
    pub fn tell_pages(&mut self, pages: &str) {
        let _ = self.err.write_all(pages.as_bytes());
    }

    /// Writes a question in the place of the one before.
    pub fn ask_again(&mut self, question: impl Display) {
        let question = format!("\r{}", lines(question));
        let _ = self.err.write_all(question.as_bytes());
    }

    /// Whether the whole report has been written. A reader who had seen enough is no error.
    ///
    /// # Errors
    /// The first failure to write, once.
    pub fn finish(&mut self) -> io::Result<()> {
        let lost = self.lost.take().or_else(|| self.out.flush().err());
        match lost {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Rc<RefCell<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        fn take(&self) -> String {
            String::from_utf8(self.0.take()).expect("it is text")
        }
    }

    fn console(out_is_terminal: bool) -> (Console, Written, Written) {
        let (out, err) = (Written::default(), Written::default());
        let console = Console::new(
            Box::new(out.clone()),
            Box::new(err.clone()),
            out_is_terminal,
        );
        (console, out, err)
    }

    const COMMENT: &str = "a\u{1b}[2J\u{9b}\u{202e}\rb";
    const SHOWN: &str = r"a\u{1b}[2J\u{9b}\u{202e}\rb";

    #[test]
    fn no_character_of_others_steers_the_terminal() {
        for terminal in [true, false] {
            let (mut console, out, err) = console(terminal);
            console.print(COMMENT);
            assert_eq!(out.take(), SHOWN);
            console.print(&format_args!("{COMMENT}\n"));
            assert_eq!(out.take(), format!("{SHOWN}\n"));
            console.say(format_args!("→ {COMMENT}\nb"));
            assert_eq!(out.take(), format!("→ {SHOWN}\\nb\n"));
            console.warn(COMMENT);
            console.note(COMMENT);
            console.error(COMMENT);
            console.tell(format_args!("{COMMENT}\n"));
            console.ask_again(COMMENT);
            assert_eq!(
                err.take(),
                format!("warning: {SHOWN}\nnote: {SHOWN}\nerror: {SHOWN}\n{SHOWN}\n\r{SHOWN}")
            );
        }
    }

    #[test]
    fn a_line_end_of_others_begins_no_message() {
        let (mut console, _, err) = console(false);
        console.warn("a rule: \"x\nhint: rm -r /\"\n  to remove it: y");
        assert_eq!(
            err.take(),
            "warning: a rule: \"x\n  hint: rm -r /\"\n  to remove it: y\n"
        );
    }

    #[test]
    fn json_is_exact_and_what_programs_load_is_too_unless_a_terminal_shows_it() {
        for (terminal, printed) in [(false, COMMENT), (true, SHOWN)] {
            let (mut console, out, _) = console(terminal);
            console.print_exact(COMMENT);
            assert_eq!(out.take(), printed);
            console.say_json(&[COMMENT]).expect("it is JSON");
            let json = out.take();
            assert!(json.contains(r"\u009b\u202e"), "{json}");
            let read: Vec<String> = serde_json::from_str(&json).expect("it is JSON");
            assert_eq!(read, [COMMENT]);
        }
    }
}

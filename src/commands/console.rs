//! Writes the output of commands: reports to standard output, messages to standard error.
//!
//! No control or bidirectional character of foreign text gets through.

use std::fmt::Display;
use std::io::{self, BufWriter, Write};

use serde::Serialize;

use crate::net::printable::{json, line, lines};
use crate::ops::{Remark, Remarks};

/// The size of a pipe's buffer.
const BUFFER: usize = 64 << 10;

/// Writing never fails half-way through a command: a closed pipe, or a full disk under the report, must not
/// stop a change to the host. The first error is kept for the end.
#[expect(missing_debug_implementations, reason = "it holds two writers")]
pub struct Console {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    /// Whether the report goes to a terminal.
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

    /// Writes one line of a report; a line end in the text is escaped.
    pub fn say(&mut self, text: impl Display) {
        self.write(&format_args!("{}\n", line(text)));
    }

    /// Writes a report as JSON.
    ///
    /// # Errors
    /// When the value cannot be JSON.
    pub fn say_json(&mut self, value: &impl Serialize) -> serde_json::Result<()> {
        let text = serde_json::to_string_pretty(value)?;
        self.write(&format_args!("{}\n", json(&text)));
        Ok(())
    }

    /// Writes text for another program byte for byte, unless standard output is a terminal.
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

    /// Runs something without its messages, for a command that a timer runs again and again.
    pub fn without_messages<T>(&mut self, run: impl FnOnce(&mut Self) -> T) -> T {
        let err = std::mem::replace(&mut self.err, Box::new(io::sink()));
        let done = run(self);
        self.err = err;
        done
    }

    /// Writes the remarks of an operation.
    pub fn remarks(&mut self, remarks: &Remarks) {
        for remark in &remarks.0 {
            self.remark(remark);
        }
    }

    /// Writes a warning for each of these rules, and the number of further ones if there are many.
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

    /// Writes a message whose further lines are indented: a line end in foreign text must not start a message
    /// of nvactl.
    fn message(&mut self, kind: &str, text: impl Display) {
        let text = text.to_string();
        let mut message = format!("{kind}: ");
        for (n, line) in text.split('\n').enumerate() {
            if n > 0 {
                let is_indented = line.is_empty() || line.starts_with(' ');
                message.push_str(if is_indented { "\n" } else { "\n  " });
            }
            message.push_str(line);
        }
        message.push('\n');
        self.tell(message);
    }

    /// Writes to standard error, and ignores errors: there is no place left to report them.
    pub fn tell(&mut self, text: impl Display) {
        let text = lines(text).to_string();
        let _ = self.err.write_all(text.as_bytes());
    }

    /// Writes pages about a spec to standard error; the stream keeps or strips their colours. The pages have
    /// escaped the spec's text already.
    pub fn tell_pages(&mut self, pages: &str) {
        let _ = self.err.write_all(pages.as_bytes());
    }

    /// Writes a question over the one before.
    pub fn ask_again(&mut self, question: impl Display) {
        let question = format!("\r{}", lines(question));
        let _ = self.err.write_all(question.as_bytes());
    }

    /// Returns the first error of writing the report. A closed pipe is no error.
    ///
    /// # Errors
    /// When a part of the report was not written.
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
    struct CapturedOutput(Rc<RefCell<Vec<u8>>>);

    impl Write for CapturedOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl CapturedOutput {
        fn take(&self) -> String {
            String::from_utf8(self.0.take()).expect("it is text")
        }
    }

    fn console(out_is_terminal: bool) -> (Console, CapturedOutput, CapturedOutput) {
        let (out, err) = (CapturedOutput::default(), CapturedOutput::default());
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
    fn no_foreign_character_controls_the_terminal() {
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
    fn a_foreign_line_end_starts_no_message() {
        let (mut console, _, err) = console(false);
        console.warn("a rule: \"x\nhint: rm -r /\"\n  to remove it: y");
        assert_eq!(
            err.take(),
            "warning: a rule: \"x\n  hint: rm -r /\"\n  to remove it: y\n"
        );
    }

    #[test]
    fn json_is_exact_and_rules_are_exact_except_on_a_terminal() {
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

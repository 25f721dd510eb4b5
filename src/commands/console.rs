//! Where commands write: reports to standard output, the rest to standard error.

use std::fmt::Display;
use std::io::{self, BufWriter, Write};

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
    lost: Option<io::Error>,
}

impl Console {
    #[must_use]
    pub fn new(out: Box<dyn Write>, err: Box<dyn Write>) -> Self {
        Self {
            out,
            err,
            lost: None,
        }
    }

    /// Writes a report's text as it is.
    pub fn print(&mut self, text: &(impl Display + ?Sized)) {
        if self.lost.is_none() {
            // A ruleset comes in many small pieces, and standard output flushes at each line's end.
            let mut out = BufWriter::with_capacity(BUFFER, &mut self.out);
            let printed = write!(out, "{text}").and_then(|()| out.flush());
            self.lost = printed.err();
        }
    }

    /// Writes one line of a report.
    pub fn say(&mut self, line: impl Display) {
        self.print(&format_args!("{line}\n"));
    }

    pub fn warn(&mut self, text: impl Display) {
        self.tell(format_args!("warning: {text}\n"));
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
        self.tell(format_args!("note: {text}\n"));
    }

    /// Writes to standard error. Nobody is left to tell when that is closed.
    pub fn tell(&mut self, text: impl Display) {
        let _ = write!(self.err, "{text}");
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

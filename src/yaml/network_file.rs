//! Files of networks, which a spec names under `networks`.

use ipnet::IpNet;

use super::bounds::{MAX_PROBLEMS, MAX_VALUES};
use super::nets::net;
use super::problem::{Problem, ProblemKind};

/// A file of networks that a spec names, as it was read.
#[derive(Debug, Clone)]
pub struct NetworkFile<'t> {
    /// The path as the spec has it.
    pub path: &'t str,
    pub content: Result<&'t [u8], FileFault>,
}

/// The reason why a file of networks was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileFault {
    /// The spec is in no folder, since it came from standard input.
    NoFolder,
    /// The path leads out of the spec's folder.
    Outside,
    /// A link leads to this path out of the spec's folder.
    Linked(String),
    /// The words of the operating system.
    Unreadable(String),
}

impl<'t> NetworkFile<'t> {
    /// Returns the file's bytes; none if it was not read.
    #[must_use]
    pub fn bytes(&self) -> &'t [u8] {
        match &self.content {
            Ok(bytes) => bytes,
            Err(_) => &[],
        }
    }

    /// Returns the problem at the value of `file` if the file was not read.
    pub(super) fn fault(&self) -> Option<ProblemKind> {
        let file = self.path.to_owned();
        Some(match self.content.as_ref().err()? {
            FileFault::NoFolder => ProblemKind::NetworkFileOfStdin { file },
            FileFault::Outside => ProblemKind::NetworkFileOutside { file },
            FileFault::Linked(to) => ProblemKind::NetworkFileLinked {
                file,
                to: to.clone(),
            },
            FileFault::Unreadable(reason) => ProblemKind::NetworkFileUnreadable {
                file,
                reason: reason.clone(),
            },
        })
    }
}

/// Reads one network a line. Returns `None` if a line is invalid or the file has none. `start` is the place of
/// the file's first byte in the spec, and `values` counts the values of the whole spec.
pub(super) fn read(
    bytes: &[u8],
    start: usize,
    values: &mut usize,
    problems: &mut Vec<Problem>,
) -> Option<Vec<IpNet>> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let at = start + error.valid_up_to();
            problems.push(Problem::new(at..at + 1, ProblemKind::NotUtf8));
            return None;
        }
    };
    let (mut nets, mut lines, mut behind) = (Vec::new(), 0, start);
    for line in text.split_inclusive('\n') {
        let begin = behind;
        behind += line.len();
        let written = line.split('#').next().unwrap_or_default();
        let blanks = written.len() - written.trim_ascii_start().len();
        let written = written.trim_ascii();
        if written.is_empty() {
            continue;
        }
        let span = begin + blanks..begin + blanks + written.len();
        lines += 1;
        *values += 1;
        if *values > MAX_VALUES {
            problems.push(Problem::new(span, ProblemKind::TooManyValues));
            return None;
        }
        if problems.len() >= MAX_PROBLEMS {
            return None;
        }
        match net(written) {
            Ok(net) => nets.push(net),
            Err(ProblemKind::InvalidNet { text }) => {
                problems.push(Problem::new(span, ProblemKind::InvalidNetLine { text }));
            }
            Err(kind) => problems.push(Problem::new(span, kind)),
        }
    }
    if lines == 0 {
        problems.push(Problem::new(start..start, ProblemKind::EmptyNetworkFile));
        return None;
    }
    (nets.len() == lines).then_some(nets)
}

//! Splits a rules file into nvactl's lines and those of other programs, which stay byte for byte and in their
//! order.

use thiserror::Error;

use crate::netfilter::names::ChainName;
use crate::netfilter::text::parse::{ParseError, ParseProblem, Read, Reader, line_len, text_of};
use crate::plan::jumps_from;

/// A rules file in two parts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// The text without nvactl's lines.
    pub others: Vec<u8>,
    /// nvactl's lines, as in the file.
    pub own: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, Error)]
pub enum SplitError {
    #[error(transparent)]
    Unreadable(#[from] ParseError),
    #[error("line {line} is not nvactl's but jumps to one of nvactl's chains: `{text}`")]
    LeadsToOwn { line: usize, text: String },
}

/// Splits a rules file into nvactl's lines (its chains, their rules and the jumps to them) and the rest. A
/// line for the FORWARD policy stays, although nvactl may have set DROP: the file does not say who set the
/// policy, and nvactl must not open a firewall on a guess. An unreadable line stays unless it names a chain
/// of nvactl.
///
/// # Errors
/// When a line of another program jumps to a chain of nvactl, or the text is not a rules file.
pub fn without_own(text: &[u8]) -> Result<Split, SplitError> {
    let mut reader = Reader::default();
    let mut split = Split::default();
    let (mut rest, mut number) = (text, 1);
    while let Some(len) = line_len(rest, true).filter(|len| *len > 0) {
        let (bytes, behind) = rest.split_at(len);
        rest = behind;
        let line = text_of(bytes);
        let is_own = match reader.read(&line) {
            Ok(Read::Chain(_, name, _)) => name.is_own(),
            Ok(Read::Rule(table, chain, rule)) => {
                let leads_to_own = rule.leads_to().is_some_and(ChainName::is_own);
                if leads_to_own && !chain.is_own() && !jumps_from(table, &chain) {
                    return Err(SplitError::LeadsToOwn {
                        line: number,
                        text: line.trim_end().to_owned(),
                    });
                }
                leads_to_own || chain.is_own()
            }
            Ok(_) => false,
            Err(error)
                if error.problem == ParseProblem::NotALine && !error.text.contains("NVACTL-") =>
            {
                false
            }
            Err(error) => return Err(error.into()),
        };
        if is_own {
            split.own.push(line.trim_end().to_owned());
        } else {
            split.others.extend(bytes);
        }
        number += line.matches('\n').count();
    }
    reader.finish()?;
    Ok(split)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = ":NVACTL-FORWARD - [0:0]\n-A FORWARD -j NVACTL-FORWARD\n\
        -A NVACTL-FORWARD -p tcp -m tcp --dport 80 -j ACCEPT\n";

    /// Splits a filter table with these lines of other programs before nvactl's.
    fn split(theirs: &[u8], own: &str) -> Result<Split, SplitError> {
        without_own(&[b"*filter\n", theirs, own.as_bytes(), b"COMMIT\n"].concat())
    }

    #[test]
    fn foreign_lines_stay_byte_for_byte() {
        for theirs in [
            &b""[..],
            b":FORWARD DROP [3:180]\n-A FORWARD -j LOG\n\n# mine: -j NVACTL-FORWARD\n",
            // Line ends, blanks and bytes that iptables-restore or nvactl cannot read.
            b":FORWARD DROP [0:0]\r\n  -A   FORWARD -j LOG \t\r\n   \n\t# mine\n",
            b"-A INPUT -m comment --comment \"caf\xe9\" -j DROP\n",
            b"-A FORWARD -i \"x  -j DROP \n-A FORWARD -i e\"x -j DROP\r\n",
            b"-A INPUT -m comment --comment \"one  \n\t-A FORWARD -j NVACTL-FORWARD\n two\" -j DROP\n",
            b"-P INPUT DROP\n-N mine\n-I mine 1 -j DROP\nanything\n",
        ] {
            let split = split(theirs, OWN).expect("it can be split");
            let whole = [b"*filter\n", theirs, b"COMMIT\n"].concat();
            assert_eq!(split.others, whole, "{}", String::from_utf8_lossy(theirs));
            assert_eq!(split.own, OWN.lines().collect::<Vec<_>>());
            let again = without_own(&split.others);
            assert_eq!(again.map(|again| again.others), Ok(whole));
        }
    }

    #[test]
    fn broken_lines_in_a_chain_of_nvactl_s_are_nvactl_s() {
        let broken = "-A NVACTL-FORWARD -m comment --comment \"a\nb\" -j DROP\n\
            -A NVACTL-FORWARD -i \"x -j DROP\n\
            -A FORWARD -m comment --comment \"a\nb\" -j NVACTL-FORWARD\n";
        let split = split(b"", broken).expect("it can be split");
        assert_eq!(split.others, b"*filter\nCOMMIT\n");
        assert_eq!(split.own.len(), 3);
    }

    /// Without nvactl's chain the rest would not load.
    #[test]
    fn a_foreign_rule_that_jumps_to_nvactl_s_chain_is_an_error() {
        for (theirs, told) in [
            (
                ":mine - [0:0]\n-A mine -j NVACTL-FORWARD\n",
                "line 3 is not nvactl's but jumps to one of nvactl's chains: `-A mine -j NVACTL-FORWARD`",
            ),
            (
                "-I FORWARD -j NVACTL-FORWARD\n",
                "line 2: not a line of iptables-save text: `-I FORWARD -j NVACTL-FORWARD`",
            ),
        ] {
            let error = split(theirs.as_bytes(), OWN).map_err(|error| error.to_string());
            assert_eq!(error, Err(told.to_owned()));
        }
        assert!(without_own(b"*filter\n*nat\nCOMMIT\n").is_err());
        assert!(without_own(b"*filter\n-A FORWARD -j DROP\n").is_err());
    }
}

//! The key `silence`, of the spec, a forward and an outbound entry.

use super::bounds::MAX_PROBLEMS;
use super::fields::{Fields, parsed_item, sequence};
use super::problem::{Code, Problem, ProblemKind, nearest};

/// Which part of the spec a `silence` is for. Only a forward may give up ssh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silencing {
    Spec,
    Forward,
}

pub fn decode_silence(
    fields: &Fields<'_>,
    silencing: Silencing,
    problems: &mut Vec<Problem>,
) -> Vec<Code> {
    let items = fields
        .get("silence")
        .and_then(|node| sequence(node, "silence", problems));
    let mut codes = Vec::new();
    for item in items.unwrap_or_default() {
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
        let read = |text: &str| silenced(text, silencing);
        let code = parsed_item(item, "silence", "a code", problems, read);
        codes.extend(code.map(|code| code.value));
    }
    codes
}

fn silenced(text: &str, silencing: Silencing) -> Result<Code, ProblemKind> {
    match text.parse::<Code>() {
        Ok(Code::TakesSsh) if silencing == Silencing::Spec => Err(ProblemKind::SshForAll),
        Ok(code) if code.can_be_silenced() => Ok(code),
        Ok(code) => Err(ProblemKind::SilencedError {
            code: code.as_str(),
        }),
        Err(_) => {
            let known = Code::ALL.into_iter().filter(|code| code.can_be_silenced());
            let known: Vec<&str> = known.map(Code::as_str).collect();
            Err(ProblemKind::UnknownCode {
                text: text.to_owned(),
                near: nearest(text, &known),
            })
        }
    }
}

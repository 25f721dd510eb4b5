//! Reads the option that says what a command does, and the words that belong to it.

use super::Action;
use super::words::CommandWords;
use crate::netfilter::names::{ChainName, Policy};
use crate::netfilter::text::typed::error::{OrProblem, TypedProblem};

/// Reads the option and the words that belong to it.
pub fn read_action(
    letter: char,
    spelled: &str,
    value: Option<&str>,
    words: &mut CommandWords<'_>,
) -> OrProblem<Action> {
    let chain = || ChainName::from(value.unwrap_or_default());
    let missing = || TypedProblem::ValueMissing(spelled.to_owned());
    Ok(match letter {
        'A' => Action::Append(chain()),
        'I' => match words.next_plain() {
            None => Action::Insert(chain(), 1),
            Some(at) => Action::Insert(chain(), place(spelled, at)?),
        },
        'R' => {
            let at = words.next_plain().ok_or_else(missing)?;
            Action::Replace(chain(), place(spelled, at)?)
        }
        'D' => match words.next_plain() {
            None => Action::Delete(chain()),
            Some(at) => Action::DeleteAt(chain(), place(spelled, at)?),
        },
        'N' => Action::New(chain()),
        'F' => Action::Flush(chain_behind(value, words)),
        'X' => Action::DeleteChain(chain_behind(value, words)),
        'E' => {
            let name = words.next_plain().ok_or_else(missing)?;
            Action::Rename(chain(), name.into())
        }
        'P' => {
            let policy = words.next_plain().ok_or_else(missing)?;
            Action::SetPolicy(chain(), read_policy(spelled, policy)?)
        }
        // `-C` asks for a rule; the others take a chain and a number that change nothing.
        'L' | 'S' | 'Z' | 'h' => {
            while words.next_plain().is_some() {}
            Action::Nothing
        }
        _ => Action::Nothing,
    })
}

fn chain_behind(attached: Option<&str>, words: &mut CommandWords<'_>) -> Option<ChainName> {
    attached.or_else(|| words.next_plain()).map(ChainName::from)
}

fn place(option: &str, at: &str) -> OrProblem<usize> {
    let number = at.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| TypedProblem::BadValue {
        option: option.to_owned(),
        value: at.to_owned(),
        expected: "the number of a rule, counted from 1",
    })
}

fn read_policy(option: &str, policy: &str) -> OrProblem<Policy> {
    match policy {
        "ACCEPT" => Ok(Policy::Accept),
        "DROP" => Ok(Policy::Drop),
        _ => Err(TypedProblem::BadValue {
            option: option.to_owned(),
            value: policy.to_owned(),
            expected: "ACCEPT or DROP",
        }),
    }
}

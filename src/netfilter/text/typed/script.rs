//! Reads a script of iptables commands.

use super::command::{Action, TypedCommand, read_command};
use super::error::{TypedError, TypedProblem};
use super::shell::{ShellCommand, commands};
use super::tables::Tables;
use crate::net::Family;

/// Reads a script, and returns the tables of each family that its commands change.
pub(super) fn read_script(text: &str) -> Result<Vec<(Family, Tables)>, TypedError> {
    let mut families = Family::ALL.map(|family| (family, Tables::new(family), false));
    for command in commands(text) {
        let problem_at = |problem| TypedError {
            line: command.line,
            text: command.text.clone(),
            problem,
        };
        let (family, change) = change(&command).map_err(problem_at)?;
        for (of, tables, is_used) in &mut families {
            if *of == family && change.action != Action::Nothing {
                *is_used = true;
                tables.with_builtin_chains(change.table);
                tables.apply(change, command.line).map_err(problem_at)?;
                break;
            }
        }
    }
    let used = families.into_iter().filter(|(.., is_used)| *is_used);
    Ok(used.map(|(family, tables, _)| (family, tables)).collect())
}

/// Reads one command and the family that it changes.
fn change(command: &ShellCommand) -> Result<(Family, TypedCommand), TypedProblem> {
    if let (true, Some(problem)) = (command.words.is_empty(), &command.problem) {
        return Err(problem.clone());
    }
    let (family, words) = program(&command.words)?;
    if let Some(problem) = &command.problem {
        return Err(problem.clone());
    }
    let change = read_command(words, family)?;
    match change.of {
        Some(of) if of != family => Err(TypedProblem::UnknownOption(
            match of {
                Family::V4 => "-4",
                Family::V6 => "-6",
            }
            .to_owned(),
        )),
        _ => Ok((family, change)),
    }
}

/// Words that begin a loop, a condition or a function.
const KEYWORDS: [&str; 20] = [
    "for", "while", "until", "if", "then", "else", "elif", "fi", "do", "done", "case", "esac",
    "function", "select", "time", "{", "}", "[", "[[", "test",
];

/// Returns the family of the program that a command starts, and the words behind its name.
fn program(words: &[String]) -> Result<(Family, &[String]), TypedProblem> {
    let mut rest = words;
    if let Some(("sudo", after)) = rest
        .split_first()
        .map(|(word, after)| (word.as_str(), after))
    {
        // Options without a value.
        let is_flag = |word: &&String| {
            matches!(
                word.as_str(),
                "-n" | "-E" | "-H" | "-S" | "-k" | "-i" | "--"
            )
        };
        let flags = after.iter().take_while(is_flag).count();
        rest = &after[flags..];
    }
    let Some((name, after)) = rest.split_first() else {
        return Err(TypedProblem::OtherCommand("sudo".to_owned()));
    };
    if KEYWORDS.contains(&name.as_str()) {
        return Err(TypedProblem::Keyword(name.clone()));
    }
    if is_assignment(name) {
        return Err(TypedProblem::Assignment(name.clone()));
    }
    if name.starts_with(['-', ':', '*', '[']) {
        return Err(TypedProblem::OutsideTable);
    }
    match name.rsplit('/').next().unwrap_or_default() {
        "iptables" | "iptables-nft" | "iptables-legacy" => Ok((Family::V4, after)),
        "ip6tables" | "ip6tables-nft" | "ip6tables-legacy" => Ok((Family::V6, after)),
        other => Err(TypedProblem::OtherCommand(other.to_owned())),
    }
}

fn is_assignment(word: &str) -> bool {
    let is_name = |name: &str| {
        let mut bytes = name.bytes();
        let first = bytes.next();
        first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    word.split_once('=').is_some_and(|(name, _)| is_name(name))
}

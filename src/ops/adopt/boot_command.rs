//! Finds the commands that add rules in a file that runs at boot: a script, the configuration of wg-quick, YAML of
//! cloud-init, or iptables-save text.

use std::collections::BTreeMap;

use crate::host::boot_text::BootText;

const QUOTES: [char; 2] = ['"', '\''];

/// A command that adds rules.
#[derive(Debug)]
pub enum BootCommand {
    Adds(AddingCommand),
    /// It loads the rules of a file. This is its text.
    Loads(String),
}

/// A command that adds a rule.
#[derive(Debug)]
pub struct AddingCommand {
    pub text: String,
    /// The words before `-A` or `-I`, from the program on; empty if no word is the name of a program, as in a line of
    /// iptables-save text.
    pub program: Vec<String>,
    pub chain: String,
    /// The words behind the chain.
    pub rule: Vec<String>,
}

/// Returns the commands of a file that add rules.
pub fn boot_commands(text: &BootText) -> Vec<BootCommand> {
    // This leaves out the ends of lines that go on, and the 2 of `2>/dev/null`.
    let joined = text.text.replace("\\\n", " ");
    let joined = joined.replace(" 2>", " >").replace(" 1>", " >");
    let lines = joined
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let values = ScriptValues::of(lines.clone());
    let commands = lines.flat_map(|line| line.split([';', '&', '|', '>']));
    commands
        .filter_map(|command| read(&values.filled_in(command), text.interface.as_deref()))
        .collect()
}

/// Reads a command in the middle of other words: a list of YAML has brackets and commas, and a value of wg-quick comes
/// behind its key.
fn read(command: &str, interface: Option<&str>) -> Option<BootCommand> {
    let command = match interface {
        // wg-quick(8): the name of the file's interface.
        Some(interface) => command.replace("%i", interface),
        None => command.to_owned(),
    };
    let text = command.trim().to_owned();
    let is_list = command.trim_start().starts_with("- [");
    let words = command.split_whitespace().map(|word| {
        let edges: &[char] = if is_list {
            &[QUOTES[0], QUOTES[1], '[', ']', ',']
        } else {
            &['[', ']', ',']
        };
        word.trim_matches(edges).to_owned()
    });
    let mut words: Vec<String> = words.collect();
    let at = words.iter().position(|word| is_add(word));
    let program = words[..at.unwrap_or(words.len())]
        .iter()
        .position(|word| is_iptables(word));
    let Some(at) = at else {
        // Text that follows `<<` is in the file itself.
        let loads =
            program.is_some_and(|at| words[at].trim_end_matches(QUOTES).ends_with("-restore"));
        return (loads && !text.contains("<<")).then_some(BootCommand::Loads(text));
    };
    // The whole command stands in quotes.
    if let Some(from) = program.filter(|from| words[*from].starts_with(QUOTES)) {
        words[from] = words[from].trim_start_matches(QUOTES).to_owned();
        if let Some(last) = words.last_mut() {
            *last = last.trim_end_matches(QUOTES).to_owned();
        }
    }
    let program = program.map_or(&[] as &[String], |from| &words[from..at]);
    let mut rest = words[at + 1..].iter();
    let chain = rest.next()?.clone();
    let mut rule: Vec<String> = rest.cloned().collect();
    // The number of `-I CHAIN NUMBER`.
    let is_number = |word: &String| word.bytes().all(|byte| byte.is_ascii_digit());
    if rule.first().is_some_and(is_number) {
        rule.remove(0);
    }
    Some(BootCommand::Adds(AddingCommand {
        text,
        program: program.to_vec(),
        chain,
        rule,
    }))
}

fn is_add(word: &str) -> bool {
    ["-A", "-I", "--append", "--insert"].contains(&word)
}

fn is_iptables(word: &str) -> bool {
    let name = word.trim_start_matches(QUOTES);
    let name = name.rsplit('/').next().unwrap_or(name);
    name.starts_with("iptables") || name.starts_with("ip6tables")
}

/// The variables of a script that have one value, which is written out.
#[derive(Debug)]
struct ScriptValues<'t>(BTreeMap<&'t str, Option<&'t str>>);

impl<'t> ScriptValues<'t> {
    fn of(lines: impl Iterator<Item = &'t str>) -> Self {
        let mut values: BTreeMap<&str, Option<&str>> = BTreeMap::new();
        for (name, value) in lines
            .flat_map(|line| line.split(';'))
            .filter_map(assignment)
        {
            let known = values.entry(name).or_insert(value);
            if *known != value {
                *known = None;
            }
        }
        Self(values)
    }

    /// Puts the values in place of the variables.
    fn filled_in(&self, command: &str) -> String {
        let mut filled = String::new();
        let mut rest = command;
        while let Some((before, after)) = rest.split_once('$') {
            filled.push_str(before);
            let (name, behind) = match after.strip_prefix('{') {
                Some(braced) => braced.split_once('}').unwrap_or((braced, "")),
                None => after.split_at(after.find(|c| !is_of_name(c)).unwrap_or(after.len())),
            };
            match self.0.get(name).copied().flatten() {
                Some(value) => {
                    filled.push_str(value);
                    rest = behind;
                }
                None => {
                    filled.push('$');
                    rest = after;
                }
            }
        }
        filled.push_str(rest);
        filled
    }
}

/// Returns the variable that a command sets, with its value if that is written out.
fn assignment(command: &str) -> Option<(&str, Option<&str>)> {
    let command = command.trim();
    let command = command.strip_prefix("export ").unwrap_or(command);
    let (name, value) = command.split_once('=')?;
    if name.is_empty() || !name.chars().all(is_of_name) {
        return None;
    }
    let value = value.split(" #").next().unwrap_or(value).trim_end();
    let quoted = QUOTES
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
    let is_word = |value: &str| !value.contains([' ', '\t', '"', '\'']);
    let value = quoted.or_else(|| is_word(value).then_some(value))?;
    Some((name, (!value.contains(['$', '`'])).then_some(value)))
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

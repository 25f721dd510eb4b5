//! The words that may follow a command line: commands, options and values.

use super::answer::Completion;
use super::line::{CommandLine, takes_value};
use super::values::TypedValue;

/// Returns the words that may follow `line`, of those that begin with `typed`. `whole` also has the words behind the
/// cursor.
pub fn offers(line: &CommandLine<'_>, whole: &CommandLine<'_>, typed: &str) -> Completion {
    let mut found = Completion::default();
    if line.is_lost {
        return found;
    }
    if let Some(option) = line.awaits {
        TypedValue::new(option, "", typed).add(whole, &mut found);
    } else if let Some((name, text)) = attached(line, typed) {
        if let Some(option) = line.long(name).filter(|option| takes_value(option)) {
            TypedValue::new(option, &format!("--{name}="), text).add(whole, &mut found);
        }
    } else {
        if let Some(argument) = line.positional() {
            TypedValue::new(argument, "", typed).add(whole, &mut found);
        }
        let commands = line.command.get_subcommands();
        let shown = commands.filter(|command| !line.no_options && !command.is_hide_set());
        for command in shown {
            found.add(command.get_name(), command.get_about(), typed);
        }
        // An empty word asks for arguments, if there are any.
        let has_others = !found.words.is_empty() || found.paths.is_some();
        if !line.no_options && (typed.starts_with('-') || !has_others) {
            options(line, typed, &mut found);
        }
    }
    found
}

/// Splits `--name=value`.
fn attached<'t>(line: &CommandLine<'_>, typed: &'t str) -> Option<(&'t str, &'t str)> {
    let long = typed.strip_prefix("--").filter(|_| !line.no_options)?;
    long.split_once('=')
}

/// Adds the options that are not given yet.
fn options(line: &CommandLine<'_>, typed: &str, found: &mut Completion) {
    for option in line.command.get_arguments() {
        let is_repeated = matches!(option.get_action(), clap::ArgAction::Append);
        let is_given = line.has(option) && !is_repeated;
        if option.is_positional() || option.is_hide_set() || is_given {
            continue;
        }
        if let Some(long) = option.get_long() {
            found.add(&format!("--{long}"), option.get_help(), typed);
        }
        if let Some(short) = option.get_short().filter(|_| typed == "-") {
            found.add(&format!("-{short}"), option.get_help(), typed);
        }
    }
}

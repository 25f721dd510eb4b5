//! Reads the words of one command as `getopt_long(3)` does: long options may be abbreviated, and an option is looked up
//! among those of iptables and of the matches and the target that are loaded by then.

use super::action::read_action;
use super::loading::{Loading, Meant, Slot};
use super::options::{self, OwnValue};
use super::words::CommandWords;
use super::{Action, Given, Typed, TypedCommand, TypedRule, TypedTarget};
use crate::net::Family;
use crate::netfilter::names::TableName;
use crate::netfilter::text::typed::error::{OrProblem, TypedProblem};
use crate::netfilter::text::typed::extensions::{ExtensionOption, Values};

/// Reads the words behind the name of the program.
pub fn read_command(words: &[String], family: Family) -> OrProblem<TypedCommand> {
    let mut reader = CommandReader {
        words: CommandWords::new(words),
        family,
        is_negated: false,
        table: None,
        of: None,
        action: None,
        rule: TypedRule::default(),
        loading: Loading::new(family),
        of_list: None,
    };
    while let Some(word) = reader.words.next_word() {
        reader.read(word)?;
    }
    reader.finish()
}

struct CommandReader<'w> {
    words: CommandWords<'w>,
    family: Family,
    /// A `!` stands before the next option.
    is_negated: bool,
    table: Option<TableName>,
    of: Option<Family>,
    /// The action, and its option as typed.
    action: Option<(Action, String)>,
    rule: TypedRule,
    loading: Loading,
    /// An option that only commands that list take.
    of_list: Option<String>,
}

impl<'w> CommandReader<'w> {
    fn read(&mut self, word: &'w str) -> OrProblem<()> {
        if word == "!" {
            if self.is_negated {
                return Err(TypedProblem::BadArgument(word.to_owned()));
            }
            self.is_negated = true;
            return Ok(());
        }
        if let Some(long) = word.strip_prefix("--").filter(|long| !long.is_empty()) {
            let (name, attached) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, None),
            };
            return match self.meant(name)? {
                Meant::Own(letter) => self.own(letter, &format!("--{name}"), attached),
                Meant::OfSlot(slot, option) => self.of_slot(slot, option, attached),
            };
        }
        match word.strip_prefix('-').filter(|short| !short.is_empty()) {
            Some(short) => self.short(word, short),
            None => Err(TypedProblem::BadArgument(word.to_owned())),
        }
    }

    /// Reads `-nv`, or `-p` with its value in the same word or behind it.
    fn short(&mut self, word: &str, mut letters: &'w str) -> OrProblem<()> {
        while let Some(letter) = letters.chars().next() {
            let rest = &letters[letter.len_utf8()..];
            let spelled = format!("-{letter}");
            // `-0` is known by its long name alone.
            let value = options::value_of(letter).filter(|_| letter != '0');
            match value {
                None => return Err(TypedProblem::UnknownOption(word.to_owned())),
                Some(OwnValue::None) => self.own(letter, &spelled, None)?,
                Some(_) => {
                    return self.own(letter, &spelled, Some(rest).filter(|rest| !rest.is_empty()));
                }
            }
            letters = rest;
        }
        Ok(())
    }

    /// Reads an option of an extension.
    fn of_slot(
        &mut self,
        slot: usize,
        option: ExtensionOption,
        attached: Option<&'w str>,
    ) -> OrProblem<()> {
        let spelled = || format!("--{}", option.name());
        let mut is_negated = std::mem::take(&mut self.is_negated);
        let mut values: Vec<String> = attached.into_iter().map(str::to_owned).collect();
        match option.values {
            Values::Exactly(0) if attached.is_some() => {
                return Err(TypedProblem::ValueThere(spelled()));
            }
            Values::Exactly(count) => {
                while values.len() < count {
                    let value = self
                        .words
                        .next_word()
                        .ok_or_else(|| TypedProblem::ValueMissing(spelled()))?;
                    // The older place of `!`, which iptables took until 1.4.
                    if value == "!" && option.is_negatable && values.is_empty() && !is_negated {
                        is_negated = true;
                    } else {
                        values.push(value.to_owned());
                    }
                }
            }
            Values::Optional => {
                if attached.is_none() {
                    values.extend(self.words.next_plain().map(str::to_owned));
                }
            }
        }
        if is_negated && !option.is_negatable {
            return Err(TypedProblem::NotNegatable(spelled()));
        }
        let has_protocol = self.rule.protocol.is_some();
        let loaded = self.loading.at(slot);
        if loaded.extension.name == "multiport" && !has_protocol {
            return Err(TypedProblem::Refused(
                "`-m multiport` needs `-p tcp`, `-p udp` or another protocol with ports before its ports",
            ));
        }
        // `-m policy` describes one element after another.
        if loaded.given(option.name()).is_some() && loaded.extension.name != "policy" {
            return Err(TypedProblem::Twice(spelled()));
        }
        loaded.given.push(Given {
            name: option.name(),
            at: option.at,
            is_negated,
            values,
        });
        Ok(())
    }

    /// Reads an option of iptables itself.
    fn own(&mut self, letter: char, spelled: &str, attached: Option<&'w str>) -> OrProblem<()> {
        let value_of = options::value_of(letter);
        if attached.is_some() && value_of == Some(OwnValue::None) {
            return Err(TypedProblem::ValueThere(spelled.to_owned()));
        }
        if matches!(letter, 's' | 'd' | 'i' | 'o' | 'p') {
            return self.general(letter, spelled, attached);
        }
        if std::mem::take(&mut self.is_negated) {
            if letter != 'f' {
                return Err(TypedProblem::NotNegatable(spelled.to_owned()));
            }
            self.is_negated = true;
        }
        let value = match (value_of, attached) {
            (Some(OwnValue::One), None) => self.words.next_word().map(Some),
            (_, attached) => Some(attached),
        };
        let value = value.ok_or_else(|| TypedProblem::ValueMissing(spelled.to_owned()))?;
        match letter {
            't' => {
                let name = value.unwrap_or_default();
                let table = name.parse();
                let table = table.map_err(|_| TypedProblem::UnknownTable(name.to_owned()))?;
                if self.table.replace(table).is_some() {
                    return Err(TypedProblem::Twice(spelled.to_owned()));
                }
            }
            'm' => self.loading.load_match(value.unwrap_or_default())?,
            'j' => {
                check_apart(spelled, attached)?;
                self.load_target(letter, value.unwrap_or_default())?;
            }
            'g' => self.load_target(letter, value.unwrap_or_default())?,
            'f' => {
                let is_wanted = !std::mem::take(&mut self.is_negated);
                if self.family == Family::V6 {
                    return Err(TypedProblem::UnknownOption(spelled.to_owned()));
                }
                if self.rule.fragments.replace(is_wanted).is_some() {
                    return Err(TypedProblem::Twice(spelled.to_owned()));
                }
            }
            '4' => self.of = Some(Family::V4),
            '6' => self.of = Some(Family::V6),
            'w' | 'W' => self.wait(spelled, value)?,
            'c' => {
                if !value.unwrap_or_default().contains(',') {
                    self.words.next_plain();
                }
            }
            'n' | 'x' | '0' => self.of_list = Some(spelled.to_owned()),
            'v' | 'M' => {}
            _ => self.act(letter, spelled, value)?,
        }
        Ok(())
    }

    fn general(&mut self, letter: char, spelled: &str, attached: Option<&'w str>) -> OrProblem<()> {
        let mut is_negated = std::mem::take(&mut self.is_negated);
        let missing = || TypedProblem::ValueMissing(spelled.to_owned());
        check_apart(spelled, attached)?;
        let mut value = self.words.next_word().ok_or_else(missing)?;
        if value == "!" && !is_negated {
            is_negated = true;
            value = self.words.next_word().ok_or_else(missing)?;
        }
        let slot = match letter {
            's' => &mut self.rule.source,
            'd' => &mut self.rule.destination,
            'i' => &mut self.rule.ingress,
            'o' => &mut self.rule.egress,
            _ => &mut self.rule.protocol,
        };
        let typed = Typed {
            is_negated,
            value: value.to_owned(),
        };
        match slot.replace(typed) {
            Some(_) => Err(TypedProblem::Twice(spelled.to_owned())),
            None => Ok(()),
        }
    }

    fn wait(&mut self, spelled: &str, attached: Option<&str>) -> OrProblem<()> {
        let value = attached.or_else(|| self.words.next_plain());
        match value {
            Some(value) if value.parse::<u32>().is_err() => Err(TypedProblem::BadValue {
                option: spelled.to_owned(),
                value: value.to_owned(),
                expected: "a number of seconds",
            }),
            _ => Ok(()),
        }
    }

    /// Finds the option that a long name stands for.
    fn meant(&mut self, name: &str) -> OrProblem<Meant> {
        let protocol = self.rule.protocol.as_ref();
        self.loading
            .meant(name, protocol.map(|typed| typed.value.as_str()))
    }

    fn load_target(&mut self, letter: char, name: &str) -> OrProblem<()> {
        let is_goto = letter == 'g';
        let target = TypedTarget {
            name: name.to_owned(),
            is_goto,
            loaded: None,
        };
        if self.rule.target.replace(target).is_some() {
            return Err(TypedProblem::Twice(format!("-{letter}")));
        }
        if !is_goto {
            self.loading.load_target(name);
        }
        Ok(())
    }

    fn act(&mut self, letter: char, spelled: &str, value: Option<&'w str>) -> OrProblem<()> {
        let action = read_action(letter, spelled, value, &mut self.words)?;
        match &self.action {
            None => {}
            // `-L -Z` lists and then resets the counters.
            Some((Action::Nothing, _)) if action == Action::Nothing => {}
            Some(_) => return Err(TypedProblem::SecondCommand(spelled.to_owned())),
        }
        self.action = Some((action, spelled.to_owned()));
        Ok(())
    }

    fn finish(mut self) -> OrProblem<TypedCommand> {
        if self.is_negated {
            return Err(TypedProblem::BadArgument("!".to_owned()));
        }
        for slot in self.loading.finish() {
            match (slot, &mut self.rule.target) {
                (Slot::Match(loaded), _) => self.rule.matches.push(loaded),
                (Slot::Target(loaded), Some(target)) => target.loaded = Some(loaded),
                (Slot::Target(_), None) => {}
            }
        }
        let (action, spelled) = self.action.ok_or(TypedProblem::NoCommand)?;
        if let Some(option) = self.of_list.filter(|_| action != Action::Nothing) {
            return Err(TypedProblem::UnknownOption(option));
        }
        let has_rule = matches!(
            action,
            Action::Append(_)
                | Action::Insert(..)
                | Action::Replace(..)
                | Action::Delete(_)
                | Action::Nothing
        );
        if !has_rule && !self.rule.is_empty() {
            return Err(TypedProblem::NoRuleThere(spelled));
        }
        Ok(TypedCommand {
            table: self.table.unwrap_or(TableName::Filter),
            names_table: self.table.is_some(),
            of: self.of,
            action,
            rule: self.rule,
        })
    }
}

/// iptables looks for the values of some options in the word behind them only: of `-oeth0` it makes the interface
/// `-oeth0` (measured, 1.8.9; `argv[optind - 1]` in iptables/xshared.c).
fn check_apart(option: &str, attached: Option<&str>) -> OrProblem<()> {
    match attached {
        None => Ok(()),
        Some(_) => Err(TypedProblem::AttachedValue(option.to_owned())),
    }
}

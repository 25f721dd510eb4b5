//! Reads the words of one command as getopt_long(3) does: long options may be abbreviated, and an option is looked up
//! among those of iptables and of the matches and the target that are loaded by then.

use super::options::{self, Value};
use super::{Action, Command, Given, Loaded, Typed, TypedRule, TypedTarget};
use crate::net::Family;
use crate::netfilter::names::{ChainName, Policy, TableName};
use crate::netfilter::text::typed::error::TypedProblem;
use crate::netfilter::text::typed::extensions::{
    ExtensionOption, Values, match_named, target_named,
};
use crate::netfilter::text::typed::values::protocols;

type Result<T> = std::result::Result<T, TypedProblem>;

/// Reads the words behind the name of the program.
pub(in super::super) fn read_command(words: &[String], family: Family) -> Result<Command> {
    let mut reader = Reader {
        words,
        at: 0,
        family,
        is_negated: false,
        table: None,
        of: None,
        action: None,
        rule: TypedRule::default(),
        loaded: Vec::new(),
        of_list: None,
    };
    while let Some(word) = reader.next() {
        reader.read(word)?;
    }
    reader.finish()
}

/// A match or the target, in the order of loading.
enum Slot {
    Match(Loaded),
    Target(Loaded),
}

impl Slot {
    fn loaded(&self) -> &Loaded {
        match self {
            Slot::Match(loaded) | Slot::Target(loaded) => loaded,
        }
    }

    fn loaded_mut(&mut self) -> &mut Loaded {
        match self {
            Slot::Match(loaded) | Slot::Target(loaded) => loaded,
        }
    }
}

struct Reader<'w> {
    words: &'w [String],
    at: usize,
    family: Family,
    /// A `!` stands before the next option.
    is_negated: bool,
    table: Option<TableName>,
    of: Option<Family>,
    /// The action, and its option as typed.
    action: Option<(Action, String)>,
    rule: TypedRule,
    loaded: Vec<Slot>,
    /// An option that only commands that list take.
    of_list: Option<String>,
}

/// An option that a long name stands for.
enum Meant {
    Own(char),
    OfSlot(usize, ExtensionOption),
}

impl<'w> Reader<'w> {
    fn next(&mut self) -> Option<&'w str> {
        let word = self.words.get(self.at)?;
        self.at += 1;
        Some(word)
    }

    /// Returns the next word, unless an option or `!` begins there (`xs_has_arg` in iptables/xshared.c).
    fn next_plain(&mut self) -> Option<&'w str> {
        let word = self.words.get(self.at)?;
        if word.starts_with(['-', '!']) {
            return None;
        }
        self.next()
    }

    fn read(&mut self, word: &'w str) -> Result<()> {
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
    fn short(&mut self, word: &str, mut letters: &'w str) -> Result<()> {
        while let Some(letter) = letters.chars().next() {
            let rest = &letters[letter.len_utf8()..];
            let spelled = format!("-{letter}");
            // `-0` is known by its long name alone.
            let value = options::value_of(letter).filter(|_| letter != '0');
            match value {
                None => return Err(TypedProblem::UnknownOption(word.to_owned())),
                Some(Value::None) => self.own(letter, &spelled, None)?,
                Some(_) => {
                    return self.own(letter, &spelled, Some(rest).filter(|rest| !rest.is_empty()));
                }
            }
            letters = rest;
        }
        Ok(())
    }

    /// Finds the option that a long name, or the beginning of one, stands for. Options of iptables come first, then
    /// those of the extension that was loaded last (`xtables_merge_options` in libxtables). The match of the protocol
    /// is loaded when an option is not known without it.
    fn meant(&mut self, name: &str) -> Result<Meant> {
        if let Some(meant) = self.known(name) {
            return Ok(meant);
        }
        if self.load_protocol()
            && let Some(meant) = self.known(name)
        {
            return Ok(meant);
        }
        Err(TypedProblem::UnknownOption(format!("--{name}")))
    }

    fn known(&self, name: &str) -> Option<Meant> {
        if let Some(letter) = options::long(name) {
            return Some(Meant::Own(letter));
        }
        let of_slots = || {
            let slots = self.loaded.iter().enumerate().rev();
            slots.flat_map(|(slot, loaded)| {
                let options = loaded.loaded().extension.options();
                options.map(move |option| (slot, option))
            })
        };
        let is_named = |(_, option): &(usize, ExtensionOption)| {
            let mut names = option.names();
            names.any(|known| known == name)
        };
        if let Some((slot, option)) = of_slots().find(is_named) {
            return Some(Meant::OfSlot(slot, option));
        }
        let begins = |(_, option): &(usize, ExtensionOption)| {
            let mut names = option.names();
            names.any(|known| known.starts_with(name))
        };
        let own = options::beginning_with(name);
        let mut beginning = of_slots().filter(begins);
        match (own.as_slice(), beginning.next(), beginning.next()) {
            ([letter], None, _) => Some(Meant::Own(*letter)),
            ([], Some((slot, option)), None) => Some(Meant::OfSlot(slot, option)),
            _ => None,
        }
    }

    /// Loads the match of the rule's protocol, if it has one and that is not loaded yet.
    fn load_protocol(&mut self) -> bool {
        let protocol = self.rule.protocol.as_ref();
        let Some(name) = protocol.and_then(|typed| protocols::module(&typed.value, self.family))
        else {
            return false;
        };
        let is_loaded = |slot: &Slot| slot.loaded().extension.name == name;
        if self.loaded.iter().any(is_loaded) {
            return false;
        }
        let Some(extension) = match_named(name, self.family) else {
            return false;
        };
        self.loaded.push(Slot::Match(Loaded {
            extension,
            given: Vec::new(),
        }));
        true
    }

    /// Reads an option of an extension.
    fn of_slot(
        &mut self,
        slot: usize,
        option: ExtensionOption,
        attached: Option<&'w str>,
    ) -> Result<()> {
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
                        .next()
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
                    values.extend(self.next_plain().map(str::to_owned));
                }
            }
        }
        if is_negated && !option.is_negatable {
            return Err(TypedProblem::NotNegatable(spelled()));
        }
        let has_protocol = self.rule.protocol.is_some();
        let loaded = self.loaded[slot].loaded_mut();
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
    fn own(&mut self, letter: char, spelled: &str, attached: Option<&'w str>) -> Result<()> {
        let value_of = options::value_of(letter);
        if attached.is_some() && value_of == Some(Value::None) {
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
            (Some(Value::One), None) => self.next().map(Some),
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
            'm' => self.load_match(value.unwrap_or_default())?,
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
                    self.next_plain();
                }
            }
            'n' | 'x' | '0' => self.of_list = Some(spelled.to_owned()),
            'v' | 'M' => {}
            _ => self.act(letter, spelled, value)?,
        }
        Ok(())
    }

    fn general(&mut self, letter: char, spelled: &str, attached: Option<&'w str>) -> Result<()> {
        let mut is_negated = std::mem::take(&mut self.is_negated);
        let missing = || TypedProblem::ValueMissing(spelled.to_owned());
        check_apart(spelled, attached)?;
        let mut value = self.next().ok_or_else(missing)?;
        if value == "!" && !is_negated {
            is_negated = true;
            value = self.next().ok_or_else(missing)?;
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

    fn wait(&mut self, spelled: &str, attached: Option<&str>) -> Result<()> {
        let value = attached.or_else(|| self.next_plain());
        match value {
            Some(value) if value.parse::<u32>().is_err() => Err(TypedProblem::BadValue {
                option: spelled.to_owned(),
                value: value.to_owned(),
                expected: "a number of seconds",
            }),
            _ => Ok(()),
        }
    }

    fn load_match(&mut self, name: &str) -> Result<()> {
        let unknown = || TypedProblem::UnknownMatch {
            name: name.to_owned(),
            of: self.family,
        };
        let extension = match_named(name, self.family).ok_or_else(unknown)?;
        self.loaded.push(Slot::Match(Loaded {
            extension,
            given: Vec::new(),
        }));
        Ok(())
    }

    fn load_target(&mut self, letter: char, name: &str) -> Result<()> {
        let is_goto = letter == 'g';
        let target = TypedTarget {
            name: name.to_owned(),
            is_goto,
            loaded: None,
        };
        if self.rule.target.replace(target).is_some() {
            return Err(TypedProblem::Twice(format!("-{letter}")));
        }
        if let Some(extension) = target_named(name, self.family).filter(|_| !is_goto) {
            self.loaded.push(Slot::Target(Loaded {
                extension,
                given: Vec::new(),
            }));
        }
        Ok(())
    }

    /// Reads an option that says what the command does, and the words that belong to it.
    fn act(&mut self, letter: char, spelled: &str, value: Option<&'w str>) -> Result<()> {
        let chain = || ChainName::from(value.unwrap_or_default());
        let missing = || TypedProblem::ValueMissing(spelled.to_owned());
        let action = match letter {
            'A' => Action::Append(chain()),
            'I' => match self.next_plain() {
                None => Action::Insert(chain(), 1),
                Some(at) => Action::Insert(chain(), place(spelled, at)?),
            },
            'R' => {
                let at = self.next_plain().ok_or_else(missing)?;
                Action::Replace(chain(), place(spelled, at)?)
            }
            'D' => match self.next_plain() {
                None => Action::Delete(chain()),
                Some(at) => Action::DeleteAt(chain(), place(spelled, at)?),
            },
            'N' => Action::New(chain()),
            'F' => Action::Flush(self.chain_behind(value)),
            'X' => Action::DeleteChain(self.chain_behind(value)),
            'E' => {
                let name = self.next_plain().ok_or_else(missing)?;
                Action::Rename(chain(), name.into())
            }
            'P' => {
                let policy = self.next_plain().ok_or_else(missing)?;
                Action::SetPolicy(chain(), read_policy(spelled, policy)?)
            }
            // `-C` asks for a rule; the others take a chain and a number that change nothing.
            'L' | 'S' | 'Z' | 'h' => {
                while self.next_plain().is_some() {}
                Action::Nothing
            }
            _ => Action::Nothing,
        };
        match &self.action {
            None => {}
            // `-L -Z` lists and then resets the counters.
            Some((Action::Nothing, _)) if action == Action::Nothing => {}
            Some(_) => return Err(TypedProblem::SecondCommand(spelled.to_owned())),
        }
        self.action = Some((action, spelled.to_owned()));
        Ok(())
    }

    fn chain_behind(&mut self, attached: Option<&'w str>) -> Option<ChainName> {
        attached.or_else(|| self.next_plain()).map(ChainName::from)
    }

    fn finish(mut self) -> Result<Command> {
        if self.is_negated {
            return Err(TypedProblem::BadArgument("!".to_owned()));
        }
        for slot in self.loaded {
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
        Ok(Command {
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
fn check_apart(option: &str, attached: Option<&str>) -> Result<()> {
    match attached {
        None => Ok(()),
        Some(_) => Err(TypedProblem::AttachedValue(option.to_owned())),
    }
}

fn place(option: &str, at: &str) -> Result<usize> {
    let number = at.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| TypedProblem::BadValue {
        option: option.to_owned(),
        value: at.to_owned(),
        expected: "the number of a rule, counted from 1",
    })
}

fn read_policy(option: &str, policy: &str) -> Result<Policy> {
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

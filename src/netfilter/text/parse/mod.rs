//! Reads iptables-save text: the one place that reads iptables syntax.
//!
//! Options without a type are kept word for word, and a rule that cannot be split into words is kept whole
//! ([`Rule::unread`]). A line that is no iptables-save text is an error, unless the text comes from the
//! kernel: then it belongs to the rule before it ([`Growing::of_kernel`]).

mod families;
mod lines;
mod listed;
mod matches;
mod policies;
mod rule;
mod spelling;
mod untyped;

use std::borrow::Cow;
use std::collections::BTreeSet;

pub use families::by_family;
use lines::chain_at;
pub use lines::{line_len, lines};
pub use listed::parse_listed;
pub use policies::policy_packets;
pub(super) use rule::read_rule;
pub use rule::{first_destination, first_source};
pub use spelling::{check_spelling, first_line_with};
use thiserror::Error;
pub use untyped::{
    DnatRange, EveryNth, SnatRange, UpTo, comes_from_port_0, dnat_range, every_nth, snat_range,
    up_to,
};

use crate::netfilter::counters::{Count, Counters};
use crate::netfilter::names::{ChainName, Policy, TableName};
use crate::netfilter::rule::Rule;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::token::{is_closed, value, words};

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {problem}: `{text}`")]
pub struct ParseError {
    /// Counted from 1.
    pub line: usize,
    pub text: String,
    pub problem: ParseProblem,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseProblem {
    #[error("not a line of iptables-save text")]
    NotALine,
    #[error("a table that no kernel has")]
    UnknownTable,
    #[error("a table that the file has had already")]
    TableTwice,
    #[error("a table begins before COMMIT has ended the one before")]
    NoCommit,
    #[error("stands outside of a table")]
    OutsideTable,
    #[error("the text ends before COMMIT, as if it had been cut")]
    CutOff,
    #[error("iptables-restore takes no carriage return")]
    CarriageReturn,
    #[error("iptables-restore takes no blanks there")]
    Blanks,
}

/// Returns whether a text is iptables-save's and not a spec: it begins with a table, or has only comments.
#[must_use]
pub fn is_saved(text: &str) -> bool {
    let said = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let first = text.lines().map(str::trim_ascii).find(said);
    first.is_none_or(|line| line.starts_with('*'))
}

/// Returns the bytes of iptables-save as text. A comment may hold any bytes.
#[must_use]
pub fn text_of(saved: &[u8]) -> Cow<'_, str> {
    // It seldom does, and looking is several times cheaper than replacing.
    str::from_utf8(saved).map_or_else(|_| String::from_utf8_lossy(saved), Cow::Borrowed)
}

/// Reads a whole text into a ruleset.
///
/// # Errors
/// [`ParseError`] for the first line that iptables-save cannot have printed.
pub fn parse(text: &str) -> Result<Ruleset, ParseError> {
    Ok(parse_counted(text)?.0)
}

/// Reads what `iptables-save -c` prints: the rules, and how often each has matched.
///
/// # Errors
/// As [`parse`].
pub fn parse_counted(text: &str) -> Result<(Ruleset, Counters), ParseError> {
    let mut growing = Growing::default();
    lines(text).try_for_each(|line| growing.read(line))?;
    let saved = growing.finish()?;
    Ok((saved.ruleset, saved.counters))
}

/// The content of a text.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Saved {
    pub ruleset: Ruleset,
    /// How often each rule has matched, as far as the text has it.
    pub counters: Counters,
    /// The tables that iptables-nft-save left out, because they hold rules that it cannot print.
    pub unshown: Vec<TableName>,
}

/// The rules of a text that comes line by line.
#[derive(Debug, Default)]
pub struct Growing {
    reader: Reader,
    saved: Saved,
    of_kernel: bool,
    /// The rule that was read last: the next line may belong to it.
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    table: TableName,
    chain: ChainName,
    rule: Rule,
    count: Count,
    /// The comments and empty lines behind it.
    behind: String,
}

impl Growing {
    /// Reads what iptables prints of the kernel's rules. A line that is no line of iptables-save belongs to the
    /// rule before it, which becomes an unread one: a name may hold line breaks, and must not hide all other
    /// rules.
    #[must_use]
    pub fn of_kernel() -> Self {
        Self {
            of_kernel: true,
            ..Self::default()
        }
    }

    /// Reads the next of the text's [`lines`], with its end or without.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn read(&mut self, line: &str) -> Result<(), ParseError> {
        let read = match self.reader.read(line) {
            Ok(read) => read,
            Err(error) if self.of_kernel && error.problem == ParseProblem::NotALine => {
                let last = self.last.as_mut().ok_or(error)?;
                last.rule = last.rule.followed_by(&last.behind, without_end(line));
                last.behind.clear();
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if let (Read::Nothing, Some(last)) = (&read, &mut self.last) {
            last.behind.push_str(without_end(line));
            last.behind.push('\n');
            return Ok(());
        }
        self.keep_last();
        let ruleset = &mut self.saved.ruleset;
        match read {
            Read::Nothing | Read::Commit => {}
            Read::Unshown(table) => self.saved.unshown.push(table),
            Read::Table(table) => {
                ruleset.tables.entry(table).or_default();
            }
            Read::Chain(table, name, policy) => {
                ruleset.chain_mut(table, name).policy = policy;
            }
            Read::Rule(table, chain, rule) => {
                self.last = Some(Last {
                    table,
                    chain,
                    rule,
                    count: count_of(line).unwrap_or_default(),
                    behind: String::new(),
                });
            }
        }
        Ok(())
    }

    fn keep_last(&mut self) {
        if let Some(last) = self.last.take() {
            let Saved {
                ruleset, counters, ..
            } = &mut self.saved;
            counters.push(last.table, &last.chain, last.count);
            ruleset
                .chain_mut(last.table, last.chain)
                .rules
                .push(last.rule);
        }
    }

    /// Returns what has been read, at the end of the text.
    ///
    /// # Errors
    /// As [`Reader::finish`].
    pub fn finish(mut self) -> Result<Saved, ParseError> {
        self.keep_last();
        self.reader.finish()?;
        Ok(self.saved)
    }
}

fn without_end(line: &str) -> &str {
    line.strip_suffix('\n').unwrap_or(line)
}

/// `[packets:bytes]`, with which a line of `iptables-save -c` begins.
fn count_of(line: &str) -> Option<Count> {
    let (count, _) = line.trim_ascii().strip_prefix('[')?.split_once(']')?;
    let (packets, bytes) = count.split_once(':')?;
    Some(Count {
        packets: packets.parse().ok()?,
        bytes: bytes.parse().ok()?,
    })
}

/// The meaning of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// A comment or an empty line.
    Nothing,
    Table(TableName),
    Chain(TableName, ChainName, Option<Policy>),
    Rule(TableName, ChainName, Rule),
    Commit,
    /// iptables-nft-save says that it cannot print this table.
    Unshown(TableName),
}

/// Reads a text line by line, for callers that keep the lines themselves.
#[derive(Debug, Default)]
pub struct Reader {
    line: usize,
    /// The table that is open, and its user-defined chains: they tell a jump from a target.
    open: Option<(TableName, BTreeSet<ChainName>)>,
    seen: BTreeSet<TableName>,
}

impl Reader {
    /// Reads the next of the text's [`lines`], with its end or without.
    ///
    /// # Errors
    /// [`ParseError`] when it cannot stand there in iptables-save text.
    pub fn read(&mut self, line: &str) -> Result<Read, ParseError> {
        let line = without_end(line);
        let first = self.line + 1;
        self.line = first + line.matches('\n').count();
        let text = line.trim_matches([' ', '\t', '\r']);
        self.read_line(text).map_err(|problem| ParseError {
            line: first,
            text: text.to_owned(),
            problem,
        })
    }

    fn read_line(&mut self, text: &str) -> Result<Read, ParseProblem> {
        if text.is_empty() || text.starts_with('#') {
            let unshown = unshown(text).filter(|_| self.open.is_none());
            return Ok(unshown.map_or(Read::Nothing, Read::Unshown));
        }
        if let Some(table) = text.strip_prefix('*') {
            let table = table.parse().map_err(|_| ParseProblem::UnknownTable)?;
            if self.open.is_some() {
                return Err(ParseProblem::NoCommit);
            }
            if !self.seen.insert(table) {
                return Err(ParseProblem::TableTwice);
            }
            self.open = Some((table, BTreeSet::new()));
            return Ok(Read::Table(table));
        }
        let (table, chains) = self.open.as_mut().ok_or(ParseProblem::OutsideTable)?;
        if text == "COMMIT" {
            self.open = None;
            return Ok(Read::Commit);
        }
        if let Some(declaration) = text.strip_prefix(':') {
            let mut words = declaration
                .split([' ', '\t'])
                .filter(|word| !word.is_empty());
            let (Some(name), Some(policy)) = (words.next(), words.next()) else {
                return Err(ParseProblem::NotALine);
            };
            let name = ChainName::from(name);
            let policy = match policy {
                "-" => None,
                "ACCEPT" => Some(Policy::Accept),
                "DROP" => Some(Policy::Drop),
                _ => return Err(ParseProblem::NotALine),
            };
            if !name.is_builtin() {
                chains.insert(name.clone());
            }
            return Ok(Read::Chain(*table, name, policy));
        }
        let (chain, rule) = appended(text, chains).ok_or(ParseProblem::NotALine)?;
        Ok(Read::Rule(*table, chain, rule))
    }

    /// Checks, behind the last line, that the text is whole.
    ///
    /// # Errors
    /// [`ParseError`] when a table is still open: then the text has been cut short.
    pub fn finish(self) -> Result<(), ParseError> {
        match self.open {
            None => Ok(()),
            Some((table, _)) => Err(ParseError {
                line: self.line,
                text: format!("*{table}"),
                problem: ParseProblem::CutOff,
            }),
        }
    }
}

/// Reads one line `-A CHAIN …`, if it is one. A jump to a chain that is not in `chains` is read as a target of
/// that name.
#[must_use]
pub fn appended(line: &str, chains: &BTreeSet<ChainName>) -> Option<(ChainName, Rule)> {
    let chain = chain_at(line.as_bytes())?;
    let (name, rule) = (&line[chain.clone()], &line[chain.end..]);
    if name.starts_with('"') {
        return None;
    }
    Some((name.into(), rule_of(rule, chains)))
}

/// Reads a rule without the name of its chain. A jump to a chain that is not in `chains` is read as a target of that
/// name.
#[must_use]
pub fn rule_of(text: &str, chains: &BTreeSet<ChainName>) -> Rule {
    if !is_closed(text) {
        return Rule::unread(text.trim_start_matches([' ', '\t']));
    }
    // More than most rules have.
    let mut all = Vec::with_capacity(48);
    all.extend(words(text));
    read_rule(&all, chains)
}

/// Returns the table that iptables-nft-save left out because it cannot print its rules: it says so in a
/// comment and ends with 0 (`xtables_save_main`, iptables/xtables-save.c). Native tables of other names are not
/// iptables' at all.
#[must_use]
pub fn unshown(comment: &str) -> Option<TableName> {
    let (table, rest) = comment.strip_prefix("# Table `")?.split_once('\'')?;
    let table = table.parse().ok()?;
    rest.starts_with(" is incompatible").then_some(table)
}

/// Returns the comment of the rule that a line adds: the name of a forward, if the rule is nvactl's.
#[must_use]
pub fn comment_of(line: &str) -> Option<String> {
    let mut words = words(line).skip_while(|word| *word != "--comment");
    words.nth(1).map(|word| value(word).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netfilter::limit::{HashLimit, PerSecond, Whose};
    use crate::netfilter::matches::Match;
    use crate::netfilter::target::Target;
    use crate::netfilter::unread::unread;

    /// As [`parse_counted`], but of what iptables prints of the kernel's rules.
    fn of_kernel(text: &str) -> Result<Saved, ParseError> {
        let mut growing = Growing::of_kernel();
        lines(text).try_for_each(|line| growing.read(line))?;
        growing.finish()
    }

    fn forward(saved: &Saved) -> &[Rule] {
        let chain = saved.ruleset.chain(TableName::Filter, &ChainName::Forward);
        &chain.expect("it is there").rules
    }

    /// As iptables 1.8.9 prints it, nft and legacy.
    const BROKEN: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
[1:10] -A FORWARD -s 192.0.2.1/32 -j DROP
[2:20] -A FORWARD -p tcp -m tcp --dport 80 -m comment --comment \"a \\\"q\\\" \\\\

#x
  COMMIT
-A FORWARD -j DROP\" -j ACCEPT
[3:30] -A FORWARD -s 192.0.2.3/32 -j DROP
COMMIT
";

    #[test]
    fn a_comment_with_line_breaks_is_part_of_its_rule() {
        for saved in [of_kernel(BROKEN), parse_counted(BROKEN).map(of_file)] {
            let saved = saved.expect("it is readable");
            let rules = forward(&saved);
            assert_eq!(rules.len(), 3);
            let comment = "a \"q\" \\\n\n#x\n  COMMIT\n-A FORWARD -j DROP";
            assert_eq!(rules[1].matches[2], Match::Comment(comment.into()));
            assert_eq!(rules[1].target, Some(Target::Accept));
            let loadable: Vec<bool> = rules.iter().map(Rule::is_loadable).collect();
            assert_eq!(loadable, [true, false, true]);
            let counts = saved.counters.of(TableName::Filter, &ChainName::Forward);
            let packets: Vec<u64> = counts.iter().map(|count| count.packets).collect();
            assert_eq!(packets, [1, 2, 3]);
            let printed = saved.ruleset.to_string();
            assert_eq!(parse(&printed).as_ref(), Ok(&saved.ruleset));
            let uncounted = ["[1:10] ", "[2:20] ", "[3:30] "]
                .iter()
                .fold(BROKEN.to_owned(), |text, count| text.replace(count, ""));
            assert_eq!(printed, uncounted);
        }
    }

    fn of_file((ruleset, counters): (Ruleset, Counters)) -> Saved {
        Saved {
            ruleset,
            counters,
            unshown: Vec::new(),
        }
    }

    /// The name of an interface may hold any byte, and is printed without quotes (measured).
    #[test]
    fn a_rule_that_cannot_be_read_keeps_its_place() {
        for (broken, text) in [
            ("-i e\nx -j DROP", "-i e\nx -j DROP"),
            ("-i e\n\n x -j DROP", "-i e\n\n x -j DROP"),
            ("-i e\n-x -j DROP", "-i e\n-x -j DROP"),
            ("-i \"x -j DROP", "-i \"x -j DROP"),
            ("-i e\"x -j DROP", "-i e\"x -j DROP"),
        ] {
            let saved = of_kernel(&format!(
                "*filter\n[1:1] -A FORWARD -s 192.0.2.1/32 -j DROP\n[2:2] -A FORWARD {broken}\n\
                 [3:3] -A FORWARD -s 192.0.2.3/32 -j DROP\nCOMMIT\n# Completed\n"
            ))
            .expect("it is readable");
            let rules = forward(&saved);
            assert_eq!(rules.len(), 3, "{broken}");
            assert_eq!(rules[1], Rule::unread(text));
            assert!(!rules[1].is_loadable());
            let counts = saved.counters.of(TableName::Filter, &ChainName::Forward);
            assert_eq!(counts[1].packets, 2);
            let found = unread(&saved.ruleset);
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].place, found[0].text), (2, text));
            assert_eq!(
                found[0].warning("iptables-nft"),
                format!(
                    "iptables-nft filter: rule 2 of FORWARD cannot be read, it stays as it is: `{}`; \
                     to look: sudo iptables-nft -t filter -S FORWARD 2",
                    text.replace('\n', "\\n")
                )
            );
            let again = of_kernel(&saved.ruleset.to_string());
            assert_eq!(again.map(|again| again.ruleset), Ok(saved.ruleset));
        }
    }

    /// iptables-save prints such a value without quotes (measured, nft and legacy 1.8.9).
    #[test]
    fn a_value_that_looks_like_an_option_is_no_target() {
        for conditions in [
            "-m helper --helper -j",
            "-m helper ! --helper -j",
            "-m comment --comment -j",
            "-m set --match-set -j src",
            "-m physdev --physdev-in -g",
            "-i -j",
            "! -i -j",
            "! -o -g",
            "-i -m -o -j",
        ] {
            let text = format!(
                "*filter\n:FORWARD ACCEPT [0:0]\n:NVACTL-FORWARD - [0:0]\n\
                 -A FORWARD {conditions} -j NVACTL-FORWARD\nCOMMIT\n"
            );
            let saved = of_kernel(&text).expect("it is readable");
            let own = ChainName::from("NVACTL-FORWARD");
            assert_eq!(forward(&saved)[0].leads_to(), Some(&own), "{conditions}");
            assert_eq!(saved.ruleset.to_string(), text);
        }
    }

    /// A file may hold commands that nvactl does not read, and they are about more than a rule's name.
    #[test]
    fn in_a_file_a_line_that_is_none_is_an_error() {
        for (line, number) in [
            ("x -j DROP", 7),
            ("-I FORWARD 1 -j DROP", 7),
            ("-A \"FORWARD\" -j DROP", 7),
        ] {
            let text = format!(
                "*filter\n-A FORWARD -m comment --comment \"a\n\nb\n\" -j DROP\n\n{line}\nCOMMIT\n"
            );
            let error = parse(&text).expect_err("it is none");
            let problem = ParseProblem::NotALine;
            let text = line.to_owned();
            assert_eq!(
                error,
                ParseError {
                    line: number,
                    text,
                    problem
                }
            );
        }
    }

    #[test]
    fn a_table_that_is_not_printed_is_told_apart_from_what_a_comment_says() {
        let says = "# Table `filter' is incompatible, use 'nft' tool.\n";
        let text = format!(
            "# Table `mangle' is incompatible, use 'nft' tool.\n\
             # Table `mine' is incompatible, use 'nft' tool.\n\
             # Table `raw' is incompatible, use 'nft' tool.\n\
             *filter\n{says}-A FORWARD -m comment --comment \"a\n{says}\" -j DROP\nCOMMIT\n"
        );
        let saved = of_kernel(&text).expect("it is readable");
        assert_eq!(saved.unshown, [TableName::Mangle, TableName::Raw]);
        assert_eq!(forward(&saved).len(), 1);
    }

    #[test]
    fn the_name_of_a_chain_may_hold_any_byte_but_those_that_end_it() {
        for name in [
            "a\rb", "a\u{c}b", "a\u{b}", "a\u{85}b", "a\"b", "a\\b", "a]b",
        ] {
            let text = format!("*filter\n:{name} - [0:0]\n-A {name} -j RETURN\nCOMMIT\n");
            let ruleset = parse(&text).unwrap_or_else(|error| panic!("{name:?}: {error}"));
            let chain = ruleset.chain(TableName::Filter, &ChainName::from(name));
            let returns = Rule::new([], Target::Return);
            assert_eq!(chain.map(|chain| &chain.rules), Some(&vec![returns]));
            assert_eq!(ruleset.to_string(), text);
        }
    }

    #[test]
    fn no_rate_is_read_as_another() {
        for rate in [1, 50, 9999, 10_000, 50_000, 1_000_000] {
            let rule = format!(
                "-m hashlimit --hashlimit-above {rate}/sec --hashlimit-burst 5 --hashlimit-mode srcip \
                 --hashlimit-name h -j DROP"
            );
            let text = format!("*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD {rule}\nCOMMIT\n");
            let saved = of_kernel(&text).expect("it is readable");
            assert_eq!(saved.ruleset.to_string(), text);
            let limit = PerSecond::new(rate).ok().map(|per_second| {
                Match::HashLimit(HashLimit {
                    per_second,
                    burst: 5,
                    expire: 1,
                    of: Whose::Address,
                    name: "h".into(),
                })
            });
            let read = &forward(&saved)[0].matches[0];
            match limit {
                Some(limit) => assert_eq!(*read, limit),
                None => assert!(matches!(read, Match::Other(_)), "{rate}"),
            }
        }
        assert_eq!(PerSecond::new(50_000).map(PerSecond::times), Ok(50_000));
        // No kernel holds these; a file keeps them.
        for rate in [0, 3000, 1_000_001, u32::MAX] {
            let text = format!(
                "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m hashlimit --hashlimit-above {rate}/sec \
                 --hashlimit-burst 5 --hashlimit-name h -j DROP\nCOMMIT\n"
            );
            let ruleset = parse(&text).expect("it is readable");
            assert_eq!(ruleset.to_string(), text);
        }
    }
}

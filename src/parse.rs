//! Reads iptables-save text: the one place that reads iptables syntax.
//!
//! What nvactl does not know inside a rule is kept word for word; what is not iptables-save text at
//! all is an error with its line.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use thiserror::Error;

use crate::counters::{Count, Counters};
use crate::net::{Port, PortRange};
use crate::rule::{Conntrack, CtState, DnatPorts, Match, Rule, Target};
use crate::ruleset::{ChainName, Policy, Ruleset, TableName};
use crate::token::{Token, tokens};

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
}

/// Reads a whole text into a ruleset.
///
/// # Errors
/// [`ParseError`] for the first line that iptables-save cannot have printed.
pub fn parse(text: &str) -> Result<Ruleset, ParseError> {
    parse_each(text, |_, _, _| {})
}

/// Reads what `iptables-save -c` prints: the rules, and how often each has matched.
///
/// # Errors
/// As [`parse`].
pub fn parse_counted(text: &str) -> Result<(Ruleset, Counters), ParseError> {
    let mut counters = Counters::default();
    let ruleset = parse_each(text, |line, table, chain| {
        counters.push(table, chain.clone(), count_of(line).unwrap_or_default());
    })?;
    Ok((ruleset, counters))
}

/// The same, showing each line that brings a rule, and where to.
fn parse_each(
    text: &str,
    mut of_rule: impl FnMut(&str, TableName, &ChainName),
) -> Result<Ruleset, ParseError> {
    let mut ruleset = Ruleset::default();
    let mut reader = Reader::default();
    for line in text.lines() {
        match reader.read(line)? {
            Read::Nothing | Read::Commit => {}
            Read::Table(table) => {
                ruleset.tables.entry(table).or_default();
            }
            Read::Chain(table, name, policy) => {
                ruleset.chain_mut(table, name).policy = policy;
            }
            Read::Rule(table, name, rule) => {
                of_rule(line, table, &name);
                ruleset.chain_mut(table, name).rules.push(rule);
            }
        }
    }
    reader.finish()?;
    Ok(ruleset)
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

/// What one line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// A comment or an empty line.
    Nothing,
    Table(TableName),
    Chain(TableName, ChainName, Option<Policy>),
    Rule(TableName, ChainName, Rule),
    Commit,
}

/// Reads a text line by line, for those who must keep the lines themselves.
#[derive(Debug, Default)]
pub struct Reader {
    line: usize,
    /// The table that is open, and its user-defined chains: they tell a jump from a target.
    open: Option<(TableName, BTreeSet<ChainName>)>,
    seen: BTreeSet<TableName>,
}

impl Reader {
    /// Reads the next line, with its end or without.
    ///
    /// # Errors
    /// [`ParseError`] when it cannot stand there in iptables-save text.
    pub fn read(&mut self, text: &str) -> Result<Read, ParseError> {
        self.line += 1;
        let text = text.trim_ascii();
        self.read_line(text).map_err(|problem| ParseError {
            line: self.line,
            text: text.to_owned(),
            problem,
        })
    }

    fn read_line(&mut self, text: &str) -> Result<Read, ParseProblem> {
        if text.is_empty() || text.starts_with('#') {
            return Ok(Read::Nothing);
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
            let mut words = declaration.split_ascii_whitespace();
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
        let mut words: Vec<Token> = tokens(text).collect();
        // `iptables-save -c` puts the rule's counters first: `[packets:bytes] -A …`.
        if words
            .first()
            .is_some_and(|word| word.spelled().starts_with('['))
        {
            words.remove(0);
        }
        match words.as_slice() {
            [append, chain, rule @ ..]
                if append.spelled() == "-A" && !chain.spelled().contains(['"', '\\']) =>
            {
                let chain = ChainName::from(chain.spelled());
                Ok(Read::Rule(*table, chain, read_rule(rule, chains)))
            }
            _ => Err(ParseProblem::NotALine),
        }
    }

    /// To be called behind the last line.
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

/// The comment of the rule that a line brings: the name of a forward where the rule is nvactl's.
#[must_use]
pub fn comment_of(line: &str) -> Option<String> {
    let mut words = tokens(line).skip_while(|word| word.spelled() != "--comment");
    words.nth(1).map(|word| word.value().into_owned())
}

fn read_rule(words: &[Token], chains: &BTreeSet<ChainName>) -> Rule {
    let mut rule = Rule {
        matches: Vec::new(),
        target: None,
    };
    let mut rest = words;
    while let Some(first) = rest.first() {
        if let Some(target) = read_target(first.spelled(), &rest[1..], chains) {
            rule.target = Some(target);
            break;
        }
        let (words, after) = rest.split_at(match_len(rest));
        rest = after;
        rule.matches
            .push(read_match(words).unwrap_or_else(|| Match::Other(words.to_vec())));
    }
    rule
}

fn read_target(option: &str, words: &[Token], chains: &BTreeSet<ChainName>) -> Option<Target> {
    let (name, options) = words.split_first()?;
    let chain = ChainName::from(name.spelled());
    let options: Vec<&str> = options.iter().map(Token::spelled).collect();
    match (option, name.spelled(), options.as_slice()) {
        ("-g", _, []) => Some(Target::Goto(chain)),
        ("-j", _, []) if chains.contains(&chain) || chain.is_own() => Some(Target::Jump(chain)),
        ("-j", "ACCEPT", []) => Some(Target::Accept),
        ("-j", "DROP", []) => Some(Target::Drop),
        ("-j", "RETURN", []) => Some(Target::Return),
        ("-j", "MASQUERADE", []) => Some(Target::Masquerade),
        ("-j", "SNAT", ["--to-source", address]) => Some(
            address
                .parse()
                .map_or_else(|_| Target::Other(words.to_vec()), Target::Snat),
        ),
        ("-j", "DNAT", ["--to-destination", to]) => {
            Some(read_dnat(to).unwrap_or_else(|| Target::Other(words.to_vec())))
        }
        ("-j", ..) => Some(Target::Other(words.to_vec())),
        _ => None,
    }
}

/// `A`, `A:P` or `A:P-P/BASE`. Any other form means something nvactl never plans.
fn read_dnat(to: &str) -> Option<Target> {
    let Some((address, ports)) = to.split_once(':') else {
        return Some(Target::Dnat {
            address: to.parse().ok()?,
            ports: DnatPorts::Kept,
        });
    };
    let ports = match ports.split_once('/') {
        None => DnatPorts::One(ports.parse().ok()?),
        Some((to, base)) => DnatPorts::Shifted {
            to: to.parse().ok()?,
            base: base.parse().ok()?,
        },
    };
    Some(Target::Dnat {
        address: address.parse().ok()?,
        ports,
    })
}

/// How many words the match at the front takes: up to the next one, or the target.
fn match_len(words: &[Token]) -> usize {
    // A comment may be any word, `-j` included, and stands bare if it has no odd byte.
    if let [m, comment, option, _, ..] = words
        && (m.spelled(), comment.spelled(), option.spelled()) == ("-m", "comment", "--comment")
    {
        return 4;
    }
    let begins = |at: usize| {
        let option = |at: usize| words.get(at).map_or("", Token::spelled);
        let negated = usize::from(option(at) == "!");
        matches!(
            option(at + negated),
            "-s" | "-d" | "-i" | "-o" | "-p" | "-m" | "-j" | "-g" | "-f" | "-c"
        )
    };
    // The first word begins this match, negated or not; what follows belongs to it.
    let head = if words[0].spelled() == "!" { 2 } else { 1 };
    (head..words.len())
        .find(|at| begins(*at))
        .unwrap_or(words.len())
}

/// The match these words spell, if they spell one that nvactl interprets in full.
fn read_match(words: &[Token]) -> Option<Match> {
    if let [m, module, option, text] = words
        && (m.spelled(), module.spelled(), option.spelled()) == ("-m", "comment", "--comment")
    {
        return Some(Match::Comment(text.value().into()));
    }
    let words: Vec<&str> = words.iter().map(Token::spelled).collect();
    Some(match words.as_slice() {
        ["-s", net] => Match::Source(read_net(net)?),
        ["-d", net] => Match::Destination(read_net(net)?),
        ["-i", name] => Match::Ingress(name.parse().ok()?),
        ["-o", name] => Match::Egress(name.parse().ok()?),
        ["-p", name] => Match::Protocol(name.parse().ok()?),
        ["-m", "tcp", options @ ..] => {
            let (source, destination, syn) = read_ports(options)?;
            Match::Tcp {
                source,
                destination,
                syn,
            }
        }
        ["-m", "udp", options @ ..] => match read_ports(options)? {
            (source, destination, false) => Match::Udp {
                source,
                destination,
            },
            _ => return None,
        },
        ["-m", "multiport", "--dports", ports] => {
            Match::DestinationPorts(ports.split(',').map(read_range).collect::<Option<_>>()?)
        }
        ["-m", "conntrack", options @ ..] => Match::Conntrack(read_conntrack(options)?),
        ["-m", "addrtype", "--dst-type", "LOCAL"] => Match::DestinationIsLocal,
        _ => return None,
    })
}

/// The condition that these words negate, if they are `! -X VALUE` and it is one that nvactl
/// interprets.
#[must_use]
pub fn negated(words: &[Token]) -> Option<Match> {
    match words {
        [not, rest @ ..] if not.spelled() == "!" => read_match(rest),
        _ => None,
    }
}

/// The source ports, the destination ports, and whether only a SYN matches.
fn read_ports(options: &[&str]) -> Option<(Option<PortRange>, Option<PortRange>, bool)> {
    let (mut source, mut destination, mut syn) = (None, None, None);
    let mut rest = options;
    while !rest.is_empty() {
        rest = match rest {
            ["--sport", ports, rest @ ..] => set(&mut source, read_range(ports)?, rest)?,
            ["--dport", ports, rest @ ..] => set(&mut destination, read_range(ports)?, rest)?,
            ["--tcp-flags", "FIN,SYN,RST,ACK", "SYN", rest @ ..] => set(&mut syn, (), rest)?,
            _ => return None,
        };
    }
    Some((source, destination, syn.is_some()))
}

fn read_conntrack(options: &[&str]) -> Option<Conntrack> {
    let mut conntrack = Conntrack::default();
    let mut rest = options;
    while !rest.is_empty() {
        rest = match rest {
            ["--ctstate", states, rest @ ..] if conntrack.states.is_empty() => {
                let state = |word: &str| CtState::ALL.iter().find(|(_, name)| *name == word);
                let states = states
                    .split(',')
                    .map(|word| state(word).map(|(state, _)| *state));
                conntrack = Conntrack {
                    states: Conntrack::states(states.collect::<Option<Vec<_>>>()?).states,
                    ..conntrack
                };
                rest
            }
            ["--ctorigdst", address, rest @ ..] => {
                set(&mut conntrack.original_destination, parsed(address)?, rest)?
            }
            ["--ctorigdstport", ports, rest @ ..] => set(
                &mut conntrack.original_destination_port,
                read_range(ports)?,
                rest,
            )?,
            _ => return None,
        };
    }
    Some(conntrack)
}

/// Sets what is not set yet and goes on with `rest`; an option given twice is not interpreted.
fn set<'w, T>(slot: &mut Option<T>, value: T, rest: &'w [&'w str]) -> Option<&'w [&'w str]> {
    slot.replace(value).is_none().then_some(rest)
}

fn parsed<T: FromStr>(word: &str) -> Option<T> {
    word.parse().ok()
}

/// `10.0.0.0/8`, or an address alone for its `/32`; host bits are cut, as iptables does.
fn read_net(word: &str) -> Option<Ipv4Net> {
    match parsed::<Ipv4Addr>(word) {
        Some(address) => Some(address.into()),
        None => parsed::<Ipv4Net>(word).map(|net| net.trunc()),
    }
}

/// `80` or `5000:5010`, as matches spell ports.
fn read_range(word: &str) -> Option<PortRange> {
    match word.split_once(':') {
        Some((first, last)) => PortRange::new(parsed(first)?, parsed(last)?).ok(),
        None => parsed::<Port>(word).map(PortRange::from),
    }
}

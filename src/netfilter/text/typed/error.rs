//! The reasons why a typed text is not read, each with the edit that fixes it.

use thiserror::Error;

use crate::net::Family;
use crate::net::printable;
use crate::netfilter::names::{ChainName, TableName};

/// The line that ends the reading.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {problem}: `{}`\nhint: {}", shown(text), problem.hint(text))]
pub struct TypedError {
    /// Counted from 1.
    pub line: usize,
    pub text: String,
    pub problem: TypedProblem,
}

/// The most characters of a line that a message shows.
const SHOWN: usize = 200;

fn shown(text: &str) -> String {
    let line: String = text.chars().take(SHOWN).collect();
    let rest = if line.len() < text.len() { "…" } else { "" };
    format!("{}{rest}", printable::line(line))
}

/// A value, or the reason why a line has none.
pub(super) type OrProblem<T> = Result<T, TypedProblem>;

/// The fault of a line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TypedProblem {
    #[error("the shell replaces `{0}`, and nvactl starts no shell")]
    Replaced(char),
    #[error("a quote is not closed")]
    OpenQuote,
    #[error("`{0}` joins commands")]
    Joined(char),
    #[error("`{0}` redirects the input or output of a command")]
    Redirected(char),
    #[error("`{}` is a loop, a condition or a function of the shell", printable::line(.0))]
    Keyword(String),
    #[error("`{}` sets a variable of the shell", printable::line(.0))]
    Assignment(String),
    #[error("`{}` is not a command that changes one rule", printable::line(.0))]
    OtherCommand(String),
    #[error("the line has no command such as `-A`")]
    NoCommand,
    #[error("`{0}` is a second command on the line")]
    SecondCommand(String),
    #[error("`{}` takes no conditions and no target", printable::line(.0))]
    NoRuleThere(String),
    #[error("iptables has no option `{}` there", printable::line(.0))]
    UnknownOption(String),
    #[error("`{}` belongs to no option", printable::line(.0))]
    BadArgument(String),
    #[error("`{0}` has no value")]
    ValueMissing(String),
    #[error("`{0}` takes no value")]
    ValueThere(String),
    #[error("iptables takes the value of `{0}` only in a word of its own")]
    AttachedValue(String),
    #[error("`{0}` may stand only once")]
    Twice(String),
    #[error("`{0}` and `{1}` exclude each other")]
    Exclusive(String, String),
    #[error("`{0}` cannot be negated")]
    NotNegatable(String),
    #[error(
        "`{}` is not {expected}, which `{option}` takes",
        printable::line(value)
    )]
    BadValue {
        option: String,
        value: String,
        expected: &'static str,
    },
    #[error("`{}` is a name, which only a name server can resolve", printable::line(.0))]
    HostName(String),
    #[error("`{}` is not an {of} address", printable::line(value))]
    OtherFamily { value: String, of: Family },
    #[error("`-m {name}` needs `{option}`")]
    OptionMissing { name: String, option: String },
    #[error("`-j {name}` needs `{option}`")]
    TargetOptionMissing { name: String, option: String },
    #[error("{of} rules have no match `{}`", printable::line(name))]
    UnknownMatch { name: String, of: Family },
    #[error(
        "`{}` is neither a target of {of} rules nor a chain of the table {table}",
        printable::line(name)
    )]
    UnknownTarget {
        name: String,
        table: TableName,
        of: Family,
    },
    #[error("`{0}` is not a table of the kernel")]
    UnknownTable(String),
    #[error("the table {table} has no chain `{}`", printable::line(chain))]
    NoChain { table: TableName, chain: ChainName },
    #[error("the table {table} has the chain `{}` already", printable::line(chain))]
    ChainThere { table: TableName, chain: ChainName },
    #[error("`{}` is no name for a chain", printable::line(.0))]
    BadChainName(String),
    #[error("only built-in chains have a policy")]
    NoPolicy,
    #[error("`{}` is a built-in chain", printable::line(.0))]
    Builtin(ChainName),
    #[error("`{}` still has rules", printable::line(.0))]
    NotEmpty(ChainName),
    #[error("a rule still leads to `{}`", printable::line(.0))]
    StillUsed(ChainName),
    #[error("the chain `{}` has no rule {at} at this line", printable::line(chain))]
    NoPlace { chain: ChainName, at: usize },
    #[error("the chain `{}` has no such rule at this line", printable::line(.0))]
    NoSuchRule(ChainName),
    #[error("`-R` puts one rule in the place of one, and the lists of addresses make {0}")]
    ManyReplacements(usize),
    #[error("the kernel refuses the rule: {0}")]
    Refused(&'static str),
    #[error("the line stands outside of a table")]
    OutsideTable,
    #[error("a table begins before `COMMIT` has ended the one before")]
    NoCommit,
    #[error("the text ends before `COMMIT`, as if it had been cut")]
    CutOff,
    #[error("{of} rules have the table {table} already")]
    TableTwice { table: TableName, of: Family },
    #[error("not a line of iptables-save text")]
    NotALine,
}

impl TypedProblem {
    /// Returns the edit that fixes the line.
    fn hint(&self, text: &str) -> String {
        match self {
            Self::Replaced(_) => "write the value in its place",
            Self::OpenQuote => "close the quote",
            Self::Joined(_) => "put each command on a line of its own",
            Self::Redirected(_) => "leave the redirection out",
            Self::Keyword(_) => "write out each command that the shell would run",
            Self::Assignment(_) => {
                "leave the line out, and write the value in each place where the variable stands"
            }
            Self::OtherCommand(name) => match name.as_str() {
                "iptables-restore" | "ip6tables-restore" => {
                    "give `nvactl import` the file that this command loads"
                }
                _ => "leave the line out",
            },
            Self::NoCommand => "add a command, such as `-A FORWARD`",
            Self::SecondCommand(_) => "write a line for each",
            Self::NoRuleThere(_) => "leave the conditions and the target out",
            Self::UnknownOption(option) => return unknown_option(option, text),
            Self::BadArgument(word) => return bad_argument(word),
            Self::ValueMissing(_) => "write its value behind it",
            Self::ValueThere(_) => "leave the value out",
            Self::AttachedValue(_) => "put a blank between the option and its value",
            Self::Twice(_) | Self::Exclusive(..) => "leave one out, or write two rules",
            Self::NotNegatable(_) => "leave the `!` out",
            Self::BadValue { .. } => "correct the value",
            Self::HostName(_) => "write its address",
            Self::OtherFamily {
                of: Family::V4, ..
            } => "write the rule with `ip6tables`, or correct the address",
            Self::OtherFamily { .. } => "write the rule with `iptables`, or correct the address",
            Self::OptionMissing { .. } | Self::TargetOptionMissing { .. } => "add the option",
            Self::UnknownMatch { .. } => "correct the name",
            Self::UnknownTarget { name, table, .. } => return made_before(name, *table),
            Self::UnknownTable(_) => "correct the name: filter, nat, mangle, raw or security",
            Self::NoChain { table, chain } if !chain.is_builtin() => {
                return made_before(chain.as_str(), *table);
            }
            Self::NoChain { .. } => "correct the name of the table or of the chain",
            Self::ChainThere { .. } | Self::NoSuchRule(_) | Self::Builtin(_) => "leave the line out",
            Self::BadChainName(_) => {
                "take a name of 1 to 28 bytes that is no target and begins neither with `-` nor with `!`"
            }
            Self::NoPolicy => "add a last rule to the chain instead",
            Self::NotEmpty(_) => "flush the chain first, with `-F`",
            Self::StillUsed(_) => "delete that rule first",
            Self::NoPlace { .. } => "correct the number",
            Self::ManyReplacements(_) => "write the rule with one address",
            Self::Refused(_) => "correct the rule",
            Self::OutsideTable => {
                "put `*filter` or the name of another table before the rules, or write each with `iptables` in front"
            }
            Self::NoCommit => "put a line `COMMIT` before the table",
            Self::CutOff => "add the line `COMMIT`, or take the whole file",
            Self::TableTwice { .. } => "put all rules of the table into one",
            Self::NotALine => "correct the line, or leave it out",
        }
        .to_owned()
    }
}

/// Options of the protocols with ports.
const OF_PORTS: [&str; 8] = [
    "--dport",
    "--sport",
    "--destination-port",
    "--source-port",
    "--dports",
    "--sports",
    "--syn",
    "--tcp-flags",
];

fn unknown_option(option: &str, text: &str) -> String {
    if OF_PORTS.contains(&option) {
        let module = if option.ends_with("ports") {
            " -m multiport"
        } else {
            ""
        };
        return format!("write `-p tcp{module}` or `-p udp{module}` before it");
    }
    match option {
        "-t" => "leave `-t` and the table out: the line with `*` names the table",
        "-4" => "leave the option out, or write the rule with `iptables`",
        "-6" => "leave the option out, or write the rule with `ip6tables`",
        "-n" | "-x" | "--numeric" | "--exact" | "--line-numbers" => {
            "leave the option out: it is for commands that list"
        }
        _ if text.contains(DASHES) => "type hyphens: a web page made other dashes of them",
        _ => "write the `-p`, `-m` or `-j` that it belongs to before it, or correct the option",
    }
    .to_owned()
}

/// The dashes that web pages and word processors make of hyphens.
const DASHES: [char; 4] = ['\u{2010}', '\u{2013}', '\u{2014}', '\u{2212}'];

fn bad_argument(word: &str) -> String {
    match word {
        "ACCEPT" | "DROP" | "REJECT" | "LOG" | "RETURN" | "DNAT" | "SNAT" | "MASQUERADE" => {
            format!("write `-j {word}`")
        }
        _ if word.starts_with(DASHES) => {
            "type hyphens: a web page made other dashes of them".to_owned()
        }
        _ => "write the option before it, or leave the word out".to_owned(),
    }
}

fn made_before(chain: &str, table: TableName) -> String {
    let chain = printable::line(chain);
    format!(
        "correct the name, or make the chain before this line: `iptables -t {table} -N {chain}`, \
         or `:{chain} - [0:0]` in iptables-save text"
    )
}

//! The key `log`.

use crate::forwards::{Log, Logged, Name};
use crate::netfilter::limit::Limit;
use crate::yaml::fields::{Fields, number, one_of_words, yes_or_no};
use crate::yaml::load::{Node, Value};
use crate::yaml::problem::{Problem, ProblemKind};

/// Lines per minute if no number is written.
const LOG_PER_MINUTE: u32 = 60;
const WARNING: u8 = 4;

/// A log as written. Without a prefix, lines begin with the name of the forward.
#[derive(Debug, Clone)]
pub struct WrittenLog {
    pub prefix: Option<Box<str>>,
    pub level: u8,
    pub per_minute: u32,
    pub connections: Logged,
}

/// Reads `true`, `false`, or a mapping with the details.
pub fn log(node: &Node<'_>, problems: &mut Vec<Problem>) -> Option<WrittenLog> {
    let usual = WrittenLog {
        prefix: None,
        level: WARNING,
        per_minute: LOG_PER_MINUTE,
        connections: Logged::All,
    };
    if !matches!(node.value, Value::Mapping(_)) {
        let on = yes_or_no(node, "log", problems)?;
        return on.value.then_some(usual);
    }
    let known = &["prefix", "level", "per_minute", "connections"];
    let fields = Fields::of(node, "log", "`log`", known, problems)?;
    let prefix = fields.parsed("prefix", "a few words", problems, |text| {
        let printable = |c: char| c.is_ascii_graphic() || c == ' ';
        let fits = !text.is_empty() && text.len() <= Log::LONGEST_PREFIX;
        if fits && text.chars().all(printable) {
            Ok(text.into())
        } else {
            Err(ProblemKind::InvalidPrefix {
                text: text.to_owned(),
            })
        }
    });
    let level = fields.parsed("level", "a level of syslog", problems, |text| {
        let word = one_of_words(text, &Log::LEVELS)?;
        let place = (0..).zip(Log::LEVELS).find(|(_, level)| *level == word);
        Ok(place.map_or(WARNING, |(n, _)| n))
    });
    let per_minute = fields.parsed("per_minute", "a number", problems, |text| {
        number(text, Limit::MOST_A_MINUTE)
    });
    let expected = "`accepted`, `refused` or `all`";
    let connections = fields.parsed("connections", expected, problems, |text| {
        one_of_words(text, &["accepted", "refused", "all"]).map(|word| match word {
            "accepted" => Logged::Accepted,
            "refused" => Logged::Refused,
            _ => Logged::All,
        })
    });
    Some(WrittenLog {
        prefix: prefix.map(|prefix| prefix.value),
        level: level.map_or(usual.level, |level| level.value),
        per_minute: per_minute.map_or(usual.per_minute, |times| times.value),
        connections: connections.map_or(usual.connections, |which| which.value),
    })
}

/// Returns the log of a forward or an outbound entry with its prefix, or nothing if it would log no packet.
pub fn named(log: WrittenLog, name: &Name, refuses: bool) -> Option<Log> {
    let connections = match log.connections {
        Logged::Refused if !refuses => return None,
        Logged::All if !refuses => Logged::Accepted,
        connections => connections,
    };
    let name = name.as_str();
    let own = || name[..name.len().min(Log::LONGEST_PREFIX)].into();
    Some(Log {
        prefix: log.prefix.unwrap_or_else(own),
        level: log.level,
        per_minute: log.per_minute,
        connections,
    })
}

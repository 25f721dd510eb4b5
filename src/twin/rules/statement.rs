//! Edits the rules of nft that a twin cannot have as they are. A rule is edited as words of its text.

use super::edit::FilterFacts;
use super::listing::words;
use super::place::{Reason, Unknown};
use super::queues;

/// The result of editing a rule.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Edited {
    /// `None` if only a rule that counts is loaded.
    pub text: Option<String>,
    /// The conditions of a rule that counts, before the rule or in its place.
    pub counts: Option<(String, Unknown)>,
    /// The reason for which a part is left out; it is reported.
    pub left_out: Option<Reason>,
}

/// Words that decide on a packet, or change it for later rules.
const DECIDES: [&str; 16] = [
    "accept",
    "drop",
    "reject",
    "jump",
    "goto",
    "return",
    "queue",
    "dnat",
    "snat",
    "masquerade",
    "redirect",
    "set",
    "notrack",
    "vmap",
    "synproxy",
    "fwd",
];

/// Words that end a packet's path through a chain.
const ENDS: [&str; 4] = ["accept", "drop", "reject", "return"];

/// Edits a rule's text.
#[must_use]
pub fn edit(rule: &str, facts: &FilterFacts) -> Edited {
    let mut words: Vec<&str> = words(rule).collect();
    if is_of_iptables(&words) {
        return Edited {
            text: None,
            counts: listed_conditions(&words),
            left_out: Some(Reason::OnlyIptables),
        };
    }
    let mut left_out = None;
    if let Some(at) = position(&words, &["meta", "nftrace", "set"]) {
        words.drain(at..(at + 4).min(words.len()));
    }
    if let Some(at) =
        position(&words, &["flow", "add"]).or_else(|| position(&words, &["flow", "offload"]))
    {
        words.drain(at..(at + 3).min(words.len()));
        left_out = Some(Reason::Flowtable);
    }
    if facts.logs && cut_log(&mut words) {
        left_out = Some(Reason::WritesLog);
    }
    if let Some((at, why)) = undecidable(&words, facts) {
        return Edited {
            text: None,
            counts: Some((conditions(&words[..at]), why)),
            left_out,
        };
    }
    let stateful = stateful(&words).filter(|at| {
        let mut rest = words[*at..].iter();
        rest.any(|word| DECIDES.contains(word))
    });
    let counts = stateful.map(|at| {
        let why = match words[at] {
            "numgen" | "jhash" => Unknown::Chance,
            "ether" => Unknown::Hardware,
            word => Unknown::UsedUp(word.trim_start_matches('@').to_owned()),
        };
        (conditions(&words[..at]), why)
    });
    let counts = counts.or_else(|| payload(&words));
    let counts = counts.or_else(|| written(&words, facts));
    let text = match &words[..] {
        [] => "counter".to_owned(),
        // Spaces within quotes stay.
        words => words.join(" "),
    };
    Edited {
        text: Some(text),
        counts,
        left_out,
    }
}

/// Prints a rule that counts. `beginning` is that of its comment, as for [`super::edit::commented`].
#[must_use]
pub fn commented(conditions: &str, beginning: &str, index: usize) -> String {
    format!("{conditions} counter comment \"{beginning}{index}\"")
        .trim_start()
        .to_owned()
}

/// Returns whether a rule has a part that only iptables can load. nft 0.9 prints it as `# xt_NAME`, nft 1.0 as `xt
/// match NAME`.
fn is_of_iptables(words: &[&str]) -> bool {
    words.contains(&"#")
        || words
            .windows(2)
            .any(|pair| matches!(pair, ["xt", "match" | "target" | "watcher"]))
}

/// Returns the conditions of a rule of iptables that nft can load, unless the rule decides nothing.
fn listed_conditions(words: &[&str]) -> Option<(String, Unknown)> {
    let (mut kept, mut decides, mut at) = (Vec::new(), false, 0);
    while let Some(word) = words.get(at) {
        match (*word, words.get(at + 1)) {
            ("xt", Some(&"match")) => at += 2,
            ("xt" | "#", _) => {
                decides = true;
                break;
            }
            _ if DECIDES.contains(word) => {
                decides = true;
                break;
            }
            _ => kept.push(*word),
        }
        at += 1;
    }
    decides.then(|| (conditions(&kept), Unknown::OnlyIptables))
}

fn position(words: &[&str], wanted: &[&str]) -> Option<usize> {
    let mut windows = words.windows(wanted.len());
    windows.position(|window| window == wanted)
}

/// Returns where a statement starts that the twin cannot evaluate.
fn undecidable(words: &[&str], facts: &FilterFacts) -> Option<(usize, Unknown)> {
    for (at, word) in statements(words) {
        match word {
            "queue" => {
                let named = words[at + 1..]
                    .iter()
                    .filter_map(|word| queues::range(word));
                let mut named = named.peekable();
                // The number is unknown if a map or a hash gives it.
                let computed = words[at + 1..]
                    .iter()
                    .any(|word| matches!(*word, "map" | "numgen" | "symhash" | "jhash"));
                let listened = match named.peek() {
                    None => facts
                        .queues
                        .listens(if computed { 0..=u16::MAX } else { 0..=0 }),
                    Some(_) if computed => facts.queues.listens(0..=u16::MAX),
                    Some(_) => named.any(|range| facts.queues.listens(range)),
                };
                if listened {
                    return Some((at, Unknown::Queue));
                }
            }
            "tproxy" | "socket" => {
                return Some((at, Unknown::LocalProgram(word.to_owned())));
            }
            _ => {}
        }
    }
    None
}

/// The bits of the ports at the beginning of a transport header.
const PORT_BITS: u32 = 32;

/// Returns whether a word is a raw part of a packet behind the ports: `@th,160,32` or `@ih,0,32` (nft(8), RAW PAYLOAD
/// EXPRESSION).
fn is_payload(word: &str) -> bool {
    let mut parts = word.split(',');
    match (parts.next(), parts.next().map(str::parse::<u32>)) {
        (Some("@ih"), Some(_)) => true,
        (Some("@th"), Some(Ok(offset))) => offset >= PORT_BITS,
        _ => false,
    }
}

/// Returns the conditions before a part of the packet that a client chooses, if the rule decides by it.
fn payload(words: &[&str]) -> Option<(String, Unknown)> {
    let (at, word) = statements(words).find(|(_, word)| is_payload(word))?;
    let mut rest = words[at..].iter();
    let decides = rest.any(|word| DECIDES.contains(word));
    decides.then(|| (conditions(&words[..at]), Unknown::Payload(word.to_owned())))
}

/// Returns where a statement starts whose state is not copied.
fn stateful(words: &[&str]) -> Option<usize> {
    let mut dynamic = None;
    let mut depth = 0_usize;
    for (at, word) in words.iter().enumerate() {
        let next = words.get(at + 1).copied().unwrap_or_default();
        let is_stateful = match *word {
            // A number that chooses an address gives each target its share.
            "numgen" => words[at..].iter().any(|word| ENDS.contains(word)),
            // The twin has another seed.
            "jhash" => {
                !words[at..].contains(&"seed") && words[at..].iter().any(|word| ENDS.contains(word))
            }
            "ether" => next == "saddr",
            "limit" => matches!(next, "rate" | "name"),
            "quota" => true,
            "ct" => next == "count",
            _ => false,
        };
        match *word {
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            "add" | "update" | "delete" if depth == 0 && next.starts_with('@') => {
                dynamic = Some(at + 1);
            }
            "meter" if depth == 0 => dynamic = Some(at),
            _ if is_stateful && depth == 0 => return Some(at),
            _ if is_stateful => {
                if let Some(dynamic) = dynamic {
                    return Some(dynamic);
                }
            }
            _ => {}
        }
    }
    None
}

/// Returns the conditions of a rule that decides by a set to which rules add elements. The connections that are tried
/// may be added as well.
fn written(words: &[&str], facts: &FilterFacts) -> Option<(String, Unknown)> {
    let (at, word) = statements(words).find(|(_, word)| DECIDES.contains(word))?;
    // `set` may be a part of `meta mark set …`.
    let end = if word == "set" {
        at.checked_sub(2)?
    } else {
        at
    };
    let pairs = words[..end].windows(2);
    let asks = pairs.filter(|pair| !matches!(pair[0], "add" | "update" | "delete" | "map"));
    let mut sets = asks.filter_map(|pair| pair[1].strip_prefix('@'));
    let set = sets.find(|set| facts.written.contains(*set))?;
    Some((conditions(&words[..end]), Unknown::Written(set.to_owned())))
}

/// Returns the sets to which a rule adds elements.
pub fn writes(rule: &str) -> impl Iterator<Item = &str> {
    let words: Vec<&str> = words(rule).collect();
    let pairs: Vec<(&str, &str)> = words.windows(2).map(|pair| (pair[0], pair[1])).collect();
    pairs.into_iter().filter_map(|(word, next)| {
        next.strip_prefix('@')
            .filter(|_| matches!(word, "add" | "update" | "delete"))
    })
}

/// Returns the words outside of braces, without the names of chains.
fn statements<'w>(words: &'w [&'w str]) -> impl Iterator<Item = (usize, &'w str)> {
    let mut depth = 0_usize;
    words.iter().enumerate().filter_map(move |(at, word)| {
        match *word {
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        let before = at.checked_sub(1).map(|before| words[before]);
        let is_name = matches!(before, Some("jump" | "goto"));
        (depth == 0 && !is_name).then_some((at, *word))
    })
}

/// Returns the conditions among the words before a statement.
fn conditions(words: &[&str]) -> String {
    let mut words = words.to_vec();
    // The statement of a set begins one word before the set's name.
    if matches!(words.last(), Some(&("add" | "update" | "delete"))) {
        words.pop();
    }
    cut_log(&mut words);
    words.retain(|word| *word != "counter");
    words.join(" ")
}

/// Removes the statement `log …`, unless it is for a program that reads a log group.
fn cut_log(words: &mut Vec<&str>) -> bool {
    let Some((at, _)) = statements(words).find(|(_, word)| *word == "log") else {
        return false;
    };
    let mut end = at + 1;
    while let Some(option) = words.get(end) {
        end += match *option {
            "group" | "prefix" | "level" | "snaplen" | "queue-threshold" => 2,
            "flags" => match words.get(end + 1) {
                Some(&("tcp" | "ip")) => 3,
                _ => 2,
            },
            _ => break,
        };
    }
    let end = end.min(words.len());
    if words[at..end].contains(&"group") {
        return false;
    }
    words.drain(at..end);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::rules::edit::COMMENT;
    use crate::twin::rules::queues::Queues;

    #[expect(
        clippy::unnecessary_wraps,
        reason = "it stands beside what `watched` returns"
    )]
    fn used_up(conditions: &str, word: &str) -> Option<(String, Unknown)> {
        Some((conditions.to_owned(), Unknown::UsedUp(word.to_owned())))
    }

    #[test]
    fn conditions_before_a_state_are_counted() {
        for (rule, counts) in [
            (
                "tcp dport 22 counter limit rate 3/minute burst 5 packets accept",
                used_up("tcp dport 22", "limit"),
            ),
            (
                "tcp dport 22 update @dyn { ip saddr limit rate over 3/minute } drop",
                used_up("tcp dport 22", "dyn"),
            ),
            (
                "meter m1 size 65535 { ip saddr limit rate 3/second } accept",
                used_up("", "meter"),
            ),
            (
                "ip saddr { 1.1.1.1, 2.2.2.2 } ct count over 3 drop",
                used_up("ip saddr { 1.1.1.1, 2.2.2.2 }", "ct"),
            ),
            ("quota over 10 mbytes drop", used_up("", "quota")),
            (
                "log prefix \"a limit \" level info limit name \"li\" jump x",
                used_up("", "limit"),
            ),
            (
                "tcp dport 80 numgen random mod 10 < 1 drop",
                Some(("tcp dport 80".to_owned(), Unknown::Chance)),
            ),
            (
                "numgen inc mod 2 vmap { 0 : drop, 1 : accept }",
                Some((String::new(), Unknown::Chance)),
            ),
            (
                "dnat to numgen random mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }",
                None,
            ),
            ("limit rate 3/second log prefix \"a drop\"", None),
            (
                "tcp dport 80 @ih,0,32 0x47455420 drop",
                Some((
                    "tcp dport 80".to_owned(),
                    Unknown::Payload("@ih,0,32".to_owned()),
                )),
            ),
            (
                "udp dport 53 @th,160,32 0x1 drop",
                Some((
                    "udp dport 53".to_owned(),
                    Unknown::Payload("@th,160,32".to_owned()),
                )),
            ),
            ("@th,16,16 80 drop", None),
            ("@ih,0,32 0x47455420 counter", None),
            ("tcp dport 5 meta mark set 0x00000005", None),
            ("add @dyn { ip saddr timeout 1m } accept", None),
            ("ip saddr @limit drop comment \"limit rate 5\"", None),
        ] {
            let edited = edit(rule, &FilterFacts::default());
            assert_eq!(edited.text.as_deref(), Some(rule));
            assert_eq!(edited.counts, counts, "{rule}");
            assert_eq!(edited.left_out, None);
        }
        assert_eq!(
            commented("", COMMENT, 3),
            "counter comment \"nvactl-twin-3\""
        );
        assert_eq!(
            commented("tcp dport 1", COMMENT, 3),
            "tcp dport 1 counter comment \"nvactl-twin-3\""
        );
    }

    #[test]
    fn a_set_to_which_rules_add_is_a_state() {
        let facts = FilterFacts {
            written: std::collections::BTreeSet::from(["trap".to_owned()]),
            ..FilterFacts::default()
        };
        for (rule, conditions) in [
            (
                "ip saddr @trap tcp dport 80 counter drop",
                Some("ip saddr @trap tcp dport 80"),
            ),
            ("ip saddr @trap meta mark set 0x1", Some("ip saddr @trap")),
            ("ip saddr @list drop", None),
            ("tcp dport 1 update @trap { ip saddr } drop", None),
        ] {
            let counts = edit(rule, &facts).counts;
            let counted = counts.map(|(conditions, _)| conditions);
            assert_eq!(counted.as_deref(), conditions, "{rule}");
        }
        let written: Vec<&str> =
            writes("tcp dport 1 update @trap { ip saddr } ip saddr @x drop").collect();
        assert_eq!(written, ["trap"]);
    }

    #[test]
    fn a_rule_that_a_program_decides_is_a_placeholder() {
        let facts = FilterFacts {
            queues: Queues::read("4 1 0 2 65531 0 0 0 1"),
            ..FilterFacts::default()
        };
        for (rule, conditions) in [
            (
                "tcp dport 1 counter queue num 4 bypass",
                Some("tcp dport 1"),
            ),
            ("queue flags bypass,fanout to 3-5", Some("")),
            ("queue flags bypass to symhash mod 2", Some("")),
            ("tcp dport 1 queue num 3", None),
            ("queue", None),
            ("jump queue", None),
            (
                "meta l4proto tcp tproxy to :1234 meta mark set 1 accept",
                Some("meta l4proto tcp"),
            ),
            ("socket transparent 1 meta mark set 1 accept", Some("")),
        ] {
            let edited = edit(rule, &facts);
            let counted = edited.counts.map(|(conditions, _)| conditions);
            assert_eq!(counted.as_deref(), conditions, "{rule}");
            assert_eq!(edited.text.is_none(), conditions.is_some(), "{rule}");
        }
    }

    #[test]
    fn traces_flowtables_and_logs_are_cut_out() {
        let logs = FilterFacts {
            logs: true,
            ..FilterFacts::default()
        };
        for (rule, text, left_out) in [
            (
                "tcp dport 1 meta nftrace set 1 accept",
                "tcp dport 1 accept",
                None,
            ),
            ("meta nftrace set 1", "counter", None),
            (
                "ip protocol tcp flow add @f",
                "ip protocol tcp",
                Some(Reason::Flowtable),
            ),
            (
                "log prefix \"a b\" level info flags tcp options drop",
                "drop",
                Some(Reason::WritesLog),
            ),
            ("log flags all", "counter", Some(Reason::WritesLog)),
            (
                "log group 4 snaplen 10 drop",
                "log group 4 snaplen 10 drop",
                None,
            ),
            ("jump log", "jump log", None),
        ] {
            let edited = edit(rule, &logs);
            assert_eq!(edited.text.as_deref(), Some(text), "{rule}");
            assert_eq!(edited.left_out, left_out, "{rule}");
        }
    }

    #[test]
    fn a_part_that_only_iptables_loads_is_recognised() {
        for rule in [
            "tcp dport 80 xt match string counter accept",
            "tcp dport 80 # xt_string counter accept",
        ] {
            let edited = edit(rule, &FilterFacts::default());
            assert_eq!(edited.left_out, Some(Reason::OnlyIptables));
            assert_eq!(edited.text, None);
            let counts = ("tcp dport 80".to_owned(), Unknown::OnlyIptables);
            assert_eq!(edited.counts, Some(counts), "{rule}");
        }
    }
}

//! Edits the few rules of iptables that a twin cannot have as they are.

use std::collections::BTreeSet;

use super::place::{Reason, Unknown};
use super::queues::{self, Queues};
use super::sets::SpacedSets;
use crate::netfilter::matches::Match;
use crate::netfilter::names::ChainName;
use crate::netfilter::negatable::Negatable::{Is, Not};
use crate::netfilter::rule::Rule;
use crate::netfilter::target::Target;
use crate::netfilter::text::line::Line;
use crate::netfilter::text::parse;
use crate::netfilter::token::Token;

/// The beginning of the comment on each rule that only counts.
pub const COMMENT: &str = "nvactl-twin-";
/// The beginning of the comment on such a rule if it stands before a rule of the machine, and not in its place.
pub const SHADOW: &str = "nvactl-twin-before-";

/// The facts about the machine that decide which rules are edited.
#[derive(Debug, Clone, Default)]
pub struct FilterFacts {
    pub queues: Queues,
    /// Whether rules of a namespace write to the machine's log (`nf_log_all_netns`).
    pub logs: bool,
    pub spaced_sets: SpacedSets,
    /// The ipsets and nft sets to which rules add elements.
    pub written: BTreeSet<String>,
}

/// The text that is loaded for a rule.
#[derive(Debug, PartialEq, Eq)]
pub enum RuleEdit {
    /// The rule as it is.
    Keep,
    /// This text in place of the rule. A reason is reported.
    Instead(String, Option<Reason>),
    /// This text and a comment in place of the rule: a rule that counts.
    Placeholder(String, Unknown),
    /// This text and a comment before the rule: a rule that counts.
    Shadow(String, Unknown),
}

/// Matches whose state is not copied.
const STATEFUL: [&str; 10] = [
    "limit",
    "hashlimit",
    "recent",
    "quota",
    "quota2",
    "connlimit",
    "rateest",
    "condition",
    "mac",
    "statistic",
];

/// Matches that ask for the bytes that a client sends.
const PAYLOAD: [&str; 3] = ["string", "u32", "bpf"];

/// Targets that do not decide about a packet.
const HARMLESS: [&str; 10] = [
    "LOG",
    "NFLOG",
    "ULOG",
    "TRACE",
    "AUDIT",
    "LED",
    "IDLETIMER",
    "RATEEST",
    "ACCOUNT",
    "CHECKSUM",
];

/// Decides what is loaded for a line `-A CHAIN …`.
#[must_use]
pub fn edit(line: &str, facts: &FilterFacts) -> RuleEdit {
    let Some(parts) = Parts::of(line) else {
        return RuleEdit::Keep;
    };
    let broken = line.contains('\n');
    match parts.target() {
        // Other programs could not tell such a trace from their own, and nvactl has its own chains for it.
        Some("TRACE") => return RuleEdit::Instead(parts.without_target(), None),
        Some("LOG") if facts.logs => {
            return RuleEdit::Instead(parts.without_target(), Some(Reason::WritesLog));
        }
        // The audit log, LEDs and the timers in sysfs belong to the whole machine.
        Some("AUDIT" | "LED" | "IDLETIMER") => {
            return RuleEdit::Instead(parts.without_target(), Some(Reason::WritesLog));
        }
        _ => {}
    }
    let decides = parts
        .target()
        .is_some_and(|target| !HARMLESS.contains(&target));
    if decides {
        if let Some(why) = parts.undecidable(facts) {
            return RuleEdit::Placeholder(parts.conditions(), why);
        }
        if let Some(stateful) = parts.stateful() {
            let why = match stateful {
                "statistic" => Unknown::Chance,
                "mac" => Unknown::Hardware,
                other => Unknown::UsedUp(other.to_owned()),
            };
            return RuleEdit::Shadow(parts.conditions(), why);
        }
    }
    if decides && let Some(word) = parts.payload() {
        let why = Unknown::Payload(word.to_owned());
        return RuleEdit::Shadow(parts.conditions(), why);
    }
    if decides
        && parts.target() != Some("SET")
        && let Some(set) = parts.written(facts)
    {
        return RuleEdit::Shadow(parts.conditions(), Unknown::Written(set));
    }
    if broken {
        return RuleEdit::Instead(parts.without_comment(), None);
    }
    RuleEdit::Keep
}

/// Returns the target of a rule, which may be a chain. A comment that holds `-j` does not count.
#[must_use]
pub fn leads_to(line: &str) -> Option<String> {
    Parts::of(line)?.target().map(str::to_owned)
}

/// Returns whether a line is a rule that lets every packet continue.
#[must_use]
pub fn decides_nothing(line: &str) -> bool {
    Parts::of(line).is_some_and(|parts| {
        let target = parts.target();
        target.is_none_or(|target| HARMLESS.contains(&target))
    })
}

/// Returns the conditions of a rule that does not load, for a placeholder.
#[must_use]
pub fn conditions(line: &str) -> Option<String> {
    Parts::of(line).map(|parts| parts.conditions())
}

/// Adds the comment by which a rule that counts is found again. `beginning` is [`COMMENT`] or [`SHADOW`].
#[must_use]
pub fn commented(conditions: &str, beginning: &str, index: usize) -> String {
    format!("{conditions} -m comment --comment {beginning}{index}")
}

/// A rule and its chain.
struct Parts {
    chain: ChainName,
    rule: Rule,
}

impl Parts {
    fn of(line: &str) -> Option<Self> {
        // By its name alone a chain is no different from a target, and is printed like one.
        let (chain, rule) = parse::appended(line, &BTreeSet::new())?;
        Some(Self { chain, rule })
    }

    fn target(&self) -> Option<&str> {
        let target = self.rule.target.as_ref().map(Target::name);
        target.filter(|name| !name.is_empty())
    }

    /// Returns the value of one of the target's options.
    fn option(&self, option: &str) -> Option<&str> {
        let Some(Target::Other(words)) = &self.rule.target else {
            return None;
        };
        let at = words.iter().position(|word| word.spelled() == option)?;
        words.get(at + 1).map(Token::spelled)
    }

    /// Returns the reason for which a twin cannot evaluate the rule at all.
    fn undecidable(&self, facts: &FilterFacts) -> Option<Unknown> {
        match self.target() {
            Some("NFQUEUE" | "QUEUE") => {
                let named = self
                    .option("--queue-num")
                    .or_else(|| self.option("--queue-balance"));
                let range = queues::range(named.unwrap_or("0"));
                if range.is_none_or(|range| facts.queues.listens(range)) {
                    return Some(Unknown::Queue);
                }
            }
            Some("TPROXY") => return Some(Unknown::LocalProgram("TPROXY".to_owned())),
            _ => {}
        }
        self.rule.matches.iter().find_map(unknown)
    }

    fn stateful(&self) -> Option<&str> {
        let decisive = |condition: &&Match| match condition.name() {
            "recent" => !has(condition, "--set"),
            // A rule that sends a share of all connections to each target decides nothing else by chance.
            "statistic" => matches!(self.target(), Some("DROP" | "REJECT" | "ACCEPT" | "RETURN")),
            name => STATEFUL.contains(&name),
        };
        let found = self.rule.matches.iter().find(decisive);
        found.map(Match::name)
    }

    fn payload(&self) -> Option<&str> {
        let mut names = self.rule.matches.iter().map(Match::name);
        names.find(|name| PAYLOAD.contains(name))
    }

    /// Returns a set that the rule matches and to which rules add elements. The connections that are tried may be
    /// added as well.
    fn written(&self, facts: &FilterFacts) -> Option<String> {
        self.rule
            .matches
            .iter()
            .find_map(|condition| match condition {
                Match::Set(Is(set) | Not(set)) => {
                    let name = set.name();
                    facts.written.contains(&*name).then(|| name.into_owned())
                }
                _ => None,
            })
    }

    /// Returns the line of the rule with some of its conditions, and another target.
    fn with(&self, keep: impl Fn(&Match) -> bool, target: Option<&Target>) -> String {
        let kept = self.rule.matches.iter().filter(|condition| keep(condition));
        let rule = Rule {
            matches: kept.cloned().collect(),
            target: target.cloned(),
        };
        Line::Append(&self.chain, &rule).to_string()
    }

    /// Returns the conditions that keep no state and ask for no bytes. A rule with these counts each packet that the whole
    /// rule could match.
    fn conditions(&self) -> String {
        let keeps_state = |condition: &Match| {
            let name = condition.name();
            STATEFUL.contains(&name) || PAYLOAD.contains(&name) || unknown(condition).is_some()
        };
        self.with(|one| !is_comment(one) && !keeps_state(one), None)
    }

    fn without_target(&self) -> String {
        self.with(|one| !is_comment(one), None)
    }

    fn without_comment(&self) -> String {
        self.with(|one| !is_comment(one), self.rule.target.as_ref())
    }
}

fn is_comment(condition: &Match) -> bool {
    matches!(condition, Match::Comment(_))
}

/// Why it is unknown whether a condition holds.
fn unknown(condition: &Match) -> Option<Unknown> {
    match condition.name() {
        "socket" => Some(Unknown::LocalProgram("socket".to_owned())),
        "bpf" if has(condition, "--object-pinned") => Some(Unknown::Bpf),
        _ => None,
    }
}

/// Whether a condition without a type has an option.
fn has(condition: &Match, option: &str) -> bool {
    match condition {
        Match::Other(words) => words.iter().any(|word| word.spelled() == option),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used_up(word: &str) -> Unknown {
        Unknown::UsedUp(word.to_owned())
    }

    #[test]
    fn a_shadow_has_the_conditions_that_keep_no_state() {
        let facts = FilterFacts::default();
        for (line, shadow, word) in [
            (
                "-A INPUT -s 1.2.3.4/32 -p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -m limit --limit 3/min -m comment --comment \"a -j b\" -j ACCEPT",
                "-A INPUT -s 1.2.3.4/32 -p tcp -m tcp --dport 22 -m conntrack --ctstate NEW",
                "limit",
            ),
            (
                "-A INPUT -p tcp -m recent --update --seconds 60 --name SSH --mask 255.255.255.255 --rsource -j DROP",
                "-A INPUT -p tcp",
                "recent",
            ),
            (
                "-A x ! -i lo -m recent --set --name -j --rsource -m connlimit --connlimit-above 3 --connlimit-mask 32 --connlimit-saddr -g y",
                "-A x ! -i lo",
                "connlimit",
            ),
            (
                "-A x ! -i eth0 -m quota --quota 10 -m mark ! --mark 0x1 -j x",
                "-A x ! -i eth0 -m mark ! --mark 0x1",
                "quota",
            ),
            (
                "-A x -m comment --comment -j -m hashlimit --hashlimit-above 1/sec --hashlimit-name -m -j DROP",
                "-A x",
                "hashlimit",
            ),
        ] {
            let expected = RuleEdit::Shadow(shadow.to_owned(), used_up(word));
            assert_eq!(edit(line, &facts), expected, "{line}");
        }
        assert_eq!(
            commented("-A x -p tcp", SHADOW, 7),
            "-A x -p tcp -m comment --comment nvactl-twin-before-7"
        );
    }

    #[test]
    fn a_comment_leads_to_no_chain() {
        for (line, target) in [
            ("-A FORWARD -j NVACTL-FORWARD", Some("NVACTL-FORWARD")),
            (
                "-A FORWARD -i eth0 -g NVACTL-FORWARD",
                Some("NVACTL-FORWARD"),
            ),
            (
                "-A FORWARD -m comment --comment \"before -j NVACTL-FORWARD\" -j DROP",
                Some("DROP"),
            ),
            ("-A FORWARD -m comment --comment \"a -j NVACTL-X\"", None),
        ] {
            assert_eq!(leads_to(line).as_deref(), target, "{line}");
        }
    }

    #[test]
    fn a_rule_that_takes_packets_by_chance_is_watched() {
        for (line, shadow) in [
            (
                "-A x -p tcp -m statistic --mode random --probability 0.1 -j DROP",
                "-A x -p tcp",
            ),
            (
                "-A x -m statistic --mode nth --every 3 --packet 0 -j ACCEPT",
                "-A x",
            ),
        ] {
            let expected = RuleEdit::Shadow(shadow.to_owned(), Unknown::Chance);
            assert_eq!(edit(line, &FilterFacts::default()), expected, "{line}");
        }
    }

    #[test]
    fn a_rule_that_asks_for_the_bytes_of_a_client_is_watched() {
        for (line, rest, word) in [
            (
                "-A x -p tcp -m string --string \"GET /admin\" --algo bm -j DROP",
                "-A x -p tcp",
                "string",
            ),
            ("-A x -m u32 --u32 \"0x6&0xff=0x6\" -j DROP", "-A x", "u32"),
            (
                "-A x -i eth0 -m bpf --bytecode \"1,6 0 0 1\" -j ACCEPT",
                "-A x -i eth0",
                "bpf",
            ),
        ] {
            let why = Unknown::Payload(word.to_owned());
            let expected = RuleEdit::Shadow(rest.to_owned(), why);
            assert_eq!(edit(line, &FilterFacts::default()), expected, "{line}");
        }
    }

    #[test]
    fn a_rule_that_decides_nothing_by_a_state_is_kept() {
        for line in [
            "-A INPUT -m limit --limit 3/min -j LOG --log-prefix \"a \"",
            "-A INPUT -m limit --limit 3/min -j NFLOG --nflog-prefix -j",
            "-A INPUT -m recent --update --name x",
            "-A INPUT -m recent --set --name x -j ACCEPT",
            "-A x -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-A",
            "-A x -p tcp -m statistic --mode nth --every 3 --packet 0 -j DNAT --to-destination 10.0.0.1",
            "-A INPUT -m comment --comment limit -j DROP",
            "-A INPUT -m string --string a --algo bm -j LOG",
            ":INPUT ACCEPT [0:0]",
        ] {
            assert_eq!(
                edit(line, &FilterFacts::default()),
                RuleEdit::Keep,
                "{line}"
            );
        }
    }

    #[test]
    fn a_rule_that_matches_a_set_to_which_rules_add_is_watched() {
        let facts = FilterFacts {
            written: BTreeSet::from(["trap".to_owned()]),
            ..FilterFacts::default()
        };
        let line = "-A x -p tcp -m set --match-set trap src -j DROP";
        let expected = RuleEdit::Shadow(
            "-A x -p tcp -m set --match-set trap src".to_owned(),
            Unknown::Written("trap".to_owned()),
        );
        assert_eq!(edit(line, &facts), expected);
        for line in [
            "-A x -m set --match-set list src -j DROP",
            "-A x -m set ! --match-set trap src -j SET --add-set trap src",
        ] {
            assert_eq!(edit(line, &facts), RuleEdit::Keep, "{line}");
        }
    }

    #[test]
    fn a_queue_is_undecidable_with_a_listener_only() {
        let facts = FilterFacts {
            queues: Queues::read("4 1 0 2 65531 0 0 0 1"),
            ..FilterFacts::default()
        };
        for (target, undecidable) in [
            ("NFQUEUE --queue-num 4", true),
            ("NFQUEUE --queue-num 4 --queue-bypass", true),
            ("NFQUEUE --queue-num 3", false),
            ("NFQUEUE --queue-balance 2:5", true),
            ("NFQUEUE", false),
        ] {
            let line = format!("-A FORWARD -p tcp -j {target}");
            let expected = if undecidable {
                RuleEdit::Placeholder("-A FORWARD -p tcp".to_owned(), Unknown::Queue)
            } else {
                RuleEdit::Keep
            };
            assert_eq!(edit(&line, &facts), expected, "{line}");
        }
    }

    #[test]
    fn a_placeholder_stands_for_what_local_programs_decide() {
        for (line, placeholder, why) in [
            (
                "-A PREROUTING -p tcp -j TPROXY --on-port 1 --on-ip 0.0.0.0 --tproxy-mark 0x0/0x0",
                "-A PREROUTING -p tcp",
                Unknown::LocalProgram("TPROXY".to_owned()),
            ),
            (
                "-A PREROUTING -m socket --transparent -m mark --mark 0x1 -j DIVERT",
                "-A PREROUTING -m mark --mark 0x1",
                Unknown::LocalProgram("socket".to_owned()),
            ),
            (
                "-A x -m bpf --object-pinned /sys/fs/bpf/x -j DROP",
                "-A x",
                Unknown::Bpf,
            ),
        ] {
            let expected = RuleEdit::Placeholder(placeholder.to_owned(), why);
            assert_eq!(edit(line, &FilterFacts::default()), expected, "{line}");
        }
    }

    #[test]
    fn a_rule_loses_a_target_that_writes_to_the_machine_s_logs() {
        let log = "-A x -m recent --set --name a -m limit --limit 1/sec -j LOG --log-prefix \"b \"";
        let bare = "-A x -m recent --set --name a -m limit --limit 1/sec".to_owned();
        let logs = FilterFacts {
            logs: true,
            ..FilterFacts::default()
        };
        assert_eq!(edit(log, &FilterFacts::default()), RuleEdit::Keep);
        assert_eq!(
            edit(log, &logs),
            RuleEdit::Instead(bare, Some(Reason::WritesLog))
        );
        assert_eq!(
            edit("-A x -p udp -j TRACE", &logs),
            RuleEdit::Instead("-A x -p udp".to_owned(), None)
        );
    }

    #[test]
    fn a_comment_with_a_line_end_is_removed() {
        assert_eq!(
            edit(
                "-A x -p tcp -m comment --comment \"a\nb\" -m tcp --dport 1 -j DNAT --to-destination 1.1.1.1",
                &FilterFacts::default()
            ),
            RuleEdit::Instead(
                "-A x -p tcp -m tcp --dport 1 -j DNAT --to-destination 1.1.1.1".to_owned(),
                None
            )
        );
    }
}

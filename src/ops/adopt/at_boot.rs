//! Finds rules in the files that add rules at boot, however they are spelled there.

use crate::host::boot_text::BootText;
use crate::import::ImportedPlace;
use crate::net::Family;
use crate::netfilter::matches::Match;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::rule::Rule;
use crate::netfilter::text::typed::read_added;
use crate::netfilter::tracking::Conntrack;

/// The rules that files add at boot.
#[derive(Debug, Default)]
pub struct BootRules<'t> {
    rules: Vec<BootRule<'t>>,
    /// The path of a file and one of its commands, for each command that cannot be read.
    pub unread: Vec<(&'t str, String)>,
}

/// A rule that a file adds.
#[derive(Debug)]
struct BootRule<'t> {
    path: &'t str,
    family: Family,
    table: TableName,
    chain: ChainName,
    rule: Rule,
}

impl<'t> BootRules<'t> {
    /// Reads the commands of files that add a rule. A command that needs a shell cannot be read.
    #[must_use]
    pub fn of(texts: &'t [BootText]) -> Self {
        let mut found = Self::default();
        for text in texts {
            for command in commands(text) {
                let rules = read(&text.path, &command);
                // Without the name of iptables it may be any program's.
                if rules.is_empty() && !command.program.is_empty() {
                    found.unread.push((&text.path, command.text));
                }
                found.rules.extend(rules);
            }
        }
        found
    }

    /// Returns the path of the first file that adds a rule.
    #[must_use]
    pub fn adding(&self, place: &ImportedPlace, rule: &Rule) -> Option<&'t str> {
        let rule = in_one_spelling(rule);
        let adds = |one: &&BootRule<'_>| {
            (one.family, one.table, &one.chain) == (place.family, place.table, &place.chain)
                && one.rule == rule
        };
        self.rules.iter().find(adds).map(|one| one.path)
    }
}

/// Returns a rule with `-m state` as the match that replaced it: people type both for one rule.
fn in_one_spelling(rule: &Rule) -> Rule {
    let mut rule = rule.clone();
    for condition in &mut rule.matches {
        if let Match::State(states) = condition {
            *condition = Match::Conntrack(Conntrack {
                states: Some(*states),
                ..Conntrack::default()
            });
        }
    }
    rule
}

const QUOTES: [char; 2] = ['"', '\''];

/// A command that adds a rule.
#[derive(Debug)]
struct AddingCommand {
    text: String,
    /// The words before `-A` or `-I`, from the program on; empty for a line of iptables-save text.
    program: Vec<String>,
    chain: String,
    /// The words behind the chain.
    rule: Vec<String>,
}

/// Returns the commands of a file that add a rule.
fn commands(text: &BootText) -> Vec<AddingCommand> {
    // This leaves out the ends of lines that go on, and the 2 of `2>/dev/null`.
    let joined = text.text.replace("\\\n", " ").replace(" 2>", " >");
    let lines = joined
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let commands = lines.flat_map(|line| line.split([';', '&', '|', '>']));
    commands
        .filter_map(|command| adding(command, text.interface.as_deref()))
        .collect()
}

/// Reads a command in the middle of other words: a list of YAML has brackets and commas, and a value of wg-quick comes
/// behind its key.
fn adding(command: &str, interface: Option<&str>) -> Option<AddingCommand> {
    let command = match interface {
        // wg-quick(8): the name of the file's interface.
        Some(interface) => command.replace("%i", interface),
        None => command.to_owned(),
    };
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
    let adds = |word: &String| ["-A", "-I", "--append", "--insert"].contains(&word.as_str());
    let at = words.iter().position(adds)?;
    let is_program = |word: &String| {
        let name = word.trim_start_matches(QUOTES);
        let name = name.rsplit('/').next().unwrap_or(name);
        name.starts_with("iptables") || name.starts_with("ip6tables")
    };
    let program = words[..at].iter().position(is_program);
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
    Some(AddingCommand {
        text: command.trim().to_owned(),
        program: program.to_vec(),
        chain,
        rule,
    })
}

/// Reads the rule of a command. A line of iptables-save text stands for both families, and for each table.
fn read<'t>(path: &'t str, command: &AddingCommand) -> Vec<BootRule<'t>> {
    let programs = if command.program.is_empty() {
        let families = ["iptables", "ip6tables"].into_iter();
        let each = families.flat_map(|program| {
            let tables = [TableName::Filter, TableName::Nat].into_iter();
            tables.map(move |table| format!("{program} -t {table}"))
        });
        each.collect()
    } else {
        vec![command.program.join(" ")]
    };
    let mut found = Vec::new();
    for program in programs {
        for (family, ruleset) in read_added(&program, &command.chain, &command.rule) {
            for (table, chain, rules) in ruleset.chains() {
                found.extend(rules.rules.iter().map(|rule| BootRule {
                    path,
                    family,
                    table,
                    chain: chain.clone(),
                    rule: in_one_spelling(rule),
                }));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netfilter::text::parse::parse;

    fn rule(table: TableName, line: &str) -> (ImportedPlace, Rule) {
        let text = format!("*{table}\n:OFFICE - [0:0]\n{line}\nCOMMIT\n");
        let read = parse(&text).expect("it is a rule");
        let mut chains = read.chains();
        let filled = chains.find(|(_, _, chain)| !chain.rules.is_empty());
        let (table, name, chain) = filled.expect("it has a chain");
        let place = ImportedPlace {
            family: Family::V4,
            table,
            chain: name.clone(),
            at: 0,
        };
        (place, chain.rules[0].clone())
    }

    /// Returns whether a file of the interface wg0 adds a rule.
    fn finds(table: TableName, line: &str, file: &str) -> bool {
        let texts = [BootText {
            path: "/a/file".to_owned(),
            text: file.to_owned(),
            interface: Some("wg0".to_owned()),
        }];
        let (place, rule) = rule(table, line);
        BootRules::of(&texts).adding(&place, &rule).is_some()
    }

    #[test]
    fn a_command_that_needs_a_shell_is_not_read() {
        let texts = [BootText {
            path: "/etc/rc.local".to_owned(),
            text: "iptables -A FORWARD -i \"$IN\" -j ACCEPT\nusermod -A $IN\n".to_owned(),
            interface: None,
        }];
        let unread = BootRules::of(&texts).unread;
        let command = "iptables -A FORWARD -i \"$IN\" -j ACCEPT".to_owned();
        assert_eq!(unread, [("/etc/rc.local", command)]);
    }

    #[test]
    fn a_rule_is_found_however_it_is_typed() {
        let table = TableName::Nat;
        let dnat = "-A PREROUTING -d 10.3.0.4/32 -i eth0 -p tcp -m tcp --dport 49181 -j DNAT --to-destination 10.224.0.222";
        for (file, found) in [
            (
                "iptables -t nat -A PREROUTING -i eth0 -d 10.3.0.4 -p tcp --dport 49181 -j DNAT --to 10.224.0.222",
                true,
            ),
            (
                "/sbin/iptables -w 5 -t nat -I PREROUTING 2 -p TCP -i eth0 -d 10.3.0.4/32 --destination-port 49181 -j DNAT --to-destination 10.224.0.222 || true",
                true,
            ),
            (
                "  - [iptables, -t, nat, -A, PREROUTING, -i, eth0, -d, 10.3.0.4, -p, tcp, --dport, \"49181\", -j, DNAT, --to-destination, 10.224.0.222]",
                true,
            ),
            (
                "  - \"iptables -t nat -A PREROUTING -i eth0 -d 10.3.0.4 -p tcp --dport 49181 -j DNAT --to 10.224.0.222\"",
                true,
            ),
            (
                "# iptables -t nat -A PREROUTING -i eth0 -d 10.3.0.4 -p tcp --dport 49181 -j DNAT --to 10.224.0.222",
                false,
            ),
            (
                "iptables -t nat -A PREROUTING -i eth0 -d 10.3.0.4 -p tcp --dport 49182 -j DNAT --to 10.224.0.222",
                false,
            ),
            // Not the same conditions, though the same values.
            (
                "iptables -t nat -A PREROUTING -i eth0 ! -d 10.3.0.4 -p tcp --dport 49181 -j DNAT --to 10.224.0.222",
                false,
            ),
            (
                "ip6tables -t nat -A PREROUTING -i eth0 -p tcp --dport 49181 -j DNAT --to fd00::1",
                false,
            ),
            (
                "iptables -t nat -A PREROUTING -i eth0 -p tcp \\\n --dport 49181 -d 10.3.0.4 -j DNAT --to 10.224.0.222",
                true,
            ),
        ] {
            assert_eq!(finds(table, dnat, file), found, "{file}");
        }
    }

    #[test]
    fn commands_are_found_among_other_words() {
        use TableName::Filter;
        let replies = "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";
        let opens = "-A FORWARD -p tcp -m tcp --dport 80 --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT";
        let out = "-A FORWARD -i wg0 -j ACCEPT";
        let commented = "-A FORWARD -i wg0 -m comment --comment \"from the tunnel\" -j ACCEPT";
        let web = "-A WEB -s 198.51.100.0/24 -j OFFICE";
        for (line, file, found) in [
            (
                replies,
                "iptables -A FORWARD -m state --state ESTABLISHED,RELATED -j ACCEPT",
                true,
            ),
            (replies, "iptables -A FORWARD -i wg0 -j ACCEPT", false),
            (
                opens,
                "iptables -A FORWARD -p tcp --syn --dport 80 -j ACCEPT 2>/dev/null",
                true,
            ),
            (
                out,
                "PostUp = iptables -A FORWARD -i %i -j ACCEPT; iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE",
                true,
            ),
            (out, "PostUp = iptables -A FORWARD -i wg1 -j ACCEPT", false),
            (out, "PostUp = ip6tables -A FORWARD -i %i -j ACCEPT", false),
            (out, "-A FORWARD -i wg0 -j ACCEPT", true),
            (
                commented,
                "iptables -A FORWARD -i wg0 -m comment --comment \"from the tunnel\" -j ACCEPT",
                true,
            ),
            (web, "iptables -A WEB -s 198.51.100.0/24 -j OFFICE", true),
            (web, "iptables -A WEB -s 198.51.100.0/24 -j ACCEPT", false),
        ] {
            assert_eq!(finds(Filter, line, file), found, "{line}: {file}");
        }
    }
}

//! Finds rules in the files that add rules at boot, however they are spelled there.

use super::boot_command::{AddingCommand, BootCommand, boot_commands};
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
    /// The path of a file and one of its commands, for each command that needs a shell, or that loads a file that is
    /// none of the texts.
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
    /// Reads the commands of files that add rules.
    #[must_use]
    pub fn of(texts: &'t [BootText]) -> Self {
        let mut found = Self::default();
        for text in texts {
            for command in boot_commands(text) {
                match command {
                    BootCommand::Loads(command) => {
                        // Its file is one of the texts.
                        let is_read = texts.iter().any(|one| command.contains(&one.path));
                        if !is_read {
                            found.unread(&text.path, command);
                        }
                    }
                    BootCommand::Adds(command) => {
                        let rules = read(&text.path, &command);
                        if rules.is_empty() && may_matter(&command) {
                            found.unread(&text.path, command.text);
                        }
                        found.rules.extend(rules);
                    }
                }
            }
        }
        found
    }

    fn unread(&mut self, path: &'t str, command: String) {
        let found = (path, command);
        if !self.unread.contains(&found) {
            self.unread.push(found);
        }
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

/// Returns whether a command may add a rule that can be adopted. Without the name of iptables, `-A` may be an option of
/// any program, unless a chain of iptables follows.
fn may_matter(command: &AddingCommand) -> bool {
    let chain = ChainName::from(command.chain.as_str());
    match chain {
        ChainName::Input | ChainName::Output => false,
        chain => chain.is_builtin() || !command.program.is_empty(),
    }
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
    fn a_command_that_cannot_be_read_is_named() {
        for (command, is_named) in [
            ("iptables -A FORWARD -i \"$IN\" -j ACCEPT", true),
            (
                "$IPT -t nat -I PREROUTING 1 -i $IN -j DNAT --to 10.0.0.1",
                true,
            ),
            ("iptables -A $CHAIN -j ACCEPT", true),
            ("iptables-restore < /etc/iptables.rules", true),
            ("/sbin/ip6tables-legacy-restore -n /etc/rules", true),
            ("iptables -A FORWARD -i eth0 -j ACCEPT", false),
            ("iptables -A INPUT -i $IN -j ACCEPT", false),
            ("iptables-restore <<END", false),
            ("iptables-save -t nat", false),
            ("usermod -A $IN", false),
        ] {
            let texts = [BootText {
                path: "/etc/rc.local".to_owned(),
                text: format!("IN=$(route)\n{command}\n{command} >/dev/null\n"),
                interface: None,
            }];
            let unread = BootRules::of(&texts).unread;
            let named = [("/etc/rc.local", command.to_owned())];
            assert_eq!(unread, if is_named { &named[..] } else { &[] }, "{command}");
        }
    }

    #[test]
    fn variables_of_a_script_are_filled_in() {
        let line = "-A FORWARD -d 10.224.0.118/32 -i eth0 -j ACCEPT";
        for (script, found) in [
            (
                "IN=eth0\nPOD=10.224.0.118\niptables -A FORWARD -i $IN -d $POD -j ACCEPT",
                true,
            ),
            (
                "export IN=\"eth0\"; POD='10.224.0.118' # one\nIPT=\"/sbin/iptables -w\"\n$IPT -A FORWARD -i \"${IN}\" -d \"$POD\"/32 -j ACCEPT",
                true,
            ),
            (
                "IN=eth1\niptables -A FORWARD -i $IN -d 10.224.0.118 -j ACCEPT",
                false,
            ),
            // Which of both it is, a shell would know.
            (
                "IN=eth0\niptables -A FORWARD -i $IN -d 10.224.0.118 -j ACCEPT\nIN=eth1",
                false,
            ),
            (
                "IN=eth\nINN=eth0\niptables -A FORWARD -i $INN -d 10.224.0.118 -j ACCEPT",
                true,
            ),
            (
                "X=$IN\niptables -A FORWARD -i ${X -d 10.224.0.118 -j ACCEPT$",
                false,
            ),
        ] {
            assert_eq!(finds(TableName::Filter, line, script), found, "{script}");
        }
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
            (
                "iptables --append PREROUTING --table nat --protocol tcp --in-interface eth0 --destination 10.3.0.4 --dport 49181 --jump DNAT --to-destination 10.224.0.222 # the ILB",
                true,
            ),
            (
                "iptables -t nat -C PREROUTING -j X 1>/dev/null 2>&1 || iptables -A PREROUTING -d 10.3.0.4 -i eth0 -p tcp --dport 49181 -j DNAT --to 10.224.0.222 -t nat",
                true,
            ),
            (
                "if true; then iptables -tnat -A PREROUTING -d 10.3.0.4 -i eth0 -p tcp --dport 49181 -j DNAT --to 10.224.0.222; fi",
                true,
            ),
            (
                "iptables-restore -n <<END\n*nat\n-A PREROUTING -i eth0 -d 10.3.0.4 -p tcp --dport 49181 -j DNAT --to 10.224.0.222\nCOMMIT\nEND",
                true,
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

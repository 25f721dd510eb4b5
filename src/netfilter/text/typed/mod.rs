//! Reads rules as people type them: iptables-save text that is not in the spelling of iptables-save, and `iptables`
//! commands.
//!
//! ```text
//! script ─shell─▶ words ─┐
//! saved text ────────────┴─command─▶ action and rule ─spell─▶ canonical words ─parse─▶ Rule ─tables─▶ rulesets
//! ```
//!
//! The rules are those that the commands, run one after the other, make on a machine that has none. A command that
//! iptables refuses is an error at its line, and so is one that needs a shell. Chains of other programs, such as
//! `DOCKER-USER`, are there without having been made.

mod added;
mod command;
mod error;
mod extensions;
mod saved;
mod script;
mod shell;
mod spell;
mod tables;
mod values;

use std::collections::BTreeMap;

pub use added::read_added;
pub use error::{TypedError, TypedProblem};

use super::parse::is_saved;
use crate::net::Family;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::ruleset::Ruleset;
use saved::read_saved;
use script::read_script;

/// The rules of a text, of each family that it has, with the line of each rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypedRules {
    /// IPv4 first. A family that the text does not have is not there.
    pub rules: Vec<(Family, Ruleset)>,
    lines: BTreeMap<(Family, TableName, ChainName), Vec<usize>>,
}

impl TypedRules {
    /// Returns the line, counted from 1, that made a rule. `at` counts the rules before it in its chain. `None` if there
    /// is no such rule.
    #[must_use]
    pub fn line(
        &self,
        family: Family,
        table: TableName,
        chain: &ChainName,
        at: usize,
    ) -> Option<usize> {
        let lines = self.lines.get(&(family, table, chain.clone()))?;
        lines.get(at).copied()
    }
}

/// Reads iptables-save text of one or both families, or `iptables` commands.
///
/// # Errors
/// [`TypedError`] for the first line that iptables refuses, that is no command of iptables, or that needs a shell.
pub fn read_typed(text: &str) -> Result<TypedRules, TypedError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let families = if is_saved(text) {
        read_saved(text)?
    } else {
        read_script(text)?
    };
    let mut read = TypedRules::default();
    for (family, tables) in families {
        let numbered = tables.finish();
        for (table, chain, lines) in numbered.lines {
            read.lines.insert((family, table, chain), lines);
        }
        read.rules.push((family, numbered.ruleset));
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        let error = read_typed(text).expect_err(text);
        error.to_string()
    }

    fn families(text: &str) -> Vec<Family> {
        let read = read_typed(text).unwrap_or_else(|error| panic!("{error}"));
        read.rules.iter().map(|(family, _)| *family).collect()
    }

    #[test]
    fn each_rule_knows_the_line_that_made_it() {
        let text = "# mine\niptables -A FORWARD -s 10.0.0.1,10.0.0.2 -j ACCEPT\n\niptables -I FORWARD \\\n  -j LOG\n\
                    ip6tables -A FORWARD -j DROP\niptables -D FORWARD -s 10.0.0.1 -j ACCEPT\n";
        let read = read_typed(text).expect("they are rules");
        let line = |family, at| read.line(family, TableName::Filter, &ChainName::Forward, at);
        let lines = [0, 1, 2].map(|at| line(Family::V4, at));
        assert_eq!(lines, [Some(4), Some(2), None]);
        assert_eq!(line(Family::V6, 0), Some(6));
        let saved = "*filter\n:FORWARD DROP\n-A FORWARD -m comment --comment \"a\nb\" -j DROP\n-A FORWARD -j LOG\nCOMMIT\n";
        let read = read_typed(saved).expect("they are rules");
        let line = |at| read.line(Family::V4, TableName::Filter, &ChainName::Forward, at);
        assert_eq!([line(0), line(1)], [Some(3), Some(5)]);
    }

    #[test]
    fn the_programs_of_both_backends_are_known_by_their_names() {
        for (program, family) in [
            ("iptables", Family::V4),
            ("sudo iptables", Family::V4),
            ("sudo -n -E /usr/sbin/iptables-nft", Family::V4),
            ("iptables-legacy", Family::V4),
            ("sudo ip6tables", Family::V6),
            ("/sbin/ip6tables-nft", Family::V6),
        ] {
            assert_eq!(
                families(&format!("{program} -A FORWARD -j DROP")),
                [family],
                "{program}"
            );
        }
        assert_eq!(families("iptables -L\n"), []);
        assert_eq!(families(""), []);
    }

    #[test]
    fn the_family_of_saved_text_is_told_by_header_rules_and_order() {
        use Family::{V4, V6};
        let table = |rules: &str| format!("*filter\n{rules}COMMIT\n");
        let (plain, of_v4, of_v6) = (
            table("-A FORWARD -j DROP\n"),
            table("-A FORWARD -s 10.0.0.1 -j DROP\n"),
            table("-A FORWARD -p ipv6-icmp -j DROP\n"),
        );
        let header =
            |program: &str, table: &str| format!("# Generated by {program}-save v1.8.9\n{table}");
        for (text, expected) in [
            (plain.clone(), &[V4][..]),
            (of_v6.clone(), &[V6]),
            (table("-A FORWARD -d fd00::/8 -j DROP\n"), &[V6]),
            (
                table("-A FORWARD -m comment --comment fd00::1 -s 10.0.0.0/8\n"),
                &[V4],
            ),
            (
                format!("*nat\n-A PREROUTING -p tcp -j DNAT --to [fd00::1]:80\nCOMMIT\n{plain}"),
                &[V6],
            ),
            (format!("{plain}{plain}"), &[V4, V6]),
            (format!("{of_v6}{plain}"), &[V4, V6]),
            (format!("{plain}{of_v4}"), &[V4, V6]),
            (header("ip6tables", &plain), &[V6]),
            (
                header("iptables", &plain) + &header("ip6tables", &plain),
                &[V4, V6],
            ),
            (
                format!("{}*nat\nCOMMIT\n{plain}", header("iptables", &plain)),
                &[V4, V6],
            ),
            (
                table("-A FORWARD -4 -j DROP\n-A FORWARD -j LOG\n"),
                &[V4, V6],
            ),
        ] {
            assert_eq!(families(&text), expected, "{text}");
        }
    }

    #[test]
    fn an_error_says_the_edit_that_fixes_its_line() {
        for (text, message) in [
            (
                "iptables -A FORWARD -i $IF -j DROP",
                "line 1: the shell replaces `$`, and nvactl starts no shell: `iptables -A FORWARD -i $IF -j DROP`\n\
                 hint: write the value in its place",
            ),
            (
                "IF=eth0\niptables -A FORWARD -i $IF -j DROP",
                "line 1: `IF=eth0` sets a variable of the shell: `IF=eth0`\n\
                 hint: leave the line out, and write the value in each place where the variable stands",
            ),
            (
                "iptables -F && iptables -X",
                "line 1: `&` joins commands: `iptables -F && iptables -X`\nhint: put each command on a line of its own",
            ),
            (
                "#!/bin/sh\nset -e\niptables -F",
                "line 2: `set` is not a command that changes one rule: `set -e`\nhint: leave the line out",
            ),
            (
                "echo 1 > /proc/sys/net/ipv4/ip_forward",
                "line 1: `echo` is not a command that changes one rule: `echo 1 > /proc/sys/net/ipv4/ip_forward`\n\
                 hint: leave the line out",
            ),
            (
                "iptables-restore < /etc/iptables/rules.v4",
                "line 1: `iptables-restore` is not a command that changes one rule: `iptables-restore < /etc/iptables/rules.v4`\n\
                 hint: give `nvactl import` the file that this command loads",
            ),
            (
                "for p in 80 443; do\niptables -F\ndone",
                "line 1: `for` is a loop, a condition or a function of the shell: `for p in 80 443; do`\n\
                 hint: write out each command that the shell would run",
            ),
            (
                "iptables -A FORWARD --dport 80 -j ACCEPT",
                "line 1: iptables has no option `--dport` there: `iptables -A FORWARD --dport 80 -j ACCEPT`\n\
                 hint: write `-p tcp` or `-p udp` before it",
            ),
            (
                "iptables -A FORWARD –p tcp",
                "line 1: `–p` belongs to no option: `iptables -A FORWARD –p tcp`\n\
                 hint: type hyphens: a web page made other dashes of them",
            ),
            (
                "iptables -A FORWARD -p tcp ACCEPT",
                "line 1: `ACCEPT` belongs to no option: `iptables -A FORWARD -p tcp ACCEPT`\nhint: write `-j ACCEPT`",
            ),
            (
                "iptables -A FORWARD -s web.example.com -j ACCEPT",
                "line 1: `web.example.com` is a name, which only a name server can resolve: `iptables -A FORWARD -s web.example.com -j ACCEPT`\n\
                 hint: write its address",
            ),
            (
                "iptables -t nat -A PREROUTING -j WEB",
                "line 1: `WEB` is neither a target of IPv4 rules nor a chain of the table nat: `iptables -t nat -A PREROUTING -j WEB`\n\
                 hint: correct the name, or make the chain before this line: `iptables -t nat -N WEB`, or `:WEB - [0:0]` in iptables-save text",
            ),
            (
                "-A FORWARD -j DROP",
                "line 1: the line stands outside of a table: `-A FORWARD -j DROP`\n\
                 hint: put `*filter` or the name of another table before the rules, or write each with `iptables` in front",
            ),
            (
                "*filter\n-A FORWARD -j DROP\n",
                "line 1: the text ends before `COMMIT`, as if it had been cut: `*filter`\n\
                 hint: add the line `COMMIT`, or take the whole file",
            ),
            (
                "*filter\nCOMMIT\n*filter\nCOMMIT\n*filter\nCOMMIT\n",
                "line 5: IPv6 rules have the table filter already: `*filter`\nhint: put all rules of the table into one",
            ),
            (
                "*filter\n-A FORWARD -t nat -j DROP\nCOMMIT\n",
                "line 2: iptables has no option `-t` there: `-A FORWARD -t nat -j DROP`\n\
                 hint: leave `-t` and the table out: the line with `*` names the table",
            ),
        ] {
            assert_eq!(told(text), message);
        }
    }
}

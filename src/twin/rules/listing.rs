//! The text of `nft list` as tables with named blocks. A rule stays the text that nft printed.

use std::fmt::{self, Write as _};

/// A table, or the part of it that was listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListedTable {
    /// `ip`, `ip6`, `inet`, `arp`, `bridge` or `netdev`.
    pub family: String,
    pub name: String,
    /// `flags dormant`, `comment "…"`.
    pub heads: Vec<String>,
    pub chains: Vec<ListedChain>,
    /// Sets, maps, flowtables and named objects.
    pub blocks: Vec<ListedBlock>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListedChain {
    pub name: String,
    /// `type filter hook forward priority filter; policy accept;`, `comment "…"`.
    pub heads: Vec<String>,
    pub rules: Vec<ListedRule>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListedRule {
    pub text: String,
    /// Present in the output of `nft -a`.
    pub handle: Option<u64>,
}

/// A named thing in a table other than a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedBlock {
    /// `set`, `map`, `flowtable`, `counter`, `ct helper`, …
    pub kind: String,
    pub name: String,
    /// The lines between the braces.
    pub lines: Vec<String>,
}

impl ListedChain {
    /// Returns whether packets enter the chain from a hook.
    #[must_use]
    pub fn is_base(&self) -> bool {
        self.heads.iter().any(|head| head.starts_with("type "))
    }
}

impl ListedRule {
    /// Returns the packets that the rule's counter has counted.
    #[must_use]
    pub fn packets(&self) -> Option<u64> {
        let words: Vec<&str> = words(&self.text).collect();
        words.windows(3).find_map(|window| match window {
            ["counter", "packets", packets] => packets.parse().ok(),
            _ => None,
        })
    }

    /// Returns the text without the values of a counter.
    #[must_use]
    pub fn without_counts(&self) -> String {
        let mut words: Vec<&str> = words(&self.text).collect();
        let is_counter = |words: &[&str]| {
            matches!(words, ["counter", "packets", p, "bytes", b]
                if p.parse::<u64>().is_ok() && b.parse::<u64>().is_ok())
        };
        if let Some(at) = words.windows(5).position(is_counter) {
            words.drain(at + 1..at + 5);
        }
        words.join(" ")
    }
}

impl ListedTable {
    #[must_use]
    pub fn chain(&self, name: &str) -> Option<&ListedChain> {
        self.chains.iter().find(|chain| chain.name == name)
    }

    /// Returns the words that name the table in a command: `ip filter`.
    #[must_use]
    pub fn named(&self) -> String {
        format!("{} {}", self.family, self.name)
    }
}

/// Reads the output of `nft list`, with or without handles. A table that is listed in several parts stays in parts.
#[must_use]
pub fn tables(text: &str) -> Vec<ListedTable> {
    let mut tables: Vec<ListedTable> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let (line, _) = split_handle(line);
        let Some(opened) = line.strip_prefix("table ").and_then(opened) else {
            continue;
        };
        let Some((family, name)) = opened.split_once(' ') else {
            continue;
        };
        let mut table = ListedTable {
            family: family.to_owned(),
            name: name.to_owned(),
            ..ListedTable::default()
        };
        read_table(&mut table, &mut lines);
        tables.push(table);
    }
    tables
}

fn read_table<'t>(table: &mut ListedTable, lines: &mut impl Iterator<Item = &'t str>) {
    while let Some(line) = lines.next().filter(|line| *line != "}") {
        let (line, _) = split_handle(line.trim());
        let Some(opened) = opened(line) else {
            if !line.is_empty() {
                table.heads.push(line.to_owned());
            }
            continue;
        };
        // The lines of a block begin with two tabs, and its end with one.
        let inner = lines.by_ref().take_while(|line| *line != "\t}");
        match opened.rsplit_once(' ') {
            Some(("chain", name)) => table.chains.push(read_chain(name, inner)),
            Some((kind, name)) => table.blocks.push(ListedBlock {
                kind: kind.to_owned(),
                name: name.to_owned(),
                lines: inner.map(|line| line.trim().to_owned()).collect(),
            }),
            None => inner.for_each(drop),
        }
    }
}

fn read_chain<'t>(name: &str, lines: impl Iterator<Item = &'t str>) -> ListedChain {
    let mut chain = ListedChain {
        name: name.to_owned(),
        ..ListedChain::default()
    };
    for line in lines {
        let (text, handle) = split_handle(line.trim());
        let is_head = chain.rules.is_empty()
            && ((text.starts_with("type ") && text.contains(" hook "))
                || text.starts_with("comment ")
                || text.starts_with("flags "));
        // nft indents the further lines of a long set by more tabs. A rule may begin with a blank, since the
        // translation of a comment of iptables is empty.
        let goes_on = line.starts_with("\t\t\t");
        match chain.rules.last_mut() {
            Some(rule) if goes_on => {
                rule.text = [&rule.text, text].join(" ");
                rule.handle = rule.handle.or(handle);
            }
            _ if is_head => chain.heads.push(text.to_owned()),
            _ if text.is_empty() => {}
            _ => chain.rules.push(ListedRule {
                text: text.to_owned(),
                handle,
            }),
        }
    }
    chain
}

/// Returns the text before a brace that opens a block, without the comment that names a table's owner.
fn opened(line: &str) -> Option<&str> {
    let line = line
        .split_once(" # progname ")
        .map_or(line, |(line, _)| line);
    line.trim_end().strip_suffix(" {")
}

fn split_handle(line: &str) -> (&str, Option<u64>) {
    let split = line.rsplit_once(" # handle ");
    let numbered = split.and_then(|(line, handle)| Some((line, handle.trim().parse().ok()?)));
    match numbered {
        Some((line, handle)) => (line, Some(handle)),
        None => (line, None),
    }
}

/// Splits the text of a rule into words. nft has no escapes within quotes.
pub fn words(rule: &str) -> impl Iterator<Item = &str> {
    let mut rest = rule.trim_start();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut quoted = false;
        let end = rest.find(|c: char| {
            quoted ^= c == '"';
            c.is_whitespace() && !quoted
        });
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after.trim_start();
        Some(word)
    })
}

/// Returns a rule's text for a comparison, without `counter`: every rule of iptables has a counter, and a rule of nft
/// may have none.
#[must_use]
pub fn compared(rule: &str) -> String {
    let words: Vec<&str> = words(rule).filter(|word| *word != "counter").collect();
    words.join(" ")
}

impl fmt::Display for ListedBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} {{", self.kind, self.name)?;
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        f.write_str("}\n")
    }
}

impl ListedChain {
    /// Writes the chain without its rules.
    #[must_use]
    pub fn declaration(&self) -> String {
        let mut text = format!("chain {} {{\n", self.name);
        for head in &self.heads {
            let _ = writeln!(text, "{head}");
        }
        text + "}\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_split_into_tables_chains_and_blocks() {
        let text = "\
# Warning: table ip filter is managed by iptables-nft, do not touch!
table ip filter { # handle 1
\tset s { # handle 4
\t\ttype ipv4_addr
\t\telements = { 1.1.1.1,
\t\t\t     2.2.2.2 }
\t}

\tchain FORWARD { # handle 1
\t\ttype filter hook forward priority filter; policy accept;
\t\tip saddr @s comment \"a # handle 3\" drop # handle 5
\t\tjump own # handle 6
\t\t counter # handle 7
\t}

\tchain own { # handle 10
\t}
}
table inet t { # progname x
\tflags dormant,owner
\tchain c {
\t\tcomment \"c\"
\t\ttype filter hook input priority filter; policy drop;
\t}
}
";
        let [filter, t] = &tables(text)[..] else {
            panic!("two tables");
        };
        assert_eq!(filter.named(), "ip filter");
        assert_eq!(
            filter.blocks[0].to_string(),
            "set s {\ntype ipv4_addr\nelements = { 1.1.1.1,\n2.2.2.2 }\n}\n"
        );
        let rule = |text: &str, handle| ListedRule {
            text: text.to_owned(),
            handle: Some(handle),
        };
        let forward = filter.chain("FORWARD").expect("it is listed");
        assert_eq!(
            forward.rules,
            [
                rule("ip saddr @s comment \"a # handle 3\" drop", 5),
                rule("jump own", 6),
                rule("counter", 7)
            ]
        );
        assert!(forward.is_base());
        assert_eq!(
            filter.chain("own").map(ListedChain::declaration).as_deref(),
            Some("chain own {\n}\n")
        );
        assert_eq!(t.heads, ["flags dormant,owner"]);
        assert_eq!(
            t.chains[0].heads,
            [
                "comment \"c\"",
                "type filter hook input priority filter; policy drop;"
            ]
        );
    }

    #[test]
    fn a_rule_has_a_text_without_counts_and_a_handle() {
        let text = "table ip filter {\n\tchain log { # handle 1\n\t\tdrop # handle 3\n\t}\n\n\tchain FORWARD { # handle 2\n\
            \t\ttype filter hook forward priority filter; policy drop;\n\
            \t\tmeta l4proto tcp  counter packets 12 bytes 720 reject # handle 4\n\
            \t\tip saddr { 10.0.0.1, 10.0.0.2,\n\t\t\t     10.0.0.3 } drop comment \"# handle 9\" # handle 7\n\
            \t}\n}\n";
        let forward = &tables(text)[0].chains[1];
        let rules: Vec<(Option<u64>, String, Option<u64>)> = forward
            .rules
            .iter()
            .map(|rule| (rule.handle, rule.without_counts(), rule.packets()))
            .collect();
        let set = "ip saddr { 10.0.0.1, 10.0.0.2, 10.0.0.3 } drop comment \"# handle 9\"";
        assert_eq!(
            rules,
            [
                (
                    Some(4),
                    "meta l4proto tcp counter reject".to_owned(),
                    Some(12)
                ),
                (Some(7), set.to_owned(), None),
            ]
        );
    }

    #[test]
    fn counters_and_blanks_make_no_difference() {
        assert_eq!(
            compared("tcp dport 80  ct state new counter accept"),
            compared("tcp dport 80 ct state new accept")
        );
        assert_eq!(
            compared("log prefix \"a  counter b\" drop"),
            "log prefix \"a  counter b\" drop"
        );
    }
}

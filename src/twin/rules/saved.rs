//! The text of iptables-save as tables of lines, each unchanged.

use super::own;
use crate::netfilter::text::parse;

/// One table of a text.
#[derive(Debug, PartialEq, Eq)]
pub struct SavedTable<'t> {
    pub name: &'t str,
    /// `:CHAIN POLICY [0:0]`
    pub chains: Vec<&'t str>,
    /// `-A CHAIN …`; a comment may hold line ends.
    pub rules: Vec<&'t str>,
    /// Whether the text has the table's `COMMIT`. iptables-nft-save 1.8.9 stops at a rule that it cannot read.
    pub whole: bool,
}

/// Splits a text into its tables.
#[must_use]
pub fn tables(text: &str) -> Vec<SavedTable<'_>> {
    let mut tables: Vec<SavedTable<'_>> = Vec::new();
    for line in parse::lines(text) {
        let line = line.strip_suffix('\n').unwrap_or(line);
        if let Some(name) = line.strip_prefix('*') {
            tables.push(SavedTable {
                name,
                chains: Vec::new(),
                rules: Vec::new(),
                whole: false,
            });
        }
        let Some(table) = tables.last_mut() else {
            continue;
        };
        match line.as_bytes().first() {
            Some(b':') => table.chains.push(line),
            Some(b'-') => table.rules.push(line),
            Some(b'C') => table.whole |= line == "COMMIT",
            _ => {}
        }
    }
    tables
}

/// Returns the rules of a text that are in no chain of nvactl.
pub fn foreign_rules(text: &str) -> impl Iterator<Item = &str> {
    parse::lines(text).filter(|line| line.starts_with("-A ") && !own::is_nvactls(chain(line)))
}

/// Returns the chain of a line.
#[must_use]
pub fn chain(line: &str) -> &str {
    let line = line.strip_prefix(':').or_else(|| line.strip_prefix("-A "));
    let line = line.unwrap_or_default();
    line.split(' ').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_split_into_tables_and_whole_lines() {
        let text = "# Generated\n*nat\n:OUTPUT ACCEPT [1:2]\nCOMMIT\n*filter\n:x - [0:0]\n\
                    -A x -m comment --comment \"two\nlines\" -j DROP\n-A x -j ACCEPT\n";
        assert_eq!(
            tables(text),
            [
                SavedTable {
                    name: "nat",
                    chains: vec![":OUTPUT ACCEPT [1:2]"],
                    rules: vec![],
                    whole: true,
                },
                SavedTable {
                    name: "filter",
                    chains: vec![":x - [0:0]"],
                    rules: vec![
                        "-A x -m comment --comment \"two\nlines\" -j DROP",
                        "-A x -j ACCEPT"
                    ],
                    whole: false,
                },
            ]
        );
        assert_eq!(chain(":x - [0:0]"), "x");
        assert_eq!(chain("-A x -j ACCEPT"), "x");
    }
}

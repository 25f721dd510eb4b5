//! nvactl's rules into a rules file that others have lines in: theirs stay as they are, byte for
//! byte and in their order.

use std::collections::BTreeSet;

use crate::line::Line;
use crate::parse::{ParseError, Read, Reader, lines};
use crate::plan::jumps_from;
use crate::ruleset::{ChainName, Ruleset, Table, TableName};

/// The text with nvactl's part exchanged for `own`: its chains, its jumps in first place, and a
/// policy where `own` has one. Tables the text lacks are added whole.
///
/// # Errors
/// When the text is not what iptables-save prints.
pub fn splice(text: &str, own: &Ruleset) -> Result<String, ParseError> {
    let mut reader = Reader::default();
    let mut out = String::with_capacity(text.len());
    let mut seen = BTreeSet::new();
    // The built-in chains that the open table has lines for.
    let mut declared = BTreeSet::new();
    // Set between a table's line and the first line behind its chains, where nvactl's go.
    let mut pending: Option<TableName> = None;
    for line in lines(text) {
        let read = reader.read(line)?;
        let behind_chains = matches!(read, Read::Rule(..) | Read::Commit);
        if let Some(table) = pending.take_if(|_| behind_chains)
            && let Some(chains) = own.tables.get(&table)
        {
            append_own(&mut out, chains, &declared);
        }
        match read {
            Read::Table(table) => {
                seen.insert(table);
                declared.clear();
                pending = Some(table);
            }
            Read::Chain(_, name, _) if name.is_own() => continue,
            Read::Chain(table, name, Some(policy)) => {
                declared.insert(name.clone());
                let wanted = own.chain(table, &name).and_then(|chain| chain.policy);
                if let Some(wanted) = wanted.filter(|wanted| *wanted != policy) {
                    push(&mut out, Line::Chain(&name, Some(wanted)));
                    continue;
                }
            }
            Read::Rule(table, chain, rule) => {
                let leads_to_own = rule.leads_to().is_some_and(ChainName::is_own);
                if chain.is_own() || (jumps_from(table, &chain) && leads_to_own) {
                    continue;
                }
            }
            Read::Chain(..) | Read::Commit | Read::Nothing | Read::Unshown(_) => {}
        }
        out.push_str(line);
        if !line.ends_with('\n') {
            out.push('\n');
        }
    }
    reader.finish()?;
    let mut missing = own.clone();
    missing.tables.retain(|table, _| !seen.contains(table));
    out.push_str(&missing.with_builtin_chains().to_string());
    Ok(out)
}

/// Returns the text without nvactl's lines.
///
/// # Errors
/// When the text is not what iptables-save prints.
pub fn without_own(text: &str) -> Result<String, ParseError> {
    splice(text, &Ruleset::default())
}

/// Chains must be declared before a rule leads to them, and the jumps must come first.
fn append_own(out: &mut String, chains: &Table, declared: &BTreeSet<ChainName>) {
    for (name, chain) in chains {
        if let Some(policy) = chain.policy.filter(|_| !declared.contains(name)) {
            push(out, Line::Chain(name, Some(policy)));
        }
    }
    for name in chains.keys().filter(|name| name.is_own()) {
        push(out, Line::Chain(name, None));
    }
    for (name, chain) in chains {
        for rule in &chain.rules {
            push(out, Line::Append(name, rule));
        }
    }
}

fn push(out: &mut String, line: Line<'_>) {
    out.push_str(&line.to_string());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diff;
    use crate::parse::parse;

    /// Whether the file loads is iptables-restore's to say.
    #[test]
    fn lines_that_cannot_be_read_stay_as_they_are() {
        let theirs = "-A FORWARD -m comment --comment \"one  \n\t-A FORWARD -j NVACTL-FORWARD\n two\" -j DROP\n\
                      \t-A   INPUT -i \"x  -j DROP \n-A FORWARD -i e\"x -j DROP\r\n";
        let own = |port: &str| {
            parse(&format!(
                "*filter\n:NVACTL-FORWARD - [0:0]\n-A FORWARD -j NVACTL-FORWARD\n\
                 -A NVACTL-FORWARD -p tcp -m tcp --dport {port} -j ACCEPT\nCOMMIT\n"
            ))
            .expect("it is readable")
        };
        let text = |own: &str, rules: &str| {
            format!("*filter\n{own}-A FORWARD -j LOG\n{theirs}{rules}COMMIT\n")
        };
        let chain = ":NVACTL-FORWARD - [0:0]\n-A FORWARD -j NVACTL-FORWARD\n";
        let rule = "-A NVACTL-FORWARD -p tcp -m tcp --dport 80 -j ACCEPT\n";
        let once = splice(&text("", ""), &own("80")).expect("it is readable");
        assert_eq!(once, text(&format!("{chain}{rule}"), ""));
        // In nvactl's own chain, and as its jump, they are nvactl's.
        let broken = "-A NVACTL-FORWARD -m comment --comment \"a\nb\" -j DROP\n-A NVACTL-FORWARD -i \"x -j DROP\n\
                      -A FORWARD -m comment --comment \"a\nb\" -j NVACTL-FORWARD\n";
        let again = splice(&text(chain, broken), &own("80")).expect("it is readable");
        assert_eq!(again, once);
        let ruleset = parse(&again).expect("it is readable");
        assert_eq!(diff::changes(&ruleset, &own("80")).report(), "");
    }
}

//! One chain, as `iptables -S CHAIN` lists it: rules in the spelling of iptables-save (measured, nft and
//! legacy 1.8.9), under a line that makes the chain.

use std::fmt::Write as _;

use super::{ParseError, parse};
use crate::ruleset::{Chain, ChainName, Ruleset, TableName};

/// Reads one listed chain. `known` has the chains that its rules may lead to: the list does not name
/// them, and by its spelling alone a jump is no different from a target.
///
/// # Errors
/// As [`parse`], and where the list is of another chain or of none.
pub fn parse_listed(
    listed: &str,
    table: TableName,
    name: &ChainName,
    known: &Ruleset,
) -> Result<Chain, ParseError> {
    let mut text = format!("*{table}\n");
    for chain in known
        .tables
        .get(&table)
        .into_iter()
        .flat_map(|known| known.keys())
    {
        if !chain.is_builtin() && chain != name {
            let _ = writeln!(text, ":{chain} -");
        }
    }
    let begun = text.lines().count();
    for line in listed.lines() {
        let _ = match line.split_once(' ') {
            Some(("-P", policy)) => writeln!(text, ":{policy}"),
            Some(("-N", chain)) => writeln!(text, ":{chain} -"),
            _ => writeln!(text, "{line}"),
        };
    }
    text.push_str("COMMIT\n");
    let mut ruleset = parse(&text).map_err(|error| ParseError {
        line: error.line.saturating_sub(begun),
        ..error
    })?;
    let chain = ruleset
        .tables
        .get_mut(&table)
        .and_then(|chains| chains.remove(name));
    chain.ok_or_else(|| ParseError {
        line: 1,
        text: listed.lines().next().unwrap_or_default().to_owned(),
        problem: super::ParseProblem::NotALine,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::Policy;

    #[test]
    fn a_listed_chain_is_read_as_it_is_saved() {
        let saved = "*filter\n:FORWARD DROP [0:0]\n:NVACTL-FORWARD - [0:0]\n:NVACTL-X - [0:0]\n\
                     -A FORWARD -j NVACTL-FORWARD\n-A NVACTL-FORWARD -p tcp -j NVACTL-X\n\
                     -A NVACTL-FORWARD -j REJECT --reject-with tcp-reset\nCOMMIT\n";
        let saved = parse(saved).expect("it is readable");
        for (name, listed) in [
            ("FORWARD", "-P FORWARD DROP\n-A FORWARD -j NVACTL-FORWARD\n"),
            (
                "NVACTL-FORWARD",
                "-N NVACTL-FORWARD\n-A NVACTL-FORWARD -p tcp -j NVACTL-X\n\
                 -A NVACTL-FORWARD -j REJECT --reject-with tcp-reset\n",
            ),
            ("NVACTL-X", "-N NVACTL-X\n"),
        ] {
            let name = ChainName::from(name);
            let chain = parse_listed(listed, TableName::Filter, &name, &saved);
            assert_eq!(chain.as_ref().ok(), saved.chain(TableName::Filter, &name));
        }
        assert_eq!(saved.forward_policy(), Policy::Drop);
    }

    #[test]
    fn what_is_no_list_of_the_chain_is_an_error() {
        let name = ChainName::from("NVACTL-X");
        for listed in ["", "-N NVACTL-Y\n", "Chain NVACTL-X (0 references)\n"] {
            let read = parse_listed(listed, TableName::Filter, &name, &Ruleset::default());
            assert!(read.is_err(), "{listed:?}");
        }
    }
}

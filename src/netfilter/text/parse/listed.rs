//! Reads one chain from `iptables -S CHAIN`: a line that makes the chain, then rules in the spelling of
//! iptables-save (measured, nft and legacy 1.8.9).

use super::{Growing, ParseError, lines};
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::ruleset::{Chain, Ruleset};

/// Reads one listed chain. `known` has the chains that its rules may lead to: the list does not name them, and
/// a jump is spelled like a target.
///
/// # Errors
/// As [`Growing::of_kernel`], and if the list is not that of the chain.
pub fn parse_listed(
    listed: &str,
    table: TableName,
    name: &ChainName,
    known: &Ruleset,
) -> Result<Chain, ParseError> {
    let mut growing = Growing::of_kernel();
    growing.read(&format!("*{table}"))?;
    let mut begun = 1;
    for chain in known
        .tables
        .get(&table)
        .into_iter()
        .flat_map(|known| known.keys())
    {
        if !chain.is_builtin() && chain != name {
            growing.read(&format!(":{chain} -"))?;
            begun += 1;
        }
    }
    let of_list = |error: ParseError| ParseError {
        line: error.line.saturating_sub(begun),
        ..error
    };
    let mut lines = lines(listed);
    // The first line makes the chain, the others are its rules.
    if let Some(first) = lines.next() {
        let declared = match first.split_once(' ') {
            Some(("-P", policy)) => format!(":{policy}"),
            Some(("-N", chain)) => format!(":{} -", chain.trim_end_matches('\n')),
            _ => first.to_owned(),
        };
        growing.read(&declared).map_err(of_list)?;
    }
    for line in lines {
        growing.read(line).map_err(of_list)?;
    }
    growing.read("COMMIT").map_err(of_list)?;
    let mut ruleset = growing.finish().map_err(of_list)?.ruleset;
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
    use crate::netfilter::names::Policy;
    use crate::netfilter::text::parse::parse;

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
    fn a_listed_rule_may_hold_line_breaks() {
        let text = "-A FORWARD -m comment --comment \"one\n-P FORWARD ACCEPT\n-N X\n\" -j DROP\n\
                    -A FORWARD -i e\nx -j DROP\n-A FORWARD -j LOG\n";
        let read = |text: &str| {
            let known = Ruleset::default();
            parse_listed(text, TableName::Filter, &ChainName::Forward, &known)
        };
        let chain = read(&format!("-P FORWARD DROP\n{text}")).expect("it is readable");
        assert_eq!(chain.policy, Some(Policy::Drop));
        let printed: Vec<String> = chain.rules.iter().map(ToString::to_string).collect();
        assert_eq!(
            printed,
            [
                "-m comment --comment \"one\n-P FORWARD ACCEPT\n-N X\n\" -j DROP",
                "-i e\nx -j DROP",
                "-j LOG"
            ]
        );
        let error = read("-P FORWARD DROP\nnone\n").expect_err("it is no rule");
        assert_eq!(error.line, 2);
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

//! Hooks of nvactl that somebody has flushed: no packet reaches their rules any longer.

use crate::netfilter::names::ChainName;
use crate::netfilter::ruleset::Ruleset;
use crate::plan::Hook;

use super::{ChainChange, Changes, own_jumps};

/// Returns the hooks whose rules packets reach in `want` and in `live` not: the jump is missing, or nvactl's chain is
/// missing or empty. A rule that is missing in a chain with others is drift, and does not count.
#[must_use]
pub fn flushed(want: &Ruleset, live: &Ruleset) -> Vec<Hook> {
    let hooks = Hook::ALL.into_iter();
    hooks
        .filter(|hook| is_reached(want, *hook) && !is_reached(live, *hook))
        .collect()
}

/// Returns whether packets reach rules of nvactl in any hook.
#[must_use]
pub fn reaches_any(live: &Ruleset) -> bool {
    Hook::ALL.into_iter().any(|hook| is_reached(live, hook))
}

/// Returns whether a change only brings back what was flushed: it makes chains, fills empty ones, and inserts jumps where
/// there are none. Any other change would undo one that somebody has made to the rules, such as a refusal in a chain or
/// before a jump.
#[must_use]
pub fn only_fills(changes: &Changes<'_>) -> bool {
    let fills = |chain: &ChainChange<'_>| {
        let removes_none = chain.removed().iter().all(|(_, rules)| rules.is_empty());
        let is_deleted = matches!(chain, ChainChange::Delete(..));
        removes_none && (is_deleted || chain.refilled().is_some())
    };
    let mut tables = changes.tables.iter();
    tables.all(|table| {
        table.foreign.is_empty()
            && table.jumps.iter().all(|jump| jump.removed.is_empty())
            && table.chains.iter().all(fills)
    })
}

fn is_reached(rules: &Ruleset, hook: Hook) -> bool {
    let table = hook.table();
    let own = ChainName::from(hook.own());
    let filled = rules.chain(table, &own);
    let filled = filled.is_some_and(|chain| !chain.rules.is_empty());
    let builtin = rules.chain(table, &hook.builtin());
    let mut jumps = builtin.into_iter().flat_map(own_jumps);
    filled && jumps.any(|jump| jump.leads_to() == Some(&own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netfilter::text::parse::parse;

    const WANT: &str = "*filter
:FORWARD DROP [0:0]
:NVACTL-FORWARD - [0:0]
-A FORWARD -j NVACTL-FORWARD
-A NVACTL-FORWARD -p tcp -j ACCEPT
-A NVACTL-FORWARD -p udp -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:NVACTL-PREROUTING - [0:0]
-A PREROUTING -j NVACTL-PREROUTING
-A NVACTL-PREROUTING -p tcp -j ACCEPT
COMMIT
";

    #[test]
    fn only_what_is_flushed_is_filled() {
        let want = parse(WANT).expect("it is readable");
        let want = crate::diff::own(&want);
        let jump = "-A FORWARD -j NVACTL-FORWARD\n";
        let rules = "-A NVACTL-FORWARD -p tcp -j ACCEPT\n-A NVACTL-FORWARD -p udp -j ACCEPT\n";
        let refusal = "-A NVACTL-FORWARD -s 192.0.2.1/32 -j DROP\n";
        let before_jump = format!("-A FORWARD -s 192.0.2.1/32 -j DROP\n{jump}");
        let no_nat = WANT.split("*nat").next().expect("it has tables").to_owned();
        for (live, is) in [
            (String::new(), true),
            (no_nat.clone(), true),
            (WANT.replace(rules, ""), true),
            (WANT.replace(jump, ""), true),
            // Another rule in the chain, one less, one before the jump, and a chain that is not of these rules.
            (WANT.replace(rules, refusal), false),
            (no_nat.replace(rules, &format!("{refusal}{rules}")), false),
            (
                no_nat.replace("-A NVACTL-FORWARD -p udp -j ACCEPT\n", ""),
                false,
            ),
            (no_nat.replace(jump, &before_jump), false),
            (
                no_nat.replace("COMMIT", ":NVACTL-X - [0:0]\n-A NVACTL-X -j DROP\nCOMMIT"),
                false,
            ),
        ] {
            let have = parse(&live).expect("it is readable");
            assert_eq!(
                only_fills(&crate::diff::changes(&have, &want)),
                is,
                "{live}"
            );
        }
    }

    #[test]
    fn a_hook_without_its_jump_or_its_rules_is_flushed() {
        let want = parse(WANT).expect("it is readable");
        let own = "-A NVACTL-FORWARD -p tcp -j ACCEPT\n";
        let all = [own, "-A NVACTL-FORWARD -p udp -j ACCEPT\n"].concat();
        let jump = "-A FORWARD -j NVACTL-FORWARD\n";
        let chain = ":NVACTL-FORWARD - [0:0]\n";
        for (gone, is) in [
            (vec![], vec![]),
            // One rule of several, or the policy alone.
            (vec![own], vec![]),
            (vec![":FORWARD DROP [0:0]\n"], vec![]),
            (vec![jump], vec![Hook::Passing]),
            (vec![all.as_str()], vec![Hook::Passing]),
            (vec![all.as_str(), jump, chain], vec![Hook::Passing]),
            (
                vec![jump, "-A PREROUTING -j NVACTL-PREROUTING\n"],
                vec![Hook::Arriving, Hook::Passing],
            ),
        ] {
            let left = gone.iter().fold(WANT.to_owned(), |text, line| {
                assert!(text.contains(line), "{line}");
                text.replacen(line, "", 1)
            });
            let live = parse(&left).expect("it is readable");
            assert_eq!(flushed(&want, &live), is, "{gone:?}");
            assert_eq!(reaches_any(&live), is.len() < 2, "{gone:?}");
        }
        assert_eq!(flushed(&want, &Ruleset::default()).len(), 2);
        // Hooks that the rules do not use are not missed.
        assert_eq!(flushed(&Ruleset::default(), &want), []);
    }
}

//! The rule that lets through a client that a forward or an outbound entry keeps out.

use crate::net::Family;
use crate::netfilter::names::ChainName;
use crate::twin::TwinError;
use crate::twin::battery::Ask;
use crate::twin::cause::{
    By, CauseError, Conversation, DecidingRule, Holder, Stage, WatchReport, by_legacy,
};
use crate::twin::cure;
use crate::twin::judge::verdict;
use crate::twin::repeat::{conversation, is_as_wanted, repeat};
use crate::twin::search::CauseSearch;
use crate::twin::verdict::{Blame, Cure, Verdict};

/// Names the rule that lets a client in: the client is kept out once that rule alone is removed. If no single
/// rule does that, it names the last that accepts the packets before nvactl's own chains.
pub fn let_in(
    search: &mut CauseSearch<'_>,
    ask: &Ask<'_>,
    found: &mut Verdict,
) -> Result<(), TwinError> {
    let (outcome, seen, _) = repeat(search.twin, &ask.question)?;
    search.twin.enter()?;
    if !matches!(verdict(search.twin, ask, &outcome), Verdict::LetIn(_)) {
        *found = Verdict::Fickle(None);
        return Ok(());
    }
    let accepts = accepts(&seen, &conversation(search.twin, ask))?;
    let mut blame = Blame {
        by: accepts.last().cloned().map(By::Rule),
        cure: None,
        is_examined: true,
    };
    search.twin.change();
    for (n, decided) in accepts.iter().enumerate() {
        if n > 0 {
            if !search.has_time() {
                break;
            }
            search.twin.renew()?;
            search.twin.change();
        }
        if cure::remove(decided)? && is_as_wanted(search.twin, ask)? {
            blame.by = Some(By::Rule(decided.clone()));
            blame.cure = blame.by.clone().map(Cure::Without);
            break;
        }
    }
    if let Some(change) = search.change.filter(|_| search.has_time()) {
        search.twin.renew()?;
        let is_loaded = search.twin.load(change)?;
        search.twin.change();
        if is_loaded && is_as_wanted(search.twin, ask)? {
            blame.cure = Some(Cure::Apply);
        }
    }
    *found = Verdict::LetIn(blame);
    Ok(())
}

/// The most rules that are tried as the one that lets a client in.
const ACCEPTS: usize = 6;

/// Returns the rules of others that accepted a client's packets in the forward hook, before nvactl's own chains
/// saw them.
fn accepts(
    seen: &WatchReport,
    conversation: &Conversation,
) -> Result<Vec<DecidingRule>, CauseError> {
    let mut found = Vec::new();
    let traced = seen
        .matched(conversation)
        .filter(|step| step.stage == Stage::Forward && step.accepts());
    for step in traced {
        if let Some(By::Rule(decided)) = seen.traced(step)? {
            if is_own(&decided) {
                break;
            }
            if !found.contains(&decided) {
                found.push(decided);
            }
        }
    }
    let family = Family::of(conversation.client);
    let legacy = seen.legacy.iter().filter(|counted| {
        counted.family == family && counted.stage == Stage::Forward && counted.target == "ACCEPT"
    });
    let legacy = legacy.filter_map(|counted| match by_legacy(counted) {
        By::Rule(decided) => Some(decided),
        _ => None,
    });
    found.extend(legacy.take_while(|decided| !is_own(decided)));
    found.truncate(ACCEPTS);
    Ok(found)
}

fn is_own(decided: &DecidingRule) -> bool {
    match &decided.holder {
        Holder::Iptables { chain, .. } => chain.is_own(),
        Holder::Nft(chain) => ChainName::from(chain.name.as_str()).is_own(),
    }
}

//! The rule that lets a client in whom a forward keeps out.

use std::time::Instant;

use super::has_time;
use super::repeat::{conversation, is_as_wanted, repeat};
use crate::net::Family;
use crate::netfilter::names::ChainName;
use crate::twin::battery::Ask;
use crate::twin::cause::{By, CauseError, Conversation, Decided, Holder, Seen, Stage, by_legacy};
use crate::twin::cure::{self, Change, Cure};
use crate::twin::judge::{Blame, Verdict, verdict};
use crate::twin::{Twin, TwinError};

/// Names the rule that lets a client in: without it alone the client is kept out. Where several do, it is the
/// last that accepts the packets before nvactl's own chains.
pub fn let_in(
    twin: &mut Twin,
    ask: &Ask<'_>,
    found: &mut Verdict,
    change: Option<&Change>,
    deadline: Instant,
) -> Result<(), TwinError> {
    let (outcome, seen, _) = repeat(twin, &ask.question)?;
    twin.enter()?;
    if !matches!(verdict(twin, ask, &outcome), Verdict::LetIn(_)) {
        *found = Verdict::Fickle(None);
        return Ok(());
    }
    let accepts = accepts(&seen, &conversation(ask))?;
    let mut blame = Blame {
        by: accepts.last().cloned().map(By::Rule),
        cure: None,
        is_examined: true,
    };
    twin.change();
    for (n, decided) in accepts.iter().enumerate() {
        if n > 0 {
            if !has_time(twin, deadline) {
                break;
            }
            twin.renew()?;
            twin.change();
        }
        if cure::remove(decided)? && is_as_wanted(twin, ask)? {
            blame.by = Some(By::Rule(decided.clone()));
            blame.cure = blame.by.clone().map(Cure::Without);
            break;
        }
    }
    if let Some(change) = change.filter(|_| has_time(twin, deadline)) {
        twin.renew()?;
        let is_loaded = change.load(twin)?;
        twin.change();
        if is_loaded && is_as_wanted(twin, ask)? {
            blame.cure = Some(Cure::Apply);
        }
    }
    *found = Verdict::LetIn(blame);
    Ok(())
}

/// At most so many rules are tried as the one that lets a client in.
const ACCEPTS: usize = 6;

/// Returns the rules of others that accepted a client's packets where they are forwarded, before nvactl's own
/// chains saw them.
fn accepts(seen: &Seen, conversation: &Conversation) -> Result<Vec<Decided>, CauseError> {
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

fn is_own(decided: &Decided) -> bool {
    match &decided.holder {
        Holder::Iptables { chain, .. } => chain.is_own(),
        Holder::Nft(chain) => ChainName::from(chain.name.as_str()).is_own(),
    }
}

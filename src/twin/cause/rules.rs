//! The text of a rule that the kernel names by its handle.

use super::error::CauseError;
use super::message::{NftChain, NftVerdict};
use super::trace::Stage;
use crate::host::iptables::{Iptables, nft_family};
use crate::net::Family;
use crate::netfilter::backend::Backend;
use crate::netfilter::names::{ChainName, Policy, TableName};
use crate::netfilter::programs;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::text::line::Line;
use crate::twin::rules::{ListedChain, SHADOW, list_chain};

/// A rule or a policy that decided about a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecidingRule {
    pub stage: Stage,
    pub holder: Holder,
    /// The rule's handle in nft.
    pub handle: Option<u64>,
    /// The rule's place in its chain of the twin, counted from 1, if it is known.
    pub place: Option<usize>,
    /// The rule's place in the machine's chain, counted from 1, if it is known.
    pub live_place: Option<usize>,
    /// The rule without counters: as iptables-save prints a rule of iptables, as nft prints any other.
    pub text: String,
    /// The program that writes the chain or the table.
    pub owner: Option<&'static str>,
}

/// The chain of a rule, by the program that made the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    Iptables {
        backend: Backend,
        family: Family,
        table: TableName,
        chain: ChainName,
    },
    Nft(NftChain),
}

impl Holder {
    /// Returns the names of the family, the table and the chain in nft.
    #[must_use]
    pub fn in_nft(&self) -> (&str, &str, &str) {
        match self {
            Holder::Iptables {
                family,
                table,
                chain,
                ..
            } => (nft_family(*family), table.as_str(), chain.as_str()),
            Holder::Nft(chain) => (chain.family, &chain.table, &chain.name),
        }
    }
}

/// Describes a rule of the calling thread's namespace.
pub fn rule(stage: Stage, chain: &NftChain, handle: u64) -> Result<DecidingRule, CauseError> {
    let listed = list_chain(chain.family, &chain.table, &chain.name)?;
    let mut rules = listed.rules.iter();
    let place = rules.position(|rule| rule.handle == Some(handle));
    let native = place.map(|place| listed.rules[place].without_counts());
    let saved = saved(chain, listed.rules.len());
    let live_place = place.and_then(|place| live_place(&listed, &saved, place));
    let of_iptables = match (&native, place, saved) {
        (Some(native), Some(place), PrintedRules::Rules(holder, mut texts))
            if is_of_iptables(native) =>
        {
            Some((holder, texts.swap_remove(place)))
        }
        _ => None,
    };
    let owner = programs::owner_of(&chain.table, &chain.name);
    Ok(match of_iptables {
        Some((holder, text)) => DecidingRule {
            stage,
            holder,
            handle: Some(handle),
            place: place.map(|place| place + 1),
            live_place,
            text,
            owner,
        },
        None => DecidingRule {
            stage,
            holder: Holder::Nft(chain.clone()),
            handle: Some(handle),
            place: place.map(|place| place + 1),
            live_place,
            text: native.unwrap_or_else(|| format!("handle {handle}")),
            owner,
        },
    })
}

impl DecidingRule {
    /// Returns whether the rule sends an answer. iptables prints a target, nft a word.
    #[must_use]
    pub fn rejects(&self) -> bool {
        self.text.contains("-j REJECT") || self.text.split(' ').any(|word| word == "reject")
    }

    /// Returns whether the rule is in a chain of nvactl.
    #[must_use]
    pub fn is_nvactls(&self) -> bool {
        matches!(&self.holder, Holder::Iptables { chain, .. } if chain.is_own())
    }
}

/// Describes a policy with this verdict.
#[must_use]
pub fn policy(stage: Stage, chain: &NftChain, verdict: &NftVerdict) -> DecidingRule {
    let policy = match verdict {
        NftVerdict::Accept => Policy::Accept,
        _ => Policy::Drop,
    };
    let holder = iptables(chain).filter(|_| ChainName::from(chain.name.as_str()).is_builtin());
    let text = match &holder {
        Some(Holder::Iptables { chain, .. }) => Line::SetPolicy(chain, policy).to_string(),
        _ => format!("policy {}", policy.as_str().to_ascii_lowercase()),
    };
    DecidingRule {
        stage,
        holder: holder.unwrap_or_else(|| Holder::Nft(chain.clone())),
        handle: None,
        place: None,
        live_place: None,
        text,
        owner: programs::owner_of(&chain.table, &chain.name),
    }
}

/// Returns whether a rule in a table of iptables may have been made by iptables. Such a rule has a counter and
/// matches no named set of nft. iptables prints other rules wrongly, or fails.
fn is_of_iptables(native: &str) -> bool {
    let mut words = native.split(' ');
    let named_set = |word: &str| word.starts_with('@') && !word.contains(',');
    words.any(|word| word == "counter") && !native.split(' ').any(named_set)
}

/// Returns the chain as iptables names it, if its table is one of iptables'.
fn iptables(chain: &NftChain) -> Option<Holder> {
    let of_nft = |family: &Family| nft_family(*family) == chain.family;
    Some(Holder::Iptables {
        backend: Backend::Nft,
        family: Family::ALL.into_iter().find(of_nft)?,
        table: chain.table.parse().ok()?,
        chain: ChainName::from(chain.name.as_str()),
    })
}

/// The rules of a chain as iptables prints them.
enum PrintedRules {
    /// The chain is in no table of iptables.
    NotOfIptables,
    /// iptables prints more or fewer rules than nft.
    Others,
    /// As many rules as nft prints, in the same order.
    Rules(Holder, Vec<String>),
}

fn saved(chain: &NftChain, rules: usize) -> PrintedRules {
    let Some(holder) = iptables(chain) else {
        return PrintedRules::NotOfIptables;
    };
    let Holder::Iptables {
        backend,
        family,
        table,
        chain,
    } = &holder
    else {
        return PrintedRules::NotOfIptables;
    };
    let iptables = Iptables {
        backend: *backend,
        lock_wait: 5,
    };
    let read = iptables.read_chains(*family, &[(*table, chain)], &Ruleset::default());
    // iptables cannot read some rules of nft.
    let Ok(read) = read else {
        return PrintedRules::Others;
    };
    let saved = read.chain(*table, chain);
    let saved = saved.map_or(&[][..], |chain| &chain.rules);
    if saved.len() != rules {
        return PrintedRules::Others;
    }
    let texts = saved.iter();
    let texts = texts
        .map(|rule| Line::Append(chain, rule).to_string())
        .collect();
    PrintedRules::Rules(holder, texts)
}

/// Returns the place of a rule in the machine's chain, counted from 1: the twin has rules before some that only count.
/// nft does not print the comments of iptables.
fn live_place(listed: &ListedChain, saved: &PrintedRules, place: usize) -> Option<usize> {
    let is_shadow = |text: &str| text.contains(SHADOW);
    let is_before = |at: usize| {
        is_shadow(&listed.rules[at].text)
            || matches!(saved, PrintedRules::Rules(_, texts) if is_shadow(&texts[at]))
    };
    if matches!(saved, PrintedRules::Others) {
        return None;
    }
    Some((0..=place).filter(|at| !is_before(*at)).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_without_a_counter_is_not_one_of_iptables() {
        for (text, of_iptables) in [
            ("meta l4proto tcp counter drop", true),
            ("ip saddr 10.0.0.1 drop", false),
            ("ip saddr @s counter drop", false),
            ("@th,0,16 0x1388 counter drop", true),
        ] {
            assert_eq!(is_of_iptables(text), of_iptables, "{text}");
        }
    }
}

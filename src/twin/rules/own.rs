//! The tables of iptables-nft as nft lists them, without nvactl's own chains: no other program writes to these.

use std::collections::BTreeMap;

use super::listing::{self, ListedChain, ListedTable};
use super::programs::{FilterError, begin_nft, listed};
use crate::netfilter::names::{ChainName, TableName};

/// The most lines of iptables with which whole tables are listed. Each chain costs the start of an nft, and each of
/// nvactl's own rules the time to list it: 1.7 s at 10,000 forwards.
const WHOLE: usize = 1000;

/// The most chains that are listed one by one. More of them are listed with their whole table.
const ONE_BY_ONE: usize = 24;

/// Returns whether nvactl owns a chain.
#[must_use]
pub fn is_nvactls(chain: &str) -> bool {
    chain.starts_with("NVACTL-")
}

/// Returns whether a table belongs to iptables-nft: it has the name of a table of iptables, and a chain that iptables
/// has bound to a hook.
#[must_use]
pub fn is_of_iptables(table: &ListedTable) -> bool {
    let is_built_in = |chain: &ListedChain| chain.is_base() && is_builtin(&chain.name);
    is_named_alike(table) && table.chains.iter().any(is_built_in)
}

/// Returns whether a table has a family and a name that iptables uses.
#[must_use]
pub fn is_named_alike(table: &ListedTable) -> bool {
    matches!(table.family.as_str(), "ip" | "ip6") && table.name.parse::<TableName>().is_ok()
}

#[must_use]
pub fn is_builtin(chain: &str) -> bool {
    ChainName::from(chain).is_builtin()
}

/// Lists all chains. nft does not read their rules for that. Returns `None` without nft.
pub fn chains() -> Result<Option<Vec<ListedTable>>, FilterError> {
    let Some(running) = begin_nft(&["list", "chains"])? else {
        return Ok(None);
    };
    Ok(Some(merged(listing::tables(&listed(running)?))))
}

/// Lists the tables of iptables-nft among `chains`, which are about `lines` lines of iptables. `how` is `-s`, or `-sa`
/// for the rules' handles.
pub fn list(
    chains: &[ListedTable],
    how: &str,
    lines: usize,
) -> Result<Vec<ListedTable>, FilterError> {
    let mut tables = Vec::new();
    for table in chains.iter().filter(|table| is_of_iptables(table)) {
        let mut listed = if lines <= WHOLE {
            list_parts(table, how, &[], true)?
        } else {
            list_one(table, how)?
        };
        listed.chains.retain(|chain| !is_nvactls(&chain.name));
        tables.push(listed);
    }
    Ok(tables)
}

/// Lists a chain of iptables or nft, with the handles of its rules. If nft cannot read the chain's name, its whole
/// table is listed. The chain is empty if nft lists none of that name, or is not installed.
pub fn list_chain(family: &str, table: &str, chain: &str) -> Result<ListedChain, FilterError> {
    let text = chain_text(family, table, chain)?.unwrap_or_default();
    let mut chains = listing::tables(&text)
        .into_iter()
        .flat_map(|table| table.chains);
    Ok(chains.find(|one| one.name == chain).unwrap_or_default())
}

fn chain_text(family: &str, table: &str, chain: &str) -> Result<Option<String>, FilterError> {
    if is_plain(chain) {
        let Some(running) = begin_nft(&["-a", "list", "chain", family, table, chain])? else {
            return Ok(None);
        };
        if let Ok(text) = listed(running) {
            return Ok(Some(text));
        }
    }
    let running = begin_nft(&["-a", "list", "table", family, table])?;
    running.map(listed).transpose()
}

/// Returns whether nft can read a name. iptables allows nearly any characters.
#[must_use]
pub fn is_plain(name: &str) -> bool {
    let is_begin = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(is_begin)
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

fn list_one(table: &ListedTable, how: &str) -> Result<ListedTable, FilterError> {
    let (own, others): (Vec<_>, Vec<_>) = table
        .chains
        .iter()
        .partition(|chain| is_nvactls(&chain.name));
    let is_whole = own.is_empty()
        || others.len() > ONE_BY_ONE
        || others.iter().any(|chain| !is_plain(&chain.name));
    match list_parts(table, how, &others, is_whole) {
        // nft reads some names as keywords, such as a chain `tcp` of iptables.
        Err(FilterError::Failed { .. }) if !is_whole => list_parts(table, how, &others, true),
        listed => listed,
    }
}

fn list_parts(
    table: &ListedTable,
    how: &str,
    others: &[&ListedChain],
    is_whole: bool,
) -> Result<ListedTable, FilterError> {
    let (family, name) = (table.family.as_str(), table.name.as_str());
    let mut started = Vec::new();
    if is_whole {
        started.push(begin_nft(&[how, "list", "table", family, name])?);
    } else {
        for chain in others {
            started.push(begin_nft(&[
                how,
                "list",
                "chain",
                family,
                name,
                &chain.name,
            ])?);
        }
        for kind in ["sets", "maps"] {
            started.push(begin_nft(&[how, "list", kind, family])?);
        }
    }
    let mut parts = Vec::new();
    for running in started.into_iter().flatten() {
        parts.extend(listing::tables(&listed(running)?));
    }
    if !is_whole {
        // nft reads all rules to list objects: 1.5 s at 10,000 forwards (timed once by hand, nft 1.0.6).
        let lists = ["counter", "quota", "limit"].map(|kind| (kind, format!("{kind}s")));
        for (kind, list) in lists {
            if parts.iter().any(|part| names_object(part, kind))
                && let Some(running) = begin_nft(&[how, "list", &list, family])?
            {
                parts.extend(listing::tables(&listed(running)?));
            }
        }
    }
    parts.retain(|part| part.family == family && part.name == name);
    let all = merged(parts).pop();
    Ok(all.unwrap_or_else(|| ListedTable {
        family: family.to_owned(),
        name: name.to_owned(),
        ..ListedTable::default()
    }))
}

/// Returns whether a rule of a table uses a named object.
fn names_object(table: &ListedTable, kind: &str) -> bool {
    let name = format!("{kind} name ");
    let mut rules = table.chains.iter().flat_map(|chain| &chain.rules);
    rules.any(|rule| rule.text.contains(&name))
}

/// Joins the parts of each table, in the order in which the tables appear.
fn merged(parts: Vec<ListedTable>) -> Vec<ListedTable> {
    let mut places: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut tables: Vec<ListedTable> = Vec::new();
    for part in parts {
        let key = (part.family.clone(), part.name.clone());
        match places.get(&key) {
            Some(at) => {
                let table = &mut tables[*at];
                table.heads.extend(part.heads);
                table.chains.extend(part.chains);
                table.blocks.extend(part.blocks);
            }
            None => {
                places.insert(key, tables.len());
                tables.push(part);
            }
        }
    }
    tables
}

//! Reads the machine's packet filter and changes nothing: iptables-legacy lists only the tables that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::edit::FilterFacts;
use super::filter::{LoadOrder, PacketFilter, Text};
use super::listing::{self, ListedTable};
use super::own;
use super::place::{LeftOut, Reason, RulePlace};
use super::programs::{FilterError, begin, begin_nft, iptables, listed};
use super::queues::Queues;
use super::saved;
use super::sets::SpacedSets;
use super::statement;
use crate::host::child::Output;
use crate::host::iptables::nft_family;
use crate::net::Family;
use crate::net::per_family::Families;
use crate::netfilter::backend::Backend;
use crate::netfilter::text::parse;
use crate::netfilter::token::words;

/// The queues with a listener, in the calling thread's namespace.
const QUEUES: &str = "/proc/thread-self/net/netfilter/nfnetlink_queue";
/// The switch exists only in the first namespace.
const LOGS: &str = "/proc/sys/net/netfilter/nf_log_all_netns";

/// The rules of a longer chain are not read one by one.
const ONE_BY_ONE: usize = 200;

/// The comment of a rule that keeps the place of one that iptables cannot print.
const UNPRINTED: &str = "-m comment --comment nvactl-native";

/// The pauses before the filter is read again.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(200)];

/// Reads the filter, as far as packets of some families meet it. Reads all of it again if a table cannot be read: a
/// program may have removed the table meanwhile, or may be loading it anew. Only a new list of the tables tells
/// whether the table is still there.
pub fn read(families: Families) -> Result<PacketFilter, FilterError> {
    let mut tried = read_once(families);
    for pause in PAUSES {
        let is_partial = match &tried {
            Ok(filter) => !filter.unread.is_empty(),
            Err(error) => matches!(error, FilterError::Failed { .. }),
        };
        if !is_partial {
            break;
        }
        thread::sleep(pause);
        tried = read_once(families);
    }
    tried
}

fn read_once(families: Families) -> Result<PacketFilter, FilterError> {
    let families: Vec<Family> = families
        .as_slice()
        .iter()
        .copied()
        .filter(|family| *family == Family::V4 || Path::new("/proc/sys/net/ipv6").exists())
        .collect();
    let mut saving = Vec::new();
    for &family in &families {
        let before = saving.len();
        for backend in [Backend::Nft, Backend::Legacy, Backend::Auto] {
            // The plain name leads to one of the other two if they exist.
            if backend == Backend::Auto && saving.len() > before {
                continue;
            }
            let program = backend.program(family, "iptables-save");
            if let Some(running) = begin(&program, &[])? {
                saving.push((backend, family, program, running));
            }
        }
    }
    let sets = begin("ipset", &["save"])?;
    let chains = own::chains()?;
    let saved = saving
        .into_iter()
        .map(|(backend, family, program, running)| {
            Ok((backend, family, program, running.finish()?))
        })
        .collect::<Result<Vec<_>, FilterError>>()?;
    let lines = saved.iter().map(|(.., output)| lines(&output.stdout)).sum();
    let mut own = own::list(chains.as_deref().unwrap_or_default(), "-s", lines)?;
    own.retain(|table| {
        families
            .iter()
            .any(|family| nft_family(*family) == table.family)
    });
    let (native, unread) = native(chains.as_deref().unwrap_or_default())?;
    let mut texts = Vec::new();
    for (backend, family, program, output) in saved {
        let all = chains.as_deref().unwrap_or_default();
        let bytes = saved_text(backend, family, &program, output, all, &own)?;
        if bytes.windows(2).any(|pair| pair == b"\n*") || bytes.starts_with(b"*") {
            texts.push(Text {
                backend,
                family,
                bytes,
            });
        }
    }
    let sets = match sets {
        Some(running) => running.finish()?.stdout,
        None => Vec::new(),
    };
    let spaced_sets = SpacedSets::read(&parse::text_of(&sets));
    let written = written(&texts, &spaced_sets, own.iter().chain(&native));
    let queues = fs::read_to_string(QUEUES).unwrap_or_default();
    Ok(PacketFilter {
        texts,
        sets,
        own,
        native,
        unread,
        has_nft: chains.is_some(),
        facts: FilterFacts {
            queues: Queues::read(&queues),
            logs: writes_logs(),
            spaced_sets,
            written,
        },
        order: LoadOrder::default(),
    })
}

/// Returns whether rules of a namespace write to the machine's log.
pub fn writes_logs() -> bool {
    fs::read_to_string(LOGS).is_ok_and(|value| value.trim() == "1")
}

/// Lists the tables that are not iptables', and names those that cannot be read. A table without chains does nothing.
fn native(chains: &[ListedTable]) -> Result<(Vec<ListedTable>, Vec<LeftOut>), FilterError> {
    let native = chains.iter().filter(|table| !own::is_of_iptables(table));
    let (mut tables, mut unlisted) = (Vec::new(), Vec::new());
    for table in native {
        let args = ["-s", "list", "table", &table.family, &table.name];
        let Some(running) = begin_nft(&args)? else {
            break;
        };
        match listed(running) {
            Ok(text) => tables.extend(listing::tables(&text)),
            Err(FilterError::Failed { words, .. }) => unlisted.push(unread(table, &words)),
            Err(error) => return Err(error),
        }
    }
    Ok((tables, unlisted))
}

/// Returns the ipsets and nft sets to which rules add elements.
fn written<'t>(
    texts: &[Text],
    spaced: &SpacedSets,
    tables: impl Iterator<Item = &'t ListedTable>,
) -> BTreeSet<String> {
    let mut written = BTreeSet::new();
    for text in texts {
        let text = parse::text_of(&text.bytes);
        for line in text.lines().filter(|line| line.contains("-j SET ")) {
            let line = spaced.quoted(line);
            let words: Vec<&str> = words(&line).collect();
            let pairs = words.windows(2);
            let sets = pairs.filter(|pair| matches!(pair[0], "--add-set" | "--del-set"));
            written.extend(sets.map(|pair| pair[1].trim_matches('"').to_owned()));
        }
    }
    let rules = tables
        .flat_map(|table| &table.chains)
        .flat_map(|chain| &chain.rules);
    written.extend(
        rules
            .flat_map(|rule| statement::writes(&rule.text))
            .map(str::to_owned),
    );
    written
}

/// Names a table that exists and could not be read.
fn unread(table: &ListedTable, words: &str) -> LeftOut {
    LeftOut {
        place: RulePlace::Nft {
            family: table.family.clone(),
            table: table.name.clone(),
            chain: String::new(),
        },
        text: format!("table {}", table.named()),
        why: Reason::Unread(words.trim().to_owned()),
    }
}

fn lines(text: &[u8]) -> usize {
    text.split(|byte| *byte == b'\n').count()
}

fn saved_text(
    backend: Backend,
    family: Family,
    program: &str,
    output: Output,
    chains: &[ListedTable],
    own: &[ListedTable],
) -> Result<Vec<u8>, FilterError> {
    if is_whole(&output.stdout) && output.status.success() {
        return Ok(output.stdout);
    }
    let words = &output.stderr;
    // A kernel without nf_tables holds no rules of iptables-nft.
    let is_absent = words.contains("Could not fetch rule set generation id")
        && !words.contains("Permission denied");
    if is_absent {
        return Ok(Vec::new());
    }
    if backend != Backend::Nft || chains.is_empty() {
        return Err(FilterError::failed(program, words));
    }
    let tables = chains
        .iter()
        .filter(|table| own::is_of_iptables(table) && table.family == nft_family(family));
    let mut text = String::new();
    for table in tables {
        let listed = own
            .iter()
            .find(|one| one.family == table.family && one.name == table.name);
        text.push_str(&table_text(family, table, listed.unwrap_or(table))?);
    }
    Ok(text.into_bytes())
}

/// Returns whether a text is complete. iptables-nft-save 1.8.9 leaves out a table that it calls incompatible, and
/// stops at a rule that it cannot read (held by the lab's
/// `rules_of_nft_in_iptables_tables_are_the_machine_s`).
fn is_whole(text: &[u8]) -> bool {
    let text = parse::text_of(text);
    parse::lines(&text).all(|line| parse::unshown(line).is_none())
        && saved::tables(&text).iter().all(|table| table.whole)
}

/// Reads one table as far as iptables can print it: chain by chain, and rule by rule in a chain that it cannot print.
fn table_text(
    family: Family,
    table: &ListedTable,
    listed: &ListedTable,
) -> Result<String, FilterError> {
    let save = Backend::Nft.program(family, "iptables-save");
    if let Some(running) = begin(&save, &["-t", &table.name])? {
        let output = running.finish()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let is_there = !saved::tables(&text).is_empty();
        if output.status.success() && is_there && is_whole(&output.stdout) {
            return Ok(text.into_owned());
        }
    }
    let (mut heads, mut rules) = (String::new(), String::new());
    for chain in &table.chains {
        if chain.is_base() && !own::is_builtin(&chain.name) {
            continue;
        }
        let is_dropping = chain.heads.iter().any(|head| head.contains("policy drop"));
        let policy = match (chain.is_base(), is_dropping) {
            (false, _) => "-",
            (true, true) => "DROP",
            (true, false) => "ACCEPT",
        };
        heads.push_str(&format!(":{} {policy} [0:0]\n", chain.name));
        let args = ["-t", &table.name, "-S", &chain.name];
        let output = iptables(Backend::Nft, family, &args)?;
        if output.status.success() {
            append(&mut rules, &output.stdout);
            continue;
        }
        let count = listed
            .chain(&chain.name)
            .map_or(0, |chain| chain.rules.len());
        for number in 1..=count {
            let number = number.to_string();
            let output = match count {
                ..=ONE_BY_ONE => Some(iptables(
                    Backend::Nft,
                    family,
                    &[&args[..], &[&number]].concat(),
                )?),
                _ => None,
            };
            match output.filter(|output| output.status.success()) {
                Some(output) => append(&mut rules, &output.stdout),
                None => rules.push_str(&format!("-A {} {UNPRINTED}\n", chain.name)),
            }
        }
    }
    Ok(format!("*{}\n{heads}{rules}COMMIT\n", table.name))
}

/// Appends the rules that `iptables -S` prints.
fn append(rules: &mut String, printed: &[u8]) {
    let printed = parse::text_of(printed);
    rules.extend(parse::lines(&printed).filter(|line| line.starts_with("-A ")));
}

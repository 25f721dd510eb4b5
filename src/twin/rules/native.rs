//! Loads the tables that are nft's own: as a whole, or command by command if that is refused.

use std::collections::{BTreeMap, BTreeSet};

use super::edit::{COMMENT, FilterFacts, SHADOW};
use super::filter::Copied;
use super::listing::{self, ListedChain, ListedTable, compared};
use super::place::{At, LeftOut, Reason, RulePlace, Unknown, Watched};
use super::programs::{FilterError, begin_nft, listed, load_nft};
use super::refused::{LoadRefusal, load_in_order};
use super::statement;

/// A command of nft, which may have several lines.
#[derive(Debug)]
pub struct NftCommand {
    pub text: String,
    /// Loaded in its place if it is refused.
    pub otherwise: Option<String>,
    /// The chain, and the text of the rule or block as the machine lists it.
    pub names: (String, String),
}

/// Returns the place of a chain; with an empty name, of the table.
pub fn place(table: &ListedTable, chain: &str) -> RulePlace {
    RulePlace::Nft {
        family: table.family.clone(),
        table: table.name.clone(),
        chain: chain.to_owned(),
    }
}

/// Edits a rule. Returns the texts to be loaded in its place; the last one is for the rule itself.
pub fn edited(
    table: &ListedTable,
    chain: &str,
    rule: &str,
    facts: &FilterFacts,
    copied: &mut Copied,
) -> Vec<String> {
    let edited = statement::edit(rule, facts);
    let mut texts = Vec::new();
    if let Some((conditions, why)) = edited.counts {
        let index = watch(table, chain, rule, why, copied);
        let beginning = match edited.text {
            Some(_) => SHADOW,
            None => COMMENT,
        };
        texts.push(statement::commented(&conditions, beginning, index));
    }
    if let Some(why) = edited.left_out {
        copied.left_out.push(LeftOut {
            place: place(table, chain),
            text: rule.to_owned(),
            why,
        });
    }
    texts.extend(edited.text);
    texts
}

fn watch(table: &ListedTable, chain: &str, rule: &str, why: Unknown, copied: &mut Copied) -> usize {
    copied.watched.push(Watched {
        place: place(table, chain),
        text: rule.to_owned(),
        why,
        at: At::Comment,
        packets: 0,
    });
    copied.watched.len() - 1
}

/// Loads a table, and names the parts that the twin lacks.
pub fn load(
    table: &ListedTable,
    facts: &FilterFacts,
    copied: &mut Copied,
) -> Result<(), FilterError> {
    let mut rules = Vec::new();
    for chain in &table.chains {
        for rule in &chain.rules {
            for text in edited(table, &chain.name, &rule.text, facts, copied) {
                rules.push((chain.name.as_str(), rule.text.as_str(), text));
            }
        }
    }
    if load_nft(&whole(table, &rules))?.is_err() {
        load_commands(table, &rules, copied)?;
    }
    name_differences(table, facts, copied)
}

/// Prints a table as one block, like nft.
fn whole(table: &ListedTable, rules: &[(&str, &str, String)]) -> String {
    let mut text = format!("table {} {{\n{}", table.named(), heads(table));
    for block in table
        .blocks
        .iter()
        .filter(|block| block.kind != "flowtable")
    {
        text.push_str(&block.to_string());
    }
    let mut rules = rules.iter().peekable();
    for chain in &table.chains {
        let declaration = declared(chain);
        text.push_str(declaration.trim_end_matches("}\n"));
        while let Some((_, _, rule)) = rules.next_if(|(of, _, _)| *of == chain.name) {
            text.push_str(rule);
            text.push('\n');
        }
        text.push_str("}\n");
    }
    text + "}\n"
}

/// Returns the heads of a table, without those that bind it to the program that loads it: the kernel removes a table
/// with the flag `owner` when nft ends.
fn heads(table: &ListedTable) -> String {
    let mut text = String::new();
    for head in &table.heads {
        match head.strip_prefix("flags ") {
            Some(flags) => {
                let kept: Vec<&str> = flags
                    .split(',')
                    .map(|flag| flag.trim().trim_end_matches(';'))
                    .filter(|flag| !matches!(*flag, "owner" | "persist"))
                    .collect();
                if !kept.is_empty() {
                    text.push_str(&format!("flags {}\n", kept.join(",")));
                }
            }
            None => text.push_str(&format!("{head}\n")),
        }
    }
    text
}

/// Returns the declaration of a chain without the flag `offload`, which no veth supports.
fn declared(chain: &ListedChain) -> String {
    let mut chain = ListedChain {
        rules: Vec::new(),
        ..chain.clone()
    };
    chain.heads.retain(|head| !head.starts_with("flags "));
    for head in &mut chain.heads {
        *head = head
            .replace("flags offload; ", "")
            .replace(" flags offload;", "");
    }
    chain.declaration()
}

/// Returns the commands that make a table, its chains and then its sets, since the verdicts of a map lead to chains.
pub fn declarations(table: &ListedTable, chains: &[&ListedChain]) -> Vec<NftCommand> {
    let named = table.named();
    let within = |inner: &str| format!("table {named} {{\n{inner}}}\n");
    let command = |text: String, chain: &str, name: String| NftCommand {
        text,
        otherwise: None,
        names: (chain.to_owned(), name),
    };
    let mut commands = vec![command(within(&heads(table)), "", format!("table {named}"))];
    for chain in chains {
        let name = format!("chain {}", chain.name);
        commands.push(command(within(&declared(chain)), &chain.name, name));
    }
    for block in table
        .blocks
        .iter()
        .filter(|block| block.kind != "flowtable")
    {
        let mut bare = block.clone();
        let elements = |line: &String| line.starts_with("elements = {");
        bare.lines
            .truncate(bare.lines.iter().position(elements).unwrap_or(usize::MAX));
        let name = format!("{} {}", block.kind, block.name);
        commands.push(NftCommand {
            otherwise: (bare != *block).then(|| within(&bare.to_string())),
            ..command(within(&block.to_string()), "", name)
        });
    }
    commands
}

/// Loads commands in their order, and names those that are refused. Returns their indexes.
pub fn load_in_turn(
    table: &ListedTable,
    commands: &[NftCommand],
    copied: &mut Copied,
) -> Result<BTreeSet<usize>, FilterError> {
    let refused = load_in_order(commands.len(), |range| {
        let text: String = commands[range.clone()]
            .iter()
            .map(|command| &*command.text)
            .collect();
        let Err(refusal) = load_nft(&text)? else {
            return Ok(Ok(()));
        };
        if let [command] = &commands[range.clone()]
            && let Some(otherwise) = &command.otherwise
        {
            // The command itself is named as refused in any case.
            let _ = load_nft(otherwise)?;
        }
        let at = refusal.at.and_then(|line| {
            let mut ends = commands[range.clone()].iter().scan(0, |end, command| {
                *end += command.text.matches('\n').count();
                Some(*end)
            });
            ends.position(|end| line < end).map(|at| at + range.start)
        });
        Ok::<_, FilterError>(Err(LoadRefusal { at, ..refusal }))
    })?;
    let mut indexes = BTreeSet::new();
    for (at, words) in refused {
        let (chain, text) = &commands[at].names;
        copied.left_out.push(LeftOut {
            place: place(table, chain),
            text: text.clone(),
            why: Reason::Refused(words),
        });
        indexes.insert(at);
    }
    Ok(indexes)
}

fn load_commands(
    table: &ListedTable,
    rules: &[(&str, &str, String)],
    copied: &mut Copied,
) -> Result<(), FilterError> {
    let chains: Vec<&ListedChain> = table.chains.iter().collect();
    let declarations = declarations(table, &chains);
    let refused = load_in_turn(table, &declarations, copied)?;
    let missing: BTreeSet<&str> = refused
        .iter()
        .map(|at| declarations[*at].names.0.as_str())
        .filter(|chain| !chain.is_empty())
        .collect();
    let commands: Vec<NftCommand> = rules
        .iter()
        .filter(|(chain, _, _)| !missing.contains(chain))
        .map(|(chain, rule, text)| NftCommand {
            text: format!("add rule {} {chain} {text}\n", table.named()),
            otherwise: None,
            names: ((*chain).to_owned(), (*rule).to_owned()),
        })
        .collect();
    load_in_turn(table, &commands, copied)?;
    Ok(())
}

/// Reads the table back, and names each rule that should have been copied as it is and is missing.
fn name_differences(
    table: &ListedTable,
    facts: &FilterFacts,
    copied: &mut Copied,
) -> Result<(), FilterError> {
    let args = ["-s", "list", "table", &table.family, &table.name];
    let text = match begin_nft(&args)? {
        // The table itself may have been refused.
        Some(running) => listed(running).unwrap_or_default(),
        None => return Ok(()),
    };
    let there = listing::tables(&text).pop().unwrap_or_default();
    for chain in &table.chains {
        let there = there
            .chain(&chain.name)
            .map_or(&[][..], |chain| &chain.rules);
        name_missing(table, chain, there, facts, copied);
    }
    Ok(())
}

/// Names each rule of a chain that should have been copied as it is, is not in `there`, and is not named yet.
pub fn name_missing(
    table: &ListedTable,
    chain: &ListedChain,
    there: &[listing::ListedRule],
    facts: &FilterFacts,
    copied: &mut Copied,
) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for rule in there {
        *counts.entry(compared(&rule.text)).or_default() += 1;
    }
    for rule in &chain.rules {
        match counts.get_mut(&compared(&rule.text)) {
            Some(count) if *count > 0 => *count -= 1,
            _ => {
                let edited = statement::edit(&rule.text, facts).text;
                let is_changed = edited.is_none_or(|text| compared(&text) != compared(&rule.text));
                let place = place(table, &chain.name);
                let is_named = |left: &LeftOut| left.place == place && left.text == rule.text;
                if !is_changed && !copied.left_out.iter().any(is_named) {
                    copied.left_out.push(LeftOut {
                        place,
                        text: rule.text.clone(),
                        why: Reason::Differs,
                    });
                }
            }
        }
    }
}

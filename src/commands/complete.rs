//! `nvactl complete`: the words that may stand at the cursor, for the scripts of `completions`.
//!
//! The first line says which paths the shell adds: `SPEC`, `FOLDER`, `FILE` or `-` for none. Each further line is a word, a
//! tab and the meaning of the word. A user who presses a key has asked for no message: a spec that cannot be read or is
//! not valid has no names. Nothing here waits: a pipe is never read.

use std::collections::HashSet;
use std::fmt::Write as _;

use clap::CommandFactory as _;

use super::console::Console;
use super::exit::Exit;
use super::host::HostAccess;
use super::spec::{examine, kept_source, with_networks};
use crate::cli::{Cli, CompleteArgs, OfferedWord, PathKind, SpecNames, complete};
use crate::host::spec_source::{self, SpecSource};
use crate::net::printable;
use crate::ops::history::LastLoaded;

pub fn run(args: &CompleteArgs, on: HostAccess<'_>, console: &mut Console) -> Exit {
    let found = complete(&Cli::command(), &args.words, args.at);
    let mut answer = match found.paths {
        Some(PathKind::Spec) => "SPEC\n",
        Some(PathKind::Folder) => "FOLDER\n",
        Some(PathKind::File) => "FILE\n",
        None => "-\n",
    }
    .to_owned();
    let names = found.names.iter().flat_map(|wanted| names(wanted, on));
    for OfferedWord { word, meaning } in found.words.into_iter().chain(names) {
        // A description may have any character.
        let _ = writeln!(answer, "{word}\t{}", printable::line(meaning));
    }
    console.print_exact(&answer);
    Exit::Done
}

/// Returns the names of the spec that a command would read.
fn names(wanted: &SpecNames, on: HostAccess<'_>) -> Vec<OfferedWord> {
    let reading = source(wanted, on).map(|source| examine(&with_networks(source)));
    let Some(set) = reading.and_then(|reading| reading.set) else {
        return Vec::new();
    };
    let forwards = set.forwards.iter().map(|one| {
        let meaning = format!("{} {} → {}", one.protocol, one.listen, one.target);
        (&one.name, one.description.as_ref(), meaning)
    });
    let entries = set.outbound.iter();
    let entries = entries.map(|one| (&one.name, one.description.as_ref(), "outbound".to_owned()));
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for (name, description, meaning) in forwards.chain(entries) {
        if name.as_str().starts_with(&wanted.typed) && seen.insert(name) {
            found.push(OfferedWord {
                word: format!("{}{name}", wanted.option),
                meaning: description.map_or(meaning, ToString::to_string),
            });
        }
    }
    found
}

/// Reads the spec of a command line, if reading it cannot wait.
fn source(wanted: &SpecNames, on: HostAccess<'_>) -> Option<SpecSource> {
    if let Some(path) = spec_source::named(wanted.spec.as_deref()) {
        // Standard input is not that of the command.
        return spec_source::at(&path).filter(|_| path.as_os_str() != "-");
    }
    let on = HostAccess {
        state_dir: wanted.state_dir.as_deref().or(on.state_dir),
        ..on
    };
    let applied = match wanted.command.as_str() {
        "doctor" => on.last_loaded().ok().flatten().and_then(LastLoaded::spec),
        _ => None,
    };
    match applied {
        Some(kept) => Some(kept_source(kept)),
        None => spec_source::read(None).ok(),
    }
}

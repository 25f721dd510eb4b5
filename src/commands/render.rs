//! `nvactl render`: prints the plan as iptables-restore text, or writes it to a file.

use std::path::Path;

use super::console::Console;
use super::error::{Error, Result};
use super::exit::Exit;
use super::failure::{CommandRefusal, warn_of_emptied_output};
use super::spec::load_spec;
use crate::cli::Render;
use crate::health::foreign;
use crate::host::{self, file};
use crate::net::Family;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::text::parse;
use crate::plan::plan;

pub fn run(args: &Render, console: &mut Console) -> Result<Exit> {
    let family = args.family.unwrap_or(Family::V4);
    let rendered = load_spec(args.spec.spec.as_deref(), console).map(|(_, set)| {
        if args.family.is_none() && set.has(Family::V6) {
            console.note("these are the IPv4 rules; to print the IPv6 rules, add: --family v6");
        }
        plan(&set, family).with_builtin_chains()
    });
    let Some(path) = &args.output else {
        if rendered.is_err() {
            warn_of_emptied_output(console);
        }
        console.print_exact(&rendered?);
        return console
            .finish()
            .map(|()| Exit::Done)
            .inspect_err(|_| warn_of_cut_output(console))
            .map_err(Error::Output);
    };
    let new = rendered?;
    if !args.force {
        refuse_foreign(path, &new)?;
    }
    file::replace(path, new.to_string().as_bytes(), file::RULES_MODE)?;
    Ok(Exit::Done)
}

fn warn_of_cut_output(console: &mut Console) {
    if host::stdout_file_length().is_some() {
        console.warn(
            "standard output is a file, and only a part of the rules was written: do not load the file. \
             `-o FILE` instead of `>` keeps the old file until the new one is complete",
        );
    }
}

/// Refuses to replace a file that holds anything but nvactl's rules.
fn refuse_foreign(path: &Path, new: &Ruleset) -> Result<()> {
    let Some(bytes) = file::read(path)? else {
        return Ok(());
    };
    let file = path.display().to_string();
    let text = parse::text_of(&bytes);
    let ruleset = parse::parse(&text).map_err(|error| CommandRefusal::ForeignText {
        file: file.clone(),
        reason: error.to_string(),
    })?;
    match foreign::first_lost(&ruleset, new) {
        Some(line) => Err(CommandRefusal::ForeignRules { file, line }.into()),
        None => Ok(()),
    }
}

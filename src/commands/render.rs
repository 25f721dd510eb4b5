//! `nvactl render`: the plan as iptables-restore text, on standard output or in a file.

use std::path::Path;

use anyhow::Result;

use super::{Console, Exit, Refusal, load_spec};
use crate::cli::Render;
use crate::foreign;
use crate::host::{self, file};
use crate::parse;
use crate::plan::plan;

pub fn run(args: &Render, console: &mut Console) -> Result<Exit> {
    let rendered = load_spec(args.spec.spec.as_deref(), console)
        .map(|(_, set)| plan(&set).with_builtin_chains().to_string());
    let Some(path) = &args.output else {
        match rendered {
            Ok(text) => console.out.write_all(text.as_bytes())?,
            Err(error) => {
                if host::stdout_is_an_emptied_file() {
                    console.warn(
                        "standard output is a file, which the shell emptied before nvactl began: \
                         it is empty now, and loading it would let everything through. \
                         `-o FILE` keeps the old file until the new one is sound",
                    )?;
                }
                return Err(error);
            }
        }
        return Ok(Exit::Done);
    };
    let text = rendered?;
    if !args.force {
        refuse_foreign(path)?;
    }
    file::replace(path, text.as_bytes(), file::RULES_MODE)?;
    Ok(Exit::Done)
}

/// A file that holds anything but nvactl's rules is not replaced.
fn refuse_foreign(path: &Path) -> Result<()> {
    // Whether it is a regular file at all is for the one who replaces it to see.
    if !path.is_file() {
        return Ok(());
    }
    let Some(bytes) = file::read(path)? else {
        return Ok(());
    };
    let file = path.display().to_string();
    let text = String::from_utf8_lossy(&bytes);
    let ruleset = parse::parse(&text).map_err(|error| Refusal::ForeignText {
        file: file.clone(),
        reason: error.to_string(),
    })?;
    match foreign::first_line(&ruleset) {
        Some(line) => Err(Refusal::ForeignRules { file, line }.into()),
        None => Ok(()),
    }
}

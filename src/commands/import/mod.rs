//! `nvactl import`: writes a spec from rules that exist already.

mod change;
mod checked;
mod comments;
mod kubernetes;
mod proven;
mod report;
mod rules;
mod written;

use super::console::Console;
use super::error::{Error, Result};
use super::exit::Exit;
use super::host::HostAccess;
use crate::cli::ImportArgs;
use crate::host::file;
use crate::host::user_namespace::enter_own_namespaces;
use crate::import::{Draft, import};
use crate::net::words::with_causes;
use crate::proof::Proof;
use crate::yaml::spec_text;
use proven::prove;
use report::ImportReport;
use rules::ImportedRules;
use written::ImportedSpec;

pub fn run(args: &ImportArgs, on: HostAccess<'_>, console: &mut Console) -> Result<Exit> {
    if let Some(path) = args.output() {
        file::check_new(path)?;
    }
    if let Some(objects) = &args.kubernetes {
        return kubernetes::run(args, objects, console);
    }
    let found = ImportedRules::read(&args.rules, on, console)?;
    let mut draft = import(&found.rules, &found.routes);
    checked::check(&mut draft);
    let proof = if args.no_proof {
        None
    } else {
        proof(args, &found, &draft, console)?
    };
    let spec = spec_text(&draft.set, &comments::comments(&draft, &found));
    let report = ImportReport {
        found: &found,
        draft: &draft,
        proof: proof.as_ref(),
        spec: &spec,
        output: args.output(),
    };
    let written = ImportedSpec {
        spec: &spec,
        table: report.table(),
        json: report.json(),
    };
    written.give(args, console)?;
    let is_proven = proof.is_none_or(|proof| proof.is_complete());
    Ok(if args.strict && !is_proven {
        Exit::Differs
    } else {
        Exit::Done
    })
}

/// Returns the proof; `None`, with a warning, if no copy can be made and the user does not need it.
fn proof(
    args: &ImportArgs,
    found: &ImportedRules,
    draft: &Draft,
    console: &mut Console,
) -> Result<Option<Proof>> {
    let proof = if found.is_live() {
        prove(found, draft)
    } else {
        let entered = enter_own_namespaces().map_err(Error::from);
        entered.and_then(|()| prove(found, draft))
    };
    match proof {
        Ok(proof) => Ok(Some(proof)),
        Err(error) if args.strict => Err(error),
        Err(error) => {
            console.warn(format_args!(
                "the spec is not compared with the old rules: {}",
                with_causes(&error)
            ));
            Ok(None)
        }
    }
}

//! `nvactl import`: writes a spec from rules that exist already.

mod asking;
mod change;
mod checked;
mod comments;
mod kubernetes;
mod proof;
mod report;
mod rules;

use super::console::Console;
use super::error::{Error, Result};
use super::exit::Exit;
use super::host::HostAccess;
use crate::cli::{ImportArgs, ImportFormat};
use crate::host::file;
use crate::host::user_namespace::enter_own_namespaces;
use crate::import::{Draft, import};
use crate::net::words::with_causes;
use crate::yaml::spec_text;
use proof::{Proof, prove};
use report::ImportReport;
use rules::ImportedRules;

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
    if let Some(path) = args.output() {
        file::create_new(path, spec.as_bytes(), file::SPEC_MODE)?;
    }
    match args.format {
        ImportFormat::Json => console.say_json(&report.json())?,
        ImportFormat::Text if args.output().is_some() => console.print(&report.table()),
        ImportFormat::Text => {
            console.print_exact(&spec);
            console.tell(report.table());
        }
    }
    let differs = proof.is_some_and(|proof| proof.unexplained().next().is_some());
    Ok(if args.strict && differs {
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

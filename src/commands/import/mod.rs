//! `nvactl import`: writes a spec from rules that exist already.

mod checked;
mod comments;
mod report;
mod rules;

use super::console::Console;
use super::error::Result;
use super::exit::Exit;
use super::failure::CommandRefusal;
use super::host::HostAccess;
use crate::cli::{ImportArgs, ImportFormat};
use crate::host::file;
use crate::import::import;
use crate::yaml::spec_text;
use report::ImportReport;
use rules::ImportedRules;

pub fn run(args: &ImportArgs, on: HostAccess<'_>, console: &mut Console) -> Result<Exit> {
    if let Some(path) = &args.output
        && file::read(path)?.is_some()
    {
        let file = path.display().to_string();
        return Err(CommandRefusal::FileExists { file }.into());
    }
    let found = ImportedRules::read(&args.rules, on, console)?;
    let mut draft = import(&found.rules, &found.routes);
    checked::check(&mut draft);
    let spec = spec_text(&draft.set, &comments::comments(&draft, &found));
    let report = ImportReport {
        found: &found,
        draft: &draft,
        spec: &spec,
        output: args.output.as_deref(),
    };
    if let Some(path) = &args.output {
        file::replace(path, spec.as_bytes(), file::SPEC_MODE)?;
    }
    match args.format {
        ImportFormat::Json => console.say_json(&report.json())?,
        ImportFormat::Text if args.output.is_some() => console.print(&report.table()),
        ImportFormat::Text => {
            console.print_exact(&spec);
            console.tell(report.table());
        }
    }
    Ok(Exit::Done)
}

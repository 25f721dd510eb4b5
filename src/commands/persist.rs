//! `nvactl persist`: writes the live rules into the files that are loaded at boot.

use super::console::Console;
use super::error::Result;
use super::exit::Exit;
use super::host::HostAccess;
use super::spec::{kept, load_spec};
use crate::cli::Persist;
use crate::host;
use crate::host::persistence::RulesAtBoot;
use crate::net::words::with_causes;
use crate::ops::persist::{Expected, PersistRequest, persist};

pub fn run(args: &Persist, on: HostAccess<'_>, console: &mut Console) -> Result<Exit> {
    let checked = match &args.spec {
        Some(path) => Some(load_spec(Some(path), console)?),
        None => None,
    };
    host::require_root("persist")?;
    let checked = checked.map(|(source, set)| (kept(&source), source, set));
    let only_if = checked.as_ref().map(|(spec, source, set)| Expected {
        set,
        name: &source.name,
        argument: source.argument(),
        spec,
    });
    let request = PersistRequest {
        only_if,
        family: args.family,
        output: args.output.as_deref(),
    };
    let report = persist(&request, &on.machine(args.lock_timeout.secs)?)?;
    console.remarks(&report.remarks);
    for written in &report.written {
        console.say(format_args!("{}: written", written.path.display()));
        if let Some(at_boot) = written.at_boot {
            say_boot(at_boot, written.holds_own, console);
        }
    }
    if report.failed.is_empty() {
        return Ok(if report.partly {
            Exit::Uncertain
        } else {
            Exit::Done
        });
    }
    for error in report.failed {
        console.error(with_causes(&error));
    }
    console.tell("hint: some files were written; to write the rest: sudo nvactl persist\n");
    Ok(Exit::Uncertain)
}

fn say_boot(at_boot: RulesAtBoot, holds_own: bool, console: &mut Console) {
    let why = at_boot.why();
    let Some(fix) = at_boot.fix() else {
        console.say(format_args!("{why} at boot"));
        return;
    };
    if !holds_own {
        console.note(format_args!("nothing loads this file at boot: {why}"));
        return;
    }
    let or = match at_boot {
        RulesAtBoot::NotInstalled => "\n  or: sudo apt-get install iptables-persistent",
        _ => "",
    };
    console.warn(format_args!(
        "nothing loads this file at boot: {why}; to load nvactl's rules at boot: {fix}{or}"
    ));
}

//! `nvactl init`: writes a first spec for this machine.

mod machine;
mod others;
mod sides;
mod text;

use super::console::Console;
use super::error::Result;
use super::exit::Exit;
use super::host::HostAccess;
use crate::cli::InitArgs;
use crate::host::file;
use crate::netfilter::token::shell_word;
use machine::FoundMachine;

pub fn run(args: &InitArgs, on: HostAccess<'_>, console: &mut Console) -> Result<Exit> {
    if let Some(path) = args.output() {
        file::check_new(path)?;
    }
    let found = FoundMachine::look(on);
    let spec = text::spec(&found);
    match args.output() {
        Some(path) => {
            file::create_new(path, spec.as_bytes(), file::SPEC_MODE)?;
            let path = shell_word(&path.to_string_lossy());
            console.note(format_args!(
                "{path} has no forward yet; when it has one: nvactl check {path}"
            ));
        }
        None => console.print_exact(&spec),
    }
    for note in text::notes(&found) {
        console.note(note);
    }
    Ok(Exit::Done)
}

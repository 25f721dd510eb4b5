//! `nvactl completions`: the script by which a shell completes command lines of nvactl.

use super::console::Console;
use super::exit::Exit;
use crate::cli::{CompletionsArgs, Shell};

/// Prints the script of a shell. The packages install the same files.
pub fn run(args: &CompletionsArgs, console: &mut Console) -> Exit {
    console.print_exact(match args.shell {
        Shell::Bash => include_str!("../../packaging/completions/nvactl.bash"),
        Shell::Zsh => include_str!("../../packaging/completions/_nvactl"),
        Shell::Fish => include_str!("../../packaging/completions/nvactl.fish"),
    });
    Exit::Done
}

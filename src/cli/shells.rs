//! The commands whose output is for a shell or for `man`.

use std::ffi::OsString;

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell that reads the script.
    pub shell: Shell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// For a folder such as `~/.local/share/bash-completion/completions`.
    Bash,
    /// For a folder of `fpath`.
    Zsh,
    /// For `~/.config/fish/completions`.
    Fish,
}

/// A command line that is being typed.
#[derive(Debug, Args)]
pub struct CompleteArgs {
    /// The place of the word at the cursor; 0 is nvactl itself.
    pub at: usize,

    /// The words, without quotes. The word at the cursor ends there.
    #[arg(last = true)]
    pub words: Vec<OsString>,
}

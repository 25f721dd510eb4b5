//! The end of an import: the spec goes to a file or to standard output, and the account of it beside it.

use serde::Serialize;

use crate::cli::{ImportArgs, ImportFormat};
use crate::commands::console::Console;
use crate::commands::error::Result;
use crate::host::file;

/// A spec, and the account of the rules or objects of which it came.
pub(super) struct ImportedSpec<'s, J> {
    pub(super) spec: &'s str,
    /// The account for people.
    pub(super) table: String,
    /// The account for programs, which has the spec in it.
    pub(super) json: J,
}

impl<J: Serialize> ImportedSpec<'_, J> {
    /// Writes the file that the user names, then prints. Without a file the spec itself goes to standard output.
    ///
    /// # Errors
    /// If the file cannot be written. Nothing is printed then.
    pub(super) fn give(self, args: &ImportArgs, console: &mut Console) -> Result<()> {
        if let Some(path) = args.output() {
            file::create_new(path, self.spec.as_bytes(), file::SPEC_MODE)?;
        }
        match args.format {
            ImportFormat::Json => console.say_json(&self.json)?,
            ImportFormat::Text if args.output().is_some() => console.print(&self.table),
            ImportFormat::Text => {
                console.print_exact(self.spec);
                console.tell(self.table);
            }
        }
        Ok(())
    }
}

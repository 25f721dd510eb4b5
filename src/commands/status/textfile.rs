//! `nvactl status --textfile`: the metrics in a file for the textfile collector of `node_exporter`.

use std::io::ErrorKind;
use std::path::Path;

use super::repair::count;
use crate::commands::console::Console;
use crate::commands::error::Result;
use crate::commands::host::HostAccess;
use crate::health::status::StatusReport;
use crate::health::status::prometheus::down;
use crate::host::file::{self, FileError};
use crate::net::printable;

/// The mode of the file: `node_exporter` runs as a user of its own.
const MODE: u32 = 0o644;

/// Replaces the file. Without a status, the file says so: an old one would look as if all were as before.
pub(super) fn write(
    path: &Path,
    status: Option<&StatusReport>,
    on: HostAccess<'_>,
    console: &mut Console,
) -> Result<()> {
    let text = match status {
        Some(status) => status.prometheus(),
        None => {
            let state = on.known_state().ok().flatten();
            down(count(state.as_ref()))
        }
    };
    match file::replace_name(path, text.as_bytes(), MODE) {
        // The unit of the timer names the folder of Debian's package, whether that is installed or not.
        Err(FileError::Write { source, .. }) if source.kind() == ErrorKind::NotFound => {
            let path = printable::path(path);
            console.note(format_args!(
                "the folder of `{path}` does not exist, so no metrics are written"
            ));
            Ok(())
        }
        written => Ok(written?),
    }
}

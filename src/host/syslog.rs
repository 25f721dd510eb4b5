//! Writes to the socket of the system log.

use std::io;
use std::os::unix::net::UnixDatagram;

use tracing::debug;

/// The socket of syslogd or journald (systemd-journald.service(8)).
const SOCKET: &str = "/dev/log";

/// Writes a line to the system log without waiting. If the machine has no log, or the log accepts nothing now,
/// the line is not logged.
pub fn write(line: &str) {
    if let Err(error) = send(line) {
        debug!(%error, line, "not written to the system log");
    }
}

fn send(line: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to(line.as_bytes(), SOCKET).map(|_| ())
}

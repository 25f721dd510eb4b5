//! Rules of other programs, as those programs load them, and the lines of a save that are not nvactl's.

pub const FOREIGN: [(&str, &str); 3] = [
    ("docker", include_str!("foreign/docker.rules")),
    ("ufw", include_str!("foreign/ufw.rules")),
    ("fail2ban", include_str!("foreign/fail2ban.rules")),
];

/// The lines that are not nvactl's, in their order and with their table; the FORWARD policy apart,
/// and what an unused table has.
pub fn foreign_lines(saved: &str) -> Vec<(&str, &str)> {
    let mut table = "";
    let mut lines = Vec::new();
    for line in saved.lines() {
        if line.starts_with('*') {
            table = line;
        }
        let unused = line.starts_with('*') || line.ends_with("ACCEPT [0:0]") || line == "COMMIT";
        if !unused && !line.contains("NVACTL-") && !line.starts_with(":FORWARD") {
            lines.push((table, line));
        }
    }
    lines
}

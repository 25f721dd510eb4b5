//! Other programs that load rules when the machine starts, and what becomes of nvactl's then.

use std::path::Path;

use super::boot_unit;
use super::file;
use super::sysctl::ufw_is_on;
use super::units::starts_at_boot;

/// The file that nftables.service loads: of Debian, Arch and Alpine, and of Fedora and its relatives.
const NFTABLES: [&str; 2] = ["/etc/nftables.conf", "/etc/sysconfig/nftables.conf"];

/// A program that loads whole tables of iptables': nvactl's rules in them are gone, and its own policies
/// decide. So do shorewall 5.2.8, ferm 2.5.1 and firehol 3.1.7.
struct Loader {
    name: &'static str,
    /// The file that brings nvactl's rules back behind it, once it names their unit.
    file: &'static str,
    /// The command that writes so.
    fix: &'static str,
}

const LOADERS: [Loader; 4] = [
    // It runs the file when it has started, and again when it has reloaded.
    Loader {
        name: "shorewall",
        file: "/etc/shorewall/started",
        fix: "echo 'systemctl restart nvactl' | sudo tee -a /etc/shorewall/started",
    },
    Loader {
        name: "shorewall6",
        file: "/etc/shorewall6/started",
        fix: "echo 'systemctl restart nvactl' | sudo tee -a /etc/shorewall6/started",
    },
    Loader {
        name: "ferm",
        file: "/etc/ferm/ferm.conf",
        fix: r#"echo '@hook post "systemctl restart nvactl";' | sudo tee -a /etc/ferm/ferm.conf"#,
    },
    // It has no such hook, so its unit gets one.
    Loader {
        name: "firehol",
        file: "/etc/systemd/system/firehol.service.d/nvactl.conf",
        fix: "sudo mkdir -p /etc/systemd/system/firehol.service.d && printf '%s\\n' '[Service]' \
              'ExecStartPost=systemctl restart nvactl' 'ExecReload=systemctl restart nvactl' | \
              sudo tee /etc/systemd/system/firehol.service.d/nvactl.conf",
    },
];

/// Returns what other programs do to nvactl's rules when the machine starts, each with its fix. `nft`
/// tells whether nvactl's rules are loaded by iptables-nft.
#[must_use]
pub fn at_boot(nft: impl FnOnce() -> bool) -> Vec<(String, Option<String>)> {
    let own_unit = boot_unit::is_enabled();
    let enable = "sudo nvactl boot enable";
    let mut found = Vec::new();
    // nvactl's own unit starts behind these, and again with them.
    if !own_unit {
        if ufw_is_on() {
            found.push((
                "ufw manages this machine: it sets the FORWARD policy when it starts, from \
                 DEFAULT_FORWARD_POLICY in /etc/default/ufw"
                    .to_owned(),
                Some(enable.to_owned()),
            ));
        }
        let flushing = || {
            NFTABLES
                .into_iter()
                .find(|conf| flushes(Path::new(conf), 0))
        };
        if starts_at_boot("nftables.service")
            && let Some(conf) = flushing()
            && nft()
        {
            found.push((
                format!(
                    "nftables.service starts at boot, and `flush ruleset` in {conf} takes all rules \
                     away, nvactl's too, whenever it starts"
                ),
                Some(enable.to_owned()),
            ));
        }
    }
    for Loader { name, file, fix } in LOADERS {
        let hooked = own_unit && text(Path::new(file)).contains("restart nvactl");
        if starts_at_boot(&format!("{name}.service")) && !hooked {
            let first = if own_unit {
                ""
            } else {
                "sudo nvactl boot enable && "
            };
            found.push((
                format!(
                    "{name} starts at boot and loads whole tables: nvactl's rules in them are gone \
                     then, and {name}'s policies decide"
                ),
                Some(format!("{first}{fix}")),
            ));
        }
    }
    if boot_unit::firewalld_uses_iptables() {
        found.push((
            "firewalld makes its rules with iptables (FirewallBackend=iptables): each of its reloads removes \
             those of nvactl"
                .to_owned(),
            Some(
                "set FirewallBackend=nftables in /etc/firewalld/firewalld.conf, then: \
                 sudo systemctl restart firewalld"
                    .to_owned(),
            ),
        ));
    }
    if Path::new("/run/firewalld").exists() {
        found.push((
            "firewalld manages this machine: it drops forwarded packets in nft chains of its own unless \
             a policy of its own allows them"
                .to_owned(),
            None,
        ));
    }
    if starts_at_boot("foomuuri.service") {
        found.push((
            "foomuuri starts at boot: it drops forwarded packets in nft chains of its own unless a \
             section of their two zones allows them"
                .to_owned(),
            Some(
                "write `ct_status dnat accept` into that section in /etc/foomuuri, then \
                 sudo foomuuri reload"
                    .to_owned(),
            ),
        ));
    }
    found
}

/// Whether a file of nft's flushes all rules, or one that it includes by its whole name.
fn flushes(path: &Path, depth: usize) -> bool {
    // A file may include itself; nft refuses that at 16.
    if depth > 16 {
        return false;
    }
    let text = text(path);
    let mut statements = statements(&text);
    statements.any(|words| match words.as_slice() {
        ["flush", "ruleset", ..] => true,
        ["include", name, ..] => flushes(Path::new(name.trim_matches(['"', '\''])), depth + 1),
        _ => false,
    })
}

/// Splits a file of nft's into the words of its statements, comments left out.
fn statements(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = text.lines().filter_map(|line| line.split('#').next());
    let statements = lines.flat_map(|line| line.split(';'));
    statements.map(|statement| statement.split_ascii_whitespace().collect())
}

/// Reads a file; one that cannot be read says nothing.
fn text(path: &Path) -> String {
    let bytes = file::read(path).ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

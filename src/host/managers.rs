//! Finds other programs that load rules at boot and thereby remove or override nvactl's rules.

use std::path::Path;

use super::boot_unit;
use super::file;
use super::sysctl::ufw_is_on;
use super::units::starts_at_boot;
use crate::net::Family;

/// The files that nftables.service loads: on Debian, Arch and Alpine, and on Fedora and its relatives.
const NFTABLES: [&str; 2] = ["/etc/nftables.conf", "/etc/sysconfig/nftables.conf"];

/// A program that replaces whole iptables tables: nvactl's rules in them are removed, and the program's policies
/// apply. Seen with shorewall 5.2.8, ferm 2.5.1 and firehol 3.1.7.
struct TableLoader {
    name: &'static str,
    /// The file or folder of its rules.
    rules: &'static str,
    /// The file that makes the program load nvactl's rules again, once it restarts nvactl's unit.
    file: &'static str,
    /// The command that adds the restart to the file.
    fix: &'static str,
}

const LOADERS: [TableLoader; 4] = [
    // shorewall runs this file after each start and each reload.
    TableLoader {
        name: "shorewall",
        rules: "/etc/shorewall",
        file: "/etc/shorewall/started",
        fix: "echo 'systemctl restart nvactl' | sudo tee -a /etc/shorewall/started",
    },
    TableLoader {
        name: "shorewall6",
        rules: "/etc/shorewall6",
        file: "/etc/shorewall6/started",
        fix: "echo 'systemctl restart nvactl' | sudo tee -a /etc/shorewall6/started",
    },
    TableLoader {
        name: "ferm",
        rules: "/etc/ferm/ferm.conf",
        file: "/etc/ferm/ferm.conf",
        fix: r#"echo '@hook post "systemctl restart nvactl";' | sudo tee -a /etc/ferm/ferm.conf"#,
    },
    // firehol has no such hook, so its unit gets one.
    TableLoader {
        name: "firehol",
        rules: "/etc/firehol/firehol.conf",
        file: "/etc/systemd/system/firehol.service.d/nvactl.conf",
        fix: "sudo mkdir -p /etc/systemd/system/firehol.service.d && printf '%s\\n' '[Service]' \
              'ExecStartPost=systemctl restart nvactl' 'ExecReload=systemctl restart nvactl' | \
              sudo tee /etc/systemd/system/firehol.service.d/nvactl.conf",
    },
];

/// Returns the effects of other programs on nvactl's rules at boot, each with its fix. `nft` returns whether
/// nvactl's rules are loaded by iptables-nft.
#[must_use]
pub fn at_boot(nft: impl FnOnce() -> bool) -> Vec<(String, Option<String>)> {
    let own_unit = boot_unit::is_enabled();
    let enable = "sudo nvactl boot enable";
    let mut found = Vec::new();
    // nvactl's own unit starts after these programs, and again when they restart.
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
                    "nftables.service starts at boot, and `flush ruleset` in {conf} removes all rules, \
                     nvactl's too, at each start"
                ),
                Some(enable.to_owned()),
            ));
        }
    }
    for TableLoader {
        name, file, fix, ..
    } in LOADERS
    {
        let hooked = own_unit && text(Path::new(file)).contains("restart nvactl");
        if starts_at_boot(&unit_of(name)) && !hooked {
            let first = if own_unit {
                ""
            } else {
                "sudo nvactl boot enable && "
            };
            found.push((
                format!(
                    "{name} starts at boot and loads whole tables: this removes nvactl's rules in them, \
                     and {name}'s policies apply"
                ),
                Some(format!("{first}{fix}")),
            ));
        }
    }
    if boot_unit::firewalld_uses_iptables() {
        found.push((
            boot_unit::FIREWALLD_FLUSHES.to_owned(),
            Some(boot_unit::FIREWALLD_FIX.to_owned()),
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
                "write `ct_status dnat accept` into that section in /etc/foomuuri, then: \
                 sudo foomuuri reload"
                    .to_owned(),
            ),
        ));
    }
    found
}

/// Returns the programs that load whole tables at boot, each with the file or folder of its rules. Their rules have a
/// syntax of their own.
pub fn table_loaders() -> impl Iterator<Item = (&'static str, &'static str)> {
    let enabled = LOADERS
        .into_iter()
        .filter(|one| starts_at_boot(&unit_of(one.name)));
    enabled.map(|one| (one.name, one.rules))
}

/// Returns the program of Shorewall for a family, and the folder of its rules.
#[must_use]
pub fn shorewall(family: Family) -> (&'static str, &'static str) {
    let [v4, v6, ..] = &LOADERS;
    let of_family = match family {
        Family::V4 => v4,
        Family::V6 => v6,
    };
    (of_family.name, of_family.rules)
}

fn unit_of(program: &str) -> String {
    format!("{program}.service")
}

/// Returns whether an nft file flushes all rules, itself or through a file that it includes by its full name.
fn flushes(path: &Path, depth: usize) -> bool {
    // A file may include itself. nft stops after 16 levels.
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

/// Splits an nft file into the words of its statements, without comments.
fn statements(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = text.lines().filter_map(|line| line.split('#').next());
    let statements = lines.flat_map(|line| line.split(';'));
    statements.map(|statement| statement.split_ascii_whitespace().collect())
}

/// Reads a file. Returns an empty text if it cannot be read.
fn text(path: &Path) -> String {
    let bytes = file::read(path).ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

//! nvactl's own systemd unit, which loads the saved rules at boot.
//!
//! nvactl enables it as systemctl(1) does, by a link in the folder of a target. So it can be enabled in the
//! image of a machine where systemd does not run yet.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use super::child::{self, ChildError};
pub use super::detached::runs_under_systemd as runs_here;
use super::file::{self, FileError};
use super::folder::{self, FolderError};
use super::units;
use crate::net::printable::path as printable;
use crate::netfilter::token::shell_word;

/// The name of the unit.
pub const NAME: &str = "nvactl.service";

/// The timer that checks the loaded rules, which the operator enables.
const CHECK_TIMER: &str = "nvactl-check.timer";

/// Returns the command that stops the timer, if it is enabled.
#[must_use]
pub fn stops_checks() -> Option<String> {
    let enabled = units::starts_at_boot(CHECK_TIMER);
    enabled.then(|| format!("sudo systemctl disable --now {CHECK_TIMER}"))
}

/// The text of the unit in the package.
const TEXT: &str = include_str!("../../packaging/nvactl.service");
/// The program that [`TEXT`] runs, and its state folder.
const PROGRAM: &str = "/usr/bin/nvactl";
const STATE: &str = "/var/lib/nvactl";

/// The folder of the administrator's units.
const OWN: &str = "/etc/systemd/system";
/// The folder of the target that starts the unit.
const WANTS: &str = "/etc/systemd/system/sysinit.target.wants";

/// Folders whose content differs at boot, or that the unit's `ProtectHome` hides from it.
const NOT_AT_BOOT: [&str; 6] = ["/home", "/root", "/run", "/tmp", "/var/tmp", "/dev/shm"];

const LIMIT: Duration = Duration::from_mins(1);

/// A reason why the unit cannot be enabled or disabled.
#[derive(Debug, Error)]
pub enum UnitError {
    #[error("systemd is not installed, and nvactl has no other boot script")]
    NoSystemd,
    #[error("{NAME} is masked, so systemd never starts it")]
    Masked,
    #[error("nvactl is run from `{}`, and the unit can run no program from a home folder or a temporary one; nothing was written", printable(.0))]
    NotAtBoot(PathBuf),
    #[error("the state is in `{}`, which the unit cannot read at boot; nothing was written", printable(.0))]
    StateNotAtBoot(PathBuf),
    #[error(
        "nothing was written, because a user other than root could replace the program that the unit runs as root"
    )]
    Program {
        program: PathBuf,
        source: FolderError,
    },
    #[error("the path `{}` has a character that a unit cannot hold; nothing was written", printable(.0))]
    Path(PathBuf),
    #[error("{FIREWALLD_FLUSHES}, and no systemd unit can load them again after it")]
    Firewalld,
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot change `{}`", printable(.path))]
    Link { path: PathBuf, source: io::Error },
    #[error("`systemctl {command}` failed: {words}")]
    Systemctl { command: String, words: String },
    #[error(transparent)]
    Child(#[from] ChildError),
}

impl UnitError {
    /// Returns the command that fixes it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            UnitError::NoSystemd => Some("to write a rules file: sudo nvactl persist".to_owned()),
            UnitError::Masked => Some(format!("to unmask it: sudo systemctl unmask {NAME}")),
            UnitError::NotAtBoot(program) | UnitError::Program { program, .. } => Some(format!(
                "to install it: sudo install {} /usr/local/bin/nvactl && \
                 sudo /usr/local/bin/nvactl boot enable",
                shell_word(&program.to_string_lossy())
            )),
            UnitError::StateNotAtBoot(_) => {
                Some("use another state folder: --state-dir /var/lib/nvactl".to_owned())
            }
            UnitError::Path(_) | UnitError::Link { .. } | UnitError::Child(_) => None,
            UnitError::Firewalld => Some(FIREWALLD_FIX.to_owned()),
            UnitError::File(error) => error.hint(),
            UnitError::Systemctl { .. } => {
                Some(format!("to see why: sudo systemctl status {NAME}"))
            }
        }
    }
}

/// Returns whether systemd starts the unit at boot.
#[must_use]
pub fn is_enabled() -> bool {
    units::starts_at_boot(NAME)
}

fn own_file() -> PathBuf {
    Path::new(OWN).join(NAME)
}

/// The present state of the unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// It has run since the boot, so a restart or reload of a related unit also restarts it.
    Active,
    /// It has not run, or was stopped since, alone or together with a related unit.
    Inactive,
    Failed,
    /// systemd does not run here.
    Unknown,
}

/// The command that loads the saved rules again.
pub const RESTART: &str = "sudo systemctl restart nvactl";

/// Returns whether the unit's file and the program that it runs exist.
fn can_run() -> bool {
    let links = units::links(NAME);
    let text = links.first().and_then(|link| fs::read_to_string(link).ok());
    let text = text.unwrap_or_default();
    let command = text
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let program = command.and_then(|command| command.split(' ').next());
    program.is_some_and(|program| Path::new(program).is_file())
}

/// Returns the fault of an enabled unit and the fix, if it has a fault.
#[must_use]
pub fn fault() -> Option<(&'static str, &'static str)> {
    if !is_enabled() {
        return None;
    }
    if !can_run() {
        return Some((
            "nvactl.service is enabled, but its file or the program that it runs is missing",
            "sudo nvactl boot enable",
        ));
    }
    match activity() {
        Activity::Active | Activity::Unknown => None,
        Activity::Inactive => Some((
            "nvactl.service is stopped, as after a stop of ufw, nftables or netfilter-persistent: their next \
             start does not load nvactl's rules again",
            "sudo systemctl start nvactl",
        )),
        Activity::Failed => Some((
            "the last run of nvactl.service failed; `journalctl --unit nvactl` shows why",
            RESTART,
        )),
    }
}

impl Activity {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Activity::Active => "active",
            Activity::Inactive => "inactive",
            Activity::Failed => "failed",
            Activity::Unknown => "and systemd does not run here",
        }
    }
}

/// Asks systemd for the state of the unit.
#[must_use]
pub fn activity() -> Activity {
    if !runs_here() {
        return Activity::Unknown;
    }
    let asked = child::run("systemctl", &["is-active", NAME], b"", LIMIT);
    let words = asked.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    match words.as_deref() {
        Ok("active" | "reloading") => Activity::Active,
        Ok("failed") => Activity::Failed,
        Ok("inactive" | "activating" | "deactivating") => Activity::Inactive,
        _ => Activity::Unknown,
    }
}

/// A unit that can be enabled.
#[derive(Debug)]
pub struct BootUnit {
    /// The file that the link leads to.
    file: PathBuf,
    /// The text to write to that file, unless a package has installed it.
    text: Option<String>,
}

/// Checks whether the unit can be enabled with the state folder `state`. Changes nothing.
///
/// # Errors
/// If systemd is not installed, the unit is masked, it could not run this program at boot, or firewalld
/// would remove the rules that it loads.
pub fn prepare(state: &Path) -> Result<BootUnit, UnitError> {
    let systemd = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];
    if !systemd.iter().any(|path| Path::new(path).exists()) {
        return Err(UnitError::NoSystemd);
    }
    if units::is_masked(NAME) {
        return Err(UnitError::Masked);
    }
    if firewalld_uses_iptables() {
        return Err(UnitError::Firewalld);
    }
    let program = std::env::current_exe().map_err(|source| UnitError::Link {
        path: own_file(),
        source,
    })?;
    if let Some(file) = units::packaged(NAME)
        && program == Path::new(PROGRAM)
        && state == Path::new(STATE)
    {
        return Ok(BootUnit { file, text: None });
    }
    let not_there = |path: &Path| NOT_AT_BOOT.iter().any(|folder| path.starts_with(folder));
    if not_there(state) {
        return Err(UnitError::StateNotAtBoot(state.to_owned()));
    }
    if not_there(&program) {
        return Err(UnitError::NotAtBoot(program));
    }
    let parent = program.parent().unwrap_or(Path::new("/"));
    let trusted = folder::trusted(parent).and_then(|_| folder::root_owns(&program));
    if let Err(source) = trusted {
        return Err(UnitError::Program { program, source });
    }
    Ok(BootUnit {
        file: own_file(),
        text: Some(text(&program, state)?),
    })
}

/// Returns the unit's text for a program and a state folder, which may differ from the package's.
fn text(program: &Path, state: &Path) -> Result<String, UnitError> {
    let word = |path: &Path| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@".contains(&byte);
        let text = path.to_str().filter(|text| text.bytes().all(plain));
        text.map(str::to_owned)
            .ok_or_else(|| UnitError::Path(path.to_owned()))
    };
    let (program, state) = (word(program)?, word(state)?);
    let text = TEXT.replace(PROGRAM, &program);
    if state == STATE {
        return Ok(text);
    }
    let load = format!("{program} boot load");
    let load_from = format!("{program} --state-dir {state} boot load");
    Ok(text.replace(&load, &load_from).replace(STATE, &state))
}

/// The effect of a firewalld that makes its rules with iptables, and the fix.
pub const FIREWALLD_FLUSHES: &str = "firewalld makes its rules with iptables (FirewallBackend=iptables): each \
                                     reload of firewalld removes nvactl's rules";
pub const FIREWALLD_FIX: &str = "set FirewallBackend=nftables in /etc/firewalld/firewalld.conf, then: sudo systemctl \
                                 restart firewalld";

/// Returns whether firewalld starts here and makes its rules with iptables (firewalld.conf(5)).
#[must_use]
pub fn firewalld_uses_iptables() -> bool {
    let conf = file::read(Path::new("/etc/firewalld/firewalld.conf"));
    let conf = conf.ok().flatten().unwrap_or_default();
    let conf = String::from_utf8_lossy(&conf);
    // firewalld ignores blanks and case, and uses the first line.
    let values = conf.lines().filter_map(|line| line.split_once('='));
    let mut values = values.map(|(key, value)| (key.trim(), value.trim()));
    let backend = values.find(|(key, _)| *key == "FirewallBackend");
    backend.is_some_and(|(_, value)| value.eq_ignore_ascii_case("iptables"))
        && (units::starts_at_boot("firewalld.service") || Path::new("/run/firewalld").exists())
}

impl BootUnit {
    /// Enables the unit.
    ///
    /// # Errors
    /// If its file or link cannot be written.
    pub fn enable(&self) -> Result<(), UnitError> {
        match &self.text {
            Some(text) => file::replace(&self.file, text.as_bytes(), 0o644)?,
            // A file that another nvactl binary has written would hide the package's file.
            None if own_file().is_file() => {
                let path = own_file();
                let removed = fs::remove_file(&path);
                removed.map_err(|source| UnitError::Link { path, source })?;
            }
            None => {}
        }
        if is_enabled() {
            return Ok(());
        }
        let link = Path::new(WANTS).join(NAME);
        file::make_folder_of(&link)?;
        let made = symlink(&self.file, &link);
        made.map_err(|source| UnitError::Link { path: link, source })
    }
}

/// Makes systemd reload its units and run this one. From then on it restarts with the related units.
///
/// # Errors
/// If systemd refuses, or the unit fails.
pub fn start() -> Result<(), UnitError> {
    systemctl(&["daemon-reload"])?;
    // A unit that was already enabled may now run another program, so it is restarted, not started.
    systemctl(&["restart", NAME])
}

/// Disables the unit, and returns whether it was enabled. The loaded rules stay.
///
/// # Errors
/// If its links or the file that [`BootUnit::enable`] wrote cannot be removed.
pub fn disable() -> Result<bool, UnitError> {
    let links = units::links(NAME);
    if runs_here() && activity() != Activity::Inactive {
        systemctl(&["stop", NAME])?;
    }
    let mut gone = links.clone();
    if fs::symlink_metadata(own_file()).is_ok_and(|metadata| metadata.is_file()) {
        gone.push(own_file());
    }
    for path in gone {
        fs::remove_file(&path).map_err(|source| UnitError::Link { path, source })?;
    }
    if runs_here() {
        systemctl(&["daemon-reload"])?;
    }
    Ok(!links.is_empty())
}

fn systemctl(words: &[&str]) -> Result<(), UnitError> {
    let output = child::run("systemctl", words, b"", LIMIT)?;
    if output.status.success() {
        return Ok(());
    }
    Err(UnitError::Systemctl {
        command: words.join(" "),
        words: output.stderr.trim().replace('\n', "; "),
    })
}

/// Checks the unit with `systemd-analyze verify`. Returns `None` if that is not installed.
///
/// # Errors
/// The complaints of systemd-analyze.
#[must_use]
pub fn verify() -> Option<Result<(), String>> {
    let output = child::run("systemd-analyze", &["verify", "--man=no", NAME], b"", LIMIT).ok()?;
    // systemd-analyze also complains about other units, but its exit code is 1 only for this one.
    Some(if output.status.success() {
        Ok(())
    } else {
        Err(output.stderr.trim().replace('\n', "; "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_for_another_program_and_state_differs_only_in_their_paths() {
        let same = text(Path::new(PROGRAM), Path::new(STATE)).expect("they are plain");
        assert_eq!(same, TEXT);
        let other = text(
            Path::new("/usr/local/bin/nvactl"),
            Path::new("/srv/nvactl-state"),
        );
        let other = other.expect("they are plain");
        for line in [
            "RequiresMountsFor=/srv/nvactl-state",
            "ReadWritePaths=-/srv/nvactl-state /run",
            "ExecStart=/usr/local/bin/nvactl --state-dir /srv/nvactl-state boot load",
            "ExecReload=/usr/local/bin/nvactl --state-dir /srv/nvactl-state boot load",
        ] {
            assert!(other.lines().any(|other| other == line), "{line}");
        }
        assert_eq!(other.lines().count(), TEXT.lines().count());
        // systemd expands `%` and splits at a space.
        for path in ["/opt/a b/nvactl", "/opt/100%/nvactl", "/opt/a\n/nvactl"] {
            let refused = text(Path::new(path), Path::new(STATE));
            assert!(matches!(refused, Err(UnitError::Path(_))), "{path}");
        }
    }
}

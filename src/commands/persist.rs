//! `nvactl persist`: the live rules into the file that is loaded at boot.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Console, Exit, Refusal, load_spec};
use crate::cli::Persist;
use crate::diff;
use crate::foreign;
use crate::host::iptables::{self, Live};
use crate::host::persistence::{self, AtBoot, RULES_FILE};
use crate::host::{self, file};
use crate::plan::plan;
use crate::splice;

pub fn run(args: &Persist, console: &mut Console) -> Result<Exit> {
    let checked = match &args.spec {
        Some(path) => Some(load_spec(Some(path), console)?),
        None => None,
    };
    host::require_root("persist")?;
    let live = iptables::read()?;
    if !live.warning.is_empty() {
        console.warn(&live.warning)?;
    }
    if let Some((source, set)) = checked {
        let want = plan(&set);
        let changes = diff::changes(&live.ruleset, &want);
        if !changes.is_empty() {
            return Err(Refusal::NotInSync {
                spec: source.name,
                changes: changes.report(),
            }
            .into());
        }
    }
    let path = args
        .output
        .clone()
        .unwrap_or_else(|| PathBuf::from(RULES_FILE));
    let old = if path.is_file() {
        file::read(&path)?
    } else {
        None
    };
    let new = if args.own {
        own_text(&path, old.as_deref(), &live)?
    } else {
        warn_of_generated(&live, console)?;
        live.text.clone()
    };
    iptables::test(&new)?;
    if args.output.is_none() {
        // A machine without iptables-persistent has no such folder yet.
        file::make_folder_of(&path)?;
    }
    if let Some(old) = old.filter(|old| old != new.as_bytes()) {
        file::replace(&backup(&path), &old, file::RULES_MODE)?;
    }
    file::replace(&path, new.as_bytes(), file::RULES_MODE)?;
    writeln!(console.out, "{}: written", path.display())?;
    if args.output.is_none() {
        say_boot(console)?;
    }
    Ok(Exit::Done)
}

/// The file with nvactl's part exchanged for what is live.
fn own_text(path: &Path, old: Option<&[u8]>, live: &Live) -> Result<String> {
    let mut own = diff::own(&live.ruleset);
    // Without rules of nvactl's the policy is not nvactl's either.
    if own.chains().all(|(_, name, _)| !name.is_own()) {
        own = crate::ruleset::Ruleset::default();
    }
    let old = String::from_utf8_lossy(old.unwrap_or_default());
    let text = splice::splice(&old, &own).map_err(|error| Refusal::Uneditable {
        file: path.display().to_string(),
        reason: error.to_string(),
    })?;
    Ok(text)
}

fn warn_of_generated(live: &Live, console: &mut Console) -> Result<()> {
    for (program, chain) in foreign::generated(&live.ruleset) {
        console.warn(format_args!(
            "{program} makes its rules anew at each start (chain {chain}), and would find those of \
             the file beside them; `--own` leaves them out"
        ))?;
    }
    Ok(())
}

fn backup(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".bak");
    PathBuf::from(name)
}

fn say_boot(console: &mut Console) -> Result<()> {
    match persistence::at_boot() {
        AtBoot::Loaded => writeln!(console.out, "iptables-persistent loads it at boot")?,
        AtBoot::NotInstalled => console.warn(
            "nothing loads it at boot: iptables-persistent is not installed; \
             to install it: apt-get install iptables-persistent",
        )?,
        AtBoot::NotEnabled => console.warn(
            "nothing loads it at boot: netfilter-persistent is not enabled; \
             to enable it: systemctl enable netfilter-persistent",
        )?,
    }
    Ok(())
}

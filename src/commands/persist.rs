//! `nvactl persist`: the live rules into the file that is loaded at boot.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Console, Exit, Host, Refusal, confirm, load_spec};
use crate::cli::Persist;
use crate::diff;
use crate::foreign;
use crate::host::iptables::Live;
use crate::host::persistence::{self, AtBoot, RULES_FILE};
use crate::host::{self, file, lock};
use crate::net::Family;
use crate::parse;
use crate::plan::plan;
use crate::ruleset::{ChainName, Policy, TableName};
use crate::splice;

pub fn run(args: &Persist, on: Host<'_>, console: &mut Console) -> Result<Exit> {
    let checked = match &args.spec {
        Some(path) => Some(load_spec(Some(path), console)?),
        None => None,
    };
    host::require_root("persist")?;
    let state = on.state()?;
    let _lock = lock::take(&state, args.lock_timeout)?;
    confirm::refuse_while_pending(&state)?;
    let live = on.iptables(args.lock_timeout).read()?;
    if let Some((source, set)) = checked {
        let want = plan(&set, Family::V4);
        let changes = diff::changes(&live.ruleset, &want);
        if !changes.is_empty() {
            return Err(Refusal::NotInSync {
                spec: source,
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
    if !args.own {
        refuse_emptiness(&live, console)?;
    }
    let new = if args.own {
        own_text(&path, old.as_deref(), &live)?
    } else {
        warn_of_generated(&live, console);
        live.text.clone()
    };
    on.iptables(args.lock_timeout).test(&new)?;
    if args.output.is_none() {
        // A machine without iptables-persistent has no such folder yet.
        file::make_folder_of(&path)?;
    }
    if let Some(old) = old.filter(|old| !same_rules(old, &new)) {
        file::replace(&backup(&path), &old, file::RULES_MODE)?;
    }
    file::replace(&path, &new, file::RULES_MODE)?;
    console.say(format_args!("{}: written", path.display()));
    if args.output.is_none() {
        say_boot(console);
    }
    Ok(Exit::Done)
}

/// An empty file loads without a complaint and leaves FORWARD at ACCEPT.
fn refuse_emptiness(live: &Live, console: &mut Console) -> Result<()> {
    if live.ruleset.tables.is_empty() {
        return Err(Refusal::NothingToKeep.into());
    }
    if live.ruleset.chains().all(|(_, name, _)| !name.is_own()) {
        console.warn("no rules of nvactl's are loaded, so the file will hold none");
    }
    Ok(())
}

/// The file with nvactl's part exchanged for what is live.
fn own_text(path: &Path, old: Option<&[u8]>, live: &Live) -> Result<Vec<u8>> {
    let mut own = diff::own(&live.ruleset);
    // Only a policy that drops can be nvactl's, and only beside its rules.
    let forward = own.chain_mut(TableName::Filter, ChainName::Forward);
    if live.ruleset.forward_policy() != Policy::Drop || forward.rules.is_empty() {
        forward.policy = None;
    }
    let file = || path.display().to_string();
    let old = str::from_utf8(old.unwrap_or_default()).map_err(|error| Refusal::Uneditable {
        file: file(),
        reason: error.to_string(),
    })?;
    let text = splice::splice(old, &own).map_err(|error| Refusal::Uneditable {
        file: file(),
        reason: error.to_string(),
    })?;
    Ok(text.into_bytes())
}

fn warn_of_generated(live: &Live, console: &mut Console) {
    for (program, chain) in foreign::generated(&live.ruleset) {
        console.warn(format_args!(
            "{program} makes its rules anew at each start (chain {chain}), and would find those of \
             the file beside them; `--own` leaves them out"
        ));
    }
}

/// Whether two texts differ in nothing but the times and counters that iptables-save puts in: then
/// the backup that is there is worth more than the file.
fn same_rules(old: &[u8], new: &[u8]) -> bool {
    let read = |bytes| parse::parse(&String::from_utf8_lossy(bytes));
    old == new || matches!((read(old), read(new)), (Ok(old), Ok(new)) if old == new)
}

fn backup(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".bak");
    PathBuf::from(name)
}

fn say_boot(console: &mut Console) {
    match persistence::at_boot() {
        AtBoot::Loaded => console.say("iptables-persistent loads it at boot"),
        AtBoot::NotInstalled => console.warn(
            "nothing loads it at boot: iptables-persistent is not installed; \
             to install it: apt-get install iptables-persistent",
        ),
        AtBoot::NotEnabled => console.warn(
            "nothing loads it at boot: netfilter-persistent is not enabled; \
             to enable it: systemctl unmask netfilter-persistent && systemctl enable netfilter-persistent",
        ),
    }
}

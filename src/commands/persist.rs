//! `nvactl persist`: the live rules into the files that are loaded at boot.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Console, Exit, Host, Refusal, confirm, families, load_spec};
use crate::cli::Persist;
use crate::diff;
use crate::foreign;
use crate::host::iptables::Live;
use crate::host::persistence::{self, AtBoot, note_v6};
use crate::host::{self, file, lock};
use crate::net::Family;
use crate::parse;
use crate::per_family::{PerFamily, changes, planned};
use crate::ruleset::{ChainName, Policy, TableName};
use crate::splice;

/// What is to be known after a change of the live rules.
pub fn note_until_boot(console: &mut Console) {
    console.note("this holds until the next boot; `nvactl persist` keeps it");
}

pub fn run(args: &Persist, on: Host<'_>, console: &mut Console) -> Result<Exit> {
    let checked = match &args.spec {
        Some(path) => Some(load_spec(Some(path), console)?),
        None => None,
    };
    host::require_root("persist")?;
    let state = on.state()?;
    let _lock = lock::take(&state, args.lock_timeout)?;
    confirm::refuse_while_pending(&state)?;
    let iptables = on.iptables(args.lock_timeout);
    let families = families(checked.as_ref().map(|(_, set)| set), Some(&state));
    let live = iptables.read_all(families)?;
    if let Some((source, set)) = checked {
        let rules = live.map(|_, live| &live.ruleset);
        let want = planned(&set, families);
        let changes = changes(&rules, &want);
        if !changes.is_empty() {
            return Err(Refusal::NotInSync {
                spec: source,
                changes: changes.report(),
            }
            .into());
        }
    }
    let meant = meant(args, &live)?;
    let files = meant
        .into_iter()
        .map(|(family, live)| File::new(family, live, args, console))
        .collect::<Result<Vec<File>>>()?;
    // All of them, before the first is written.
    for file in &files {
        iptables.test(file.family, &file.new)?;
    }
    for file in &files {
        file.write(args.output.is_none())?;
        console.say(format_args!("{}: written", file.path.display()));
        if args.output.is_none() {
            say_boot(file.family, console);
        }
    }
    note_v6(&state, live.v6.as_ref().map(|live| &live.ruleset));
    Ok(Exit::Done)
}

/// The families whose rules are kept: IPv6 if there is anything of nvactl's, in the kernel or in the
/// file.
fn meant<'l>(args: &Persist, live: &'l PerFamily<Live>) -> Result<Vec<(Family, &'l Live)>> {
    let own = |live: &Live| live.ruleset.chains().any(|(_, name, _)| name.is_own());
    let mut meant: Vec<(Family, &Live)> = Vec::new();
    for (family, live) in live.iter() {
        let concerns = family == Family::V4 || own(live) || persistence::holds_own(family)?;
        if concerns && args.family.is_none_or(|only| only == family) {
            meant.push((family, live));
        }
    }
    match (meant.as_slice(), args.family, &args.output) {
        ([_, _], _, Some(_)) => Err(Refusal::OneFileForTwo.into()),
        ([], Some(family), _) => Err(Refusal::NothingOf { family }.into()),
        _ => Ok(meant),
    }
}

/// A file that is to be written.
struct File {
    family: Family,
    path: PathBuf,
    old: Option<Vec<u8>>,
    new: Vec<u8>,
}

impl File {
    fn new(family: Family, live: &Live, args: &Persist, console: &mut Console) -> Result<Self> {
        let usual = || PathBuf::from(persistence::rules_file(family));
        let path = args.output.clone().unwrap_or_else(usual);
        let old = if path.is_file() {
            file::read(&path)?
        } else {
            None
        };
        let new = if args.own {
            own_text(&path, old.as_deref(), live)?
        } else {
            refuse_emptiness(family, live, console)?;
            warn_of_generated(live, console);
            live.whole()?.to_vec()
        };
        Ok(Self {
            family,
            path,
            old,
            new,
        })
    }

    fn write(&self, make_folder: bool) -> Result<()> {
        if make_folder {
            // A machine without iptables-persistent has no such folder yet.
            file::make_folder_of(&self.path)?;
        }
        if let Some(old) = self.old.as_ref().filter(|old| !same_rules(old, &self.new)) {
            file::replace(&backup(&self.path), old, file::RULES_MODE)?;
        }
        file::replace(&self.path, &self.new, file::RULES_MODE)?;
        Ok(())
    }
}

/// An empty file loads without a complaint and leaves FORWARD at ACCEPT.
fn refuse_emptiness(family: Family, live: &Live, console: &mut Console) -> Result<()> {
    if live.ruleset.tables.is_empty() {
        return Err(Refusal::NothingToKeep { family }.into());
    }
    if live.ruleset.chains().all(|(_, name, _)| !name.is_own()) {
        let whose = match family {
            Family::V4 => "no rules",
            Family::V6 => "no IPv6 rules",
        };
        console.warn(format_args!(
            "{whose} of nvactl's are loaded, so the file will hold none"
        ));
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

fn say_boot(family: Family, console: &mut Console) {
    match persistence::at_boot(family) {
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

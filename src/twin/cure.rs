//! Cures for a dead connection, tried in the twin before anybody is told of them.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::json;

use super::battery::Ask;
use super::cause::{By, Decided, Holder, KernelReason, Taken};
use super::explain::is_through;
use super::{Twin, TwinError, switches};
use crate::diff;
use crate::host::child;
use crate::host::iptables::{Iptables, nft_family};
use crate::net::Family;
use crate::net::per_family::PerFamily;
use crate::netfilter::backend::Backend;
use crate::netfilter::counters::Counters;
use crate::netfilter::names::Policy;
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::text::line::Line;

const LIMIT: Duration = Duration::from_mins(5);

/// Something that lets a connection pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cure {
    /// `nvactl apply` of the same spec.
    Apply,
    /// A rule that accepts the packets, in front of all others of the nft chain.
    AcceptInChain {
        family: String,
        table: String,
        chain: String,
        rule: String,
    },
    /// The rule is gone, or the policy accepts.
    Without(By),
    /// Switches of the kernel, all of which are needed.
    Switches(Vec<Switch>),
}

/// A switch of the kernel by its name below `net`, and a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    pub name: String,
    pub value: &'static str,
}

/// The change that `nvactl apply` would make, for `iptables-restore --noflush`.
#[derive(Debug, Clone)]
pub struct Change {
    pub iptables: Iptables,
    /// For `iptables-restore --noflush`, over the live rules; empty for a family that does not change.
    pub scripts: PerFamily<String>,
    /// What nvactl is to own.
    pub want: PerFamily<Ruleset>,
}

impl Change {
    /// Loads it into the twin, and returns whether iptables-restore takes it; the calling thread is in the
    /// copy of the machine.
    ///
    /// # Errors
    /// When a program is missing, or rules cannot be read.
    pub fn load(&self, twin: &Twin) -> Result<bool, TwinError> {
        twin.enter()?;
        let all = self.scripts.as_ref().zip(self.want.as_ref());
        for (family, (script, want)) in all.iter() {
            if script.is_empty() {
                continue;
            }
            // A script names rules by their places.
            let script = if twin.has_all_places() && !twin.is_changed() {
                Cow::Borrowed(script.as_str())
            } else {
                let here = self.iptables.read(family)?.ruleset;
                Cow::Owned(diff::changes(&here, want).script(&Counters::default()))
            };
            if !restore(self.iptables.backend, family, &script)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Takes away what took a connection, and returns the gentlest cure that does so. The twin stays changed by
/// that cure alone; none where nothing can be done from here.
///
/// # Errors
/// When a program of the twin's is missing.
pub fn cure(twin: &Twin, ask: &Ask<'_>, taken: &Taken) -> Result<Option<Cure>, TwinError> {
    twin.enter()?;
    match &taken.by {
        By::Rule(decided) | By::Policy(decided) => {
            if let Holder::Nft(chain) = &decided.holder {
                for rule in accepting(ask) {
                    let of = format!("{} {} {}", chain.family, chain.table, chain.name);
                    let Some(handle) = inserted(&format!("insert rule {of} {rule}\n"))? else {
                        continue;
                    };
                    if is_through(twin, ask)? {
                        return Ok(Some(Cure::AcceptInChain {
                            family: chain.family.to_owned(),
                            table: chain.table.clone(),
                            chain: chain.name.clone(),
                            rule,
                        }));
                    }
                    twin.enter()?;
                    nft(&format!("delete rule {of} handle {handle}\n"))?;
                }
            }
            let removed = remove(decided)?;
            Ok(removed.then(|| Cure::Without(taken.by.clone())))
        }
        By::Kernel(reason) => Ok(switched(twin, ask, reason)?),
        By::NoRule => Ok(None),
    }
}

/// Makes a cure again that was tried before, in a twin that was made anew.
///
/// # Errors
/// As [`cure`].
pub fn again(
    twin: &Twin,
    by: &By,
    cure: &Cure,
    change: Option<&Change>,
) -> Result<bool, TwinError> {
    twin.enter()?;
    match cure {
        Cure::AcceptInChain {
            family,
            table,
            chain,
            rule,
        } => nft(&format!("insert rule {family} {table} {chain} {rule}\n")),
        _ => take_out(twin, by, cure, change),
    }
}

/// Takes away exactly what took a connection, as its cure does or more narrowly: a rule that accepts packets
/// in front of a chain would also let those pass that another rule of the chain takes. Returns whether it was
/// done; the calling thread is in the copy of the machine.
///
/// # Errors
/// As [`cure`].
pub fn take_out(
    twin: &Twin,
    by: &By,
    cure: &Cure,
    change: Option<&Change>,
) -> Result<bool, TwinError> {
    match (cure, by) {
        (Cure::Apply, _) => change.map_or(Ok(false), |change| change.load(twin)),
        (Cure::Switches(switches), _) => {
            for Switch { name, value } in switches {
                switches::set(name, value);
            }
            Ok(true)
        }
        (Cure::AcceptInChain { .. }, By::Rule(decided) | By::Policy(decided))
        | (Cure::Without(By::Rule(decided) | By::Policy(decided)), _) => remove(decided),
        _ => Ok(false),
    }
}

/// Returns rules that accept a forward's packets in a chain of nft: on their way behind the translation,
/// then before it.
fn accepting(ask: &Ask<'_>) -> Vec<String> {
    let protocol = ask.forward.protocol;
    let port = ask.forward.listen.ports;
    vec![
        "ct status dnat accept".to_owned(),
        format!("{protocol} dport {port} accept"),
    ]
}

/// Removes a rule, or lets a policy accept, and returns whether it was done.
///
/// # Errors
/// As [`cure`].
pub fn remove(decided: &Decided) -> Result<bool, TwinError> {
    // iptables cannot read a table with rules of nft's own; nft finds those of iptables, too.
    let chain = match &decided.holder {
        Holder::Iptables {
            backend: Backend::Nft,
            family,
            table,
            chain,
        } => Some((nft_family(*family), table.to_string(), chain.as_str())),
        Holder::Iptables { .. } => None,
        Holder::Nft(chain) => Some((chain.family, chain.table.clone(), &*chain.name)),
    };
    match (&decided.holder, chain, decided.handle, &decided.place) {
        (_, Some((family, table, chain)), Some(handle), _) => delete(family, &table, chain, handle),
        (_, Some((family, table, chain)), None, _) => nft(&format!(
            "chain {family} {table} {chain} {{ policy accept; }}\n"
        )),
        (
            Holder::Iptables {
                backend,
                family,
                table,
                chain,
            },
            None,
            _,
            place,
        ) => {
            let line = match place {
                Some(place) => Line::DeleteAt(chain, *place),
                None => Line::Chain(chain, Some(Policy::Accept)),
            };
            restore(*backend, *family, &format!("*{table}\n{line}\nCOMMIT\n"))
        }
        (Holder::Nft(_), None, ..) => Ok(false),
    }
}

/// Deletes a rule. nft reads the name of a chain of iptables' as its keyword, as `log`, but for JSON.
fn delete(family: &str, table: &str, chain: &str, handle: u64) -> Result<bool, TwinError> {
    let rule = json!({"family": family, "table": table, "chain": chain, "handle": handle});
    let script = json!({"nftables": [{"delete": {"rule": rule}}]}).to_string();
    let output = child::run("nft", &["-j", "-f", "-"], script.as_bytes(), LIMIT)?;
    if output.status.success() {
        return Ok(true);
    }
    // nft may be built without JSON.
    nft(&format!(
        "delete rule {family} {table} {chain} handle {handle}\n"
    ))
}

fn switched(twin: &Twin, ask: &Ask<'_>, reason: &KernelReason) -> Result<Option<Cure>, TwinError> {
    let family = ask.forward.family();
    let switches: Vec<(String, &'static str)> = match (reason, family) {
        (KernelReason::ReversePath, Family::V4) => {
            let sides = [ask.by, &ask.forward.egress];
            let each = sides.into_iter();
            each.map(|side| (format!("ipv4/conf/{side}/rp_filter"), "2"))
                .collect()
        }
        (KernelReason::NotForwarded, Family::V4) => vec![
            ("ipv4/ip_forward".to_owned(), "1"),
            (format!("ipv4/conf/{}/forwarding", ask.by), "1"),
            (format!("ipv4/conf/{}/forwarding", ask.forward.egress), "1"),
        ],
        (KernelReason::NotForwarded, Family::V6) => {
            vec![("ipv6/conf/all/forwarding".to_owned(), "1")]
        }
        _ => Vec::new(),
    };
    let mut before: Vec<(Switch, String)> = Vec::new();
    let mut is_cured = false;
    twin.enter()?;
    for (name, value) in switches {
        // A kernel that lacks it has nothing to be set.
        let Some(old) = switches::one(&name).filter(|old| old.trim() != value) else {
            continue;
        };
        switches::set(&name, value);
        before.push((Switch { name, value }, old));
        is_cured = is_through(twin, ask)?;
        twin.enter()?;
        if is_cured {
            break;
        }
    }
    if is_cured {
        // Each of them that is not needed is set back, so that it helps no other connection.
        let mut at = before.len() - 1;
        while at > 0 {
            at -= 1;
            let (Switch { name, value }, old) = &before[at];
            switches::set(name, old);
            let is_superfluous = is_through(twin, ask)?;
            twin.enter()?;
            if is_superfluous {
                before.remove(at);
            } else {
                switches::set(name, value);
            }
        }
        let needed = before.into_iter().map(|(switch, _)| switch);
        return Ok(Some(Cure::Switches(needed.collect())));
    }
    // The next connection is to meet the same reason again.
    for (switch, old) in before.into_iter().rev() {
        switches::set(&switch.name, &old);
    }
    Ok(None)
}

fn restore(backend: Backend, family: Family, script: &str) -> Result<bool, TwinError> {
    let program = backend.program(family, "iptables-restore");
    let args = [
        "XTABLES_LOCKFILE=/dev/null",
        &program,
        "--noflush",
        "-w",
        "5",
    ];
    let output = child::run("env", &args, script.as_bytes(), LIMIT)?;
    Ok(output.status.success())
}

fn nft(script: &str) -> Result<bool, TwinError> {
    let output = child::run("nft", &["-f", "-"], script.as_bytes(), LIMIT)?;
    Ok(output.status.success())
}

/// Carries out a command that adds one rule, and returns the rule's handle.
fn inserted(command: &str) -> Result<Option<u64>, TwinError> {
    let output = child::run("nft", &["-e", "-a", "-f", "-"], command.as_bytes(), LIMIT)?;
    if !output.status.success() {
        return Ok(None);
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    let (_, handle) = printed.rsplit_once("# handle ").unwrap_or_default();
    let handle = handle.split_ascii_whitespace().next();
    Ok(handle.and_then(|handle| handle.parse().ok()))
}

//! The changes that an operation refuses, each with its reason and fix.

use thiserror::Error;

use crate::health::test_result::TestResult;
use crate::host::boot_unit;
use crate::host::iptables::OWN_ALONE;
use crate::host::kernel::Kernel;
use crate::host::rehearsal::RefusedLine;
use crate::net::Family;
use crate::net::per_family::PerFamily;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::ruleset::Ruleset;
use crate::netfilter::token::shell_word;
use crate::netfilter::unread::Misprinted;
use crate::plan::asks_entrance;
use crate::plan::unplan::{is_outbound, name_of};
use crate::twin::packet_tests::MOST_TRACED;

/// A change that an operation refuses.
#[derive(Debug, Error)]
pub enum Refusal {
    #[error(
        "a rule that is not nvactl's jumps to one of nvactl's chains, so nothing was removed: {line}"
    )]
    StillReferenced { line: String, removal: String },
    #[error(
        "the live rules differ from `{name}`, so nothing was written (- loaded only, + spec only):\n{changes}"
    )]
    NotInSync {
        name: String,
        /// The spec as an argument of a command.
        argument: String,
        changes: String,
    },
    #[error("the history has no change {number}; {}", those_kept(.kept))]
    NoSuchChange { number: u64, kept: Vec<u64> },
    #[error("no change is left to roll back")]
    NothingToUndo,
    #[error("there is no change to roll back yet")]
    NoChangeYet,
    #[error("nothing is waiting for a confirmation{}", last.as_ref().map(|last| format!(": {last}")).unwrap_or_default())]
    NothingPending {
        /// How the last change ended, if it was undone.
        last: Option<String>,
    },
    #[error("the pending change was not fully applied and cannot be confirmed")]
    NotMade,
    #[error(
        "{told}; nothing else can change until it is {}",
        if *.can_be_kept { UNDO } else { "undone" }
    )]
    Pending {
        /// The change that waits.
        told: String,
        can_be_kept: bool,
    },
    #[error(
        "a change waits for its confirmation, and its record {why}; the change may still undo itself when its \
         time is up"
    )]
    UnreadablePending {
        /// The path of the record in backticks, and its fault.
        why: String,
    },
    #[error(
        "no {family} rules are loaded, and an empty file would let everything through at boot; nothing was written"
    )]
    NothingToKeep { family: Family },
    #[error(
        "there are IPv4 and IPv6 rules to write, and FILE can hold only one family; nothing was written"
    )]
    OneFileForTwo,
    #[error("nvactl's {family} rules are neither loaded nor in the rules file")]
    NothingOf { family: Family },
    #[error(
        "the saved state holds the rules of both families, so --family works only with --output FILE"
    )]
    FamilyWithoutFile,
    #[error(
        "{program} manages this machine's rules, and a rules file could load before or after it; nothing was written"
    )]
    BesideManager { program: &'static str },
    #[error("nvactl's rules are not loaded, so there is nothing to save")]
    NothingToSave {
        /// Whether there are saved rules that can be loaded again.
        saved: bool,
    },
    #[error(
        "{missing} of the {loaded} {family} rules that nvactl loaded last are missing; nothing was written"
    )]
    Flushed {
        family: Family,
        missing: usize,
        loaded: usize,
    },
    #[error(
        "the saved rules cannot be read, so they cannot be loaded again if the loaded rules are gone: {why}"
    )]
    UnreadableSaved {
        /// The fault of the record.
        why: String,
    },
    #[error(
        "the saved rules were not loaded again, because the record of earlier repairs cannot be read: {why}"
    )]
    UnreadableRepairs {
        /// The fault of the record.
        why: String,
        file: String,
    },
    #[error("no rules are saved for the next boot")]
    NothingSaved,
    #[error("the saved rules were not tested, because no network namespace can be made: {reason}")]
    NoNamespace { reason: String },
    #[error(
        "`{name}` and another forward send the same packets to one target with different `snat`: this needs Linux {needed}, and Linux {running} is running"
    )]
    OldKernel {
        /// The name of a forward.
        name: String,
        running: Kernel,
        needed: Kernel,
    },
    #[error(
        "the rules for the source of `{name}` must know by which interface a packet came in: this needs Linux {needed}, and Linux {running} is running"
    )]
    OldKernelForOutbound {
        /// The name of an outbound entry.
        name: String,
        running: Kernel,
        needed: Kernel,
    },
    #[error("nvactl's lines cannot be removed from `{file}`: {reason}")]
    Uneditable { file: String, reason: String },
    #[error("`{file}` would not load at boot, so it was not written: {refused}")]
    WouldNotLoad { file: String, refused: RefusedLine },
    #[error(
        "`{file}` would not restore a rule at boot, so it was not written: {} {} has `{}`, {}",
        table, rule.chain, rule.live,
        rule.loaded.as_ref().map_or(
            "which iptables-save leaves out".to_owned(),
            |loaded| format!("which iptables-save prints as `{loaded}`")
        )
    )]
    Misprinted {
        file: String,
        table: TableName,
        rule: Misprinted,
    },
    #[error("another program changed the rules while nvactl was reading them; nothing was written")]
    Changing,
    #[error(
        "nothing has changed, because tests of the spec do not pass with the new rules:\n{}",
        test_lines(.tests)
    )]
    TestsFail {
        /// The tests that do not pass.
        tests: Vec<TestResult>,
    },
    #[error("nothing has changed, because the tests of the spec could not be run: {why}")]
    NotTested { why: String },
    #[error(
        "nothing has changed, because rules that the spec should replace differ from it in meaning:\n{}",
        .lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
    )]
    DiffersFromRules {
        /// The entries, their fields, and the rules.
        lines: Vec<String>,
    },
    #[error(
        "nothing has changed, because connections would end differently once the adopted rules are gone:\n{}",
        .lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
    )]
    GoingChanges {
        /// The connections, each with both ends.
        lines: Vec<String>,
    },
    #[error(
        "nothing has changed, because the new rules would cut off connections that work now:\n{}",
        .lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
    )]
    CutsOff {
        /// A line for each forward and outbound entry.
        lines: Vec<String>,
    },
}

/// The end of the waiting, with the alternative to the hint on a line of its own.
const UNDO: &str = "confirmed or undone\n  to undo the change now: sudo nvactl confirm --cancel";

/// Describes each test that did not pass as `nvactl test` does.
fn test_lines(tests: &[TestResult]) -> String {
    let shown = tests.iter().take(MOST_TRACED);
    let mut lines: Vec<String> = shown.flat_map(TestResult::lines).collect();
    match tests.len().saturating_sub(MOST_TRACED) {
        0 => {}
        more => lines.push(format!("and {more} more")),
    }
    let lines = lines.iter().map(|line| format!("  {line}"));
    let lines: Vec<String> = lines.map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// Names the changes in the history.
fn those_kept(numbers: &[u64]) -> String {
    match numbers {
        [] => "it is empty".to_owned(),
        [one] => format!("it has only change {one}"),
        [first, .., last] => format!("it has the changes {first} to {last}"),
    }
}

/// The first kernel whose nat POSTROUTING knows the interface by which a packet came in.
const TELLS_ENTRANCES: Kernel = Kernel { major: 5, minor: 5 };

/// Refuses rules that would match no packet on the running kernel. An unknown version counts as new.
///
/// # Errors
/// When there are such rules.
pub fn refuse_on_old(running: Option<Kernel>, want: &PerFamily<Ruleset>) -> Result<(), Refusal> {
    let asking = asks_entrance(&want.v4).or_else(|| asks_entrance(want.v6.as_ref()?));
    match (asking, running) {
        (Some(rule), Some(running)) if running < TELLS_ENTRANCES => {
            let name = name_of(rule).unwrap_or_default().to_owned();
            let needed = TELLS_ENTRANCES;
            Err(if is_outbound(&ChainName::Postrouting, rule) {
                Refusal::OldKernelForOutbound {
                    name,
                    running,
                    needed,
                }
            } else {
                Refusal::OldKernel {
                    name,
                    running,
                    needed,
                }
            })
        }
        _ => Ok(()),
    }
}

impl Refusal {
    /// Returns the fix: a command or an edit.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Refusal::Pending {
                can_be_kept: true, ..
            } => Some("to keep the change: sudo nvactl confirm".to_owned()),
            Refusal::NotMade | Refusal::Pending { .. } => {
                Some("to undo the change now: sudo nvactl confirm --cancel".to_owned())
            }
            Refusal::UnreadablePending { .. } => Some(
                "to discard the record and keep the change's rules, which nothing undoes then: sudo nvactl confirm --cancel"
                    .to_owned(),
            ),
            Refusal::NothingPending { .. }
            | Refusal::NoSuchChange { .. }
            | Refusal::NothingToUndo => {
                Some("to list the changes: sudo nvactl history".to_owned())
            }
            Refusal::Changing => Some("run the command again".to_owned()),
            Refusal::WouldNotLoad { .. } | Refusal::Misprinted { .. } => Some(OWN_ALONE.to_owned()),
            Refusal::StillReferenced { removal, .. } => Some(format!("to remove it: {removal}")),
            Refusal::NotInSync { argument, .. } => {
                Some(format!(
                    "to save the loaded rules: sudo nvactl persist\n\
                     hint: to load the spec: sudo nvactl apply {}",
                    shell_word(argument)
                ))
            }
            Refusal::FamilyWithoutFile => {
                Some("to save both families: sudo nvactl persist".to_owned())
            }
            Refusal::NothingSaved | Refusal::BesideManager { .. } => {
                Some("to load nvactl's rules at boot: sudo nvactl boot enable".to_owned())
            }
            Refusal::UnreadableSaved { .. } => {
                Some("to save the loaded rules: sudo nvactl persist".to_owned())
            }
            Refusal::UnreadableRepairs { file, .. } => Some(format!(
                "to start a new record: sudo rm {}",
                shell_word(file)
            )),
            Refusal::NoNamespace { .. } | Refusal::NoChangeYet => None,
            Refusal::Uneditable { file, .. } => Some(format!(
                "delete the lines that name NVACTL, then run the command again: sudoedit {}",
                shell_word(file)
            )),
            Refusal::NothingToSave { saved: true } => {
                Some(format!("to load the saved rules: {}", boot_unit::RESTART))
            }
            Refusal::Flushed { .. } => Some("to load them again: sudo nvactl apply".to_owned()),
            Refusal::NothingOf { .. } => Some(
                "to write only the other family, leave out --family\n\
                 hint: to load a spec with IPv6 forwards: sudo nvactl apply"
                    .to_owned(),
            ),
            Refusal::NothingToSave { saved: false } | Refusal::NothingToKeep { .. } => {
                Some("to load a spec: sudo nvactl apply".to_owned())
            }
            Refusal::OldKernel { .. } => Some(
                "in the spec, give both forwards the same `snat`, or one of them another target".to_owned(),
            ),
            Refusal::OldKernelForOutbound { .. } => Some(
                "in the spec, give the entry one interface for both directions, or run a newer kernel".to_owned(),
            ),
            Refusal::TestsFail { .. } => Some(
                "change the spec or its tests; to load the change anyway, add: --no-trial"
                    .to_owned(),
            ),
            Refusal::DiffersFromRules { .. } => Some(
                "to write a spec with the meaning of the rules: sudo nvactl import live -o FILE\n\
                 hint: adopt with that spec first, and change it afterwards: adopting and moving a target at once loses \
                 connections"
                    .to_owned(),
            ),
            Refusal::GoingChanges { .. } => Some(
                "to load the spec and keep those rules, leave out --adopt; to take them out anyway, add: --no-trial\n\
                 hint: to see all connections that the spec changes: sudo nvactl import live"
                    .to_owned(),
            ),
            Refusal::NotTested { .. } => {
                Some("to load the change without its tests, add: --no-trial".to_owned())
            }
            Refusal::CutsOff { .. } => Some(
                "change the spec, or what drops the packets; to load the change anyway, add: --no-trial"
                    .to_owned(),
            ),
            Refusal::OneFileForTwo => Some("add --family v4 or --family v6".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::per_family::Families;
    use crate::plan::planned;
    use crate::yaml;

    #[test]
    fn rules_that_match_the_ingress_in_postrouting_are_refused_on_an_old_kernel() {
        let refused = |release: &str, entrance: &str| {
            let text = format!(
                "firewall: {{interface: eth0, snat: 10.3.0.4}}
forwards:
- {{name: all, listen: 8080, target: {{pod: 10.224.0.118:80}}}}
- {{name: one, listen: 10.3.0.4:8080, target: {{pod: 10.224.0.118:80}}, interface: {{ingress: {entrance}}}, snat: none}}"
            );
            let set = yaml::read(text.as_bytes()).expect("it is valid");
            let want = planned(&set, Families::V4);
            let refused = refuse_on_old(release.parse().ok(), &want);
            refused.err().map(|refusal| refusal.to_string())
        };
        assert_eq!(
            refused("5.4.0-150-generic", "eth2").expect("it is refused"),
            "`one` and another forward send the same packets to one target with different `snat`: this needs \
             Linux 5.5, and Linux 5.4 is running"
        );
        let outbound = |release: &str, interface: &str| {
            let text = format!(
                "firewall: {{interface: {interface}}}\noutbound: [{{name: out, allow_from: [10.224.0.0/16]}}]"
            );
            let set = yaml::read(text.as_bytes()).expect("it is valid");
            let refused = refuse_on_old(release.parse().ok(), &planned(&set, Families::V4));
            refused.err().map(|refusal| refusal.to_string())
        };
        let two = "{ingress: eth0, egress: eth1}";
        assert_eq!(
            outbound("5.4.0", two).expect("it is refused"),
            "the rules for the source of `out` must know by which interface a packet came in: this needs Linux 5.5, \
             and Linux 5.4 is running"
        );
        assert_eq!(outbound("5.5.0", two), None);
        assert_eq!(outbound("5.4.0", "eth0"), None);
        for (release, entrance) in [("5.5.0", "eth2"), ("no number", "eth2"), ("5.4.0", "eth0")] {
            assert_eq!(refused(release, entrance), None, "{release}, {entrance}");
        }
    }
}

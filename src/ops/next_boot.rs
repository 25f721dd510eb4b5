//! What the next boot brings, where that is not what is loaded now.

use super::history::moment;
use super::records::Saved;
use super::remark::Remarks;
use super::saved::compared;
use super::state::State;
use crate::host::iptables::Iptables;
use crate::host::persistence::{self, AtBoot};
use crate::host::{boot_unit, sysctl};
use crate::net::Family;
use crate::per_family::PerFamily;
use crate::ruleset::Ruleset;
use crate::spec::ForwardSet;
use crate::status::RulesFile;
use crate::sysctl::{Assignment, Switch};

/// What the next boot brings of one family.
#[derive(Debug)]
pub struct NextBoot {
    /// The file, or in words the record, that nvactl's rules come back from.
    pub place: &'static str,
    /// How those compare with the ones that are loaded.
    pub rules: RulesFile,
    /// Why the file does not load, if it does not.
    pub refused: Option<String>,
    pub by: AtBoot,
    /// The value of the switch for forwarding that is set last, and by what.
    pub forwards: Option<(bool, String)>,
    /// A line that sets it only where `sysctl --system` is run after the boot.
    pub forwards_unread: Option<String>,
}

/// Looks what the next boot brings; `set` names the interfaces that have a switch of their own.
#[must_use]
pub fn look(
    state: Option<&State>,
    iptables: &Iptables,
    family: Family,
    live: &Ruleset,
    set: &ForwardSet,
) -> NextBoot {
    let files = sysctl::at_boot(Switch::Forwarding(family));
    let winner = files.decider(set.interfaces());
    let line = |line: &Assignment| format!("{}:{}", line.file.display(), line.line);
    let mut next = NextBoot {
        place: persistence::rules_file(family),
        rules: RulesFile::Missing,
        refused: None,
        by: persistence::at_boot(family),
        forwards: winner.map(|winner| (winner.on, line(winner))),
        forwards_unread: files.other_winner().map(line),
    };
    if next.by != AtBoot::Unit {
        (next.rules, next.refused) = persistence::compared(iptables, family, live);
        return next;
    }
    let saved = state.map_or(Ok(None), State::saved);
    next.place = "the saved state";
    next.rules = compared(&saved, family, live);
    let forwards = |saved: &Saved| match family {
        Family::V4 => saved.forwards,
        Family::V6 => saved.forwards_v6,
    };
    if saved.ok().flatten().is_some_and(|saved| forwards(&saved)) {
        next.forwards = Some((true, boot_unit::NAME.to_owned()));
    }
    next
}

/// Says of a change that it ends with the next boot, if nothing is saved yet, or what [`say`] does.
pub fn say_of_change(
    state: &State,
    iptables: &Iptables,
    rules: &PerFamily<&Ruleset>,
    remarks: &mut Remarks,
) {
    let saved = |family| !matches!(persistence::holds_own(family), Ok(false));
    let nothing = !boot_unit::is_enabled() && !Family::ALL.into_iter().any(saved);
    if nothing && rules.values().any(|rules| rules.holds_own()) {
        remarks.note("this holds until the next boot; `sudo nvactl persist` keeps it");
    } else {
        say(state, iptables, rules, remarks);
    }
}

/// Says that the next boot brings other rules than these, and how they are kept; nothing where it brings the
/// same.
pub fn say(state: &State, iptables: &Iptables, rules: &PerFamily<&Ruleset>, remarks: &mut Remarks) {
    if boot_unit::is_enabled() {
        let saved = state.saved();
        let same =
            |(family, rules): (_, &&Ruleset)| compared(&saved, family, rules) == RulesFile::Same;
        if rules.iter().all(same) {
            return;
        }
        remarks.note(match saved {
            Ok(Some(saved)) => format!(
                "the next boot brings back the rules saved at {}; `sudo nvactl persist` saves what is loaded now",
                moment(saved.time)
            ),
            _ => "the next boot brings nothing back; `sudo nvactl persist` saves what is loaded now".to_owned(),
        });
        return;
    }
    for (family, rules) in rules.iter() {
        let file = persistence::rules_file(family);
        let kept = persistence::compared_text(family, rules);
        match kept.unwrap_or_else(|| persistence::compared(iptables, family, rules).0) {
            RulesFile::Different => remarks.note(format_args!(
                "{file} brings back other rules at the next boot; `sudo nvactl persist` saves what is loaded now"
            )),
            RulesFile::Refused => remarks.note(format_args!(
                "{file} does not load at the next boot; `sudo nvactl persist` writes it anew"
            )),
            RulesFile::Same | RulesFile::Missing | RulesFile::Unreadable => {}
        }
    }
}

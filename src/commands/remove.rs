//! `nvactl remove`: takes out what nvactl owns.

use anyhow::Result;

use super::{Console, Exit, Host, Refusal, confirm, counted, families, policy};
use crate::cli::Remove;
use crate::foreign;
use crate::host::persistence::{self, note_v6};
use crate::host::transaction::Transaction;
use crate::host::{self, lock};
use crate::line::Line;
use crate::net::Family;
use crate::per_family::{PerFamily, changes};
use crate::ruleset::{ChainName, Policy, Ruleset, TableName};

pub fn run(args: &Remove, on: Host<'_>, console: &mut Console) -> Result<Exit> {
    host::require_root("remove")?;
    let state = on.state()?;
    let lock = lock::take(&state.lock_file(), args.lock_timeout)?;
    confirm::refuse_while_pending(&state)?;
    let iptables = on.iptables(args.lock_timeout);
    let before = iptables.read_all_counted(families(None, Some(&state)))?;
    let live = before.map(|_, (live, _)| live);
    for (family, live) in live.iter() {
        if let Some((table, chain, rule)) = foreign::reference(live) {
            return Err(Refusal::StillReferenced {
                line: Line::Append(chain, rule).to_string(),
                removal: Line::Delete(chain, rule).as_command(family, table),
            }
            .into());
        }
    }
    let want = PerFamily::new(live.families(), |_| {
        let mut want = Ruleset::default();
        if args.forward_policy.is_some() {
            want.chain_mut(TableName::Filter, ChainName::Forward).policy = Some(Policy::Accept);
        }
        want
    });
    let changes = changes(&live, &want);
    if changes.is_empty() {
        console.say(format_args!("no changes: nothing of nvactl's is loaded"));
        if !args.dry_run {
            note_v6(&state, live.v6);
        }
    } else if args.dry_run {
        console.print(&changes.report());
    } else {
        Transaction {
            state: &state,
            lock: &lock,
            iptables: &iptables,
            before: &before,
            want: &want,
            action: "remove".to_owned(),
            trial: false,
        }
        .commit()?;
        let (_, removed) = changes.rule_counts();
        console.say(format_args!("removed {}", counted(removed, "rule")));
        say_connections_end(console);
    }
    for (family, live) in live.iter() {
        say_policy(family, live, args, console);
        warn_of_rules_file(family, console);
    }
    Ok(if args.dry_run && !changes.is_empty() {
        Exit::Differs
    } else {
        Exit::Done
    })
}

fn say_policy(family: Family, live: &Ruleset, args: &Remove, console: &mut Console) {
    if live.forward_policy() != Policy::Drop {
        return;
    }
    let policy = policy(family);
    match (args.forward_policy, args.dry_run) {
        (None, _) => say_policy_stays(family, console),
        (Some(_), false) => {
            console.say(format_args!(
                "the {policy} went from DROP to ACCEPT: what no rule drops is forwarded"
            ));
        }
        (Some(_), true) => {
            console.say(format_args!("the {policy} would go from DROP to ACCEPT"));
        }
    }
}

/// The kernel tracks and translates only for as long as some rule needs it.
pub fn say_connections_end(console: &mut Console) {
    console.note(
        "connections that went through these forwards end, unless rules of others still have the \
         kernel translate",
    );
}

/// Said of a policy that drops, where nvactl's rules go.
pub fn say_policy_stays(family: Family, console: &mut Console) {
    let command = Line::SetPolicy(&ChainName::Forward, Policy::Accept);
    console.say(format_args!(
        "the {} stays DROP; to forward everything: {}",
        policy(family),
        command.as_command(family, TableName::Filter)
    ));
}

/// What was taken out comes back at boot where the rules file still has it.
pub fn warn_of_rules_file(family: Family, console: &mut Console) {
    match persistence::holds_own(family) {
        Ok(false) => {}
        Ok(true) => console.warn(format_args!(
            "{} still holds nvactl's rules, and brings them back at boot; \
             to take them out: nvactl persist --own",
            persistence::rules_file(family)
        )),
        Err(error) => {
            let error = anyhow::Error::from(error);
            console.warn(format_args!(
                "whether the rules come back at boot is not known: {error:#}"
            ));
        }
    }
}

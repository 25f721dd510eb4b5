//! `nvactl remove`: takes out what nvactl owns.

use anyhow::Result;

use super::{Console, Exit, Host, Refusal, confirm, counted};
use crate::cli::Remove;
use crate::diff;
use crate::foreign;
use crate::host::persistence::RULES_FILE;
use crate::host::transaction::Transaction;
use crate::host::{self, file, lock};
use crate::line::Line;
use crate::parse;
use crate::ruleset::{ChainName, Policy, Ruleset, TableName};

pub fn run(args: &Remove, on: Host<'_>, console: &mut Console) -> Result<Exit> {
    host::require_root("remove")?;
    let state = on.state()?;
    let lock = lock::take(&state, args.lock_timeout)?;
    confirm::refuse_while_pending(&state)?;
    let iptables = on.iptables(args.lock_timeout);
    let live = iptables.read()?;
    if let Some((table, chain, rule)) = foreign::reference(&live.ruleset) {
        return Err(Refusal::StillReferenced {
            line: Line::Append(chain, rule).to_string(),
            removal: Line::Delete(chain, rule).as_command(table),
        }
        .into());
    }
    let mut want = Ruleset::default();
    if args.forward_policy.is_some() {
        want.chain_mut(TableName::Filter, ChainName::Forward).policy = Some(Policy::Accept);
    }
    let changes = diff::changes(&live.ruleset, &want);
    if changes.is_empty() {
        console.say(format_args!("no changes: nothing of nvactl's is loaded"));
    } else if args.dry_run {
        console.print(&changes.report());
    } else {
        Transaction {
            state: &state,
            lock: &lock,
            iptables: &iptables,
            before: &live.ruleset,
            want: &want,
            action: "remove".to_owned(),
            trial: false,
        }
        .commit()?;
        let (_, removed) = changes.rule_counts();
        console.say(format_args!("removed {}", counted(removed, "rule")));
    }
    say_policy(&live.ruleset, args, console);
    warn_of_rules_file(console);
    Ok(if args.dry_run && !changes.is_empty() {
        Exit::Differs
    } else {
        Exit::Done
    })
}

fn say_policy(live: &Ruleset, args: &Remove, console: &mut Console) {
    if live.forward_policy() != Policy::Drop {
        return;
    }
    match (args.forward_policy, args.dry_run) {
        (None, _) => {
            let command = Line::SetPolicy(&ChainName::Forward, Policy::Accept);
            console.say(format_args!(
                "the FORWARD policy stays DROP; to forward everything: {}",
                command.as_command(TableName::Filter)
            ));
        }
        (Some(_), false) => {
            console.say(
                "the FORWARD policy went from DROP to ACCEPT: what no rule drops is forwarded",
            );
        }
        (Some(_), true) => console.say("the FORWARD policy would go from DROP to ACCEPT"),
    }
}

fn warn_of_rules_file(console: &mut Console) {
    let bytes = match file::read(RULES_FILE.as_ref()) {
        Ok(bytes) => bytes.unwrap_or_default(),
        Err(error) => {
            let error = anyhow::Error::from(error);
            console.warn(format_args!(
                "whether the rules come back at boot is not known: {error:#}"
            ));
            return;
        }
    };
    // What nvactl cannot read says nothing of its rules for sure; the text does.
    let text = String::from_utf8_lossy(&bytes);
    let holds = parse::parse(&text).map_or_else(
        |_| text.contains("NVACTL-"),
        |ruleset| ruleset.chains().any(|(_, name, _)| name.is_own()),
    );
    if holds {
        console.warn(format_args!(
            "{RULES_FILE} still holds nvactl's rules, and brings them back at boot; \
             to take them out: nvactl persist --own"
        ));
    }
}

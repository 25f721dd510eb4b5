//! `nvactl persist`: the live rules into the files that are loaded at boot.

use anyhow::Result;

use super::{Console, Exit, Host, load_spec};
use crate::cli::Persist;
use crate::host;
use crate::host::persistence::AtBoot;
use crate::ops::persist::{Expected, Request, persist};

pub fn run(args: &Persist, on: Host<'_>, console: &mut Console) -> Result<Exit> {
    let checked = match &args.spec {
        Some(path) => Some(load_spec(Some(path), console)?),
        None => None,
    };
    host::require_root("persist")?;
    let only_if = checked.as_ref().map(|(source, set)| Expected {
        set,
        name: &source.name,
        argument: source.argument(),
    });
    let request = Request {
        only_if,
        family: args.family,
        output: args.output.as_deref(),
    };
    let report = persist(&request, &on.machine(args.lock_timeout)?)?;
    console.remarks(&report.remarks);
    for written in &report.written {
        console.say(format_args!("{}: written", written.path.display()));
        if let Some(at_boot) = written.at_boot {
            say_boot(at_boot, console);
        }
    }
    if report.failed.is_empty() {
        return Ok(if report.partly {
            Exit::Uncertain
        } else {
            Exit::Done
        });
    }
    for error in report.failed {
        console.error(format_args!("{:#}", anyhow::Error::from(error)));
    }
    console.tell("hint: some files were written; to write the rest: sudo nvactl persist\n");
    Ok(Exit::Uncertain)
}

fn say_boot(at_boot: AtBoot, console: &mut Console) {
    match at_boot {
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

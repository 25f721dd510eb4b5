//! `nvactl import --kubernetes`: writes a spec from Services of a cluster.

mod comments;
mod report;

use std::path::Path;

use crate::cli::{ImportArgs, ImportFormat};
use crate::commands::console::Console;
use crate::commands::error::Result;
use crate::commands::exit::Exit;
use crate::commands::failure::CommandRefusal;
use crate::commands::objects::{ReadObjects, read_objects};
use crate::forwards::{Firewall, Forward, ForwardPolicy, ForwardSet, Snat, Snats};
use crate::host::file;
use crate::kubernetes::{KubeName, KubeService, ServiceDraft, draft};
use crate::yaml::{self, Comments, Severity, nearest, spec_text};
use comments::comments;
use report::ServiceReport;

/// The interface of a machine that is not known.
const INTERFACE: &str = "eth0";
/// The most names that an error lists.
const MOST_NEAR: usize = 3;

pub fn run(args: &ImportArgs, path: &Path, console: &mut Console) -> Result<Exit> {
    let read = read_objects(path)?;
    let services = selected(&read, &args.select)?;
    let mut draft = draft(services.iter().copied(), firewall());
    refuse(&mut draft);
    let spec = spec_text(&draft.set, &comments(&draft, &services, &read.name));
    let report = ServiceReport {
        read: &read,
        services: &services,
        draft: &draft,
        spec: &spec,
        output: args.output.as_deref(),
        is_selection: !args.select.is_empty(),
    };
    if let Some(path) = &args.output {
        file::replace(path, spec.as_bytes(), file::SPEC_MODE)?;
    }
    match args.format {
        ImportFormat::Json => console.say_json(&report.json())?,
        ImportFormat::Text if args.output.is_some() => console.print(&report.table()),
        ImportFormat::Text => {
            console.print_exact(&spec);
            console.tell(report.table());
        }
    }
    Ok(Exit::Done)
}

/// Returns the named Services in the order of the file; all of them if none is named.
fn selected<'r>(read: &'r ReadObjects, names: &[KubeName]) -> Result<Vec<&'r KubeService>> {
    let all = &read.objects.services;
    let is_there = |name: &&KubeName| !all.iter().any(|service| service.name == **name);
    if let Some(name) = names.iter().find(is_there) {
        return Err(CommandRefusal::NoSuchService {
            file: read.name.clone(),
            name: name.clone(),
            near: near(name, all),
        }
        .into());
    }
    let chosen = all
        .iter()
        .filter(|one| names.is_empty() || names.contains(&one.name));
    Ok(chosen.collect())
}

/// Returns the Services that may be meant by a name: those of its name in other namespaces, else the one that is
/// spelled most like it.
fn near(name: &KubeName, all: &[KubeService]) -> Vec<KubeName> {
    let namesakes = all.iter().filter(|one| one.name.name == name.name);
    let namesakes: Vec<KubeName> = namesakes
        .map(|one| one.name.clone())
        .take(MOST_NEAR)
        .collect();
    if !namesakes.is_empty() {
        return namesakes;
    }
    let names: Vec<String> = all.iter().map(|one| one.name.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let nearest = nearest(&name.to_string(), &names);
    nearest
        .and_then(|name| name.parse().ok())
        .into_iter()
        .collect()
}

/// Returns the firewall of a spec that is written far from the machine.
fn firewall() -> Firewall {
    let interface: crate::net::Interface =
        INTERFACE.parse().expect("it is the name of an interface");
    Firewall {
        ingress: vec![interface.clone()],
        egress: interface,
        snat: Snats {
            v4: Some(Snat::Masquerade),
            v6: Some(Snat::Masquerade),
        },
        mss: None,
        forward_policy: ForwardPolicy::Drop,
        layout: None,
    }
}

/// Takes the forwards out of a draft that a spec refuses by themselves, such as one to a loopback address.
fn refuse(draft: &mut ServiceDraft) {
    let forwards = draft.set.forwards.clone();
    let pieces = forwards.chunk_by(|one, other| one.name == other.name);
    let sketched = draft.sketched.clone();
    let sketched = sketched.iter().map(|one| one.pieces.as_slice());
    for pieces in pieces.chain(sketched) {
        if let Some(why) = error(pieces, &draft.set) {
            draft.refuse(&pieces[0].name, &why);
        }
    }
}

/// Returns the first error of a spec with one forward.
fn error(pieces: &[Forward], set: &ForwardSet) -> Option<String> {
    let alone = ForwardSet {
        forwards: pieces.to_vec(),
        ..without_forwards(set)
    };
    let text = spec_text(&alone, &Comments::default());
    let problems = yaml::examine(text.as_bytes()).problems.into_iter();
    let mut errors = problems.filter(|one| one.severity() == Severity::Error);
    Some(errors.next()?.words().text)
}

fn without_forwards(set: &ForwardSet) -> ForwardSet {
    ForwardSet {
        description: None,
        firewall: set.firewall.clone(),
        forwards: Vec::new(),
        outbound: Vec::new(),
        tests: Vec::new(),
    }
}

//! `nvactl check`: reports every problem of a spec, and prints nothing for a valid one.

use std::path::Path;

use super::console::Console;
use super::error::Result;
use super::exit::Exit;
use super::failure::CommandRefusal;
use super::objects::read_objects;
use super::spec::{examine_against, places, read_spec, show_problems};
use crate::cli::{CheckArgs, CheckFormat, Deny};
use crate::yaml::annotation::{Annotation, ProblemReport};
use crate::yaml::{Code, Problem, Severity};

pub fn run(args: &CheckArgs, console: &mut Console) -> Result<Exit> {
    if args.list {
        list(console);
        return Ok(Exit::Done);
    }
    let named = args.spec.spec.as_deref();
    let stdin = Some(Path::new("-"));
    if named == stdin && args.kubernetes.as_deref() == stdin {
        return Err(CommandRefusal::TwoInputs.into());
    }
    let source = read_spec(named)?;
    let objects = match &args.kubernetes {
        Some(path) => Some(read_objects(path)?.objects),
        None => None,
    };
    let mut problems = examine_against(&source, objects.as_ref()).problems;
    problems.retain(|problem| args.notes || problem.severity() != Severity::Note);

    let places = places(&source);
    let annotations = || {
        problems
            .iter()
            .map(|problem| Annotation::new(&source.name, &places, problem))
    };
    let errors = problems
        .iter()
        .filter(|problem| problem.severity() == Severity::Error)
        .count();
    match args.format {
        CheckFormat::Text => {
            show_problems(&places, &problems, console);
        }
        CheckFormat::Json => {
            let report = ProblemReport {
                file: &source.name,
                sound: errors == 0,
                problems: annotations().collect(),
            };
            console.say_json(&report)?;
        }
        CheckFormat::Github => {
            for annotation in annotations() {
                console.say(annotation.as_workflow_command(&source.name));
            }
        }
    }
    if errors > 0 {
        return Err(CommandRefusal::Spec {
            file: source.name,
            count: errors,
        }
        .into());
    }
    let denied: Vec<&Problem> = problems
        .iter()
        .filter(|problem| args.deny.iter().any(|deny| denies(*deny, problem)))
        .collect();
    if denied.is_empty() {
        return Ok(Exit::Done);
    }
    console.tell(format_args!(
        "denied: `{}` has {}\n",
        source.name,
        crate::net::words::counted(denied.len(), "warning")
    ));
    Ok(Exit::Differs)
}

fn denies(deny: Deny, problem: &Problem) -> bool {
    match deny {
        Deny::All => problem.severity() == Severity::Warning,
        Deny::Code(code) => problem.kind.code() == code,
    }
}

fn list(console: &mut Console) {
    for code in Code::ALL {
        let severity = code.severity().as_str();
        console.say(format_args!("{code:<21} {severity:<8} {}", code.meaning()));
    }
}

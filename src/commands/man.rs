//! `nvactl man`: the manual page, from the types of the command line.
//!
//! `packaging/man.roff` has the sections that the command line does not know.

use std::io;

use clap::{Arg, Command, CommandFactory as _};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};

use super::console::Console;
use super::error::{Error, Result};
use super::exit::Exit;
use crate::cli::{Cli, VERSION};

/// Prints the page.
pub fn run(console: &mut Console) -> Result<Exit> {
    let page = page(Cli::command()).map_err(Error::Output)?;
    console.print_exact(&page);
    Ok(Exit::Done)
}

/// Returns the page of a program with all its commands.
fn page(mut root: Command) -> io::Result<String> {
    root.build();
    let mut roff = Roff::new();
    let source = format!("nvactl {VERSION}");
    // Section 8 has the programs for administrators. A date is left out: equal sources give equal pages.
    let title = ["NVACTL", "8", "\"\"", &source, "System administration"];
    roff.control("TH", title);
    roff.control("SH", ["NAME"]);
    roff.text([roman(
        "nvactl - declarative port forwarding for a firewall VM",
    )]);
    roff.control("SH", ["SYNOPSIS"]);
    let synopsis = [
        bold("nvactl "),
        italic("COMMAND"),
        roman(" [OPTIONS] [SPEC]"),
    ];
    roff.text(synopsis);
    roff.control("SH", ["DESCRIPTION"]);
    let about = root.get_long_about().map(ToString::to_string);
    paragraphs(&mut roff, &about.unwrap_or_default());
    let after = root.get_after_help().map(ToString::to_string);
    let after = after.unwrap_or_default();
    let (spec, codes) = after.split_once("\n\n").unwrap_or((&after, ""));
    paragraphs(&mut roff, spec);
    roff.control("SH", ["COMMANDS"]);
    // An empty text has the definitions that every text of clap_mangen needs, and nothing else.
    let mut page = Roff::new().render() + &roff.to_roff();
    for command in shown(&root) {
        add_command(command, &[], &mut page)?;
    }
    page.push_str(&options(&root, |_| true)?);
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    paragraphs(&mut roff, codes);
    page.push_str(&roff.to_roff());
    page.push_str(include_str!("../../packaging/man.roff"));
    Ok(page)
}

/// Returns the commands that the help lists, but for `help` itself.
fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    let all = command.get_subcommands();
    all.filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

/// Adds a command, its options and examples, then the commands below it. `before` has the names of those above.
fn add_command(command: &Command, before: &[&str], page: &mut String) -> io::Result<()> {
    let names = [before, &[command.get_name()]].concat();
    let mut roff = Roff::new();
    roff.control("SS", [format!("nvactl {}", names.join(" ")).as_str()]);
    let about = command.get_long_about().or_else(|| command.get_about());
    paragraphs(
        &mut roff,
        &about.map(ToString::to_string).unwrap_or_default(),
    );
    page.push_str(&roff.to_roff());
    let own = |argument: &Arg| {
        !argument.is_global_set() && argument.get_id() != "help" && argument.get_id() != "version"
    };
    let options = options(command, own)?;
    // The heading of the options is that of the command.
    page.push_str(options.split_once('\n').map_or("", |(_, rest)| rest));
    let mut roff = Roff::new();
    let after = command.get_after_help().map(ToString::to_string);
    paragraphs(&mut roff, &after.unwrap_or_default());
    page.push_str(&roff.to_roff());
    for below in shown(command) {
        add_command(below, &names, page)?;
    }
    Ok(())
}

/// Returns the options of a command that are wanted, as sections of a page.
fn options(command: &Command, is_wanted: impl Fn(&Arg) -> bool) -> io::Result<String> {
    let arguments = command
        .get_arguments()
        .filter(|argument| is_wanted(argument));
    // The arguments have those of help and version, for which clap asks the version.
    let only = Command::new("nvactl")
        .version(VERSION)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(arguments.cloned());
    let mut text = Vec::new();
    Man::new(only).render_options_section(&mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    // The definitions stand before the heading, and the page has them already.
    Ok(text
        .find(".SH")
        .map_or(String::new(), |at| text[at..].to_owned()))
}

/// Adds paragraphs, which an empty line separates. Lines that begin with a blank are shown as they are.
fn paragraphs(roff: &mut Roff, text: &str) {
    for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        roff.control("PP", []);
        let is_example = |line: &str| line.starts_with(' ');
        let (examples, words): (Vec<&str>, Vec<&str>) =
            paragraph.lines().partition(|line| is_example(line));
        for line in words {
            roff.text([roman(line)]);
        }
        if !examples.is_empty() {
            roff.control("RS", ["4"]).control("nf", []);
            for line in examples {
                roff.text([bold(line.trim_start())]);
            }
            roff.control("fi", []).control("RE", []);
        }
    }
}

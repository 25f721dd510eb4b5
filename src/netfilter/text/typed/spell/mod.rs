//! Spells a typed rule as iptables-save prints it, so that [`parse`](crate::netfilter::text::parse) reads it.
//!
//! Options without a type keep the values that were typed. iptables-save may print some of these differently, such as
//! the name of a user by its number.

mod checks;
mod hashlimit;
mod lists;
mod matches;
mod needs;
mod place;
mod targets;
mod words;

pub(super) use place::TypedPlace;

use super::command::{Typed, TypedRule, TypedTarget};
use super::error::{OrProblem, TypedProblem};
use super::values::addresses::Net;
use super::values::protocols;
use crate::net::Family;
use words::bare;

/// The most rules of one command. A short line with two long lists would fill the memory.
const MOST_RULES: usize = 1 << 16;

/// Spells the rules that a command makes: one for each pair of its listed sources and destinations.
pub(super) fn rules(rule: &TypedRule, place: TypedPlace<'_>) -> OrProblem<Vec<Vec<String>>> {
    checks::check(rule, place)?;
    let family = place.family;
    let sources = nets("-s", rule.source.as_ref(), family)?;
    let destinations = nets("-d", rule.destination.as_ref(), family)?;
    if sources.len() * destinations.len() > MOST_RULES {
        return Err(TypedProblem::Refused(
            "its lists of addresses make more than 65536 rules",
        ));
    }
    let mut rest = interface("-i", rule.ingress.as_ref())?;
    rest.extend(interface("-o", rule.egress.as_ref())?);
    rest.extend(protocol(rule.protocol.as_ref())?);
    if let Some(is_wanted) = rule.fragments {
        push(&mut rest, !is_wanted, "-f", []);
    }
    for loaded in &rule.matches {
        rest.extend(matches::words(loaded, family)?);
    }
    if let Some(target) = &rule.target {
        rest.extend(target_words(target, family)?);
    }
    let pairs = sources.iter().flat_map(|source| {
        let destinations = destinations.iter();
        destinations.map(move |destination| [source.as_slice(), destination.as_slice()].concat())
    });
    Ok(pairs.map(|pair| [pair, rest.clone()].concat()).collect())
}

fn target_words(target: &TypedTarget, family: Family) -> OrProblem<Vec<String>> {
    let option = if target.is_goto { "-g" } else { "-j" };
    let mut words = vec![option.to_owned(), target.name.clone()];
    if let Some(loaded) = &target.loaded {
        words.extend(targets::options(loaded, family)?);
    }
    Ok(words)
}

fn push<const N: usize>(
    words: &mut Vec<String>,
    is_negated: bool,
    option: &str,
    values: [String; N],
) {
    words.extend(is_negated.then(|| "!".to_owned()));
    words.push(option.to_owned());
    words.extend(values);
}

/// Spells each network of a list.
fn nets(option: &str, typed: Option<&Typed>, family: Family) -> OrProblem<Vec<Vec<String>>> {
    let Some(Typed { is_negated, value }) = typed else {
        return Ok(vec![Vec::new()]);
    };
    if *is_negated && value.contains(',') {
        return Err(TypedProblem::Refused(
            "`!` cannot stand with a list of addresses",
        ));
    }
    let of_one = |net: &str| {
        let spelled = match (Net::read(net, family, option)?, family) {
            (Net::All, _) if !is_negated => return Ok(Vec::new()),
            (Net::All, Family::V4) => "0.0.0.0/0".to_owned(),
            (Net::All, Family::V6) => "::/0".to_owned(),
            (Net::Of(net), _) => net.trunc().to_string(),
            (Net::Masked(address, mask), _) => format!("{address}/{mask}"),
        };
        let mut words = Vec::new();
        push(&mut words, *is_negated, option, [spelled]);
        Ok(words)
    };
    value.split(',').map(of_one).collect()
}

/// The bytes that the kernel keeps of a name (`IFNAMSIZ` in `linux/if.h`, with the NUL).
const LONGEST_NAME: usize = 15;

fn interface(option: &str, typed: Option<&Typed>) -> OrProblem<Vec<String>> {
    let mut words = Vec::new();
    let Some(Typed { is_negated, value }) = typed else {
        return Ok(words);
    };
    if value.is_empty() || value.len() > LONGEST_NAME {
        return Err(TypedProblem::BadValue {
            option: option.to_owned(),
            value: value.clone(),
            expected: "a name of 1 to 15 bytes",
        });
    }
    if value == "+" && !is_negated {
        return Ok(words);
    }
    push(&mut words, *is_negated, option, [bare(value)]);
    Ok(words)
}

fn protocol(typed: Option<&Typed>) -> OrProblem<Vec<String>> {
    let mut words = Vec::new();
    let Some(Typed { is_negated, value }) = typed else {
        return Ok(words);
    };
    let spelled = protocols::spelled(value).ok_or_else(|| TypedProblem::BadValue {
        option: "-p".to_owned(),
        value: value.clone(),
        expected: "the name or the number of a protocol",
    })?;
    match (spelled.is_empty(), is_negated) {
        (true, true) => {
            return Err(TypedProblem::Refused("no packet has none of all protocols"));
        }
        (true, false) => {}
        (false, _) => push(&mut words, *is_negated, "-p", [spelled]),
    }
    Ok(words)
}

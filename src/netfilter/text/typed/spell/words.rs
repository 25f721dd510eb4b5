//! Words as iptables-save prints them.

use crate::netfilter::text::typed::command::Given;
use crate::netfilter::text::typed::extensions::Extension;
use crate::netfilter::token::Quoted;

/// Spells a value that iptables-save prints without quotes. Quotes keep one with blanks together.
pub fn bare(value: &str) -> String {
    if value.is_empty() || value.contains([' ', '\t', '\n', '"']) {
        Quoted(value).to_string()
    } else {
        value.to_owned()
    }
}

/// Spells options in the order of iptables-save.
pub fn in_order(extension: Extension, mut given: Vec<Given>) -> Vec<String> {
    // `-m policy` describes one element after another.
    if extension.name != "policy" {
        given.sort_by_key(|given| given.at);
    }
    let mut words = Vec::new();
    for Given {
        name,
        is_negated,
        values,
        ..
    } in given
    {
        words.extend(is_negated.then(|| "!".to_owned()));
        words.push(format!("--{name}"));
        words.extend(values);
    }
    words
}

/// Makes an option that was not typed.
pub fn added(extension: Extension, name: &str, value: Option<&str>) -> Option<Given> {
    let option = extension.option(name)?;
    Some(Given {
        name: option.name(),
        at: option.at,
        is_negated: false,
        values: value.into_iter().map(str::to_owned).collect(),
    })
}

/// Returns what the kernel keeps of a text.
pub fn clipped(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest)]
}

//! A spec as text, from the checked model. The text reads back to the same model.
//!
//! Values are written by `serde_yaml`, one entry at a time, so that comments can stand between them.

mod firewall;
mod forward;
mod nets;
mod outbound;
mod values;

use std::collections::BTreeMap;

use serde_yaml::Value;

use super::packet_tests::tests_text;
use crate::forwards::{ForwardSet, Name};
use crate::net::printable;
use nets::Nobody;

/// The comments of a spec, each a line of words without `#`.
#[derive(Debug, Clone, Default)]
pub struct Comments {
    /// Before everything else.
    pub head: Vec<String>,
    pub firewall: Vec<String>,
    /// Before the forward or outbound entry of this name.
    pub entries: BTreeMap<Name, Vec<String>>,
    /// Behind everything else.
    pub tail: Vec<String>,
}

/// Returns the text of a spec. [`super::read`] reads it back to the same model, without the names of networks and the
/// places of tests.
#[must_use]
pub fn spec_text(set: &ForwardSet, comments: &Comments) -> String {
    let mut text = comment_lines(&comments.head, "");
    if !text.is_empty() {
        text.push('\n');
    }
    if let Some(description) = &set.description {
        let value = Value::from(description.as_str());
        text.push_str(&block("description", value));
    }
    text.push_str(&comment_lines(&comments.firewall, ""));
    text.push_str(&block("firewall", firewall::value(set)));
    if let Some(networks) = Nobody::of(set).networks() {
        text.push_str(&block("networks", networks));
    }
    let forwards = set.forwards.chunk_by(|one, other| one.name == other.name);
    let forwards = forwards.map(|pieces| {
        let value = forward::value(pieces, &set.firewall);
        (&pieces[0].name, value)
    });
    // A spec with outbound entries alone has no such key, and needs no `snat` of the firewall.
    if !set.forwards.is_empty() || set.outbound.is_empty() {
        push_list(&mut text, "forwards", forwards, comments);
    }
    if !set.outbound.is_empty() {
        let families = set.outbound.chunk_by(|one, other| one.name == other.name);
        let entries = families.map(|families| {
            let value = outbound::value(families, &set.firewall);
            (&families[0].name, value)
        });
        push_list(&mut text, "outbound", entries, comments);
    }
    if !set.tests.is_empty() {
        text.push('\n');
        text.push_str(&tests_text(&set.tests));
    }
    if !comments.tail.is_empty() {
        text.push('\n');
        text.push_str(&comment_lines(&comments.tail, ""));
    }
    text
}

/// Adds a key with a list of entries, each with its comments before it.
fn push_list<'n>(
    text: &mut String,
    key: &str,
    entries: impl Iterator<Item = (&'n Name, Value)>,
    comments: &Comments,
) {
    let mut entries = entries.peekable();
    if entries.peek().is_none() {
        text.push_str(&format!("\n{key}: []\n"));
        return;
    }
    text.push_str(&format!("\n{key}:\n"));
    for (name, value) in entries {
        if let Some(lines) = comments.entries.get(name) {
            text.push_str(&comment_lines(lines, "  "));
        }
        let mut lead = "  - ";
        for line in written(&value).lines() {
            text.push_str(&format!("{lead}{line}\n"));
            lead = "    ";
        }
    }
}

/// Returns a key and its value.
fn block(key: &str, value: Value) -> String {
    written(&values::mapping([(key, Some(value))]))
}

fn written(value: &Value) -> String {
    serde_yaml::to_string(value).expect("a value without tags can be written")
}

/// Returns lines of comments. Text from elsewhere cannot end a comment.
fn comment_lines(lines: &[String], indent: &str) -> String {
    let lines = lines.iter().map(|line| match line.as_str() {
        "" => format!("{indent}#\n"),
        line => format!("{indent}# {}\n", printable::line(line)),
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    #[test]
    fn a_spec_reads_back_and_has_its_comments() {
        let spec = "description: the NVA\n\
             firewall: {interface: {ingress: [eth0, eth2], egress: eth1}, snat: {v4: 10.4.0.4, v6: none}, mss: clamp, forward_policy: keep, layout: tree}\n\
             forwards:\n\
             - {name: web, listen: [80, '203.0.113.10:443'], protocol: [tcp, udp], target: {pod: ['10.224.0.118:81', '10.224.0.119:82']}, balance: client, deny_from: [192.0.2.0/24], hairpin: true}\n\
             - {name: '1e3', description: 'a: b', listen: 22, target: {ilb: '10.224.0.222'}, snat: masquerade, silence: [takes-ssh]}\n\
             outbound:\n\
             - {name: out, allow_from: [10.224.0.0/16, 'fd00::/8'], protocol: tcp, ports: [443, 8000-8010], interface: {ingress: eth1, egress: eth0}, limits: {new_per_second: 5, reject: true}, log: true}\n\
             tests: [{from: 192.0.2.7, to: 22, reaches: nothing}]\n";
        let set = yaml::read(spec.as_bytes()).expect("it is valid");
        let name = |text: &str| text.parse::<Name>().expect("a name");
        let comments = Comments {
            head: vec!["first".to_owned(), String::new(), "a\nb".to_owned()],
            firewall: vec!["the machine".to_owned()],
            entries: [(name("1e3"), vec!["ssh: reached".to_owned()])].into(),
            tail: vec!["last".to_owned()],
        };
        let text = spec_text(&set, &comments);
        insta::assert_snapshot!(text);
        let mut again = yaml::read(text.as_bytes()).expect("it is valid");
        again.tests[0].place = None;
        let mut set = set;
        set.tests[0].place = None;
        assert_eq!(again, set);
    }
}

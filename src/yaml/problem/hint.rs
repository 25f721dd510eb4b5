//! The hints that depend on a value. All others are in the table.

use std::net::IpAddr;

use crate::forwards::{INTERNET, LineError, Name, NameError};
use crate::net::{Family, Host, PortError, PortRange};

/// The edit that gives a target a port that its objects have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetEdit {
    /// This in its place.
    Write(String),
    /// None in its place: the list has this one already.
    Remove { beside: String },
}

pub(super) const TARGET: &str =
    "write the address of the internal load balancer or of the pod itself";
pub(super) const FEWER_PORTS: &str =
    "listen on fewer ports, or on an address that the firewall's own services do not use";

pub(super) fn not_in_cluster(with_pods: bool, namespace: Option<&str>) -> String {
    const ALL: &str = "kubectl get services,endpoints,pods --all-namespaces -o json";
    let ask = match (namespace, with_pods) {
        (Some(namespace), _) => format!(
            "the file has only the namespace `{namespace}`, so write a file with all of them: {ALL}"
        ),
        (None, true) => "write the address that the target has now".to_owned(),
        (None, false) => {
            format!("if it is a pod's address, put the pods into the file: {ALL}")
        }
    };
    format!(
        "{ask}; if the target is not in the cluster, add `silence: [not-in-cluster]` to the forward"
    )
}

pub(super) fn cluster_address(write: Option<&str>) -> String {
    let edit = match write {
        Some(target) => format!("write its load balancer: `{target}`"),
        None => "give the Service an internal load balancer (`type: LoadBalancer` and the annotation \
             `service.beta.kubernetes.io/azure-load-balancer-internal: \"true\"`), and write the address of that"
            .to_owned(),
    };
    format!(
        "{edit}; if the firewall is a node of the cluster, add `silence: [cluster-address]` to the forward"
    )
}

pub(super) fn not_exposed(edit: Option<&TargetEdit>) -> String {
    match edit {
        Some(TargetEdit::Write(target)) => format!("write `{target}`"),
        Some(TargetEdit::Remove { beside }) => {
            format!("remove it from the list, which has `{beside}` already")
        }
        None => "write one of its ports; if the target has others too, add `silence: [not-exposed]` to the forward"
            .to_owned(),
    }
}

/// Returns the nearest known word, or all of them if none is near.
pub(super) fn did_you_mean(text: &str, known: &[&'static str]) -> String {
    match nearest(text, known) {
        Some(word) => format!("did you mean `{word}`?"),
        None if known.len() == 1 => format!("write {}", one_of(known)),
        None => format!("write one of {}", one_of(known)),
    }
}

/// Returns the known word for which other programs have the word `text`.
fn meant<'k>(text: &str, known: &[&'k str]) -> Option<&'k str> {
    let words: &[&str] = match text {
        "from" | "source" | "sources" => &["allow_from", "from"],
        "to" | "destination" | "destinations" => &["allow_to", "to"],
        "client" | "src" => &["from"],
        "dst" => &["to"],
        "interface" | "ingress" => &["in"],
        "expect" | "target" | "result" => &["reaches"],
        "icmp" | "icmpv6" | "echo" => &["ping"],
        _ => return None,
    };
    known.iter().copied().find(|one| words.contains(one))
}

/// Returns the known word that `text` is probably a typing error for, or that other programs call so.
#[must_use]
pub fn nearest<'k>(text: &str, known: &[&'k str]) -> Option<&'k str> {
    // A word of a megabyte is no typing error, and the comparison would cost its square.
    known
        .iter()
        .filter(|_| text.len() <= 64)
        .map(|word| (strsim::damerau_levenshtein(text, word), *word))
        .filter(|(distance, word)| *distance <= word.len().max(text.len()) / 3)
        .min()
        .map(|(_, word)| word)
        .or_else(|| meant(text, known))
}

pub(super) fn one_of(known: &[&str]) -> String {
    let quoted: Vec<String> = known.iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}

/// Returns the name of the value that stands under a key.
pub(super) fn place(key: &str) -> String {
    match key {
        "spec" => "the spec".to_owned(),
        "forward" => "an entry of `forwards`".to_owned(),
        "network" => "an entry of `networks`".to_owned(),
        "entry" => "an entry of `outbound`".to_owned(),
        "test" => "an entry of `tests`".to_owned(),
        "test file" => "a file of tests".to_owned(),
        key => format!("`{key}`"),
    }
}

/// Returns a value that a key takes.
pub(super) fn value(key: &str) -> &'static str {
    match key {
        "version" => "1",
        "interface" | "ingress" | "egress" | "in" => "eth0",
        "snat" | "v4" => "10.3.0.4",
        "mss" => "clamp",
        "forward_policy" => "drop",
        "layout" => "tree",
        "name" | "prefix" => "web",
        "description" => "storefront of shop.example",
        "listen" => "49182",
        "protocol" => "tcp",
        "target" => "{pod: 10.224.0.118:80}",
        "pod" => "10.224.0.118:80",
        "ilb" => "10.224.0.222:49180",
        "enabled" => "false",
        "defaults" => "{protocol: udp}",
        "balance" | "per" => "client",
        "hairpin" | "reject" => "true",
        "burst" | "max_connections" => "100",
        "level" => "info",
        "per_minute" => "10",
        "connections" => "refused",
        "v6" => "\"fd00::4\"",
        "log" => "{per_minute: 10}",
        "limits" => "{new_per_second: 50, max_connections: 1000}",
        "new_per_second" => "50",
        "allow_from" | "deny_from" => "[198.51.100.0/24]",
        "allow_to" => "[internet, 10.50.0.0/16]",
        "deny_to" => "[10.50.0.0/16]",
        "ports" => "[443, 8000-8010]",
        "silence" => "[takes-ssh]",
        "firewall" => "{interface: eth0, snat: 10.3.0.4}",
        "networks" => "{office: [198.51.100.0/24]}",
        "file" => "scanners.txt",
        "forwards" => "[{name: web, listen: 49182, target: {pod: 10.224.0.118:80}}]",
        "from" => "198.51.100.7",
        "to" => "443",
        "reaches" => "nothing",
        "tests" => "[{from: 198.51.100.7, to: 22, reaches: nothing}]",
        "outbound" => "[{name: pods-out, allow_from: [10.224.0.0/16]}]",
        _ => "[]",
    }
}

/// Returns a key with a value, for a place without the key.
pub(super) fn missing(key: &str, place: &str) -> String {
    match key {
        "forwards" => format!("`outbound: {}`, or `forwards: []`", value("outbound")),
        "allow_from" => format!("`allow_from: {}`", behind(Family::V4)),
        "name" if place == "this outbound entry" => "`name: pods-out`".to_owned(),
        key => format!("`{key}: {}`", value(key)),
    }
}

/// Returns networks behind a firewall, such as an outbound entry needs.
pub(super) fn behind(family: Family) -> &'static str {
    match family {
        Family::V4 => "[10.224.0.0/16]",
        Family::V6 => "[\"fd00:224::/64\"]",
    }
}

/// Returns the key for each interface by which packets may leave.
pub(super) fn egresses(ingress: &[String]) -> String {
    let each = ingress.iter();
    let each = each.map(|egress| format!("`interface: {{egress: {egress}}}`"));
    each.collect::<Vec<_>>().join(" or ")
}

pub(super) fn wrong_type(key: &str) -> String {
    match key {
        "spec" => {
            "begin with, for example, `firewall: {interface: eth0, snat: 10.3.0.4}` and `forwards: []`"
                .into()
        }
        "forward" => {
            "write, for example, `- {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}`".into()
        }
        "network" => {
            "write, for example, `office: [198.51.100.0/24]` or `scanners: {file: scanners.txt}`".into()
        }
        "entry" => "write, for example, `- {name: pods-out, allow_from: [10.224.0.0/16]}`".into(),
        "test" => "write, for example, `- {from: 198.51.100.7, to: 22, reaches: nothing}`".into(),
        "test file" => format!("begin with, for example, `tests: {}`", value("tests")),
        key => format!("write, for example, `{key}: {}`", value(key)),
    }
}

pub(super) fn empty_list(key: &str) -> String {
    match key {
        "pod" => "add a pod; to switch the forward off, write `enabled: false`".into(),
        "allow_from" => format!("write, for example, `allow_from: {}`", behind(Family::V4)),
        key => format!("write, for example, `{key}: {}`", value(key)),
    }
}

/// Takes the words of the YAML parser.
pub(super) fn syntax(reason: &str) -> &'static str {
    [
        (
            "nesting",
            "remove brackets or levels: a spec has four levels",
        ),
        ("unclosed quote", "close the quote"),
        (
            "unclosed bracket",
            "close each `{` by `}` and each `[` by `]`",
        ),
        (
            "only valid inside a block",
            "indent with two spaces for each level; or close the `{` or `[` of an earlier line",
        ),
        ("tab", "indent with spaces: YAML allows no tab there"),
        (
            "unexpected character",
            "remove the character: no value of a spec begins with it",
        ),
    ]
    .into_iter()
    .find(|(words, _)| reason.contains(words))
    .map_or(
        "indent with two spaces for each level, and put a space after each `:` and `-`",
        |(_, hint)| hint,
    )
}

/// Takes the nearest code of a warning or note.
pub(super) fn code(near: Option<&str>) -> String {
    near.map_or_else(
        || "to list all codes: nvactl check --list".to_owned(),
        |code| format!("did you mean `{code}`?"),
    )
}

/// Returns the name with each character that a name cannot have replaced.
pub(super) fn usable_name(NameError(text): &NameError) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let name: String = text
        .chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(Name::MAX_BYTES)
        .collect();
    match name.trim_end_matches('-') {
        "" => "web".to_owned(),
        name => name.to_owned(),
    }
}

/// Takes the fault of a description, or of a test's name.
pub(super) fn line(error: &LineError) -> &'static str {
    match error {
        LineError::Empty => "write a few words, or remove the key",
        LineError::TooLong { .. } => "shorten it; a comment (`# …`) may be as long as you like",
        LineError::Hidden(_) => "write it as one line of plain text",
    }
}

pub(super) fn port(error: &PortError) -> String {
    match error {
        PortError::LeadingZero(text) => format!("write `{}`", text.trim_start_matches('0')),
        PortError::Backwards { first, last } => format!("write `{last}-{first}`"),
        PortError::NotDecimal(text) if text.contains(',') => {
            "write several ports as a list, as `[80, 443]`".to_owned()
        }
        _ => "write a port as `443`, a range as `5000-5010`".to_owned(),
    }
}

const LEADING_ZERO: &str = "remove the leading zeros: iptables would read the number as octal";

fn has_leading_zero(address: &str) -> bool {
    address.split('.').any(|part| {
        part.len() > 1 && part.starts_with('0') && part.bytes().all(|b| b.is_ascii_digit())
    })
}

pub(super) fn address(text: &str) -> &'static str {
    if has_leading_zero(text) {
        LEADING_ZERO
    } else {
        "write four numbers from 0 to 255, as in `10.224.0.118`, or IPv6 as `[fd00::10]`"
    }
}

pub(super) fn net(text: &str) -> &'static str {
    if has_leading_zero(&text.replace('/', ".")) {
        LEADING_ZERO
    } else if is_host_name(text) {
        NO_DNS
    } else {
        "write a network as `198.51.100.0/24`, or an address alone"
    }
}

const NO_DNS: &str = "write addresses or networks: nvactl looks up no DNS names";

/// Returns whether a text has the form of a DNS name, such as `*.example.com`.
fn is_host_name(text: &str) -> bool {
    text.contains('.')
        && !text.contains([':', '/'])
        && text.ends_with(|c: char| c.is_ascii_alphabetic())
}

/// Takes a line of a file of networks.
pub(super) fn net_line(text: &str) -> &'static str {
    if text.contains([' ', '\t', ',', ';']) {
        "write one network a line, and `#` before a comment"
    } else if text.starts_with(|c: char| c.is_ascii_alphabetic()) && !text.contains(':') {
        "write a network as `198.51.100.0/24`: a file has no names"
    } else {
        net(text)
    }
}

/// Takes the nearest name of networks.
pub(super) fn network_name(text: &str, near: Option<&str>) -> String {
    match near {
        Some(name) => format!("did you mean `{name}`?"),
        None if text != INTERNET && text.eq_ignore_ascii_case(INTERNET) => {
            "did you mean `internet`? It stands only in an outbound entry's `allow_to`".to_owned()
        }
        None if is_host_name(text) => NO_DNS.to_owned(),
        None if text == INTERNET => {
            "this word stands only in an outbound entry's `allow_to`; write a network".to_owned()
        }
        None => {
            format!("define it, as `networks: {{{text}: [198.51.100.0/24]}}`, or write a network")
        }
    }
}

/// Takes a client that is no address and cannot be a name.
pub(super) fn client(text: &str) -> String {
    if text.starts_with('[') {
        let address = text.trim_matches(['[', ']']);
        return format!("remove the brackets: `\"{address}\"`");
    }
    if has_leading_zero(text) {
        LEADING_ZERO
    } else if text.contains('/') {
        "write one address of the network"
    } else if is_host_name(text) {
        NO_DNS
    } else {
        "write an address, as `198.51.100.7` or `\"2001:db8::7\"`"
    }
    .to_owned()
}

/// Takes a client's name and the nearest name of networks.
pub(super) fn unknown_client(text: &str, near: Option<&str>) -> String {
    match near {
        Some(name) => format!("did you mean `{name}`?"),
        None if is_host_name(text) => NO_DNS.to_owned(),
        None if text == INTERNET => {
            "write an address of the Internet, as `198.51.100.7`".to_owned()
        }
        None => {
            format!("define it, as `networks: {{{text}: [198.51.100.0/24]}}`, or write an address")
        }
    }
}

/// Returns a client of a family.
pub(super) fn client_of(family: Family) -> &'static str {
    match family {
        Family::V4 => value("from"),
        Family::V6 => "\"2001:db8::7\"",
    }
}

/// Takes an interface and the nearest one of the spec.
pub(super) fn interface(name: &str, near: Option<&str>) -> String {
    let silence = "add `silence: [unknown-interface]` at the top of the spec";
    match near {
        Some(near) => {
            format!("did you mean `{near}`? If the machine has the interface `{name}`, {silence}")
        }
        None => {
            format!(
                "write an interface of the spec; if the machine has the interface `{name}`, {silence}"
            )
        }
    }
}

/// Takes what a test reaches.
pub(super) fn reaches(text: &str) -> String {
    match nearest(text, &["nothing"]) {
        Some(word) => format!("did you mean `{word}`?"),
        None => {
            "write `nothing`, or the host that is reached, as `\"10.224.0.118:80\"`; several as `\"10.224.0.118:80|10.224.0.119:80\"`".to_owned()
        }
    }
}

pub(super) fn snat(text: &str) -> String {
    if text.starts_with(|c: char| c.is_alphabetic()) && !text.contains(':') {
        return did_you_mean(text, &["masquerade", "none"]);
    }
    if text.starts_with('[') {
        let address = text.trim_matches(['[', ']']);
        return format!("remove the brackets: `\"{address}\"`");
    }
    if has_leading_zero(text) {
        LEADING_ZERO
    } else if text.contains('-') {
        "write a range from its lower address to its higher, as `10.3.0.4-10.3.0.7`"
    } else if text.contains('/') {
        "write an address of this machine, or a range of them: `snat` takes no network"
    } else {
        "write an address of this machine, as `10.3.0.4` or `\"fd00::4\"`"
    }
    .to_owned()
}

pub(super) fn number(text: &str, most: u32) -> String {
    match text.parse::<u64>() {
        Ok(number) if number > u64::from(most) => format!("write `{most}` or less"),
        Ok(0) => "write 1 or more, or remove the key".to_owned(),
        _ => "write the number in decimal digits, as `100`".to_owned(),
    }
}

pub(super) fn unusable(key: &str, address: IpAddr) -> &'static str {
    match key {
        "listen" if address.is_unspecified() => {
            "write the port alone, which listens on all addresses"
        }
        "listen" | "snat" => "to list this machine's addresses: ip -brief address",
        "from" | "to" | "reaches" => "write the address of a host",
        _ => TARGET,
    }
}

/// Returns the pod with a port.
pub(super) fn pod(address: IpAddr) -> String {
    match Host(address) {
        Host(IpAddr::V4(_)) => format!("`pod: {address}:80`"),
        host => format!("`pod: \"{host}:80\"`"),
    }
}

pub(super) fn range_length(listen: u32) -> String {
    match listen {
        1 => "give the target one port".to_owned(),
        listen => format!("give the target {listen} ports, or one port for all"),
    }
}

/// Returns ports with their noun.
pub(super) fn port_words(ports: PortRange) -> String {
    let noun = if ports.is_single() { "port" } else { "ports" };
    format!("{noun} {ports}")
}

/// Returns the network of all addresses.
pub(super) fn everybody(family: Family) -> &'static str {
    match family {
        Family::V4 => "0.0.0.0/0",
        Family::V6 => "::/0",
    }
}

/// Takes the list that keeps the probes out.
pub(super) fn probes(address: IpAddr, list: &str) -> String {
    let edit = match list {
        "allow_from" => format!("add `{address}` to the list"),
        _ => format!("deny smaller networks, without {address}"),
    };
    format!(
        "if the load balancer probes this port, {edit}; \
         if it probes another port, add `silence: [keeps-probes-out]` to the forward"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::{examine, options};

    /// The hint for a missing or empty value shows one.
    #[test]
    fn the_value_shown_for_each_option_is_valid() {
        for key in options::KEYS {
            let spec = format!(
                "firewall: {{interface: eth0, snat: 10.3.0.4}}\ndefaults: {{{key}: {}}}\nforwards: []\n",
                value(key)
            );
            assert!(examine(spec.as_bytes()).set.is_some(), "{spec}");
        }
    }
}

//! Finds rules in the files that add rules at boot, however they are spelled there.

use std::collections::BTreeSet;

use crate::host::boot_text::BootText;
use crate::netfilter::names::ChainName;
use crate::netfilter::rule::Rule;
use crate::netfilter::token::{value, words};

/// Returns the first file that adds a rule.
#[must_use]
pub fn adds<'t>(texts: &'t [BootText], chain: &ChainName, rule: &Rule) -> Option<&'t BootText> {
    let text = format!("{chain} {rule}");
    let spelled: Vec<String> = words(&text).map(|word| value(word).into_owned()).collect();
    let wanted = values(&spelled);
    texts.iter().find(|text| {
        let mut commands = commands(text).into_iter();
        commands.any(|command| values(&command) == wanted)
    })
}

/// Returns the words behind `-A` or `-I` of each command that adds a rule.
fn commands(text: &BootText) -> Vec<Vec<String>> {
    let joined = text.text.replace("\\\n", " ");
    let lines = joined
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let commands = lines.flat_map(|line| line.split([';', '&', '|']));
    let mut found = Vec::new();
    for command in commands {
        // A list of YAML has brackets and commas, and a shell has quotes.
        let all = command.split_whitespace().map(|word| {
            let word = word.trim_matches(['"', '\'', '[', ']', ',']);
            match &text.interface {
                // wg-quick(8): the name of the file's interface.
                Some(interface) => word.replace("%i", interface),
                None => word.to_owned(),
            }
        });
        let all: Vec<String> = all.collect();
        let adds = |word: &String| ["-A", "-I", "--append", "--insert"].contains(&word.as_str());
        if let Some(at) = all.iter().position(adds) {
            found.push(all[at + 1..].to_vec());
        }
    }
    found
}

/// Returns the values of a rule's options, each in one spelling. Options themselves have several names and are left
/// out, as are values that people and iptables-save spell differently: rates, flags and comments.
fn values(all: &[String]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = all.iter().map(String::as_str);
    let mut place = 0;
    while let Some(word) = rest.next() {
        match word {
            "-m" | "--match" | "-t" | "--table" | "-w" | "--wait" | "--comment"
            | "--log-prefix" | "--log-level" | "--limit" | "--limit-burst" | "--reject-with" => {
                let _ = rest.next();
            }
            "--tcp-flags" => {
                let _ = rest.nth(1);
            }
            "--connlimit-saddr" | "--connlimit-daddr" => {}
            _ if word.starts_with("--hashlimit") || word.starts_with("--connlimit") => {
                let _ = rest.next();
            }
            _ if word.starts_with('-') || word == "!" => {}
            // The number of `-I CHAIN NUMBER`.
            _ if place == 1 && word.bytes().all(|byte| byte.is_ascii_digit()) => {}
            _ => {
                found.insert(in_one_spelling(word));
            }
        }
        place += 1;
    }
    found
}

fn in_one_spelling(value: &str) -> String {
    let lower = value.to_ascii_lowercase();
    let host = ["/32", "/128"]
        .iter()
        .find_map(|end| lower.strip_suffix(end));
    let mut parts: Vec<&str> = host.unwrap_or(&lower).split(',').collect();
    parts.sort_unstable();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netfilter::names::TableName;
    use crate::netfilter::text::parse::parse;

    fn rule(line: &str) -> (ChainName, Rule) {
        let read = parse(&format!("*nat\n{line}\nCOMMIT\n")).expect("it is a rule");
        let mut chains = read.chains();
        let (table, name, chain) = chains.next().expect("it has a chain");
        assert_eq!(table, TableName::Nat);
        (name.clone(), chain.rules[0].clone())
    }

    #[test]
    fn a_rule_is_found_however_it_is_typed() {
        let dnat = "-A PREROUTING -d 10.3.0.4/32 -i eth0 -p tcp -m tcp --dport 49181 -j DNAT --to-destination 10.224.0.222";
        let replies = "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";
        let opens = "-A FORWARD -p tcp -m tcp --dport 80 --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT";
        let out = "-A FORWARD -i wg0 -j ACCEPT";
        for (line, file, found) in [
            (
                dnat,
                "iptables -t nat -A PREROUTING -i eth0 -d 10.3.0.4 -p tcp --dport 49181 -j DNAT --to 10.224.0.222",
                true,
            ),
            (
                dnat,
                "/sbin/iptables -w 5 -t nat -I PREROUTING 2 -p TCP -i eth0 -d 10.3.0.4/32 --destination-port 49181 -j DNAT --to-destination 10.224.0.222 || true",
                true,
            ),
            (
                dnat,
                "  - [iptables, -t, nat, -A, PREROUTING, -i, eth0, -d, 10.3.0.4, -p, tcp, --dport, \"49181\", -j, DNAT, --to-destination, 10.224.0.222]",
                true,
            ),
            (
                dnat,
                "# iptables -t nat -A PREROUTING -i eth0 -d 10.3.0.4 -p tcp --dport 49181 -j DNAT --to 10.224.0.222",
                false,
            ),
            (
                dnat,
                "iptables -t nat -A PREROUTING -i eth0 -d 10.3.0.4 -p tcp --dport 49182 -j DNAT --to 10.224.0.222",
                false,
            ),
            (
                dnat,
                "iptables -t nat -A PREROUTING -i eth0 -p tcp \\\n --dport 49181 -d 10.3.0.4 -j DNAT --to 10.224.0.222",
                true,
            ),
            (
                replies,
                "iptables -A FORWARD -m state --state ESTABLISHED,RELATED -j ACCEPT",
                true,
            ),
            (replies, "iptables -A FORWARD -i wg0 -j ACCEPT", false),
            (
                opens,
                "iptables -A FORWARD -p tcp --syn --dport 80 -j ACCEPT",
                true,
            ),
            (
                out,
                "PostUp = iptables -A FORWARD -i %i -j ACCEPT; iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE",
                true,
            ),
            (out, "PostUp = iptables -A FORWARD -i wg1 -j ACCEPT", false),
            (out, "-A FORWARD -i wg0 -j ACCEPT", true),
        ] {
            let texts = [BootText {
                path: "/a/file".to_owned(),
                text: file.to_owned(),
                interface: Some("wg0".to_owned()),
            }];
            let (chain, rule) = rule(line);
            let is_found = adds(&texts, &chain, &rule).is_some();
            assert_eq!(is_found, found, "{file}");
        }
    }
}

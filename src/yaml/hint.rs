//! The edit that mends each problem.

use std::net::IpAddr;

use super::code::Code;
use super::problem::{ProblemKind, one_of};
use crate::forwards::{Name, NameError};
use crate::net::{Host, PortError};

impl ProblemKind {
    #[expect(clippy::too_many_lines, reason = "it is a table")]
    /// The edit that mends it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            ProblemKind::NotUtf8 => "save the file as UTF-8; names and addresses are ASCII".into(),
            ProblemKind::ControlCharacter { .. } => "remove it".into(),
            ProblemKind::Syntax { reason } if reason.contains("nesting") => {
                "a spec is four levels deep".into()
            }
            ProblemKind::Syntax { reason } if reason.contains("unclosed quote") => {
                "close the quote; no value of a spec needs one".into()
            }
            ProblemKind::Syntax { reason } if reason.contains("unclosed bracket") => {
                "close each `{` by `}` and each `[` by `]`".into()
            }
            ProblemKind::Syntax { reason } if reason.contains("tab") => {
                "indent with spaces: YAML allows no tab there".into()
            }
            ProblemKind::Syntax { reason } if reason.contains("unexpected character") => {
                "no value of a spec begins with this character".into()
            }
            ProblemKind::Syntax { .. } => {
                "indent with spaces, two a level, and put a space behind each `:` and `-`".into()
            }
            ProblemKind::TooManyValues => "split the forwards over several specs".into(),
            ProblemKind::Empty => "begin with `firewall:` and `forwards:`; the README has an example".into(),
            ProblemKind::EmptyInFolder => "write `forwards:` into it, or remove it".into(),
            ProblemKind::SeveralDocuments => "keep each spec in a file of its own".into(),
            ProblemKind::Alias => "write the value out".into(),
            ProblemKind::Tag => "remove the `!…`: the key decides the type".into(),
            ProblemKind::DuplicateKey { key, .. } => format!("keep one `{key}`"),
            ProblemKind::SecondInFolder { key, .. } => {
                format!("keep one `{key}`: it holds for every file of the folder")
            }
            ProblemKind::UnknownKey { key, known, .. } => did_you_mean(key, known),
            ProblemKind::MissingKey { key, .. } => format!("add `{key}: {}`", example(key)),
            ProblemKind::WrongType { key: "spec", .. } => {
                "begin with `firewall:` and `forwards:`".into()
            }
            ProblemKind::WrongType { key: "forward", .. } => {
                "write `- {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}`".into()
            }
            ProblemKind::EmptyList { key: "pod" } => "to switch the forward off, write `enabled: false`".into(),
            ProblemKind::WrongType { key, .. } | ProblemKind::EmptyList { key } => format!("write `{key}: {}`", example(key)),
            ProblemKind::UnknownWord { text, known } => did_you_mean(text, known),
            ProblemKind::UnknownCode { text } if text == "takes-ssh" => {
                "`takes-ssh` is silenced by the forward that takes it".into()
            }
            ProblemKind::UnknownCode { text } => {
                let known = |code: &Code| code.can_be_silenced() && *code != Code::TakesSsh;
                let codes = Code::ALL.into_iter().filter(known);
                did_you_mean(text, &codes.map(Code::as_str).collect::<Vec<_>>())
            }
            ProblemKind::UnknownVersion { .. } => "write `version: 1`, or leave it out".into(),
            ProblemKind::InvalidName(NameError(text)) => match usable_name(text) {
                Some(name) => format!("call it `{name}`"),
                None => "call it `web`, for example".into(),
            },
            ProblemKind::DuplicateName { .. } => "give each forward a name of its own".into(),
            ProblemKind::InvalidInterface(_) => {
                "`ip -brief link` lists the machine's interfaces".into()
            }
            ProblemKind::InvalidPort(PortError::LeadingZero(text)) => {
                format!("write `{}`", text.trim_start_matches('0'))
            }
            ProblemKind::InvalidPort(PortError::Backwards { first, last }) => {
                format!("write `{last}-{first}`")
            }
            ProblemKind::InvalidPort(_) => "write a port as `443` and a range as `5000-5010`".into(),
            ProblemKind::InvalidSnat { text } if text.starts_with(|c: char| c.is_alphabetic()) => {
                did_you_mean(text, &["masquerade", "none"])
            }
            ProblemKind::NoBrackets { .. } => {
                "put brackets around the address, the port behind them: `\"[fd00::10]:80\"`".into()
            }
            ProblemKind::InvalidNet { text } if has_leading_zero(&text.replace('/', ".")) => {
                "write it without leading zeros: iptables reads them as octal".into()
            }
            ProblemKind::InvalidNet { .. } => "write it as `198.51.100.0/24`, or an address alone".into(),
            ProblemKind::HostBits { net } => {
                format!("write `{}`, or `{}` for the one address", net.trunc(), net.addr())
            }
            ProblemKind::InvalidNumber { text, most } => match text.parse::<u64>() {
                Ok(number) if number > u64::from(*most) => format!("write `{most}` or less"),
                Ok(0) => "write 1 or more, or leave the key out".into(),
                _ => "write it in decimal digits".into(),
            },
            ProblemKind::RoundedRate { nearest, .. } => format!("write `{nearest}`"),
            ProblemKind::InvalidPrefix { .. } => "write a short word".into(),
            ProblemKind::Twice { .. } => "keep one".into(),
            ProblemKind::WrongFamily { .. } => "IPv4 goes under `v4`, IPv6 under `v6`".into(),
            ProblemKind::OtherFamily { .. } => "a forward is of one family: give the other one of its own".into(),
            ProblemKind::NoSnat { family } => {
                format!("write `snat: {{v4: 10.3.0.4, v6: \"fd00::4\"}}` with this machine's own {family} address, or `masquerade`")
            }
            ProblemKind::AllowsNobody { .. } => {
                "add one, or write `enabled: false`; the network `0.0.0.0/0`, of IPv6 `::/0`, is for everybody".into()
            }
            ProblemKind::TooManyPods { .. } => "put an internal load balancer in front of them".into(),
            ProblemKind::HairpinKeepsClients { .. } => "give this forward an address: `snat: 10.3.0.4`".into(),
            ProblemKind::KeepsProbesOut { address, allows } => {
                let edit = if *allows {
                    format!("add `{address}` to it")
                } else {
                    "leave that out of it".to_owned()
                };
                format!(
                    "let the load balancer probe a port of this VM itself; if it probes this port, {edit}"
                )
            }
            ProblemKind::ClientKept => {
                "their subnet needs a route table whose default route has this VM as its next hop, and this VM's NIC \
                 IP forwarding (az network nic update --ip-forwarding true); then add `silence: [client-kept]`".into()
            }
            ProblemKind::InvalidAddress { text } | ProblemKind::InvalidSnat { text }
                if has_leading_zero(text) =>
            {
                "write it without leading zeros: iptables reads them as octal".into()
            }
            ProblemKind::InvalidSnat { text } if text.starts_with('[') => {
                format!("write it without brackets: `\"{}\"`", text.trim_matches(['[', ']']))
            }
            ProblemKind::InvalidSnat { text } if text.contains('-') => {
                "write a range from its lower address to its higher, as `10.3.0.4-10.3.0.7`".into()
            }
            ProblemKind::InvalidSnat { text } if text.contains('/') => {
                "write an address or a range of them; a network has none of its own to take".into()
            }
            ProblemKind::DeniesEverybody { .. } => {
                "write `enabled: false` to switch the forward off".into()
            }
            ProblemKind::InvalidAddress { .. } | ProblemKind::InvalidSnat { .. } => {
                "write four numbers from 0 to 255, as in `10.224.0.118`, or IPv6 as `[fd00::10]`".into()
            }
            ProblemKind::UnusableAddress { key: "listen", address, .. }
                if address.is_unspecified() =>
            {
                "to listen on all addresses, write the port alone".into()
            }
            ProblemKind::UnusableAddress {
                key: "snat" | "listen",
                ..
            } => {
                "`ip -brief address` lists the machine's addresses".into()
            }
            ProblemKind::PodWithoutPort { address } => {
                match Host(*address) {
                    Host(IpAddr::V4(_)) => format!("add the container's port: `pod: {address}:80`"),
                    host => format!("add the container's port: `pod: \"{host}:80\"`"),
                }
            }
            ProblemKind::TwoTargets { .. } => "keep one, and give the other a forward of its own".into(),
            ProblemKind::RangeLength { listen: 1, .. } => "give the target one port".into(),
            ProblemKind::RangeLength { listen, .. } => {
                format!("give the target {listen} ports, or one port for all")
            }
            ProblemKind::UnusableAddress { .. }
            | ProblemKind::DangerousTarget { .. }
            | ProblemKind::TargetIsFirewall { .. } => {
                "name the internal load balancer or the pod itself".into()
            }
            ProblemKind::OverlappingListen { .. } => {
                "give one of the two another port, protocol or listen address".into()
            }
            ProblemKind::TakesLocalService { .. } | ProblemKind::WideRange { .. } => {
                "listen on fewer ports, or on one address that the firewall does not need for itself"
                    .into()
            }
            ProblemKind::PolicyKept => {
                "write `forward_policy: drop`, or add `silence: [policy-kept]` at the top if other rules drop".into()
            }
            ProblemKind::AddressBesideAll { .. } => {
                "give each listener an address, or add `silence: [address-beside-all]` to one of the two".into()
            }
            ProblemKind::PortKept { .. } => {
                "if the Service exposes another port, name it: `ilb: IP:PORT`".into()
            }
            ProblemKind::PodAddress { .. } => {
                "an internal load balancer keeps its address: `ilb: IP:PORT`".into()
            }
            ProblemKind::CutsTransit => {
                "write `forward_policy: keep` if it is a router as well, or add `silence: [cuts-transit]` at the top".into()
            }
            ProblemKind::NeedsLinux55 => {
                "give both the same `snat` if the VM has an older kernel, or add `silence: [needs-linux-5-5]` to the forward".into()
            }
            ProblemKind::TakesSsh => {
                "listen on another port, or add `silence: [takes-ssh]` to the forward if ssh stays reachable by other means".into()
            }
        }
    }
}

/// The nearest known word, or all of them where none is near.
fn did_you_mean(text: &str, known: &[&'static str]) -> String {
    match nearest(text, known) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("known: {}", one_of(known)),
    }
}

/// The known word that `text` is a slip for, if it is near enough to one.
#[must_use]
pub fn nearest<'k>(text: &str, known: &[&'k str]) -> Option<&'k str> {
    // A word of a megabyte is nobody's slip, and comparing it would cost its square.
    known
        .iter()
        .filter(|_| text.len() <= 64)
        .map(|word| (strsim::damerau_levenshtein(text, word), *word))
        .filter(|(distance, word)| *distance <= word.len().max(text.len()) / 3)
        .min()
        .map(|(_, word)| word)
}

fn example(key: &str) -> &'static str {
    match key {
        "version" => "1",
        "interface" | "ingress" | "egress" => "eth0",
        "snat" | "v4" => "10.3.0.4",
        "forward_policy" => "drop",
        "layout" => "tree",
        "name" | "prefix" => "web",
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
        "silence" => "[takes-ssh]",
        "firewall" => "{interface: eth0, snat: 10.3.0.4}",
        _ => "[]",
    }
}

fn usable_name(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let name: String = text
        .chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(Name::MAX_BYTES)
        .collect();
    let name = name.trim_end_matches('-');
    (!name.is_empty()).then(|| name.to_owned())
}

fn has_leading_zero(address: &str) -> bool {
    address.split('.').any(|part| {
        part.len() > 1 && part.starts_with('0') && part.bytes().all(|b| b.is_ascii_digit())
    })
}

//! The trees of a spec's YAML documents to the values they spell, key by key, collecting every problem.
//!
//! What two values say about each other is `check.rs`'s affair.

use std::net::Ipv4Addr;
use std::str::FromStr;

use super::code::Code;
pub use super::fields::Placed;
use super::fields::{Fields, parsed, sequence};
use super::problem::{self, Problem, ProblemKind, Span};
use super::yaml::{Node, Value};
use super::{ForwardPolicy, Listen, MAX_PROBLEMS, Name, Snat, Target, TargetKind, TargetPorts};
use crate::net::{Interface, PortRange, Protocol};

/// A spec as written. `None` where the value is missing or could not be read, which is reported.
#[derive(Debug, Default)]
pub struct WrittenSpec {
    pub ingress: Option<Interface>,
    pub egress: Option<Interface>,
    pub snat: Option<Placed<Snat>>,
    pub forward_policy: Option<ForwardPolicy>,
    /// Where `forward_policy` was written, if it was.
    pub forward_policy_span: Option<Span>,
    pub forwards: Vec<WrittenForward>,
    /// The codes that the whole spec keeps quiet.
    pub silence: Vec<Code>,
}

#[derive(Debug, Default)]
pub struct WrittenForward {
    pub name: Option<Placed<Name>>,
    pub listen: Option<Placed<Listen>>,
    pub protocol: Option<Protocol>,
    pub target: Option<Placed<Target>>,
    /// Whether it is part of the plan.
    pub enabled: Option<bool>,
    /// The codes that this forward keeps quiet.
    pub silence: Vec<Code>,
}

/// What forwards share that do not say otherwise.
#[derive(Debug, Clone, Copy)]
struct Defaults {
    /// `None` if it could not be read, which is reported once.
    protocol: Option<Protocol>,
}

/// Reads the documents of a spec, one for each file. `whole` tells that there is no further one,
/// which could not be read.
pub fn decode(roots: &[Node], whole: bool, problems: &mut Vec<Problem>) -> WrittenSpec {
    let mut spec = WrittenSpec::default();
    let known = &["version", "firewall", "defaults", "forwards", "silence"];
    let files: Vec<Fields<'_>> = roots
        .iter()
        .filter_map(|root| Fields::of(root, "spec", "the spec", known, problems))
        .collect();
    let whole = whole && files.len() == roots.len();
    for fields in &files {
        decode_version(fields, problems);
        // ssh is given up by a forward, not by a whole spec.
        let can_be_silenced = |code: Code| code.can_be_silenced() && code != Code::TakesSsh;
        let silence = decode_silence(fields, can_be_silenced, problems);
        spec.silence.extend(silence);
    }
    if let Some(firewall) = of_one_file(&files, "firewall", problems) {
        decode_firewall(firewall, &mut spec, problems);
    } else if whole {
        miss(&files, "firewall", problems);
    }
    let written = of_one_file(&files, "defaults", problems);
    let mut defaults = decode_defaults(written, problems);
    if written.is_none() && !whole {
        // What could not be read may say another.
        defaults.protocol = None;
    }
    let mut lists = files
        .iter()
        .filter_map(|file| file.get("forwards"))
        .peekable();
    if lists.peek().is_none() && whole {
        miss(&files, "forwards", problems);
    }
    for forwards in lists {
        for item in sequence(forwards, "forwards", problems).unwrap_or_default() {
            if problems.len() >= MAX_PROBLEMS {
                break;
            }
            spec.forwards.push(decode_forward(item, defaults, problems));
        }
    }
    spec
}

/// The value of a key that one file has for the whole spec.
fn of_one_file<'n>(
    files: &[Fields<'n>],
    key: &'static str,
    problems: &mut Vec<Problem>,
) -> Option<&'n Node> {
    let mut having = files.iter().filter(|file| file.get(key).is_some());
    let one = having.next()?;
    let first = one.key(key)?;
    for second in having.filter_map(|file| file.key(key)) {
        let first = first.span.clone();
        let kind = ProblemKind::SecondInFolder { key, first };
        problems.push(Problem::new(second.span.clone(), kind));
    }
    one.get(key)
}

/// Reports a key that no file has, at the beginning of the first.
fn miss(files: &[Fields<'_>], key: &'static str, problems: &mut Vec<Problem>) {
    if let Some(first) = files.first() {
        first.required(key, problems);
    }
}

fn decode_version(fields: &Fields<'_>, problems: &mut Vec<Problem>) {
    if let Some(version) = fields.scalar("version", "the number 1", problems)
        && version.value != "1"
    {
        let kind = ProblemKind::UnknownVersion {
            text: version.value.to_owned(),
        };
        problems.push(Problem::new(version.span, kind));
    }
}

fn decode_firewall(node: &Node, spec: &mut WrittenSpec, problems: &mut Vec<Problem>) {
    let known = &["interface", "snat", "forward_policy"];
    let Some(fields) = Fields::of(node, "firewall", "`firewall`", known, problems) else {
        return;
    };
    if let Some(node) = fields.required("interface", problems) {
        (spec.ingress, spec.egress) = decode_interfaces(node, problems);
    }
    if fields.required("snat", problems).is_some() {
        spec.snat = fields.parsed(
            "snat",
            "an IPv4 address or `masquerade`",
            problems,
            |text| {
                Ok(match text {
                    "masquerade" => Snat::Masquerade,
                    address => {
                        Snat::Address(address.parse().map_err(|_| ProblemKind::InvalidSnat {
                            text: address.to_owned(),
                        })?)
                    }
                })
            },
        );
    }
    let policy = fields.parsed("forward_policy", "`drop` or `keep`", problems, |text| {
        word(text, &["drop", "keep"]).map(|word| match word {
            "keep" => ForwardPolicy::Keep,
            _ => ForwardPolicy::Drop,
        })
    });
    spec.forward_policy_span = policy.as_ref().map(|policy| policy.span.clone());
    spec.forward_policy = match fields.get("forward_policy") {
        Some(_) => policy.map(|policy| policy.value),
        None => Some(ForwardPolicy::Drop),
    };
}

/// One interface for both sides, or one for each.
fn decode_interfaces(
    node: &Node,
    problems: &mut Vec<Problem>,
) -> (Option<Interface>, Option<Interface>) {
    let expected = "a name, or a mapping of `ingress` and `egress`";
    let read = |text: &str| text.parse().map_err(ProblemKind::InvalidInterface);
    if !matches!(node.value, Value::Mapping(_)) {
        let one = parsed(node, "interface", expected, problems, read).map(|placed| placed.value);
        return (one.clone(), one);
    }
    let known = &["ingress", "egress"];
    let Some(fields) = Fields::of(node, "interface", "`interface`", known, problems) else {
        return (None, None);
    };
    let mut side = |key| {
        fields.required(key, problems)?;
        let placed = fields.parsed(key, "an interface name", problems, read)?;
        Some(placed.value)
    };
    (side("ingress"), side("egress"))
}

fn decode_defaults(node: Option<&Node>, problems: &mut Vec<Problem>) -> Defaults {
    let fields =
        node.and_then(|node| Fields::of(node, "defaults", "`defaults`", &["protocol"], problems));
    Defaults {
        protocol: match fields {
            Some(fields) => decode_protocol(&fields, Some(Protocol::Tcp), problems),
            None => Some(Protocol::Tcp),
        },
    }
}

/// The protocol, or `otherwise` where none is written.
fn decode_protocol(
    fields: &Fields<'_>,
    otherwise: Option<Protocol>,
    problems: &mut Vec<Problem>,
) -> Option<Protocol> {
    fields.get("protocol").map_or(otherwise, |_| {
        let protocol = fields.parsed("protocol", "`tcp` or `udp`", problems, |text| {
            text.parse().map_err(|_| ProblemKind::UnknownWord {
                text: text.to_owned(),
                known: &["tcp", "udp"],
            })
        });
        protocol.map(|protocol: Placed<Protocol>| protocol.value)
    })
}

fn decode_forward(node: &Node, defaults: Defaults, problems: &mut Vec<Problem>) -> WrittenForward {
    let known = &["name", "enabled", "listen", "protocol", "target", "silence"];
    let mut forward = WrittenForward::default();
    let Some(fields) = Fields::of(node, "forward", "this forward", known, problems) else {
        return forward;
    };
    if fields.required("name", problems).is_some() {
        forward.name = fields.parsed("name", "a name", problems, Name::from_str);
    }
    if fields.required("listen", problems).is_some() {
        let expected = "a port, a range of ports, or either behind `IP:`";
        forward.listen = fields.parsed("listen", expected, problems, Listen::from_str);
    }
    forward.protocol = decode_protocol(&fields, defaults.protocol, problems);
    forward.enabled = fields.get("enabled").map_or(Some(true), |_| {
        let enabled = fields.parsed("enabled", "`true` or `false`", problems, |text| {
            word(text, &["true", "false"]).map(|word| word == "true")
        });
        enabled.map(|enabled| enabled.value)
    });
    if let Some(node) = fields.required("target", problems) {
        forward.target = decode_target(node, problems);
    }
    forward.silence = decode_silence(&fields, Code::can_be_silenced, problems);
    forward
}

fn decode_silence(
    fields: &Fields<'_>,
    can_be_silenced: impl Fn(Code) -> bool,
    problems: &mut Vec<Problem>,
) -> Vec<Code> {
    let items = fields
        .get("silence")
        .and_then(|node| sequence(node, "silence", problems));
    let mut codes = Vec::new();
    for item in items.unwrap_or_default() {
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
        let code = parsed(
            item,
            "silence",
            "a list of codes",
            problems,
            |text| match text.parse::<Code>() {
                Ok(code) if can_be_silenced(code) => Ok(code),
                _ => Err(ProblemKind::UnknownCode {
                    text: text.to_owned(),
                }),
            },
        );
        codes.extend(code.map(|code| code.value));
    }
    codes
}

fn decode_target(node: &Node, problems: &mut Vec<Problem>) -> Option<Placed<Target>> {
    let known = &["ilb", "pod"];
    let fields = Fields::of(node, "target", "`target`", known, problems)?;
    if let (Some(ilb), Some(pod)) = (fields.key("ilb"), fields.key("pod")) {
        let (first, second) = if ilb.span.start < pod.span.start {
            (ilb, pod)
        } else {
            (pod, ilb)
        };
        let kind = ProblemKind::TwoTargets {
            first: first.span.clone(),
        };
        problems.push(Problem::new(second.span.clone(), kind));
        return None;
    }
    if fields.get("ilb").is_some() {
        let expected = "`IP`, `IP:PORT` or `IP:PORT-PORT`";
        return fields.parsed("ilb", expected, problems, |text| {
            let (address, ports) = read_endpoint(text)?;
            Ok(Target {
                kind: TargetKind::Ilb,
                address,
                ports: ports.map_or(TargetPorts::Kept, TargetPorts::Range),
            })
        });
    }
    fields.required("pod", problems)?;
    fields.parsed("pod", "`IP:PORT` or `IP:PORT-PORT`", problems, |text| {
        let (address, ports) = read_endpoint(text)?;
        let ports = ports.ok_or(ProblemKind::PodWithoutPort { address })?;
        Ok(Target {
            kind: TargetKind::Pod,
            address,
            ports: TargetPorts::Range(ports),
        })
    })
}

/// `IP`, `IP:PORT` or `IP:PORT-PORT`.
fn read_endpoint(text: &str) -> Result<(Ipv4Addr, Option<PortRange>), ProblemKind> {
    match text.split_once(':') {
        None => Ok((problem::address(text)?, None)),
        Some((address, ports)) => {
            let ports = ports.parse().map_err(ProblemKind::InvalidPort)?;
            Ok((problem::address(address)?, Some(ports)))
        }
    }
}

fn word(text: &str, known: &'static [&'static str]) -> Result<&'static str, ProblemKind> {
    known
        .iter()
        .copied()
        .find(|word| *word == text)
        .ok_or_else(|| ProblemKind::UnknownWord {
            text: text.to_owned(),
            known,
        })
}

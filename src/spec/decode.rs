//! The tree of a YAML document to the values it spells, key by key, collecting every problem.
//!
//! What two values say about each other is `check.rs`'s affair.

use std::net::Ipv4Addr;
use std::str::FromStr;

use super::code::Code;
use super::hint;
use super::problem::{self, Problem, ProblemKind, Span};
use super::yaml::{Key, Node, Value};
use super::{ForwardPolicy, Listen, MAX_PROBLEMS, Name, Snat, Target, TargetKind, TargetPorts};
use crate::net::{Interface, PortRange, Protocol};

/// A value and where it was written.
#[derive(Debug, Clone)]
pub struct Placed<T> {
    pub value: T,
    pub span: Span,
}

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
    /// The codes that this forward keeps quiet.
    pub silence: Vec<Code>,
}

pub fn decode(root: &Node, problems: &mut Vec<Problem>) -> WrittenSpec {
    let mut spec = WrittenSpec::default();
    let known = &["version", "firewall", "forwards", "silence"];
    let Some(fields) = Fields::of(root, "spec", "the spec", known, problems) else {
        return spec;
    };
    if let Some(version) = fields.scalar("version", "the number 1", problems)
        && version.value != "1"
    {
        let kind = ProblemKind::UnknownVersion {
            text: version.value.to_owned(),
        };
        problems.push(Problem::new(version.span, kind));
    }
    // ssh is given up by a forward, not by a whole file.
    let can_be_silenced = |code: Code| code.can_be_silenced() && code != Code::TakesSsh;
    spec.silence = decode_silence(&fields, can_be_silenced, problems);
    if let Some(firewall) = fields.required("firewall", problems) {
        decode_firewall(firewall, &mut spec, problems);
    }
    if let Some(forwards) = fields.required("forwards", problems)
        && let Some(items) = sequence(forwards, "forwards", problems)
    {
        for item in items {
            if problems.len() >= MAX_PROBLEMS {
                break;
            }
            spec.forwards.push(decode_forward(item, problems));
        }
    }
    spec
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

fn decode_forward(node: &Node, problems: &mut Vec<Problem>) -> WrittenForward {
    let known = &["name", "listen", "protocol", "target", "silence"];
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
    let protocol = fields.parsed("protocol", "`tcp` or `udp`", problems, |text| {
        text.parse().map_err(|_| ProblemKind::UnknownWord {
            text: text.to_owned(),
            known: &["tcp", "udp"],
        })
    });
    forward.protocol = match fields.get("protocol") {
        Some(_) => protocol.map(|protocol: Placed<Protocol>| protocol.value),
        None => Some(Protocol::Tcp),
    };
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

/// The entries of a mapping whose keys are known.
struct Fields<'n> {
    place: &'static str,
    /// Where the mapping begins: its first key.
    span: Span,
    entries: Vec<Entry<'n>>,
}

struct Entry<'n> {
    /// The known key.
    name: &'static str,
    /// As it is written.
    key: &'n Key,
    value: &'n Node,
}

impl<'n> Fields<'n> {
    /// The entries of `node`, or `None` when it is no mapping. `key` is what it stands under.
    fn of(
        node: &'n Node,
        key: &'static str,
        place: &'static str,
        known: &'static [&'static str],
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let Value::Mapping(written) = &node.value else {
            wrong_type(node, key, "a mapping of keys to values", problems);
            return None;
        };
        let mut entries: Vec<Entry<'_>> = Vec::with_capacity(known.len());
        let mut misspelled: Vec<Entry<'_>> = Vec::new();
        for (key, value) in written {
            if problems.len() >= MAX_PROBLEMS {
                break;
            }
            let name = known.iter().copied().find(|name| *name == key.text);
            let first = entries.iter().find(|entry| Some(entry.name) == name);
            let kind = match (name, first) {
                (Some(name), None) => {
                    entries.push(Entry { name, key, value });
                    continue;
                }
                (Some(_), Some(first)) => ProblemKind::DuplicateKey {
                    key: key.text.clone(),
                    first: first.key.span.clone(),
                },
                (None, _) => {
                    let meant = hint::nearest(&key.text, known);
                    misspelled.extend(meant.map(|name| Entry { name, key, value }));
                    ProblemKind::UnknownKey {
                        key: key.text.clone(),
                        place,
                        known,
                    }
                }
            };
            problems.push(Problem::new(key.span.clone(), kind));
        }
        // The value of a misspelled key is read as what it was meant to be: it may be wrong too.
        for entry in misspelled {
            if entries.iter().all(|known| known.name != entry.name) {
                entries.push(entry);
            }
        }
        let span = match written.first() {
            Some((key, _)) => key.span.clone(),
            None => node.span.clone(),
        };
        Some(Self {
            place,
            span,
            entries,
        })
    }

    fn entry(&self, name: &str) -> Option<&Entry<'n>> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    fn key(&self, name: &str) -> Option<&'n Key> {
        self.entry(name).map(|entry| entry.key)
    }

    fn get(&self, name: &str) -> Option<&'n Node> {
        self.entry(name).map(|entry| entry.value)
    }

    /// The value of a key that must be there.
    fn required(&self, key: &'static str, problems: &mut Vec<Problem>) -> Option<&'n Node> {
        let node = self.get(key);
        if node.is_none() {
            let kind = ProblemKind::MissingKey {
                key,
                place: self.place,
            };
            problems.push(Problem::new(self.span.clone(), kind));
        }
        node
    }

    fn scalar(
        &self,
        key: &'static str,
        expected: &'static str,
        problems: &mut Vec<Problem>,
    ) -> Option<Placed<&'n str>> {
        scalar(self.get(key)?, key, expected, problems)
    }

    fn parsed<T>(
        &self,
        key: &'static str,
        expected: &'static str,
        problems: &mut Vec<Problem>,
        read: impl FnOnce(&str) -> Result<T, ProblemKind>,
    ) -> Option<Placed<T>> {
        parsed(self.get(key)?, key, expected, problems, read)
    }
}

fn parsed<T>(
    node: &Node,
    key: &'static str,
    expected: &'static str,
    problems: &mut Vec<Problem>,
    read: impl FnOnce(&str) -> Result<T, ProblemKind>,
) -> Option<Placed<T>> {
    let Placed { value: text, span } = scalar(node, key, expected, problems)?;
    match read(text) {
        Ok(value) => Some(Placed { value, span }),
        Err(kind) => {
            problems.push(Problem::new(span, kind));
            None
        }
    }
}

fn scalar<'n>(
    node: &'n Node,
    key: &'static str,
    expected: &'static str,
    problems: &mut Vec<Problem>,
) -> Option<Placed<&'n str>> {
    match &node.value {
        Value::Scalar(text) => Some(Placed {
            value: text,
            span: node.span.clone(),
        }),
        _ => {
            wrong_type(node, key, expected, problems);
            None
        }
    }
}

fn sequence<'n>(
    node: &'n Node,
    key: &'static str,
    problems: &mut Vec<Problem>,
) -> Option<&'n [Node]> {
    match &node.value {
        Value::Sequence(items) => Some(items),
        _ => {
            wrong_type(node, key, "a list", problems);
            None
        }
    }
}

fn wrong_type(node: &Node, key: &'static str, expected: &'static str, problems: &mut Vec<Problem>) {
    let found = match &node.value {
        Value::Null => "nothing",
        Value::Scalar(_) => "a single value",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
        Value::Broken => return,
    };
    let kind = ProblemKind::WrongType {
        key,
        expected,
        found,
    };
    problems.push(Problem::new(node.span.clone(), kind));
}

//! The trees of a spec's YAML documents to the values they spell, key by key, collecting every problem.
//!
//! What two values say about each other is `check.rs`'s affair.

use std::net::IpAddr;
use std::str::FromStr;

use super::code::Code;
pub use super::fields::Placed;
use super::fields::{Fields, parsed, sequence};
use super::limits::MAX_PROBLEMS;
use super::load::{Node, Value};
use super::options::{self, Interfaces, Options, one_of_words};
use super::problem::{Problem, ProblemKind, Span};
use crate::forwards::{
    Destination, ForwardPolicy, Layout, Listen, Name, Snats, TargetKind, TargetPorts,
};
use crate::net::{Family, Protocol};

/// A spec as written. `None` where the value is missing or could not be read, which is reported.
#[derive(Debug, Default)]
pub struct WrittenSpec {
    pub interfaces: Option<Interfaces>,
    pub snat: Option<Placed<Snats>>,
    pub forward_policy: Option<ForwardPolicy>,
    /// Where `forward_policy` was written; else where `firewall` was.
    pub forward_policy_span: Option<Span>,
    /// `None` also where it is left to nvactl.
    pub layout: Option<Layout>,
    pub forwards: Vec<WrittenForward>,
    /// The codes that the whole spec keeps quiet.
    pub silence: Vec<Code>,
}

#[derive(Debug, Default)]
pub struct WrittenForward {
    pub name: Option<Placed<Name>>,
    pub listen: Option<Placed<Listen>>,
    pub target: Option<WrittenTarget>,
    /// Whether it is part of the plan.
    pub enabled: Option<bool>,
    /// With what the defaults say where it says nothing itself.
    pub options: Options,
    /// Whether it says its `snat` itself.
    pub own_snat: bool,
    /// The codes that this forward keeps quiet.
    pub silence: Vec<Code>,
}

#[derive(Debug)]
pub struct WrittenTarget {
    pub kind: TargetKind,
    /// At least one.
    pub destinations: Vec<Placed<Destination>>,
}

/// One of a forward's listeners: it has one for each protocol.
#[derive(Debug, Clone, Copy)]
pub struct Listener<'w> {
    pub forward: &'w WrittenForward,
    pub family: Family,
    pub protocol: Protocol,
    pub listen: &'w Placed<Listen>,
}

/// Those that could be read.
pub fn listeners(forward: &WrittenForward) -> impl Iterator<Item = Listener<'_>> {
    let protocols = forward.options.protocols.into_iter().flatten();
    let target = forward.target.as_ref();
    let first = target.and_then(|target| target.destinations.first());
    forward.listen.iter().flat_map(move |listen| {
        let address = listen.value.address.or(first.map(|to| to.value.address));
        protocols.clone().map(move |protocol| Listener {
            forward,
            family: address.map_or(Family::V4, Family::of),
            protocol: *protocol,
            listen,
        })
    })
}

impl Listener<'_> {
    /// Listeners of one place must not share a port.
    pub fn place(&self) -> (Family, Protocol, Option<IpAddr>) {
        (self.family, self.protocol, self.listen.value.address)
    }

    pub fn name(&self) -> &str {
        let name = self.forward.name.as_ref();
        name.map_or("(no name)", |name| name.value.as_str())
    }
}

/// Reads the documents of a spec, one for each file. `whole` tells that there is no further one,
/// which could not be read.
pub fn decode(roots: &[Node<'_>], whole: bool, problems: &mut Vec<Problem>) -> WrittenSpec {
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
        let key = files.iter().find_map(|file| file.key("firewall"));
        let policy = spec.forward_policy_span.take();
        spec.forward_policy_span = policy.or(key.map(|key| key.span.clone()));
    } else if whole {
        miss(&files, "firewall", problems);
    }
    let written = of_one_file(&files, "defaults", problems);
    let known = options::KEYS;
    let mut defaults = written
        .and_then(|node| Fields::of(node, "defaults", "`defaults`", known, problems))
        .map(|fields| Options::decode(&fields, &Options::default(), problems))
        .unwrap_or_default();
    if written.is_none() && !whole {
        // What could not be read may say another.
        defaults.protocols = None;
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
            spec.forwards
                .push(decode_forward(item, &defaults, problems));
        }
    }
    spec
}

/// The value of a key that one file has for the whole spec.
fn of_one_file<'n>(
    files: &[Fields<'n>],
    key: &'static str,
    problems: &mut Vec<Problem>,
) -> Option<&'n Node<'n>> {
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

fn decode_firewall(node: &Node<'_>, spec: &mut WrittenSpec, problems: &mut Vec<Problem>) {
    let known = &["interface", "snat", "forward_policy", "layout"];
    let Some(fields) = Fields::of(node, "firewall", "`firewall`", known, problems) else {
        return;
    };
    if let Some(node) = fields.required("interface", problems) {
        spec.interfaces = options::interfaces(node, true, problems);
    }
    if let Some(node) = fields.required("snat", problems) {
        spec.snat = options::snats(node, problems);
    }
    let policy = fields.parsed("forward_policy", "`drop` or `keep`", problems, |text| {
        one_of_words(text, &["drop", "keep"]).map(|word| match word {
            "keep" => ForwardPolicy::Keep,
            _ => ForwardPolicy::Drop,
        })
    });
    spec.forward_policy_span = policy.as_ref().map(|policy| policy.span.clone());
    spec.forward_policy = match fields.get("forward_policy") {
        Some(_) => policy.map(|policy| policy.value),
        None => Some(ForwardPolicy::Drop),
    };
    let layout = fields.parsed("layout", "`flat`, `tree` or `auto`", problems, |text| {
        one_of_words(text, &["flat", "tree", "auto"]).map(|word| match word {
            "flat" => Some(Layout::Flat),
            "tree" => Some(Layout::Tree),
            _ => None,
        })
    });
    spec.layout = layout.and_then(|layout| layout.value);
}

fn decode_forward(
    node: &Node<'_>,
    defaults: &Options,
    problems: &mut Vec<Problem>,
) -> WrittenForward {
    let known = options::OF_FORWARD;
    let mut forward = WrittenForward::default();
    let Some(fields) = Fields::of(node, "forward", "this forward", known, problems) else {
        return forward;
    };
    if fields.required("name", problems).is_some() {
        forward.name = fields.parsed("name", "a name", problems, |text| {
            text.parse().map_err(ProblemKind::InvalidName)
        });
    }
    if fields.required("listen", problems).is_some() {
        let expected = "a port, a range of ports, or either behind `IP:`";
        forward.listen = fields.parsed("listen", expected, problems, Listen::from_str);
    }
    forward.options = Options::decode(&fields, defaults, problems);
    forward.enabled = fields.get("enabled").map_or(Some(true), |_| {
        let enabled = fields.parsed("enabled", "`true` or `false`", problems, |text| {
            one_of_words(text, &["true", "false"]).map(|word| word == "true")
        });
        enabled.map(|enabled| enabled.value)
    });
    if let Some(node) = fields.required("target", problems) {
        forward.target = decode_target(node, problems);
    }
    forward.own_snat = fields.get("snat").is_some();
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

fn decode_target(node: &Node<'_>, problems: &mut Vec<Problem>) -> Option<WrittenTarget> {
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
        let destination = fields.parsed("ilb", expected, problems, Destination::from_str)?;
        return Some(WrittenTarget {
            kind: TargetKind::Ilb,
            destinations: vec![destination],
        });
    }
    let pods = fields.required("pod", problems)?;
    let list = match &pods.value {
        Value::Sequence(list) => list,
        _ => std::slice::from_ref(pods),
    };
    let expected = "`IP:PORT` or `IP:PORT-PORT`, or a list of those";
    let each = list.iter().map(|pod| {
        parsed(pod, "pod", expected, problems, |text| {
            let pod: Destination = text.parse()?;
            match pod.ports {
                TargetPorts::Kept => Err(ProblemKind::PodWithoutPort {
                    address: pod.address,
                }),
                TargetPorts::Range(_) => Ok(pod),
            }
        })
    });
    let destinations: Vec<Option<_>> = each.collect();
    if destinations.is_empty() {
        let kind = ProblemKind::EmptyList { key: "pod" };
        problems.push(Problem::new(pods.span.clone(), kind));
        return None;
    }
    Some(WrittenTarget {
        kind: TargetKind::Pod,
        destinations: destinations.into_iter().collect::<Option<_>>()?,
    })
}

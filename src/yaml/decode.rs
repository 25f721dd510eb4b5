//! The YAML trees of a spec to values, key by key. Every problem of a single value is reported here; `check`
//! compares values.

use super::bounds::MAX_PROBLEMS;
use super::description::decode_description;
use super::endpoint;
use super::fields::{Fields, one_of_words, one_or_list, parsed, sequence, yes_or_no};
use super::load::{Node, Value};
use super::networks::{self, NetworkNames};
use super::options::{self, Options};
use super::outbound;
use super::packet_tests;
use super::problem::{Code, Problem, ProblemKind};
use super::silence::{Silencing, decode_silence};
use super::written::{WrittenForward, WrittenListen, WrittenSpec, WrittenTarget};
use crate::forwards::{Firewall, ForwardPolicy, Layout, TargetKind, TargetPorts};
use crate::netfilter::target::Mss;

/// The keys of a spec.
const KEYS: &[&str] = &[
    "version",
    "description",
    "firewall",
    "networks",
    "defaults",
    "forwards",
    "outbound",
    "tests",
    "silence",
];

/// Reads the documents of a spec, one for each file. `whole` is false if another file could not be read: it
/// may have the keys that are missing here.
pub fn decode(
    roots: &[Node<'_>],
    whole: bool,
    mut networks: NetworkNames<'_>,
    problems: &mut Vec<Problem>,
) -> WrittenSpec {
    let mut spec = WrittenSpec::default();
    let files: Vec<Fields<'_>> = roots
        .iter()
        .filter_map(|root| Fields::of(root, "spec", "the spec", KEYS, problems))
        .collect();
    let whole = whole && files.len() == roots.len();
    for fields in &files {
        decode_version(fields, problems);
        let silence = decode_silence(fields, Silencing::Spec, problems);
        spec.silence.extend(silence);
    }
    spec.description = of_one_file(&files, "description", problems)
        .and_then(|node| decode_description(node, problems));
    if let Some(firewall) = of_one_file(&files, "firewall", problems) {
        // Only forwards take the firewall's `snat`.
        let forwards = files.iter().any(|file| file.get("forwards").is_some());
        decode_firewall(firewall, forwards, &mut spec, problems);
        let key = files.iter().find_map(|file| file.key("firewall"));
        let policy = spec.forward_policy_span.take();
        spec.forward_policy_span = policy.or(key.map(|key| key.span.clone()));
    } else if whole {
        report_missing(&files, "firewall", problems);
    }
    for node in files.iter().filter_map(|file| file.get("networks")) {
        networks.decode(node, problems);
    }
    let written = of_one_file(&files, "defaults", problems);
    let known = options::KEYS;
    let mut defaults = written
        .and_then(|node| Fields::of(node, "defaults", "`defaults`", known, problems))
        .map(|fields| Options::decode(&fields, &Options::default(), &mut networks, problems))
        .unwrap_or_default();
    if written.is_none() && !whole {
        // The file that could not be read may set another protocol.
        defaults.protocols = None;
    }
    let mut lists = files
        .iter()
        .filter_map(|file| file.get("forwards"))
        .peekable();
    let outbound = files.iter().filter_map(|file| file.get("outbound"));
    let outbound: Vec<&Node<'_>> = outbound.collect();
    if lists.peek().is_none() && outbound.is_empty() && whole {
        report_missing(&files, "forwards", problems);
    }
    for forwards in lists {
        for item in sequence(forwards, "forwards", problems).unwrap_or_default() {
            if problems.len() >= MAX_PROBLEMS {
                break;
            }
            spec.forwards
                .push(decode_forward(item, &defaults, &mut networks, problems));
        }
    }
    for entries in outbound {
        for item in sequence(entries, "outbound", problems).unwrap_or_default() {
            if problems.len() >= MAX_PROBLEMS {
                break;
            }
            let entry = outbound::decode(item, &mut networks, problems);
            spec.outbound.push(entry);
        }
    }
    let keys = files.iter().filter_map(|file| file.key("tests"));
    spec.tests_key = keys.map(|key| key.span.start).next_back();
    for tests in files.iter().filter_map(|file| file.get("tests")) {
        let tests = packet_tests::decode(tests, &mut networks, problems);
        spec.tests.extend(tests);
    }
    if problems.len() < MAX_PROBLEMS {
        let unused = networks.unused();
        spec.unused_networks = unused
            .map(|(name, span)| (name.to_owned(), span.clone()))
            .collect();
    }
    spec
}

/// Returns the paths of the files of networks that a document names.
pub fn network_paths(root: &Node<'_>) -> Vec<String> {
    let fields = Fields::of(root, "spec", "the spec", KEYS, &mut Vec::new());
    let node = fields.as_ref().and_then(|fields| fields.get("networks"));
    node.map(networks::paths).unwrap_or_default()
}

/// Adds the names of networks of a document that is valid.
pub fn networks_of(root: &Node<'_>, networks: &mut NetworkNames<'_>) {
    let mut reported = Vec::new();
    let fields = Fields::of(root, "spec", "the spec", KEYS, &mut reported);
    if let Some(node) = fields.as_ref().and_then(|fields| fields.get("networks")) {
        networks.decode(node, &mut reported);
    }
}

/// Returns the codes that a document that is valid silences for the whole spec.
pub fn silenced(root: &Node<'_>) -> Vec<Code> {
    let mut reported = Vec::new();
    let fields = Fields::of(root, "spec", "the spec", KEYS, &mut reported);
    let silence = fields.map(|fields| decode_silence(&fields, Silencing::Spec, &mut reported));
    silence.into_iter().flatten().collect()
}

/// Returns the value of a key that only one file may have, and reports the key in other files.
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

/// Reports a key that no file has, at the beginning of the first file.
fn report_missing(files: &[Fields<'_>], key: &'static str, problems: &mut Vec<Problem>) {
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

fn decode_firewall(
    node: &Node<'_>,
    forwards: bool,
    spec: &mut WrittenSpec,
    problems: &mut Vec<Problem>,
) {
    let known = &["interface", "snat", "mss", "forward_policy", "layout"];
    let Some(fields) = Fields::of(node, "firewall", "`firewall`", known, problems) else {
        return;
    };
    if let Some(node) = fields.required("interface", problems) {
        spec.interfaces = options::interfaces(node, true, problems);
    }
    let snat = if forwards {
        fields.required("snat", problems)
    } else {
        fields.get("snat")
    };
    if let Some(node) = snat {
        spec.snat = options::snats(node, problems);
    }
    let mss = fields.parsed(
        "mss",
        "`clamp` or a number of bytes",
        problems,
        segment_size,
    );
    spec.mss = mss.map(|mss| mss.value);
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

fn segment_size(text: &str) -> Result<Mss, ProblemKind> {
    if text == "clamp" {
        return Ok(Mss::Clamp);
    }
    let decimal = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    let bytes = text.parse().ok().filter(|_| decimal);
    bytes
        .filter(|bytes| Firewall::MSS.contains(bytes))
        .map(Mss::Bytes)
        .ok_or_else(|| ProblemKind::InvalidMss {
            text: text.to_owned(),
        })
}

fn decode_forward(
    node: &Node<'_>,
    defaults: &Options,
    networks: &mut NetworkNames<'_>,
    problems: &mut Vec<Problem>,
) -> WrittenForward {
    let known = options::OF_FORWARD;
    let mut forward = WrittenForward::default();
    let Some(fields) = Fields::of(node, "forward", "this forward", known, problems) else {
        return forward;
    };
    if fields.required("name", problems).is_some() {
        forward.name = fields.parsed("name", "a name", problems, |text| {
            text.parse()
                .map_err(|error| ProblemKind::InvalidName { error })
        });
    }
    forward.description = fields
        .get("description")
        .and_then(|node| decode_description(node, problems));
    if let Some(node) = fields.required("listen", problems) {
        forward.listen = decode_listen(node, problems);
    }
    forward.options = Options::decode(&fields, defaults, networks, problems);
    forward.enabled = fields.get("enabled").map_or(Some(true), |node| {
        yes_or_no(node, "enabled", problems).map(|enabled| enabled.value)
    });
    if let Some(node) = fields.required("target", problems) {
        let is_list = forward.listen.as_ref().is_some_and(|listen| listen.is_list);
        forward.target = decode_target(node, is_list, problems);
    }
    forward.own_snat = fields.get("snat").is_some();
    forward.silence = decode_silence(&fields, Silencing::Forward, problems);
    forward
}

/// Reads one listener, or a list of them.
fn decode_listen(node: &Node<'_>, problems: &mut Vec<Problem>) -> Option<WrittenListen> {
    let items = one_or_list(node);
    if items.is_empty() {
        let kind = ProblemKind::EmptyList { key: "listen" };
        problems.push(Problem::new(node.span.clone(), kind));
        return None;
    }
    let is_list = matches!(node.value, Value::Sequence(_));
    let expected = if is_list {
        "`PORT`, `PORT-PORT`, `IP:PORT` or `IP:PORT-PORT`"
    } else {
        "`PORT`, `PORT-PORT`, `IP:PORT` or `IP:PORT-PORT`, or a list of those"
    };
    let mut pieces = Vec::with_capacity(items.len());
    for item in items {
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
        pieces.extend(parsed(item, "listen", expected, problems, endpoint::listen));
    }
    Some(WrittenListen {
        pieces,
        is_list,
        span: node.span.clone(),
    })
}

/// Reads a target. The pods of a list of listeners may have no port: they keep the listen ports.
fn decode_target(
    node: &Node<'_>,
    of_list: bool,
    problems: &mut Vec<Problem>,
) -> Option<WrittenTarget> {
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
        let destination = fields.parsed("ilb", expected, problems, endpoint::destination)?;
        return Some(WrittenTarget {
            kind: TargetKind::Ilb,
            destinations: vec![destination],
        });
    }
    let pods = fields.required("pod", problems)?;
    let expected = "`IP:PORT` or `IP:PORT-PORT`, or a list of those";
    let each = one_or_list(pods).iter().map(|pod| {
        parsed(pod, "pod", expected, problems, |text| {
            let pod = endpoint::destination(text)?;
            match pod.ports {
                TargetPorts::Kept if !of_list => Err(ProblemKind::PodWithoutPort {
                    address: pod.address,
                }),
                TargetPorts::Kept | TargetPorts::Range(_) => Ok(pod),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_size_is_a_word_or_a_decimal_number_that_ip6tables_takes() {
        for (text, read) in [
            ("clamp", Some(Mss::Clamp)),
            ("536", Some(Mss::Bytes(536))),
            ("65495", Some(Mss::Bytes(65_495))),
            ("535", None),
            ("65496", None),
            ("70000", None),
            ("", None),
            ("+1360", None),
            ("01360", None),
            ("1e3", None),
            ("1360 bytes", None),
            ("Clamp", None),
        ] {
            assert_eq!(segment_size(text).ok(), read, "{text}");
        }
    }
}

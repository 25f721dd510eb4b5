//! The entries of `tests`: each is read, compared with itself, and made the model's. A test has nothing in common with
//! other tests, so it needs no form in between.

mod ends;
mod list;
mod write;

pub use list::TestList;
pub use write::{test_lines, tests_text};

use std::collections::BTreeSet;
use std::net::IpAddr;

use ends::Client;

use super::bounds::MAX_PROBLEMS;
use super::fields::{Fields, Placed, one_of_words, parsed, sequence, unknown};
use super::load::Node;
use super::networks::NetworkNames;
use super::places::Places;
use super::problem::{Problem, ProblemKind, Span, nearest};
use super::written::WrittenTest;
use crate::forwards::{OutboundProtocol, PacketTest, Reaches, Snat, TestDestination, TestPlace};
use crate::net::{Family, Interface};

/// The keys of a test.
const KEYS: &[&str] = &["name", "from", "to", "protocol", "in", "reaches", "snat"];

/// Reads the list `tests` of one file, without the tests that have a problem.
pub fn decode(
    node: &Node<'_>,
    networks: &mut NetworkNames<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<WrittenTest> {
    let mut tests = Vec::new();
    for item in sequence(node, "tests", problems).unwrap_or_default() {
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
        tests.extend(decode_test(item, networks, problems));
    }
    tests
}

/// Adds the file and line to each test. `starts` has the first byte of each.
pub fn locate(tests: &mut [PacketTest], starts: &[usize], places: &Places<'_>) {
    for (test, start) in tests.iter_mut().zip(starts) {
        let (file, position) = places.find(*start);
        test.place = Some(TestPlace {
            file: file.into(),
            line: position.line,
        });
    }
}

fn decode_test(
    node: &Node<'_>,
    networks: &mut NetworkNames<'_>,
    problems: &mut Vec<Problem>,
) -> Option<WrittenTest> {
    let fields = Fields::of(node, "test", "this test", KEYS, problems)?;
    let before = problems.len();
    let name = fields.parsed("name", "one line of text", problems, |text| {
        // A block scalar ends with a line end.
        text.trim_end()
            .parse()
            .map_err(|error| ProblemKind::InvalidTestName { error })
    });
    let from = fields.required("from", problems).and_then(|node| {
        let expected = "an address, or a name from `networks`";
        parsed(node, "from", expected, problems, |text| {
            ends::client(text, networks)
        })
    });
    let ingress = fields.parsed("in", "an interface name", problems, |text| {
        text.parse()
            .map_err(|error| ProblemKind::InvalidInterface { error })
    });
    let protocol = decode_protocol(&fields, problems);
    let (to, reaches) = (
        fields.required("to", problems),
        fields.required("reaches", problems),
    );
    // An invalid protocol does not tell whether the ends need ports.
    let to = to.zip(protocol).and_then(|(node, protocol)| {
        let expected = "a port, or an address with a port";
        parsed(node, "to", expected, problems, |text| {
            ends::destination(text, protocol)
        })
    });
    let reaches = reaches.zip(protocol).and_then(|(node, protocol)| {
        let expected = "`nothing`, or an address with a port, several separated by `|`";
        parsed(node, "reaches", expected, problems, |text| {
            ends::reaches(text, protocol)
        })
    });
    let snat = fields.parsed(
        "snat",
        "an address, a range of them, `masquerade` or `none`",
        problems,
        ends::snat,
    );
    if let (Some(snat), Some(Reaches::Nothing)) = (&snat, reaches.as_ref().map(|one| &one.value)) {
        problems.push(Problem::new(snat.span.clone(), ProblemKind::SnatOfNothing));
    }
    let told = told(to.as_ref(), reaches.as_ref(), snat.as_ref());
    let from = one_family(from?, &told, problems)?;
    if problems.len() > before {
        return None;
    }
    Some(WrittenTest {
        span: node.span.clone(),
        ingress: ingress.as_ref().map(|ingress| ingress.span.clone()),
        value: PacketTest {
            name: name.map(|name| name.value),
            from,
            to: to?.value,
            protocol: protocol?,
            ingress: ingress.map(|ingress| ingress.value),
            reaches: reaches?.value,
            snat: snat.map(|snat| snat.value),
            place: None,
        },
    })
}

/// Warns of tests that come in by an interface that the spec does not name: a name may have a typing error.
pub fn warn_of_interfaces(
    tests: &[WrittenTest],
    known: &BTreeSet<&Interface>,
    problems: &mut Vec<Problem>,
) {
    let names: Vec<&str> = known.iter().map(|name| name.as_str()).collect();
    for test in tests {
        let (Some(name), Some(span)) = (&test.value.ingress, &test.ingress) else {
            continue;
        };
        if !known.contains(name) {
            let kind = ProblemKind::UnknownInterface {
                name: name.to_string(),
                near: nearest(name.as_str(), &names).map(str::to_owned),
            };
            problems.push(Problem::new(span.clone(), kind));
        }
    }
}

fn decode_protocol(fields: &Fields<'_>, problems: &mut Vec<Problem>) -> Option<OutboundProtocol> {
    if fields.get("protocol").is_none() {
        return Some(OutboundProtocol::Tcp);
    }
    let known = &["tcp", "udp", "ping"];
    let protocol = fields.parsed("protocol", "`tcp`, `udp` or `ping`", problems, |text| {
        let word = one_of_words(text, known)?;
        word.parse::<OutboundProtocol>()
            .map_err(|_| unknown(text, known))
    });
    protocol.map(|protocol| protocol.value)
}

/// An address of a test: the key that has it, and its family.
struct OfKey {
    key: &'static str,
    family: Family,
    span: Span,
}

/// Returns the families of the addresses that a test has beside `from`.
fn told(
    to: Option<&Placed<TestDestination>>,
    reaches: Option<&Placed<Reaches>>,
    snat: Option<&Placed<Snat>>,
) -> Vec<OfKey> {
    let of = |key, address: IpAddr, span: &Span| OfKey {
        key,
        family: Family::of(address),
        span: span.clone(),
    };
    let to = to.and_then(|to| Some(of("to", to.value.address()?, &to.span)));
    let reaches = reaches.into_iter().flat_map(|reaches| {
        let each = reaches.value.hosts().iter();
        each.map(|host| of("reaches", host.address, &reaches.span))
    });
    let snat = snat.and_then(|snat| match snat.value {
        Snat::Addresses(range) => Some(of("snat", range.first(), &snat.span)),
        Snat::Masquerade | Snat::Client => None,
    });
    to.into_iter().chain(reaches).chain(snat).collect()
}

/// Returns the address of the client, and reports addresses of another family.
fn one_family(from: Placed<Client>, told: &[OfKey], problems: &mut Vec<Problem>) -> Option<IpAddr> {
    let networks = match from.value {
        Client::Address(address) => {
            let own = OfKey {
                key: "from",
                family: Family::of(address),
                span: from.span,
            };
            report_others(&own, told, problems);
            return Some(address);
        }
        Client::Networks(networks) => networks,
        Client::Unknown => return None,
    };
    let family = match told.first() {
        Some(first) => {
            report_others(first, told, problems);
            Ok(first.family)
        }
        None => networks
            .only_family()
            .ok_or(ProblemKind::TestOfEitherFamily {
                name: networks.name.to_string(),
            }),
    };
    let address = family.and_then(|family| networks.first_host(family));
    let reported = address.map_err(|kind| problems.push(Problem::new(from.span, kind)));
    reported.ok()
}

fn report_others(one: &OfKey, others: &[OfKey], problems: &mut Vec<Problem>) {
    let others = others.iter().filter(|other| other.family != one.family);
    problems.extend(others.map(|other| {
        let kind = ProblemKind::TestOfTwoFamilies {
            key: other.key,
            family: other.family,
            of: one.key,
            other: one.span.clone(),
        };
        Problem::new(other.span.clone(), kind)
    }));
}

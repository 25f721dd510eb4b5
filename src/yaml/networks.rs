//! The key `networks`: names for lists of networks, which stand wherever a network may.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::bounds::{MAX_PROBLEMS, MAX_VALUES};
use super::fields::{Fields, Placed, parsed, wrong_type};
use super::load::{Node, Value};
use super::nets::{ByFamily, net};
use super::network_file::{self, NetworkFile};
use super::problem::{Problem, ProblemKind, Span, nearest};
use crate::forwards::INTERNET;
use crate::net::{Family, not_a_host};

/// The key of one name's networks, in messages.
const ENTRY: &str = "network";

/// The longest name, as for forwards.
const LONGEST_NAME: usize = 63;

/// The most names among which the nearest to an unknown one is searched.
const MOST_COMPARED: usize = 100;

/// The named networks of a spec, and the lists in which they stand.
#[derive(Debug)]
pub struct NetworkNames<'t> {
    files: Vec<ReadFile<'t>>,
    named: BTreeMap<Box<str>, Named>,
    /// Each list with a name in it, by its names and its other networks. Forwards with equal lists share one.
    lists: BTreeMap<(Vec<Box<str>>, Vec<IpNet>), ByFamily>,
    /// The values of the spec so far. A network that a list has by a name counts as one more.
    values: usize,
    /// Whether the names are all that the spec has: a file of the spec that could not be read may have others.
    whole: bool,
}

#[derive(Debug)]
struct ReadFile<'t> {
    file: &'t NetworkFile<'t>,
    /// The place of its first byte in the spec.
    start: usize,
    /// Its networks once it was read; `None` if it has a problem, which was reported.
    networks: OnceCell<Option<ByFamily>>,
}

#[derive(Debug)]
struct Named {
    /// The name's place.
    span: Span,
    /// `None` if it has a problem, which was reported.
    networks: Option<ByFamily>,
    used: bool,
}

/// The networks of a name from which a test takes its client.
pub struct NamedNetworks {
    pub name: Box<str>,
    networks: ByFamily,
}

impl NamedNetworks {
    /// Returns the family of the networks if they are of one.
    pub fn only_family(&self) -> Option<Family> {
        let has = |family: &Family| self.networks.first(*family).is_some();
        let mut families = Family::ALL.into_iter().filter(has);
        families.next().filter(|_| families.next().is_none())
    }

    /// Returns the first address of the first network of a family that a host can have.
    pub fn first_host(&self, family: Family) -> Result<IpAddr, ProblemKind> {
        let Some(net) = self.networks.first(family) else {
            let name = self.name.to_string();
            return Err(ProblemKind::NoNetworkOfFamily { name, family });
        };
        first_host(net).ok_or_else(|| ProblemKind::NoHostInNetwork {
            name: self.name.to_string(),
            net,
        })
    }
}

/// An item of a list.
pub enum Member {
    Net(IpNet),
    /// A name that is defined, or may be.
    Name(Box<str>),
}

impl<'t> NetworkNames<'t> {
    /// Takes the files of networks, each with the place of its first byte in the spec, the number of values read
    /// so far, and whether every file of the spec could be read.
    pub fn new(
        files: impl IntoIterator<Item = (usize, &'t NetworkFile<'t>)>,
        values: usize,
        whole: bool,
    ) -> Self {
        Self {
            files: read_files(files),
            named: BTreeMap::new(),
            lists: BTreeMap::new(),
            values,
            whole,
        }
    }

    /// Reads the key of one file of the spec.
    pub fn decode(&mut self, node: &Node<'_>, problems: &mut Vec<Problem>) {
        let Value::Mapping(entries) = &node.value else {
            self.whole = false;
            let expected = "a mapping of names to networks";
            return wrong_type(node, "networks", expected, problems);
        };
        for (key, value) in entries {
            if problems.len() >= MAX_PROBLEMS {
                break;
            }
            let first = self.named.get(key.text.as_ref()).map(|named| &named.span);
            if let Some(kind) = first
                .map(|first| ProblemKind::DuplicateNetwork {
                    name: key.text.to_string(),
                    first: first.clone(),
                })
                .or_else(|| refused_name(&key.text))
            {
                problems.push(Problem::new(key.span.clone(), kind));
                continue;
            }
            let networks = self.networks(value, problems);
            let named = Named {
                span: key.span.clone(),
                networks,
                used: false,
            };
            self.named.insert(key.text.as_ref().into(), named);
        }
    }

    /// Reads the networks of one name: a list, or the file that has them.
    fn networks(&mut self, node: &Node<'_>, problems: &mut Vec<Problem>) -> Option<ByFamily> {
        match &node.value {
            Value::Mapping(_) => self.of_file(node, problems),
            Value::Sequence(items) if items.is_empty() => {
                let kind = ProblemKind::EmptyNetworks;
                problems.push(Problem::new(node.span.clone(), kind));
                None
            }
            Value::Sequence(items) => listed(items, problems),
            _ => {
                let expected = "a list of networks, or `{file: PATH}`";
                wrong_type(node, ENTRY, expected, problems);
                None
            }
        }
    }

    fn of_file(&mut self, node: &Node<'_>, problems: &mut Vec<Problem>) -> Option<ByFamily> {
        let fields = file_fields(node, problems)?;
        fields.required("file", problems)?;
        let Placed { value: path, span } = fields.scalar("file", "a path", problems)?;
        let unread = NetworkFile {
            path,
            content: Err(network_file::FileFault::NoFolder),
        };
        let read = self.files.iter().find(|read| read.file.path == path);
        if let Some(fault) = read.map_or(&unread, |read| read.file).fault() {
            problems.push(Problem::new(span, fault));
            return None;
        }
        let ReadFile {
            file,
            start,
            networks,
        } = read?;
        let values = &mut self.values;
        let read = || network_file::read(file.bytes(), *start, values, problems).map(ByFamily::new);
        networks.get_or_init(read).clone()
    }

    /// Reads an item of a list.
    pub fn member(&mut self, text: &str) -> Result<Member, ProblemKind> {
        if !is_name(text) {
            return net(text).map(Member::Net);
        }
        match self.named.get_mut(text) {
            Some(named) => named.used = true,
            None if self.whole => return Err(self.unknown(text)),
            None => {}
        }
        Ok(Member::Name(text.into()))
    }

    /// Reads the name of networks outside of a list. Returns `None` if the networks are not known: they have a
    /// problem, or a file of the spec could not be read.
    pub fn named(&mut self, text: &str) -> Result<Option<NamedNetworks>, ProblemKind> {
        if !is_name(text) {
            let text = text.to_owned();
            return Err(ProblemKind::InvalidClient { text });
        }
        let Some(named) = self.named.get_mut(text) else {
            let near = self.near(text);
            let text = text.to_owned();
            return if self.whole {
                Err(ProblemKind::UnknownClient { text, near })
            } else {
                Ok(None)
            };
        };
        named.used = true;
        let networks = named.networks.clone();
        Ok(networks.map(|networks| NamedNetworks {
            name: text.into(),
            networks,
        }))
    }

    /// Replaces the files of networks by those that the next documents name.
    pub fn change_files(&mut self, files: impl IntoIterator<Item = (usize, &'t NetworkFile<'t>)>) {
        self.files = read_files(files);
    }

    fn unknown(&self, text: &str) -> ProblemKind {
        ProblemKind::UnknownNetwork {
            text: text.to_owned(),
            near: self.near(text),
        }
    }

    fn near(&self, text: &str) -> Option<String> {
        let names = self.named.keys().map(AsRef::as_ref);
        let known: Vec<&str> = names.take(MOST_COMPARED).collect();
        nearest(text, &known).map(str::to_owned)
    }

    /// Returns the list of these networks and names, or nothing if a name has a problem.
    pub fn list(
        &mut self,
        mut nets: Vec<IpNet>,
        mut names: Vec<Box<str>>,
        span: &Span,
        problems: &mut Vec<Problem>,
    ) -> Option<ByFamily> {
        if names.is_empty() {
            return Some(ByFamily::new(nets));
        }
        // Their order has no meaning.
        names.sort_unstable();
        names.dedup();
        nets.sort_unstable();
        let lists = names
            .iter()
            .map(|name| self.named.get(name)?.networks.as_ref());
        let lists: Vec<&ByFamily> = lists.collect::<Option<_>>()?;
        if let ([one], []) = (lists.as_slice(), nets.as_slice()) {
            return Some((*one).clone());
        }
        let key = (names, nets);
        if let Some(known) = self.lists.get(&key) {
            return Some(known.clone());
        }
        let all = lists
            .into_iter()
            .flat_map(ByFamily::all)
            .chain(key.1.iter().copied());
        let all: Vec<IpNet> = all.collect();
        self.values += all.len();
        if self.values > MAX_VALUES {
            problems.push(Problem::new(span.clone(), ProblemKind::TooManyListed));
            return None;
        }
        let list = ByFamily::new(all);
        self.lists.insert(key, list.clone());
        Some(list)
    }

    /// Returns the names in no list, each with its place.
    pub fn unused(&self) -> impl Iterator<Item = (&str, &Span)> {
        let named = self
            .named
            .iter()
            .filter(|(_, named)| self.whole && !named.used);
        named.map(|(name, named)| (name.as_ref(), &named.span))
    }
}

fn read_files<'t>(
    files: impl IntoIterator<Item = (usize, &'t NetworkFile<'t>)>,
) -> Vec<ReadFile<'t>> {
    let files = files.into_iter().map(|(start, file)| ReadFile {
        file,
        start,
        networks: OnceCell::new(),
    });
    files.collect()
}

/// Returns the first address of a network that a host can have.
fn first_host(net: IpNet) -> Option<IpAddr> {
    // The first address of a network names the network (RFC 950) or its routers (RFC 4291, 2.6.1), unless the network
    // has two addresses (RFC 3021, RFC 6164).
    let skipped = net.max_prefix_len() - net.prefix_len() > 1;
    let own = match net {
        IpNet::V4(net) => {
            let first = net.network().to_bits().saturating_add(u32::from(skipped));
            IpAddr::V4(first.into())
        }
        IpNet::V6(net) => {
            let first = net.network().to_bits().saturating_add(u128::from(skipped));
            IpAddr::V6(first.into())
        }
    };
    // A network of half of all addresses begins with some that no host has.
    let beyond = [
        IpAddr::V4(Ipv4Addr::new(1, 0, 0, 1)),
        IpAddr::V6(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1)),
    ];
    let mut each = [own].into_iter().chain(beyond);
    each.find(|address| net.contains(address) && not_a_host(*address).is_none())
}

/// Returns the paths of the files that the `networks` of a spec name.
pub fn paths(node: &Node<'_>) -> Vec<String> {
    let Value::Mapping(entries) = &node.value else {
        return Vec::new();
    };
    let each = entries.iter().filter_map(|(_, value)| {
        let mut problems = Vec::new();
        let fields = file_fields(value, &mut problems)?;
        let path = fields.scalar("file", "a path", &mut problems)?;
        Some(path.value.to_owned())
    });
    each.collect()
}

fn file_fields<'n>(node: &'n Node<'n>, problems: &mut Vec<Problem>) -> Option<Fields<'n>> {
    Fields::of(node, ENTRY, "an entry of `networks`", &["file"], problems)
}

/// Reads the networks of a name, or nothing if one of them is invalid.
fn listed(items: &[Node<'_>], problems: &mut Vec<Problem>) -> Option<ByFamily> {
    let mut nets = Vec::with_capacity(items.len());
    for item in items {
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
        let expected = "a list of networks as `198.51.100.0/24`";
        let one = parsed(item, ENTRY, expected, problems, |text| {
            if is_name(text) {
                let text = text.to_owned();
                return Err(ProblemKind::NestedNetworks { text });
            }
            net(text)
        });
        nets.extend(one.map(|one| one.value));
    }
    (nets.len() == items.len()).then(|| ByFamily::new(nets))
}

/// Whether an item of a list is a name. No network is: it begins with a digit or has a colon.
fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.len() <= LONGEST_NAME
        && text.bytes().all(allowed)
}

/// Returns the problem of a name that networks cannot have.
fn refused_name(text: &str) -> Option<ProblemKind> {
    let name = text.to_owned();
    match text {
        INTERNET => Some(ProblemKind::ReservedNetworkName { name }),
        _ if is_name(text) => None,
        _ => Some(ProblemKind::InvalidNetworkName { name }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_host_of_a_network_is_not_the_address_of_the_network() {
        for (net, host) in [
            ("198.51.100.0/24", Some("198.51.100.1")),
            ("198.51.100.4/30", Some("198.51.100.5")),
            ("198.51.100.4/31", Some("198.51.100.4")),
            ("198.51.100.7/32", Some("198.51.100.7")),
            ("2001:db8::/64", Some("2001:db8::1")),
            ("2001:db8::4/126", Some("2001:db8::5")),
            ("2001:db8::4/127", Some("2001:db8::4")),
            ("2001:db8::7/128", Some("2001:db8::7")),
            ("0.0.0.0/0", Some("1.0.0.1")),
            ("0.0.0.0/8", None),
            ("224.0.0.0/4", None),
            ("::/0", Some("2000::1")),
            ("ff00::/8", None),
        ] {
            let found = first_host(net.parse().expect("a network"));
            let host = host.map(|host| host.parse::<IpAddr>().expect("an address"));
            assert_eq!(found, host, "{net}");
        }
    }
}

//! Other conditions of a rule.

use ipnet::IpNet;
use nvactl::net::{Interface, Port, PortRange, Protocol};
use nvactl::netfilter::interface::InterfacePattern;
use nvactl::netfilter::limit::{ConnLimit, HashLimit, Limit, PerSecond, Whose};
use nvactl::netfilter::mark::Mark;
use nvactl::netfilter::matches::{AddressType, Cluster, Match, Probability};
use nvactl::netfilter::negatable::Negatable::{self, Is, Not};
use nvactl::netfilter::protocol::{IcmpType, IpProtocol};
use nvactl::netfilter::rule::Rule;
use nvactl::netfilter::token::Token;
use nvactl::netfilter::tracking::{Conntrack, CtDirection, CtState, CtStates};

use super::Change::{self, Gone, Narrower, Negated, Other, Wider};
use super::Field;

/// A condition with another value; `None` if the condition is gone.
type Changed = (Field, Change, Option<Match>);

/// Returns the changes of a condition.
pub fn changes(condition: &Match) -> Vec<Changed> {
    match condition {
        Match::Source(net) => whole(Field::Source, net, other_nets, Match::Source),
        Match::Destination(net) => whole(Field::Destination, net, other_nets, Match::Destination),
        Match::Ingress(name) => whole(Field::Ingress, name, other_interfaces, Match::Ingress),
        Match::Egress(name) => whole(Field::Egress, name, other_interfaces, Match::Egress),
        Match::Protocol(one) => whole(Field::Protocol, one, |_| Vec::new(), Match::Protocol),
        Match::Icmp(kind) => whole(Field::Icmp, kind, |kind| other_types(*kind), Match::Icmp),
        Match::Icmp6(kind) => whole(Field::Icmp, kind, |kind| other_types(*kind), Match::Icmp6),
        Match::Tcp { .. } | Match::Udp { .. } => of_transport(condition),
        Match::Multiport { of, ports } => {
            let with = |ports| Match::Multiport { of: *of, ports };
            whole(Field::Port, ports, |list| other_lists(list), with)
        }
        Match::Conntrack(conntrack) => of_conntrack(*conntrack),
        Match::AddressType { of, kind } => {
            let with = |kind| Match::AddressType { of: *of, kind };
            let unicast = |_: &AddressType| vec![(Other, AddressType::Unicast)];
            whole(Field::AddressType, kind, unicast, with)
        }
        Match::Probability(share) => {
            let third = |_: &Probability| vec![(Other, Probability::one_of(3))];
            whole(Field::Share, share, third, Match::Probability)
        }
        Match::Cluster(share) => whole(Field::Share, share, other_shares, Match::Cluster),
        Match::Mark(mark) => whole(Field::Mark, mark, |mark| other_marks(*mark), Match::Mark),
        Match::Connmark(mark) => whole(
            Field::Mark,
            mark,
            |mark| other_marks(*mark),
            Match::Connmark,
        ),
        Match::HashLimit(limit) => of_rate(limit),
        Match::ConnLimit(limit) => of_count(*limit),
        Match::Limit(limit) => {
            let more = Limit::a_minute(limit.per_minute() + 1);
            vec![
                (Field::Limit, Wider, Some(Match::Limit(more))),
                (Field::Limit, Gone, None),
            ]
        }
        _ => Vec::new(),
    }
}

/// Returns the changes of a condition with one value.
fn whole<T: Clone>(
    field: Field,
    value: &Negatable<T>,
    others: impl Fn(&T) -> Vec<(Change, T)>,
    with: impl Fn(Negatable<T>) -> Match,
) -> Vec<Changed> {
    let changed = values(value, others).into_iter();
    let changed = changed.map(|(change, value)| (field, change, Some(with(value))));
    changed.chain([(field, Gone, None)]).collect()
}

/// Returns the opposite of a value, and other ones.
fn values<T: Clone>(
    value: &Negatable<T>,
    others: impl Fn(&T) -> Vec<(Change, T)>,
) -> Vec<(Change, Negatable<T>)> {
    let (opposite, other): (_, Vec<_>) = match value {
        Is(one) => {
            let others = others(one).into_iter();
            (
                Not(one.clone()),
                others.map(|(c, one)| (c, Is(one))).collect(),
            )
        }
        Not(one) => {
            let others = others(one).into_iter();
            (
                Is(one.clone()),
                others.map(|(c, one)| (c, Not(one))).collect(),
            )
        }
    };
    [(Negated, opposite)].into_iter().chain(other).collect()
}

/// Returns the network with one bit less, both halves, and the neighbour with which it forms the wider one.
fn other_nets(net: &IpNet) -> Vec<(Change, IpNet)> {
    let wider = net.supernet().into_iter().map(|net| (Wider, net));
    let neighbour = net.supernet().into_iter().flat_map(|wider| {
        let halves = wider.subnets(net.prefix_len()).expect("it is longer");
        halves.filter(|half| half != net)
    });
    let halves = net.subnets(net.prefix_len() + 1).into_iter().flatten();
    let halves = halves.map(|half| (Narrower, half));
    let neighbour = neighbour.map(|net| (Other, net));
    wider.chain(neighbour).chain(halves).collect()
}

fn other_interfaces(pattern: &InterfacePattern) -> Vec<(Change, InterfacePattern)> {
    let other: Interface = match pattern.to_string().as_str() {
        "eth0" => "eth1",
        _ => "eth0",
    }
    .parse()
    .expect("it is a name");
    vec![(Other, other.into())]
}

fn other_types(kind: IcmpType) -> Vec<(Change, IcmpType)> {
    let reply = match kind {
        // Echo requests and replies of IPv4, then of IPv6.
        IcmpType::Type(8) => 0,
        _ => 129,
    };
    vec![(Wider, IcmpType::Any), (Other, IcmpType::Type(reply))]
}

fn other_shares(share: &Cluster) -> Vec<(Change, Cluster)> {
    let node = (share.node + 1) % share.total;
    let seed = share.seed.wrapping_add(1);
    let more = share.total + 1;
    vec![
        (Other, Cluster { node, ..*share }),
        (Other, Cluster { seed, ..*share }),
        (
            Narrower,
            Cluster {
                total: more,
                ..*share
            },
        ),
    ]
}

/// Returns the changes of a limit of new connections: each with another name, since the kernel keeps the values of a name.
fn of_rate(limit: &HashLimit) -> Vec<Changed> {
    let others = |limit: HashLimit| HashLimit {
        name: format!("{}x", limit.name).into(),
        ..limit
    };
    // The kernel holds some rates only; the error is the next one.
    let rate = |times| {
        let next = PerSecond::new(times).or_else(PerSecond::new);
        next.expect("the kernel holds it")
    };
    let of = match limit.of {
        Whose::All => Whose::Address,
        Whose::Address | Whose::Net(_) => Whose::All,
    };
    let mut all: Vec<(Change, HashLimit)> = vec![
        (
            Wider,
            HashLimit {
                per_second: rate(limit.per_second.times() + 1),
                ..limit.clone()
            },
        ),
        (
            Narrower,
            HashLimit {
                per_second: rate(1),
                ..limit.clone()
            },
        ),
        (
            Wider,
            HashLimit {
                burst: limit.burst + 1,
                ..limit.clone()
            },
        ),
        (
            Wider,
            HashLimit {
                expire: limit.expire + 1,
                ..limit.clone()
            },
        ),
        (
            Other,
            HashLimit {
                of,
                ..limit.clone()
            },
        ),
        (Other, limit.clone()),
    ];
    if limit.burst > 1 {
        let burst = limit.burst - 1;
        all.push((
            Narrower,
            HashLimit {
                burst,
                ..limit.clone()
            },
        ));
    }
    let all = all.into_iter();
    let all = all.map(|(change, limit)| (change, Match::HashLimit(others(limit))));
    limited(all, &format!("-m hashlimit {}", others(limit.clone())))
}

/// Returns the changes of a limit of connections at one time.
fn of_count(limit: ConnLimit) -> Vec<Changed> {
    let (less, more) = (limit.most - 1, limit.most + 1);
    let mask = if limit.mask == 0 { 24 } else { 0 };
    let all = [
        (
            Narrower,
            ConnLimit {
                most: less,
                ..limit
            },
        ),
        (
            Wider,
            ConnLimit {
                most: more,
                ..limit
            },
        ),
        (Other, ConnLimit { mask, ..limit }),
    ];
    let all = all.map(|(change, limit)| (change, Match::ConnLimit(limit)));
    limited(all, &format!("-m connlimit {limit}"))
}

/// Returns changes of a limit, with its opposite, which is another option.
fn limited(others: impl IntoIterator<Item = (Change, Match)>, printed: &str) -> Vec<Changed> {
    let words = printed.split(' ').map(|word| match word {
        "--hashlimit-above" => "--hashlimit-upto",
        "--connlimit-above" => "--connlimit-upto",
        word => word,
    });
    let opposite = Match::Other(words.map(Token::from).collect());
    let others = others.into_iter().chain([(Negated, opposite)]);
    let others = others.map(|(change, condition)| (Field::Limit, change, Some(condition)));
    others.chain([(Field::Limit, Gone, None)]).collect()
}

fn other_marks(mark: Mark) -> Vec<(Change, Mark)> {
    let value = mark.value ^ mark.mask;
    vec![(Other, Mark { value, ..mark })]
}

/// Returns the port with a number after another one; `None` beyond the last.
pub fn moved(port: Port, by: i16) -> Option<Port> {
    Port::new(port.number().checked_add_signed(by)?)
}

/// Returns the range one port higher, or lower at the upper end.
pub fn shifted(ports: PortRange) -> PortRange {
    let by = if ports.last().number() == u16::MAX {
        -1
    } else {
        1
    };
    let by = |port| moved(port, by).expect("it is a port");
    PortRange::new(by(ports.first()), by(ports.last())).expect("it is in order")
}

fn other_ranges(ports: PortRange) -> Vec<(Change, PortRange)> {
    let (first, last) = (ports.first(), ports.last());
    let ends = [
        (Wider, moved(first, -1), Some(last)),
        (Wider, Some(first), moved(last, 1)),
        (Narrower, moved(first, 1), Some(last)),
        (Narrower, Some(first), moved(last, -1)),
    ];
    let ends = ends
        .into_iter()
        .filter_map(|(change, first, last)| Some((change, PortRange::new(first?, last?).ok()?)));
    ends.chain([(Other, shifted(ports))]).collect()
}

fn other_lists(list: &[PortRange]) -> Vec<(Change, Vec<PortRange>)> {
    let mut all = Vec::new();
    for (place, ports) in list.iter().enumerate() {
        for (change, other) in other_ranges(*ports) {
            let mut list = list.to_vec();
            list[place] = other;
            all.push((change, list));
        }
        if list.len() > 1 {
            let mut list = list.to_vec();
            list.remove(place);
            all.push((Narrower, list));
        }
    }
    all
}

/// Returns the changes of `-m tcp` and `-m udp`.
fn of_transport(condition: &Match) -> Vec<Changed> {
    let (source, destination) = match condition {
        Match::Tcp {
            source,
            destination,
            ..
        }
        | Match::Udp {
            source,
            destination,
        } => (*source, *destination),
        _ => (None, None),
    };
    let with = |source, destination| match condition {
        Match::Tcp { flags, .. } => Match::Tcp {
            source,
            destination,
            flags: *flags,
        },
        _ => Match::Udp {
            source,
            destination,
        },
    };
    let mut all = Vec::new();
    for (change, source) in optional(source) {
        all.push((Field::SourcePort, change, Some(with(source, destination))));
    }
    for (change, destination) in optional(destination) {
        all.push((Field::Port, change, Some(with(source, destination))));
    }
    if let Match::Tcp {
        flags: Some(flags), ..
    } = condition
    {
        for (change, flags) in values(flags, |_| Vec::new()) {
            let flags = Some(flags);
            all.push((
                Field::Flags,
                change,
                Some(Match::Tcp {
                    source,
                    destination,
                    flags,
                }),
            ));
        }
        let flags = None;
        all.push((
            Field::Flags,
            Gone,
            Some(Match::Tcp {
                source,
                destination,
                flags,
            }),
        ));
    }
    all
}

/// Returns the changes of ports that a condition may leave open.
fn optional(ports: Option<Negatable<PortRange>>) -> Vec<(Change, Option<Negatable<PortRange>>)> {
    let Some(ports) = ports else {
        return Vec::new();
    };
    let changed = values(&ports, |ports| other_ranges(*ports)).into_iter();
    let changed = changed.map(|(change, ports)| (change, Some(ports)));
    changed.chain([(Gone, None)]).collect()
}

fn of_conntrack(conntrack: Conntrack) -> Vec<Changed> {
    let Conntrack {
        states,
        original_destination,
        original_destination_port,
        status,
        direction,
    } = conntrack;
    let mut all: Vec<(Field, Change, Conntrack)> = Vec::new();
    if let Some(states) = states {
        let mut add = |change, states| {
            all.push((
                Field::States,
                change,
                Conntrack {
                    states,
                    ..conntrack
                },
            ));
        };
        for (change, states) in values(&states, |states| other_states(*states)) {
            add(change, Some(states));
        }
        add(Gone, None);
    }
    if let Some(net) = original_destination {
        let mut add = |change, original_destination| {
            let changed = Conntrack {
                original_destination,
                ..conntrack
            };
            all.push((Field::OriginalDestination, change, changed));
        };
        for (change, net) in values(&net, other_nets) {
            add(change, Some(net));
        }
        add(Gone, None);
    }
    for (change, original_destination_port) in optional(original_destination_port) {
        let changed = Conntrack {
            original_destination_port,
            ..conntrack
        };
        all.push((Field::OriginalPort, change, changed));
    }
    if let Some(status) = status {
        for (change, status) in values(&status, |_| Vec::new()) {
            let status = Some(status);
            all.push((
                Field::Status,
                change,
                Conntrack {
                    status,
                    ..conntrack
                },
            ));
        }
        all.push((
            Field::Status,
            Gone,
            Conntrack {
                status: None,
                ..conntrack
            },
        ));
    }
    if let Some(direction) = direction {
        let opposite = match direction {
            CtDirection::Original => CtDirection::Reply,
            CtDirection::Reply => CtDirection::Original,
        };
        let direction = Some(opposite);
        all.push((
            Field::Direction,
            Other,
            Conntrack {
                direction,
                ..conntrack
            },
        ));
        all.push((
            Field::Direction,
            Gone,
            Conntrack {
                direction: None,
                ..conntrack
            },
        ));
    }
    // iptables refuses the match if it has no condition.
    let is_empty = |conntrack: Conntrack| conntrack == Conntrack::default();
    let changed = all.into_iter().map(|(field, change, changed)| {
        let kept = (!is_empty(changed)).then_some(Match::Conntrack(changed));
        (field, change, kept)
    });
    changed.collect()
}

/// Returns the states without each of several, and with another one.
fn other_states(states: CtStates) -> Vec<(Change, CtStates)> {
    let without = |one: CtState| {
        let kept = states.iter().filter(|state| *state != one);
        kept.map(CtStates::from)
            .reduce(|all, one| one.iter().fold(all, CtStates::or))
    };
    let narrower = states.iter().filter_map(without);
    let narrower = narrower.map(|states| (Narrower, states));
    let wider = [
        CtState::Invalid,
        CtState::New,
        CtState::Established,
        CtState::Dnat,
    ];
    let wider = wider.into_iter().filter(|one| !states.contains(*one));
    let wider = wider.map(|one| (Wider, states.or(one)));
    narrower.chain(wider).collect()
}

/// Returns the rule for another protocol.
pub fn other_protocol(rule: &Rule) -> Option<Rule> {
    let mut rule = rule.clone();
    let is_protocol = |one: &&mut Match| matches!(one, Match::Protocol(_));
    let protocol = rule.matches.iter_mut().find(is_protocol)?;
    let Match::Protocol(Is(IpProtocol::Transport(of)) | Not(IpProtocol::Transport(of))) = protocol
    else {
        return None;
    };
    let other = match of {
        Protocol::Tcp => Protocol::Udp,
        Protocol::Udp => Protocol::Tcp,
    };
    *of = other;
    rule.matches.retain(|one| {
        !matches!(
            one,
            Match::Tcp {
                source: None,
                destination: None,
                ..
            }
        )
    });
    for one in &mut rule.matches {
        let (Match::Tcp {
            source,
            destination,
            ..
        }
        | Match::Udp {
            source,
            destination,
        }) = one
        else {
            continue;
        };
        let (source, destination) = (*source, *destination);
        *one = match other {
            Protocol::Tcp => Match::Tcp {
                source,
                destination,
                flags: None,
            },
            Protocol::Udp => Match::Udp {
                source,
                destination,
            },
        };
    }
    Some(rule)
}

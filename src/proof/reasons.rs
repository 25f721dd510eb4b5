//! The remarks that explain why a connection ends differently.
//!
//! A remark explains a connection only if the old rule may take its packets and the end changed as the remark says. A
//! fault of the import must not hide behind a remark about something else.

use std::net::IpAddr;

use super::changed_end::{ChangedEnd, hosts, is_at_targets};
use super::old_rules::{FirstPacket, OldEntry, OldRules};
use crate::forwards::{
    Forward, GUARDED, Outbound, TestDestination, TestHost, internet_v6, not_internet_v4,
};
use crate::import::{Beyond, ImportRemark, Part, Remarked};
use crate::net::Port;

/// Returns the remarks that explain why a connection ends differently.
pub(super) fn explaining(old: &OldRules<'_>, changed: &ChangedEnd<'_>) -> Vec<Remarked> {
    let of_entry = |entry: &OldEntry<'_>| {
        let explains = |one: &&&Remarked| {
            let mut forwards = entry.forwards.iter();
            let mut outbound = entry.outbound.iter();
            forwards.any(|forward| {
                let redirection = Redirection {
                    forward,
                    entry,
                    changed,
                    old,
                };
                redirection.is_explained(&one.remark)
            }) || outbound.any(|outbound| {
                let way_out = WayOut {
                    outbound,
                    entry,
                    changed,
                    old,
                };
                way_out.is_explained(&one.remark)
            })
        };
        let remarks = entry.remarks.iter().filter(explains);
        remarks.map(|one| (*one).clone()).collect::<Vec<_>>()
    };
    old.entries.values().flat_map(of_entry).collect()
}

/// A connection beside a forward.
struct Redirection<'r> {
    forward: &'r Forward,
    entry: &'r OldEntry<'r>,
    changed: &'r ChangedEnd<'r>,
    old: &'r OldRules<'r>,
}

impl Redirection<'_> {
    fn is_explained(&self, remark: &ImportRemark) -> bool {
        let Self {
            forward, changed, ..
        } = self;
        let is_of_forward = changed
            .protocol()
            .is_none_or(|protocol| protocol == forward.protocol);
        if !is_of_forward || changed.test.family() != forward.family() {
            return false;
        }
        let listens = self.listens(changed.test.to.port());
        let is_at_listener = self.is_at_listener();
        let is_admitted = forward.sources.admits(changed.test.from);
        match remark {
            ImportRemark::TakesTransit => {
                listens && !is_at_listener && changed.is_redirected_no_more(forward)
            }
            ImportRemark::EveryProtocol => {
                let asked = changed.asked().map(|host| host.address);
                let is_taken = forward.listen.address.is_none_or(|one| asked == Some(one));
                changed.is_ping() && is_taken && changed.is_redirected_no_more(forward)
            }
            ImportRemark::EveryInterface(_) => {
                let is_other =
                    |by| !forward.entrances().any(|one| one == by) && (listens || is_at_listener);
                changed.arrival.is_some_and(is_other) && changed.is_redirected_no_more(forward)
            }
            ImportRemark::OthersReachedMachine => {
                is_at_listener
                    && !is_admitted
                    && changed.is_lost()
                    && changed.is_straight(changed.before)
            }
            ImportRemark::OthersReachedTarget(by) => {
                is_at_listener
                    && !is_admitted
                    && changed.is_lost()
                    && !is_at_targets(forward, changed.before)
                    && self.old.may_meet(by, &self.packet())
            }
            ImportRemark::AcceptLeftOut => {
                is_at_listener && !is_admitted && changed.is_redirected_no_more(forward)
            }
            ImportRemark::UnequalShares | ImportRemark::OtherShares => {
                let is_meant = |host: &TestHost| self.entry.may_lead_to(host.address);
                is_at_listener
                    && is_at_targets(forward, changed.before)
                    && changed.is_further_hosts()
                    && hosts(changed.after).iter().all(is_meant)
            }
            ImportRemark::LimitCounts => is_at_listener && is_admitted && changed.is_other_answer(),
            ImportRemark::InsideSource => {
                is_at_listener && changed.is_other_source() && self.had_source_of_inside()
            }
            ImportRemark::OtherSources(net) => {
                is_at_listener && changed.is_other_source() && net.contains(&changed.test.from)
            }
            ImportRemark::RefusedBefore { by, .. } => {
                is_at_listener
                    && is_admitted
                    && changed.is_gained()
                    && is_at_targets(forward, changed.after)
                    && hosts(changed.after)
                        .into_iter()
                        .any(|host| self.old.may_meet(by, &self.packet().to(host)))
            }
            ImportRemark::SomePorts => {
                (listens || is_at_listener || changed.is_ping())
                    && changed.is_gained()
                    && changed.is_straight(changed.after)
            }
            ImportRemark::AcceptsMore(beyond) => {
                changed.is_lost()
                    && (changed.is_straight(changed.before) && self.is_beyond(*beyond)
                        || self.was_redirected_otherwise())
                    && hosts(changed.before).into_iter().all(|host| {
                        let packet = || self.packet().to(host);
                        self.entry.may_meet(Part::Accept, &packet())
                            || self.entry.may_meet(Part::Limit, &packet())
                    })
            }
            ImportRemark::RewritesMore(beyond) => {
                let mut parts = [Part::Source, Part::Hairpin].into_iter();
                changed.keeps_host_alone()
                    && !changed.had_own_source()
                    && changed.is_straight(changed.before)
                    && self.is_beyond(*beyond)
                    && parts.any(|part| self.entry.may_meet(part, &self.packet()))
            }
            ImportRemark::PrivateNetworks
            | ImportRemark::Guarded
            | ImportRemark::EveryEntrance
            | ImportRemark::MoreSources
            | ImportRemark::KeptSource(_)
            | ImportRemark::OtherInterfaces
            | ImportRemark::LogWords
            | ImportRemark::Answered
            | ImportRemark::LimitAnswers
            | ImportRemark::SourcePorts => false,
        }
    }

    fn listens(&self, port: Option<Port>) -> bool {
        port.is_some_and(|port| self.forward.listen.ports.contains(port))
    }

    fn is_at_listener(&self) -> bool {
        match self.changed.test.to {
            TestDestination::Machine(port) => self.listens(Some(port)),
            TestDestination::Host(TestHost { address, port }) => {
                self.forward.listen.address == Some(address)
                    && (self.listens(port) || self.changed.is_ping())
            }
        }
    }

    /// Returns whether a rule for more than a forward's own connections is for this one.
    fn is_beyond(&self, beyond: Beyond) -> bool {
        let mut targets = self.forward.target.destinations.iter();
        let asked = self.changed.asked().map(|host| host.address);
        (beyond.pings || !self.changed.is_ping())
            && (beyond.hosts || targets.any(|to| asked == Some(to.address)))
    }

    /// Returns whether rules that stay led the connection to its hosts. The accept that they needed was taken over.
    fn was_redirected_otherwise(&self) -> bool {
        hosts(self.changed.before)
            .iter()
            .all(|host| self.old.redirects_otherwise(&self.packet(), host.address))
    }

    /// Returns whether the client is in the network of a target, and its source was left alone.
    fn had_source_of_inside(&self) -> bool {
        let mut targets = self.forward.target.destinations.iter();
        let from = self.changed.test.from;
        self.changed.had_own_source()
            && targets.any(|to| self.old.name_network_of(from, to.address))
    }

    fn packet(&self) -> FirstPacket<'_> {
        packet(self.changed)
    }
}

/// A connection beside an outbound entry.
struct WayOut<'r> {
    outbound: &'r Outbound,
    entry: &'r OldEntry<'r>,
    changed: &'r ChangedEnd<'r>,
    old: &'r OldRules<'r>,
}

impl WayOut<'_> {
    fn is_explained(&self, remark: &ImportRemark) -> bool {
        let Self {
            outbound, changed, ..
        } = self;
        let Some(to) = changed.asked().filter(|_| self.is_for_others()) else {
            return false;
        };
        let comes_in = changed
            .arrival
            .is_some_and(|by| outbound.ingress.contains(by));
        let is_source = outbound.allow_from.contains(changed.test.from);
        let was_straight = changed.is_straight(changed.before);
        let keeps_source_now = changed.is_other_source() && !changed.had_own_source();
        if *remark == ImportRemark::OtherInterfaces {
            return !comes_in
                && was_straight
                && keeps_source_now
                && self.entry.may_meet(Part::Source, &packet(changed));
        }
        if *remark == ImportRemark::EveryEntrance {
            return !comes_in
                && is_source
                && was_straight
                && changed.is_lost()
                && self.entry.may_meet(Part::Accept, &packet(changed));
        }
        if !comes_in {
            return false;
        }
        match remark {
            ImportRemark::PrivateNetworks => {
                is_source
                    && (changed.is_lost() || keeps_source_now)
                    && was_straight
                    && !is_of_internet(to.address)
                    && !outbound.allow_to.contains(to.address)
            }
            ImportRemark::Guarded => {
                is_source
                    && changed.is_lost()
                    && was_straight
                    && outbound.allow_to.guarded.contains(&to.address)
            }
            ImportRemark::KeptSource(by) => {
                is_source
                    && changed.is_other_source()
                    && was_straight
                    && changed.had_own_source()
                    && self.old.may_meet(by, &packet(changed))
            }
            ImportRemark::RefusedBefore { by, .. } => {
                is_source
                    && changed.is_gained()
                    && changed.is_straight(changed.after)
                    && self.old.may_meet(by, &packet(changed))
            }
            ImportRemark::MoreSources => {
                !is_source
                    && changed.is_lost()
                    && was_straight
                    && changed.had_own_source()
                    && self.entry.may_meet(Part::Accept, &packet(changed))
            }
            _ => false,
        }
    }

    /// Returns whether the connection has a protocol and port of the entry, and asks for a host that is neither the machine
    /// nor of a forward.
    fn is_for_others(&self) -> bool {
        let Self {
            outbound, changed, ..
        } = self;
        let asked = changed.asked().map(|host| host.address);
        let is_of_forward = asked.is_some_and(|asked| self.old.is_of_forward(asked));
        let is_asked_port = |port: Port| {
            outbound.ports.is_empty() || outbound.ports.iter().any(|range| range.contains(port))
        };
        outbound.family == changed.test.family()
            && outbound.protocols.contains(&changed.test.protocol)
            && changed.test.to.port().is_none_or(is_asked_port)
            && !is_of_forward
    }
}

/// Returns whether `internet` in a spec stands for an address.
fn is_of_internet(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => !not_internet_v4().contains(address) && !GUARDED.contains(&address),
        IpAddr::V6(_) => internet_v6().contains(&address),
    }
}

fn packet<'c>(changed: &ChangedEnd<'c>) -> FirstPacket<'c> {
    FirstPacket {
        protocol: changed.test.protocol,
        from: changed.test.from,
        to: changed.asked().map(|host| host.address),
        port: changed.test.to.port(),
        arrival: changed.arrival,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwards::{OutboundProtocol, PacketTest, Reaches};
    use crate::import::{KnownRoutes, import};
    use crate::netfilter::text::typed::read_typed;
    use crate::twin::packet_tests::{FoundEnd, ReachedEnd};

    /// Reads an end: `-`, or hosts, each with the source that it saw.
    fn end(text: &str) -> FoundEnd {
        if text == "-" {
            return FoundEnd::Nothing;
        }
        let each = text.split(' ').map(|one| {
            let (host, source) = one.split_once('<').expect("a host and a source");
            ReachedEnd {
                host: host_of(host),
                source: source.parse().expect("an address"),
                answered: true,
            }
        });
        FoundEnd::Reached(each.collect())
    }

    fn host_of(text: &str) -> TestHost {
        match text.parse() {
            Ok(address) => TestHost {
                address,
                port: None,
            },
            Err(_) => {
                let (address, port) = text.rsplit_once(':').expect("a port");
                TestHost {
                    address: address.parse().expect("an address"),
                    port: Some(port.parse().expect("a port")),
                }
            }
        }
    }

    /// Returns the codes that explain the ends of a connection: `PROTOCOL CLIENT INTERFACE DESTINATION`.
    fn codes(rules: &str, connection: &str, before: &str, after: &str) -> String {
        let rules = read_typed(rules).expect("the rules are valid").rules;
        let draft = import(&rules, &KnownRoutes::default());
        let words: Vec<&str> = connection.split(' ').collect();
        let [protocol, from, by, to] = words[..] else {
            panic!("{connection}");
        };
        let by = by.parse().expect("an interface");
        let test = PacketTest {
            name: None,
            from: from.parse().expect("an address"),
            to: to.parse().map_or_else(
                |_| TestDestination::Host(host_of(to)),
                TestDestination::Machine,
            ),
            protocol: protocol
                .parse::<OutboundProtocol>()
                .expect("it is a protocol"),
            ingress: None,
            reaches: Reaches::Nothing,
            snat: None,
            place: None,
        };
        let old = OldRules::new(&draft, &rules);
        let changed = ChangedEnd {
            test: &test,
            arrival: Some(&by),
            before: &end(before),
            after: &end(after),
        };
        let remarks = explaining(&old, &changed);
        let codes: Vec<&str> = remarks.iter().map(|one| one.remark.code()).collect();
        codes.join(" ")
    }

    fn check(rules: &str, cases: &[(&str, &str, &str, &str)]) {
        for (connection, before, after, expected) in cases {
            let found = codes(rules, connection, before, after);
            assert_eq!(found, *expected, "{connection}: {before} to {after}");
        }
    }

    const STRAIGHT: &str = "
iptables -P FORWARD DROP
iptables -A FORWARD -p tcp --syn --dport 80 -m conntrack --ctstate NEW -j ACCEPT
iptables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
iptables -t nat -A PREROUTING -i eth0 -p tcp --dport 49181 -j DNAT --to-destination 10.224.0.118:80
iptables -t nat -A POSTROUTING -o eth0 -p tcp --dport 80 -d 10.224.0.118 -j SNAT --to-source 10.3.0.4
";

    #[test]
    fn a_remark_explains_the_change_that_it_names_and_no_other() {
        let (direct, transit) = (
            "tcp 198.51.100.7 eth0 10.224.0.118:80",
            "tcp 198.51.100.7 eth0 10.224.0.119:49181",
        );
        let listener = "tcp 198.51.100.7 eth0 49181";
        let (pod, own) = ("10.224.0.118:80<10.3.0.4", "10.224.0.118:80<198.51.100.7");
        check(
            STRAIGHT,
            &[
                (direct, pod, "-", "accepts-more"),
                (direct, pod, own, "rewrites-more"),
                (transit, pod, "-", "takes-transit"),
                (
                    "tcp 198.51.100.7 eth0 10.224.0.119:80",
                    "10.224.0.119:80<198.51.100.7",
                    "-",
                    "accepts-more",
                ),
                // The plan reaches more than the rules did.
                (direct, "-", pod, ""),
                (transit, "-", pod, ""),
                (direct, own, pod, ""),
                (listener, "-", pod, ""),
                // A client of the forward does not reach its target, or another one, or with another source.
                (listener, pod, "-", ""),
                (listener, pod, "10.224.0.119:80<10.3.0.4", ""),
                (listener, pod, own, ""),
                // No rule that was taken over is for these.
                (
                    "tcp 198.51.100.7 eth0 10.224.0.118:443",
                    "10.224.0.118:443<198.51.100.7",
                    "-",
                    "",
                ),
                (
                    "ping 198.51.100.7 eth0 10.224.0.118",
                    "10.224.0.118<198.51.100.7",
                    "-",
                    "",
                ),
                ("tcp 198.51.100.7 eth0 49182", pod, "-", ""),
            ],
        );
    }

    #[test]
    fn a_remark_on_clients_explains_those_clients_alone() {
        let rules = "
iptables -P FORWARD DROP
iptables -N f2b-web
iptables -A FORWARD -i eth0 -p tcp --dport 443 -j f2b-web
iptables -A FORWARD -i eth0 -o eth1 -d 10.9.0.5 -p tcp --dport 443 -j ACCEPT
iptables -A f2b-web -s 203.0.113.66 -j REJECT
iptables -A f2b-web -j RETURN
iptables -t nat -A PREROUTING -d 192.0.2.8 -p tcp --dport 443 -j DNAT --to-destination 10.9.0.5
iptables -t nat -A POSTROUTING -o eth1 -d 10.9.0.5 -s 203.0.113.0/24 -j SNAT --to-source 10.9.0.2
iptables -t nat -A POSTROUTING -o eth1 -d 10.9.0.5 -j SNAT --to-source 10.9.0.1
";
        let pod = "10.9.0.5:443<10.9.0.1";
        check(
            rules,
            &[
                (
                    "tcp 203.0.113.66 eth0 192.0.2.8:443",
                    "-",
                    pod,
                    "refused-before",
                ),
                ("tcp 198.51.100.7 eth0 192.0.2.8:443", "-", pod, ""),
                (
                    "tcp 203.0.113.7 eth0 192.0.2.8:443",
                    "10.9.0.5:443<10.9.0.2",
                    pod,
                    "other-sources",
                ),
                (
                    "tcp 198.51.100.7 eth0 192.0.2.8:443",
                    "10.9.0.5:443<10.9.0.2",
                    pod,
                    "",
                ),
                (
                    "tcp 10.9.0.7 eth1 192.0.2.8:443",
                    pod,
                    "-",
                    "every-interface",
                ),
                ("tcp 198.51.100.7 eth0 192.0.2.8:443", pod, "-", ""),
            ],
        );
    }

    #[test]
    fn the_remark_on_private_networks_is_about_connections_of_the_entry() {
        let rules = "
iptables -P FORWARD DROP
iptables -A FORWARD -i eth1 -o eth0 -s 10.9.0.0/24 -j ACCEPT
iptables -A FORWARD -i eth0 -o eth1 -d 10.9.0.5 -p tcp --dport 443 -j ACCEPT
iptables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
iptables -t nat -A PREROUTING -i eth0 -d 192.0.2.8 -p tcp --dport 443 -j DNAT --to-destination 10.9.0.5
iptables -t nat -A POSTROUTING -s 10.9.0.0/24 -o eth0 -j SNAT --to-source 192.0.2.8
";
        let private = "10.200.0.7:443<192.0.2.8";
        let public = "198.51.100.80:443<192.0.2.8";
        check(
            rules,
            &[
                (
                    "tcp 10.9.0.7 eth1 10.200.0.7:443",
                    private,
                    "-",
                    "private-networks",
                ),
                // The entry does not let its own connections out, or rewrites them otherwise.
                (
                    "tcp 10.9.0.7 eth1 20.2.69.80:80",
                    "20.2.69.80:80<192.0.2.8",
                    "-",
                    "",
                ),
                ("tcp 10.9.0.7 eth1 198.51.100.80:443", public, "-", ""),
                (
                    "tcp 10.9.0.7 eth1 198.51.100.80:443",
                    public,
                    "198.51.100.80:443<192.0.2.9",
                    "",
                ),
                ("tcp 10.9.0.7 eth1 10.200.0.7:443", "-", private, ""),
                // It comes by another interface, or asks for the machine, a listener or a target.
                ("tcp 10.9.0.7 eth0 10.200.0.7:443", private, "-", ""),
                ("tcp 10.9.0.7 eth1 443", "10.9.0.5:443<10.9.0.7", "-", ""),
                (
                    "tcp 10.9.0.7 eth1 192.0.2.8:443",
                    "10.9.0.5:443<10.9.0.7",
                    "-",
                    "",
                ),
                ("tcp 10.9.0.7 eth1 443", "-", "10.9.0.5:443<10.9.0.7", ""),
            ],
        );
    }
}

//! Live connections that follow an older spec.

use super::foreign::may_accept;
use crate::forwards::{ForwardPolicy, ForwardSet, Listeners, Snat};
use crate::host::network::Links;
use crate::net::{Family, Interface, Protocol};
use crate::netfilter::conntrack::Flow;
use crate::netfilter::names::Policy;
use crate::netfilter::ruleset::Ruleset;

/// Why a connection does not follow the present rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaleCause {
    /// No forward and no outbound entry would make it.
    Unmade,
    /// New connections get another source.
    Source,
}

/// The facts of the machine that decide on connections beside the spec.
#[derive(Debug)]
pub struct FlowFacts<'m> {
    links: &'m Links,
    filters: Vec<Filter<'m>>,
}

/// The rules that new connections of one family meet.
#[derive(Debug)]
struct Filter<'m> {
    family: Family,
    rules: &'m Ruleset,
    drops: bool,
}

impl<'m> FlowFacts<'m> {
    #[must_use]
    pub fn new(links: &'m Links, live: impl IntoIterator<Item = (Family, &'m Ruleset)>) -> Self {
        let filters = live.into_iter().map(|(family, rules)| Filter {
            family,
            rules,
            drops: rules.forward_policy() == Policy::Drop,
        });
        Self {
            links,
            filters: filters.collect(),
        }
    }

    /// Adds the policy that a spec sets.
    #[must_use]
    pub fn with(mut self, set: &ForwardSet) -> Self {
        let closes = set.firewall.forward_policy == ForwardPolicy::Drop;
        for filter in &mut self.filters {
            filter.drops |= closes && set.has(filter.family);
        }
        self
    }

    /// Returns whether the policy drops the packets of a new connection that no rule of nvactl accepts, and no rule of
    /// others lets them pass.
    fn refuses(&self, flow: &Flow) -> bool {
        let family = Family::of(flow.destination);
        let mut filters = self.filters.iter().filter(|one| one.family == family);
        filters.any(|filter| filter.drops && !may_accept(filter.rules, flow))
    }
}

/// Returns whether the machine forwards the connection without a translation: neither end is the machine itself.
#[must_use]
pub fn is_routed(flow: &Flow, links: &Links) -> bool {
    // If the machine's addresses are unknown, each end may be the machine itself.
    !flow.is_translated()
        && flow.keeps_source()
        && flow.is_of_hosts()
        && !links.0.is_empty()
        && links.owner(flow.source).is_none()
        && links.owner(flow.destination).is_none()
}

/// Returns the live connections that the present set would not make so, whether or not an older set made them. Finished
/// connections are left out, because they carry no more packets.
pub fn astray<'f>(
    flows: &'f [Flow],
    now: &ForwardSet,
    facts: &FlowFacts<'_>,
) -> impl Iterator<Item = (&'f Flow, StaleCause)> {
    let takers = Takers::new(now);
    let live = flows.iter().filter(|flow| !flow.finished);
    live.filter_map(move |flow| Some((flow, takers.cause(flow, facts)?)))
}

/// Returns whether DNAT gave the connection its destination.
#[must_use]
pub fn is_redirected(flow: &Flow) -> bool {
    flow.destination != flow.reply_source
}

/// The connections that a set takes.
pub(super) struct Takers<'s> {
    set: &'s ForwardSet,
    listeners: Listeners<'s>,
}

impl<'s> Takers<'s> {
    pub(super) fn new(set: &'s ForwardSet) -> Self {
        let listeners = Listeners::new(set);
        Self { set, listeners }
    }

    pub(super) fn has(&self, flow: &Flow) -> bool {
        self.source(flow).is_some()
    }

    /// Returns the source that the set gives to a connection that it takes, and the interface to the target.
    fn source(&self, flow: &Flow) -> Option<(Snat, &'s Interface)> {
        if is_redirected(flow) {
            let leader = self.listeners.leader(flow)?;
            return Some((leader.snat, &leader.egress));
        }
        let entry = self.set.deciding_entry(flow)?;
        let accepts = entry.accepts(
            flow.protocol,
            flow.source,
            flow.destination,
            flow.destination_port,
        );
        accepts.then_some((entry.snat, &entry.egress))
    }

    /// Returns why the set would not make the connection so.
    fn cause(&self, flow: &Flow, facts: &FlowFacts<'_>) -> Option<StaleCause> {
        if let Some((snat, egress)) = self.source(flow) {
            // The firewall's own packets keep their source.
            let is_own = facts.links.owner(flow.source).is_some();
            let is_right = is_own || has_source(flow, snat, egress, facts.links);
            return (!is_right).then_some(StaleCause::Source);
        }
        let is_lost = if is_redirected(flow) || !flow.keeps_source() {
            true
        } else {
            // Rules of others may let it pass. An entry that selects it and does not accept it drops it before them.
            is_routed(flow, facts.links)
                && (self.set.deciding_entry(flow).is_some() || facts.refuses(flow))
        };
        is_lost.then_some(StaleCause::Unmade)
    }

    /// Returns whether the set made a connection that is stale for this cause now.
    fn made(&self, flow: &Flow, cause: StaleCause, links: &Links) -> bool {
        self.source(flow).is_some_and(|(snat, egress)| match cause {
            // An untranslated connection was not made by an entry that rewrites its source.
            StaleCause::Unmade if !is_redirected(flow) && flow.keeps_source() => {
                snat == Snat::Client
            }
            StaleCause::Unmade => true,
            StaleCause::Source => has_source(flow, snat, egress, links),
        })
    }
}

/// Returns whether a connection has a source that these rules give. Masquerading gives an address of the egress
/// interface, and of IPv4 never a secondary one (`inet_select_addr` in `net/ipv4/devinet.c`).
fn has_source(flow: &Flow, snat: Snat, egress: &Interface, links: &Links) -> bool {
    match snat {
        Snat::Client => flow.keeps_source(),
        Snat::Addresses(range) => (range.first()..=range.last()).contains(&flow.reply_destination),
        Snat::Masquerade => {
            let family = Family::of(flow.reply_destination);
            let link = links.get(egress);
            let addresses = link.into_iter().flat_map(|link| &link.addresses);
            let mut addresses = addresses
                .filter(|one| Family::of(**one) == family)
                .peekable();
            if addresses.peek().is_none() {
                return !flow.keeps_source();
            }
            let is_secondary =
                link.is_some_and(|link| link.secondary.contains(&flow.reply_destination));
            !is_secondary && addresses.any(|one| *one == flow.reply_destination)
        }
    }
}

/// Returns the connections that one of these older sets made, and that the present set would not make so. Leaves out
/// the UDP senders that [`super::outbound_sender`] finds.
pub fn stale<'f>(
    flows: &'f [Flow],
    once: &[ForwardSet],
    now: &ForwardSet,
    facts: &FlowFacts<'_>,
) -> impl Iterator<Item = (&'f Flow, StaleCause)> {
    let is_sender = |flow: &Flow| flow.protocol == Protocol::Udp && is_routed(flow, facts.links);
    made_by(flows, once, now, facts)
        .filter(move |(flow, cause)| *cause != StaleCause::Source || !is_sender(flow))
}

/// Returns the connections that one of these older sets made, and that the present set would not make so.
pub fn made_by<'f>(
    flows: &'f [Flow],
    once: &[ForwardSet],
    now: &ForwardSet,
    facts: &FlowFacts<'_>,
) -> impl Iterator<Item = (&'f Flow, StaleCause)> {
    let once: Vec<Takers<'_>> = once.iter().map(Takers::new).collect();
    astray(flows, now, facts).filter(move |(flow, cause)| {
        let mut once = once.iter();
        once.any(|set| set.made(flow, *cause, facts.links))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::network::Link;
    use crate::netfilter::text::parse::parse;
    use crate::yaml;

    const DROPS: &str = ":FORWARD DROP [0:0]\n";
    const WEB: &str = "tcp      6 431999 ESTABLISHED src=198.51.100.10 dst=10.3.0.4 sport=5000 dport=49182 src=10.224.0.118 dst=10.3.0.4 sport=80 dport=5000 [ASSURED] mark=0 use=1";

    /// Counts the stale connections on a machine whose FORWARD chain has these lines.
    fn count(flows: &[Flow], once: &[ForwardSet], now: &ForwardSet, chain: &str) -> usize {
        let link = |name: &str, address: &str| Link {
            name: name.to_owned(),
            addresses: vec![address.parse().expect("an address")],
            ..Link::default()
        };
        let links = Links(vec![link("eth0", "10.3.0.4"), link("eth1", "10.4.0.4")]);
        let rules = parse(&format!("*filter\n{chain}COMMIT\n")).expect("they are rules");
        let facts = FlowFacts::new(&links, [(Family::V4, &rules)]);
        stale(flows, once, now, &facts).count()
    }

    fn set(forwards: &str) -> ForwardSet {
        let text = format!("firewall: {{interface: eth0, snat: 10.3.0.4}}\nforwards: [{forwards}]");
        yaml::read(text.as_bytes()).expect("it is valid")
    }

    #[test]
    fn a_finished_connection_is_not_stale() {
        let old = [set(
            "{name: web, listen: 49182, target: {pod: 10.224.0.118:80}}",
        )];
        for (state, finished) in [
            ("SYN_SENT", false),
            ("ESTABLISHED", false),
            ("FIN_WAIT", false),
            ("CLOSE_WAIT", false),
            ("LAST_ACK", true),
            ("TIME_WAIT", true),
            ("CLOSE", true),
        ] {
            let flow = Flow::parse(&WEB.replace("ESTABLISHED", state)).expect("it is a flow");
            assert_eq!(flow.finished, finished, "{state}");
            let is_stale = count(&[flow], &old, &set(""), "") == 1;
            assert_eq!(is_stale, !finished, "{state}");
        }
    }

    #[test]
    fn a_flow_is_stale_when_no_outbound_entry_accepts_it_any_longer() {
        let flow = |reply: &str| {
            let line = format!(
                "tcp      6 431999 ESTABLISHED src=10.224.0.118 dst=192.0.2.80 sport=5000 dport=443 \
                 src=192.0.2.80 dst={reply} sport=443 dport=5000 [ASSURED] mark=0 use=1"
            );
            Flow::parse(&line).expect("it is a flow")
        };
        let set = |outbound: &str| {
            let text = format!("firewall: {{interface: eth0}}\noutbound: [{outbound}]");
            yaml::read(text.as_bytes()).expect("it is valid")
        };
        let out = "name: out, allow_from: [10.224.0.0/16]";
        let old = [set(&format!("{{{out}}}"))];
        for (now, is_stale) in [
            (format!("{{{out}}}"), false),
            (
                "{name: other, allow_from: [10.224.0.118]}".to_owned(),
                false,
            ),
            (format!("{{{out}, protocol: udp}}"), true),
            (format!("{{{out}, protocol: tcp, ports: [80]}}"), true),
            (format!("{{{out}, deny_to: [192.0.2.0/24]}}"), true),
            (
                format!(
                    "{{{out}, deny_from: [10.224.0.118]}}, {{name: all, allow_from: [10.224.0.0/16]}}"
                ),
                true,
            ),
            (format!("{{{out}, allow_to: [10.50.0.0/16]}}"), true),
            (String::new(), true),
        ] {
            let found = count(&[flow("10.3.0.4")], &old, &set(&now), "");
            assert_eq!(found, usize::from(is_stale), "{now}");
            assert_eq!(count(&[flow("10.224.0.118")], &old, &set(&now), DROPS), 0);
        }
    }

    fn outbound(entries: &str) -> ForwardSet {
        let text = format!(
            "firewall: {{interface: {{ingress: eth0, egress: eth1}}}}\noutbound: [{entries}]"
        );
        yaml::read(text.as_bytes()).expect("it is valid")
    }

    /// A connection of the pod that a server outside answers at this address.
    fn out(source: &str, seen: &str) -> Flow {
        let line = format!(
            "tcp      6 431999 ESTABLISHED src={source} dst=192.0.2.80 sport=5000 dport=443 \
             src=192.0.2.80 dst={seen} sport=443 dport=5000 [ASSURED] mark=0 use=1"
        );
        Flow::parse(&line).expect("it is a flow")
    }

    const POD: &str = "10.224.0.118";

    #[test]
    fn an_untranslated_flow_is_stale_only_if_the_rules_refuse_it_now() {
        let none = "{name: out, allow_from: [10.0.0.0/8], snat: none}";
        let denied = "{name: out, allow_from: [10.0.0.0/8], snat: none, deny_to: [192.0.2.80]}";
        let rewrites = "{name: out, allow_from: [10.0.0.0/8]}";
        let keeps = ":FORWARD ACCEPT [0:0]\n";
        let rule = |rule: &str| format!("{DROPS}:OTHER - [0:0]\n-A FORWARD {rule}\n");
        for (source, once, now, lines, is_stale) in [
            (POD, none, none, DROPS, false),
            (POD, none, "", DROPS, true),
            (POD, none, denied, DROPS, true),
            // Somebody else's rules may have made these, or may let them pass.
            (POD, rewrites, "", DROPS, false),
            (POD, "", "", DROPS, false),
            (POD, none, "", keeps, false),
            (POD, none, denied, keeps, true),
            (POD, none, "", &rule("-j OTHER"), false),
            (POD, none, "", &rule("-s 10.224.0.0/16 -j ACCEPT"), false),
            (POD, none, "", &rule("-s 10.225.0.0/16 -j ACCEPT"), true),
            (POD, none, "", &rule("-p udp -j ACCEPT"), true),
            (
                POD,
                none,
                "",
                &rule("-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
                true,
            ),
            (
                POD,
                none,
                "",
                &rule("-m conntrack --ctstate NEW -j ACCEPT"),
                false,
            ),
            // The firewall's own connection.
            ("10.3.0.4", none, "", DROPS, false),
        ] {
            let flows = [out(source, source)];
            let found = count(&flows, &[outbound(once)], &outbound(now), lines);
            assert_eq!(
                found,
                usize::from(is_stale),
                "{source} {once} {now} {lines}"
            );
        }
    }

    #[test]
    fn a_flow_with_another_source_than_new_ones_get_is_stale() {
        let entry = |snat: &str| format!("{{name: out, allow_from: [10.0.0.0/8], snat: {snat}}}");
        for (seen, once, now, is_stale) in [
            ("10.4.0.4", "masquerade", "10.3.0.5", false),
            ("10.3.0.4", "masquerade", "10.3.0.5", true),
            ("10.3.0.4", "masquerade", "none", true),
            ("10.3.0.4", "masquerade", "10.3.0.4-10.3.0.7", false),
            ("10.3.0.4", "10.3.0.4", "masquerade", false),
            ("10.3.0.5", "10.3.0.5", "masquerade", true),
            (POD, "none", "masquerade", true),
            (POD, "none", "10.3.0.5", true),
            // Nobody rewrote these when the older rules were loaded, or somebody else did.
            (POD, "masquerade", "masquerade", false),
            ("10.3.0.9", "masquerade", "10.3.0.5", false),
        ] {
            let sets = [once, now].map(|snat| outbound(&entry(snat)));
            let found = count(&[out(POD, seen)], &sets[..1], &sets[1], "");
            assert_eq!(found, usize::from(is_stale), "{seen} {once} {now}");
        }
        let forward = |snat: &str| {
            set(&format!(
                "{{name: web, listen: 49182, target: {{pod: 10.224.0.118:80}}, snat: {snat}}}"
            ))
        };
        let flows = [Flow::parse(WEB).expect("it is a flow")];
        let old = [forward("10.3.0.4")];
        assert_eq!(count(&flows, &old, &forward("10.3.0.4"), ""), 0);
        assert_eq!(count(&flows, &old, &forward("none"), ""), 1);
    }

    #[test]
    fn a_flow_is_stale_when_its_forward_leads_elsewhere_now() {
        let flows = [Flow::parse(WEB).expect("it is a flow")];
        let old = [set(
            "{name: web, listen: 49182, target: {pod: 10.224.0.118:80}}",
        )];
        for (now, is_stale) in [
            (
                "{name: web, listen: 49182, target: {pod: 10.224.0.118:80}}",
                false,
            ),
            (
                "{name: other, listen: 49182, target: {pod: 10.224.0.118:80}}",
                false,
            ),
            (
                "{name: range, listen: 49180-49190, target: {pod: 10.224.0.118:78-88}}",
                false,
            ),
            (
                "{name: web, listen: 49182, target: {pod: 10.224.0.119:80}}",
                true,
            ),
            (
                "{name: web, listen: 49182, target: {pod: 10.224.0.118:81}}",
                true,
            ),
            (
                "{name: web, listen: 49183, target: {pod: 10.224.0.118:80}}",
                true,
            ),
            (
                "{name: web, listen: 49182, protocol: udp, target: {pod: 10.224.0.118:80}}",
                true,
            ),
            (
                "{name: all, listen: 49182, target: {pod: 10.224.0.118:80}}, {name: one, listen: 10.3.0.4:49182, target: {pod: 10.0.0.1:80}}",
                true,
            ),
            (
                "{name: web, listen: 49182, target: {pod: [10.224.0.9:80, 10.224.0.118:80]}}",
                false,
            ),
            (
                "{name: web, listen: 49182, target: {pod: 10.224.0.118:80}, deny_from: [198.51.100.0/24]}",
                true,
            ),
            ("", true),
        ] {
            assert_eq!(
                count(&flows, &old, &set(now), ""),
                usize::from(is_stale),
                "{now}"
            );
        }
        // nvactl does not judge another program's translation.
        assert_eq!(count(&flows, &[set("")], &set(""), DROPS), 0);
    }
}

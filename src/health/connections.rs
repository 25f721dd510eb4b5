//! Live connections that follow an older spec.

use super::foreign::{may_accept, may_redirect, may_rewrite};
use super::suspects::{StaleCause, Suspect};
use super::takers::{Takers, accepts, is_redirected};
use crate::forwards::{Decider, ForwardPolicy, ForwardSet};
use crate::host::network::Links;
use crate::net::{Family, Protocol};
use crate::netfilter::conntrack::Flow;
use crate::netfilter::names::Policy;
use crate::netfilter::ruleset::Ruleset;

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

    /// Returns whether the rules that a connection meets have a property.
    fn any(&self, flow: &Flow, has: impl Fn(&Filter<'_>) -> bool) -> bool {
        let family = Family::of(flow.destination);
        let mut filters = self.filters.iter().filter(|one| one.family == family);
        filters.any(has)
    }

    /// Returns whether the policy drops the packets of a new connection that no rule of nvactl accepts, and no rule of
    /// others lets them pass.
    fn refuses(&self, flow: &Flow) -> bool {
        self.any(flow, |filter| {
            filter.drops && !may_accept(filter.rules, flow)
        })
    }

    /// Returns whether others may make a connection so that has another source than its own.
    fn others_make_rewritten(&self, flow: &Flow) -> bool {
        !self.refuses(flow) && self.any(flow, |filter| may_rewrite(filter.rules, flow))
    }

    /// Returns whether others may redirect a connection to where it goes.
    fn others_redirect(&self, flow: &Flow) -> bool {
        self.any(flow, |filter| may_redirect(filter.rules, flow))
    }
}

/// Returns the live connections that the present set would not make so, whether or not an older set made them. Finished
/// connections are left out, because they carry no more packets.
pub fn astray<'f, 's>(
    flows: &'f [Flow],
    now: &'s ForwardSet,
    facts: &FlowFacts<'_>,
) -> impl Iterator<Item = Suspect<'f, 's>> {
    let takers = Takers::new(now, facts.links);
    let live = flows.iter().filter(|flow| !flow.finished);
    live.filter_map(move |flow| {
        let (cause, paths) = judged(flow, &takers, facts)?;
        Some(Suspect { flow, cause, paths })
    })
}

/// Returns why the set would not make a connection so, and the paths that must be proven.
fn judged<'s>(
    flow: &Flow,
    takers: &Takers<'s, '_>,
    facts: &FlowFacts<'_>,
) -> Option<(StaleCause, Vec<Decider<'s>>)> {
    let proven = |cause| Some((cause, Vec::new()));
    if takers.make(flow) {
        return None;
    }
    if is_redirected(flow) {
        if takers.lead(flow) {
            return proven(StaleCause::Source);
        }
        return proven(StaleCause::Unmade).filter(|_| !facts.others_redirect(flow));
    }
    if takers.ends_here(flow) {
        return None;
    }
    let mut deciders = takers.deciders(flow);
    if deciders.iter().any(|one| accepts(one.entry, flow)) {
        if !flow.keeps_source() {
            return proven(StaleCause::Source);
        }
        deciders.retain(|one| accepts(one.entry, flow));
        return Some((StaleCause::Source, deciders));
    }
    // Now each of the entries drops the connection before rules of others see it.
    if !flow.keeps_source() {
        let is_lost = !deciders.is_empty() || !facts.others_make_rewritten(flow);
        return proven(StaleCause::Unmade).filter(|_| is_lost);
    }
    if flow.is_translated() || !flow.is_of_hosts() {
        return None;
    }
    if facts.refuses(flow) {
        return proven(StaleCause::Unmade);
    }
    (!deciders.is_empty()).then_some((StaleCause::Unmade, deciders))
}

/// Returns the connections that one of these older sets made, and that the present set would not make so. Leaves out
/// the UDP senders that [`super::outbound_sender`] finds.
#[must_use]
pub fn stale<'f, 's>(
    flows: &'f [Flow],
    once: &[ForwardSet],
    now: &'s ForwardSet,
    facts: &FlowFacts<'_>,
) -> Vec<Suspect<'f, 's>> {
    let mut made = made_by(flows, once, now, facts);
    made.retain(|Suspect { flow, cause, .. }| {
        *cause != StaleCause::Source || flow.protocol != Protocol::Udp || !flow.keeps_source()
    });
    made
}

/// Returns the connections that one of these older sets made, and that the present set would not make so.
#[must_use]
pub fn made_by<'f, 's>(
    flows: &'f [Flow],
    once: &[ForwardSet],
    now: &'s ForwardSet,
    facts: &FlowFacts<'_>,
) -> Vec<Suspect<'f, 's>> {
    let once: Vec<Takers<'_, '_>> = once
        .iter()
        .map(|set| Takers::new(set, facts.links))
        .collect();
    let astray = astray(flows, now, facts).filter(|suspect| {
        let flow = suspect.flow;
        let mut once = once.iter();
        once.any(|set| set.make(flow) || suspect.cause == StaleCause::Unmade && set.lead(flow))
    });
    astray.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::suspects::{proven, questions};
    use crate::host::network::{Link, Route};
    use crate::netfilter::text::parse::parse;
    use crate::yaml;

    const DROPS: &str = ":FORWARD DROP [0:0]\n";
    const WEB: &str = "tcp      6 431999 ESTABLISHED src=198.51.100.10 dst=10.3.0.4 sport=5000 dport=49182 src=10.224.0.118 dst=10.3.0.4 sport=80 dport=5000 [ASSURED] mark=0 use=1";

    fn links() -> Links {
        let link = |name: &str, address: &str| Link {
            name: name.to_owned(),
            addresses: vec![address.parse().expect("an address")],
            ..Link::default()
        };
        Links(vec![
            link("eth0", "10.3.0.4"),
            link("eth1", "10.4.0.4"),
            link("eth2", "10.5.0.4"),
        ])
    }

    /// Counts the stale connections on a machine whose FORWARD chain has these lines.
    fn count(flows: &[Flow], once: &[ForwardSet], now: &ForwardSet, chain: &str) -> usize {
        beside(flows, once, now, &format!("*filter\n{chain}COMMIT\n"))
    }

    /// Counts the stale connections on a machine with these rules.
    fn beside(flows: &[Flow], once: &[ForwardSet], now: &ForwardSet, rules: &str) -> usize {
        let (links, rules) = (links(), parse(rules).expect("they are rules"));
        let facts = FlowFacts::new(&links, [(Family::V4, &rules)]);
        stale(flows, once, now, &facts).len()
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

    /// A connection from a host to another one, which the other one answers at an address.
    fn between(source: &str, to: &str, seen: &str) -> Flow {
        Flow::parse(&format!(
            "tcp 6 431999 ESTABLISHED src={source} dst={to} sport=5000 dport=22 \
                 src={to} dst={seen} sport=22 dport=5000 [ASSURED] mark=0 use=1"
        ))
        .expect("it is a flow")
    }

    /// An operator's ssh to the machine, its DNS, and its own connections keep their source for ever.
    #[test]
    fn a_connection_of_the_machine_itself_is_no_entry_s() {
        let entry = |options: &str| {
            outbound(&format!(
                "{{name: out, allow_from: [10.0.0.0/8], allow_to: [internet, 10.0.0.0/8]{options}}}"
            ))
        };
        let none = [entry(", snat: none")];
        for (source, to, is_stale) in [
            ("10.1.0.9", "10.6.0.9", true),
            ("10.1.0.9", "10.3.0.4", false),
            ("10.1.0.9", "10.5.0.4", false),
            ("10.3.0.4", "10.6.0.9", false),
        ] {
            for now in [entry(""), entry(", snat: none, deny_to: [10.0.0.0/8]")] {
                let flows = [between(source, to, source)];
                let found = count(&flows, &none, &now, DROPS);
                assert_eq!(found, usize::from(is_stale), "{source} {to}");
            }
        }
        // A rule of another program has translated it on its way to the machine.
        let flows = [between("10.1.0.9", "10.3.0.4", "10.4.0.4")];
        assert_eq!(count(&flows, &[entry("")], &outbound(""), DROPS), 0);
    }

    #[test]
    fn a_connection_that_another_program_makes_so_is_not_stale() {
        let once = [outbound("{name: out, allow_from: [10.0.0.0/8]}")];
        let none = [outbound(
            "{name: out, allow_from: [10.0.0.0/8], snat: none}",
        )];
        let accepts = "-A FORWARD -s 10.224.0.0/16 -j ACCEPT\n";
        let masquerade = ":DOCKER - [0:0]\n-A DOCKER -s 10.224.0.0/16 -j MASQUERADE\n";
        for (once, filter, nat, is_stale) in [
            (&once, "", "", true),
            (&once, accepts, "", true),
            (&once, "", masquerade, true),
            (&once, accepts, masquerade, false),
            (
                &once,
                accepts,
                "-A POSTROUTING -j SNAT --to-source 10.3.0.4\n",
                false,
            ),
            (
                &once,
                accepts,
                "-A POSTROUTING -j SNAT --to-source 10.3.0.5\n",
                true,
            ),
            (
                &once,
                accepts,
                "-A POSTROUTING -p udp -j MASQUERADE\n",
                true,
            ),
            (
                &once,
                accepts,
                "-A POSTROUTING -p tcp -m tcp --dport 80 -j MASQUERADE\n",
                true,
            ),
            // The entry never gave such a source.
            (&none, "", "", false),
        ] {
            let rules = format!("*filter\n{DROPS}{filter}COMMIT\n*nat\n{nat}COMMIT\n");
            let found = beside(&[out(POD, "10.3.0.4")], once, &outbound(""), &rules);
            assert_eq!(found, usize::from(is_stale), "{filter} {nat}");
        }
        let flows = [Flow::parse(WEB).expect("it is a flow")];
        let web = [set(
            "{name: web, listen: 49182, target: {pod: 10.224.0.118:80}}",
        )];
        for (rule, is_stale) in [
            (
                "--dport 49182 -j DNAT --to-destination 10.224.0.118:80",
                false,
            ),
            (
                "--dport 49182 -j DNAT --to-destination 10.224.0.119:80",
                true,
            ),
            (
                "--dport 49183 -j DNAT --to-destination 10.224.0.118:80",
                true,
            ),
        ] {
            let rules = format!("*nat\n:DOCKER - [0:0]\n-A DOCKER -p tcp -m tcp {rule}\nCOMMIT\n");
            let found = beside(&flows, &web, &set(""), &rules);
            assert_eq!(found, usize::from(is_stale), "{rule}");
        }
    }

    /// Entries with the same sources and destinations on two uplinks.
    #[test]
    fn the_address_of_an_uplink_shows_the_entry_of_a_connection() {
        let entry = |name: &str, egress: &str, options: &str| {
            format!(
                "{{name: {name}, interface: {{ingress: eth1, egress: {egress}}}, allow_from: [10.224.0.0/16]{options}}}"
            )
        };
        let of = |options: &str| {
            ["eth0", "eth2"].map(|egress| entry(&format!("by-{egress}"), egress, options))
        };
        let [first, second] = of("");
        let both = outbound(&format!("{first}, {second}"));
        let [first, second] = [first, second].map(|one| outbound(&one));
        let (by_first, by_second) = (out(POD, "10.3.0.4"), out(POD, "10.5.0.4"));
        for (flow, once, now, is_stale) in [
            // Another entry now stands in front.
            (&by_second, &second, &both, false),
            (&by_first, &first, &both, false),
            (&by_second, &both, &first, true),
            (&by_first, &both, &second, true),
            (&by_second, &both, &second, false),
        ] {
            let found = count(
                std::slice::from_ref(flow),
                std::slice::from_ref(once),
                now,
                DROPS,
            );
            assert_eq!(found, usize::from(is_stale), "{flow:?} {now:?}");
        }
        // The entry of the other uplink has no say, so rules of another program may make it so.
        let rules = format!(
            "*filter\n{DROPS}-A FORWARD -o eth2 -j ACCEPT\nCOMMIT\n*nat\n-A POSTROUTING -o eth2 -j MASQUERADE\nCOMMIT\n"
        );
        let by_another = std::slice::from_ref(&by_second);
        let found = beside(by_another, std::slice::from_ref(&both), &first, &rules);
        assert_eq!(found, 0);
        // The source says nothing about the uplink, and one of the entries keeps it.
        let [_, kept] = of(", snat: none");
        let [rewrites, _] = of("");
        let now = outbound(&format!("{rewrites}, {kept}"));
        assert_eq!(count(&[out(POD, POD)], &[outbound(&kept)], &now, DROPS), 0);
    }

    #[test]
    fn a_kept_source_is_wrong_only_on_the_path_of_an_entry_that_rewrites_it() {
        let entry =
            |options: &str| outbound(&format!("{{name: out, allow_from: [10.0.0.0/8]{options}}}"));
        let (flows, links) = ([out(POD, POD)], links());
        let accepts = ":FORWARD ACCEPT [0:0]\n";
        let rules = parse(&format!("*filter\n{accepts}COMMIT\n")).expect("they are rules");
        let facts = FlowFacts::new(&links, [(Family::V4, &rules)]);
        let once = [entry(", snat: none")];
        let denied = ", snat: none, deny_to: [192.0.2.80]";
        for (options, back, out, is_stale) in [
            ("", "eth1", "eth0", true),
            ("", "eth1", "eth2", false),
            ("", "eth2", "eth0", false),
            (denied, "eth1", "eth0", true),
            (denied, "eth1", "eth2", false),
        ] {
            let now = entry(options);
            let suspects = stale(&flows, &once, &now, &facts);
            assert_eq!(suspects.len(), 1, "{options}");
            let asked = questions(&suspects).into_iter();
            let routes = asked.map(|packet| {
                let interface = if packet.to == flows[0].source {
                    back
                } else {
                    out
                };
                let route = Route {
                    interface: interface.to_owned(),
                    gateway: None,
                    neighbour: None,
                };
                (packet, Ok(route))
            });
            let found = proven(suspects, &routes.collect()).found;
            assert_eq!(found.len(), usize::from(is_stale), "{options} {back} {out}");
        }
    }
}

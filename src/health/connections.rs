//! Live connections that follow forwards of an older spec.

use crate::forwards::{ForwardSet, Listeners};
use crate::netfilter::conntrack::Flow;

/// Returns the translated connections that none of these forwards would translate so, and those whose source was
/// rewritten and that none of the outbound entries accepts. Finished connections are left out, because they carry no
/// more packets.
pub fn astray<'f>(flows: &'f [Flow], now: &ForwardSet) -> impl Iterator<Item = &'f Flow> {
    let taken = Takers::new(now);
    let live = flows.iter().filter(|flow| !flow.finished);
    live.filter(|flow| is_redirected(flow) || is_rewritten(flow))
        .filter(move |flow| !taken.has(flow))
}

/// Returns whether DNAT gave the connection its destination.
#[must_use]
pub fn is_redirected(flow: &Flow) -> bool {
    flow.destination != flow.reply_source
}

/// Returns whether SNAT alone translated the connection, as an outbound entry does. A connection that keeps its source
/// cannot be told from one that other rules let pass.
fn is_rewritten(flow: &Flow) -> bool {
    !is_redirected(flow) && flow.source != flow.reply_destination
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
        if is_redirected(flow) {
            return self.listeners.leader(flow).is_some();
        }
        self.set.deciding_entry(flow).is_some_and(|entry| {
            entry.accepts(
                flow.protocol,
                flow.source,
                flow.destination,
                flow.destination_port,
            )
        })
    }
}

/// Returns the connections that an older set of forwards translated, and that the present set would not translate so.
pub fn stale<'f>(
    flows: &'f [Flow],
    once: &[ForwardSet],
    now: &ForwardSet,
) -> impl Iterator<Item = &'f Flow> {
    let once: Vec<Takers<'_>> = once.iter().map(Takers::new).collect();
    astray(flows, now).filter(move |flow| once.iter().any(|set| set.has(flow)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    const WEB: &str = "tcp      6 431999 ESTABLISHED src=198.51.100.10 dst=10.3.0.4 sport=5000 dport=49182 src=10.224.0.118 dst=10.3.0.4 sport=80 dport=5000 [ASSURED] mark=0 use=1";

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
            let is_stale = stale(&[flow], &old, &set("")).next().is_some();
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
            let found = stale(&[flow("10.3.0.4")], &old, &set(&now)).count();
            assert_eq!(found, usize::from(is_stale), "{now}");
            assert_eq!(stale(&[flow("10.224.0.118")], &old, &set(&now)).count(), 0);
        }
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
                stale(&flows, &old, &set(now)).count(),
                usize::from(is_stale),
                "{now}"
            );
        }
        // nvactl does not judge another program's translation.
        assert_eq!(stale(&flows, &[set("")], &set("")).count(), 0);
    }
}

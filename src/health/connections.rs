//! Live connections that follow forwards of an older spec.

use crate::forwards::{ForwardSet, Listeners};
use crate::netfilter::conntrack::Flow;

/// Returns the translated connections that none of these forwards would translate so. Finished connections are left
/// out, because they carry no more packets.
pub fn astray<'f>(flows: &'f [Flow], now: &ForwardSet) -> impl Iterator<Item = &'f Flow> {
    let now = Listeners::new(now);
    flows
        .iter()
        .filter(|flow| flow.destination != flow.reply_source && !flow.finished)
        .filter(move |flow| now.leader(flow).is_none())
}

/// Returns the connections that an older set of forwards translated, and that the present set would not translate so.
pub fn stale<'f>(
    flows: &'f [Flow],
    once: &[ForwardSet],
    now: &ForwardSet,
) -> impl Iterator<Item = &'f Flow> {
    let once: Vec<Listeners<'_>> = once.iter().map(Listeners::new).collect();
    astray(flows, now).filter(move |flow| once.iter().any(|set| set.leader(flow).is_some()))
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

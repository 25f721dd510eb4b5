//! Outbound entries with every source, layout and number of interfaces: the connections that pass by each protocol and
//! family, the source that a server outside sees, and the connections that do not pass.

use std::thread;

use crate::lab::{
    Backend, CLIENT, CLIENT_V6, FIREWALL, FIREWALL_EGRESS, FIREWALL_EGRESS_V6, FIREWALL_V6, Lab,
    OTHER, OTHER_V6, POD, POD_V6,
};
use crate::long;
use crate::namespace::Host;
use crate::outbound::{
    HOST_AGENT, METADATA, NEIGHBOUR, NEIGHBOUR_V6, REDIRECTED, REDIRECTED_V6, SNAT, SNAT_V6,
    outside, ping, pinged_by, private_hosts, tcp, udp,
};
use crate::traffic::{Outcome, answer, ask_ping, ask_tcp, ask_udp, serve_tcp, serve_udp, socket};

/// The source that a server sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Masquerade,
    Address,
    Range,
    Own,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Setup {
    has_two_nics: bool,
    layout: &'static str,
    source: Source,
}

const fn setup(has_two_nics: bool, layout: &'static str, source: Source) -> Setup {
    Setup {
        has_two_nics,
        layout,
        source,
    }
}

/// All set-ups. The first with one interface and the first with two differ in all.
const SETUPS: [Setup; 16] = [
    setup(false, "flat", Source::Masquerade),
    setup(false, "tree", Source::Address),
    setup(true, "tree", Source::Own),
    setup(true, "flat", Source::Range),
    setup(false, "tree", Source::Masquerade),
    setup(true, "flat", Source::Masquerade),
    setup(true, "tree", Source::Masquerade),
    setup(false, "flat", Source::Address),
    setup(true, "flat", Source::Address),
    setup(true, "tree", Source::Address),
    setup(false, "flat", Source::Range),
    setup(false, "tree", Source::Range),
    setup(true, "tree", Source::Range),
    setup(false, "flat", Source::Own),
    setup(false, "tree", Source::Own),
    setup(true, "flat", Source::Own),
];

impl Setup {
    /// Returns the `snat` of the entry, and the sources that the server sees.
    fn snat(self) -> (String, [&'static str; 2]) {
        match self.source {
            Source::Masquerade => ("masquerade".to_owned(), [FIREWALL, FIREWALL_V6]),
            Source::Address => (format!("{{v4: {SNAT}, v6: '{SNAT_V6}'}}"), [SNAT, SNAT_V6]),
            Source::Range => (
                format!("{{v4: {SNAT}-{SNAT}, v6: '{SNAT_V6}-{SNAT_V6}'}}"),
                [SNAT, SNAT_V6],
            ),
            Source::Own => ("none".to_owned(), [POD, POD_V6]),
        }
    }

    /// Returns the spec. The machine's own addresses are among the entry's sources.
    fn spec(self) -> String {
        let Setup { layout, .. } = self;
        let (snat, _) = self.snat();
        let (interfaces, own) = if self.has_two_nics {
            (
                "{ingress: eth0, egress: eth1}",
                "{v4: 10.4.0.4, v6: 'fd00:4::4'}",
            )
        } else {
            ("eth0", "{v4: 10.3.0.4, v6: 'fd00:3::4'}")
        };
        format!(
            "firewall: {{interface: {interfaces}, snat: {own}, layout: {layout}}}
defaults: {{hairpin: true, protocol: [tcp, udp]}}
forwards:
  - {{name: web, listen: 8080, target: {{pod: '{OTHER}:80'}}, allow_from: [{CLIENT}]}}
  - {{name: web6, listen: 8080, target: {{pod: '[{OTHER_V6}]:80'}}, allow_from: ['{CLIENT_V6}']}}
outbound:
  - name: out
    allow_from: [{POD}/32, 10.3.0.0/24, '{POD_V6}/128', 'fd00:3::/64']
    snat: {snat}
silence: [keeps-probes-out]"
        )
    }

    /// Returns the addresses of the firewall at which a pod meets the forwards.
    fn listeners(self) -> [&'static str; 2] {
        if self.has_two_nics {
            [FIREWALL_EGRESS, FIREWALL_EGRESS_V6]
        } else {
            [FIREWALL, FIREWALL_V6]
        }
    }
}

/// A connection by each protocol.
#[derive(Debug, Clone, Copy)]
enum By {
    Tcp,
    Udp,
    Ping,
}

/// Returns the connections of a host to some addresses that are answered. All are opened at once.
fn answered(host: &Host, to: &[&str], ports: [u16; 2]) -> Vec<String> {
    let each = to.iter().map(|one| (*one).to_owned());
    let asked: Vec<(By, String)> = each
        .flat_map(|to| [By::Tcp, By::Udp, By::Ping].map(|by| (by, to.clone())))
        .collect();
    host.enter(move || {
        let ask = |(by, to): (By, String)| {
            thread::spawn(move || {
                let outcome = match by {
                    By::Tcp => ask_tcp(&socket(&to, ports[0])),
                    By::Udp => ask_udp(&socket(&to, ports[1])),
                    By::Ping => ask_ping(&to),
                };
                let is_answered = matches!(outcome, Outcome::Answer(_));
                is_answered.then(|| format!("{by:?} {to}"))
            })
        };
        let threads: Vec<_> = asked.into_iter().map(ask).collect();
        let joined = threads.into_iter().map(thread::JoinHandle::join);
        let joined = joined.map(|one| one.expect("a client does not panic"));
        joined.flatten().collect()
    })
}

/// The destinations that the entry does not name. Another program redirects the last ones to the server outside.
const UNNAMED: [&str; 6] = [
    NEIGHBOUR,
    METADATA,
    HOST_AGENT,
    NEIGHBOUR_V6,
    REDIRECTED,
    REDIRECTED_V6,
];

fn lab(has_two_nics: bool, backend: Backend) -> Lab {
    let lab = if has_two_nics {
        let lab = Lab::dual_stack_two_nics(backend);
        outside(&lab, FIREWALL_EGRESS, FIREWALL_EGRESS_V6);
        lab
    } else {
        let lab = Lab::dual_stack(backend);
        outside(&lab, FIREWALL, FIREWALL_V6);
        lab
    };
    private_hosts(&lab);
    serve_tcp(&lab.other, "other", 80);
    serve_udp(&lab.other, "other", 80);
    for (program, from, to) in [
        ("iptables", REDIRECTED, CLIENT),
        ("ip6tables", REDIRECTED_V6, CLIENT_V6),
    ] {
        let dnat = format!("-j DNAT --to-destination {to}");
        lab.firewall
            .run(&format!("{program} -t nat -A PREROUTING -d {from} {dnat}"));
    }
    lab
}

/// A test of connections that do not pass shows something only if they reach their host without the entry's rules.
fn assert_open_without_rules(lab: &Lab) {
    lab.firewall.shell(
        "echo 1 > /proc/sys/net/ipv4/ip_forward
         echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
    );
    let reached = answered(&lab.pod, &UNNAMED, [80, 53]);
    assert_eq!(reached.len(), 3 * UNNAMED.len(), "{reached:?}");
    let reached = answered(&lab.other, &[CLIENT, CLIENT_V6], [80, 53]);
    assert_eq!(reached.len(), 6, "{reached:?}");
    // From here on the server notes the pings of a set-up only.
    for (set, pod) in [("v4", POD), ("v6", POD_V6)] {
        let pinged = pinged_by(lab, set);
        assert!(pinged.contains(pod), "{pinged}");
    }
}

lab_test!(sampled either a_named_source_gets_out_with_the_entry_s_source_and_nothing_else_does);
fn a_named_source_gets_out_with_the_entry_s_source_and_nothing_else_does(backend: Backend) {
    let setups = long::cases(&SETUPS, |setup| setup.has_two_nics);
    for has_two_nics in [false, true] {
        let lab = lab(has_two_nics, backend);
        assert_open_without_rules(&lab);
        for setup in setups.iter().filter(|one| one.has_two_nics == has_two_nics) {
            lab.apply(&setup.spec());
            // A known connection keeps the source that the set-up before gave it, and ports are used again.
            lab.firewall.run("conntrack --flush");
            let (_, [v4, v6]) = setup.snat();
            for (to, source, set) in [(CLIENT, v4, "v4"), (CLIENT_V6, v6, "v6")] {
                let case = format!("{setup:?} {to}");
                let there = answer("server", source);
                assert_eq!(tcp(&lab.pod, to, 80), there, "{case}");
                assert_eq!(udp(&lab.pod, to, 53), there, "{case}");
                assert!(ping(&lab.pod, to), "{case}");
                assert_eq!(pinged_by(&lab, set), source, "{case}");
                // The server's refusal of a datagram is related to it.
                assert_eq!(udp(&lab.pod, to, 54), Outcome::Refused, "{case}");
            }
            for (to, own) in [(CLIENT, FIREWALL), (CLIENT_V6, FIREWALL_V6)] {
                let seen = tcp(&lab.firewall, to, 80);
                assert_eq!(seen, answer("server", own), "{setup:?}");
            }
            let none: [&str; 0] = [];
            let reached = answered(&lab.pod, &UNNAMED, [80, 53]);
            assert_eq!(reached, none, "{setup:?}");
            let reached = answered(&lab.other, &[CLIENT, CLIENT_V6], [80, 53]);
            assert_eq!(reached, none, "{setup:?}");
            // A forward refuses the pod; the firewall itself answers a ping.
            for to in setup.listeners() {
                for outcome in [tcp(&lab.pod, to, 8080), udp(&lab.pod, to, 8080)] {
                    assert_eq!(outcome, Outcome::Silence, "{setup:?} {to}");
                }
            }
        }
    }
}

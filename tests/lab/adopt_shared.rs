//! `nvactl apply --adopt`: rules that the machine's own connections meet as well stay, and so do its services.

use crate::adopt::{adopt, chain, rollback, typed};
use crate::lab::{Backend, FIREWALL, Lab, save};
use crate::namespace::Host;
use crate::traffic::{Outcome, answer, serve_tcp};

/// Forwards the ports 49181 and 8080 to the pod.
const SPEC: &str = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: 49181, target: {pod: 10.224.0.118:80}}
  - {name: more, listen: 10.3.0.4:8080, target: {pod: 10.224.0.118:8080}}
";

/// The rules of the spec in chains: `WEB` accepts in FORWARD, `TO-POD` redirects, `AS-OURS` rewrites. INPUT and OUTPUT
/// drop what no rule accepts.
const IN_CHAINS: &str = "
iptables -P INPUT DROP
iptables -P OUTPUT DROP
iptables -P FORWARD DROP
iptables -N WEB
iptables -A WEB -p tcp --dport 80 -m conntrack --ctstate NEW -j ACCEPT
iptables -A WEB -p tcp --dport 8080 -m conntrack --ctstate NEW -j ACCEPT
iptables -A FORWARD -j WEB
iptables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
iptables -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
iptables -A OUTPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
iptables -t nat -N TO-POD
iptables -t nat -A TO-POD -p tcp --dport 49181 -j DNAT --to-destination 10.224.0.118:80
iptables -t nat -A TO-POD -d 10.3.0.4 -p tcp --dport 8080 -j DNAT --to-destination 10.224.0.118:8080
iptables -t nat -A PREROUTING -i eth0 -j TO-POD
iptables -t nat -A POSTROUTING -d 10.224.0.118 -p tcp --dport 80 -j SNAT --to-source 10.3.0.4
iptables -t nat -A POSTROUTING -d 10.224.0.118 -p tcp --dport 8080 -j SNAT --to-source 10.3.0.4
";

/// INPUT and OUTPUT lead to the chains.
const DIRECTLY: &str = "
iptables -A INPUT -i eth0 -j WEB
iptables -A OUTPUT -j WEB
iptables -t nat -A OUTPUT -d 10.3.0.4 -j TO-POD
";

/// INPUT and OUTPUT lead to a chain that leads to the chains.
const THROUGH_ANOTHER: &str = "
iptables -N LOCAL
iptables -A LOCAL -p tcp -g WEB
iptables -A INPUT -i eth0 -j LOCAL
iptables -A OUTPUT -j LOCAL
iptables -t nat -N OWN
iptables -t nat -A OWN -p tcp -j TO-POD
iptables -t nat -A OUTPUT -d 10.3.0.4 -j OWN
";

/// Asks a server from the firewall itself.
fn from_the_machine(host: &Host, to: &'static str) -> Outcome {
    host.enter(move || crate::traffic::ask_tcp(to))
}

lab_test!(services_of_the_machine_outlive_an_adoption);
fn services_of_the_machine_outlive_an_adoption(backend: Backend) {
    for ways in [DIRECTLY, THROUGH_ANOTHER] {
        let lab = Lab::one_nic(backend);
        let host = &lab.firewall;
        serve_tcp(host, "machine", 80);
        serve_tcp(&lab.pod, "pod", 80);
        serve_tcp(&lab.pod, "pod", 8080);
        host.run("sysctl -qw net.ipv4.ip_forward=1");
        let before = typed(host, &format!("{IN_CHAINS}{ways}"));
        let works = |when: &str| {
            let asked = [
                // A service of its own, which INPUT lets in by the chain of FORWARD.
                lab.tcp(FIREWALL, 80),
                lab.tcp(FIREWALL, 49181),
                lab.tcp(FIREWALL, 8080),
                // The machine's own connections, which OUTPUT lets out and redirects by the same chains.
                from_the_machine(host, "10.224.0.118:80"),
                from_the_machine(host, "10.3.0.4:8080"),
            ];
            let [machine, pod] = [("machine", crate::lab::CLIENT), ("pod", FIREWALL)]
                .map(|(name, peer)| answer(name, peer));
            let expected = [machine, pod.clone(), pod.clone(), pod.clone(), pod];
            assert_eq!(asked, expected, "{when}: {ways}");
        };
        works("typed");
        let said = adopt(host, SPEC);
        assert_eq!(said.code, 0, "{said:?}");
        works("adopted");
        // The rules of POSTROUTING are about forwarded connections, and about those of the machine.
        for name in ["WEB", "TO-POD"] {
            assert_eq!(chain(host, name).len(), 2, "{name}: {}", save(host));
        }
        let said = rollback(host);
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(save(host), before);
        works("rolled back");
    }
}

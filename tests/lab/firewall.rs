//! A firewall without the rest of the lab, and the spec that most tests load into it.

use crate::lab::{Backend, Said, host_with};
use crate::namespace::Host;
use crate::nvactl;

pub const SPEC: &str = "
firewall: {interface: eth0, snat: 10.3.0.4}
forwards:
  - {name: web, listen: 49182, target: {pod: 10.224.0.118:80}}
  - {name: dns.v2, listen: 10.3.0.4:53, protocol: udp, target: {ilb: 10.224.0.222:5300}}
  - {name: games, listen: 6000-6010, target: {pod: 10.224.0.118:7000-7010}}
";

/// Applies a spec, without a trial for the sake of time.
pub fn apply(host: &Host, spec: &str) -> Said {
    let said = nvactl(host, &["apply", "-", "--no-trial"], spec);
    assert_eq!(said.code, 0, "{said:?}");
    said
}

/// A firewall alone, with its interface and a route to its targets.
pub fn firewall(backend: Backend) -> Host {
    let host = host_with(backend);
    host.ip(
        "-4",
        "link add eth0 type veth peer name eth0-peer
         address add 10.3.0.4/24 dev eth0
         link set eth0 up
         link set eth0-peer up
         route add default via 10.3.0.1",
    );
    host
}

pub fn load(host: &Host, text: &str) {
    let output = host.feed("iptables-restore", &[], text);
    assert!(output.status.success(), "{output:?}");
}

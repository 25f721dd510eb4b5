//! The spec that the benches measure, of as many forwards as one asks for.

use std::fmt::Write as _;

/// More than this do not fit on one address: each takes a port of its own, from [`FIRST_PORT`] on.
const ON_ONE_ADDRESS: usize = 50_000;
const FIRST_PORT: usize = 10_000;

/// A spec of so many forwards, about 80 bytes for each. It names a listen address where one has not
/// enough ports.
pub fn spec(forwards: usize) -> String {
    let mut text = "firewall:\n  interface: eth0\n  snat: 10.3.0.4\nforwards:\n".to_owned();
    for n in 0..forwards {
        let (third, fourth) = (n / 250 % 250, n % 250 + 1);
        let _ = write!(
            text,
            "  - name: forward-{n}\n    listen: {}\n    target:\n      pod: 10.224.{third}.{fourth}:80\n",
            listen(n, forwards)
        );
    }
    text
}

/// Where the `n`th of so many forwards listens.
pub fn listen(n: usize, forwards: usize) -> String {
    let port = FIRST_PORT + n % ON_ONE_ADDRESS;
    if forwards <= ON_ONE_ADDRESS {
        port.to_string()
    } else {
        format!("10.3.0.{}:{port}", 4 + n / ON_ONE_ADDRESS)
    }
}

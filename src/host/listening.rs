//! Reads the ports on which programs of this machine listen.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::net::{Port, Protocol};

/// A socket that waits for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListeningSocket {
    pub protocol: Protocol,
    pub port: Port,
    pub address: IpAddr,
}

/// The files of `/proc/net`, and the state of a socket that waits for clients (`TCP_LISTEN` and `TCP_CLOSE` in
/// `include/net/tcp_states.h`: a UDP socket without a peer has the second).
const FILES: [(&str, Protocol, &str); 4] = [
    ("tcp", Protocol::Tcp, "0A"),
    ("tcp6", Protocol::Tcp, "0A"),
    ("udp", Protocol::Udp, "07"),
    ("udp6", Protocol::Udp, "07"),
];

/// Reads the listening sockets of this network namespace, sorted. Returns those of a family that the kernel has.
#[must_use]
pub fn listening() -> Vec<ListeningSocket> {
    let mut found = Vec::new();
    for (name, protocol, state) in FILES {
        let text = fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
        found.extend(sockets(&text, protocol, state));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Returns the sockets of a file that have a state. Its first line is a heading.
fn sockets(text: &str, protocol: Protocol, state: &str) -> impl Iterator<Item = ListeningSocket> {
    text.lines().skip(1).filter_map(move |line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (local, _peer, found) = (words.next()?, words.next()?, words.next()?);
        if found != state {
            return None;
        }
        let (address, port) = local.split_once(':')?;
        Some(ListeningSocket {
            protocol,
            port: Port::new(u16::from_str_radix(port, 16).ok()?)?,
            address: read_address(address)?,
        })
    })
}

/// Reads an address as the kernel prints it: each 32 bits as a number of this machine's byte order.
fn read_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(8 * at..8 * (at + 1))?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn only_sockets_that_wait_for_clients_are_read() {
        let heading = "  sl  local_address rem_address   st tx_queue rx_queue\n";
        let v4 = format!(
            "{heading}   0: 00000000:0016 00000000:0000 0A 00000000:00000000\n   \
             1: 0400030A:0016 0A33C6C6:C001 01 00000000:00000000\n   \
             2: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n"
        );
        let shown = |text: &str, protocol, state| -> Vec<String> {
            let all = sockets(text, protocol, state);
            all.map(|one| format!("{} {} {}", one.protocol, one.address, one.port))
                .collect()
        };
        assert_eq!(
            shown(&v4, Protocol::Tcp, "0A"),
            ["tcp 0.0.0.0 22", "tcp 127.0.0.1 8080"]
        );
        let v6 = format!(
            "{heading}   0: 000000FD000000000000000004000000:0222 00000000000000000000000000000000:0000 07 0:0\n"
        );
        assert_eq!(shown(&v6, Protocol::Udp, "07"), ["udp fd00::4 546"]);
        assert_eq!(shown("", Protocol::Tcp, "0A"), [""; 0]);
        assert_eq!(shown("x\n1: 00:1 0 0A\nZ\n", Protocol::Tcp, "0A"), [""; 0]);
    }
}

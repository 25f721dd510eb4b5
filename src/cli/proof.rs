//! The commands that try rules in a copy of a machine.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values::{SpecArg, number};
use crate::forwards::OutboundProtocol;
use crate::net::{Interface, Port, not_a_host};

#[derive(Debug, Args)]
pub struct TraceArgs {
    /// A spec, a file with iptables-save text, or live for this machine.
    #[arg(value_name = "SPEC|FILE|live")]
    pub subject: Option<PathBuf>,

    /// The client: an address, or an address and a port, with an IPv6 address in brackets then.
    #[arg(long, value_name = "IP[:PORT]", value_parser = client)]
    pub from: ClientArg,

    /// The destination: a port of this machine, or an address and a port; for a ping an address.
    #[arg(long, value_name = "[IP:]PORT", value_parser = destination)]
    pub to: DestinationArg,

    /// The protocol.
    #[arg(long, value_name = "tcp|udp|ping", default_value = "tcp")]
    pub protocol: OutboundProtocol,

    /// The interface by which the client comes in [default: the one by which the machine would answer it].
    #[arg(long = "in", value_name = "IFACE")]
    pub ingress: Option<Interface>,

    /// How many bytes the client sends, and how many the target answers.
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = size)]
    pub size: usize,

    /// Output format.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: TraceFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TraceFormat {
    /// The path, hook by hook.
    Text,
    /// One JSON object.
    Json,
}

#[derive(Debug, Args)]
pub struct TestArgs {
    #[command(flatten)]
    pub spec: SpecArg,

    /// Run the tests of this file too.
    #[arg(long, value_name = "FILE")]
    pub tests: Option<PathBuf>,

    /// Open the connections in a copy of this machine with the rules that are loaded now.
    ///
    /// The default is a machine that is made up from the spec, with the rules of the spec alone.
    #[arg(long)]
    pub live: bool,

    /// Print tests that hold what the spec does now, and run none.
    #[arg(long, conflicts_with_all = ["live", "tests", "format"])]
    pub suggest: bool,

    /// Output format.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: TestFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TestFormat {
    /// A line for each test, and the path of each failed connection.
    Text,
    /// One JSON object.
    Json,
    /// `JUnit` XML, which most CI systems show.
    Junit,
    /// Annotations of a GitHub workflow.
    Github,
}

/// A client's address, and its port if it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientArg {
    pub address: IpAddr,
    pub port: Option<Port>,
}

/// The place that a client connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DestinationArg {
    /// A port of the machine, at its address on the client's side.
    Own(Port),
    Address(IpAddr, Option<Port>),
}

/// A datagram holds no more bytes (RFC 768).
const LARGEST: usize = 65_507;

fn size(text: &str) -> Result<usize, String> {
    let size: usize = number(text)?;
    if size > LARGEST {
        return Err(format!("above {LARGEST}, the largest datagram"));
    }
    Ok(size)
}

fn client(text: &str) -> Result<ClientArg, String> {
    let (address, port) = end(text).map_err(|error| {
        let is_name = !text.contains([':', '/']) && text.contains(|one: char| one.is_alphabetic());
        if is_name {
            format!("{error}; names of networks are for tests alone")
        } else {
            error
        }
    })?;
    Ok(ClientArg { address, port })
}

fn destination(text: &str) -> Result<DestinationArg, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let port: Result<Port, _> = text.parse();
        return port
            .map(DestinationArg::Own)
            .map_err(|error| error.to_string());
    }
    let (address, port) = end(text)?;
    Ok(DestinationArg::Address(address, port))
}

/// Reads an address with or without a port.
fn end(text: &str) -> Result<(IpAddr, Option<Port>), String> {
    let alone = text.parse::<IpAddr>().map(|address| (address, None));
    let read = alone.ok().or_else(|| {
        let at: SocketAddr = text.parse().ok()?;
        Some((at.ip(), Some(Port::new(at.port())?)))
    });
    let (address, port) = read.ok_or_else(|| {
        "not an address such as 198.51.100.7, 198.51.100.7:443 or [fd00::7]:443".to_owned()
    })?;
    match not_a_host(address) {
        Some(reason) => Err(reason.to_owned()),
        None => Ok((address, port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_addresses_with_or_without_a_port() {
        let port = |number| Port::new(number).expect("a port");
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        for (text, wanted) in [
            ("443", DestinationArg::Own(port(443))),
            (
                "10.3.0.4:443",
                DestinationArg::Address(address("10.3.0.4"), Some(port(443))),
            ),
            (
                "10.3.0.4",
                DestinationArg::Address(address("10.3.0.4"), None),
            ),
            ("fd00::4", DestinationArg::Address(address("fd00::4"), None)),
            (
                "[fd00::4]:53",
                DestinationArg::Address(address("fd00::4"), Some(port(53))),
            ),
        ] {
            assert_eq!(destination(text), Ok(wanted), "{text}");
        }
        for text in [
            "",
            "0",
            "65536",
            "10.3.0.4:0",
            "10.3.0.4:",
            "fd00::4:x",
            "web:443",
        ] {
            assert!(destination(text).is_err(), "{text}");
        }
        for (text, why) in [
            ("224.0.0.5", "addresses in 224.0.0.0/4 are multicast groups"),
            (
                "255.255.255.255:80",
                "addresses in 240.0.0.0/4 are reserved or broadcast",
            ),
            (
                "127.0.0.1",
                "addresses in 127.0.0.0/8 never leave the machine",
            ),
            ("[::1]:80", "`::1` never leaves the machine"),
        ] {
            assert_eq!(destination(text), Err(why.to_owned()));
            assert_eq!(client(text), Err(why.to_owned()));
        }
        let error = client("office").expect_err("it is a name");
        let words = "; names of networks are for tests alone";
        assert!(error.ends_with(words), "{error}");
        let error = client("198.51.100").expect_err("it is no address");
        assert!(!error.contains(words), "{error}");
        let wanted = ClientArg {
            address: address("198.51.100.7"),
            port: Some(port(40_000)),
        };
        assert_eq!(client("198.51.100.7:40000"), Ok(wanted));
        assert!(client("443").is_err());
    }
}

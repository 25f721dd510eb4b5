//! A test of a spec: a connection, and the host that it must reach.
//!
//! A test changes no rule. Each part prints as a spec writes it.

use std::fmt;
use std::net::IpAddr;

use super::description::TestName;
use super::forward::Snat;
use super::outbound::OutboundProtocol;
use crate::net::{Family, Host, Interface, Port};

/// A connection, and the host that it must reach. All addresses are of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketTest {
    pub name: Option<TestName>,
    pub from: IpAddr,
    pub to: TestDestination,
    pub protocol: OutboundProtocol,
    /// The interface on which the connection arrives. `None`: the side on which `from` is.
    pub ingress: Option<Interface>,
    pub reaches: Reaches,
    /// The source that the reached host must see. `None`: any. A test that reaches nothing has none.
    pub snat: Option<Snat>,
    /// `None` if the test was not read from a file.
    pub place: Option<TestPlace>,
}

/// The address and port that the client connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TestDestination {
    /// A port of the machine, at its address on the side by which the client comes in. A ping has no port, so it goes
    /// to a host.
    Machine(Port),
    Host(TestHost),
}

impl TestDestination {
    /// Returns the address, if the test names it.
    #[must_use]
    pub fn address(self) -> Option<IpAddr> {
        match self {
            TestDestination::Machine(_) => None,
            TestDestination::Host(host) => Some(host.address),
        }
    }

    /// Returns the port; `None` if the test is a ping.
    #[must_use]
    pub fn port(self) -> Option<Port> {
        match self {
            TestDestination::Machine(port) => Some(port),
            TestDestination::Host(host) => host.port,
        }
    }
}

/// A host at one end of a test, which may be the machine itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TestHost {
    pub address: IpAddr,
    /// `None` if the test is a ping.
    pub port: Option<Port>,
}

/// The hosts that a connection may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reaches {
    /// The connection must reach no host. The machine itself is none.
    Nothing,
    /// At least one. Each connection reaches one of them.
    OneOf(Vec<TestHost>),
}

/// The file and line of a test, for reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestPlace {
    pub file: Box<str>,
    pub line: usize,
}

impl Reaches {
    /// Returns the hosts; none for [`Reaches::Nothing`].
    #[must_use]
    pub fn hosts(&self) -> &[TestHost] {
        match self {
            Reaches::Nothing => &[],
            Reaches::OneOf(hosts) => hosts,
        }
    }
}

impl PacketTest {
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.from)
    }
}

/// The test in one line of words.
impl fmt::Display for PacketTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}: ")?;
        }
        write!(f, "{} from {}", self.protocol, self.from)?;
        if let Some(ingress) = &self.ingress {
            write!(f, " in by {ingress}")?;
        }
        match self.to {
            TestDestination::Machine(port) => write!(f, " to port {port}")?,
            TestDestination::Host(host) => write!(f, " to {host}")?,
        }
        write!(f, " reaches {}", self.reaches)?;
        match self.snat {
            Some(snat) => write!(f, ", snat {snat}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for TestDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TestDestination::Machine(port) => port.fmt(f),
            TestDestination::Host(host) => host.fmt(f),
        }
    }
}

impl fmt::Display for TestHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", Host(self.address)),
            None => self.address.fmt(f),
        }
    }
}

impl fmt::Display for Reaches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reaches::OneOf(hosts) = self else {
            return f.write_str("nothing");
        };
        for (n, host) in hosts.iter().enumerate() {
            write!(f, "{}{host}", if n == 0 { "" } else { "|" })?;
        }
        Ok(())
    }
}

impl fmt::Display for TestPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

#[cfg(test)]
mod tests {
    use crate::yaml;

    #[test]
    fn a_test_is_one_line_of_words() {
        for (test, words) in [
            (
                "{name: ssh is not forwarded, from: 198.51.100.7, to: 22, reaches: nothing}",
                "ssh is not forwarded: tcp from 198.51.100.7 to port 22 reaches nothing",
            ),
            (
                "{from: 192.0.2.7, in: eth2, to: '203.0.113.10:443', reaches: '10.0.0.8:443|10.0.0.9:443', snat: 10.4.0.4}",
                "tcp from 192.0.2.7 in by eth2 to 203.0.113.10:443 reaches 10.0.0.8:443|10.0.0.9:443, snat 10.4.0.4",
            ),
            (
                "{from: 'fd00::1', protocol: ping, to: '2001:db8::1', reaches: '2001:db8::1', snat: masquerade}",
                "ping from fd00::1 to 2001:db8::1 reaches 2001:db8::1, snat masquerade",
            ),
            (
                "{from: 'fd00::1', protocol: udp, to: '[2001:db8::1]:53', reaches: '[2001:db8::1]:53', snat: none}",
                "udp from fd00::1 to [2001:db8::1]:53 reaches [2001:db8::1]:53, snat none",
            ),
        ] {
            let spec = format!(
                "{{firewall: {{interface: eth0, snat: 10.3.0.4}}, forwards: [], tests: [{test}]}}"
            );
            let set = yaml::read(spec.as_bytes()).expect("it is valid");
            assert_eq!(set.tests[0].to_string(), words);
        }
    }
}

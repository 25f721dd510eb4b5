//! Compares the end of a connection with a test.

use crate::forwards::{PacketTest, Reaches, Snat, TestHost};
use crate::net::Port;
use crate::twin::Twin;
use crate::twin::connection_end::Reached;
use crate::twin::judge::sources;

use super::values::Mismatch;

/// Returns the ports of hosts.
pub fn ports(hosts: &[TestHost]) -> Vec<Port> {
    hosts.iter().filter_map(|host| host.port).collect()
}

/// Returns the host that was reached, as a test writes it.
pub fn host(reached: &Reached) -> TestHost {
    TestHost {
        address: reached.target.ip(),
        // A ping has port 0.
        port: Port::new(reached.target.port()),
    }
}

/// Returns how a connection ended otherwise than a test wants. `is_delivered`: whether the client has the answer.
pub fn mismatch(
    twin: &Twin,
    test: &PacketTest,
    reached: Option<&Reached>,
    is_delivered: bool,
) -> Option<Mismatch> {
    let Reaches::OneOf(hosts) = &test.reaches else {
        let reached = reached?;
        return Some(Mismatch::Reached {
            host: host(reached),
            behind: behind(twin, reached).to_owned(),
            source: reached.source.ip(),
        });
    };
    let Some(reached) = reached else {
        return Some(Mismatch::NotReached);
    };
    let at = host(reached);
    if !hosts.contains(&at) {
        return Some(Mismatch::Elsewhere {
            host: at,
            behind: behind(twin, reached).to_owned(),
        });
    }
    if let Some(snat) = test.snat
        && !is_source(twin, test, snat, reached)
    {
        return Some(Mismatch::Source(reached.source.ip()));
    }
    (!is_delivered).then_some(Mismatch::NoAnswer(at))
}

/// Returns the interface behind which a host was reached.
fn behind<'w>(twin: &'w Twin, reached: &Reached) -> &'w str {
    &twin.worlds()[reached.world].interface
}

/// Returns whether a host saw the source that a test wants.
fn is_source(twin: &Twin, test: &PacketTest, snat: Snat, reached: &Reached) -> bool {
    let meant = sources(twin, snat, test.from, behind(twin, reached));
    let seen = reached.source.ip();
    meant.iter().any(|addresses| addresses.contains(&seen))
}

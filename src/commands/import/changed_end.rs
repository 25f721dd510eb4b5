//! A connection that the old rules and the plan end differently.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::forwards::{Forward, PacketTest, TestDestination, TestHost};
use crate::net::{Interface, Protocol};
use crate::twin::packet_tests::{FoundEnd, ReachedEnd};

/// A connection and its ends through both copies.
pub(super) struct ChangedEnd<'c> {
    pub(super) test: &'c PacketTest,
    /// The interface by which the client comes in, if it is known.
    pub(super) arrival: Option<&'c Interface>,
    pub(super) before: &'c FoundEnd,
    pub(super) after: &'c FoundEnd,
}

impl ChangedEnd<'_> {
    /// Returns the host that the client asks for; `None` for a port of the machine.
    pub(super) fn asked(&self) -> Option<TestHost> {
        match self.test.to {
            TestDestination::Machine(_) => None,
            TestDestination::Host(host) => Some(host),
        }
    }

    /// Returns the protocol; `None` for a ping.
    pub(super) fn protocol(&self) -> Option<Protocol> {
        self.test.protocol.transport()
    }

    pub(super) fn is_ping(&self) -> bool {
        self.protocol().is_none()
    }

    /// Returns whether a host was reached before, and none is now.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.before, FoundEnd::Reached(_)) && *self.after == FoundEnd::Nothing
    }

    /// Returns whether a host is reached now, and none was before.
    pub(super) fn is_gained(&self) -> bool {
        *self.before == FoundEnd::Nothing && matches!(self.after, FoundEnd::Reached(_))
    }

    /// Returns whether the same hosts are reached and answer as before, and see another source.
    pub(super) fn is_other_source(&self) -> bool {
        let seen = |end| parts(end, |one| (one.host, one.answered));
        is_reached(self.before) && seen(self.before) == seen(self.after)
    }

    /// Returns whether the same hosts see the same sources, and their answers do not come back as before.
    pub(super) fn is_other_answer(&self) -> bool {
        let seen = |end| parts(end, |one| (one.host, one.source));
        is_reached(self.before) && seen(self.before) == seen(self.after)
    }

    /// Returns whether further hosts are reached beside those of before, all with the same sources and answers.
    pub(super) fn is_further_hosts(&self) -> bool {
        let seen = |end| parts(end, |one| (one.source, one.answered));
        is_reached(self.before)
            && seen(self.before) == seen(self.after)
            && hosts(self.before).is_subset(&hosts(self.after))
    }

    /// Returns whether the host that the client asks for is the only one that an end reached.
    pub(super) fn is_straight(&self, end: &FoundEnd) -> bool {
        self.asked()
            .is_some_and(|asked| hosts(end) == BTreeSet::from([asked]))
    }

    /// Returns whether the old rules led the connection to targets of a forward, and no rule redirects it now.
    pub(super) fn is_redirected_no_more(&self, forward: &Forward) -> bool {
        is_at_targets(forward, self.before)
            && (*self.after == FoundEnd::Nothing || self.is_straight(self.after))
    }

    /// Returns the sources that hosts saw before and see now.
    pub(super) fn all_sources(&self) -> BTreeSet<IpAddr> {
        &sources(self.before) | &sources(self.after)
    }

    /// Returns whether the reached hosts saw the client's own address before.
    pub(super) fn had_own_source(&self) -> bool {
        sources(self.before) == BTreeSet::from([self.test.from])
    }
}

/// Returns whether all hosts of an end are targets of a forward, at least one.
pub(super) fn is_at_targets(forward: &Forward, end: &FoundEnd) -> bool {
    let is_target = |host: &TestHost| {
        let mut targets = forward.target.destinations.iter();
        targets.any(|to| {
            let ports = forward.ports_at(to);
            to.address == host.address && host.port.is_none_or(|port| ports.contains(port))
        })
    };
    is_reached(end) && hosts(end).iter().all(is_target)
}

pub(super) fn hosts(end: &FoundEnd) -> BTreeSet<TestHost> {
    parts(end, |one| one.host)
}

fn sources(end: &FoundEnd) -> BTreeSet<IpAddr> {
    parts(end, |one| one.source)
}

fn is_reached(end: &FoundEnd) -> bool {
    matches!(end, FoundEnd::Reached(_))
}

fn parts<T: Ord>(end: &FoundEnd, part: impl Fn(&ReachedEnd) -> T) -> BTreeSet<T> {
    match end {
        FoundEnd::Reached(ends) => ends.iter().map(part).collect(),
        FoundEnd::Nothing | FoundEnd::NotOpened(_) => BTreeSet::new(),
    }
}

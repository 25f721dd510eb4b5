//! The conditions of `-m conntrack` and `-m state`.

use ipnet::IpNet;

use super::negatable::Negatable::{self, Is};
use crate::net::PortRange;

/// The conditions of one `-m conntrack`; all that are given must hold.
///
/// A packet's state is one of NEW, ESTABLISHED, … *and* at the same time DNAT or not, and a list of states
/// matches if any of them does. So two conditions on the state take two matches (iptables-extensions(8),
/// conntrack).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Conntrack {
    /// `--ctstate`
    pub states: Option<Negatable<CtStates>>,
    /// `--ctorigdst`: where the connection's first packet was sent, before any DNAT. A single
    /// address is printed without its length.
    pub original_destination: Option<Negatable<IpNet>>,
    /// `--ctorigdstport`: the port it was sent to, before any DNAT.
    pub original_destination_port: Option<Negatable<PortRange>>,
    /// `--ctstatus` with one status.
    pub status: Option<Negatable<CtStatus>>,
    /// `--ctdir`, which iptables cannot negate.
    pub direction: Option<CtDirection>,
}

impl Conntrack {
    /// `--ctstatus CONFIRMED`: a packet of the connection has left the machine already.
    pub const CONFIRMED: Conntrack = Conntrack {
        states: None,
        original_destination: None,
        original_destination_port: None,
        status: Some(Is(CtStatus::Confirmed)),
        direction: None,
    };

    /// Returns `--ctstate` alone.
    #[must_use]
    pub fn states(states: CtStates) -> Self {
        Self {
            states: Some(Is(states)),
            ..Self::default()
        }
    }
}

/// One or more states, of which a packet must have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CtStates(u8);

impl CtStates {
    /// Returns whether the state is one of them.
    #[must_use]
    pub fn contains(self, state: CtState) -> bool {
        self.0 & CtStates::from(state).0 != 0
    }

    /// Returns these states and another.
    #[must_use]
    pub fn or(self, state: CtState) -> Self {
        Self(self.0 | CtStates::from(state).0)
    }

    /// Returns the states in the order of iptables-save.
    pub fn iter(self) -> impl Iterator<Item = CtState> {
        let all = CtState::ALL.into_iter().map(|(state, _)| state);
        all.filter(move |state| self.contains(*state))
    }
}

impl From<CtState> for CtStates {
    fn from(state: CtState) -> Self {
        Self(1 << state as u8)
    }
}

/// In the order in which iptables-save prints them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CtState {
    Invalid,
    New,
    Related,
    Established,
    Untracked,
    Snat,
    Dnat,
}

impl CtState {
    pub(super) const ALL: [(CtState, &'static str); 7] = [
        (CtState::Invalid, "INVALID"),
        (CtState::New, "NEW"),
        (CtState::Related, "RELATED"),
        (CtState::Established, "ESTABLISHED"),
        (CtState::Untracked, "UNTRACKED"),
        (CtState::Snat, "SNAT"),
        (CtState::Dnat, "DNAT"),
    ];
}

/// The progress of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CtStatus {
    None,
    Expected,
    SeenReply,
    Assured,
    Confirmed,
}

impl CtStatus {
    pub(super) const ALL: [(CtStatus, &'static str); 5] = [
        (CtStatus::None, "NONE"),
        (CtStatus::Expected, "EXPECTED"),
        (CtStatus::SeenReply, "SEEN_REPLY"),
        (CtStatus::Assured, "ASSURED"),
        (CtStatus::Confirmed, "CONFIRMED"),
    ];
}

/// The direction of a packet within its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CtDirection {
    Original,
    Reply,
}

impl CtDirection {
    pub(super) const ALL: [(CtDirection, &'static str); 2] = [
        (CtDirection::Original, "ORIGINAL"),
        (CtDirection::Reply, "REPLY"),
    ];
}

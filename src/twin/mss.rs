//! Looks for the largest TCP segments that come through a hole for long packets.

use super::battery::Ask;
use super::machine::Machine;
use super::repeat::is_through;
use super::rule_change::restore;
use super::{Twin, TwinError};
use crate::forwards::Firewall;
use crate::net::{Family, Interface, Protocol};
use crate::netfilter::backend::Backend;
use crate::netfilter::matches::Match;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::negatable::Negatable::Is;
use crate::netfilter::rule::Rule;
use crate::netfilter::target::{Mss, Target};
use crate::netfilter::tcp_flags::TcpFlags;
use crate::netfilter::text::line::Line;
use crate::plan::Hook;

/// The chain of the limit. It has not the name of a chain of nvactl's, which a change of nvactl's rules would remove.
const TRIED: &str = "MSS-TRIED";

/// Returns the limit on segment sizes with which a connection comes through: that of this machine's routes, or else
/// the largest number. `present` is the spec's limit. In its place, that of the routes could cut other connections, so
/// only smaller numbers are tried then. The limit stays in the twin. `None`: the connection is not by TCP, or no limit
/// helps. The calling thread is in the twin's machine namespace, also afterwards.
///
/// # Errors
/// If a program is missing, or no connection can be opened.
pub fn limit(twin: &Twin, ask: &Ask<'_>, present: Option<Mss>) -> Result<Option<Mss>, TwinError> {
    let family = ask.of.family();
    if ask.question.protocol != Protocol::Tcp || !hook(family)? {
        return Ok(None);
    }
    if present.is_none() && passes(twin, ask, Mss::Clamp)? {
        return Ok(Some(Mss::Clamp));
    }
    let too_large = match present {
        Some(Mss::Bytes(bytes)) => bytes,
        Some(Mss::Clamp) | None => announced(twin.machine(), family, [ask.by, ask.of.egress()]),
    };
    let found = number(twin, ask, too_large)?;
    if found.is_none() {
        refill(family, None)?;
    }
    Ok(found.map(Mss::Bytes))
}

/// Returns the largest number below `too_large` with which a connection comes through, if there is one. It stays in the
/// twin, in which a limit was tried before.
///
/// # Errors
/// As [`limit`].
pub fn number(twin: &Twin, ask: &Ask<'_>, too_large: u16) -> Result<Option<u16>, TwinError> {
    let mut least = *Firewall::MSS.start();
    if too_large <= least || !passes(twin, ask, Mss::Bytes(least))? {
        return Ok(None);
    }
    let mut too_large = too_large;
    while too_large - least > 1 {
        let middle = least.midpoint(too_large);
        if passes(twin, ask, Mss::Bytes(middle))? {
            least = middle;
        } else {
            too_large = middle;
        }
    }
    refill(ask.of.family(), Some(Mss::Bytes(least)))?;
    Ok(Some(least))
}

fn passes(twin: &Twin, ask: &Ask<'_>, limit: Mss) -> Result<bool, TwinError> {
    Ok(refill(ask.of.family(), Some(limit))? && is_through(twin, ask)?)
}

/// Returns the largest segment that an end of a connection over these interfaces announces: a packet of its line without
/// the headers. A limit of that size changes nothing.
fn announced(machine: &Machine, family: Family, path: [&Interface; 2]) -> u16 {
    let headers = match family {
        Family::V4 => 40,
        Family::V6 => 60,
    };
    let lines = path.iter();
    let lines = lines.filter_map(|name| machine.link(name.as_str()));
    let longest = lines.map(|link| link.mtu.saturating_sub(headers)).max();
    let most = *Firewall::MSS.end();
    longest.map_or(most, |bytes| u16::try_from(bytes).unwrap_or(most).min(most))
}

/// Sets a limit on the segments of all TCP connections in place of the one in nvactl's chain. Returns whether
/// iptables-restore accepts it.
///
/// # Errors
/// If a program is missing.
pub fn instead(family: Family, limit: Mss) -> Result<bool, TwinError> {
    let own = ChainName::from(Hook::Sizing.own());
    // The line makes the chain, or empties it.
    Ok(load(family, &[Line::Chain(&own, None)])? && set(family, limit)?)
}

/// Sets a limit on the segments of all TCP connections through the calling thread's namespace. Returns whether
/// iptables-restore accepts it.
///
/// # Errors
/// If a program is missing.
pub fn set(family: Family, limit: Mss) -> Result<bool, TwinError> {
    Ok(hook(family)? && refill(family, Some(limit))?)
}

/// Makes the chain, and the jump to it.
fn hook(family: Family) -> Result<bool, TwinError> {
    let chain = ChainName::from(TRIED);
    let jump = Rule::jump(chain.clone());
    load(
        family,
        &[
            Line::Chain(&chain, None),
            Line::Insert(&ChainName::Forward, 1, &jump),
        ],
    )
}

/// Empties the chain and adds the rule with a limit.
fn refill(family: Family, limit: Option<Mss>) -> Result<bool, TwinError> {
    let chain = ChainName::from(TRIED);
    let announcing = [
        Match::Protocol(Is(Protocol::Tcp.into())),
        Match::Tcp {
            source: None,
            destination: None,
            flags: Some(Is(TcpFlags::ANNOUNCING)),
        },
    ];
    let rule = limit.map(|limit| Rule::new(announcing, Target::TcpMss(limit)));
    let mut lines = vec![Line::Chain(&chain, None)];
    lines.extend(rule.iter().map(|rule| Line::Append(&chain, rule)));
    load(family, &lines)
}

/// Loads lines by the plain iptables, since an empty table of the other backend does no harm in a twin.
fn load(family: Family, lines: &[Line<'_>]) -> Result<bool, TwinError> {
    let all = [&[Line::Table(TableName::Mangle)], lines, &[Line::Commit]].concat();
    let script: String = all.iter().map(|line| format!("{line}\n")).collect();
    Ok(restore(Backend::Auto, family, &script)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::machine::MachineLink;

    /// A hole for packets of 4000 bytes needs a number beyond that of common lines.
    #[test]
    fn the_largest_number_is_that_of_the_longest_line() {
        let mut machine = Machine {
            links: ["eth0", "eth1"]
                .map(|name| MachineLink::with(name, &[]))
                .into(),
            ..Machine::default()
        };
        let [eth0, eth1] = ["eth0", "eth1"].map(|name| name.parse().expect("a name"));
        let of = |machine: &Machine, family| announced(machine, family, [&eth0, &eth1]);
        assert_eq!(of(&machine, Family::V4), 1460);
        machine.links[1].mtu = 9000;
        assert_eq!(of(&machine, Family::V4), 8960);
        assert_eq!(of(&machine, Family::V6), 8940);
        machine.links[1].mtu = 65_536;
        assert_eq!(of(&machine, Family::V4), 65_495);
    }
}

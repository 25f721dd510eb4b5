//! Looks for the largest TCP segments that come through a hole for long packets.

use super::battery::Ask;
use super::repeat::is_through;
use super::rule_change::restore;
use super::{Twin, TwinError};
use crate::forwards::Firewall;
use crate::net::{Family, Protocol};
use crate::netfilter::backend::Backend;
use crate::netfilter::matches::Match;
use crate::netfilter::names::{ChainName, TableName};
use crate::netfilter::negatable::Negatable::Is;
use crate::netfilter::rule::Rule;
use crate::netfilter::target::{Mss, Target};
use crate::netfilter::tcp_flags::TcpFlags;
use crate::netfilter::text::line::Line;

/// The chain of the limit. It has not the name of a chain of nvactl's, which a change of nvactl's rules would remove.
const TRIED: &str = "MSS-TRIED";

/// Returns the limit on segment sizes with which a connection comes through: that of this machine's routes, or else
/// the largest number. The limit stays in the twin. `None`: the connection is not by TCP, or no limit helps. The calling
/// thread is in the twin's machine namespace, also afterwards.
///
/// # Errors
/// If a program is missing, or no connection can be opened.
pub fn limit(twin: &Twin, ask: &Ask<'_>) -> Result<Option<Mss>, TwinError> {
    let family = ask.of.family();
    if ask.question.protocol != Protocol::Tcp {
        return Ok(None);
    }
    let passes = |limit: Mss| -> Result<bool, TwinError> {
        Ok(refill(family, Some(limit))? && is_through(twin, ask)?)
    };
    if !hook(family)? {
        return Ok(None);
    }
    if passes(Mss::Clamp)? {
        return Ok(Some(Mss::Clamp));
    }
    let mut least = *Firewall::MSS.start();
    if !passes(Mss::Bytes(least))? {
        refill(family, None)?;
        return Ok(None);
    }
    let mut too_large = super::world::longest_segment(family);
    while too_large - least > 1 {
        let middle = least.midpoint(too_large);
        if passes(Mss::Bytes(middle))? {
            least = middle;
        } else {
            too_large = middle;
        }
    }
    refill(family, Some(Mss::Bytes(least)))?;
    Ok(Some(Mss::Bytes(least)))
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

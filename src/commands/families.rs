//! Marks IPv6 in reports.

use super::console::Console;
use crate::host::iptables::IptablesError;
use crate::net::Family;
use crate::net::words::with_causes;

/// Returns the prefix of an IPv6 rule's table; an IPv4 rule has none.
pub(super) fn prefix(family: Family) -> &'static str {
    match family {
        Family::V4 => "",
        Family::V6 => "ip6tables ",
    }
}

/// Warns that a report leaves IPv6 out.
pub(super) fn warn_of_unread_v6(error: &IptablesError, console: &mut Console) {
    let error = with_causes(error);
    console.warn(format_args!(
        "IPv6 rules cannot be read and are left out: {error}"
    ));
}

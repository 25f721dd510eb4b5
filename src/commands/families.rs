//! How reports tell IPv6 from IPv4.

use super::console::Console;
use crate::host::iptables::IptablesError;
use crate::net::Family;
use crate::net::words::with_causes;

/// What stands before the table of an IPv6 rule; the others are iptables' by themselves.
pub(super) fn prefix(family: Family) -> &'static str {
    match family {
        Family::V4 => "",
        Family::V6 => "ip6tables ",
    }
}

/// Says that IPv6 is left out of a report.
pub(super) fn warn_of_unread_v6(error: &IptablesError, console: &mut Console) {
    let error = with_causes(error);
    console.warn(format_args!(
        "IPv6 rules cannot be read and are left out: {error}"
    ));
}

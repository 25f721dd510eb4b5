//! Prints for each forward and each outbound entry whether it works, as metrics.

use std::fmt::Write as _;

use crate::health::doctor::Works;

/// Prints a metric for each forward and each outbound entry, except for those with an unknown result.
pub fn metrics(works: &Works) -> String {
    let mut out = String::from(
        "# HELP nvactl_forward_works Whether connections of the forward do as the spec says in a copy of the machine, and its targets answer.\n\
         # TYPE nvactl_forward_works gauge\n",
    );
    for ((forward, protocol, family), works) in &works.forwards {
        let family = family.as_str();
        let _ = writeln!(
            out,
            "nvactl_forward_works{{forward=\"{forward}\",protocol=\"{protocol}\",family=\"{family}\"}} {}",
            u8::from(*works)
        );
    }
    if works.entries.is_empty() {
        return out;
    }
    out += "# HELP nvactl_outbound_works Whether TCP and UDP connections of the outbound entry do as the spec says in a copy of the machine.\n\
            # TYPE nvactl_outbound_works gauge\n";
    for ((name, family), works) in &works.entries {
        let family = family.as_str();
        let _ = writeln!(
            out,
            "nvactl_outbound_works{{name=\"{name}\",family=\"{family}\"}} {}",
            u8::from(*works)
        );
    }
    out
}

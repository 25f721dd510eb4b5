//! Prints for each forward whether it works, as metrics.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::net::{Family, Protocol};

/// Whether each forward works, without the unknown ones.
pub type Works = BTreeMap<(String, Protocol, Family), bool>;

/// Prints a metric for each forward, except for those with an unknown result.
pub fn metrics(works: &Works) -> String {
    let mut out = String::from(
        "# HELP nvactl_forward_works Whether connections of the forward do as the spec says in a copy of the machine, and its targets answer.\n\
         # TYPE nvactl_forward_works gauge\n",
    );
    for ((forward, protocol, family), works) in works {
        let family = match family {
            Family::V4 => "v4",
            Family::V6 => "v6",
        };
        let _ = writeln!(
            out,
            "nvactl_forward_works{{forward=\"{forward}\",protocol=\"{protocol}\",family=\"{family}\"}} {}",
            u8::from(*works)
        );
    }
    out
}

//! What is said before rules come to stand in another layout, whatever command brings them there.

use super::Console;
use crate::compare::{LAYOUT, LAYOUT_V6};
use crate::net::Family;
use crate::ruleset::Ruleset;
use crate::unplan::layout_of;

/// It explains why so many rules come and go where the spec has hardly changed. Where no forward is
/// loaded, or none will be, there is none to move.
pub fn announce(family: Family, live: &Ruleset, want: &Ruleset, console: &mut Console) {
    if let (Some(from), Some(to)) = (layout_of(live), layout_of(want))
        && from != to
    {
        let (layout, taken) = match family {
            Family::V4 => (LAYOUT, ""),
            // ip6tables-nft-restore 1.8.9 reads counters, and sets none.
            Family::V6 => (
                LAYOUT_V6,
                " where ip6tables-restore takes these (that of nft, 1.8.9, does not)",
            ),
        };
        console.say(format_args!(
            "the {layout} goes from {} to {}: all rules move to other chains, those of forwards \
             that stay with their counters{taken}",
            from.as_str(),
            to.as_str()
        ));
    }
}

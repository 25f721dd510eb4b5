//! Finds out whether this machine is a virtual machine of Azure.

use std::fs;

/// The asset tag in the firmware of each Azure virtual machine.
const TAG: &str = "7783-7084-3265-9085-8269-3286-77";
const PATH: &str = "/sys/class/dmi/id/chassis_asset_tag";

/// Returns whether the firmware has Azure's asset tag.
#[must_use]
pub fn is_here() -> bool {
    fs::read_to_string(PATH).is_ok_and(|tag| tag.trim() == TAG)
}

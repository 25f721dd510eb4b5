//! The version that `nvactl --version` prints.

/// The version of the package, and in a release built from a known commit that commit with its date. `build.rs` sets it.
pub const VERSION: &str = env!("NVACTL_VERSION");

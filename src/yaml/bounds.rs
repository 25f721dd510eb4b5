//! How much of a text is read.

/// No more values than this are read from a text: 100,000 forwards have 1.3 million.
pub const MAX_VALUES: usize = 2_000_000;

/// Reading ends after this many problems: such a text is no spec, and all its problems would take
/// more memory than the text.
pub const MAX_PROBLEMS: usize = 10_000;

/// More connections than a machine can track.
pub const MOST_CONNECTIONS: u32 = 10_000_000;

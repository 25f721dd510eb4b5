//! How much of a text is read.

/// No more values than this are read from a text: 100,000 forwards have 1.3 million.
pub const MAX_VALUES: usize = 2_000_000;

/// After so many problems reading ends: a text with more of them is not a spec at all, and hearing
/// of each would cost more memory than the text.
pub const MAX_PROBLEMS: usize = 10_000;

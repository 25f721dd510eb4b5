//! A short digest of text, the same on every machine. It names chains by their rules, and tells specs
//! apart.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// 60 bits of FNV-1a (<http://www.isthe.com/chongo/tech/comp/fnv/>), printed in 15 digits: more do not
/// fit in a chain's name. It tells apart texts that differ by accident. It does not protect against
/// somebody who searches for two texts with one digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(u64);

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a digest: {DIGITS} hexadecimal digits in lower case")]
pub struct DigestError(String);

const DIGITS: usize = 15;

impl Digest {
    /// Returns the digest of pieces of text, such as lines or files. The ends of pieces count.
    #[must_use]
    pub fn of<T: AsRef<[u8]>>(pieces: impl IntoIterator<Item = T>) -> Self {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for piece in pieces {
            for byte in piece.as_ref().iter().chain(b"\n") {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        Self(hash >> 4)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:01$x}", self.0, DIGITS)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let valid = text.len() == DIGITS && text.bytes().all(digit);
        let number = valid.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        number.map(Self).ok_or_else(|| DigestError(text.to_owned()))
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_prints_as_it_reads() {
        // FNV-1a of "\n" and of "a\n", without the last 4 bits.
        for (pieces, text) in [(&[""][..], "af63c74c8601c8d"), (&["a"], "089bdc07b544e7b")] {
            let digest = Digest::of(pieces);
            assert_eq!(digest.to_string(), text);
            assert_eq!(text.parse(), Ok(digest));
        }
        for text in [
            "",
            "af63c74c8601c8",
            "af63c74c8601c8d0",
            "AF63C74C8601C8D",
            "+f63c74c8601c8d",
        ] {
            assert_eq!(text.parse::<Digest>(), Err(DigestError(text.to_owned())));
        }
    }

    #[test]
    fn the_end_of_a_piece_changes_the_digest() {
        assert_ne!(Digest::of(["ab", "c"]), Digest::of(["a", "bc"]));
        assert_ne!(Digest::of(["ab"]), Digest::of(["ab", ""]));
    }
}

//! A short name for a text, the same on every machine and in every version.

use std::fmt;

use serde::{Deserialize, Serialize};

/// 60 bits of FNV-1a (<http://www.isthe.com/chongo/tech/comp/fnv/>) in 15 hexadecimal digits: as
/// long as a chain's name has room for. It tells texts apart that nobody forged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// Names some lines of text; a line's end counts.
    #[must_use]
    pub fn of_lines(lines: impl IntoIterator<Item = String>) -> Self {
        let mut hash = Hash::default();
        for line in lines {
            hash.add(line.as_bytes());
            hash.add(b"\n");
        }
        hash.digest()
    }

    /// Names some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hash = Hash::default();
        hash.add(bytes);
        hash.digest()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn digest(&self) -> Digest {
        Digest(format!("{:015x}", self.0 >> 4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_tells_texts_apart_and_stays_what_it_is() {
        // The offset basis, without its last four bits.
        assert_eq!(Digest::of(b"").to_string(), "cbf29ce48422232");
        assert_eq!(Digest::of_lines(["a".to_owned()]), Digest::of(b"a\n"));
        assert_ne!(Digest::of(b"a"), Digest::of(b"b"));
    }
}

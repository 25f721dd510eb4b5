//! Marks of packets and of connections, and the copies between the two.

/// Some of the bits of a mark, and their values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mark {
    pub value: u32,
    /// The bits that are compared or written.
    pub mask: u32,
}

/// The copy that `CONNMARK` makes between the packet's mark and the connection's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MarkCopy {
    /// The bits of the packet's mark that are read or written (`--nfmask`).
    pub packet_bits: u32,
    /// The bits of the connection's mark that are read or written (`--ctmask`).
    pub connection_bits: u32,
    /// Moves the bits on their way.
    pub shift: Option<BitShift>,
}

/// A number of bits, and the direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BitShift {
    Left(u8),
    Right(u8),
}

impl MarkCopy {
    /// Returns whether the copy may write one of these bits of the connection's mark, if it goes there. A
    /// shift may bring any bit anywhere.
    #[must_use]
    pub fn writes_connection(self, bits: u32) -> bool {
        self.shift.is_some() || (self.packet_bits | self.connection_bits) & bits != 0
    }
}

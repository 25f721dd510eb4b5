//! Matches that limit a rate or a number of connections.
//!
//! The kernel keeps a rate as the time between two packets in whole units, and iptables-save prints the rate
//! that results. These types keep it like the kernel, and so print it like iptables-save.

use std::fmt;

/// `-m limit`: matches at most this often, counting all packets together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Limit {
    rate: PacketRate,
    /// The packets that may match at once after a pause.
    burst: u32,
}

/// The default burst, which iptables-save leaves out.
const DEFAULT_BURST: u32 = 5;

/// The time between two packets, in 10,000ths of a second (`XT_LIMIT_SCALE` in
/// `linux/netfilter/xt_limit.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct PacketRate(u32);

/// The units of time from the longest to the shortest, each with its length in units of [`PacketRate`].
const TIMES: [(&str, u32); 4] = [
    ("day", 864_000_000),
    ("hour", 36_000_000),
    ("min", 600_000),
    ("sec", 10_000),
];

const MINUTE: u32 = TIMES[2].1;

impl Limit {
    /// The highest rate per minute that the kernel does not round.
    pub const MOST_A_MINUTE: u32 = 600;

    /// Returns a limit of 1 to [`Limit::MOST_A_MINUTE`] packets a minute. The burst is the same number, but at
    /// most five.
    #[must_use]
    pub fn a_minute(times: u32) -> Self {
        let times = times.clamp(1, Self::MOST_A_MINUTE);
        Self {
            rate: PacketRate(MINUTE / times),
            burst: times.min(DEFAULT_BURST),
        }
    }

    #[must_use]
    pub fn per_minute(self) -> u32 {
        MINUTE / self.rate.0
    }

    #[must_use]
    pub fn burst(self) -> u32 {
        self.burst
    }

    /// Reads `10/min`, and a burst if there is one.
    pub(crate) fn read(rate: &str, burst: Option<&str>) -> Option<Self> {
        let (times, unit) = rate.split_once('/')?;
        let (_, length) = TIMES.iter().find(|(name, _)| *name == unit)?;
        let times: u32 = times.parse().ok()?;
        let between = length.checked_div(times).filter(|between| *between > 0)?;
        Some(Self {
            rate: PacketRate(between),
            burst: burst.map_or(Some(DEFAULT_BURST), |burst| burst.parse().ok())?,
        })
    }
}

impl fmt::Display for PacketRate {
    /// Prints the rate in the longest unit that is exact enough (`print_rate` in `extensions/libxt_limit.c`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = self.0;
        let ends =
            |(_, length): &(&str, u32)| between > *length || length / between < length % between;
        let (name, length) = TIMES[..]
            .iter()
            .zip(&TIMES[1..])
            .find(|(_, next)| ends(next))
            .map_or(TIMES[TIMES.len() - 1], |(this, _)| *this);
        write!(f, "{}/{name}", length / between)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--limit {}", self.rate)?;
        match self.burst {
            DEFAULT_BURST => Ok(()),
            burst => write!(f, " --limit-burst {burst}"),
        }
    }
}

/// `-m hashlimit --hashlimit-above`: matches the packets above a rate, counted for all sources together or for
/// each.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HashLimit {
    pub per_second: PerSecond,
    /// The packets that may come at once after a pause.
    pub burst: u32,
    /// The idle seconds after which the kernel forgets a source, which then has its whole burst again. It must
    /// be no shorter than the time in which a burst comes back. At least 1, which iptables-save leaves out.
    pub expire: u32,
    pub of: Whose,
    /// The kernel's table of this name keeps its first rate for as long as any rule uses it
    /// (`htable_find_get` in `net/netfilter/xt_hashlimit.c`), so another rate needs another name.
    pub name: Box<str>,
}

/// The sources whose packets are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Whose {
    All,
    /// One source address.
    Address,
    /// All source addresses that begin with the same bits, this many.
    Net(u8),
}

/// A rate that the kernel does not round. It keeps the time between two packets in millionths of a second, so
/// 3,000 would become 3,003 (measured).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PerSecond(u32);

impl PerSecond {
    /// The shortest time between two packets, and so the highest rate (`XT_HASHLIMIT_SCALE_v2` in
    /// `net/netfilter/xt_hashlimit.c`).
    const SCALE: u32 = 1_000_000;
    /// The highest rate that a spec may have: more than one machine forwards.
    pub const MOST: u32 = 10_000;

    /// Returns the rate, if the kernel does not round it.
    ///
    /// # Errors
    /// The nearest higher rate that the kernel does not round; the nearest lower one if there is none.
    pub fn new(times: u32) -> Result<Self, u32> {
        if times > Self::SCALE {
            return Err(Self::SCALE);
        }
        if times == 0 {
            return Err(1);
        }
        match Self::SCALE / (Self::SCALE / times) {
            held if held == times => Ok(Self(times)),
            held => Err(held),
        }
    }

    #[must_use]
    pub fn times(self) -> u32 {
        self.0
    }
}

impl fmt::Display for HashLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "--hashlimit-above {}/sec --hashlimit-burst {}",
            self.per_second.0, self.burst
        )?;
        if self.of != Whose::All {
            f.write_str(" --hashlimit-mode srcip")?;
        }
        write!(f, " --hashlimit-name {}", self.name)?;
        if self.expire > 1 {
            write!(f, " --hashlimit-htable-expire {}000", self.expire)?;
        }
        match self.of {
            Whose::Net(bits) => write!(f, " --hashlimit-srcmask {bits}"),
            Whose::All | Whose::Address => Ok(()),
        }
    }
}

/// `-m connlimit --connlimit-above`: matches if there are more connections than this, of all sources together
/// or of the packet's source. The kernel counts connections whose first packet has met this rule since it was
/// loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnLimit {
    pub most: u32,
    /// The number of leading bits that tell source addresses apart; 0 counts all sources together.
    pub mask: u8,
}

impl fmt::Display for ConnLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { most, mask } = self;
        write!(
            f,
            "--connlimit-above {most} --connlimit-mask {mask} --connlimit-saddr"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_prints_as_iptables_save_has_it_and_reads_back() {
        for (times, printed) in [
            (1, "--limit 1/min --limit-burst 1"),
            (7, "--limit 7/min"),
            (10, "--limit 10/min"),
            (60, "--limit 1/sec"),
            (600, "--limit 10/sec"),
        ] {
            assert_eq!(Limit::a_minute(times).to_string(), printed);
        }
        for times in 1..=Limit::MOST_A_MINUTE {
            let limit = Limit::a_minute(times);
            assert_eq!(limit.per_minute(), times);
            let printed = limit.to_string();
            let words: Vec<&str> = printed.split(' ').collect();
            let read = Limit::read(words[1], words.get(3).copied());
            assert_eq!(read, Some(limit), "{printed}");
        }
    }

    #[test]
    fn a_rate_that_the_kernel_would_round_is_refused_with_the_nearest() {
        assert_eq!(PerSecond::new(50).map(PerSecond::times), Ok(50));
        assert_eq!(PerSecond::new(3000), Err(3003));
        assert_eq!(PerSecond::new(3003).map(PerSecond::times), Ok(3003));
        assert!((1..=1000).all(|times| PerSecond::new(times).is_ok()));
        assert_eq!(PerSecond::new(0), Err(1));
        assert_eq!(PerSecond::new(1_000_001), Err(1_000_000));
    }
}

//! Rates: `5/second`, `3/m`, `10`.

/// The names of the units, each with its seconds. Any beginning of a name will do (`parse_rate` in
/// `extensions/libxt_limit.c`).
const UNITS: [(&str, &str, u32); 4] = [
    ("second", "sec", 1),
    ("minute", "min", 60),
    ("hour", "hour", 60 * 60),
    ("day", "day", 24 * 60 * 60),
];

/// A number of times in a unit of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypedRate {
    times: u32,
    unit: &'static str,
    pub unit_secs: u32,
}

impl TypedRate {
    pub fn read(typed: &str) -> Option<Self> {
        let (times, unit) = match typed.split_once('/') {
            Some((times, unit)) => (times, unit.to_ascii_lowercase()),
            None => (typed, "s".to_owned()),
        };
        let mut units = UNITS.iter().filter(|_| !unit.is_empty());
        let (_, unit, unit_secs) =
            units.find(|(name, short, _)| name.starts_with(&unit) || *short == unit)?;
        let times: u32 = times.parse().ok().filter(|times| *times > 0)?;
        Some(Self {
            times,
            unit,
            unit_secs: *unit_secs,
        })
    }

    /// Spells the rate with the short name of its unit.
    pub fn spelled(self) -> String {
        format!("{}/{}", self.times, self.unit)
    }

    /// Spells the rate as `-m hashlimit` prints it, which keeps the time between two packets in millionths of a
    /// second: the rate in the longest unit that is exact enough, and the seconds of that unit (`print_rate` in
    /// `extensions/libxt_hashlimit.c`). `None` if the kernel has no time that is short enough.
    pub fn of_hashlimit(self) -> Option<(String, u32)> {
        const SCALE: u64 = 1_000_000;
        let between = SCALE * u64::from(self.unit_secs) / u64::from(self.times);
        if between == 0 {
            return None;
        }
        let longest_first = || UNITS.iter().rev();
        let is_last = |secs: u32| {
            let length = SCALE * u64::from(secs);
            between > length || length / between < length % between
        };
        let mut pairs = longest_first().zip(longest_first().skip(1));
        let unit = pairs.find(|(_, (.., next))| is_last(*next));
        let (_, name, secs) = unit.map_or(UNITS[0], |(this, _)| *this);
        Some((
            format!("{}/{name}", SCALE * u64::from(secs) / between),
            secs,
        ))
    }
}

//! The kernel's network switches, below `/proc/sys/net`, copied from one namespace to another.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

const ROOT: &str = "/proc/sys/net";

/// Switches that a twin sets itself: its addresses are usable at once, and it listens to no router.
const OWN: [&str; 9] = [
    "accept_dad",
    "accept_ra",
    "addr_gen_mode",
    "autoconf",
    "dad_transmits",
    "router_solicitations",
    "stable_secret",
    "temp_valid_lft",
    "use_tempaddr",
];

/// The value of each switch, by its path below `/proc/sys/net`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Switches(BTreeMap<String, String>);

impl Switches {
    /// Reads all readable switches of the calling thread's namespace.
    #[must_use]
    pub fn read() -> Self {
        let mut found = BTreeMap::new();
        collect(Path::new(ROOT), &mut found);
        Self(found)
    }

    /// Returns switches with these values, by their paths below `/proc/sys/net`.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = (String, String)>) -> Self {
        // The kernel ends each value with a line break.
        let lines = values.into_iter();
        Self(
            lines
                .map(|(name, value)| (name, format!("{value}\n")))
                .collect(),
        )
    }

    /// Returns the value of a switch, without the end of the line.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim_end())
    }

    /// Sets the switches of the calling thread's namespace to these values, and returns the names of those that the
    /// kernel refuses. Only switches that both namespaces have and that differ are written. A switch of the whole
    /// machine exists in the first namespace alone, or is read-only elsewhere.
    #[must_use]
    pub fn set(&self) -> Vec<String> {
        let mut left = Vec::new();
        // A switch for all interfaces also sets that of each interface, so these are compared after it.
        for is_for_one in [false, true] {
            let here = Self::read();
            let differs = |name: &String, value: &String| {
                here.0.get(name).is_some_and(|here| here != value) && !is_own(name)
            };
            let all = self.0.iter();
            let mut differing: Vec<(&String, &String)> = all
                .filter(|(name, value)| {
                    (rank(name) == OF_ONE) == is_for_one && differs(name, value)
                })
                .collect();
            differing.sort_by_key(|(name, _)| rank(name));
            for (name, value) in differing {
                let written = fs::write(format!("{ROOT}/{name}"), value);
                // A switch that is read-only here is a count, or a limit of the whole machine.
                if let Err(error) = written
                    && error.kind() != io::ErrorKind::PermissionDenied
                {
                    left.push(name.clone());
                }
            }
        }
        left
    }
}

/// Returns the value of a switch in the calling thread's namespace.
pub(super) fn one(name: &str) -> Option<String> {
    fs::read_to_string(format!("{ROOT}/{name}")).ok()
}

/// Sets a switch of the calling thread's namespace. The kernel may lack it.
pub(super) fn set(name: &str, value: &str) {
    let _ = fs::write(format!("{ROOT}/{name}"), value);
}

/// Writes a switch that each namespace has with the value that it has.
///
/// # Errors
/// If no switch of the calling thread's namespace can be written.
pub(super) fn try_to_write() -> io::Result<()> {
    let path = format!("{ROOT}/ipv4/ip_forward");
    let value = fs::read(&path)?;
    fs::write(path, value)
}

fn is_own(name: &str) -> bool {
    OWN.iter().any(|own| name.ends_with(&format!("/{own}")))
}

/// The rank of a switch that sets no other switch.
const OF_ONE: u8 = 3;

fn rank(name: &str) -> u8 {
    match name {
        "ipv4/ip_forward" => 0,
        name if name.contains("/all/") => 1,
        name if name.contains("/default/") => 2,
        _ => OF_ONE,
    }
}

fn collect(folder: &Path, found: &mut BTreeMap<String, String>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&path, found);
        } else if let Ok(value) = fs::read_to_string(&path)
            && let Ok(name) = path.strip_prefix(ROOT)
        {
            found.insert(name.to_string_lossy().into_owned(), value);
        }
    }
}

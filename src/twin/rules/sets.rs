//! The names of ipsets with a space. `ipset save` and iptables-save print them without quotes, but both programs read
//! them only in quotes (ipset 7.17, iptables 1.8.9).

use std::borrow::Cow;

/// The words before the name of an ipset.
const BEFORE: [&str; 5] = [
    "create ",
    "add ",
    "--match-set ",
    "--add-set ",
    "--del-set ",
];

/// Names with a space, the longest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpacedSets(Vec<String>);

impl SpacedSets {
    /// Reads the text of `ipset save`.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let names = text.lines().filter_map(|line| {
            let line = line.strip_prefix("create ")?;
            let types = ["bitmap:", "hash:", "list:"];
            let ends = types
                .iter()
                .filter_map(|kind| line.find(&format!(" {kind}")));
            line.get(..ends.min()?)
        });
        let spaced = names.filter(|name| name.contains(' ') && !name.contains('"'));
        let mut names: Vec<String> = spaced.map(str::to_owned).collect();
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        Self(names)
    }

    /// Returns a line of `ipset save` or iptables-save with these names in quotes.
    #[must_use]
    pub fn quoted<'l>(&self, line: &'l str) -> Cow<'l, str> {
        let mut quoted = Cow::Borrowed(line);
        for name in &self.0 {
            for before in BEFORE {
                let bare = format!("{before}{name} ");
                if quoted.contains(&bare) {
                    quoted = quoted
                        .replace(&bare, &format!("{before}\"{name}\" "))
                        .into();
                }
            }
        }
        quoted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_space_is_quoted() {
        let sets = SpacedSets::read(
            "create bad ips hash:net family inet\ncreate bad ips too list:set size 8\ncreate bad hash:ip\n",
        );
        for (line, quoted) in [
            ("add bad ips 10.0.0.1", "add \"bad ips\" 10.0.0.1"),
            ("add bad 10.0.0.1", "add bad 10.0.0.1"),
            (
                "-A x -m set ! --match-set bad ips too dst -j SET --add-set bad ips src",
                "-A x -m set ! --match-set \"bad ips too\" dst -j SET --add-set \"bad ips\" src",
            ),
        ] {
            assert_eq!(sets.quoted(line), quoted);
        }
    }
}

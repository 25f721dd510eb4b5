//! The first few of many things, and how many more there are.

use std::fmt::Display;

/// Lists the first `most` items, then `and N more` for the rest.
pub fn few<T: Display>(items: impl IntoIterator<Item = T>, most: usize) -> String {
    let mut items = items.into_iter();
    let shown: Vec<String> = items
        .by_ref()
        .take(most)
        .map(|one| one.to_string())
        .collect();
    let shown = shown.join(", ");
    match items.count() {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_are_listed() {
        for (items, listed) in [
            (&["a"][..], "a"),
            (&["a", "b"], "a, b"),
            (&["a", "b", "c", "d"], "a, b and 2 more"),
        ] {
            assert_eq!(few(items, 2), listed);
        }
    }
}

//! Loads many lines in order although some are refused. A refused line keeps no other line from loading.

use std::iter;
use std::ops::Range;

/// The lines of one load in a user namespace: there iptables-nft and nft fail with `Message too long` above some
/// hundred rules.
const BLOCK: usize = 40;

/// After so many refused lines the rest is not loaded.
const MOST: usize = 100;

/// The reason for which a load failed. It has loaded nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadRefusal {
    /// The program's own words.
    pub words: String,
    /// The line that the program names, if it names one.
    pub at: Option<usize>,
}

impl LoadRefusal {
    /// Returns whether there were too many lines, which may all be valid.
    #[must_use]
    pub fn is_too_long(&self) -> bool {
        self.words.contains("Message too long")
    }
}

/// Loads `count` lines in their order, by several loads if need be. Returns the refused lines with the program's
/// words.
///
/// # Errors
/// The first error of `load`, which ends everything.
pub fn load_in_order<E>(
    count: usize,
    mut load: impl FnMut(Range<usize>) -> Result<Result<(), LoadRefusal>, E>,
) -> Result<Vec<(usize, String)>, E> {
    let mut refused = Vec::new();
    let mut ahead: Vec<Range<usize>> = iter::once(0..count).collect();
    while let Some(range) = ahead.pop() {
        if range.is_empty() {
            continue;
        }
        if refused.len() >= MOST {
            let words = "too many lines before it were refused";
            refused.extend(range.map(|at| (at, words.to_owned())));
            continue;
        }
        let Err(refusal) = load(range.clone())? else {
            continue;
        };
        if range.len() == 1 {
            refused.push((range.start, refusal.words));
            continue;
        }
        let parts = parts(&range, &refusal);
        ahead.extend(parts.into_iter().rev());
    }
    Ok(refused)
}

/// Splits a refused range into smaller ones, with the named line alone.
fn parts(range: &Range<usize>, refusal: &LoadRefusal) -> Vec<Range<usize>> {
    if refusal.is_too_long() && range.len() > BLOCK {
        let starts = range.clone().step_by(BLOCK);
        return starts
            .map(|start| start..range.end.min(start + BLOCK))
            .collect();
    }
    match refusal.at.filter(|at| range.contains(at)) {
        Some(at) => vec![range.start..at, at..at + 1, at + 1..range.end],
        None => {
            let middle = range.start + range.len() / 2;
            vec![range.start..middle, middle..range.end]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loads numbers, some of which are refused. Returns the loaded ones and the number of loads.
    fn loaded(count: usize, bad: &[usize], names: bool, most: usize) -> (Vec<usize>, usize) {
        let (mut loaded, mut loads) = (Vec::new(), 0);
        let refused = load_in_order(count, |range| -> Result<_, ()> {
            loads += 1;
            if range.len() > most {
                return Ok(Err(LoadRefusal {
                    words: "Message too long".to_owned(),
                    at: None,
                }));
            }
            if let Some(at) = bad.iter().find(|bad| range.contains(bad)) {
                return Ok(Err(LoadRefusal {
                    words: "no".to_owned(),
                    at: names.then_some(*at),
                }));
            }
            loaded.extend(range);
            Ok(Ok(()))
        });
        let refused: Vec<_> = refused.expect("nothing ends it").into_iter().collect();
        assert!(refused.iter().map(|(at, _)| at).eq(bad), "{refused:?}");
        (loaded, loads)
    }

    #[test]
    fn a_refused_line_costs_only_itself() {
        for names in [false, true] {
            let (loaded, _) = loaded(1000, &[0, 500, 501, 999], names, 1000);
            let expected: Vec<_> = (0..1000)
                .filter(|at| ![0, 500, 501, 999].contains(at))
                .collect();
            assert_eq!(loaded, expected);
        }
    }

    #[test]
    fn a_named_line_takes_three_loads_and_a_hidden_one_some_more() {
        assert_eq!(loaded(1000, &[700], true, 1000).1, 4);
        assert!(loaded(1000, &[700], false, 1000).1 <= 21);
    }

    #[test]
    fn too_many_lines_load_in_blocks() {
        let (loaded, loads) = loaded(1000, &[], false, 40);
        assert_eq!(loaded, (0..1000).collect::<Vec<_>>());
        assert_eq!(loads, 26);
    }

    #[test]
    fn a_file_that_is_refused_altogether_is_given_up() {
        let mut loads = 0;
        let refused = load_in_order(100_000, |_| -> Result<_, ()> {
            loads += 1;
            Ok(Err(LoadRefusal {
                words: "no".to_owned(),
                at: None,
            }))
        });
        assert_eq!(refused.map(|refused| refused.len()), Ok(100_000));
        assert!(loads < 300, "{loads}");
    }
}

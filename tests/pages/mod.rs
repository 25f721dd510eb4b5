//! The pages for readers, and their code blocks. A marker is a comment on the line above a block; it names the block.

use std::fs;
use std::path::{Path, PathBuf};

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns README, the changelog, `.github/*.md` and every page of `docs/`, by their paths from the root.
pub fn pages() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> = ["README.md", "CHANGELOG.md"].map(PathBuf::from).into();
    for folder in [".github", "docs"] {
        let files = fs::read_dir(root().join(folder)).expect("it can be listed");
        let files =
            files.map(|entry| Path::new(folder).join(entry.expect("it can be listed").file_name()));
        paths.extend(files.filter(|path| path.extension().is_some_and(|end| end == "md")));
    }
    paths.sort();
    assert!(paths.len() > 14, "{paths:?}");
    let read = |path: PathBuf| {
        let text = page(path.to_str().expect("it is UTF-8"));
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

pub fn page(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the code block behind a marker.
#[track_caller]
pub fn block<'p>(page: &'p str, marker: &str) -> &'p str {
    let begin = format!("<!-- {marker} -->\n```");
    let (_, rest) = page.split_once(&begin).expect(marker);
    let (_, rest) = rest.split_once('\n').expect(marker);
    rest.split_once("```").expect(marker).0
}

/// A code block of a page.
#[derive(Debug)]
pub struct Block<'p> {
    pub language: &'p str,
    /// The comment on the line above.
    pub marker: Option<&'p str>,
    /// The line on which it begins, from 1.
    pub line: usize,
}

/// Returns every code block of a page.
pub fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut found = Vec::new();
    let mut before = "";
    let mut is_within = false;
    for (number, line) in page.lines().enumerate() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            if !is_within {
                let marker = before
                    .strip_prefix("<!-- ")
                    .and_then(|rest| rest.strip_suffix(" -->"));
                found.push(Block {
                    language,
                    marker,
                    line: number + 1,
                });
            }
            is_within = !is_within;
        }
        before = line;
    }
    assert!(!is_within, "a block does not end");
    found
}

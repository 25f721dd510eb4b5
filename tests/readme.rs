//! What README shows in its `console` blocks is what happens. The walk through both scenarios is the
//! lab's to show.

#[test]
fn the_console_blocks_are_true() {
    trycmd::TestCases::new().case("README.md");
}

#[test]
fn every_published_line_of_the_table_is_rendered_as_it_says() {
    let readme = include_str!("../README.md");
    let root = env!("CARGO_MANIFEST_DIR");
    let rendered = ["ilb.yaml", "pod.yaml"].map(|name| {
        let text = std::fs::read(format!("{root}/examples/{name}")).expect("it is there");
        let set = nvactl::spec::read(&text).expect("it is sound");
        nvactl::plan::plan(&set, nvactl::net::Family::V4)
            .with_builtin_chains()
            .to_string()
    });
    let table = readme
        .split("## From the post to nvactl")
        .nth(1)
        .and_then(|rest| rest.split("\n## ").next())
        .expect("README has the table");
    let mut rows = 0;
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let column = row.split('|').nth(2).expect("it has columns").trim();
        let Some(spelled) = column
            .strip_prefix('`')
            .and_then(|text| text.strip_suffix('`'))
        else {
            continue;
        };
        if spelled.starts_with("nvactl") {
            continue;
        }
        assert!(
            rendered.iter().any(|text| text.contains(spelled)),
            "{spelled}"
        );
        rows += 1;
    }
    assert_eq!(rows, 6);
}

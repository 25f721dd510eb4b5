//! What README shows in its `console` blocks is what happens. The walk through both scenarios is the
//! lab's to show.

#[test]
fn the_console_blocks_are_true() {
    trycmd::TestCases::new().case("README.md");
}

/// What the reference shows is a spec, and each key of its second part is one that forwards share.
#[test]
fn the_reference_is_a_spec() {
    let readme = include_str!("../README.md");
    let (_, reference) = readme.split_once("## The spec").expect("README has it");
    let blocks = reference.split("```yaml\n").skip(1);
    let mut blocks = blocks.filter_map(|rest| Some(rest.split_once("```")?.0));
    let (whole, shared) = (blocks.next().expect("one"), blocks.next().expect("two"));
    nvactl::yaml::read(whole.as_bytes()).expect("it is sound");
    let without = whole.lines().filter(|line| !line.starts_with("defaults:"));
    let without = without.map(|line| format!("{line}\n")).collect::<String>();
    let reading = nvactl::yaml::examine_all(&[without.as_bytes(), shared.as_bytes()]);
    reading.sound().expect("both together are sound");
}

#[test]
fn every_published_line_of_the_table_is_rendered_as_it_says() {
    let readme = include_str!("../README.md");
    let root = env!("CARGO_MANIFEST_DIR");
    let rendered = ["ilb.yaml", "pod.yaml"].map(|name| {
        let text = std::fs::read(format!("{root}/examples/{name}")).expect("it is there");
        let set = nvactl::yaml::read(&text).expect("it is sound");
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

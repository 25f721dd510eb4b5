//! README.md, `docs/`, CONTRIBUTING, SECURITY and the changelog show commands, specs, tables and links: each is held against the
//! program. `tests/lab/walk.rs` runs README's walk.

mod options;
#[expect(dead_code, reason = "`tests/blocks.rs` asks for every block")]
mod pages;
mod required;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nvactl::yaml::Code;
use options::options;
use pages::{block, page, pages, root};
use required::is_required;
use serde_json::Value;

/// The code blocks of a language.
fn in_language<'p>(page: &'p str, language: &str) -> Vec<&'p str> {
    let begin = format!("```{language}\n");
    let rest = page.split(begin.as_str()).skip(1);
    rest.map(|rest| rest.split_once("```").expect("the block ends").0)
        .collect()
}

/// The rows of the table behind a marker, each as its cells.
fn rows<'p>(page: &'p str, marker: &str) -> Vec<Vec<&'p str>> {
    let (_, rest) = page
        .split_once(&format!("<!-- {marker} -->\n"))
        .expect(marker);
    let lines = rest.lines().take_while(|line| line.starts_with('|'));
    let cells = |line: &'p str| line.trim_matches('|').split('|').map(str::trim).collect();
    lines.skip(2).map(cells).collect()
}

/// The words between single backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The part of a page below a heading, as far as the next heading of its level.
fn section<'p>(page: &'p str, heading: &str) -> &'p str {
    let (_, rest) = page
        .split_once(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("{heading} is not there"));
    let level = heading.split_once(' ').expect("it is a heading").0;
    rest.split(&format!("\n{level} ")).next().unwrap_or(rest)
}

fn nvactl(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_nvactl"))
        .args(args)
        .current_dir(root())
        .env_remove("NVACTL_SPEC")
        .output()
        .expect("nvactl can be run");
    let text = |bytes| String::from_utf8(bytes).expect("it is UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Fails unless a folder with these files is a valid spec.
fn check(name: &str, files: &[&str]) {
    let folder = tempfile::tempdir().expect("there is a place for it");
    for (n, text) in files.iter().enumerate() {
        fs::write(folder.path().join(format!("{n}.yaml")), text).expect("it can be written");
    }
    // The file of networks that the pages have.
    let text = page("docs/spec.md");
    let scanners = block(&text, "networks: scanners.txt");
    fs::write(folder.path().join("scanners.txt"), scanners).expect("it can be written");
    let path = folder.path().to_str().expect("it is UTF-8");
    let (code, _, stderr) = nvactl(&["check", path]);
    assert_eq!(code, Some(0), "{name}: {files:?}\n{stderr}");
}

#[test]
fn the_console_blocks_are_true() {
    trycmd::TestCases::new().case("README.md").case("docs/*.md");
}

/// A block that shows only a part of a spec is completed.
#[test]
fn every_spec_of_a_page_is_valid() {
    let mut checked = 0;
    for (path, text) in pages() {
        for block in in_language(&text, "yaml") {
            let mut spec = block.to_owned();
            if !spec.contains("firewall:") {
                spec.insert_str(0, "firewall: {interface: eth0, snat: 10.3.0.4}\n");
            }
            if !spec.contains("forwards:") && !spec.contains("outbound:") {
                spec.push_str("forwards: []\n");
            }
            check(&path.display().to_string(), &[&spec]);
            checked += 1;
        }
    }
    assert!(checked >= 5, "{checked} specs");
}

/// Each key of the reference's second part is one that forwards share: both parts are one spec.
#[test]
fn the_reference_is_a_spec() {
    let text = page("docs/spec.md");
    let whole = block(&text, "reference: whole");
    let without = whole.lines().filter(|line| !line.starts_with("defaults:"));
    let without: String = without.map(|line| format!("{line}\n")).collect();
    check(
        "docs/spec.md",
        &[&without, block(&text, "reference: shared")],
    );
}

#[test]
fn the_reference_has_every_option_and_no_other() {
    let text = page("docs/spec.md");
    let lines = block(&text, "reference: shared").lines();
    let keys = lines.filter_map(|line| Some(line.strip_prefix("  ")?.split_once(':')?.0));
    let keys = keys.filter(|key| !key.starts_with(' '));
    let known = options().iter().copied();
    assert_eq!(keys.collect::<BTreeSet<_>>(), known.collect());
}

#[test]
fn the_published_rules_are_rendered_as_the_table_says() {
    let text = page("docs/article.md");
    let rendered =
        ["examples/ilb.yaml", "examples/pod.yaml"].map(|path| nvactl(&["render", path]).1);
    let mut compared = 0;
    for row in rows(&text, "rendered") {
        for spelled in quoted(row[1]).filter(|words| !words.starts_with("nvactl")) {
            let found = rendered.iter().any(|rules| rules.contains(spelled));
            assert!(found, "{spelled}");
            compared += 1;
        }
    }
    assert_eq!(compared, 6);
}

#[test]
fn the_table_of_problems_is_the_table_of_the_source() {
    let text = page("docs/spec.md");
    let listed = Code::ALL.map(|code| {
        [
            &format!("`{code}`"),
            code.severity().as_str(),
            code.meaning(),
            code.example(),
        ]
        .map(str::to_owned)
    });
    assert_eq!(rows(&text, "codes: check"), listed);
}

/// The subcommands and options that a help text lists.
fn helped(args: &[&str]) -> (Vec<String>, BTreeSet<String>) {
    let (code, help, _) = nvactl(&[args, &["--help"]].concat());
    assert_eq!(code, Some(0), "{args:?}");
    let commands = help
        .split_once("\nCommands:\n")
        .map_or("", |(_, rest)| rest);
    let commands = commands.split("\n\n").next().unwrap_or_default().lines();
    let commands = commands.filter_map(|line| {
        let name = line.strip_prefix("  ")?.split(' ').next()?;
        (!name.is_empty() && name != "help").then(|| name.to_owned())
    });
    let options = help.lines().filter_map(|line| {
        let (_, rest) = line
            .trim_start()
            .strip_prefix('-')
            .map(|_| line.split_once("--"))??;
        let name = rest
            .split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '-')
            .next()?;
        Some(format!("--{name}"))
    });
    (commands.collect(), options.collect())
}

/// The commands, those of two words included, with their options.
fn commands() -> Vec<(Vec<String>, BTreeSet<String>)> {
    let mut found = Vec::new();
    for name in helped(&[]).0 {
        let (under, options) = helped(&[&name]);
        for second in &under {
            let options = helped(&[&name, second]).1;
            found.push((vec![name.clone(), second.clone()], options));
        }
        if under.is_empty() {
            found.push((vec![name], options));
        }
    }
    assert!(found.len() > 15, "{found:?}");
    found
}

/// The page of the commands has each command and each option below a heading that names the command, or
/// in the table of those that all have.
#[test]
fn every_command_and_option_is_on_its_page() {
    let text = page("docs/commands.md");
    let readme = page("README.md");
    let common: BTreeSet<&str> = quoted(section(&text, "## Options of every command"))
        .flat_map(|words| words.split(' '))
        .collect();
    for (command, options) in commands() {
        let name = command.join(" ");
        let heading = text
            .lines()
            .find(|line| {
                let names = |words: &str| words == name || words.starts_with(&format!("{name} ["));
                line.starts_with("### ") && quoted(line).any(names)
            })
            .unwrap_or_else(|| panic!("`{name}` has no heading"));
        let below = section(&text, heading);
        // The group says what its commands share.
        let group = text.split(heading).next().expect("it stands below a group");
        let group = group
            .rsplit("\n## ")
            .next()
            .expect("it stands below a group");
        let group = group.split("\n### ").next().expect("it begins with words");
        let shown: BTreeSet<&str> = quoted(below)
            .chain(quoted(group))
            .flat_map(|words| words.split([' ', ',']))
            .collect();
        for option in &options {
            let known = shown.contains(option.as_str()) || common.contains(option.as_str());
            assert!(known, "`{name} {option}` is not in docs/commands.md");
        }
        let table = section(&readme, "## Commands");
        assert!(
            table.contains(&format!("`{}`", command[0])),
            "README's table has no `{name}`"
        );
    }
}

/// Every nvactl command of a shell block exists, with the options that it is given.
#[test]
fn every_shown_command_exists() {
    let known = commands();
    let mut seen = 0;
    for (path, text) in pages() {
        for line in in_language(&text, "sh").into_iter().flat_map(str::lines) {
            let line = line.split(" #").next().unwrap_or_default();
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let Some(at) = words.iter().position(|word| *word == "nvactl") else {
                continue;
            };
            let args = &words[at + 1..];
            // A path that ends in the name, or a package of that name.
            if words[..at]
                .iter()
                .any(|word| ["install", "purge"].contains(word))
            {
                continue;
            }
            let (_, options) = known
                .iter()
                .find(|(command, _)| {
                    args.starts_with(&command.iter().map(String::as_str).collect::<Vec<_>>())
                })
                .unwrap_or_else(|| panic!("{path:?}: {line}"));
            for option in args.iter().filter(|word| word.starts_with("--")) {
                assert!(options.contains(*option), "{path:?}: {line}");
            }
            seen += 1;
        }
    }
    assert!(seen > 15, "{seen} commands");
}

/// The shell opens the file of a `>`, and the shell is the user's.
#[test]
fn no_shown_command_has_root_write_by_a_redirection() {
    for (path, text) in pages() {
        for line in in_language(&text, "sh").into_iter().flat_map(str::lines) {
            let line = line.split(" #").next().unwrap_or_default();
            let behind = line.split_once("sudo ").map_or("", |(_, rest)| rest);
            let redirected = behind.replace("> /dev/null", "").contains('>');
            assert!(!redirected, "{path:?}: {line}");
        }
    }
}

/// A command that fails leaves the metrics as they were, so that their age shows the fault.
#[test]
fn the_metrics_recipes_replace_a_file_only_by_a_whole_one() {
    let text = page("docs/metrics.md");
    for (marker, name, last_good) in [
        ("metrics: status", "nvactl.prom", 0),
        ("metrics: doctor", "nvactl-doctor.prom", 1),
    ] {
        let recipe = block(&text, marker);
        let folder = tempfile::tempdir().expect("there is a place for it");
        let at = folder.path();
        let recipe = recipe.replace("/var/lib/node_exporter", at.to_str().expect("it is UTF-8"));
        let run = |code: i32| {
            let fake = format!("#!/bin/sh\necho by {code}\nexit {code}\n");
            fs::create_dir_all(at.join("bin")).expect("it can be made");
            fs::write(at.join("bin/nvactl"), fake).expect("it can be written");
            fs::write(at.join("bin/sudo"), "#!/bin/sh\nexec \"$@\"\n").expect("it can be written");
            for program in ["nvactl", "sudo"] {
                let mode = PermissionsExt::from_mode(0o755);
                fs::set_permissions(at.join("bin").join(program), mode).expect("it can be set");
            }
            let path = format!("{}:/usr/bin:/bin", at.join("bin").display());
            let mut shell = Command::new("sh");
            shell.args(["-c", &recipe]).env("PATH", path);
            shell.status().expect("it runs");
            fs::read_to_string(at.join(name)).unwrap_or_default()
        };
        for code in 0..=last_good {
            assert_eq!(run(code), format!("by {code}\n"), "{recipe}");
        }
        assert_eq!(run(2), format!("by {last_good}\n"), "{recipe}");
    }
}

/// The keys of a JSON value and all below it.
fn keys(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                found.insert(key.clone());
                keys(value, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

/// The JSON of a run without root has no field that its section lacks. A machine that allows no namespaces has no
/// traces and tests.
#[test]
fn every_json_field_is_in_its_section() {
    let text = page("docs/json.md");
    let folder = tempfile::tempdir().expect("there is a place for it");
    let spec = page("tests/cases/problem-overlapping-listen/spec.yaml");
    fs::write(folder.path().join("1.yaml"), spec).expect("it can be written");
    let tests = "tests: [{name: closed, from: 198.51.100.7, to: 49182, reaches: nothing}]\n";
    fs::write(folder.path().join("tests"), tests).expect("it can be written");
    let folder = folder.path().to_str().expect("it is UTF-8");
    let tests = format!("{folder}/tests");
    let (udp, pod) = ("tests/cases/udp/spec.yaml", "tests/cases/pod/spec.yaml");
    let tree = "tests/cases/a-tree/spec.yaml";
    let services = "tests/cases/problem-not-exposed/objects.json";
    let trace = |to| ["trace", pod, "--from", "198.51.100.7", "--to", to];
    let (delivered, refused) = (trace("49182"), trace("10.224.0.118:80"));
    let is_lab = is_required();
    for (heading, args, expected) in [
        ("## `check`", &["check", folder][..], 2),
        ("## `diff`", &["diff", udp, "--against", pod, "--rules"], 1),
        ("## `diff`", &["diff", tree, "--against", pod], 1),
        ("## `probe`", &["probe", pod, "--via", "127.0.0.1"], 1),
        ("## `trace`", &delivered, 0),
        ("## `trace`", &refused, 1),
        ("## `test`", &["test", pod, "--tests", &tests], 1),
        (
            "## `import`",
            &["import", "tests/imports/article-through-an-ilb/rules"],
            0,
        ),
        ("## `import`", &["import", "--kubernetes", services], 0),
    ] {
        let (code, printed, stderr) = nvactl(&[args, &["--format", "json"]].concat());
        let needs_namespaces = ["trace", "test"].contains(&args[0]);
        if needs_namespaces && code == Some(2) && !is_lab {
            continue;
        }
        assert_eq!(code, Some(expected), "{args:?}: {stderr}");
        let value: Value = serde_json::from_str(&printed).expect("it is JSON");
        let mut found = BTreeSet::new();
        keys(&value, &mut found);
        assert!(!found.is_empty(), "{args:?}");
        for key in found {
            let shown = section(&text, heading).contains(&format!("`{key}`"));
            assert!(shown, "{heading} does not have `{key}`");
        }
    }
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// The headings of a page; a comment of a code block is none.
fn anchors(page: &str) -> BTreeSet<String> {
    let text = page.split("```").step_by(2);
    let lines = text.flat_map(str::lines);
    let headings = lines.filter_map(|line| {
        let (hashes, words) = line.split_once(' ')?;
        (!hashes.is_empty() && hashes.chars().all(|c| c == '#')).then(|| anchor(words))
    });
    headings.collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut followed = 0;
    for (path, text) in pages() {
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap_or_default();
            if link.contains("://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let folder = path.parent().expect("it is in a folder");
            let file = if file.is_empty() {
                path.clone()
            } else {
                folder.join(file)
            };
            let at = root().join(&file);
            assert!(at.exists(), "{path:?}: {link}");
            if !heading.is_empty() {
                let there = fs::read_to_string(at).expect("it is a page");
                assert!(anchors(&there).contains(heading), "{path:?}: {link}");
            }
            followed += 1;
        }
    }
    assert!(followed > 60, "{followed} links");
}

/// A reader finds every page from README, and its first sentence says whether it is the right one.
#[test]
fn every_page_is_linked_and_says_what_it_covers() {
    let readme = page("README.md");
    for (path, text) in pages() {
        if path == Path::new("README.md") {
            continue;
        }
        assert!(
            readme.contains(&format!("]({})", path.display())),
            "{path:?}"
        );
        let mut lines = text.lines();
        assert!(
            lines.next().is_some_and(|line| line.starts_with("# ")),
            "{path:?}"
        );
        assert_eq!(lines.next(), Some(""), "{path:?}");
        let first = lines.next().unwrap_or_default();
        assert!(first.starts_with("This page c"), "{path:?}: {first}");
    }
}

/// CONTRIBUTING shows a test that there is, comments apart.
#[test]
fn the_shown_test_is_in_the_file_that_it_names() {
    let path = "tests/lab/scenarios.rs";
    let code = |text: &str| -> String {
        let lines = text.lines().map(str::trim);
        let code = lines.filter(|line| !line.starts_with("//") && !line.is_empty());
        code.map(|line| format!("{line}\n")).collect()
    };
    let text = page(".github/CONTRIBUTING.md");
    let shown = code(block(&text, &format!("test: {path}")));
    assert!(code(&page(path)).contains(&shown), "{shown}");
}

//! The invariants that the crate's documentation states, held against the source.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("it can be listed") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Returns a source without its tests. They are the last item of a file, since nothing behind the first
/// `#[cfg(test)]` is checked here.
fn without_tests<'t>(name: &str, text: &'t str) -> &'t str {
    let Some((code, tests)) = text.split_once("#[cfg(test)]\n") else {
        return text;
    };
    let (head, tests) = tests.split_once('\n').unwrap_or_default();
    assert!(
        head.contains("mod tests"),
        "{name}: `{head}` is for tests and belongs into `mod tests`"
    );
    let items = [
        "fn ", "pub", "impl", "struct ", "enum ", "const ", "mod ", "use ", "#[",
    ];
    let mut items = items.iter();
    let item = items.find(|item| tests.contains(&format!("\n{item}")));
    assert!(item.is_none(), "{name} has code behind `mod tests`");
    code
}

/// Every file under `src` with its code, without comments and tests.
fn code() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    // Tests that have a file of their own.
    paths.retain(|path| !path.ends_with("tests.rs"));
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("it is text");
            let name = path
                .strip_prefix(&root)
                .expect("it is below")
                .display()
                .to_string();
            let code = without_tests(&name, &text)
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            (name, code.collect::<Vec<_>>().join("\n"))
        })
        .collect()
}

#[test]
fn only_the_edge_names_processes_files_and_the_environment() {
    let mut inside = 0;
    for (name, code) in code() {
        if name.starts_with("host/") || name.starts_with("twin/") {
            inside += usize::from(code.contains("std::fs") || code.contains("std::process"));
            continue;
        }
        for word in [
            "std::process",
            "std::fs",
            "std::env",
            "env!(",
            "/proc",
            "/etc",
        ] {
            // `main` gives its exit code, help texts name files to people, and the version is known when nvactl is compiled.
            let allowed = match word {
                "std::process" => name == "main.rs",
                "env!(" => name == "cli/version.rs",
                "/etc" => name.starts_with("cli/"),
                _ => false,
            };
            assert!(allowed || !code.contains(word), "{name} names {word}");
        }
    }
    assert!(inside > 2, "the edge was not found");
}

#[test]
fn iptables_syntax_is_printed_by_the_rule_model_alone() {
    for (name, code) in code() {
        let model = matches!(
            name.as_str(),
            "netfilter/text/matches.rs"
                | "netfilter/text/rule.rs"
                | "netfilter/limit.rs"
                | "netfilter/text/line.rs"
                | "netfilter/text/parse/matches.rs"
                | "netfilter/text/parse/mod.rs"
                | "netfilter/text/parse/rule.rs"
                | "netfilter/text/parse/untyped.rs"
        );
        for option in [
            "-A ",
            "-I ",
            "-D ",
            "-j ",
            "-m conntrack",
            "--dport",
            "--to-",
        ] {
            // A twin takes the rules of others as text; other programs' settings are sentences.
            let as_text = name.starts_with("twin/rules/")
                || name.starts_with("twin/cause/")
                || name == "health/foreign.rs"
                // Its errors name the edit.
                || name.starts_with("netfilter/text/typed/");
            // At the beginning of a text, of a line in it, or behind another word.
            let mut before = ["\"", "\\n", " "].into_iter();
            let printed = before.any(|before| code.contains(&format!("{before}{option}")));
            assert!(model || as_text || !printed, "{name} prints {option}");
        }
    }
}

#[test]
fn no_shell_is_ever_started() {
    for (name, code) in code() {
        for shell in ["\"sh\"", "\"bash\"", "/bin/sh", "sh -c"] {
            assert!(!code.contains(shell), "{name} names {shell}");
        }
    }
}

/// These panic where the kernel has no thread; `thread::Builder` says so.
#[test]
fn a_thread_that_is_not_there_is_no_panic() {
    for (name, code) in code() {
        for call in ["thread::spawn", "scope.spawn"] {
            assert!(!code.contains(call), "{name} calls {call}");
        }
    }
}

/// The rooms of the crate. Each may import only those before it. `nvactl::Error` collects the errors of all
/// rooms, so the last room defines it, and no room can name it as `crate::Error`.
const ROOMS: [&str; 15] = [
    "net",
    "netfilter",
    "host",
    "forwards",
    "kubernetes",
    "yaml",
    "plan",
    "import",
    "diff",
    "twin",
    "proof",
    "health",
    "ops",
    "cli",
    "commands",
];

/// Imports that the order would allow. Rules and their differences are functions of values, so nothing
/// below them may touch the machine. Only commands read the text of a spec; `cli` may name the codes of
/// its problems.
const BANNED: [(&str, &str); 14] = [
    ("forwards", "host"),
    ("kubernetes", "host"),
    ("yaml", "host"),
    ("plan", "host"),
    ("plan", "yaml"),
    ("import", "host"),
    ("import", "yaml"),
    ("diff", "host"),
    ("diff", "yaml"),
    ("twin", "yaml"),
    ("proof", "host"),
    ("proof", "yaml"),
    ("health", "yaml"),
    ("ops", "yaml"),
];

/// A path that a file names, from the crate's root.
#[derive(Debug, Clone)]
struct Named {
    path: Vec<String>,
    /// The name that the file gives it, where others may use that name.
    public: Option<String>,
}

/// The words and signs of a source, without the contents of its literals.
fn tokens(code: &str) -> Vec<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(c) = rest.chars().next() {
        let len = if is_word(c) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else if c == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("'\"'") {
            3
        } else if rest.starts_with("'\\\"'") {
            4
        } else {
            c.len_utf8()
        };
        let (token, behind) = rest.split_at(len);
        rest = behind;
        if !c.is_whitespace() && c != '"' {
            tokens.push(token.to_owned());
        }
    }
    tokens
}

/// Reads the path, or the paths of a tree, that begins at a token, and returns the place behind it.
fn read_path(
    tokens: &[String],
    at: usize,
    before: &[String],
    found: &mut Vec<Vec<String>>,
) -> usize {
    let (mut at, mut path) = (at, before.to_vec());
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    at = match tokens[at].as_str() {
                        "," => at + 1,
                        _ => read_path(tokens, at, &path, found),
                    };
                }
                return at + 1;
            }
            Some(word) if word.starts_with(|c: char| c.is_alphanumeric() || c == '_') => {
                path.push(word.to_owned());
                at += 1;
            }
            _ => at += 1,
        }
        if tokens.get(at).is_none_or(|token| token != "::") {
            // The new name of a path matters where others use it.
            if tokens.get(at).is_some_and(|token| token == "as") {
                path.push("as".to_owned());
                path.extend(tokens.get(at + 1).cloned());
                at += 2;
            }
            found.push(path);
            return at;
        }
        at += 1;
    }
}

/// The files of the crate by their modules, each with the paths that it names.
fn modules() -> BTreeMap<Vec<String>, Vec<Named>> {
    let mut codes = BTreeMap::new();
    for (name, code) in code() {
        let name = name.trim_end_matches(".rs").trim_end_matches("/mod");
        let module: Vec<String> = match name {
            "main" => continue,
            "lib" => Vec::new(),
            name => name.split('/').map(str::to_owned).collect(),
        };
        codes.insert(module, code);
    }
    let absolute = |module: &[String], path: &[String]| -> Option<Vec<String>> {
        let supers = path.iter().take_while(|word| *word == "super").count();
        let (base, rest) = match path.first()?.as_str() {
            "crate" => (&module[..0], &path[1..]),
            "self" => (module, &path[1..]),
            "super" => (
                &module[..module.len().checked_sub(supers)?],
                &path[supers..],
            ),
            child => {
                let child = [module, &[child.to_owned()]].concat();
                codes.contains_key(&child).then_some((module, path))?
            }
        };
        Some([base, rest].concat())
    };
    let of_module = |module: &Vec<String>, code: &String| {
        let tokens = tokens(code);
        let mut named = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            let is_use = tokens[at] == "use";
            let is_path = tokens.get(at + 1).is_some_and(|token| token == "::")
                && tokens[at].starts_with(|c: char| c.is_alphabetic());
            if !is_use && !is_path {
                at += 1;
                continue;
            }
            let before = at.checked_sub(1).map(|at| tokens[at].as_str());
            let is_public = is_use && matches!(before, Some("pub" | ")"));
            let mut paths = Vec::new();
            at = read_path(&tokens, at + usize::from(is_use), &[], &mut paths);
            for mut path in paths {
                let mut public = path.last().cloned();
                if path.len() > 2 && path[path.len() - 2] == "as" {
                    path.truncate(path.len() - 2);
                }
                public = public.filter(|_| is_public);
                let path = absolute(module, &path);
                named.extend(path.map(|path| Named { path, public }));
            }
        }
        named
    };
    let modules = codes.iter();
    let modules = modules.map(|(module, code)| (module.clone(), of_module(module, code)));
    modules.collect()
}

/// The module that defines what a path names, behind all `pub use`.
fn definer(modules: &BTreeMap<Vec<String>, Vec<Named>>, path: &[String]) -> Vec<String> {
    let mut path = path.to_vec();
    for _ in 0..8 {
        let depth = (0..=path.len()).rev();
        let depth = depth.max_by_key(|depth| (modules.contains_key(&path[..*depth]), *depth));
        let (module, rest) = path.split_at(depth.unwrap_or_default());
        let given = rest.first().and_then(|name| {
            let mut named = modules[module].iter();
            named.find(|one| one.public.as_ref() == Some(name))
        });
        match given {
            Some(given) => path = [&given.path, &rest[1..]].concat(),
            None => return module.to_vec(),
        }
    }
    panic!("{path:?} has no end");
}

/// The imports of each file. A file that only passes a name on does not use it.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let modules = modules();
    let of = |module: &Vec<String>, named: &Vec<Named>| {
        let used = named.iter().filter(|one| one.public.is_none());
        let definers = used.map(|one| definer(&modules, &one.path));
        let others = definers.filter(|other| other != module && !other.is_empty());
        others.map(|other| other.join("::")).collect()
    };
    let each = modules.iter();
    each.map(|(module, named)| (module.join("::"), of(module, named)))
        .collect()
}

#[test]
fn a_room_imports_only_rooms_above_it() {
    let room = |module: &[String]| {
        let place = ROOMS
            .iter()
            .position(|room| module.first().is_some_and(|name| name == room));
        place.unwrap_or_else(|| panic!("{module:?} is in no room"))
    };
    let mut wrong = BTreeSet::new();
    let mut right = 0;
    for (file, named) in modules().iter().filter(|(file, _)| !file.is_empty()) {
        for one in named {
            let (here, there) = (room(file), room(&one.path));
            if there > here || BANNED.contains(&(ROOMS[here], ROOMS[there])) {
                wrong.insert(format!("{} names {}", file.join("::"), one.path.join("::")));
            } else {
                right += usize::from(there < here);
            }
        }
    }
    assert_eq!(wrong, BTreeSet::new());
    assert!(right > 500, "the imports were not found: {right}");
}

#[test]
fn files_import_one_another_in_no_circle() {
    let imports = imports();
    let reached = |file: &String| {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&String> = imports[file].iter().collect();
        while let Some(one) = next.pop() {
            if reached.insert(one.clone()) {
                next.extend(&imports[one]);
            }
        }
        reached
    };
    let reached: BTreeMap<&String, BTreeSet<String>> =
        imports.keys().map(|file| (file, reached(file))).collect();
    let circle = |file: &String| -> BTreeSet<&str> {
        let back = reached[file]
            .iter()
            .filter(|one| reached[one].contains(file));
        back.map(String::as_str).collect()
    };
    let found: BTreeSet<BTreeSet<&str>> = imports.keys().map(circle).collect();
    let found: BTreeSet<_> = found.into_iter().filter(|one| !one.is_empty()).collect();
    assert_eq!(found, BTreeSet::new());
}

/// A room may have an error of its own, named `Error`.
#[test]
fn no_two_types_have_the_same_name() {
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, code) in code() {
        for line in code.lines() {
            let line = line.trim_start_matches("pub ");
            let line = line.strip_prefix("pub(super) ").unwrap_or(line);
            let mut keywords = ["struct ", "enum ", "type ", "trait "].into_iter();
            if let Some(rest) = keywords.find_map(|keyword| line.strip_prefix(keyword)) {
                let is_word = |c: char| c.is_alphanumeric() || c == '_';
                let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                let of_one = files.entry(rest[..end].to_owned()).or_default();
                of_one.push(name.clone());
            }
        }
    }
    assert!(
        files.len() > 300,
        "the types were not found: {}",
        files.len()
    );
    files.remove("Error");
    files.retain(|_, files| files.len() > 1);
    assert_eq!(files, BTreeMap::new());
}

#[test]
fn every_file_that_contributing_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join(".github/CONTRIBUTING.md")).expect("it is text");
    let named = page.split('`').skip(1).step_by(2);
    let paths = named.filter(|word| {
        ["src/", "tests/", "docs/", "examples/"]
            .iter()
            .any(|top| word.starts_with(top))
    });
    // A word in capitals stands for any name.
    let paths: Vec<&str> = paths
        .filter(|path| !path.contains(|c: char| c.is_uppercase()))
        .collect();
    assert!(paths.len() > 20, "the table was not found: {paths:?}");
    for path in paths {
        assert!(root.join(path).exists(), "{path} does not exist");
    }
}

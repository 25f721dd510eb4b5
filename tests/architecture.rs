//! The invariants that the crate's documentation states, held against the source.

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

/// Every file under `src` with its code: comments, and what stands behind `#[cfg(test)]`, apart.
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
            let text = text.split("#[cfg(test)]").next().unwrap_or_default();
            let code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            let name = path
                .strip_prefix(&root)
                .expect("it is below")
                .display()
                .to_string();
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
            // `main` gives its exit code, and help texts name files to people.
            let allowed = match word {
                "std::process" => name == "main.rs",
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
            "netfilter/rule.rs"
                | "netfilter/limit.rs"
                | "netfilter/text/line.rs"
                | "netfilter/text/parse/mod.rs"
                | "netfilter/text/parse/rule.rs"
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
                || name == "health/foreign.rs";
            let printed = !as_text
                && (code.contains(&format!("\"{option}")) || code.contains(&format!(" {option}")));
            assert!(model || !printed, "{name} prints {option}");
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

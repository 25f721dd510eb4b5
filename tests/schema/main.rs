//! `nvactl schema` against nvactl's own reader, by an independent validator.

mod mistakes;
#[path = "../pages/mod.rs"]
#[expect(dead_code, reason = "`tests/blocks.rs` asks for every block")]
mod pages;
#[path = "../validator/mod.rs"]
mod validator;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nvactl::yaml::form::schema;
use nvactl::yaml::{self, Code, NetworkFile, ProblemKind, Severity, TestFile};
use pages::{block, page, root};
use serde_json::{Value, json};
use validator::{errors, validator};

/// Reads YAML as a validator gets it. `None` if it is no YAML for the other reader.
fn read(text: &[u8]) -> Option<Value> {
    // The other reader takes no byte order mark, which YAML allows.
    serde_yaml::from_slice(text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)).ok()
}

/// Returns the validator of one of the schema's definitions.
fn validator_of(definition: &str) -> jsonschema::Validator {
    let mut one = schema().to_value();
    // In draft 7, a reference replaces all that stands beside it.
    one["$ref"] = format!("#/definitions/{definition}").into();
    jsonschema::draft7::new(&one).expect("it is a schema")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("it can be listed") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// The cases, each with its spec and the codes of its errors.
fn cases() -> Vec<(String, Vec<u8>, BTreeSet<Code>)> {
    let folder = root().join("tests/cases");
    let mut cases: Vec<PathBuf> = fs::read_dir(folder)
        .expect("tests/cases is there")
        .map(|entry| entry.expect("it can be listed").path())
        .collect();
    cases.sort();
    let each = cases.into_iter().map(|case| {
        let text = fs::read(case.join("spec.yaml")).expect("each case has a spec");
        let networks: Vec<(String, Vec<u8>)> = yaml::network_paths(&[&text])
            .into_iter()
            .filter_map(|path| Some((path.clone(), fs::read(case.join(path)).ok()?)))
            .collect();
        let networks: Vec<NetworkFile<'_>> = networks
            .iter()
            .map(|(path, text)| NetworkFile {
                path,
                content: Ok(text),
            })
            .collect();
        let problems = yaml::examine_with(&[&text], &networks).problems;
        let errors = problems
            .iter()
            .filter(|problem| problem.severity() == Severity::Error)
            // The lines of a file of networks are no part of the spec.
            .filter(|problem| problem.span.start < text.len())
            .map(|problem| problem.kind.code())
            .collect();
        let name = case.file_name().expect("it has a name").to_string_lossy();
        (name.into_owned(), text, errors)
    });
    each.collect()
}

#[test]
fn the_schema_is_a_schema_of_draft_7() {
    let schema = schema().to_value();
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
    jsonschema::meta::validate(&schema).expect("it is a schema");
}

/// To accept a new schema after reading it: `NVACTL_BLESS=1 cargo test --test schema`.
#[test]
fn the_example_is_the_schema_that_nvactl_prints() {
    let output = Command::new(env!("CARGO_BIN_EXE_nvactl"))
        .arg("schema")
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let printed = String::from_utf8(output.stdout).expect("it is UTF-8");
    assert!(printed.ends_with("}\n"));
    let path = root().join("examples/forward.schema.json");
    if std::env::var_os("NVACTL_BLESS").is_some() {
        fs::write(&path, &printed).expect("it can be written");
    }
    let example = fs::read_to_string(path).expect("it is there");
    assert_eq!(printed, example);
}

/// An editor that opens an example knows its schema, and shows no error.
#[test]
fn every_example_names_its_schema_and_validates() {
    let mut found = Vec::new();
    files(&root().join("examples"), &mut found);
    let schema = root().join("examples/forward.schema.json");
    let mut checked = BTreeMap::new();
    for path in found
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
    {
        let text = fs::read_to_string(path).expect("it is text");
        let value = read(text.as_bytes()).expect("it is YAML");
        let keys = ["firewall", "forwards", "outbound"];
        if keys.iter().all(|key| value.get(key).is_none()) {
            continue;
        }
        let first = text.lines().next().unwrap_or_default();
        let named = first
            .strip_prefix("# yaml-language-server: $schema=")
            .unwrap_or_else(|| panic!("{path:?} begins with `{first}`"));
        let (file, definition) = named.split_once("#/definitions/").unwrap_or((named, ""));
        let file = path.parent().expect("it is in a folder").join(file);
        assert_eq!(
            file.canonicalize().expect("the schema is there"),
            schema.canonicalize().expect("it is there"),
            "{path:?}"
        );
        let validator = match definition {
            "" => validator(),
            definition => validator_of(definition),
        };
        assert_eq!(errors(&validator, &value), [""; 0], "{path:?}");
        *checked.entry(definition.to_owned()).or_insert(0) += 1;
    }
    let counts = BTreeMap::from([(String::new(), 5), ("folder-file".to_owned(), 3)]);
    assert_eq!(checked, counts);
}

/// The schema that `docs/spec.md` has for programs that take no part of another.
#[test]
fn the_schema_of_a_folder_file_leads_to_the_definition() {
    let page = page("docs/spec.md");
    let texts = page
        .split('`')
        .filter(|text| text.starts_with("{\"$schema\""));
    let texts: Vec<&str> = texts.collect();
    assert_eq!(texts.len(), 1, "{texts:?}");
    let one: Value = serde_json::from_str(texts[0]).expect("it is JSON");
    // Both files are in one folder.
    let folder = "file:///etc/nvactl/";
    let registry = jsonschema::Registry::new()
        .add(format!("{folder}forward.schema.json"), schema().to_value())
        .and_then(jsonschema::RegistryBuilder::prepare)
        .expect("it is a schema");
    let validator = jsonschema::draft7::options()
        .with_registry(&registry)
        .with_base_uri(format!("{folder}file.schema.json"))
        .build(&one)
        .expect("it is a schema");
    assert!(validator.is_valid(&json!({"forwards": []})));
    // A whole spec has more keys.
    let networks = json!({"networks": {"office": ["192.0.2.0/24"]}});
    assert!(validator.is_valid(&networks));
    assert!(!self::validator().is_valid(&networks));
    assert!(!validator.is_valid(&json!({"forward": []})));
}

#[test]
fn every_valid_case_validates() {
    let validator = validator();
    let (mut valid, mut unread) = (0, Vec::new());
    for (name, text, found) in cases() {
        match read(&text) {
            Some(value) if found.is_empty() => {
                assert_eq!(errors(&validator, &value), [""; 0], "{name}");
                valid += 1;
            }
            None if found.is_empty() => unread.push(name),
            _ => {}
        }
    }
    assert!(valid > 50, "{valid} valid cases");
    assert_eq!(unread, [""; 0], "the other reader of YAML refuses them");
}

/// Mistakes with which a text is no YAML, or that a reader of YAML takes away.
const OF_YAML: [Code; 8] = [
    Code::Alias,
    Code::ControlCharacter,
    Code::DuplicateKey,
    // A description with a character that YAML forbids.
    Code::InvalidDescription,
    Code::NotUtf8,
    Code::SeveralDocuments,
    Code::Syntax,
    Code::Tag,
];

/// The other codes of which the schema misses a case, and why.
const UNSEEN: &[(Code, &str)] = &[
    (Code::AllowsNobody, "the networks of two lists are computed"),
    (
        Code::DangerousTarget,
        "the networks that hold special addresses are computed",
    ),
    (Code::DuplicateName, "entries are compared"),
    (
        Code::HairpinKeepsClients,
        "the `snat` may be the firewall's",
    ),
    (
        Code::InvalidPort,
        "a reader of YAML takes `0x50` for the number 80",
    ),
    (
        Code::MissingKey,
        "the firewall's interfaces decide whether an outbound entry needs `egress`",
    ),
    (
        Code::NoSnat,
        "the addresses of the target and of `snat` have families",
    ),
    (Code::OverlappingListen, "entries are compared"),
    (Code::RangeLength, "ranges of ports are computed"),
    (
        Code::TakesSsh,
        "a range of ports holds 22, and `silence` allows it",
    ),
    (
        Code::UnknownNetwork,
        "`networks` may be in another file of a folder",
    ),
];

#[test]
fn every_mistake_that_a_schema_can_see_is_refused() {
    let validator = validator();
    let mut missed: BTreeMap<Code, Vec<String>> = BTreeMap::new();
    let mut unread = BTreeSet::new();
    for (name, text, found) in cases() {
        let value = read(&text);
        let is_refused = value
            .as_ref()
            .is_some_and(|value| !validator.is_valid(value));
        if found.is_empty() || is_refused {
            continue;
        }
        let of_yaml = found.iter().copied().filter(|code| OF_YAML.contains(code));
        let of_yaml: Vec<Code> = of_yaml.collect();
        if !of_yaml.is_empty() {
            unread.extend(of_yaml);
            continue;
        }
        assert!(value.is_some(), "{name} is no YAML for the other reader");
        for code in found {
            missed.entry(code).or_default().push(name.clone());
        }
    }
    // A code whose cases are all refused is one that the schema sees.
    let listed: BTreeSet<Code> = UNSEEN.iter().map(|(code, _)| *code).collect();
    let codes: BTreeSet<Code> = missed.keys().copied().collect();
    assert_eq!(codes, listed, "{missed:#?}");
    assert_eq!(unread, BTreeSet::from(OF_YAML));
}

/// The keys, and the words of a value, that a part of a spec has.
type Words = BTreeSet<String>;

/// The keys that nvactl knows in each mapping, as its reports of an unknown key name them.
fn known_keys() -> BTreeSet<Words> {
    let forward = |part: &str| format!("forwards: [{{{part}}}]");
    let texts = [
        "no-such-key: 1".to_owned(),
        "firewall: {no-such-key: 1}".to_owned(),
        "firewall: {interface: {no-such-key: 1}}".to_owned(),
        "firewall: {snat: {no-such-key: 1}}".to_owned(),
        "networks: {office: {no-such-key: 1}}".to_owned(),
        "defaults: {no-such-key: 1}".to_owned(),
        forward("no-such-key: 1"),
        forward("target: {no-such-key: 1}"),
        forward("limits: {no-such-key: 1}"),
        forward("log: {no-such-key: 1}"),
        "outbound: [{no-such-key: 1}]".to_owned(),
        "tests: [{no-such-key: 1}]".to_owned(),
    ];
    let mut known: BTreeSet<Words> = texts
        .iter()
        .map(|text| unknown(text, &yaml::examine(text.as_bytes()).problems))
        .collect();
    let text = "no-such-key: 1";
    let file = TestFile {
        text: text.as_bytes(),
        networks: &[],
        spec: &[],
        spec_networks: &[],
        interfaces: &[],
    };
    known.insert(unknown(text, &yaml::examine_tests(&file).problems));
    known
}

/// The keys or words that the report of an unknown one names.
fn unknown(text: &str, problems: &[yaml::Problem]) -> Words {
    let known = problems.iter().find_map(|problem| match problem.kind {
        ProblemKind::UnknownKey { known, .. } | ProblemKind::UnknownWord { known, .. } => {
            Some(known)
        }
        _ => None,
    });
    let known = known.unwrap_or_else(|| panic!("{text}: {problems:?}"));
    known.iter().map(|word| (*word).to_owned()).collect()
}

/// Calls a function for a schema and all schemas in it.
fn each_schema<'s>(value: &'s Value, call: &mut impl FnMut(&'s Value)) {
    match value {
        Value::Object(keywords) => {
            call(value);
            for (keyword, value) in keywords {
                if !["examples", "enum", "const"].contains(&keyword.as_str()) {
                    each_schema(value, call);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| each_schema(value, call)),
        _ => {}
    }
}

#[test]
fn every_key_that_nvactl_knows_is_in_the_schema_and_the_reverse() {
    let schema = schema().to_value();
    let mut found = BTreeSet::new();
    each_schema(&schema, &mut |one| {
        // The keys of `networks` are names.
        if one["additionalProperties"] == json!(false) && one.get("patternProperties").is_none() {
            let keys = one["properties"].as_object().expect("it has keys").keys();
            found.insert(keys.cloned().collect::<Words>());
        }
    });
    assert_eq!(found, known_keys());
}

#[test]
fn every_word_that_nvactl_knows_is_in_the_schema_and_the_reverse() {
    let forward = |part: &str| format!("forwards: [{{{part}}}]");
    let texts = [
        "firewall: {forward_policy: x}".to_owned(),
        "firewall: {layout: x}".to_owned(),
        forward("protocol: x"),
        forward("balance: x"),
        forward("limits: {per: x}"),
        forward("log: {level: x}"),
        forward("log: {connections: x}"),
        "outbound: [{protocol: x}]".to_owned(),
        "tests: [{protocol: x}]".to_owned(),
    ];
    let known: BTreeSet<Words> = texts
        .iter()
        .map(|text| unknown(text, &yaml::examine(text.as_bytes()).problems))
        .collect();
    let schema = schema().to_value();
    let mut found = BTreeSet::new();
    each_schema(&schema, &mut |one| {
        let words = one["enum"].as_array().into_iter().flatten();
        let words: Words = words.filter_map(Value::as_str).map(str::to_owned).collect();
        // The codes have their meanings, and the version and `internet` have only one form.
        if one.get("enumDescriptions").is_none() && words.len() > 1 {
            found.insert(words);
        }
    });
    assert_eq!(found, known);
}

/// An editor shows the description at the key.
#[test]
fn every_key_has_a_description_and_valid_examples() {
    let schema = schema().to_value();
    let mut keys = 0;
    let mut examples = 0;
    each_schema(&schema, &mut |one| {
        if one["additionalProperties"] != json!(false) || one.get("patternProperties").is_some() {
            return;
        }
        for (key, property) in one["properties"].as_object().expect("it has keys") {
            // A file of a folder has the keys of a spec.
            if property["$ref"] == format!("#/properties/{key}") {
                continue;
            }
            let words = property["description"].as_str().unwrap_or_default();
            assert!(
                words.ends_with('.') && !words.contains('\n'),
                "{key}: {words:?}"
            );
            keys += 1;
            let one = json!({"definitions": schema["definitions"], "allOf": [property]});
            let validator = jsonschema::draft7::new(&one).expect("it is a schema");
            for example in property["examples"].as_array().into_iter().flatten() {
                assert_eq!(errors(&validator, example), [""; 0], "{key}: {example}");
                examples += 1;
            }
        }
    });
    assert!(
        keys > 80 && examples > 60,
        "{keys} keys, {examples} examples"
    );
}

/// An editor finds the schema where the page puts it.
#[test]
fn the_page_puts_the_schema_where_its_modeline_looks() {
    let text = page("docs/spec.md");
    let folder = tempfile::tempdir().expect("it can be made");
    let program = Path::new(env!("CARGO_BIN_EXE_nvactl"));
    let bin = program.parent().expect("it has one").display();
    let path = std::env::var("PATH").expect("there is one");
    let written = Command::new("sh")
        .args(["-euc", block(&text, "schema: write")])
        .current_dir(folder.path())
        .env("PATH", format!("{bin}:{path}"))
        .status();
    assert!(written.expect("it runs").success());
    let spec = block(&text, "schema: modeline");
    let modeline = spec.lines().next().expect("it has a line");
    let (_, named) = modeline.split_once("$schema=").expect("it is a modeline");
    let found = fs::read(folder.path().join(named)).expect("it is there");
    let found: Value = serde_json::from_slice(&found).expect("it is JSON");
    let validator = jsonschema::draft7::new(&found).expect("it is a schema");
    let spec = read(spec.as_bytes()).expect("it is YAML");
    assert_eq!(errors(&validator, &spec), [""; 0]);
}

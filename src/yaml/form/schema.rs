//! The JSON Schema of a spec.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::{Map, Value, json};

use super::rules::snat_of_forwards;
use super::spec::SpecForm;

/// Returns the JSON Schema of a spec. Two more kinds of file have theirs among its definitions: `folder-file`, one of
/// several files of a spec, and `test-file`, which `nvactl test --tests` reads.
///
/// It is of draft 7, which every editor reads: yaml-language-server shows the examples and the errors of this draft,
/// and reads later drafts only in part.
#[must_use]
pub fn schema() -> Schema {
    let mut schema = SchemaSettings::draft07()
        .with_transform(RecursiveTransform(one_line))
        .into_generator()
        .into_root_schema_for::<SpecForm>();
    let files = [
        ("folder-file", folder_file(&schema)),
        ("test-file", test_file()),
    ];
    let root = schema.ensure_object();
    root.insert("$id".to_owned(), json!("urn:nvactl:spec:1"));
    if let Some(Value::Object(definitions)) = root.get_mut("definitions") {
        definitions.extend(files.map(|(name, file)| (name.to_owned(), file)));
    }
    schema
}

/// Joins the lines of a description: an editor shows a line end of the source as a new paragraph.
fn one_line(schema: &mut Schema) {
    if let Some(Value::String(words)) = schema.get_mut("description") {
        *words = words.replace('\n', " ");
    }
}

/// Returns the schema of a file of a folder: it has any of the keys of a spec, but not none.
fn folder_file(spec: &Schema) -> Value {
    let properties = spec.get("properties").and_then(Value::as_object);
    let keys = properties.into_iter().flat_map(Map::keys);
    json!({
        "title": "file of an nvactl spec",
        "description": "One of several files of a spec, which lie in one folder.",
        "type": "object",
        "properties": keys.map(|key| (key.clone(), reference(key))).collect::<Map<_, _>>(),
        "minProperties": 1,
        "additionalProperties": false,
        "dependencies": {"forwards": snat_of_forwards()}
    })
}

/// Returns the schema of a file of tests.
fn test_file() -> Value {
    json!({
        "title": "tests of an nvactl spec",
        "description": "Connections, and the hosts that they must reach. `nvactl test --tests` reads the file.",
        "type": "object",
        "properties": {"networks": reference("networks"), "tests": reference("tests")},
        "required": ["tests"],
        "additionalProperties": false
    })
}

/// Returns the schema of a key of a spec.
fn reference(key: &str) -> Value {
    json!({"$ref": format!("#/properties/{key}")})
}

//! The schema of a spec in a validator that knows nothing of nvactl.

use jsonschema::Validator;
use nvactl::yaml::form::schema;
use serde_json::Value;

/// Returns the validator of a whole spec.
pub fn validator() -> Validator {
    jsonschema::draft7::new(&schema().to_value()).expect("it is a schema")
}

/// Returns the errors of a value, each with its place.
pub fn errors(validator: &Validator, value: &Value) -> Vec<String> {
    let errors = validator.iter_errors(value);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

//! `nvactl schema`: prints the JSON Schema of a spec.

use super::console::Console;
use super::error::Result;
use super::exit::Exit;
use crate::yaml::form::schema;

pub fn run(console: &mut Console) -> Result<Exit> {
    console.say_json(&schema())?;
    Ok(Exit::Done)
}

//! `nvactl check`: every problem of a spec, or silence.

use anyhow::Result;

use super::{Console, Exit, load_spec};
use crate::cli::Spec;

pub fn run(args: &Spec, console: &mut Console) -> Result<Exit> {
    load_spec(args.spec.as_deref(), console)?;
    Ok(Exit::Done)
}

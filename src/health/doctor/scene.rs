//! The facts that sentences about packets share.

use super::Case;
use crate::net::Family;
use crate::netfilter::backend::Backend;

/// The facts that a sentence about packets needs beside the twin's answers.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'s> {
    pub family: Family,
    /// The backend that is called.
    pub backend: Backend,
    pub ip_forward: bool,
    /// The command that applies the spec.
    pub apply: &'s str,
    /// The command that runs the doctor again.
    pub doctor: &'s str,
    /// A line that somebody added to nvactl's chains, with its table.
    pub put_in: Option<&'s str>,
}

impl<'s> Scene<'s> {
    pub(super) fn of(case: &'s Case<'_>, put_in: Option<&'s str>) -> Self {
        Self {
            put_in,
            family: case.family,
            backend: case.facts.backend,
            ip_forward: case.facts.ip_forward,
            apply: &case.apply,
            doctor: &case.doctor,
        }
    }
}

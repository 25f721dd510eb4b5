//! What an entry of the problem table becomes: a variant of `Code` and the variants of `ProblemKind`.
//! No problem is named here.

use std::ops::Range;

/// Bytes of the spec's text. A spec in several files counts through all of them (`places.rs`).
pub type Span = Range<usize>;

/// How severe a problem is, the most severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Every command refuses the spec.
    Error,
    /// Every command that reads the spec shows it; with `--deny`, `check` fails.
    Warning,
    /// `check --notes` shows it.
    Note,
}

/// The columns of the table that belong to a code.
pub(super) struct ProblemRow {
    pub(super) name: &'static str,
    pub(super) severity: Severity,
    pub(super) meaning: &'static str,
    pub(super) example: &'static str,
}

/// What a report says about a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// What is wrong, and why.
    pub text: String,
    /// The edit that fixes it.
    pub hint: String,
    /// The second place that the problem is about, and what stands there.
    pub other: Option<(Span, &'static str)>,
}

/// Defines `Code` and `ProblemKind` from one table, so that a problem without one of its parts does
/// not compile. Each entry has a code with its severity, meaning and example, and one or more kinds
/// of the problem with their data, text and hint. A kind may point at a second place of the spec.
macro_rules! problems {
    ($(
        $name:literal: $severity:ident, $code:ident {
            meaning: $meaning:literal,
            example: $example:literal,
            $(
                $kind:ident $({ $($field:ident: $type:ty),+ $(,)? })? => {
                    text: ($($text:tt)+),
                    hint: ($($hint:tt)+),
                    $(other: ($other:ident, $label:literal),)?
                }
            )+
        }
    )+) => {
        /// The stable name of a problem, for scripts, `--deny` and `silence:`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $($code,)+
        }

        impl Code {
            /// In the order of the table, which is the order of `check --list`.
            pub const ALL: [Code; [$($name),+].len()] = [$(Code::$code),+];

            pub(super) fn row(self) -> ProblemRow {
                match self {
                    $(Code::$code => ProblemRow {
                        name: $name,
                        severity: Severity::$severity,
                        meaning: $meaning,
                        example: $example,
                    },)+
                }
            }
        }

        /// What is wrong with a spec, with the values that the text and the hint name.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum ProblemKind {
            $($($kind $({ $($field: $type),+ })?,)+)+
        }

        impl ProblemKind {
            #[must_use]
            pub fn code(&self) -> Code {
                match self {
                    $($(ProblemKind::$kind { .. } => Code::$code,)+)+
                }
            }

            pub(super) fn words(&self) -> Words {
                match self {
                    $($(ProblemKind::$kind $({ $($field),+ })? => Words {
                        text: format!($($text)+),
                        hint: format!($($hint)+),
                        other: problems!(@other $($other $label)?),
                    },)+)+
                }
            }
        }
    };
    (@other) => { None };
    (@other $span:ident $label:literal) => { Some(($span.clone(), $label)) };
}

pub(super) use problems;

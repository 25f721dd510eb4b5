//! The demand for every test: `tests/run` and CI set `NVACTL_LAB=required`.

/// Returns whether a test that cannot run on this machine is a failure.
pub fn is_required() -> bool {
    std::env::var_os("NVACTL_LAB").is_some_and(|value| value == "required")
}

//! Directories of the user's that both programs look for, by variables.
#![forbid(unsafe_code)]

use std::path::PathBuf;

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Directory for what is kept for another time: CORACLE_CACHEDIR, or coracle in XDG_CACHE_HOME or ~/.cache. Nothing, if
/// none is set.
///
/// The password file is not asked: it knows another name for whoever is root in a user namespace.
pub fn cache() -> Option<PathBuf> {
    let directory = variable("CORACLE_CACHEDIR")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("coracle")))
        .or_else(|| Some(variable("HOME")?.join(".cache/coracle")))?;
    Some(std::path::absolute(&directory).unwrap_or(directory))
}

/// Directory for what is gone at the end: CORACLE_TMPDIR, TMPDIR, or /tmp.
pub fn scratch() -> PathBuf {
    ["CORACLE_TMPDIR", "TMPDIR"].into_iter().find_map(variable).unwrap_or_else(|| "/tmp".into())
}

//! Reads and changes the environment of a job on the node.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::env::names::{DIRECTORIES, passes_clean};
use crate::env::{Change, INSIDE, Item, OUTER, Pair, Record};
use coracle::report::Refusal;
use coracle::request::Settings;
use coracle::sys;
use nix::unistd::AccessFlags;

use super::system;

/// Parses a job's environment as the plugin sends it: `NAME=VALUE`, each followed by a NUL.
pub fn parse_pairs(bytes: &[u8]) -> Vec<Pair> {
    let pair = |variable: &[u8]| {
        let at = variable.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
        Some((OsString::from_vec(variable[..at].to_vec()), OsString::from_vec(variable[at + 1..].to_vec())))
    };
    bytes.split(|byte| *byte == 0).filter_map(pair).collect()
}

/// Changes that restore the node's environment, for a step on the node whose job script is in a container.
pub fn host_changes(host: &[Pair]) -> Result<OwnedFd, Refusal> {
    let mut changes = record(host).map(|record| undo(&record, host)).unwrap_or_default();
    changes.extend(INSIDE.iter().chain([&OUTER]).map(|name| Change::Unset(name.into())));
    sys::memory_file(&Change::to_bytes(&changes)).map_err(system)
}

/// Empty changes, for a step on the node whose job script is in no container.
pub fn no_changes() -> Result<OwnedFd, Refusal> {
    sys::memory_file(&Change::to_bytes(&[])).map_err(system)
}

/// Value of the first `name`, like getenv(3).
pub fn value(host: &[Pair], name: impl AsRef<OsStr>) -> Option<OsString> {
    host.iter().find(|(known, _)| known == name.as_ref()).map(|(_, value)| value.clone())
}

/// Record of the changes by the container around `host`, if there is one.
pub(super) fn record(host: &[Pair]) -> Option<Record> {
    value(host, OUTER).and_then(|text| Record::from_env(&text))
}

/// Directories that the job's variables name on the node, for the variables that a container with these settings keeps.
pub fn named_directories(host: &[Pair], settings: &Settings) -> Vec<PathBuf> {
    let nodes = record(host).map(|record| apply_changes(host, undo(&record, host)));
    let host = nodes.as_deref().unwrap_or(host);
    let clean = settings.clean_env == Some(true);
    let kept = |name: &str| settings.env.iter().any(|item| matches!(item, Item::Keep(kept) if kept == name));
    let told = DIRECTORIES.iter().filter(|name| !clean || passes_clean(name.as_bytes()) || kept(name));
    told.filter_map(|name| value(host, name)).map(PathBuf::from).collect()
}

/// Variables with a directory that this process cannot search or write.
pub(super) fn unusable_directories(host: &[Pair]) -> Vec<OsString> {
    let writable = |path: &Path| {
        let rights = AccessFlags::W_OK | AccessFlags::X_OK;
        path.is_absolute() && path.is_dir() && nix::unistd::access(path, rights).is_ok()
    };
    // Slurm or the job may create a missing directory, if the job can write its parent directory.
    let usable = |path: &Path| writable(path) || !path.exists() && path.parent().is_some_and(writable);
    let named = DIRECTORIES.iter().filter_map(|name| Some((name, value(host, name)?)));
    // An empty variable names no directory.
    named.filter(|(_, path)| !path.is_empty() && !usable(Path::new(path))).map(|(name, _)| name.into()).collect()
}

pub(super) fn undo(record: &Record, host: &[Pair]) -> Vec<Change> {
    record.undo(|name| value(host, name))
}

/// Applies changes to an environment.
pub fn apply_changes(host: &[Pair], changes: Vec<Change>) -> Vec<Pair> {
    let touched: HashSet<&OsStr> = changes.iter().map(Change::name).collect();
    let mut pairs: Vec<Pair> = host.iter().filter(|(name, _)| !touched.contains(name.as_os_str())).cloned().collect();
    pairs.extend(changes.into_iter().filter_map(|change| match change {
        Change::Set(name, value) => Some((name, value)),
        Change::Unset(_) => None,
        Change::Without(..) | Change::Numbered(..) => {
            let list = value(host, change.name())?;
            let new = change.of_list(&list).unwrap_or(list);
            Some((change.name().to_owned(), new))
        }
    }));
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jobs_environment_is_taken_apart_at_the_first_equals_sign() {
        let found = parse_pairs(b"A=1\0B==\0=x\0C\0D=\0");
        let shown: Vec<_> = found.iter().map(|(name, value)| format!("{name:?} {value:?}")).collect();
        assert_eq!(shown, [r#""A" "1""#, r#""B" "=""#, r#""D" """#]);
    }
}

//! Records the changes that a container makes to the environment of its tasks.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use coracle::env::{Entry, Pair, Record, is_name, names};

use super::environment::{Environment, Origin, first_of_each};

/// Variables that are always restored, regardless of their origin: they name files of the image.
const FIRST: [&str; 4] = ["PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "LD_AUDIT"];

/// Differences of `environment` from `host` because of the image `id`. Values that the user set with `--container-env`
/// or `APPTAINERENV_` are kept, except those that name files of the image: `PATH`, `LD_LIBRARY_PATH`, `LD_PRELOAD` and
/// `LD_AUDIT`.
pub fn record(id: &OsStr, host: &[Pair], environment: &Environment) -> Record {
    let host = first_of_each(host);
    let mut entries = Vec::new();
    let mut note = |name: &OsStr| {
        let inside = environment.get(name).map(|variable| variable.value.clone());
        let before = host.get(name).map(|value| (*value).to_owned());
        if inside != before && !names::is_slurms(name.as_bytes()) && is_name(name.as_bytes()) {
            entries.push((name.to_owned(), Entry { inside, before }));
        }
    };
    FIRST.iter().for_each(|name| note(OsStr::new(name)));
    for (name, variable) in environment.iter() {
        let users = matches!(variable.origin, Origin::Option | Origin::Prefixed);
        if !users && !is_first(name) {
            note(name);
        }
    }
    for name in host.keys() {
        if environment.get(name).is_none() && !is_first(name) {
            note(name);
        }
    }
    Record::new(id.to_owned(), entries)
}

fn is_first(name: &OsStr) -> bool {
    FIRST.iter().any(|first| name == *first)
}

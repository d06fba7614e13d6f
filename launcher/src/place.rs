//! Paths of the parts of an installation: beside this program, whatever the prefix is.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

/// Our program that runs inside containers.
pub fn helper() -> PathBuf {
    part("coracle-inside")
}

/// Our program that makes images.
pub fn images() -> PathBuf {
    part("coracle-images")
}

fn part(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let prefix = own.parent().and_then(Path::parent).unwrap_or(Path::new("/usr"));
    prefix.join("lib/coracle").join(name)
}
